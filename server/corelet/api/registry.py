"""What an application has registered for uWSGI's signals in this process: handlers, timers, crons, file monitors.

Nothing fires here. The table of what is due is kept once for the whole server, by the master or, without one, beside
the loop (process/agenda.py); it is told there as text, a JSON list of entries:

    ["signal", NUMBER, TARGET]                        there is a handler in this process
    ["timer", NUMBER, SECONDS, ITERATIONS]            0 iterations: without end
    ["cron", NUMBER, MINUTE, HOUR, DAY, MONTH, WEEKDAY]
    ["file", NUMBER, PATH]

A worker tells all of it when it is ready, so that a lost packet never means a lost timer, and whatever a master that
preloads has registered is told by each of its workers. What comes later is told at once.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Entry = tuple[str | int | float, ...]

SIGNALS = 256  # uWSGI's: a number is one byte
MAX_ENTRIES = 1024  # of timers, crons and monitors; uWSGI has 64 of each
LEAST_SECONDS = 0.001
TEXT_BYTES = 30_000  # of one text; a packet of the channel takes twice as many

CRON_FIELDS = (("minute", 60, 0, 59), ("hour", 24, 0, 23), ("day", 31, 1, 31), ("month", 12, 1, 12), ("week", 7, 0, 7))

ANY, ALL = "worker", "workers"
_TARGETS = {"": ANY, "worker": ANY, "worker0": ANY, "workers": ALL, "active-workers": ALL}
_ELSEWHERE = {
    "mule": "there are no mules here: use target='worker', whose handlers run beside the requests of a worker,"
    " or a process of its own (attach-daemon)",
    "farm": "there are no mules here: use target='worker', or a process of its own (attach-daemon)",
    "spooler": "there is no spooler here: use target='worker', whose handlers run beside the requests of a worker,"
    " or a task queue",
    "subscribed": "there are no subscriptions here: use target='workers'",
}


@dataclass(frozen=True)
class Handler:
    """What is called for a signal, with its number. `target`: worker, workers or workerN."""

    function: Callable[[int], object]
    target: str

    @property
    def name(self) -> str:
        """As the log names it."""
        return str(getattr(self.function, "__qualname__", None) or type(self.function).__qualname__)


@dataclass
class Registry:
    """All of one process. `entries` keeps the order, and holds each entry once."""

    handlers: dict[int, Handler] = field(default_factory=dict)
    entries: dict[Entry, None] = field(default_factory=dict)

    def register(self, number: int, target: str, function: Callable[[int], object]) -> Entry:
        """A handler; one that the signal had before is replaced. Raises TypeError, ValueError."""
        if not callable(function):
            raise TypeError(f"the handler of a signal is to be callable, a {type(function).__name__} came")
        handler = Handler(function, target_of(target))
        self.handlers[signal_number(number)] = handler
        return ("signal", number, handler.target)

    def add(self, *entry: str | int | float) -> Entry:
        """A timer, a cron or a monitor. Raises ValueError when there are too many."""
        if entry not in self.entries and len(self.entries) >= MAX_ENTRIES:
            raise ValueError(
                f"{MAX_ENTRIES} timers, crons and file monitors are registered, and no more fit: register them once,"
                " while the application is loaded, and not in each request"
            )
        if entry[0] == "timer":  # a signal has one timer; the last one counts
            for other in [each for each in self.entries if each[:2] == entry[:2]]:
                del self.entries[other]
        self.entries[entry] = None
        return entry

    def texts(self) -> Iterator[str]:
        """All of it, in as many texts as it takes."""
        handlers: list[Entry] = [("signal", number, handler.target) for number, handler in self.handlers.items()]
        yield from texts_of([*handlers, *self.entries])


def texts_of(entries: list[Entry]) -> Iterator[str]:
    """Entries as texts that fit into packets."""
    pieces: list[str] = []
    size = 0
    for entry in entries:
        piece = json.dumps(entry)
        if pieces and size + len(piece) > TEXT_BYTES:
            yield f"[{','.join(pieces)}]"
            pieces, size = [], 0
        pieces.append(piece)
        size += len(piece) + 1
    if pieces:
        yield f"[{','.join(pieces)}]"


def entries_of(text: str) -> list[Entry]:
    """The entries of a text."""
    return [tuple(entry) for entry in json.loads(text)]


# ---- what may be given ----


def signal_number(number: object) -> int:
    """A signal's number. Raises TypeError, ValueError."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"a signal is a number from 0 to {SIGNALS - 1}, a {type(number).__name__} came")
    if not 0 <= number < SIGNALS:
        raise ValueError(f"a signal is a number from 0 to {SIGNALS - 1}, not {number}")
    return number


def target_of(target: object) -> str:
    """A target as we keep it. Raises ValueError that says what to do about one that we have not."""
    if not isinstance(target, str):
        raise TypeError(f"the target of a signal is to be a str, a {type(target).__name__} came")
    if target in _TARGETS:
        return _TARGETS[target]
    if match := re.fullmatch(r"worker([1-9][0-9]{0,4})", target):
        return f"worker{int(match[1])}"
    hint = next((hint for kind, hint in _ELSEWHERE.items() if target.startswith(kind)), "")
    raise ValueError(f"target {target!r}: {hint or 'expected worker, workers, active-workers or workerN'}")


def seconds_of(seconds: object) -> float:
    """The seconds of a timer. Raises TypeError, ValueError."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"the seconds of a timer are to be a number, a {type(seconds).__name__} came")
    if not math.isfinite(seconds) or seconds < LEAST_SECONDS:
        raise ValueError(f"the seconds of a timer are to be at least {LEAST_SECONDS:g}, not {seconds:g}")
    return float(seconds)


def iterations_of(iterations: object) -> int:
    """How often a timer fires; 0: without end. Raises TypeError, ValueError."""
    if isinstance(iterations, bool) or not isinstance(iterations, int):
        raise TypeError(f"the iterations of a timer are to be an int, a {type(iterations).__name__} came")
    if iterations < 0:
        raise ValueError(f"the iterations of a timer are to be 0 (without end) or more, not {iterations}")
    return iterations


def cron_fields_of(values: tuple[object, ...]) -> tuple[int, ...]:
    """The five fields of a cron. Raises TypeError, ValueError."""
    found = []
    for (name, widest, least, most), value in zip(CRON_FIELDS, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"the {name} of a cron is to be an int, a {type(value).__name__} came")
        if not (least <= value <= most or -widest <= value < 0):
            raise ValueError(
                f"the {name} of a cron is to be from {least} to {most}, -1 for every or -N for every Nth, not {value}"
            )
        found.append(value)
    return tuple(found)


def path_of(path: object) -> str:
    """The path of a monitor, absolute: the master may stand in another folder. Raises TypeError, ValueError."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"the path of a file monitor is to be a path, a {type(path).__name__} came")
    return os.path.abspath(os.fsdecode(path))


registry = Registry()
