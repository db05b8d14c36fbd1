"""The clock of a process that serves alone: by when it has ended, whatever runs in it.

Workers have their master, who kills those who do not end. Alone, a view that blocks the loop kept the process alive
through every order, SIGQUIT too: the loop, which blocks, is who hears of signals. So a thread hears of them first. It
gives no orders; it only ends the process when the loop and the application had time enough to do that.

It cannot run while code holds the interpreter's lock all the time. SIGKILL remains for that.
"""

from __future__ import annotations

import logging
import math
import select
import signal
import threading
from collections.abc import Callable
from time import monotonic
from typing import NoReturn

from corelet.base import leaving
from corelet.process.signals import Overhearing

logger = logging.getLogger("corelet")

ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

GRACE_SECONDS = 5.0  # beyond the mercy: for `finally` blocks, tasks that are cancelled, handlers of atexit
AT_ONCE_SECONDS = 1.0  # a loop that is not blocked ends sooner


def time_to_end(orders: int, number: int, mercy_seconds: float) -> float:
    """Seconds from the signal `number`, the `orders`-th in order, to the last moment."""
    if number == signal.SIGQUIT or orders >= 3:
        return AT_ONCE_SECONDS
    return GRACE_SECONDS + (mercy_seconds if orders == 1 else 0.0)


class Clock:
    """Started by `begin`, in the loop that runs. `leave` is what ends the process in the end."""

    def __init__(self, mercy_seconds: float, leave: Callable[[], NoReturn]) -> None:
        self._mercy_seconds = mercy_seconds
        self._leave = leave
        self._orders = 0
        self._end_at = math.inf
        self._overhearing = Overhearing()
        self._thread = threading.Thread(target=self._run, name="corelet-clock", daemon=True)

    def begin(self) -> None:
        """Hear of signals from now on."""
        self._overhearing.begin(ORDERS)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._overhearing.reader, select.POLLIN)
        while (left := self._end_at - monotonic()) > 0:
            if poll.poll(None if left == math.inf else left * 1000):
                for number in self._overhearing.read():
                    self._note(number)
        logger.warning("not ended by itself until now; this process is left (a blocked loop?)")
        self._leave()

    def _note(self, number: int) -> None:
        if number not in ORDERS or (number == signal.SIGHUP and self._orders):
            return  # as in single.py: a SIGHUP behind another is no second order
        self._orders += 1
        if self._orders > 1 or number == signal.SIGQUIT:
            leaving.hurry()
        self._end_at = min(self._end_at, monotonic() + time_to_end(self._orders, number, self._mercy_seconds))
