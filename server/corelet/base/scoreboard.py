"""A page of memory that a worker writes and its master reads: how the worker is, while it cannot say so itself.

    cells     float64 each: since, core, began, ... (see the constants)
    title     "GET /path" of the request that runs just now, latin-1, at most 400 bytes

A worker whose loop is blocked answers no question, so what its master has to know stands here beforehand. It is written
once in each turn of the loop, and at the start of each request (0.4 µs). Nobody locks: a cell is eight aligned bytes,
and a title is looked at only when it has not changed for a second.

One page for each worker, made before the fork, and not one large table: a reload has two generations at work, and
nothing has to be counted in advance.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from time import monotonic

PAGE_BYTES = 1024
TITLE_OFFSET = 512
TITLE_BYTES = 400

# Cells. Times are of the monotonic clock, which all processes of a machine share.
SINCE = 0  # when the loop's turn began that is still going on; 0.0 while the loop waits for events
BUSY = 1  # seconds that the loop has worked since the worker began
CORE = 2  # number of the core that runs now; below -1: beside the requests; -1: the loop's own callbacks
BEGAN = 3  # when the request on that core began
LENGTH = 4  # bytes of the title
REQUESTS = 5
EXCEPTIONS = 6
HARAKIRIS = 7
IN_USE = 8  # cores that have a request
CONNECTIONS = 9  # open ones
OTHERS = 10  # requests that all other workers have served; written by the master
QUEUED = 11  # complete requests that wait for a core

LAYOUT = 15  # which of these tables the page follows: a new program may find the page of an old worker

NOBODY = -1.0
THIS_LAYOUT = 1.0


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What a page said at one moment. `core` is None when no core was running; `title` belongs to that core."""

    since: float
    busy_seconds: float
    core: int | None
    began: float
    title: str
    requests: int
    exceptions: int
    harakiris: int
    in_use: int
    connections: int
    queued: int


class Scoreboard:
    """The page itself, shared with every process forked afterwards, and with a program that gets `descriptor`."""

    def __init__(self, descriptor: int | None = None) -> None:
        """A new page, or the one behind the descriptor. Raises ValueError if that one is of another layout."""
        if descriptor is None:
            self.descriptor = os.memfd_create("corelet-scoreboard", os.MFD_CLOEXEC)
            os.ftruncate(self.descriptor, PAGE_BYTES)
        else:
            self.descriptor = descriptor
        self._page = mmap.mmap(self.descriptor, PAGE_BYTES)
        self.cells = memoryview(self._page)[:TITLE_OFFSET].cast("d")
        if descriptor is None:
            self.cells[LAYOUT] = THIS_LAYOUT
            self.cells[CORE] = NOBODY
        elif self.cells[LAYOUT] != THIS_LAYOUT:
            raise ValueError(f"a scoreboard of layout {self.cells[LAYOUT]:g}, not {THIS_LAYOUT:g}")

    def close(self) -> None:
        """Give the descriptor back; the page stays until nobody has it any more."""
        os.close(self.descriptor)

    def leave_behind(self) -> None:
        """In a process that the application has forked: write where nobody reads."""
        self._page = mmap.mmap(-1, PAGE_BYTES)
        self.cells = memoryview(self._page)[:TITLE_OFFSET].cast("d")

    # -- written by the worker ------------------------------------------------------------------------------------

    def running(self, core: int, title: str, began: float) -> None:
        """A core has got control; `began` is when its request did."""
        data = title.encode("latin-1", "replace")[:TITLE_BYTES]
        length = len(data)
        self._page[TITLE_OFFSET : TITLE_OFFSET + length] = data
        cells = self.cells
        cells[LENGTH] = length
        cells[BEGAN] = began
        cells[CORE] = core

    def turn_begins(self) -> None:
        """The loop is about to run."""
        self.cells[SINCE] = monotonic()

    def turn_ends(self) -> None:
        """The loop is over."""
        self.cells[SINCE] = 0.0

    def left(self) -> None:
        """Control is back in the loop."""
        self.cells[CORE] = NOBODY

    # -- read by the master ---------------------------------------------------------------------------------------

    def busy_seconds(self, now: float) -> float:
        """How long the loop has worked, the turn that is going on included."""
        cells = self.cells
        since = cells[SINCE]
        return cells[BUSY] + (max(0.0, now - since) if since else 0.0)

    def glimpse(self) -> Glimpse:
        """Return what the page says now."""
        cells = self.cells
        title = bytes(self._page[TITLE_OFFSET : TITLE_OFFSET + int(cells[LENGTH])]).decode("latin-1")
        return Glimpse(
            since=cells[SINCE],
            busy_seconds=cells[BUSY],
            core=None if cells[CORE] == NOBODY else int(cells[CORE]),
            began=cells[BEGAN],
            title=title,
            requests=int(cells[REQUESTS]),
            exceptions=int(cells[EXCEPTIONS]),
            harakiris=int(cells[HARAKIRIS]),
            in_use=int(cells[IN_USE]),
            connections=int(cells[CONNECTIONS]),
            queued=int(cells[QUEUED]),
        )
