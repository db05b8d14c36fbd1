"""What the master looks at once or twice a second: blocked workers, their age and size, touched files, cron, the load.

A round of an idle server is a few microseconds of reading memory for each worker, and a stat for each touched file.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import time
from typing import TYPE_CHECKING

from corelet.base.errors import OperatorError
from corelet.base.scoreboard import EXCEPTIONS, HARAKIRIS, IN_USE, OTHERS, REQUESTS, SINCE, Glimpse
from corelet.process import commands, recycling, sizing
from corelet.process.fleet import Member
from corelet.process.life import State
from corelet.process.report import name_of
from corelet.process.sizing import Policy
from corelet.process.stacks import application_line
from corelet.process.touch import TouchFiles
from corelet.process.watch import ADVICE
from corelet.process.watchdog import Limits, Verdict, judge

if TYPE_CHECKING:
    from corelet.process.crew import Child
    from corelet.process.master import Master

logger = logging.getLogger("corelet.process")

ROUND_SECONDS = 0.5
SLOW_LOAD_SECONDS = 30.0  # then a word about it: whoever waits for a reload should know why
DUMP_SECONDS = 0.2  # that a worker is given to write its stacks
TOUCH_ORDERS = {
    "touch-reload": "reload",
    "touch-workers-reload": "workers-reload",
    "touch-chain-reload": "chain-reload",
}


class Rounds:
    """The clockwork of a master."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self.crons = master.prepared.crons
        self._dumps: list[tuple[float, int, Verdict, Glimpse, float]] = []
        self._judged_at = time.monotonic()
        self._touch: TouchFiles | None = None
        self.config_changed()
        self._next_round = time.monotonic()

    def config_changed(self) -> None:
        """Take over what the configuration says."""
        config = self.master.config
        now = time.monotonic()
        self._limits = Limits.of(config)
        watchdog = self.master.prepared.notifier.watchdog_seconds
        self._seconds = min(ROUND_SECONDS, config.blocked_warning / 2 or ROUND_SECONDS, watchdog or ROUND_SECONDS)
        self._policy = Policy.from_config(config)
        self._sizing = self._policy.begin(now)
        self._touch = TouchFiles(config, self._touch)
        self._recycles = bool(config.max_worker_lifetime or config.reload_on_rss or config.reload_on_as)

    @property
    def next_at(self) -> float:
        """When the next round is due, or a dump to be read."""
        return min((self._next_round, *(dump[0] for dump in self._dumps)))

    def reaped(self, pid: int, status: int) -> bool:
        """Whether this process was a cron job or a daemon."""
        return self.crons.reaped(pid, status) or self.master.daemons.reaped(pid, status, time.monotonic())

    def go_if_due(self, now: float) -> None:
        """Go round, if it is time."""
        self._read_dumps(now)
        if now < self._next_round:
            return
        master = self.master
        working = bool(master.fleet.in_state(State.STARTING))
        for member in master.fleet.in_state(State.STARTING):
            self._look_at_loading(member, now)
        total = master.crew.requests()
        for member in master.fleet.in_state(State.READY, State.DRAINING):
            child = master.crew.children.get(member.pid)
            if child is not None and child.board is not None:
                cells = child.board.cells
                cells[OTHERS] = total - cells[REQUESTS]
                master.crew.roster.counts(
                    member.worker, member.pid, cells[REQUESTS], cells[EXCEPTIONS], cells[HARAKIRIS], cells[IN_USE],
                    child.board.busy_seconds(now),
                )  # fmt: skip
                working = working or cells[SINCE] != 0.0
                if cells[SINCE] and not child.stopped:
                    self._watch(member, child, now)
                if self._recycles and member.state is State.READY and not member.leaves(now):
                    self._recycle(member, now)
        # Where nobody works there is less to see; a worker that begins to is seen a round later.
        slow = not working and not master.prepared.notifier.watchdog_seconds
        self._next_round = now + self._seconds * (2 if slow else 1)
        master.prepared.notifier.watchdog()
        if not master.fleet.stopping:
            self._touched()
            self._cron()
            master.router.look()
            master.daemons.tick(now)
            self._size(now)

    # -- blocked workers ------------------------------------------------------------------------------------------

    def _watch(self, member: Member, child: Child, now: float) -> None:
        if child.board is None or child.stacks is None:
            return
        glimpse = child.board.glimpse()
        child.seen, verdict = judge(glimpse, child.seen, self._limits, now)
        if verdict is Verdict.KILL:
            self.master.crew.kill(member.pid, f"still blocked {self._limits.grace:g} s after harakiri")
        elif verdict is not Verdict.NOTHING:
            child.stacks.ask(member.pid)
            self._dumps.append((now + DUMP_SECONDS, member.pid, verdict, glimpse, now - glimpse.since))

    def _look_at_loading(self, member: Member, now: float) -> None:
        child = self.master.crew.children.get(member.pid)
        if child is not None and not child.slow and now - member.born >= SLOW_LOAD_SECONDS:
            child.slow = True
            logger.warning("%s is still loading the application after %g s", name_of(member), SLOW_LOAD_SECONDS)

    def _read_dumps(self, now: float) -> None:
        due = [dump for dump in self._dumps if dump[0] <= now]
        if not due:
            return
        self._dumps = [dump for dump in self._dumps if dump[0] > now]
        for _at, pid, verdict, glimpse, seconds in due:
            member = self.master.fleet.member(pid)
            child = self.master.crew.children.get(pid)
            if member is not None and child is not None and child.stacks is not None:
                self._say(member, verdict, glimpse, seconds, child.stacks.read())

    def _say(self, member: Member, verdict: Verdict, glimpse: Glimpse, seconds: float, dump: str) -> None:
        core = "a callback of the loop"
        if glimpse.core is not None:
            core = f"core {glimpse.core}, {glimpse.title}" if glimpse.core >= 0 else glimpse.title
        place = application_line(dump) or "a place unknown: it wrote no stack"
        text = f"{name_of(member)} is blocked for {seconds:.1f} s in {core}, {place}"
        if verdict is Verdict.WARN:
            logger.warning("%s; %s", text, ADVICE)
        else:
            logger.error(
                "%s; harakiri: it is killed in %g s unless it goes on",
                text, self._limits.grace, extra={"detail": dump},
            )  # fmt: skip

    # -- the rest -------------------------------------------------------------------------------------------------

    def _recycle(self, member: Member, now: float) -> None:
        why = recycling.reason(self.master.config, member, recycling.memory_of(member.pid), now)
        if why:
            self.master.crew.recycle(member, why, at_once="lifetime" in why)

    def _touched(self) -> None:
        for option, path in self._touch.changed() if self._touch is not None else ():
            self.master.control.obey(TOUCH_ORDERS[option], f"{option} {path}")

    def _cron(self) -> None:
        if not self.crons.jobs:
            return
        for job in self.crons.tick(datetime.datetime.now()):
            try:
                self.crons.started(job, commands.start(job.words))
            except OperatorError as error:
                logger.error("cron %s: %s", job.text, error)

    def _size(self, now: float) -> None:
        """cheaper: as many workers as the load asks for."""
        config = self.master.config
        seconds = now - self._judged_at
        if not config.cheaper or seconds < config.cheaper_overload or self.master.fleet.coming:
            return
        self._judged_at = now
        shares = [
            self._busyness(child, seconds)
            for member in self.master.fleet.in_state(State.READY)
            if (child := self.master.crew.children.get(member.pid)) is not None
        ]
        before = dataclasses.replace(self._sizing, wanted=self.master.fleet.wanted)
        self._sizing = sizing.judge(self._policy, before, shares, now)
        if config.cheaper_busyness_verbose:
            logger.info("cheaper: busy %s %%", ", ".join(f"{share:.0f}" for share in shares))
        if self._sizing.wanted != before.wanted:
            self.master.control.resize(self._sizing.wanted, f"cheaper: busy {sum(shares) / max(len(shares), 1):.0f} %")

    def _busyness(self, child: Child, seconds: float) -> float:
        """Percent: of the time that the loop worked, or of cores in use, whichever is more."""
        if child.board is None:
            return 0.0
        busy = child.board.busy_seconds(time.monotonic())
        worked = (busy - child.busy_seconds) / seconds
        child.busy_seconds = busy
        return 100 * min(1.0, max(worked, child.board.cells[IN_USE] / self.master.config.cores))
