"""docs/signals.md says what the tables of orders say."""

import re
import runpy
import signal
from pathlib import Path

import pytest

from corelet.process.fifo import LETTERS, SIGNALS, Order
from corelet.process.hooks import ORDER_OF_FUNCTION

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def make():
    return runpy.run_path(str(DOCS / "make_signals.py"))


def test_the_page_is_what_the_tables_make(make):
    written = (DOCS / "signals.md").read_text(encoding="utf-8")
    assert written == make["page"](), "the tables of orders have changed: run `python docs/make_signals.py`"


def test_the_page_names_every_signal_letter_order_and_function(make):
    page = make["page"]()
    for number, order in SIGNALS.items():
        assert re.search(
            rf"^\| [^|]*`{signal.Signals(number).name}`[^|]*\| [^|]*\| {order.name} \|", page, re.MULTILINE
        )
    for letter, order in LETTERS.items():
        assert re.search(rf"^\| [^|]*\| [^|]*`{re.escape(letter)}`[^|]*\| {order.name} \|", page, re.MULTILINE)
    for function, name in ORDER_OF_FUNCTION.items():
        assert f"{name}\n(`{function}`)" in page or f"{name} (`{function}`)" in page


def test_a_row_has_all_ways_to_give_one_order_and_where_uwsgi_differs(make):
    same, other = Order("a", "go", "goes"), Order("b", "go", "goes", "stays")
    alone = Order("c", "halt", "this | that", "does both")
    letters = {"a": same, "b": other, "c": alone, "d": Order("d", "rest", "rests")}
    assert make["table"]({signal.SIGHUP: same, signal.SIGINT: other}, letters) == (
        "| signal | letter | order | meaning | in uWSGI |\n"
        "|---|---|---|---|---|\n"
        "| `SIGHUP`, `SIGINT` | `a`, `b` | go | goes | "
        "differs: `SIGHUP` the same; `SIGINT` stays; `a` the same; `b` stays |\n"
        "|  | `c` | halt | this \\| that | differs: does both |\n"
        "|  | `d` | rest | rests | means the same |\n"
    )
