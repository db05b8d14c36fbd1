"""Post-import hooks: called once, when the application imports the module, and never a reason to import it."""

from __future__ import annotations

import importlib
import logging
import sys

import pytest

from corelet.api.imports import Hooks


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a module, importable for the length of a test; returns its name."""
    name = "hooked_by_a_test"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "module.py").write_text("value = 1\nfrom importlib.resources import files\n")
    (folder / "data.txt").write_text("data")
    (folder / "broken.py").write_text("raise LookupError('its own')\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    yield name
    sys.meta_path[:] = before
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def test_a_hook_is_called_once_with_the_executed_module(package):
    seen = []
    Hooks({f"{package}.module": lambda module: seen.append(module.value)}).install()
    assert seen == []
    assert f"{package}.module" not in sys.modules
    module = importlib.import_module(f"{package}.module")
    assert seen == [1]
    del sys.modules[f"{package}.module"]
    importlib.import_module(f"{package}.module")
    assert seen == [1]
    assert module.__spec__.loader is module.__loader__


def test_what_a_hook_changes_is_there_for_who_imports_from_the_module(package):
    def change(module):
        module.value = 2

    Hooks({f"{package}.module": change}).install()
    namespace = {}
    exec(f"from {package}.module import value", namespace)
    assert namespace["value"] == 2


def test_the_hook_of_a_module_that_is_imported_already_is_called_at_once(package):
    importlib.import_module(f"{package}.module")
    seen = []
    Hooks({f"{package}.module": lambda module: seen.append(module.__name__)}).install()
    assert seen == [f"{package}.module"]


def test_the_module_has_its_own_loader_again(package):
    Hooks({package: lambda module: None}).install()
    importlib.import_module(package)
    from importlib.resources import files

    assert files(package).joinpath("data.txt").read_text() == "data"
    assert type(sys.modules[package].__loader__).__name__ == "SourceFileLoader"


def test_a_module_that_fails_fails_as_ever_and_its_hook_is_not_called(package):
    seen = []
    Hooks({f"{package}.broken": seen.append}).install()
    with pytest.raises(LookupError, match="its own"):
        importlib.import_module(f"{package}.broken")
    assert seen == []


def test_a_module_that_is_not_there_is_not_found(package):
    Hooks({f"{package}.absent": lambda module: None}).install()
    with pytest.raises(ModuleNotFoundError, match=r"hooked_by_a_test\.absent"):
        importlib.import_module(f"{package}.absent")


def test_a_hook_that_fails_is_logged_and_the_import_goes_on(package, caplog):
    def fails(module):
        raise AttributeError("its inside has changed")

    Hooks({f"{package}.module": fails}).install()
    with caplog.at_level(logging.ERROR, logger="corelet.api"):
        assert importlib.import_module(f"{package}.module").value == 1
    assert "hooked_by_a_test could not be made cooperative" in caplog.text
    assert "its inside has changed" in caplog.text
