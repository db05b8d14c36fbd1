"""uWSGI's signals in the master: who has registered what, what is due, and which worker is told.

A worker tells what it has registered just before it is ready. That of one generation makes one Agenda, which counts
from the moment its generation comes to power: until then the one before it does. A signal goes to workers that are
READY and have a handler for it, so one that drains gets none, and in the middle of a reload the right ones are told.

`receivers` is a pure function:

    workerN     the process on that seat
    workers     one on each seat
    worker      one of them. First of all who waits for it in signal_wait(); then one that does not block; then who had
                the last one, so that handlers of one signal run one after another; then the least busy; then the lowest
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from corelet.api.handlers import ANY_SIGNAL
from corelet.api.registry import ALL, ANY, entries_of
from corelet.base.logs import RateLimited
from corelet.base.scoreboard import IN_USE, SINCE
from corelet.process.agenda import NEVER, Agenda
from corelet.process.fleet import Member
from corelet.process.life import State

if TYPE_CHECKING:
    from corelet.process.crew import Child
    from corelet.process.master import Master

logger = logging.getLogger("corelet.process")

BLOCKED_SECONDS = 0.05  # a loop that has not come round for so long is in a view's hands


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that is ready and has a handler for the signal."""

    pid: int
    worker: int
    current: bool = True  # of the generation in power
    born: float = 0.0
    waits: bool = False
    blocked: bool = False
    in_use: int = 0


def receivers(target: str, candidates: Iterable[Candidate], last: int = 0) -> tuple[int, ...]:
    """The processes that are to be told. `last` is the one that was told last."""
    seated: dict[int, Candidate] = {}
    for each in sorted(candidates, key=lambda each: (each.worker, each.current, each.born)):
        seated[each.worker] = each  # two on one seat: the generation in power, and of these the youngest
    if target == ALL:
        return tuple(each.pid for each in seated.values())
    if target != ANY:
        return tuple(each.pid for each in seated.values() if target == f"worker{each.worker}")
    best = min(
        seated.values(),
        key=lambda each: (not each.waits, each.blocked, each.pid != last, each.in_use, each.worker),
        default=None,
    )
    return (best.pid,) if best is not None else ()


@dataclass
class Ears:
    """What one worker has handlers for, by their targets, and what somebody in it waits for."""

    targets: dict[int, str] = field(default_factory=dict)
    awaited: set[int] = field(default_factory=set)


class Router:
    """The signals of a master. `agendas` stand by generations."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self.agendas: dict[int, Agenda] = {}
        self.ears: dict[int, Ears] = {}  # by process id
        self._last: dict[int, int] = {}  # by signal: the process that was told last
        self._limited = RateLimited(logger)
        self._said: set[int] = set()  # signals of which it was said that nobody handles them
        self._waiting: dict[int, None] = {}  # those that wait for a worker, each once

    @property
    def agenda(self) -> Agenda | None:
        """What counts now."""
        return None if self.master.fleet.stopping else self.agendas.get(self.master.fleet.generation)

    @property
    def next_at(self) -> float:
        """When the next timer is due."""
        agenda = self.agenda
        return NEVER if agenda is None else agenda.next_at

    # -- what workers say -----------------------------------------------------------------------------------------

    def told_by(self, member: Member, word: str, text: str) -> None:
        """A word of a worker's; see channel.py."""
        if word == "raise":
            self.route(int(text))
            return
        ears = self.ears.setdefault(member.pid, Ears())
        if word == "registers":
            entries = entries_of(text)
            ears.targets |= {int(entry[1]): str(entry[2]) for entry in entries if entry[0] == "signal"}
            agenda = self.agendas.setdefault(member.generation, Agenda())
            agenda.register(entries, time.monotonic(), again=member.state is State.READY)
        elif word == "awaits":
            ears.awaited.add(int(text))
        else:
            ears.awaited.discard(int(text))

    def worker_came(self) -> None:
        """Another one is ready: perhaps for what nobody was there for."""
        waiting, self._waiting = self._waiting, {}
        for number in waiting:
            self.route(number)

    def forget(self, pid: int) -> None:
        """The process has ended."""
        self.ears.pop(pid, None)

    def generation_came(self, before: int) -> None:
        """Another generation is in power: what it has registered counts, and nothing of the one before."""
        generation = self.master.fleet.generation
        self.agendas.setdefault(generation, Agenda()).begin(time.monotonic(), self.agendas.get(before))
        self.agendas = {number: agenda for number, agenda in self.agendas.items() if number >= generation}
        self._said.clear()

    # -- firing ---------------------------------------------------------------------------------------------------

    def go(self, now: float) -> None:
        """Raise the signals of timers that are due."""
        agenda = self.agenda
        if agenda is not None and agenda.next_at <= now:
            for number in agenda.timers_due(now):
                self.route(number)

    def look(self) -> None:
        """Raise those of crons and monitors, in a round of the master."""
        agenda = self.agenda
        if agenda is not None and agenda.has_to_look:
            for number in agenda.seen_due(datetime.now()):
                self.route(number)

    def route(self, number: int) -> None:
        """Tell those whose signal it is."""
        master = self.master
        if master.fleet.stopping:
            return
        told: list[int] = []
        by_target = self._candidates(number)
        for target in sorted(by_target):
            told += receivers(target, by_target[target], self._last.get(number, 0))
        for pid in told:
            self._last[number] = pid
            if not master.crew.children[pid].channel.send("signal", str(number)):
                self._limited.log(
                    time.monotonic(), (number, pid), logging.WARNING,
                    "signal %d: dropped: the process %d has not taken those before it", number, pid,
                )  # fmt: skip
        if told:
            self._said.discard(number)
            return
        agenda = self.agenda
        waits = agenda is not None and number in agenda.signals
        if waits:
            self._waiting[number] = None
        if number not in self._said:
            self._said.add(number)
            fate = "it waits for one" if waits else "dropped"
            logger.warning("signal %d: no worker that could handle it is there; %s", number, fate)

    def _candidates(self, number: int) -> dict[str, list[Candidate]]:
        """Those with a handler, by its target; without any, those in which somebody waits for the signal."""
        found: dict[str, list[Candidate]] = {}
        waiting = []
        for member in self.master.fleet.in_state(State.READY):
            ears = self.ears.get(member.pid)
            child = self.master.crew.children.get(member.pid)
            if ears is None or child is None or child.stopped:
                continue
            waits = number in ears.awaited or ANY_SIGNAL in ears.awaited
            candidate = self._candidate(member, child, waits)
            if number in ears.targets:
                found.setdefault(ears.targets[number], []).append(candidate)
            elif waits:
                waiting.append(candidate)
        return found or ({ANY: waiting} if waiting else {})

    def _candidate(self, member: Member, child: Child, waits: bool) -> Candidate:
        cells = child.board.cells if child.board is not None else None
        since = cells[SINCE] if cells is not None else 0.0
        return Candidate(
            pid=member.pid,
            worker=member.worker,
            current=member.generation == self.master.fleet.generation,
            born=member.born,
            waits=waits,
            blocked=bool(since) and time.monotonic() - since > BLOCKED_SECONDS,
            in_use=int(cells[IN_USE]) if cells is not None else 0,
        )

    # -- across a re-exec -----------------------------------------------------------------------------------------

    def handover(self) -> dict[str, Any]:
        """What a new master of the same process id must know of workers that stay."""
        generation = self.master.fleet.generation
        return {
            "agenda": self.agendas.get(generation, Agenda()).handover(),
            "ears": [[pid, list(ears.targets.items()), list(ears.awaited)] for pid, ears in self.ears.items()],
        }

    def adopt(self, state: dict[str, Any] | None) -> None:
        """Go on from what `handover` gave; a master before this one may have given nothing."""
        if state is None:
            return
        self.agendas[self.master.fleet.generation] = Agenda.adopted(state["agenda"])
        self.ears = {
            int(pid): Ears({int(number): target for number, target in targets}, set(awaited))
            for pid, targets, awaited in state["ears"]
        }
