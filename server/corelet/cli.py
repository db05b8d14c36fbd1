"""The command `corelet`: from the words of a command line to a running server, and to an exit code.

The only module that prints and the only one that exits. What an operator did wrong is said in lines that begin with
`corelet: error:` and end with what to do, never with a traceback of ours; a traceback of the application follows its
error as it is.
"""

# ruff: noqa: T201 - the one module that prints

from __future__ import annotations

import importlib.metadata
import platform
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TextIO

from corelet import __version__
from corelet.base.argv import configure
from corelet.base.config import OPTIONS, Config, Resolved
from corelet.base.errors import ConfigError, LoadError, OperatorError
from corelet.base.option import Kind, Option, Verdict

USAGE = """\
Usage: corelet [options]

  corelet --asyncio 10 --http-socket :9090 --greenlet --wsgi-file app.py
  corelet --socket 127.0.0.1:3031 --wsgi-file app.py            behind nginx: uwsgi_pass 127.0.0.1:3031;
  corelet --socket /run/app.sock --chmod-socket=660 --module project.wsgi:application
"""

HELP_COLUMN = 38
HELP_WIDTH = 118

INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as a shell reports it


def run() -> None:
    """The console script: run the command line of this process and exit with its code."""
    sys.exit(main(sys.argv[1:]))


def main(words: Sequence[str], serve: Callable[[Config], int] | None = None) -> int:
    """Do what the command line (without the program's name) asks for, and return the exit code.

    `serve` is what runs a configured server until it ends; None takes corelet.process.single.
    """
    try:
        resolved = configure(words)
        config = resolved.config
        if config.help:
            print(help_text(), end="")
            return 0
        if config.version:
            print(version_text())
            return 0
        if config.show_config:
            print(config_text(resolved), end="")
            if not _listens(config):
                return 0
        if not _listens(config):
            raise ConfigError("no socket is named: give --http-socket :9090, or --socket 127.0.0.1:3031 for nginx")
        for note in resolved.notes:
            print(f"corelet: note: {note}", file=sys.stderr)
        return (serve or _server())(config)
    except OperatorError as error:
        _complain(error, sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT_CODE


def _listens(config: Config) -> bool:
    return bool(config.socket or config.uwsgi_socket or config.http_socket)


def _server() -> Callable[[Config], int]:
    # Here and not above: --help and mistakes answer at once, without an event loop, greenlets or an HTTP parser.
    from corelet.process.single import serve  # noqa: PLC0415

    return serve


def _complain(error: OperatorError, stream: TextIO) -> None:
    if isinstance(error, LoadError) and error.detail:
        print(error.detail, file=stream)
    for line in str(error).splitlines():
        print(f"corelet: error: {line}", file=stream)


# ---- what is printed, as text ----


def version_text() -> str:
    """One line: corelet's version and those of what it stands on."""
    return (
        f"corelet {__version__} ({platform.python_implementation()} {platform.python_version()}, "
        f"greenlet {importlib.metadata.version('greenlet')})"
    )


def help_text() -> str:
    """The usage and every option of the table, in its groups."""
    lines = [USAGE]
    group = ""
    for row in OPTIONS:
        if row.group != group:
            group = row.group
            lines.append(f"\n{group}\n")
        lines.append(_help_of(row))
    return "".join(lines)


def _help_of(row: Option) -> str:
    value = row.metavar or ("|".join(row.choices) if row.kind is Kind.CHOICE else row.kind.value)
    usage = "" if row.kind is Kind.FLAG else f"[={value}]" if row.bare is not None else f" {value}"
    names = ", ".join(([f"-{row.short}"] if row.short else []) + [f"--{name}" for name in row.names]) + usage
    text = row.help
    if row.kind is Kind.LIST:
        text += " (repeatable)"
    if row.verdict is Verdict.ACCEPTED:
        text += f" (accepted, no effect: {row.why})"
    elif row.default not in (None, (), False):
        text += f" [{value_text(row, row.default)}]"
    wrapped = textwrap.wrap(text, HELP_WIDTH - HELP_COLUMN)
    first = f"  {names}"
    if len(first) >= HELP_COLUMN - 1:
        return f"{first}\n" + "".join(f"{'':{HELP_COLUMN}}{line}\n" for line in wrapped)
    return f"{first:{HELP_COLUMN}}{wrapped[0]}\n" + "".join(f"{'':{HELP_COLUMN}}{line}\n" for line in wrapped[1:])


def value_text(row: Option, value: object) -> str:
    """A value as one would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if row.kind is Kind.MODE and isinstance(value, int):
        return f"{value:o}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def config_text(resolved: Resolved) -> str:
    """Every option with its value and its origin, in the form of a configuration file; what is not set is a comment."""
    lines = ["[corelet]\n"]
    for row in OPTIONS:
        value = getattr(resolved.config, row.field)
        origin = resolved.origins[row.field]
        note = f"; {origin}" + (f", no effect: {row.why}" if row.verdict is Verdict.ACCEPTED else "")
        if value is None or value == ():
            lines.append(f";{row.name} =\n")
            continue
        for item in value if isinstance(value, tuple) else (value,):
            lines.append(f"{f'{row.name} = {value_text(row, item)}':{HELP_COLUMN}} {note}\n")
    return "".join(lines)
