"""Signals of the master: handlers that do nothing, and a pipe that says which came. The only caller of signal.signal.

A signal may come between any two instructions of the interpreter; work done in a handler would run in the middle of
whatever the master does just then. So the interpreter writes the number into a pipe (signal.set_wakeup_fd, from the C
handler, so that not even a poll that is about to begin misses it), and the master reads it when it is ready to.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from types import FrameType

from corelet.base.errors import StopOrdered

MASTER_SIGNALS = (
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

# Asks a worker to write all its stacks (faulthandler). A real-time signal: no application has a meaning for it.
DUMP_SIGNAL = signal.SIGRTMIN + 6

Handler = Callable[[int, FrameType | None], object] | int | None


class SignalPipe:
    """The signals that have come, in their order. `reader` is the descriptor to wait for."""

    def __init__(self, numbers: Collection[int] = MASTER_SIGNALS) -> None:
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in numbers:
            signal.signal(number, _noted)
            signal.siginterrupt(number, False)
        # A full pipe holds 65,536 signals that nobody has read: more of them say nothing new.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        # A program that became this one by exec may have held signals back until somebody listens.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def read(self) -> list[int]:
        """Take what has come since the last call."""
        try:
            return list(os.read(self.reader, 65536))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Close the pipe; in a child, which has its own handlers already."""
        os.close(self.reader)
        os.close(self._writer)


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: the pipe has it."""


@contextlib.contextmanager
def held_back(numbers: Collection[int] | None = None) -> Iterator[None]:
    """None of these signals (None: of all) is delivered meanwhile; they come afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() if numbers is None else numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def back_to_default() -> None:
    """In a child that was just forked: nothing of the master's handling stays."""
    global _order  # noqa: PLW0603 - signals are the process's
    _order = None
    signal.set_wakeup_fd(-1)
    for number in MASTER_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def take_no_notice(*numbers: int) -> None:
    """Do nothing about these. A handler that does nothing, since ignoring them (SIG_IGN) would outlive an exec.

    Processes that the application forks have the default actions again: the worker's handlers are not theirs.
    """
    for number in numbers:
        signal.signal(number, _noted)
        signal.siginterrupt(number, False)


def back_to_default_unless_the_applications() -> None:
    """What the application forks begins with the default actions, where it has no handler of its own.

    It would share the pipe through which asyncio hears of signals: `terminate()` of a child would end the worker.
    """
    signal.set_wakeup_fd(-1)
    for number in MASTER_SIGNALS:
        handler = signal.getsignal(number)
        if getattr(handler, "__module__", "") in (__name__, "asyncio.unix_events", "uvloop.loop"):
            signal.signal(number, signal.SIG_DFL)


# -- before anybody listens --------------------------------------------------------------------------------------------

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

_order: StopOrdered | None = None


def end_by_exception() -> None:
    """A start: until other handlers are installed, signals that order the end raise StopOrdered where we are."""
    for number in (*ENDING, signal.SIGHUP):
        signal.signal(number, _ordered)


def raise_again() -> None:
    """Raise StopOrdered if that was done already, and somebody has caught it: an application catches everything."""
    if _order is not None:
        raise _order


def _ordered(number: int, frame: FrameType | None) -> None:
    global _order  # noqa: PLW0603 - signals are the process's
    _order = StopOrdered(number)
    raise _order


class _BrokenOff(BaseException):
    """Raised into what `breaking_off` has in it, and never out of it."""


def _break_off(number: int, frame: FrameType | None) -> None:
    raise _BrokenOff


@contextlib.contextmanager
def breaking_off(numbers: Collection[int] = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)) -> Iterator[None]:
    """Each of these leaves the block at once, wherever it is. The pipe has the signal all the same."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        try:
            for number in numbers:
                signal.signal(number, _break_off)
            yield
        finally:
            _put_back(before)
    except _BrokenOff:
        _put_back(before)  # it may have come in the middle of the first time


def _put_back(before: Mapping[int, Handler]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def let_come(numbers: Collection[int] = ENDING) -> Iterator[None]:
    """These signals come now, even if they were held back: while foreign code runs."""
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# -- when nobody listens any more --------------------------------------------------------------------------------------


def call(then: Callable[[], None]) -> None:
    """From now on each order to end calls this, between two instructions of whatever runs."""
    for number in ENDING:
        signal.signal(number, lambda _number, _frame: then())


class Overhearing:
    """Signals, heard by a thread before the loop hears of them: a loop that is blocked hears nothing.

    The interpreter tells of a signal through one descriptor, which the loop has taken. This one takes its place, and
    passes on what it reads. Handlers in Python are none here (uvloop's would count what the descriptor says once more).
    Where the application gives the loop a handler of its own, asyncio takes the descriptor back; the loop still hears
    of everything.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._further = -1

    def begin(self, numbers: Collection[int]) -> None:
        """Take the place of the running loop's descriptor, for all signals; these have their handlers already."""
        for number in numbers:
            signal.signal(number, _noted)
            signal.siginterrupt(number, False)
        further = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if further >= 0:
            self._further = os.dup(further)  # a loop that is closed later does not leave us a number of somebody else

    def read(self) -> list[int]:
        """Take what has come, and pass it on."""
        try:
            numbers = os.read(self.reader, 65536)
        except BlockingIOError:
            return []
        if self._further >= 0:
            with contextlib.suppress(OSError):
                os.write(self._further, numbers)
        return list(numbers)
