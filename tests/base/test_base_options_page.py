"""docs/options.md says what the option table says."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from corelet.base.config import OPTIONS
from corelet.base.option import Kind, option, options_of

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def page():
    return runpy.run_path(str(DOCS / "make_options.py"))["page"]


def test_the_page_is_what_the_table_makes(page):
    made = page(OPTIONS)
    written = (DOCS / "options.md").read_text(encoding="utf-8")
    assert written == made, "the option table has changed: run `python docs/make_options.py`"


def test_the_page_names_every_option_by_all_its_names(page):
    made = page(OPTIONS)
    for row in OPTIONS:
        assert all(f"`--{name}`" in made for name in row.names)
        assert not row.short or f"`-{row.short}`, " in made


def test_a_row_has_names_value_default_and_meaning(page):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Few:
        """A few."""

        word: str = option(kind=Kind.CHOICE, short="w", default="a", choices=("a", "b"), help="a|b")
        mode: int | None = option(kind=Kind.MODE, bare=0o666, metavar="MODE", help="rights")
        folder: tuple[str, ...] = option(kind=Kind.LIST, metavar="FOLDER", help="where")
        flag: bool = option(kind=Kind.FLAG, default=True, help="a flag", accepted="it is so anyway")

    assert page(options_of(Few)).endswith(
        "## A few\n\n"
        "| option | value | default | |\n"
        "|---|---|---|---|\n"
        "| `-w`, `--word` | `a` or `b` | `a` | a\\|b |\n"
        "| `--mode` | `MODE`, optional |  | rights |\n"
        "| `--folder` | `FOLDER`, repeatable |  | where |\n"
        "| `--flag` |  | on | a flag. *Accepted, no effect: it is so anyway.* |\n"
    )
