"""procname: names of processes in ps, through a package that is imported only if it is asked for."""

import sys

import pytest

from corelet.base.config import Config
from corelet.process.title import ProcessTitle


@pytest.fixture
def titles(tmp_path, monkeypatch):
    """What a stand-in for the package setproctitle was given."""
    (tmp_path / "setproctitle.py").write_text("titles = []\nsetproctitle = titles.append\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "setproctitle", raising=False)
    yield lambda: sys.modules["setproctitle"].titles
    sys.modules.pop("setproctitle", None)


@pytest.mark.parametrize(
    ("options", "master", "worker"),
    [
        ({"auto_procname": True}, "corelet master", "corelet worker 2"),
        ({"procname": "app"}, "app", "app"),
        ({"procname": "app", "procname_master": "app master"}, "app master", "app"),
        ({"procname_master": "app master"}, "app master", "corelet worker 2"),
        ({"procname_prefix": "site:"}, "site:corelet master", "site:corelet worker 2"),
        ({"procname_prefix_spaced": "site"}, "site corelet master", "site corelet worker 2"),
        ({"procname_append": " (site)"}, "corelet master (site)", "corelet worker 2 (site)"),
        ({"procname": "app", "procname_prefix": "<", "procname_append": ">"}, "<app>", "<app>"),
    ],
)
def test_processes_are_named_as_the_options_say(titles, options, master, worker):
    title = ProcessTitle(Config(**options))
    title.master()
    title.worker(2)
    assert titles() == [master, worker]


def test_without_the_options_nothing_is_imported(titles, caplog):
    title = ProcessTitle(Config())
    title.master()
    title.worker(1)
    assert "setproctitle" not in sys.modules
    assert caplog.messages == []


def test_without_the_package_there_is_one_warning_that_says_what_to_install(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "setproctitle", None)  # what an import finds that is not to be found
    title = ProcessTitle(Config(procname="app", auto_procname=True))
    title.master()
    title.worker(1)
    assert caplog.messages == [
        "procname, auto-procname: processes keep their names, since the package setproctitle is not installed; "
        'pip install "corelet[procname]", or remove the option'
    ]
