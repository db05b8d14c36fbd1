"""A table of all workers that every process of a server can read: which process has which seat, and what it has done.

    row 0       how many seats are taken up
    row N       float64 each: seat N, which is worker N of the log (see the constants)

The master alone writes it: a seat's process when it is forked and when it has ended, its counters in each of its
rounds, once or twice a second, from the worker's own page (scoreboard.py). So a worker that asks for its siblings
(`uwsgi.workers()`) reads what the master saw last. It is made before the first fork, since a page made later is unknown
to those who were forked before; memory that no worker ever had a row in is never touched.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

SEATS = 1023  # four times as many processes as a machine of today has processors
CELLS = 16
_BYTES = (SEATS + 1) * CELLS * 8

PID = 0  # 0: nobody has the seat
REQUESTS = 1  # of this process
BEFORE = 2  # requests of the processes that had the seat before
EXCEPTIONS = 3
HARAKIRIS = 4
IN_USE = 5  # cores that have a request
BUSY = 6  # seconds that its loop has worked
BORN = 7  # when it was started, in seconds since the epoch
SPAWNS = 8  # how many processes have had the seat


@dataclass(frozen=True, slots=True)
class Row:
    """One worker, as the table has it."""

    worker: int
    pid: int
    requests: int
    requests_before: int
    exceptions: int
    harakiris: int
    in_use: int
    busy_seconds: float
    born: float
    spawns: int


class Roster:
    """The table, shared with every process forked afterwards."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _BYTES)
        self._cells = memoryview(self._memory).cast("d")

    def rows(self) -> list[Row]:
        """All seats that somebody has, or had."""
        return [self._row(worker) for worker in range(1, int(self._cells[0]) + 1)]

    def is_empty(self, worker: int) -> bool:
        """Whether no process has this seat."""
        return worker <= SEATS and not self._cells[worker * CELLS + PID]

    def _row(self, worker: int) -> Row:
        cells = self._cells[worker * CELLS : (worker + 1) * CELLS]
        return Row(
            worker=worker,
            pid=int(cells[PID]),
            requests=int(cells[REQUESTS]),
            requests_before=int(cells[BEFORE]),
            exceptions=int(cells[EXCEPTIONS]),
            harakiris=int(cells[HARAKIRIS]),
            in_use=int(cells[IN_USE]),
            busy_seconds=cells[BUSY],
            born=cells[BORN],
            spawns=int(cells[SPAWNS]),
        )

    def seated(self, worker: int, pid: int, now: float) -> None:
        """A process has the seat from now on; `now` is in seconds since the epoch."""
        cells = self._cells
        if worker > SEATS or cells[worker * CELLS + PID] == pid:
            return
        cells[0] = max(cells[0], worker)
        at = worker * CELLS
        before = cells[at + BEFORE] + cells[at + REQUESTS]
        spawns = cells[at + SPAWNS] + 1
        for cell in range(at, at + CELLS):
            cells[cell] = 0.0
        cells[at + PID], cells[at + BEFORE], cells[at + BORN], cells[at + SPAWNS] = pid, before, now, spawns

    def counts(
        self, worker: int, pid: int, requests: float, exceptions: float, harakiris: float, in_use: float, busy: float
    ) -> None:
        """What the process has done so far; a process that has lost its seat to a younger one is passed over."""
        at = worker * CELLS
        if worker <= SEATS and self._cells[at + PID] == pid:
            for cell, value in (
                (REQUESTS, requests),
                (EXCEPTIONS, exceptions),
                (HARAKIRIS, harakiris),
                (IN_USE, in_use),
                (BUSY, busy),
            ):
                self._cells[at + cell] = value

    def left(self, worker: int, pid: int) -> None:
        """The process has ended; if nobody else has the seat, nobody has it."""
        at = worker * CELLS
        if worker <= SEATS and self._cells[at + PID] == pid:
            self._cells[at + PID] = self._cells[at + IN_USE] = 0.0
