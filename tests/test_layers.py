"""The architecture, as a test: imports point down only, and a few names are allowed in one place each."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "server" / "corelet"

# From the bottom up. A layer may import those before it, and itself.
LAYERS = ("uwsgiproto", "base", "wire", "wsgi", "serving", "api", "process", "cli")

# name -> the only files, below the root, that may import or call it
FENCES = {
    "construct": ("uwsgiproto/",),
    "greenlet": ("server/corelet/serving/cores.py",),
    "httptools": ("server/corelet/wire/http1.py",),
    "websockets": ("server/corelet/wire/websocket.py",),
    "uvloop": ("server/corelet/serving/worker.py",),
    "watchfiles": ("server/corelet/process/autoreload.py",),
    "redis": ("server/corelet/api/cache/redis.py",),
    "sqlite3": ("server/corelet/api/cache/embedded.py",),
    "setproctitle": ("server/corelet/process/title.py",),
}
CALLS = {
    "print": ("server/corelet/cli.py",),
    "sys.exit": ("server/corelet/cli.py",),
    "os.fork": ("server/corelet/process/forking.py",),
    "signal.signal": ("server/corelet/process/signals.py",),
    "subprocess.Popen": (),
    "subprocess.run": (),
}


def sources() -> list[Path]:
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "uwsgiproto").glob("*.py")])


def layer_of(path: Path) -> str | None:
    """The layer of a file; None for the package's own face (__init__, __main__), which only forwards."""
    if path.is_relative_to(ROOT / "uwsgiproto"):
        return "uwsgiproto"
    parts = path.relative_to(PACKAGE).parts
    if len(parts) > 1:
        return parts[0]
    return "cli" if parts[0] == "cli.py" else None


def imported(tree: ast.AST) -> set[str]:
    """Every module that is imported, functions' own imports included, but not those for the type checker."""
    checked = {
        id(node)
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and "TYPE_CHECKING" in ast.dump(guard.test)
        for part in guard.body
        for node in ast.walk(part)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_only(path):
    own = layer_of(path)
    if own is None:
        return
    allowed = LAYERS[: LAYERS.index(own) + 1]
    for name in imported(ast.parse(path.read_text())):
        head, _, rest = name.partition(".")
        if head == "uwsgiproto":
            assert "uwsgiproto" in allowed
        elif head == "corelet" and rest and rest.split(".")[0] in LAYERS:
            assert rest.split(".")[0] in allowed, f"{own} must not import {name}"
        if own == "uwsgiproto":
            assert head not in ("corelet", "asyncio", "socket", "logging"), f"uwsgiproto must not import {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_fences_hold(path):
    where = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text())
    for name in imported(tree):
        for fenced, places in FENCES.items():
            if name.split(".")[0] == fenced:
                assert where.startswith(places), f"{fenced} is imported in {where}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS:
                assert where in CALLS[called], f"{called} is called in {where}"


def test_the_server_folder_is_a_source_root_and_no_package():
    """Users' own files are often called server.py: a package importable as `server` would break `server:app`."""
    assert not (ROOT / "server" / "__init__.py").exists()


def test_the_layer_test_finds_the_sources():
    assert {layer_of(path) for path in sources()} >= set(LAYERS) - {"api"}
