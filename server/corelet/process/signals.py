"""Signals of the master: handlers that do nothing, and a pipe that says which came. The only caller of signal.signal.

A signal may come between any two instructions of the interpreter; work done in a handler would run in the middle of
whatever the master does just then. So the interpreter writes the number into a pipe (signal.set_wakeup_fd, from the C
handler, so that not even a poll that is about to begin misses it), and the master reads it when it is ready to.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from types import FrameType

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
def held_back() -> Iterator[None]:
    """No signal is delivered meanwhile; they come afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def back_to_default() -> None:
    """In a child that was just forked: nothing of the master's handling stays."""
    signal.set_wakeup_fd(-1)
    for number in MASTER_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def ignore(*numbers: int) -> None:
    """Take no notice of these any more."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
