"""Whether a worker is blocked, judged by what its scoreboard says: a pure function.

    blocked-warning                 its loop has not come round for so long: say where it stands
    harakiri                        the request that blocks it has run into its deadline: say so, dump all stacks
    harakiri-graceful-timeout       and it still stands at the same place: kill it

Deadlines of requests that only wait are the worker's own business (serving/overdue.py). Nothing is held against a
worker that was seen to come round in between.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from corelet.base.config import Config
from corelet.base.scoreboard import Glimpse

LEAST_BLOCK_SECONDS = 1.0  # a worker that comes round more often than this unwinds its late requests by itself


class Verdict(enum.Enum):
    """What has to be done about a worker."""

    NOTHING = ""
    WARN = "warn"
    HARAKIRI = "harakiri"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Limits:
    """In seconds; 0 = off, but a grace of 0 is none: killed at the next look."""

    warning: float
    harakiri: float
    grace: float

    @classmethod
    def of(cls, config: Config) -> Limits:
        """Those of a configuration."""
        return cls(config.blocked_warning, config.harakiri, config.harakiri_graceful_timeout)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a worker's present turn: when it began, what runs in it, and what was done about it.

    Sixty views that compute for 0.2 s each make a turn of 12 s, and none of them stands still: so harakiri counts from
    when the same request was seen to run first (`standing`).
    """

    since: float = 0.0
    place: tuple[int | None, float] = (None, 0.0)  # the core, and when its request began
    standing: float = 0.0
    warned: bool = False
    harakiri_at: float = 0.0


def judge(glimpse: Glimpse, seen: Seen, limits: Limits, now: float) -> tuple[Seen, Verdict]:
    """What is known afterwards, and what has to be done."""
    place = (glimpse.core, glimpse.began if glimpse.core is not None else 0.0)
    if glimpse.since != seen.since:
        seen = Seen(glimpse.since, place, glimpse.since)
    elif place != seen.place:
        seen = replace(seen, place=place, standing=now, harakiri_at=0.0)
    if not glimpse.since:
        return seen, Verdict.NOTHING
    blocked = now - glimpse.since
    if seen.harakiri_at:
        return seen, Verdict.KILL if now - seen.harakiri_at >= limits.grace else Verdict.NOTHING
    # What runs beside the requests (a core below 0) has no deadline, and may have waited for long in order.
    began = glimpse.began if glimpse.core is not None and glimpse.core >= 0 else glimpse.since
    stands = now - seen.standing >= min(LEAST_BLOCK_SECONDS, limits.harakiri)
    if limits.harakiri and now - began >= limits.harakiri and stands:
        return replace(seen, warned=True, harakiri_at=now), Verdict.HARAKIRI
    if limits.warning and blocked >= limits.warning and not seen.warned:
        return replace(seen, warned=True), Verdict.WARN
    return seen, Verdict.NOTHING
