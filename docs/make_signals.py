"""Make docs/signals.md from the tables of orders: `python docs/make_signals.py` writes it.

As docs/options.md the page is never written by hand: what the master obeys is declared once (corelet.process.fifo),
and a test compares the page in the repository with what this makes.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

from corelet.process.fifo import LETTERS, SAME, SIGNALS, Order

PAGE = Path(__file__).with_name("signals.md")

BEGINNING = """\
# Signals and the master-fifo

Made from the tables of orders by `python docs/make_signals.py`; do not edit.

Signals go to the master: `kill -HUP $(cat app.pid)`. Letters are written to a fifo that `--master-fifo FILE` makes:
`echo r > app.fifo`, and several at once, `echo ++s > app.fifo`. Only the owner of the fifo may write to it.

"""

HEAD = "| signal | letter | order | meaning | in uWSGI |\n|---|---|---|---|---|\n"

END = """
With `hook-master-start = unix_signal:15 gracefully_kill_them_all` and the like a signal gives another order: stop
(`gracefully_kill_them_all`), quit (`kill_them_all`), reload (`grace_them_all`) or brutal-reload (`reap_them_all`).
"""


def page() -> str:
    """The whole page as Markdown."""
    return BEGINNING + table(SIGNALS, LETTERS) + END


def table(signals: Mapping[int, Order], letters: Mapping[str, Order]) -> str:
    """One row for each order, in the order of the letters: its signals, its letters, and what uWSGI does with each."""
    names = dict.fromkeys(order.name for order in letters.values())
    return HEAD + "".join(_row(name, signals, letters) for name in names)


def _row(name: str, signals: Mapping[int, Order], letters: Mapping[str, Order]) -> str:
    by_signal = {f"`{signal.Signals(number).name}`": order for number, order in signals.items() if order.name == name}
    by_letter = {f"`{letter}`": order for letter, order in letters.items() if order.name == name}
    meaning = next(iter(by_letter.values())).meaning
    cells = (", ".join(by_signal), ", ".join(by_letter), name, meaning, _in_uwsgi({**by_signal, **by_letter}))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _in_uwsgi(orders: Mapping[str, Order]) -> str:
    """What uWSGI means: said once if it is one thing, and for each signal and letter otherwise."""
    meanings = {order.uwsgi for order in orders.values()}
    if meanings == {SAME}:
        return "means the same"
    if len(meanings) == 1:
        return f"differs: {meanings.pop()}"
    return "differs: " + "; ".join(f"{given} {order.uwsgi}" for given, order in orders.items())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
