"""Orders for a running server, given from another process: by a letter into its fifo, or by a signal to its pid file.

What `corelet control`, `--stop` and `--reload` do. Which letter and signal stands for which order is in fifo.py; here
is only how one gets there, and what to say when it does not. A fifo that nobody reads would keep a writer waiting for
ever, so it is never waited for.
"""

from __future__ import annotations

import difflib
import errno
import os
import signal
import stat
import textwrap
from collections.abc import Callable

from corelet.base.config import Config
from corelet.base.errors import OperatorError
from corelet.process.fifo import LETTERS, SIGNALS, Order
from corelet.process.pidfile import is_master, signal_by_file

EXEC_WORDS = ("exec", "workers")
"""What `reload` may say beside a pid file: then it is an option of the server, and no order for one."""

BY_NAME: dict[str, Order] = {order.name: order for order in reversed(list(LETTERS.values())) if order.has_effect}
"""Every order that can be given, by its name; of two letters for one order the first."""

SIGNAL_OF: dict[str, int] = {SIGNALS[number].name: number for number in reversed(list(SIGNALS))}
"""The signal of an order by its name; of two the first."""

NEED_A_MASTER = {
    "reload": "start new workers",  # SIGHUP ends a server without a master, as a closed terminal does
    "more": "start a worker",
    "fewer": "end a worker",
}

EXPECTED = "expected the pid file or the fifo (master-fifo) of a running server"


def is_order(config: Config) -> bool:
    """Whether the command line is an order for a running server (--stop, --reload PIDFILE) and not one to serve."""
    return config.stop is not None or (config.reload is not None and config.reload not in EXEC_WORDS)


def carry_out(config: Config) -> list[str]:
    """Do what --stop and --reload say; returns a line about each. Raises OperatorError."""
    done = []
    if config.stop is not None:
        # uWSGI's --stop sends SIGINT. Both are the same order here; SIGTERM is the one that nobody takes for a Ctrl-C.
        done.append(_signalled(config.stop, signal.SIGTERM, "stop"))
    if config.reload is not None and config.reload not in EXEC_WORDS:
        done.append(_signalled(config.reload, signal.SIGHUP, "reload"))
    return done


def give(place: str, name: str) -> str:
    """Give one order by its name, through a pid file or a fifo; returns a line about it. Raises OperatorError."""
    order = BY_NAME.get(name)
    if order is None:
        close = difflib.get_close_matches(name, BY_NAME, n=1)
        advice = f"did you mean {close[0]}?" if close else "corelet control --help lists them"
        raise OperatorError(f"{name} is no order; {advice}")
    if _is_fifo(place):
        _write(place, order.letter)
        return f"wrote {order.letter} to {place}: {name}"
    number = SIGNAL_OF.get(name)
    if number is None:
        raise OperatorError(f"{name}: no signal means this; only a fifo (master-fifo) takes it, and {place} is none")
    return f"told process {signal_by_file(place, number, _refuse_without_master(place, name))}: {name} ({place})"


def help_text() -> str:
    """Every order with its letter, its signal and its meaning."""
    lines = []
    for name, order in sorted(BY_NAME.items(), key=lambda item: list(LETTERS).index(item[1].letter)):
        sign = signal.Signals(SIGNAL_OF[name]).name if name in SIGNAL_OF else ""
        begin = f"  {name:22}{order.letter}  {sign:9}"
        lines.append(textwrap.fill(order.meaning, 118, initial_indent=begin, subsequent_indent=" " * len(begin)))
    return "\n".join(lines) + "\n"


def _signalled(path: str, number: int, what: str) -> str:
    return f"told process {signal_by_file(path, number, _refuse_without_master(path, what))} to {what} ({path})"


def _refuse_without_master(place: str, name: str) -> Callable[[int], None]:
    """Raises OperatorError for an order that only a master carries out, if the process is known to be none."""

    def refuse(pid: int) -> None:
        if name in NEED_A_MASTER and not is_master(pid):
            raise OperatorError(
                f"{place}: process {pid} serves without a master, so there is nobody to {NEED_A_MASTER[name]}; stop it "
                f"(corelet --stop {place}) and start it with --master; nothing was ordered"
            )

    return refuse


def _is_fifo(place: str) -> bool:
    """Whether it is a fifo; if not, it is a regular file. Raises OperatorError for anything else."""
    try:
        mode = os.stat(place).st_mode
    except OSError as error:
        raise OperatorError(f"{place}: {EXPECTED}; got {error.strerror!r}; is the server running?") from error
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        what = "a folder" if stat.S_ISDIR(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise OperatorError(f"{place}: {EXPECTED}; got {what}; name what pidfile or master-fifo names")
    return stat.S_ISFIFO(mode)


def _write(place: str, letter: str) -> None:
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = "nobody reads this fifo: the server has ended" if error.errno == errno.ENXIO else error.strerror
        raise OperatorError(f"{place}: {why}; nothing was ordered") from error
    try:
        os.write(descriptor, letter.encode("ascii"))
    except OSError as error:  # it is full: nobody has read it for long
        raise OperatorError(f"{place}: {error.strerror}; nothing was ordered; does the server still answer?") from error
    finally:
        os.close(descriptor)
