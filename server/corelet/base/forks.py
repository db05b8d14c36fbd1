"""Processes that the application forks. They are copies of this one, and must never become a second server.

os.fork() in a view, or at the import of a module, copies everything: the listening sockets, the clients' connections,
the loop with its epoll, the channel to the master, and the frames above the application, whose `finally` blocks remove
the files of the server. So in such a child, before os.fork() returns there:

* what belongs to the server is let go (`belongs`): a client sees the end of its reply though the child lives on;
* the child is marked. Wherever it would come back into the server's code it leaves by os._exit (`leave`), with the code
  that a plain Python program would have ended with.

It costs nothing where nobody forks. Processes that the server makes itself are none of these (`our_own`), and programs
that are started (subprocess, posix_spawn) do not come by here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import NoReturn

from corelet.base import leaving

logger = logging.getLogger("corelet")

FAILED_EXIT_CODE = 1  # Python's, after a traceback

_ALL_SIGNALS = signal.valid_signals()

_left_behind: list[Callable[[], None]] = []
_watching = False
_is_fork = False
_held: dict[int, set[int | signal.Signals]] = {}  # the signals that threads which just fork held back before, too
_forking: int | None = None  # the thread that makes a process of the server's own


def belongs(leave_behind: Callable[[], None]) -> None:
    """Call this in each process that the application forks from ours, to let go of what is the server's."""
    global _watching  # noqa: PLW0603 - hooks of os.fork() are the process's, and cannot be taken back
    _left_behind.append(leave_behind)
    if not _watching:
        _watching = True
        os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_come, after_in_child=_in_child)


def is_fork() -> bool:
    """Whether the application has made this process."""
    return _is_fork


@contextlib.contextmanager
def our_own() -> Iterator[None]:
    """What this thread forks meanwhile is the server's own; nothing belongs to it yet."""
    global _forking  # noqa: PLW0603 - see above
    _forking = threading.get_ident()
    try:
        yield
    finally:
        _forking = None


def _hold_signals() -> None:
    """One that comes to the child before it has left our handlers behind would be told to us: they share a pipe."""
    _held[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)


def _let_signals_come() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.pop(threading.get_ident(), ()))


def _in_child() -> None:
    try:
        _leave_behind()
    finally:
        _let_signals_come()


def _leave_behind() -> None:
    global _is_fork  # noqa: PLW0603 - see above
    left_behind = _left_behind.copy()
    _left_behind.clear()
    if _forking == threading.get_ident():
        return
    _is_fork = True
    for leave_behind in left_behind:
        try:
            leave_behind()
        except Exception:  # the border of os.fork(), which would drop it, and the application's child with all the rest
            logger.exception("process %d, which the application forked, keeps something of the server's", os.getpid())


def let_go(descriptors: Iterable[int], loops: Iterable[int] = ()) -> None:
    """Open these to nowhere, and those of epolls to one that nobody else knows.

    Closing them would free their numbers, for whatever the application opens next; objects that still hold a number
    would then read it, or close it.
    """
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors:
        if descriptor >= 0:
            os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)
    for descriptor in loops:
        with contextlib.closing(select.epoll()) as fresh:
            os.dup2(fresh.fileno(), descriptor, inheritable=False)


def leave(error: BaseException | None = None, trace: TracebackType | None = None) -> NoReturn:
    """In such a process: end it. `error` is what brought it here, None if it simply came back."""
    leaving.grant(math.inf)  # its threads are its own
    if error is None:
        logger.warning(
            "process %d, which the application forked, came back to the server; it ends here: let it end by os._exit()",
            os.getpid(),
        )
        leaving.leave(0)
    if isinstance(error, SystemExit):
        leaving.leave(leaving.code_of(error))
    what = (type(error), error, trace or error.__traceback__)
    logger.error("process %d, which the application forked, failed", os.getpid(), exc_info=what)
    leaving.leave(FAILED_EXIT_CODE)
