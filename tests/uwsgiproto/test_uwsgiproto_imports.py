"""The package is bytes in, values out: it reaches for no socket, no loop, no log, and for nothing of the server."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import uwsgiproto

SOURCES = sorted(Path(uwsgiproto.__file__).parent.glob("*.py"))
ALLOWED = {"collections", "construct", "dataclasses", "enum", "types", "typing", "urllib", "uwsgiproto"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_module_imports_only_what_a_format_needs(source: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= ALLOWED


def test_importing_the_package_brings_no_loop_socket_or_log() -> None:
    program = (
        "import sys, uwsgiproto, uwsgiproto.client; "
        "print([name for name in ('asyncio', 'socket', '_socket', 'logging', 'corelet') if name in sys.modules])"
    )
    folder = Path(uwsgiproto.__file__).parents[1]
    found = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {program}"],
                           capture_output=True, text=True, check=True, timeout=30)  # fmt: skip
    assert found.stdout == "[]\n"


def test_only_the_constructs_import_construct() -> None:
    assert [source.name for source in SOURCES if "from construct" in source.read_text()] == ["packet.py"]
