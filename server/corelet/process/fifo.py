"""The master-fifo, into which an operator writes letters (`echo r > /run/app.fifo`), and the tables of what is obeyed.

LETTERS and SIGNALS have one Order for each letter and signal; its name is what the master knows the order by. The
letters are uWSGI's (uwsgi_fifo_table in core/fifo.c, 2.0.31), and two of our own that uWSGI leaves free. Every letter
of uWSGI is known, also those for what corelet does not have (an Emperor, subscriptions): a script that writes one gets
an explanation in the log and no "unknown letter". docs/signals.md is made from these tables.

The fifo is opened for reading and writing. One that is open for reading only ends whenever its last writer closes it;
uWSGI makes it anew at that moment, and what is written meanwhile is lost. Held open for writing by ourselves it never
ends. Whoever may write to it may stop the server, so it is made for its owner alone (0600, as in uWSGI). One that is
there already is used as it is, with the permissions it was given. One that was made here is removed at the end: writing
to a fifo that nobody reads blocks.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from corelet.base.errors import OperatorError
from corelet.base.logs import RateLimited

logger = logging.getLogger("corelet.process")

READ_BYTES = 65536  # what a pipe holds
BLANKS = " \t\r\n"  # echo writes a newline

# ---- the tables ----

SAME = "the same"


@dataclass(frozen=True)
class Order:
    """One order: the letter that gives it, its name, what it does, and what the letter or signal does in uWSGI.

    `has_effect` is false for what there is nothing to do for; `meaning` then says why.
    """

    letter: str
    name: str
    meaning: str
    uwsgi: str = SAME
    has_effect: bool = True


_RELOAD = "reads the configuration again and starts new workers; the old ones go once the new ones are ready"
_UNFINISHED = "but the old workers do not finish what they have begun"
_ONE_FIFO = "nothing: every fifo of master-fifo is read all the time"

_ORDERS = (
    Order("r", "reload", _RELOAD),
    Order("R", "brutal-reload", f"as reload, {_UNFINISHED}"),
    Order("w", "workers-reload", "starts new workers, with the configuration as it is"),
    Order("W", "brutal-workers-reload", f"as workers-reload, {_UNFINISHED}"),
    Order("c", "chain-reload", "replaces the workers one after the other"),
    Order("q", "stop", "stops; running requests may finish; given again, it hurries"),
    Order("Q", "quit", "stops at once"),
    Order("l", "reopen-log", "opens the log file again, after it was moved away"),
    Order("L", "reopen-log", "opens the log file again, after it was moved away", "moves the log file away itself"),
    Order("p", "pause", "accepts no more connections; given again, goes on"),
    Order("P", "pidfiles", "writes the pid files again"),
    Order("s", "stats", "writes statistics to the log"),
    Order("d", "workers", "writes the state of each worker to the log", "no such letter"),
    Order(
        "+",
        "more",
        "one worker more, up to four times processes; with cheaper up to processes",
        "the same, with cheaper only",
    ),
    Order("-", "fewer", "one worker fewer; one is left", "the same, with cheaper only"),
    Order("C", "cheap", "as few workers as there may be", "ends all workers until the next connection"),
    Order("x", "exec", "starts the master anew: new corelet, new interpreter, the same sockets", "no such letter"),
    Order("f", "reopen-fifo", "opens the fifo again, after its file was removed", "forks a second master"),
    *(Order(digit, "choose-fifo", _ONE_FIFO, "chooses which fifo is read", False) for digit in "0123456789"),
    Order("B", "reinforcements", "nothing: there is no Emperor", "asks the Emperor for reinforcements", False),
    Order("E", "rescan", "nothing: there is no Emperor", "has the Emperor look for new vassals", False),
    Order("S", "subscriptions", "nothing: there are no subscriptions", "stops and resumes subscriptions", False),
)

LETTERS: Mapping[str, Order] = {order.letter: order for order in _ORDERS}
"""What each letter of the master-fifo orders."""

SIGNALS: Mapping[int, Order] = {
    signal.SIGHUP: LETTERS["r"],
    signal.SIGTERM: replace(LETTERS["q"], uwsgi="reloads brutally; with die-on-term, stops at once"),
    signal.SIGINT: replace(LETTERS["q"], uwsgi="stops at once"),
    signal.SIGQUIT: replace(LETTERS["Q"], uwsgi="the same; with die-on-term, reloads brutally"),
    signal.SIGUSR1: LETTERS["s"],
    signal.SIGUSR2: replace(LETTERS["d"], uwsgi=SAME),
    signal.SIGTSTP: LETTERS["p"],
    signal.SIGTTIN: replace(LETTERS["+"], uwsgi="not used; gunicorn's meaning"),
    signal.SIGTTOU: replace(LETTERS["-"], uwsgi="not used; gunicorn's meaning"),
}
"""What each signal to the master orders; hook-master-start (process/hooks.py) may give some of them another order."""


# ---- the pipe ----


class MasterFifo:
    """One fifo. `reader` is the descriptor to wait for; its number stays the same for the object's life."""

    def __init__(self, path: str, *, ours: bool = False) -> None:
        """Make the fifo, or use the one that is there. Raises OperatorError.

        `ours` says that the one that is there was made by the program that this one has replaced (`made` of its
        object), so it is removed at the end all the same.
        """
        self.path = os.path.abspath(path)  # `chdir` comes later
        self.made = _make(self.path) or ours
        self.reader = _open(self.path)
        self._complaints = RateLimited(logger)

    def read(self) -> list[str]:
        """The names of the orders that were written since the last call, in order."""
        try:
            letters = os.read(self.reader, READ_BYTES).decode("latin-1")
        except BlockingIOError:
            return []
        orders = []
        for letter in letters:
            order = LETTERS.get(letter)
            if order is not None and order.has_effect:
                orders.append(order.name)
            elif order is not None:
                self._complain(order.letter, f"master-fifo {order.letter}: {order.meaning}")
            elif letter not in BLANKS:
                known = "".join(LETTERS)
                self._complain("", f"master-fifo {self.path}: {letter!r} is no order; the letters are {known}")
        return orders

    def _complain(self, key: str, text: str) -> None:
        level = logging.INFO if key else logging.WARNING
        self._complaints.log(time.monotonic(), ("master-fifo", self.path, key), level, "%s", text)

    def reopen(self) -> None:
        """Open the path again, and make it if somebody removed it. After an OperatorError the old one is still read."""
        made = _make(self.path)
        fresh = _open(self.path)
        os.dup2(fresh, self.reader, inheritable=False)
        os.close(fresh)
        self.made = self.made or made

    def close(self) -> None:
        """Close our end; for a worker, which has no use for it."""
        os.close(self.reader)

    def retire(self) -> None:
        """Close our end for good, and remove the file if it was made here and is still the same."""
        if self.made:
            with contextlib.suppress(OSError):
                mine, there = os.fstat(self.reader), os.lstat(self.path)
                if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                    os.unlink(self.path)
        self.close()


def check_fifo(path: str) -> None:
    """Raise OperatorError if a MasterFifo could not be made of this path, and leave no trace."""
    path = os.path.abspath(path)
    if os.path.lexists(path):
        os.close(_open(path))
    elif not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        there = os.path.isdir(os.path.dirname(path))
        raise _cannot_make(path, os.strerror(errno.EACCES if there else errno.ENOENT))


def _make(path: str) -> bool:
    """Make the fifo; false if something is there already."""
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise _cannot_make(path, error.strerror) from error
    return True


def _cannot_make(path: str, reason: str | None) -> OperatorError:
    return OperatorError(f"cannot make master-fifo {path}: {reason}; is there such a folder, and may we write there?")


def _open(path: str) -> int:
    """The descriptor of the fifo, which is not opened if it is something else: opening a device may do something."""
    try:
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            raise OperatorError(f"master-fifo {path}: something that is no fifo is there; remove it, or choose another")
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise OperatorError(
            f"cannot open master-fifo {path}: {error.strerror}; remove it, or let us read and write it"
        ) from error
