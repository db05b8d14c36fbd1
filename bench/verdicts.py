"""The verdict on each goal: what was measured, the limit, and OK, NOT REACHED or NOT MEASURED.

The goals themselves are declared in bench/servers.py, beside the contestants they are about. A verdict never hides the
figure: a goal that was not reached says by how much, and one without a measurement says so instead of passing.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.cases import CASES
from bench.figures import Idle, InFlight, Results, Suspended, cpu_us, ratio, requests_per_second
from bench.servers import (
    GOALS,
    MAX_IDLE_MS_PER_SECOND,
    MAX_INFLIGHT_MEMORY,
    MAX_SUSPENDED_BYTES,
    MIN_INFLIGHT_SHARE,
    MIN_INFLIGHT_TIMES,
    Goal,
)


def judgement(results: Results) -> list[str]:
    """One line for each goal and case."""
    lines = [
        verdict(
            f"{goal_name(goal)}, {case.title}",
            measured_ratio(results, goal, case.name),
            goal.limit,
            2,
            at_least=goal.throughput,
        )
        for goal in GOALS
        for case in CASES
        if case.name in goal.cases
    ]
    lines += [suspended_verdict(results.suspended), idle_verdict(results.idle)]
    return [*lines, *inflight_verdicts(results.inflight)]


def goal_name(goal: Goal) -> str:
    """The goal in words."""
    return f"{'requests/s' if goal.throughput else 'CPU'} of {goal.contestant} / {goal.baseline}"


def measured_ratio(results: Results, goal: Goal, case: str) -> float | None:
    """What the goal is about, measured."""
    figure = requests_per_second if goal.throughput else cpu_us
    return ratio(results.samples, goal.contestant, goal.baseline, case, figure)


def suspended_verdict(rows: Sequence[Suspended]) -> str:
    """The memory of a suspended request; only valid when all waited together and were answered."""
    limit = MAX_SUSPENDED_BYTES / 1000
    row = next((row for row in rows if row.contestant == "corelet"), None)
    if row is None:
        return verdict("suspended: memory of each request in kB", None, limit, 1)
    text = f"suspended: {row.answered} of {row.requests} answered, {row.together} at once, memory of each in kB"
    complete = row.answered == row.together == row.requests
    return verdict(text, row.rss_per_request_bytes / 1000, limit, 1, valid=complete)


def idle_verdict(rows: Sequence[Idle]) -> str:
    """The CPU of a master and its idle workers; only valid when they were there from beginning to end."""
    row = next((row for row in rows if row.contestant == "corelet"), None)
    if row is None:
        return verdict("idle: CPU of a master and its workers in ms per second", None, MAX_IDLE_MS_PER_SECOND, 1)
    text = f"idle: CPU of a master and {row.workers} workers over {row.seconds:g} s in ms"
    return verdict(text, row.total.cpu_ms, MAX_IDLE_MS_PER_SECOND * row.seconds, 1, valid=row.steady)


def inflight_verdicts(rows: Sequence[InFlight]) -> list[str]:
    """Requests per second and memory with thousands in flight, both against uWSGI's asyncio engine."""
    ours = next((row for row in rows if row.contestant == "corelet"), None)
    theirs = next((row for row in rows if row.contestant == "uwsgi-asyncio"), None)
    text = "in flight: requests/s of corelet"
    speed = verdict(f"{text} / uwsgi-asyncio", None, MIN_INFLIGHT_TIMES, 2, at_least=True)
    memory = "in flight: memory of a waiting request of corelet / uwsgi-asyncio"
    if ours is None or theirs is None:
        return [speed, verdict(memory, None, MAX_INFLIGHT_MEMORY, 2)]
    times = ours.ratio_to(theirs, "requests_per_second")
    share = ours.median_of("requests_per_second") / ours.allowed_per_second
    answered = not any(one.failed for one in ours.slices)
    if times >= MIN_INFLIGHT_TIMES:
        speed = verdict(f"{text} / uwsgi-asyncio", times, MIN_INFLIGHT_TIMES, 2, valid=answered, at_least=True)
    else:
        text = f"{text} / what the waiting allows ({times:.2f} of uwsgi-asyncio)"
        speed = verdict(text, share, MIN_INFLIGHT_SHARE, 2, valid=answered, at_least=True)
    return [speed, inflight_memory_verdict(memory, ours, theirs)]


def inflight_memory_verdict(text: str, ours: InFlight, theirs: InFlight) -> str:
    """Only valid when all waited together and were answered, at both."""
    if ours.memory is None or theirs.memory is None:
        return verdict(text, None, MAX_INFLIGHT_MEMORY, 2)
    complete = all(row.answered == row.together == row.requests for row in (ours.memory, theirs.memory))
    value = ours.memory.rss_per_request_bytes / theirs.memory.rss_per_request_bytes
    return verdict(text, value, MAX_INFLIGHT_MEMORY, 2, valid=complete)


def verdict(
    text: str, value: float | None, limit: float, digits: int, *, valid: bool = True, at_least: bool = False
) -> str:
    """A goal's line. `valid` false: the figure stands, but the measurement was not what it should be."""
    bound = f"at {'least' if at_least else 'most'} {limit:.{digits}f}"
    if value is None:
        return f"{text}: NOT MEASURED ({bound})"
    reached = value >= limit if at_least else value <= limit
    return f"{text}: {value:.{digits}f} ({bound}): {'OK' if reached and valid else 'NOT REACHED'}"
