"""A world for plan(): a clock, processes that load, fail, die and end when they like, and a master that acts.

The world knows nothing of seats and generations. It does what the plan says, tells the fleet what came of it, and looks
at every step whether the promises of plan.py hold. Chance comes from the generator that it is given, so a trace is its
seed; a failed one carries the story of what happened.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field, replace

from corelet.process.fleet import NEVER, Fleet, Member
from corelet.process.life import State
from corelet.process.plan import Finish, Kill, Retire, Start, next_time, plan

ROUNDS = 4  # of planning and doing, after one event, until nothing is left to do
LONG = 10_000  # events: a trace that goes on for longer never ends
LOADING = (0.0, 0.2, 0.5, 1.0, 3.0, 12.0)
ENDING = (0.0, 0.01, 0.5, 2.0, 10.0, 26.0, 30.0, NEVER)
LIVES = (0.0, 0.1, 1.0, 5.0, 9.0, 11.0, 60.0)
BEGIN = 100.0


def at_start(wanted: int) -> Fleet:
    """Nothing is there yet."""
    return Fleet(wanted, worker_mercy=25.0, stop_mercy=25.0)


def in_power(wanted: int) -> Fleet:
    """Generation 1 serves: worker 1 is process 11, worker 2 process 12, and so on."""
    members = tuple(Member(10 + seat, seat, 1, State.READY, BEGIN - 1000.0) for seat in range(1, wanted + 1))
    return replace(at_start(wanted), generation=1, coming=0, members=members)


def adopted(wanted: int) -> Fleet:
    """A re-exec: the workers of the program before serve until ours are ready."""
    return replace(in_power(wanted), coming=2, newest=2)


def serving(fleet: Fleet, worker: int) -> list[Member]:
    """Who serves on a seat for the generation in power."""
    return [member for member in fleet.seated(worker, State.READY) if member.generation == fleet.generation]


@dataclass
class Habits:
    """How likely it is that things go wrong, and which operators there are."""

    deaths: float = 0.0  # of a process that has loaded
    loading_deaths: float = 0.0
    broken: float = 0.0  # that the code of a reload cannot be loaded
    luck: float = 0.0  # that a process of such code loads nevertheless
    broken_start: bool = False
    no_process: float = 0.0  # that fork fails
    orders: tuple[str, ...] = ()


@dataclass(slots=True)
class Process:
    """What the operating system knows."""

    pid: int
    generation: int
    is_ready: bool = False
    is_told: bool = False
    is_killed: bool = False
    is_stopped: bool = False


@dataclass
class World:
    """One trace."""

    chance: random.Random
    habits: Habits
    fleet: Fleet
    now: float = BEGIN
    processes: dict[int, Process] = field(default_factory=dict)
    agenda: list[tuple[float, int, str, int]] = field(default_factory=list)
    count: int = 0
    pids: int = 1000
    broken: set[int] = field(default_factory=set)  # generations whose code cannot be loaded
    chains: set[int] = field(default_factory=set)
    given_up: set[int] = field(default_factory=set)  # generations that were to come, all at once, and did not
    new_seats: set[int] = field(default_factory=set)  # nobody was READY on them yet
    expected_code: int | None = None
    finished: int | None = None
    is_calm: bool = False
    story: list[tuple[float, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.habits.broken_start:
            self.broken.add(1)
        for member in self.fleet.members:
            self.processes[member.pid] = Process(member.pid, member.generation, is_ready=True)
        self.settle()

    # -- doing what the plan says ---------------------------------------------------------------------------------

    def settle(self) -> None:
        """Carry out the plan until it is empty."""
        for _ in range(ROUNDS):
            actions = plan(self.fleet, self.now)
            if not actions:
                break
            for action in actions:
                self.carry_out(action)
            if self.finished is not None:
                return
        else:
            raise AssertionError(f"the plan has no end: {actions}")
        self.check()

    def carry_out(self, action: Start | Retire | Kill | Finish) -> None:
        """Do it, and tell the fleet."""
        self.note(action)
        if isinstance(action, Start):
            self.fork(action.worker)
        elif isinstance(action, Retire):
            process = self.processes[action.pid]
            assert not process.is_told, "told twice"
            assert not process.is_killed, "told after it was killed"
            self.check_may_go(action.pid)
            self.end_soon(process, self.chance.choice(ENDING))
            self.change(self.fleet.told(action.pid, action.seconds, self.now))
        elif isinstance(action, Kill):
            process = self.processes[action.pid]
            assert not process.is_killed, "killed twice"
            process.is_killed = True
            self.at(self.chance.choice((0.0, 0.01)), "ends", action.pid)
            self.change(self.fleet.killed(action.pid))
        else:
            assert not self.processes, "finished while somebody is left"
            self.finished = action.exit_code

    def fork(self, worker: int) -> None:
        """Start a process, if there is one to be had, and decide what will become of it."""
        if not self.is_calm and self.chance.random() < self.habits.no_process:
            self.note("no process to be had")
            self.change(self.fleet.not_started(worker, self.now))
            return
        assert 1 <= worker <= self.fleet.wanted
        self.pids += 1
        process = self.processes[self.pids] = Process(self.pids, self.fleet.goal)
        seconds = self.chance.choice(LOADING)
        if self.cannot_load(process.generation):
            self.at(seconds, "fails", process.pid)
        elif not self.is_calm and self.chance.random() < self.habits.loading_deaths:
            self.at(seconds, "dies", process.pid)
        else:
            self.at(seconds, "loads", process.pid)
        self.change(self.fleet.started(worker, process.pid, self.now))

    def cannot_load(self, generation: int) -> bool:
        """Whether the application fails this time; once it has been in power, it is said to be good."""
        is_broken = generation in self.broken and generation != self.fleet.generation
        return is_broken and self.chance.random() >= self.habits.luck

    def end_soon(self, process: Process, seconds: float) -> None:
        """It has been told to end."""
        process.is_told = True
        if not process.is_stopped and seconds != NEVER:
            self.at(seconds, "ends", process.pid)

    # -- what happens ---------------------------------------------------------------------------------------------

    def at(self, seconds: float, what: str, pid: int) -> None:
        """Put it on the agenda."""
        self.count += 1
        heapq.heappush(self.agenda, (self.now + seconds, self.count, what, pid))

    def happen(self, what: str, pid: int) -> None:
        """One thing that a process does; nothing if it has gone."""
        process = self.processes.get(pid)
        if process is None or (process.is_killed and what != "ends"):
            return
        if process.is_stopped and not process.is_killed:
            return
        if what == "dies" and self.is_calm and process.is_ready:
            return
        self.note(f"{pid} {what}")
        if what == "loads":
            process.is_ready = True
            if self.chance.random() < self.habits.deaths:
                self.at(self.chance.choice(LIVES), "dies", pid)
            self.change(self.fleet.ready(pid, self.now))
        elif what == "fails":
            code = self.chance.choice((22, 1, 70))
            self.at(self.chance.choice((0.0, 0.1, NEVER)), "ends", pid)
            self.expect_failure(pid, code)
            self.change(self.fleet.could_not_load(pid, code, self.now))
        else:
            self.expect_failure(pid, 22)
            del self.processes[pid]
            self.change(self.fleet.reaped(pid, self.now))

    def expect_failure(self, pid: int, code: int) -> None:
        """The first generation's failure decides the exit code, unless a stop was ordered before it."""
        member = self.fleet.member(pid)
        starts = member is not None and member.state is State.STARTING and member.generation == self.fleet.coming
        if starts and not self.fleet.generation and not self.fleet.stopping:
            self.expected_code = code

    def order(self, what: str) -> None:
        """Something that is asked of all, or done to one of them."""
        self.note(f"order: {what}")
        fleet = self.fleet
        if what in ("reload", "chain", "brutal"):
            if self.chance.random() < self.habits.broken:
                self.broken.add(fleet.newest + 1)
            if what == "chain":
                self.chains.add(fleet.newest + 1)
            self.change(fleet.reload(what, chain=what == "chain", brutal=what == "brutal"))
        elif what == "resize":
            wanted = self.chance.randint(0, 5)
            self.new_seats |= set(range(fleet.wanted + 1, wanted + 1))
            self.change(fleet.resize(wanted))
        elif what == "give up":
            self.change(fleet.give_up())
        elif what in ("stop", "hurry", "quit"):
            self.stop(what)
        else:
            ready = sorted(m.pid for m in fleet.in_state(State.READY))
            if ready:
                self.do_to(what, self.processes[self.chance.choice(ready)])

    def stop(self, what: str) -> None:
        """As control.py does it."""
        if not self.fleet.stopping:
            self.expected_code = 0
        seconds = self.fleet.stop_mercy if what == "stop" else 0.0
        fleet = self.fleet.stop("SIGTERM", seconds)
        if what != "stop":
            fleet = fleet.shorten(0.0 if what == "hurry" else -1.0, self.now)
        self.change(fleet)

    def do_to(self, what: str, process: Process) -> None:
        """One worker is to be replaced, is told by somebody else, or is dealt with by a signal."""
        pid = process.pid
        if what == "recycle":
            self.change(self.fleet.recycle(pid, "it is old", self.now + self.chance.choice((-5.0, 0.0, 3.0, 50.0))))
        elif what == "sigstop":
            process.is_stopped = True
            self.change(self.fleet.recycle(pid, "stopped by SIGSTOP", self.now))
        elif what == "leave":
            self.end_soon(process, self.chance.choice(ENDING))
            self.change(self.fleet.left(pid, self.now))
        elif what == "harakiri":
            process.is_killed = True
            self.at(0.01, "ends", pid)
            self.change(self.fleet.killed(pid))
        else:
            raise AssertionError(what)

    # -- time -----------------------------------------------------------------------------------------------------

    def run(self, orders: int, *, rest: bool = True) -> None:
        """Go on until so many orders have been given, at random times; then let everything come to rest."""
        for _ in range(orders):
            self.go_on_until(self.now + self.chance.choice((0.0, 0.0, 0.1, 0.5, 1.5, 4.0, 15.0)))
            if self.finished is not None:
                return
            for _ in range(self.chance.choice((1, 1, 1, 2, 3))):  # some are heard of together
                self.order(self.chance.choice(self.habits.orders))
            self.settle()
        if rest:
            self.is_calm = True
            self.go_on_until(NEVER)

    def go_on_until(self, end: float) -> None:
        """Live, waking only for what happens and for what the fleet has named as its next time."""
        for _ in range(LONG):
            if self.finished is not None:
                return
            due = next_time(self.fleet, self.now)
            assert due > self.now, "spinning"
            then = min(due, end, self.agenda[0][0] if self.agenda else NEVER)
            if then == NEVER:
                return
            self.check_nothing_is_due_before(then)
            self.now = then
            while self.agenda and self.agenda[0][0] <= then:
                _, _, what, pid = heapq.heappop(self.agenda)
                self.happen(what, pid)
                more = bool(self.agenda) and self.agenda[0][0] <= then
                if more and self.chance.random() < 0.8:  # otherwise the master hears of two things at once
                    self.settle()
            if self.finished is None:
                self.settle()
            if then == end:
                return
        raise AssertionError("a trace without an end")

    # -- what must be true ----------------------------------------------------------------------------------------

    def note(self, what: object) -> None:
        """A line of the story."""
        self.story.append((self.now - BEGIN, what))

    def check_nothing_is_due_before(self, then: float) -> None:
        """Nobody wakes until then, so the plan must stay empty."""
        if then > self.now + 0.001:
            last = math.nextafter(then, 0.0)
            moment = self.chance.choice((min(last, self.now + (then - self.now) * self.chance.random()), last))
            actions = plan(self.fleet, moment)
            assert not actions, f"due at {moment}, and nobody would have woken: {actions}"

    def check_may_go(self, pid: int) -> None:
        """Until a generation is complete, nobody of the one that serves is told to end; in a chain it is otherwise."""
        fleet = self.fleet
        member = fleet.member(pid)
        if fleet.coming and not fleet.chain and not fleet.stopping and member in serving(fleet, member.worker):
            assert member.worker > fleet.wanted, f"{pid} was told too early"

    def change(self, fleet: Fleet) -> None:
        """The fleet is now this: look at what holds at every moment, between two actions too."""
        before, self.fleet = self.fleet, fleet
        assert fleet.generation >= before.generation
        assert fleet.newest >= max(fleet.generation, fleet.coming)
        assert not fleet.coming or fleet.coming > fleet.generation
        if fleet.generation != before.generation:
            assert fleet.generation == before.coming
            assert all(
                any(m.generation == fleet.generation for m in fleet.seated(seat, State.READY)) for seat in fleet.seats
            )
        elif before.coming and fleet.coming != before.coming and not before.chain:
            self.given_up.add(before.coming)
        self.new_seats = {
            seat for seat in self.new_seats if seat <= fleet.wanted and not fleet.seated(seat, State.READY)
        }
        if self.is_peaceful and fleet.generation and not fleet.stopping:
            for seat in fleet.seats:
                assert seat in self.new_seats or fleet.seated(seat, State.READY), f"nobody serves on seat {seat}"

    @property
    def is_peaceful(self) -> bool:
        """No worker dies, or leaves by itself."""
        habits = self.habits
        return not (habits.deaths or habits.loading_deaths or {"leave", "harakiri"} & set(habits.orders))

    def check(self) -> None:
        """What holds whenever the plan is empty."""
        fleet = self.fleet
        alive = [m for m in fleet.members if m.state in (State.STARTING, State.READY)]
        for seat in {m.worker for m in alive}:
            here = [m for m in alive if m.worker == seat]
            starting = [m for m in here if m.state is State.STARTING]
            assert len(starting) <= 1, f"two are starting on seat {seat}"
            assert all(m.generation == fleet.goal for m in starting)
            assert len(here) - len(starting) <= 2, f"three serve on seat {seat}"
            assert seat <= fleet.wanted
        if fleet.chain:
            beside = [m for m in alive if m.state is State.STARTING and fleet.seated(m.worker, State.READY)]
            assert len(beside) <= 1, "a chain starts one after the other"
        leaving = any(m.leave for m in alive)
        assert len(alive) <= (3 if leaving else 2) * fleet.wanted
        assert not (fleet.stopping and alive)
        for member in fleet.members:
            process = self.processes[member.pid]
            if member.state is State.DRAINING:
                assert process.is_told
                assert self.now < member.kill_at < self.now + 100
            assert process.is_killed == (member.state is State.KILLED) or member.state is State.FAILED
        assert {m.pid for m in fleet.members} == set(self.processes)

    def check_rest(self) -> None:
        """What holds when nothing has happened for long."""
        fleet = self.fleet
        assert not fleet.coming
        assert [m.state for m in fleet.members] == [State.READY] * fleet.wanted
        assert sorted(m.worker for m in fleet.members) == list(fleet.seats)
        assert not any(m.leave for m in fleet.members)
        for member in fleet.members:
            assert member.generation not in self.given_up, f"{member} of a generation that was not to come"
            assert member.generation == fleet.generation or member.generation in self.chains
        assert next_time(fleet, self.now) == NEVER

    def told(self) -> str:
        """The story, for somebody who has to find out."""
        story = (f"{seconds:8.2f}  {what}" for seconds, what in self.story)
        return "\n".join([*story, repr(self.fleet)])
