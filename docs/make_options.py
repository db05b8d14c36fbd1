"""Make docs/options.md from the option table: `python docs/make_options.py` writes it.

The page is never written by hand: an option is declared once (corelet.base.option says how), and whatever tells people
about options reads that declaration. A test compares the page in the repository with what this makes, so an option
that changes without its page fails there. It is a script and no module of the server, which has no use for Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from corelet.base.config import OPTIONS
from corelet.base.option import Kind, Option, Verdict
from corelet.cli import value_text

PAGE = Path(__file__).with_name("options.md")

BEGINNING = """\
# Options

Made from the option table by `python docs/make_options.py`; do not edit. `corelet --help` prints the same table, and
`corelet --show-config …` prints every option with the value it has and where that came from.

Names and forms are those of uWSGI's command line:

    --option value      --option=value      --opt value            a beginning that only one option has
    --flag              --flag=false        --some_option          underscores are dashes
    -s :3031            -s:3031             -ML                    letters, flags in a cluster
    --chmod-socket      --chmod-socket=660  --chmod-socket 660     an optional value
    --ini app.ini       app.ini             app.ini:production     the options of a file, or of its section

An option given twice has its last value; one marked *repeatable* gathers them. An unknown option is an error that
names the nearest one. `UWSGI_*` variables are not read in this version.

An ini file has the same options without dashes, in a section `[uwsgi]` or `[corelet]` or in the one that is named:

    [uwsgi]
    ; a comment has a line of its own
    base = /srv/app
    chdir = %(base)
    module = site.wsgi:application
    http-socket = :$(PORT)
    master
    vacuum = true
    env = A=1
    env = B=100%%

A key alone is a flag. `%(base)` is the value of a key above, which may be one of your own; `$(PORT)` is a variable of
the environment, `%%` a percent sign. The options count in the place where the file is named, so one that is written
after the file overrides it. A reload reads the files again. uWSGI's other placeholders (`%d`, `%n`, …), conditions,
loops, includes and files of other formats are errors in this version, and never ignored.

Addresses are `host:port`, `:port` (every IPv4 address), `[::1]:port`, `/path/app.sock`, and `@name` for an abstract
unix socket. Times are seconds and may have a fraction.
"""


def page(options: Iterable[Option]) -> str:
    """The whole page as Markdown: one table for each group of the options, in the order of declaration."""
    parts = [BEGINNING]
    for group, rows in groupby(options, key=lambda row: row.group):
        parts.append(f"## {group}\n\n| option | value | default | |\n|---|---|---|---|\n" + "".join(map(_line, rows)))
    return "\n".join(parts)


def _line(row: Option) -> str:
    names = ([f"-{row.short}"] if row.short else []) + [f"--{name}" for name in row.names]
    cells = (", ".join(f"`{name}`" for name in names), _value(row), _default(row), _meaning(row))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _value(row: Option) -> str:
    if row.kind is Kind.FLAG:
        return ""
    value = " or ".join(f"`{choice}`" for choice in row.choices) or f"`{row.metavar or row.kind.value}`"
    if row.kind is Kind.LIST:
        return f"{value}, repeatable"
    return value if row.bare is None else f"{value}, optional"


def _default(row: Option) -> str:
    """The default as one would write it; nothing for a flag that is off and for what is not set."""
    if row.default in (None, ()) or row.default is False:
        return ""
    return "on" if row.default is True else f"`{value_text(row, row.default)}`"


def _meaning(row: Option) -> str:
    return row.help if row.verdict is Verdict.WORKS else f"{row.help}. *Accepted, no effect: {row.why}.*"


if __name__ == "__main__":
    PAGE.write_text(page(OPTIONS), encoding="utf-8")
