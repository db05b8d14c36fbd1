"""Every test that BEHAVIOUR.md names is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_test_that_behaviour_md_names_exists():
    there = {
        f"{path.stem}::{node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    text = (ROOT / "BEHAVIOUR.md").read_text(encoding="utf-8")
    named = {f"{file}::test_{name}" for file, name in re.findall(r"`(test_\w+)::(\w+)`", text)} - {
        "test_wire_chunked::test_name"
    }
    assert len(named) > 100
    assert sorted(named - there) == []
