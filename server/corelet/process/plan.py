"""What the master should do: `plan(fleet, now) -> actions`, a pure function.

Promises, which tests hold against thousands of random traces:
* Without crashes each wanted seat has a READY member at every moment after the first generation came to power: a
  successor is READY before anybody is told to end.
* A generation that failed leaves nobody behind.
* No seat has more than one STARTING member.
* What is told to end and does not is killed at its time; what was killed or told is not told again.
* Whatever happens, a fleet that is told to stop finishes.
"""

from __future__ import annotations

from dataclasses import dataclass

from corelet.process.fleet import NEVER, Fleet, Member
from corelet.process.life import State

TOO_LATE = "it did not end in the time that it was given"


@dataclass(frozen=True, slots=True)
class Start:
    """Fork a process for this seat."""

    worker: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Tell a process to finish what it has begun, within so many seconds, and end."""

    pid: int
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL."""

    pid: int
    why: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nobody is left, and nobody is to come: leave with this code."""

    exit_code: int


Action = Start | Retire | Kill | Finish


def plan(fleet: Fleet, now: float) -> tuple[Action, ...]:
    """What is to be done now. Doing it, and telling the fleet that it was done, leads to an empty plan."""
    late = [Kill(m.pid, TOO_LATE) for m in fleet.members if now >= m.kill_at]
    if fleet.stopping:
        return (*late, *_stop(fleet))
    actions: list[Action] = [*late, *_surplus(fleet)]
    for worker in fleet.seats:
        actions += _retire(fleet, worker, now)
        if _may_start(fleet, worker, now):
            actions.append(Start(worker))
            if fleet.chain:
                fleet = fleet.started(worker, -worker, now)  # one at a time, in this plan too
    return tuple(actions)


def next_time(fleet: Fleet, now: float) -> float:
    """When something becomes due by itself, in the clock of `now`; NEVER if nothing does."""
    times = [member.kill_at for member in fleet.members]
    times += [pause.until for worker, pause in fleet.pauses if worker <= fleet.wanted]
    times += [member.leave_from for member in fleet.in_state(State.READY) if member.leave]
    return min((time for time in times if time > now), default=NEVER)


def _stop(fleet: Fleet) -> list[Action]:
    seconds = min(fleet.stop_mercy, fleet.mercy_left)
    told = fleet.in_state(State.STARTING, State.READY)
    if told:
        return [Retire(m.pid, 0.0 if m.state is State.STARTING else seconds, fleet.stopping) for m in told]
    return [] if fleet.members else [Finish(fleet.exit_code)]


def _surplus(fleet: Fleet) -> list[Action]:
    """Who is on a seat that is not wanted, or is starting for a generation that is not to come."""
    actions: list[Action] = []
    for member in fleet.in_state(State.STARTING, State.READY):
        if member.worker > fleet.wanted:
            actions.append(Retire(member.pid, fleet.worker_mercy, f"{fleet.wanted} workers are enough"))
        elif member.state is State.STARTING and member.generation != fleet.goal:
            actions.append(Retire(member.pid, 0.0, f"generation {member.generation} is not to come"))
    return actions


def _retire(fleet: Fleet, worker: int, now: float) -> list[Action]:
    """Who on a seat has a successor."""
    ready = fleet.seated(worker, State.READY)
    if len(ready) < 2:
        return []
    keep = max(ready, key=lambda m: (_rank(fleet, m), not m.leaves(now), m.generation, m.born))
    actions: list[Action] = []
    for member in ready:
        if member is keep:
            continue
        if keep.generation == fleet.coming != member.generation and not fleet.chain:
            continue  # both serve until the whole generation is there
        why = member.leave or (
            f"generation {keep.generation} is ready" if keep.generation != member.generation else "it has a successor"
        )
        if member.generation > keep.generation and not member.leave:
            why = f"generation {member.generation} is not to come"
        is_old = member.generation != keep.generation
        actions.append(Retire(member.pid, 0.0 if fleet.brutal and is_old else fleet.worker_mercy, why))
    return actions


def _rank(fleet: Fleet, member: Member) -> int:
    """Which generation's member is to stay on a seat: the one that serves or comes, before any other."""
    if member.generation == fleet.coming:
        return 2
    return 1 if member.generation == fleet.generation else 0


def _will_do(fleet: Fleet, member: Member) -> bool:
    """Whether a READY member needs no successor: it is of the generation that comes or, if none does, serves.

    A chain reload that failed half-way leaves members of a later generation; they work, and stay.
    """
    return member.generation == fleet.coming if fleet.coming else member.generation >= fleet.generation


def _may_start(fleet: Fleet, worker: int, now: float) -> bool:
    """Whether the seat needs a process, and may have one now."""
    if fleet.seated(worker, State.STARTING) or now < fleet.pause(worker).until:
        return False
    ready = fleet.seated(worker, State.READY)
    if any(_will_do(fleet, m) and not m.leaves(now) for m in ready):
        return False
    if not fleet.chain or not ready:
        return True
    # One after the other: nobody else is starting, and the seats before this one are done.
    if fleet.in_state(State.STARTING):
        return False
    return all(any(_will_do(fleet, m) for m in fleet.seated(seat, State.READY)) for seat in range(1, worker))
