"""The life of a worker process, as a table.

    what is not in the table cannot happen; an event that has no row for a state changes nothing

The master believes what it has seen: a worker is READY because it said so after loading, DRAINING because it was told
to end, and one of the last three because it has been waited for or was sent SIGKILL. A state that is only hoped for
does not exist.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a worker process stands."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"
    KILLED = "killed"


class Event(enum.Enum):
    """What can happen to it."""

    IS_READY = "has loaded the application"
    IS_TOLD = "is told to end"
    ENDS = "ends as told"
    FAILS = "cannot load, or dies"
    IS_KILLED = "is killed by the master"


LIFE: dict[tuple[State, Event], State] = {
    (State.STARTING, Event.IS_READY): State.READY,
    (State.STARTING, Event.IS_TOLD): State.DRAINING,
    (State.STARTING, Event.FAILS): State.FAILED,
    (State.STARTING, Event.IS_KILLED): State.KILLED,
    (State.READY, Event.IS_TOLD): State.DRAINING,
    (State.READY, Event.FAILS): State.FAILED,
    (State.READY, Event.IS_KILLED): State.KILLED,
    (State.DRAINING, Event.ENDS): State.STOPPED,
    (State.DRAINING, Event.FAILS): State.FAILED,
    (State.DRAINING, Event.IS_KILLED): State.KILLED,
}

OVER = frozenset({State.STOPPED, State.FAILED, State.KILLED})


def after(state: State, event: Event) -> State:
    """The state that follows."""
    return LIFE.get((state, event), state)


def diagram() -> str:
    """The table as a Mermaid state diagram, which ARCHITECTURE.md shows."""
    lines = ["stateDiagram-v2", "    [*] --> STARTING: fork"]
    lines += [f"    {state.name} --> {then.name}: {event.value}" for (state, event), then in LIFE.items()]
    lines += [f"    {state.name} --> [*]" for state in State if state in OVER]
    return "\n".join(lines) + "\n"
