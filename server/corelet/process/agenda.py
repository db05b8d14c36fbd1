"""Which of uWSGI's signals are due: the timers, crons and file monitors that applications have registered.

One Agenda stands for the whole server, or for one generation of its workers: four workers that each register the same
timer have one. A timer is known by its signal: registered again with other seconds it begins anew, with the same ones
it goes on. Crons and monitors are known by all that they say, so that a signal may have several.

    due(timers, now)       a pure function: what fires, and what the table is afterwards
    looks(path)            what a monitor compares

A timer that was missed (the machine slept, the process was stopped) fires once and keeps its beat. Crons follow
cron.py, and a minute is looked at once. Files are looked at and not watched, as touch.py's are.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from corelet.api.registry import Entry
from corelet.process.cron import CronJob, Crons

logger = logging.getLogger("corelet.process")

NEVER = float("inf")
MAX_FOLDER_ENTRIES = 1000  # of a monitored folder: a look must not take long


@dataclass(frozen=True, slots=True)
class Timer:
    """One timer at one moment. `left`: how often it is to fire; 0: without end."""

    signal: int
    seconds: float
    iterations: int
    next_at: float
    left: int = 0

    @classmethod
    def begun(cls, signal: int, seconds: float, iterations: int, now: float) -> Timer:
        """A timer that begins now."""
        return cls(signal, seconds, iterations, now + seconds, iterations)


Timers = tuple[Timer, ...]


def due(timers: Timers, now: float) -> tuple[Timers, tuple[int, ...]]:
    """The table afterwards, and the signals that are due, earliest first. A finished timer stays, and is never due."""
    if all(timer.next_at > now for timer in timers):
        return timers, ()
    late = sorted((timer for timer in timers if timer.next_at <= now), key=lambda timer: timer.next_at)
    return tuple(_after(timer, now) for timer in timers), tuple(timer.signal for timer in late)


def _after(timer: Timer, now: float) -> Timer:
    if timer.next_at > now:
        return timer
    if timer.left == 1:
        return replace(timer, next_at=NEVER, left=0)
    missed = (now - timer.next_at) // timer.seconds
    then = timer.next_at + timer.seconds * (missed + 1)
    if then <= now:  # what floats lose
        then += timer.seconds
    return replace(timer, next_at=then, left=max(0, timer.left - 1))


def registered(timers: Timers, signal: int, seconds: float, iterations: int, now: float, again: bool = False) -> Timers:
    """The table with this timer; one of the same signal that says the same goes on as it was.

    `again`: unless it has fired as often as it was to. A worker that is loading does not ask for that: the one before
    it on its seat has registered the same.
    """
    for place, timer in enumerate(timers):
        if timer.signal == signal:
            finished = timer.next_at == NEVER
            if (timer.seconds, timer.iterations) == (seconds, iterations) and not (finished and again):
                return timers
            begun = Timer.begun(signal, seconds, iterations, now)
            return (*timers[:place], begun, *timers[place + 1 :])
    return (*timers, Timer.begun(signal, seconds, iterations, now))


def looks(path: str) -> tuple[Any, ...] | None:
    """How a file, or a folder with what is in it, looks now; None: it is not there, or cannot be looked at."""
    try:
        found = os.stat(path)
        own = (found.st_mtime_ns, found.st_ino, found.st_size)
        if not os.path.isdir(path):
            return own
        entries = []
        with os.scandir(path) as folder:
            for entry, _ in zip(folder, range(MAX_FOLDER_ENTRIES), strict=False):
                status = entry.stat(follow_symlinks=False)
                entries.append((entry.name, status.st_mtime_ns, status.st_ino, status.st_size))
        return (*own, *sorted(entries))
    except OSError:
        return None


class Agenda:
    """What is registered, and when it fires. Times are of the monotonic clock; `wall` is the local time."""

    def __init__(self) -> None:
        self.timers: Timers = ()
        self.signals: set[int] = set()  # those that have a handler somewhere
        self.crons = Crons(())
        self._cron_signals: dict[CronJob, int] = {}
        self._monitors: dict[tuple[int, str], tuple[Any, ...] | None] = {}

    def register(self, entries: Iterable[Entry], now: float, again: bool = False) -> None:
        """Take over timers, crons and monitors; what is there already changes nothing. `again`: see `registered`."""
        for kind, number, *rest in entries:
            signal = int(number)
            if kind == "signal":
                self.signals.add(signal)
            elif kind == "timer":
                self.timers = registered(self.timers, signal, float(rest[0]), int(rest[1]), now, again)
            elif kind == "cron":
                self._register_cron(signal, [int(value) for value in rest])
            elif kind == "file" and (signal, str(rest[0])) not in self._monitors:
                self._monitors[signal, str(rest[0])] = looks(str(rest[0]))

    def _register_cron(self, signal: int, fields: list[int]) -> None:
        text = f"signal {signal} at {' '.join(map(str, fields))}"
        minute, hour, day, month, weekday = fields
        job = CronJob(minute, hour, day, month, weekday, words=(), unique=False, text=text)
        if job not in self._cron_signals:
            self._cron_signals[job] = signal
            self.crons.jobs = (*self.crons.jobs, job)

    def begin(self, now: float, before: Agenda | None) -> None:
        """It counts from now on, in the place of another one: no minute's crons run twice."""
        self.timers = tuple(Timer.begun(each.signal, each.seconds, each.iterations, now) for each in self.timers)
        self._monitors = {key: looks(key[1]) for key in self._monitors}
        if before is not None:
            self.crons.adopt(before.crons.handover())

    @property
    def next_at(self) -> float:
        """When the next timer is due."""
        return min((timer.next_at for timer in self.timers), default=NEVER)

    @property
    def has_to_look(self) -> bool:
        """Whether there are crons or monitors, for which nobody tells when they are due."""
        return bool(self._monitors or self.crons.jobs)

    def timers_due(self, now: float) -> tuple[int, ...]:
        """The signals of timers that are due, which are done with that."""
        self.timers, signals = due(self.timers, now)
        return signals

    def seen_due(self, wall: datetime) -> list[int]:
        """The signals of crons that are due in this minute, once in each, and of monitors whose files have changed.

        A file that has come or gone is a change too.
        """
        found = [self._cron_signals[job] for job in self.crons.tick(wall)] if self.crons.jobs else []
        for key, before in self._monitors.items():
            now = looks(key[1])
            if now != before:
                self._monitors[key] = now
                found.append(key[0])
        return found

    # -- across a re-exec -----------------------------------------------------------------------------------------

    def handover(self) -> dict[str, Any]:
        """All of it, as JSON can hold it. What a file looked like is looked up anew."""
        return {
            "timers": [
                [each.signal, each.seconds, each.iterations, None if each.next_at == NEVER else each.next_at, each.left]
                for each in self.timers
            ],
            "crons": [
                [signal, job.minute, job.hour, job.day, job.month, job.weekday]
                for job, signal in self._cron_signals.items()
            ],
            "minute": self.crons.handover()["minute"],
            "files": [list(key) for key in self._monitors],
            "signals": sorted(self.signals),
        }

    @classmethod
    def adopted(cls, state: Mapping[str, Any]) -> Agenda:
        """What `handover` gave; timers keep their beat, since the clock is the same."""
        found = cls()
        found.timers = tuple(
            Timer(int(signal), seconds, int(iterations), NEVER if next_at is None else next_at, int(left))
            for signal, seconds, iterations, next_at, left in state["timers"]
        )
        found.signals = set(state["signals"])
        found.register([("cron", *each) for each in state["crons"]], 0.0)
        found.register([("file", *each) for each in state["files"]], 0.0)
        found.crons.adopt({"minute": state["minute"], "running": ()})
        return found
