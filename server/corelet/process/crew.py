"""The worker processes of a master: forked, told, listened to, killed and waited for.

What is known of a process stands in two places: its place in the Fleet, which decisions are made by, and the Child
here, which holds what only the master has: its end of the channel, the shared page, the descriptor of its stacks. A
worker's words and its end are folded into the fleet by `Master.change`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corelet.base.errors import LoadError
from corelet.base.roster import Roster
from corelet.base.scoreboard import REQUESTS, Scoreboard
from corelet.process import child, forking
from corelet.process.channel import Channel, pair
from corelet.process.fleet import Fleet, Member
from corelet.process.handover import HandedWorker
from corelet.process.life import State
from corelet.process.locks import lock_file
from corelet.process.plan import Retire
from corelet.process.report import name_of
from corelet.process.sources import Rewritten
from corelet.process.stacks import Stacks
from corelet.process.watchdog import Seen
from corelet.serving.siblings import Siblings

if TYPE_CHECKING:
    from corelet.process.master import Master

logger = logging.getLogger("corelet.process")


ADVICE = {
    errno.EMFILE: "; raise the limit of open files (ulimit -n, LimitNOFILE=), or ask for fewer workers",
    errno.EAGAIN: "; raise the limit of processes (ulimit -u, TasksMax=), or ask for fewer workers",
    errno.ENOMEM: "; ask for fewer workers",
}


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
    slow: bool = False  # it has been said that it loads for long
    busy_seconds: float = 0.0  # when it was last judged

    def begin_to_judge(self, now: float) -> None:
        """What it has worked so far was loading, and says nothing about its load."""
        if self.board is not None:
            self.busy_seconds = self.board.busy_seconds(now)

    def close(self) -> None:
        """Let go of everything that was made for it."""
        self.channel.close()
        if self.stacks is not None:
            self.stacks.close()
        if self.board is not None:
            self.board.close()

    def survive_exec(self, survives: bool) -> None:
        """Let our ends of everything survive an exec, or not."""
        self.channel.survive_exec(survives)
        for shared in (self.stacks, self.board):
            if shared is not None:
                os.set_inheritable(shared.descriptor, survives)

    @classmethod
    def handed(cls, worker: HandedWorker) -> Child:
        """A worker of the program before. A page of another layout is not read."""
        board = None
        if worker.board is not None:
            try:
                board = Scoreboard(worker.board)
            except ValueError:
                os.close(worker.board)
        found = cls(Channel.adopted(worker.channel), board, None if worker.stacks is None else Stacks(worker.stacks))
        found.begin_to_judge(time.monotonic())
        found.survive_exec(False)
        return found


class Crew:
    """All worker processes that have not been waited for yet, by their ids."""

    def __init__(self, master: Master, served: int, locks: int | None = None) -> None:
        """`locks` is the descriptor of the locks' file that the program before has left."""
        self.master = master
        self.children: dict[int, Child] = {}
        self.siblings = Siblings()
        self.rewritten = Rewritten()
        self.served = served  # requests of workers that have ended
        self.roster = Roster()
        self.locks = lock_file() if locks is None else locks
        self.survive_exec(False)

    def watch(self, pid: int, new: Child) -> None:
        self.children[pid] = new
        self.master.wait_for(new.channel.fileno(), lambda: self._listen(pid))

    def _listen(self, pid: int) -> None:
        """Hear what a worker says."""
        found = self.children[pid]
        for word, text in found.channel.receive():
            member = self.master.fleet.member(pid)
            if member is not None:
                self._told_by(member, word, text)
        if found.channel.ended and found.channel.fileno() in self.master.waiting:
            self.master.forget(found.channel.fileno())

    def _told_by(self, member: Member, word: str, text: str) -> None:
        """One word of a worker's; see channel.py."""
        now = time.monotonic()
        if word == "ready" and member.state is State.STARTING:
            logger.info("%s is ready", name_of(member))
            self.children[member.pid].begin_to_judge(now)
            self.roster.seated(member.worker, member.pid, time.time())
            self.master.change(self.master.fleet.ready(member.pid, now))
            self.master.router.worker_came()
        elif word == "failed":
            code, _, rest = text.partition(" ")
            message, _, detail = rest.partition("\0")
            exit_code = int(code) if code.isdecimal() else LoadError.exit_code
            self._could_not_load(member, exit_code, message, detail)
        elif word == "leaving":
            logger.info("%s was told to end by somebody else (%s)", name_of(member), text)
            self.master.change(self.master.fleet.left(member.pid, now))
        elif word == "recycle":
            self.recycle(member, text)
        elif word == "stubborn":
            self.recycle(member, text, at_once=True)
        elif word == "changed":
            self.rewritten.edited()
            self.master.control.obey("reload", f"py-autoreload {text}")
        elif word == "written":
            self._written_while_loading(text)
        elif word in ("registers", "raise", "awaits", "awaits-not"):
            self.master.router.told_by(member, word, text)
        elif word in ("reload", "stop") and not self.master.fleet.stopping:
            self.master.control.obey(word, f"uwsgi.{word}() in {name_of(member)}")

    def _written_while_loading(self, path: str) -> None:
        if self.rewritten.is_reason(path):
            self.master.control.obey("reload", f"py-autoreload {path}, written while it was loaded")
        else:
            logger.info("py-autoreload: %s was written while it was loaded, again: no reload for that", path)

    def recycle(self, member: Member, why: str, at_once: bool = False) -> None:
        """Replace a worker, as soon as it is old enough, by one that is ready first."""
        if not member.leave:
            logger.info("%s is to be replaced: %s", name_of(member), why)
        oldest = time.monotonic() if at_once else member.born + self.master.config.min_worker_lifetime
        self.master.change(self.master.fleet.recycle(member.pid, why, oldest))

    def _could_not_load(self, member: Member, exit_code: int, message: str, detail: str) -> None:
        fleet = self.master.fleet.could_not_load(member.pid, exit_code, time.monotonic())
        self._given_up(member, fleet, message, exit_code, detail)

    def _given_up(self, member: Member, fleet: Fleet, message: str, exit_code: int, detail: str = "") -> None:
        """A worker did not come up; say what follows from it."""
        first = not self.master.fleet.generation
        given_up = self.master.fleet.coming and not fleet.coming
        generation = self.master.fleet.coming
        extra = {"detail": detail}
        if first and fleet.stopping and self.master.failure is None:
            self.master.failure = WorkerFailed(message, exit_code, detail)
        elif given_up:
            logger.error(
                "generation %d failed: %s: %s; generation %d goes on serving",
                generation, name_of(member), message, fleet.generation, extra=extra,
            )  # fmt: skip
            self.master.change(fleet)
            self.master.control.generation_failed()  # which may change the fleet in its turn
            return
        elif not first:
            logger.error("%s: %s; it is tried again later", name_of(member), message, extra=extra)
        self.master.change(fleet)

    def reap(self) -> None:
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
                self.master.control.reaped(pid, status) or self.master.rounds.reaped(pid, status)

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
        member = self.master.fleet.member(pid)
        self.siblings.call()  # the kernel may have chosen it for a connection
        if member is not None:
            name = _signal_name(os.WSTOPSIG(status))
            logger.warning("%s was stopped by %s; `kill -CONT %d` lets it go on", name_of(member), name, pid)
            if member.state is State.READY:
                self.recycle(member, f"stopped by {name}", at_once=True)

    def _ended(self, pid: int, status: int) -> None:
        found = self.children.pop(pid)
        if found.channel.fileno() in self.master.waiting:
            self.master.forget(found.channel.fileno())
        if found.board is not None:
            self.served += found.board.glimpse().requests
        found.close()
        self.master.router.forget(pid)
        self.siblings.call()
        member = self.master.fleet.member(pid)
        if member is None:
            return
        self.roster.left(member.worker, pid)
        fleet = self.master.fleet.reaped(pid, time.monotonic())
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
        self.master.change(fleet)

    # -- orders to them -------------------------------------------------------------------------------------------

    def start(self, worker: int, now: float) -> None:
        """Fork a process for this seat. Raises OSError, with nothing left behind."""
        ours, theirs = pair()
        new = Child(ours)
        try:
            new.board = board = Scoreboard()
            new.stacks = stacks = Stacks()
            seat = self._seat(worker, theirs, board, stacks, lambda: self._leave_behind(ours))
            pid = forking.fork(lambda: child.run(seat))
        except OSError:
            new.close()
            raise
        else:
            self.watch(pid, new)
            if self.roster.is_empty(worker):
                self.roster.seated(worker, pid, time.time())
            self.master.change(self.master.fleet.started(worker, pid, now))
        finally:
            theirs.close()

    def not_started(self, workers: Sequence[int], error: OSError, now: float) -> None:
        """The system has no process, or no descriptors, for the first of these; so it has none for the others."""
        logger.error(
            "worker %d%s cannot be started: %s; tried again later%s",
            workers[0], f" and {len(workers) - 1} others" if len(workers) > 1 else "", error.strerror,
            ADVICE.get(error.errno or 0, ""),
        )  # fmt: skip
        fleet = self.master.fleet
        for worker in workers:
            fleet = fleet.not_started(worker, now)
        self.master.change(fleet)

    def _seat(
        self, worker: int, channel: Channel, board: Scoreboard, stacks: Stacks, leave_behind: Callable[[], None]
    ) -> child.Seat:
        master, prepared = self.master, self.master.prepared
        return child.Seat(
            worker=worker, config=master.config, sockets=prepared.sockets, file=prepared.file, hooks=prepared.hooks,
            title=prepared.title, channel=channel, board=board, stacks=stacks, siblings=self.siblings,
            applications=master.applications,
            cache_folder=prepared.cache_folder.provide_or_say(master.config),
            paused=master.paused, is_a_reload=master.fleet.goal > 1,
            roster=self.roster, locks=self.locks, loading_began_ns=master.loading_began_ns or time.time_ns(),
            leave_behind=leave_behind,
        )  # fmt: skip

    def _leave_behind(self, ours: Channel) -> None:
        """In a worker: close what is the master's, so that its end is noticed, and nobody else hears our words."""
        ours.close()
        for each in self.children.values():
            each.close()
        for sock in self.master.prepared.no_longer_wanted:
            sock.close()
        self.master.signals.close()
        for fifo in self.master.fifos:
            fifo.close()

    def retire(self, action: Retire, now: float) -> None:
        """Tell a process to end. One that loads hears no word yet, but has the default action for SIGTERM."""
        member = self.master.fleet.member(action.pid)
        if member is None:
            return
        word = "stop" if self.master.fleet.stopping else "drain"
        if not self.master.fleet.stopping:
            logger.info("%s retires: %s", name_of(member), action.why)
        self.children[action.pid].channel.send(word, f"{action.seconds:.3f}")
        if member.state is State.STARTING:
            with contextlib.suppress(ProcessLookupError):
                os.kill(action.pid, signal.SIGTERM)
        self.master.change(self.master.fleet.told(action.pid, action.seconds, now))

    def shorten(self, seconds: float) -> None:
        """Tell those who are ending already that they have no longer than this."""
        for member in self.master.fleet.in_state(State.DRAINING):
            self.children[member.pid].channel.send("stop", f"{seconds:.3f}")

    def kill(self, pid: int, why: str) -> None:
        """SIGKILL, and say why."""
        member = self.master.fleet.member(pid)
        if member is not None:
            logger.warning("%s is killed: %s", name_of(member), why)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.master.change(self.master.fleet.killed(pid))

    def tell_all(self, word: str) -> None:
        """Say a word to every worker."""
        for each in self.children.values():
            each.channel.send(word)

    def survive_exec(self, survives: bool) -> int:
        """Let the locks' file survive an exec, or not; returns its descriptor."""
        os.set_inheritable(self.locks, survives)
        return self.locks

    def handed_workers(self) -> tuple[HandedWorker, ...]:
        """Our workers, for the program that we are about to become; their channels survive the exec."""
        now = time.monotonic()
        for each in self.children.values():
            each.survive_exec(True)
        return tuple(
            HandedWorker(
                pid=member.pid, worker=member.worker, generation=member.generation,
                channel=self.children[member.pid].channel.fileno(),
                board=board.descriptor if (board := self.children[member.pid].board) else None,
                stacks=stacks.descriptor if (stacks := self.children[member.pid].stacks) else None,
                seconds=None if member.state is State.READY else max(0.0, member.kill_at - now),
            )
            for member in self.master.fleet.in_state(State.READY, State.DRAINING)
        )  # fmt: skip

    def requests(self) -> int:
        """How many requests all workers have served."""
        return self.served + sum(int(each.board.cells[REQUESTS]) for each in self.children.values() if each.board)


def _how(status: int) -> str:
    """How a process ended, in words."""
    if os.WIFSIGNALED(status):
        return f"killed by {_signal_name(os.WTERMSIG(status))}"
    return f"exit code {os.WEXITSTATUS(status)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name of its own
        return f"signal {number}"
