"""Waiting for another process to let go of the store, without stopping a loop.

A core is suspended, a thread sleeps, and whoever would stop the loop (a callback, a coroutine) waits two milliseconds.
A writer may have been stopped in the middle of its work (SIGSTOP, a debugger), so there is an end to all patience.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from corelet.api import bridge
from corelet.serving.cores import current_core

PATIENCE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.0005
LONGEST_PAUSE_SECONDS = 0.02

# In a callback of the loop. Two writes at the same moment are the usual case, and one takes some 20 µs.
SHORT_PAUSE_SECONDS = 0.0005
SHORT_TRIES = 4


def pauses() -> Iterator[None]:
    """Each step waits a little longer; it ends when one has waited long enough."""
    core = current_core()
    if core is not None and core.is_current():
        yield from _growing(bridge.sleep)
    elif _in_a_running_loop():
        for _ in range(SHORT_TRIES):
            time.sleep(SHORT_PAUSE_SECONDS)
            yield
    else:
        yield from _growing(time.sleep)


def let_others_run() -> None:
    """Between two pieces of a longer work: in a core, a turn of the loop."""
    core = current_core()
    if core is not None and core.is_current():
        bridge.sleep(0)


def _growing(sleep: Callable[[float], None]) -> Iterator[None]:
    pause = FIRST_PAUSE_SECONDS
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        sleep(pause)
        yield
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _in_a_running_loop() -> bool:
    """In this thread: a callback, a coroutine, or a child greenlet of a core, whose thread is the loop's."""
    return current_core() is not None or asyncio._get_running_loop() is not None
