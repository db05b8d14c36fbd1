"""The command `corelet`: from the words of a command line to a running server, or an order for one, and an exit code.

    corelet [options]              serve; or with --stop, --reload, --no-server, --show-config, --help what these say
    corelet control PLACE ORDER    tell a running server something, through its pid file or its fifo

The only module that prints and the only one that exits. What an operator did wrong is said in lines that begin with
`corelet: error:` and end with what to do, never with a traceback of ours; a traceback of the application goes before
its error as it is. What serving needs is imported only to serve: --help, mistakes and orders answer at once.
"""

# ruff: noqa: T201 - the one module that prints

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TextIO

from corelet import __version__
from corelet.base import leaving
from corelet.base.argv import configure
from corelet.base.config import OPTIONS, Config, Resolved
from corelet.base.errors import ConfigError, LoadError, OperatorError
from corelet.base.option import Kind, Option, Verdict

USAGE = """\
Usage: corelet [options] [FILE.ini[:SECTION]]
       corelet control PLACE ORDER              tell a running server; corelet control --help

  corelet --asyncio 10 --http-socket :9090 --greenlet --wsgi-file app.py
  corelet --socket 127.0.0.1:3031 --wsgi-file app.py            behind nginx: uwsgi_pass 127.0.0.1:3031;
  corelet --socket /run/app.sock --chmod-socket=660 --module project.wsgi:application
  corelet app.ini --processes 4                                 options of a file, and others
"""

FAILED_EXIT_CODE = 70  # EX_SOFTWARE (sysexits.h)

EXIT_CODES = f"""
Exit codes

  0    an ordered stop, or what was asked for is done
  1    the configuration, a socket or privileges
  22   the application cannot be loaded
  {FAILED_EXIT_CODE}   the server itself failed
"""

CONTROL_USAGE = """\
Usage: corelet control PLACE ORDER

PLACE is what a running server has made: its pid file (pidfile = FILE), through which signals are sent, or its fifo
(master-fifo = FILE), which takes every order. ORDER is one of:

"""

HELP_COLUMN = 38
HELP_WIDTH = 118

INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as a shell reports it

Serve = Callable[[Config, Callable[[], Resolved]], int]
"""What runs a configured server until it ends, and returns the exit code; it calls the second to read words and files
again."""


def run() -> None:
    """The console script: run the command line of this process and exit with its code."""
    code = main(sys.argv[1:])
    leaving.end(code)
    sys.exit(code)


def main(words: Sequence[str], serve: Serve | None = None) -> int:
    """Do what the command line (without the program's name) asks for, and return the exit code.

    `serve` is what runs a configured server; None takes corelet.process.start.
    """
    try:
        return control(words[1:]) if words and words[0] == "control" else _start(words, serve)
    except OperatorError as error:
        _complain(error, sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT_CODE
    except Exception as error:  # noqa: BLE001 - the outermost border: what nobody expected has an exit code too
        traceback.print_exc()
        print(f"corelet: error: the server itself failed: {error!r}; please report the lines above", file=sys.stderr)
        return FAILED_EXIT_CODE


def _start(words: Sequence[str], serve: Serve | None) -> int:
    # Remembered as they are now: an application that is loaded into the master may change both, and the words and the
    # files mean at a reload what they meant at the start.
    reconfigure = partial(configure, tuple(words), folder=_folder(), environ=dict(os.environ))
    resolved = reconfigure()
    config = resolved.config
    if _answered(resolved):
        return 0
    if not (config.no_server or _listens(config)):
        raise ConfigError("no socket is named: give --http-socket :9090, or --socket 127.0.0.1:3031 for nginx")
    for note in resolved.notes:
        print(f"corelet: note: {note}", file=sys.stderr)
    if config.no_server:
        return _try_out(config)
    return (serve or _server())(config, reconfigure)


def _answered(resolved: Resolved) -> bool:
    """Do what needs no server of ours; return whether that was all that is asked for."""
    config = resolved.config
    if config.help:
        print(help_text(), end="")
        return True
    if config.version:
        print(version_text())
        return True
    if config.show_config:
        print(config_text(resolved), end="")
    if config.stop is not None or config.reload is not None:
        from corelet.process import orders  # noqa: PLC0415

        if orders.is_order(config):
            print("\n".join(orders.carry_out(config)))
            return True
    return config.show_config and not (config.no_server or _listens(config))


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed: absolute names can still be meant
        return ""


def _listens(config: Config) -> bool:
    """Whether a socket is named, or was passed: by systemd, or by the master that this program takes over from."""
    named = config.socket or config.uwsgi_socket or config.http_socket
    activated = os.environ.get("LISTEN_FDS") and os.environ.get("LISTEN_PID") == str(os.getpid())
    return bool(named or activated or os.environ.get("CORELET_HANDOVER"))


def _server() -> Serve:
    from corelet.process.start import serve  # noqa: PLC0415

    return serve


def _try_out(config: Config) -> int:
    """--no-server: import what serving needs, and make a loop. Nothing is bound, nothing of the application loaded."""
    try:
        from corelet.process import master, single, start  # noqa: F401, PLC0415
        from corelet.process.prepare import try_out  # noqa: PLC0415
        from corelet.serving.worker import make_loop  # noqa: PLC0415
    except ImportError as error:
        raise OperatorError(f"{error}; install corelet again: pip install --force-reinstall corelet") from error
    make_loop(config).close()
    try_out(config)
    if not _listens(config):
        print("corelet: note: no socket is named, so only systemd's socket activation can start this", file=sys.stderr)
    print(f"corelet {__version__}: the configuration is good")
    return 0


def control(words: Sequence[str]) -> int:
    """`corelet control PLACE ORDER`: give a running server an order."""
    from corelet.process import orders  # noqa: PLC0415

    if {"-h", "--help"} & set(words):
        print(CONTROL_USAGE + orders.help_text(), end="")
        return 0
    if len(words) != 2:
        given = " ".join(words) or "nothing"
        raise OperatorError(f"control: expected PLACE ORDER; got {given}; corelet control --help tells what they are")
    print(orders.give(*words))
    return 0


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
    """The usage, every option of the table in its groups, and the exit codes."""
    lines = [USAGE]
    group = ""
    for row in OPTIONS:
        if row.group != group:
            group = row.group
            lines.append(f"\n{group}\n")
        lines.append(_help_of(row))
    return "".join([*lines, EXIT_CODES])


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
