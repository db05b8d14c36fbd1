"""The selector under asyncio's loop, with two things that asyncio's own has not.

It marks when the loop works and when it waits. A loop that has worked for a second in one turn is blocked, whether by a
view, a callback or a coroutine; a heartbeat timer would say the same, and wake an idle worker twice a second for it.

It registers listening sockets with EPOLLEXCLUSIVE (epoll_ctl(2)): the kernel wakes one worker for a connection, and not
all of them, of which all but one find nothing.

uvloop has no selector; `beat` is the timer in its place.
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
from collections.abc import Callable
from math import ceil
from time import monotonic, process_time
from typing import Any

from corelet.base.scoreboard import BUSY, SINCE

BEAT_SECONDS = 0.5
PUBLISH_SECONDS = 0.1  # between two looks at the counters, in a loop that never waits

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
_NOT_IN = ~select.EPOLLIN  # as in selectors.EpollSelector: an error is shown to whoever waits for anything
_NOT_OUT = ~select.EPOLLOUT


class MarkingSelector(selectors.EpollSelector):
    """An EpollSelector that writes into `cells`, and calls `publish` each time before it waits."""

    def __init__(self, cells: memoryview[float]) -> None:
        super().__init__()
        self.publish: Callable[[], None] = _nothing
        self._cells = cells
        self._publish_at = 0.0
        self._exclusive: set[int] = set()
        self._edges: set[int] = set()
        cells[SINCE] = monotonic()

    def share(self, descriptor: int) -> None:
        """From now on this descriptor is registered as one that other processes wait for too."""
        self._exclusive.add(descriptor)

    def edge(self, descriptor: int) -> None:
        """From now on this descriptor is registered edge-triggered."""
        self._edges.add(descriptor)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Register as the base class does; a shared listening socket exclusively."""
        key = super().register(fileobj, events, data)
        if events == selectors.EVENT_READ:
            epoll: Any = self._selector  # type: ignore[attr-defined]
            if key.fd in self._exclusive:
                epoll.unregister(key.fd)  # a registration cannot be made exclusive afterwards
                epoll.register(key.fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            elif key.fd in self._edges:
                epoll.modify(key.fd, select.EPOLLIN | select.EPOLLET)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, at most `timeout` seconds; meanwhile the page says that the loop waits.

        As the base class does it, in one piece: this is once in each turn of the loop.
        """
        cells = self._cells
        keys = self._fd_to_key  # type: ignore[attr-defined]
        if timeout is None:
            timeout = -1
        elif timeout <= 0:
            timeout = 0
        else:
            timeout = ceil(timeout * 1e3) * 1e-3  # epoll_wait has milliseconds: not to wake up before the timer is due
        now = monotonic()
        if timeout or now >= self._publish_at:
            self._publish_at = now + PUBLISH_SECONDS
            self.publish()
        cells[BUSY] += now - cells[SINCE]
        cells[SINCE] = 0.0
        try:
            if timeout and self._exclusive:
                # Siblings share the work, so each would sleep and be woken for every few requests. Letting the front
                # end go on first fills the backlog: two workers cost 1.02 to 1.11 of one for a request, not 1.22.
                os.sched_yield()
            events = self._selector.poll(timeout, len(keys) or 1)  # type: ignore[attr-defined]
        except InterruptedError:
            events = []
        finally:
            cells[SINCE] = monotonic()
        found = []
        for descriptor, event in events:
            key = keys.get(descriptor)
            if key is not None:
                mask = (event & _NOT_IN and WRITE) | (event & _NOT_OUT and READ)
                found.append((key, mask & key.events))
        if len(found) > 1 and self._exclusive:
            # A connection first: its wake-up is spent on us, and a view that goes on before it may compute for long.
            found.sort(key=lambda pair: pair[0].fd not in self._exclusive)
        return found


def beat(loop: asyncio.AbstractEventLoop, cells: memoryview[float], publish: Callable[[], None]) -> None:
    """For a loop without a selector: note twice a second when the next note is due. One that is late is a blocked loop.

    What it has worked is not known either; the processor time of the process stands for it.
    """
    publish()
    cells[BUSY] = process_time()
    cells[SINCE] = monotonic() + BEAT_SECONDS
    loop.call_later(BEAT_SECONDS, beat, loop, cells, publish)


def _nothing() -> None:
    """Nobody wants to be told yet."""
