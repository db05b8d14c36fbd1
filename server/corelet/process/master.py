"""The master: one process without a loop, without threads, that waits, decides and acts.

    wait     in poll() for a signal, a worker's word or a letter in a fifo, half a second at most
    decide   each becomes a change of the frozen Fleet; plan(fleet, now) says what follows
    act      fork, tell, kill; and the fleet is told that it was done

Nothing here blocks, and nothing here reads what a peer of the network sent. What an order means stands in orders.py,
what is looked at twice a second in rounds.py.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from corelet.base.config import Config, Resolved
from corelet.base.errors import LoadError, OperatorError
from corelet.base.loading import Applications
from corelet.base.scoreboard import REQUESTS, Scoreboard
from corelet.process import child, forking
from corelet.process.channel import Channel, pair
from corelet.process.control import Control
from corelet.process.fifo import MasterFifo
from corelet.process.fleet import Fleet, Member
from corelet.process.handover import HandedWorker, Handover
from corelet.process.life import State
from corelet.process.plan import Action, Kill, Retire, Start, next_time, plan
from corelet.process.prepare import Prepared, announce, load
from corelet.process.report import name_of
from corelet.process.rounds import Rounds
from corelet.process.signals import SignalPipe
from corelet.process.sizing import Policy
from corelet.process.stacks import Stacks
from corelet.process.watchdog import Seen
from corelet.serving.siblings import Siblings

logger = logging.getLogger("corelet.process")

ROUND_SECONDS = 0.5


class WorkerFailed(LoadError):
    """The first workers could not start; the message is theirs, and so is the exit code."""

    def __init__(self, message: str, exit_code: int, detail: str = "") -> None:
        super().__init__(message, detail)
        self.exit_code = exit_code


@dataclass
class Child:
    """What is known of a worker process beside its place in the fleet. No board: the program before has forked it."""

    channel: Channel
    board: Scoreboard | None = None
    stacks: Stacks | None = None
    seen: Seen = field(default_factory=Seen)
    stopped: bool = False  # by SIGSTOP
    busy_seconds: float = 0.0  # when it was last judged

    def close(self) -> None:
        """Let go of everything that was made for it."""
        self.channel.close()
        if self.stacks is not None:
            self.stacks.close()


class Master:
    """The state of the master process. `config` and `prepared.sockets` are what new workers get."""

    def __init__(self, prepared: Prepared, reconfigure: Callable[[], Resolved], handed: Handover | None = None) -> None:
        self.prepared = prepared
        self.reconfigure = reconfigure
        self.config: Config = prepared.config
        self.born = time.monotonic()
        self.served = handed.requests if handed is not None else 0  # requests of workers that have ended
        self.fleet = self._first_fleet(handed)
        self.children: dict[int, Child] = {}
        self.siblings = Siblings()
        self.applications: Applications | None = None
        self.failure: WorkerFailed | None = None
        self.is_ready = False
        self.paused = False
        self.exit_code: int | None = None
        self.signals = SignalPipe()
        made = handed.rest["fifos"] if handed is not None else ()
        self.fifos = [MasterFifo(path, ours=os.path.abspath(path) in made) for path in self.config.master_fifo]
        self.daemons = prepared.daemons
        self.control = Control(self)
        self.rounds = Rounds(self)
        self._poll = select.poll()
        self._waiting: dict[int, Callable[[], None]] = {}
        self.wait_for(self.signals.reader, self._signals_came)
        for fifo in self.fifos:
            self.wait_for(fifo.reader, lambda fifo=fifo: self.control.obey_letters(fifo))  # type: ignore[misc]
        if handed is not None:
            self._adopt(handed)

    def _first_fleet(self, handed: Handover | None) -> Fleet:
        config = self.config
        generation = handed.generation if handed is not None else 0
        return Fleet(
            wanted=Policy.from_config(config).initial,
            worker_mercy=config.worker_reload_mercy,
            stop_mercy=config.reload_mercy,
            generation=generation,
            coming=generation + 1,
            newest=generation + 1,
            why="start" if handed is None else "re-exec",
        )

    def _adopt(self, handed: Handover) -> None:
        """Take over the workers of the program that we were: they serve until ours are ready."""
        now = time.monotonic()
        members = []
        for each in handed.workers:
            member = Member(each.pid, each.worker, each.generation, State.READY, now)
            members.append(member)
            self._watch_child(each.pid, Child(Channel.adopted(each.channel)))
        self.fleet = self.fleet.with_members(members)
        for each in handed.workers:
            if each.seconds is not None:
                self.fleet = self.fleet.told(each.pid, each.seconds, now)
        self.daemons.adopt(handed.rest["daemons"])
        self.rounds.crons.adopt(handed.rest["crons"])
        self.is_ready = True

    # -- waiting --------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Be the master until nobody is left; return the exit code. Raises OperatorError if the start failed."""
        config = self.config
        if config.preload:
            self._preload()
        announce(config, self.prepared.sockets, f"master of {self.fleet.wanted} workers, each of ")
        self.prepared.title.master()
        self.prepared.hooks.run("master-start")
        self.daemons.begin(time.monotonic())
        self._reap()  # those who ended while the program was exchanged sent their signal to nobody
        try:
            while not self._finished():
                self._wait()
                self.rounds.go_if_due(time.monotonic())
                self.control.exec_if_due()
        finally:
            self._clean_up()
        if self.failure is not None and self.exit_code:
            raise self.failure
        logger.info("stopped after %d requests", self.served)
        return self.exit_code or 0

    def _preload(self) -> None:
        try:
            self.applications = load(self.config, self.prepared.hooks)
        except OperatorError as error:
            if not self.fleet.generation:
                raise
            # After a re-exec the workers of the master before go on, and new ones will try for themselves.
            logger.error("preload failed: %s", error)
        gc.collect()
        gc.freeze()  # what is there now stays on pages that no collection in a worker writes to

    def wait_for(self, descriptor: int, then: Callable[[], None]) -> None:
        """Call `then` whenever the descriptor is readable."""
        self._waiting[descriptor] = then
        self._poll.register(descriptor, select.POLLIN)

    def forget(self, descriptor: int) -> None:
        """Do not wait for it any more; before it is closed."""
        del self._waiting[descriptor]
        self._poll.unregister(descriptor)

    def _wait(self) -> None:
        now = time.monotonic()
        seconds = min(next_time(self.fleet, now), self.rounds.next_at) - now
        for descriptor, _events in self._poll.poll(max(0.0, seconds) * 1000):
            then = self._waiting.get(descriptor)  # one that was forgotten a moment ago is told no more
            if then is not None:
                then()

    def _signals_came(self) -> None:
        for number in self.signals.read():
            if number == signal.SIGCHLD:
                self._reap()
            else:
                self.control.obey_signal(number)

    # -- what happens to workers ----------------------------------------------------------------------------------

    def change(self, fleet: Fleet) -> None:
        """The fleet is now this; say what that means for all."""
        before, self.fleet = self.fleet, fleet
        if fleet.generation != before.generation:
            logger.info("generation %d is ready: %d workers", fleet.generation, fleet.wanted)
            self.control.generation_came()
            self.is_ready = True
            self.prepared.ready()

    def _watch_child(self, pid: int, new: Child) -> None:
        self.children[pid] = new
        self.wait_for(new.channel.fileno(), lambda: self._listen(pid))

    def _listen(self, pid: int) -> None:
        """Hear what a worker says."""
        found = self.children[pid]
        for word, text in found.channel.receive():
            member = self.fleet.member(pid)
            if member is not None:
                self._told_by(member, word, text)
        if found.channel.ended and found.channel.fileno() in self._waiting:
            self.forget(found.channel.fileno())

    def _told_by(self, member: Member, word: str, text: str) -> None:
        """One word of a worker's; see channel.py."""
        now = time.monotonic()
        if word == "ready" and member.state is State.STARTING:
            logger.info("%s is ready", name_of(member))
            if self.paused:
                self.children[member.pid].channel.send("pause")
            self.change(self.fleet.ready(member.pid, now))
        elif word == "failed":
            code, _, rest = text.partition(" ")
            message, _, detail = rest.partition("\0")
            self._could_not_load(member, int(code), message, detail)
        elif word == "leaving":
            logger.info("%s was told to end by somebody else (%s)", name_of(member), text)
            self.change(self.fleet.left(member.pid, now))
        elif word == "recycle":
            self.recycle(member, text)
        elif word == "changed":
            self.control.obey("reload", f"py-autoreload {text}")

    def recycle(self, member: Member, why: str, at_once: bool = False) -> None:
        """Replace a worker, as soon as it is old enough, by one that is ready first."""
        if not member.leave:
            logger.info("%s is to be replaced: %s", name_of(member), why)
        oldest = time.monotonic() if at_once else member.born + self.config.min_worker_lifetime
        self.change(self.fleet.recycle(member.pid, why, oldest))

    def _could_not_load(self, member: Member, exit_code: int, message: str, detail: str) -> None:
        fleet = self.fleet.could_not_load(member.pid, exit_code, time.monotonic())
        self._given_up(member, fleet, message, exit_code, detail)

    def _given_up(self, member: Member, fleet: Fleet, message: str, exit_code: int, detail: str = "") -> None:
        """A worker did not come up; say what follows from it."""
        first = not self.fleet.generation
        given_up = self.fleet.coming and not fleet.coming
        generation = self.fleet.coming
        extra = {"detail": detail}
        if first and fleet.stopping and self.failure is None:
            self.failure = WorkerFailed(message, exit_code, detail)
        elif given_up:
            logger.error(
                "generation %d failed: %s: %s; generation %d goes on serving",
                generation, name_of(member), message, fleet.generation, extra=extra,
            )  # fmt: skip
            self.control.generation_failed()
        elif not first:
            logger.error("%s: %s; it is tried again later", name_of(member), message, extra=extra)
        self.change(fleet)

    def _reap(self) -> None:
        """Take note of every child that has ended, or was stopped."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.children:
                self._worker_changed(pid, status)
            elif not os.WIFSTOPPED(status) and not os.WIFCONTINUED(status):
                self.control.reaped(pid, status) or self.rounds.reaped(pid, status)

    def _worker_changed(self, pid: int, status: int) -> None:
        found = self.children[pid]
        if os.WIFCONTINUED(status):
            found.stopped = False
        elif os.WIFSTOPPED(status):
            found.stopped = True
            self._was_stopped(pid, status)
        else:
            self._listen(pid)  # its last words
            self._ended(pid, status)

    def _was_stopped(self, pid: int, status: int) -> None:
        """SIGSTOP: it holds its connections and hears nothing. Others take its place; it is killed if it stays so."""
        member = self.fleet.member(pid)
        self.siblings.call()  # the kernel may have chosen it for a connection
        if member is not None:
            name = signal.Signals(os.WSTOPSIG(status)).name
            logger.warning("%s was stopped by %s; `kill -CONT %d` lets it go on", name_of(member), name, pid)
            if member.state is State.READY:
                self.recycle(member, f"stopped by {name}", at_once=True)

    def _ended(self, pid: int, status: int) -> None:
        found = self.children.pop(pid)
        if found.channel.fileno() in self._waiting:
            self.forget(found.channel.fileno())
        if found.board is not None:
            self.served += found.board.glimpse().requests
        found.close()
        self.siblings.call()
        member = self.fleet.member(pid)
        if member is None:
            return
        fleet = self.fleet.reaped(pid, time.monotonic())
        how = _how(status)
        if member.state is State.DRAINING and status == 0:
            logger.info("%s ended", name_of(member))
        elif member.alive and member.state is not State.DRAINING:
            logger.error("%s died: %s", name_of(member), how)
            if member.state is State.STARTING:
                message = f"worker {member.worker} died while it loaded the application: {how}"
                self._given_up(member, fleet, message, LoadError.exit_code)
                return
        elif member.state is not State.FAILED:
            logger.info("%s ended: %s", name_of(member), how)
        self.change(fleet)

    # -- acting ---------------------------------------------------------------------------------------------------

    def _finished(self) -> bool:
        """Carry out the plan until nothing is left to do now. True when nothing is left to do at all."""
        while self.exit_code is None:
            now = time.monotonic()
            actions = plan(self.fleet, now)
            if not actions:
                return False
            for action in actions:
                self._do(action, now)
        return True

    def _do(self, action: Action, now: float) -> None:
        if isinstance(action, Start):
            self._start(action.worker, now)
        elif isinstance(action, Retire):
            self._retire(action, now)
        elif isinstance(action, Kill):
            self.kill(action.pid, action.why)
        else:
            self.exit_code = action.exit_code

    def _start(self, worker: int, now: float) -> None:
        ours, theirs = pair()
        new = Child(ours, Scoreboard(), Stacks())
        prepared = self.prepared
        seat = child.Seat(
            worker=worker, config=self.config, sockets=prepared.sockets, file=prepared.file, hooks=prepared.hooks,
            title=prepared.title, channel=theirs, board=new.board or Scoreboard(), stacks=new.stacks or Stacks(),
            siblings=self.siblings, applications=self.applications, leave_behind=lambda: self._leave_behind(ours),
        )  # fmt: skip
        try:
            pid = forking.fork(lambda: child.run(seat))
        except OSError as error:
            logger.error("worker %d cannot be started: %s; it is tried again", worker, error.strerror)
            new.close()
            self.change(self.fleet.not_started(worker, now))
        else:
            self._watch_child(pid, new)
            self.change(self.fleet.started(worker, pid, now))
        finally:
            theirs.close()

    def _leave_behind(self, ours: Channel) -> None:
        """In a worker: close what is the master's, so that its end is noticed, and nobody else hears our words."""
        ours.close()
        for each in self.children.values():
            each.channel.close()
        self.signals.close()
        for fifo in self.fifos:
            fifo.close()

    def _retire(self, action: Retire, now: float) -> None:
        member = self.fleet.member(action.pid)
        if member is None:
            return
        if not self.fleet.stopping:
            logger.info("%s retires: %s", name_of(member), action.why)
        self.children[action.pid].channel.send("drain", f"{action.seconds:.3f}")
        if member.state is State.STARTING:
            with contextlib.suppress(ProcessLookupError):
                os.kill(action.pid, signal.SIGTERM)
        self.change(self.fleet.told(action.pid, action.seconds, now))

    def kill(self, pid: int, why: str) -> None:
        """SIGKILL, and say why."""
        member = self.fleet.member(pid)
        if member is not None:
            logger.warning("%s is killed: %s", name_of(member), why)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.change(self.fleet.killed(pid))

    def tell_all(self, word: str) -> None:
        """Say a word to every worker."""
        for each in self.children.values():
            each.channel.send(word)

    def handed_workers(self) -> tuple[HandedWorker, ...]:
        """Our workers, for the program that we are about to become; their channels survive the exec."""
        now = time.monotonic()
        return tuple(
            HandedWorker(
                pid=member.pid, worker=member.worker, generation=member.generation,
                channel=self.children[member.pid].channel.survive_exec(),
                seconds=None if member.state is State.READY else max(0.0, member.kill_at - now),
            )
            for member in self.fleet.in_state(State.READY, State.DRAINING)
        )  # fmt: skip

    def requests(self) -> int:
        """How many requests all workers have served."""
        return self.served + sum(int(each.board.cells[REQUESTS]) for each in self.children.values() if each.board)

    def _clean_up(self) -> None:
        for fifo in self.fifos:
            fifo.retire()
        self.daemons.kill()


def _how(status: int) -> str:
    """How a process ended, in words."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.WEXITSTATUS(status)}"
