"""What the master says when it is asked: SIGUSR1 (statistics) and SIGUSR2 (the workers), as lines of the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from corelet.base.config import Config
from corelet.base.scoreboard import Glimpse
from corelet.process.fleet import Fleet, Member
from corelet.process.recycling import MEBIBYTE, Memory

PAUSED = "paused: nothing is accepted (%s)"
RESUMED = "accepting again (%s)"


@dataclass(frozen=True, slots=True)
class Look:
    """One worker at one moment. `glimpse` is None for one that was started by the program before a re-exec."""

    member: Member
    glimpse: Glimpse | None
    memory: Memory


def statistics(looks: list[Look], served_before: int, uptime_seconds: float, now: float) -> Iterator[str]:
    """Counters, one line for all and one for each worker."""
    total = served_before + sum(look.glimpse.requests for look in looks if look.glimpse is not None)
    yield f"statistics: {total} requests in {uptime_seconds:.0f} s, {len(looks)} workers"
    for look in looks:
        yield f"{name_of(look.member)}: {_counters(look, now)}"


def _counters(look: Look, now: float) -> str:
    seen = look.glimpse
    memory = f"{look.memory.resident / MEBIBYTE:.0f} MB resident"
    if seen is None:
        return f"of the master before; {memory}"
    share = 100 * seen.busy_seconds / max(now - look.member.born, 1e-9)
    return (
        f"{seen.requests} requests, {seen.exceptions} exceptions, {seen.harakiris} harakiris, "
        f"{seen.connections} connections, busy {share:.1f} % of its life, {memory}"
    )


def workers(fleet: Fleet, looks: list[Look], config: Config, now: float, *, paused: bool = False) -> Iterator[str]:
    """The state of each worker, and what it does just now."""
    coming = f", generation {fleet.coming} is being started" if fleet.coming else ""
    state = "; paused, nothing is accepted" if paused else ""
    yield f"workers: {fleet.wanted} wanted, generation {fleet.generation} serves{coming}{state}"
    for look in looks:
        member = look.member
        yield (
            f"{name_of(member)}: {member.state.value}, generation {member.generation}, "
            f"{now - member.born:.0f} s old{_at_work(look.glimpse, config, now)}"
        )


def _at_work(seen: Glimpse | None, config: Config, now: float) -> str:
    if seen is None:
        return ", of the master before"
    text = f", {seen.in_use} of {config.cores} cores in use"
    if seen.queued:
        text += f", {seen.queued} requests wait for one"
    if seen.core is not None and seen.since:
        who = f"core {seen.core} runs" if seen.core >= 0 else "beside the requests runs"
        text += f"; {who} {seen.title} for {now - seen.began:.1f} s"
    return text


def name_of(member: Member) -> str:
    """How the log calls it."""
    return f"worker {member.worker} (pid {member.pid})"
