"""The workers of a master as one frozen value, and what events make of it. No clock, no process, no log.

Words:
    worker      a number from 1: the seat; it stays when the process on it is replaced
    member      a process on such a seat
    generation  all that were started for one start or reload. `generation` serves; `coming` is being started beside it
    wanted      how many seats there are; `cheaper` and SIGTTIN/SIGTTOU change it

A generation comes to power (`coming` becomes `generation`) when each wanted seat has a READY member of it. Until then
the old one serves, so one that cannot load its application never replaces one that could. A chain reload does the same
seat by seat.

Every method returns a new Fleet. What should be done about it is plan.py's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from corelet.base.errors import LoadError
from corelet.process.life import OVER, Event, State, after

NEVER = float("inf")
YOUNG_SECONDS = 10.0  # a member that dies at this age or younger makes its seat pause before the next
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
GROUP_SECONDS = 0.2  # between the first and the last process of a group that hear of a signal
TRIES = 4  # deaths of a coming generation's members on one seat before that generation has failed
LOAD_FAILED = LoadError.exit_code
KILL_GRACE_SECONDS = 2.0  # beyond its mercy: for unwinding, and for a machine that is slow


@dataclass(frozen=True, slots=True)
class Member:
    """A worker process."""

    pid: int
    worker: int
    generation: int
    state: State
    born: float
    kill_at: float = NEVER
    leave: str = ""  # why it is to be replaced
    leave_from: float = NEVER

    @property
    def alive(self) -> bool:
        """It may still do something."""
        return self.state not in OVER

    def leaves(self, now: float) -> bool:
        """It is to be replaced as soon as there is another."""
        return bool(self.leave) and now >= self.leave_from


@dataclass(frozen=True, slots=True)
class Pause:
    """A seat whose members die young."""

    strikes: int
    until: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """All that the master decides by."""

    wanted: int
    worker_mercy: float  # worker-reload-mercy, in seconds
    stop_mercy: float  # reload-mercy
    generation: int = 0
    coming: int = 1
    newest: int = 1  # the highest number that was ever given
    chain: bool = False
    brutal: bool = False  # this reload gives running requests no time
    why: str = "start"
    members: tuple[Member, ...] = ()
    pauses: tuple[tuple[int, Pause], ...] = ()  # by seat
    stopping: str = ""
    mercy_left: float = NEVER  # of the stop: reload-mercy, or 0 for one in a hurry
    exit_code: int = 0

    # -- looking --------------------------------------------------------------------------------------------------

    def member(self, pid: int) -> Member | None:
        """The process with that number, unless it is over and forgotten."""
        return next((member for member in self.members if member.pid == pid), None)

    def seated(self, worker: int, state: State) -> tuple[Member, ...]:
        """Those on a seat that are in a state, oldest first."""
        return tuple(member for member in self.members if member.worker == worker and member.state is state)

    def in_state(self, *states: State) -> tuple[Member, ...]:
        """All that are in one of the states."""
        return tuple(member for member in self.members if member.state in states)

    @property
    def seats(self) -> range:
        """The wanted seats."""
        return range(1, self.wanted + 1)

    @property
    def goal(self) -> int:
        """The generation that a process started now belongs to."""
        return self.coming or self.generation

    def pause(self, worker: int) -> Pause:
        """How a seat has fared."""
        return dict(self.pauses).get(worker, Pause(0, 0.0))

    def with_members(self, members: Iterable[Member]) -> Self:
        """The same, with these processes and no others."""
        return replace(self, members=tuple(members))

    # -- what happens to a process --------------------------------------------------------------------------------

    def started(self, worker: int, pid: int, now: float) -> Self:
        """A process has been forked."""
        member = Member(pid, worker, self.goal, State.STARTING, now)
        return replace(self, members=(*self.members, member))

    def not_started(self, worker: int, now: float) -> Self:
        """The system had no process for it."""
        return self._paused(worker, now)

    def ready(self, pid: int, now: float) -> Self:
        """It has loaded its application and accepts."""
        return self._happened(pid, Event.IS_READY)._settled()

    def told(self, pid: int, seconds: float, now: float) -> Self:
        """It was told to end within so many seconds."""
        return self._happened(pid, Event.IS_TOLD, kill_at=now + seconds + KILL_GRACE_SECONDS)

    def left(self, pid: int, now: float) -> Self:
        """It ends by itself, in order: somebody else has told it.

        Whoever has signalled the whole group will have signalled the master too, so its successor waits a moment.
        """
        member = self.member(pid)
        if member is None or member.state is not State.READY:
            return self.told(pid, self.worker_mercy, now)
        pause = Pause(self.pause(member.worker).strikes, now + GROUP_SECONDS)
        fleet = replace(self, pauses=(*_without(self.pauses, member.worker), (member.worker, pause)))
        return fleet.told(pid, self.worker_mercy, now)

    def killed(self, pid: int) -> Self:
        """SIGKILL was sent: it is over, whenever the system says so."""
        fleet = self._happened(pid, Event.IS_KILLED)
        return fleet.with_members(replace(each, kill_at=NEVER) if each.pid == pid else each for each in fleet.members)

    def could_not_load(self, pid: int, exit_code: int, now: float) -> Self:
        """It said that the application cannot be loaded; it will end by itself, unless an atexit handler hangs."""
        member = self.member(pid)
        fleet = self._happened(pid, Event.FAILS, kill_at=now + self.worker_mercy + KILL_GRACE_SECONDS)
        if member is None or member.state is not State.STARTING:
            return fleet
        if member.generation == self.coming:
            return fleet._given_up(exit_code)
        return fleet._paused(member.worker, now)

    def reaped(self, pid: int, now: float) -> Self:
        """The system says that it has ended."""
        member = self.member(pid)
        if member is None:
            return self
        fleet = replace(self, members=tuple(each for each in self.members if each.pid != pid))
        if not member.alive or member.state is State.DRAINING:
            return fleet._settled()
        return fleet._died(member, now)

    def _died(self, member: Member, now: float) -> Self:
        """It was wanted, and is gone."""
        if now - member.born > YOUNG_SECONDS and member.state is State.READY:
            return replace(self, pauses=_without(self.pauses, member.worker))._settled()
        fleet = self._paused(member.worker, now)
        if member.state is State.STARTING and member.generation == self.coming:
            alone = not self.generation and not self.in_state(State.READY)
            if alone or fleet.pause(member.worker).strikes >= TRIES:
                return fleet._given_up(LOAD_FAILED)
        return fleet._settled()

    def _paused(self, worker: int, now: float) -> Self:
        """One more death on a seat: the first is made good at once, those after it wait longer and longer."""
        strikes = self.pause(worker).strikes + 1
        doubled = FIRST_PAUSE_SECONDS * 2 ** min(strikes - 2, 10)  # a thousand strikes are no float any more
        seconds = 0.0 if strikes == 1 else min(LONGEST_PAUSE_SECONDS, doubled)
        pauses = (*_without(self.pauses, worker), (worker, Pause(strikes, now + seconds)))
        return replace(self, pauses=pauses)

    def _given_up(self, exit_code: int) -> Self:
        """The coming generation has failed. If it was the first, there is nothing to fall back on."""
        if self.stopping:
            return self  # the code is that of the stop, or of the first failure
        if self.generation == 0:
            return replace(self, stopping="the application cannot be loaded", mercy_left=0.0, exit_code=exit_code)
        return self.give_up()

    def _abandoned(self) -> Self:
        """The coming generation does not come: who serves for it alone on a seat gets a successor, all others go.

        What a chain reload has brought so far has replaced others for good, and stays.
        """
        if self.chain or not self.coming:
            return self
        why = f"generation {self.coming} is not to come"
        return self.with_members(
            replace(each, leave=why, leave_from=0.0) if each.generation == self.coming else each
            for each in self.members
        )

    def _settled(self) -> Self:
        """Let the coming generation come to power if it is there."""
        if not self.coming or self.stopping:
            return self
        there = {m.worker for m in self.members if m.generation == self.coming and m.state is State.READY}
        if not there.issuperset(self.seats):
            return self
        return replace(self, generation=self.coming, coming=0, chain=False)

    def _happened(self, pid: int, event: Event, **changes: float) -> Self:
        return replace(self, members=tuple(_moved(each, pid, event, changes) for each in self.members))

    # -- what is asked of all -------------------------------------------------------------------------------------

    def reload(self, why: str, *, chain: bool = False, brutal: bool = False) -> Self:
        """Replace all by a new generation. One that was coming already is superseded: it is of yesterday's code."""
        if self.stopping:
            return self
        number = self.newest + 1
        fleet = self._abandoned()
        return replace(fleet, coming=number, newest=number, why=why, chain=chain, brutal=brutal, pauses=())

    def give_up(self) -> Self:
        """The generation that is coming is not to come any more."""
        return replace(self._abandoned(), coming=0, chain=False, brutal=False) if self.generation else self

    def resize(self, wanted: int) -> Self:
        """Have so many workers, at least one."""
        return replace(self, wanted=max(1, wanted))._settled()

    def recycle(self, pid: int, why: str, not_before: float) -> Self:
        """Replace this one, once it is old enough; asked again, the earlier time holds."""
        members = tuple(
            replace(each, leave=why, leave_from=not_before)
            if each.pid == pid and not_before < each.leave_from
            else each
            for each in self.members
        )
        return replace(self, members=members)

    def stop(self, why: str, seconds: float) -> Self:
        """End all, within so many seconds; asked again, the shorter time holds."""
        return replace(self, stopping=self.stopping or why, mercy_left=min(self.mercy_left, seconds))

    def shorten(self, seconds: float, now: float) -> Self:
        """Give those who are ending no longer than this."""
        latest = now + seconds + KILL_GRACE_SECONDS
        return replace(
            self,
            members=tuple(
                replace(each, kill_at=latest) if latest < each.kill_at < NEVER else each for each in self.members
            ),
        )


def _moved(member: Member, pid: int, event: Event, changes: dict[str, float]) -> Member:
    if member.pid != pid:
        return member
    state = after(member.state, event)
    if state is member.state:
        return member
    return replace(member, state=state, kill_at=min(member.kill_at, changes.get("kill_at", NEVER)))


def _without(pauses: Iterable[tuple[int, Pause]], worker: int) -> tuple[tuple[int, Pause], ...]:
    return tuple(pair for pair in pauses if pair[0] != worker)
