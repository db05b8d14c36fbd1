"""Cron: commands at times of the day, started by the master. Which are due is decided here; nothing is started here.

The fields are uWSGI's (core/cron.c, and uwsgi_cron_task_needs_execution in core/master_utils.c): -1 is every, -N is
every minute, hour, … whose number N divides, weekdays are 0 to 7 with 0 and 7 for Sunday. A day and a weekday that are
both given are ORed, as in crontab(5): `0 5 1 -1 1` is the first of the month and every Monday. If one of them is
negative, both must hold.

A minute is looked at once, however often the master ticks, and a job is not run twice for a minute that a clock has
gone through twice: after a small step back nothing runs until the clock is where it was. After a step back of more than
three hours the clock was wrong before, and what it says now holds (cron(8) draws the line there too). When summer time
ends, a job with a given hour runs in the first of the two equal hours only; others go on by the time that has passed. A
minute that nobody was awake for is not made up for.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from corelet.base.config import Config
from corelet.base.errors import ConfigError
from corelet.process import commands

logger = logging.getLogger("corelet.process")

# A clock that goes back by more was wrong before; less is a correction, or the end of summer time.
CORRECTED_MINUTES = 180

EVERY = -1

# (name, least, most); -N may be as much as the whole unit: -60 is "when the minute is 0".
FIELDS = (
    ("minute", 0, 59, 60),
    ("hour", 0, 23, 24),
    ("day", 1, 31, 31),
    ("month", 1, 12, 12),
    ("weekday", 0, 7, 7),
)


@dataclass(frozen=True)
class CronJob:
    """A command and when it is due. `text` is how it was written, `unique`: not while the last one still runs."""

    minute: int
    hour: int
    day: int
    month: int
    weekday: int
    words: tuple[str, ...]
    unique: bool
    text: str


# ---- reading ----


def parse_cron(text: str) -> CronJob:
    """The job of `MINUTE HOUR DAY MONTH WEEKDAY COMMAND`. Raises ConfigError."""
    parts = text.split(None, len(FIELDS))
    if len(parts) <= len(FIELDS):
        raise ConfigError(
            f"expected 'MINUTE HOUR DAY MONTH WEEKDAY COMMAND', with -1 for every; got {text!r}; write what is missing"
        )
    numbers = dict(zip((name for name, *_ in FIELDS), parts, strict=False))
    return _job(numbers, parts[-1], unique=False, text=text)


def parse_cron2(text: str) -> CronJob:
    """The job of `minute=M,hour=H,day=D,month=M,week=W,unique=1 COMMAND`; what is not named is every minute, hour, …

    Without a `=` in the first word all of it is the command, which then runs every minute. Raises ConfigError.
    """
    named, *command = text.split(None, 1)[:2] or [""]
    if "=" not in named:
        return _job({}, text, unique=False, text=text)
    if not command:
        raise ConfigError(f"expected 'minute=M,hour=H,… COMMAND'; got {text!r}; write the command, after a blank")
    numbers: dict[str, str] = {}
    for pair in named.split(","):
        name, _, value = pair.partition("=")
        _check_name(name, value, text)
        numbers["weekday" if name == "week" else name] = value
    unique = numbers.pop("unique", "0")
    numbers.pop("harakiri", None)
    if unique not in ("0", "1"):
        raise ConfigError(f"expected unique=0 or unique=1; got unique={unique} in {text!r}")
    return _job(numbers, command[0], unique=unique == "1", text=text)


def _check_name(name: str, value: str, text: str) -> None:
    if name == "harakiri" and value == "0":
        return  # no limit, which is what there is
    if name == "harakiri":
        raise ConfigError(f"harakiri={value} in {text!r}: there is no such limit here; write timeout {value} COMMAND")
    if name not in ("minute", "hour", "day", "month", "week", "unique"):
        raise ConfigError(f"expected minute=, hour=, day=, month=, week= or unique=; got {name}={value} in {text!r}")


def _job(numbers: Mapping[str, str], command: str, *, unique: bool, text: str) -> CronJob:
    values = {
        name: _number(name, least, most, widest, numbers[name], text) if name in numbers else EVERY
        for name, least, most, widest in FIELDS
    }
    return CronJob(**values, words=tuple(commands.words_of(command)), unique=unique, text=text)


def _number(name: str, least: int, most: int, widest: int, written: str, text: str) -> int:
    hint = ""
    if written.startswith("*"):
        hint = f"; write {written.replace('*/', '-') if '/' in written else EVERY}"
    if re.fullmatch(r"-?[0-9]{1,3}", written):
        value = int(written)
        if least <= value <= most or -widest <= value < 0:
            return value
    raise ConfigError(
        f"expected for the {name} a number from {least} to {most}, -1 for every or -N for every Nth; "
        f"got {written!r} in {text!r}{hint}"
    )


# ---- deciding ----


def due(job: CronJob, when: datetime) -> bool:
    """Whether the job is due in the minute of `when`."""
    if not (_holds(job.minute, when.minute) and _holds(job.hour, when.hour) and _holds(job.month, when.month)):
        return False
    weekday = when.isoweekday() % 7
    on_day = _holds(job.day, when.day)
    on_weekday = _holds(job.weekday, weekday) or (job.weekday == 7 and weekday == 0)
    if job.day >= 0 and job.weekday >= 0:
        return on_day or on_weekday
    return on_day and on_weekday


def _holds(asked: int, actual: int) -> bool:
    return actual % -asked == 0 if asked < 0 else actual == asked


class Crons:
    """The jobs, which minute was looked at last, and what is running. The master starts what `tick` returns."""

    def __init__(self, jobs: Iterable[CronJob]) -> None:
        self.jobs = tuple(jobs)
        self._minute: int | None = None  # since 1970: the latest minute that was looked at
        self._ran: dict[int, str] = {}  # by the job's place: the minute on the clock at which it was due last
        self._running: dict[int, str] = {}  # process id: text of its job
        self._said: set[str] = set()  # texts of the jobs whose leaving out has been logged

    @classmethod
    def from_config(cls, config: Config) -> Crons:
        """The jobs of every cron and cron2 option. Raises ConfigError with all mistakes, one in a line."""
        jobs: list[CronJob] = []
        problems: list[str] = []
        for option, texts, parse in (("cron", config.cron, parse_cron), ("cron2", config.cron2, parse_cron2)):
            for text in texts:
                try:
                    jobs.append(parse(text))
                except ConfigError as error:
                    problems.append(f"--{option}: {error}")
        if problems:
            raise ConfigError("\n".join(problems))
        return cls(jobs)

    def tick(self, wall: datetime) -> list[CronJob]:
        """The jobs that are to be started now. `wall` is the local time, as `datetime.now()` says it."""
        minute = int(wall.timestamp() // 60)
        if self._minute is not None and 0 <= self._minute - minute <= CORRECTED_MINUTES:
            return []
        self._minute = minute
        return [job for place, job in enumerate(self.jobs) if due(job, wall) and self._may_run(place, job, wall)]

    def _may_run(self, place: int, job: CronJob, wall: datetime) -> bool:
        clock = wall.strftime("%Y-%m-%d %H:%M")
        if job.hour >= 0 and self._ran.get(place) == clock:
            return False  # the second of two equal hours
        if job.unique and job.text in self._running.values():
            if job.text not in self._said:
                self._said.add(job.text)
                logger.info("cron %s: still running, so it is left out until it has ended", job.text)
            return False
        self._ran[place] = clock
        return True

    def started(self, job: CronJob, pid: int) -> None:
        """Note that the job runs as this process."""
        self._running[pid] = job.text
        logger.info("cron %s: started (pid %d)", job.text, pid)

    def reaped(self, pid: int, status: int) -> bool:
        """Whether this process, which ended with that status of os.waitpid, was a job. Logs what was no success."""
        text = self._running.pop(pid, None)
        if text is None:
            return False
        self._said.discard(text)
        code = os.waitstatus_to_exitcode(status)
        if code:
            logger.warning("cron %s (pid %d): %s; see what it wrote", text, pid, commands.ending(code))
        return True

    def handover(self) -> dict[str, Any]:
        """What a new master of the same process id must know, as JSON can hold it."""
        return {"minute": self._minute, "running": [[pid, text] for pid, text in self._running.items()]}

    def adopt(self, state: Mapping[str, Any]) -> None:
        """Go on from what `handover` gave: no minute is done twice, and what runs is still known."""
        self._minute = state["minute"]
        self._running.update((int(pid), str(text)) for pid, text in state["running"])
