"""The master: one process without a loop, without threads, that waits, decides and acts.

    wait     in poll() for a signal, a worker's word or a letter in a fifo, half a second at most
    decide   each becomes a change of the frozen Fleet; plan(fleet, now) says what follows
    act      fork, tell, kill; and the fleet is told that it was done

Nothing here blocks, and nothing here reads what a peer of the network sent. What an order means stands in orders.py,
what is looked at twice a second in rounds.py.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence

from corelet.api.server import Server
from corelet.base import forks, leaving
from corelet.base.config import Config, Resolved
from corelet.base.errors import OperatorError, StopOrdered
from corelet.base.loading import Applications
from corelet.process import signals
from corelet.process.control import Control
from corelet.process.crew import Child, Crew, WorkerFailed
from corelet.process.fifo import MasterFifo
from corelet.process.fleet import Fleet, Member
from corelet.process.handover import Handover, failures_only_said
from corelet.process.life import State
from corelet.process.plan import Action, Finish, Kill, Retire, Start, next_time, plan
from corelet.process.prepare import Prepared, announce, enter, load
from corelet.process.rounds import Rounds
from corelet.process.routing import Router
from corelet.process.signals import SignalPipe
from corelet.process.sizing import Policy
from corelet.serving.worker import has_event_loop

logger = logging.getLogger("corelet.process")

FAILED_SECONDS = 0.5  # to wait after a turn that failed: it may fail again


class Master:
    """The state of the master process. `config` and `prepared.sockets` are what new workers get."""

    def __init__(self, prepared: Prepared, reconfigure: Callable[[], Resolved], handed: Handover | None = None) -> None:
        self.prepared = prepared
        self.reconfigure = reconfigure
        self.handed = handed
        self.config: Config = prepared.config
        self.born = time.monotonic()
        self.fleet = self._first_fleet(handed)
        self.crew = Crew(
            self, handed.requests if handed is not None else 0, handed.rest.get("locks") if handed is not None else None
        )
        self.applications: Applications | None = None
        self.failure: WorkerFailed | None = None
        self.is_ready = False
        self.paused = bool(handed.rest["paused"]) if handed is not None else False
        self.exit_code: int | None = None
        self.end_by = 0.0  # until then attached daemons may take their time to end
        self.daemons = prepared.daemons
        # Paths are those of the folder that we were started in: a preloaded application may go elsewhere (chdir).
        made = handed.rest["fifos"] if handed is not None else ()
        self.fifos: list[MasterFifo] = []
        for path in self.config.master_fifo:
            with failures_only_said(handed):
                self.fifos.append(MasterFifo(path, ours=os.path.abspath(path) in made))
        self.control = Control(self)
        self.rounds = Rounds(self)
        self.router = Router(self)
        self._poll = select.poll()
        self.waiting: dict[int, Callable[[], object]] = {}
        for fifo in self.fifos:
            self.wait_for(fifo.reader, lambda fifo=fifo: self.control.obey_letters(fifo))  # type: ignore[misc]
        if handed is not None:
            self._adopt(handed)
        forks.belongs(self._leave_behind)
        self.ordered = 0  # the signal that told us to end while we loaded the application
        self.loading_began_ns = 0  # when it is loaded here
        if self.config.preload:
            self.loading_began_ns = time.time_ns()
            self._preload()
        self.signals = SignalPipe()
        self.wait_for(self.signals.reader, self._signals_came)

    def _first_fleet(self, handed: Handover | None) -> Fleet:
        config = self.config
        policy = Policy.from_config(config)
        wanted = policy.initial
        if handed is not None and policy.is_adaptive:  # under load a new master does not begin with the fewest
            wanted = min(max(int(handed.rest["wanted"]), policy.lowest), policy.highest)
        generation = handed.generation if handed is not None else 0
        # A chain reload that was not finished has left workers of a later generation than the one in power.
        newest = max([generation, *(each.generation for each in handed.workers)]) if handed is not None else 0
        return Fleet(
            wanted=wanted,
            worker_mercy=config.worker_reload_mercy,
            stop_mercy=config.reload_mercy,
            generation=generation,
            coming=newest + 1,
            newest=newest + 1,
            why="start" if handed is None else "re-exec",
        )

    def _adopt(self, handed: Handover) -> None:
        """Take over the workers of the program that we were: they serve until ours are ready."""
        now = time.monotonic()
        members = []
        for each in handed.workers:
            member = Member(each.pid, each.worker, each.generation, State.READY, now)
            members.append(member)
            self.crew.watch(each.pid, Child.handed(each))
        self.fleet = self.fleet.with_members(members)
        for each in handed.workers:
            if each.seconds is not None:
                self.fleet = self.fleet.told(each.pid, each.seconds, now)
        self.daemons.adopt(handed.rest["daemons"])
        self.rounds.crons.adopt(handed.rest["crons"])
        self.router.adopt(handed.rest.get("signals"))
        self.is_ready = True

    # -- waiting --------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Be the master until nobody is left; return the exit code. Raises OperatorError if the start failed."""
        if self.ordered:
            self.control.obey("quit" if self.ordered == signal.SIGQUIT else "stop", signal.Signals(self.ordered).name)
        else:
            self._begin()
        self.crew.reap()  # those who ended while the program was exchanged sent their signal to nobody
        try:
            while not self._finished():
                self._turn()
        finally:
            self._clean_up()
        if self.failure is not None and self.exit_code:
            raise self.failure
        logger.info("stopped after %d requests", self.crew.served)
        leaving.grant(self.end_by - time.monotonic())
        signals.call(leaving.hurry)
        return self.exit_code or 0

    def _begin(self) -> None:
        config = self.config
        announce(config, self.prepared.sockets, f"master of {self.fleet.wanted} workers, each of ")
        self.prepared.title.master()
        if self.handed is not None:
            self.prepared.notifier.watchdog_again()
        self._run_hooks()
        if not self.fleet.stopping:
            self.daemons.begin(time.monotonic())

    def _run_hooks(self) -> None:
        """hook-master-start. A signal that ends us ends its command first, and is then obeyed as at any other time."""
        self._signals_came()
        if not self.fleet.stopping:
            with signals.breaking_off(), failures_only_said(self.handed):
                self.prepared.hooks.run("master-start")
            self._signals_came()

    def _turn(self) -> None:
        try:
            self._wait()
            self.rounds.go_if_due(time.monotonic())
            self.router.go(time.monotonic())
            self.control.exec_if_due()
        except Exception:  # the last resort: workers that serve must not end for a bug of their master's
            logger.critical("the master failed in one of its turns, and goes on", exc_info=True)
            time.sleep(FAILED_SECONDS)

    def _preload(self) -> None:
        """Load the application here. Its code may hang, or take the signals: so before ours are installed."""
        try:
            crew, folder = self.crew, self.prepared.cache_folder.path
            enter(Server(self.config, 0, os.getpid(), cache_folder=folder, roster=crew.roster, locks=crew.locks))
            with signals.let_come():
                self.applications = load(self.config, self.prepared.hooks)
        except StopOrdered as order:
            self.ordered = order.number
        except OperatorError as error:
            if not self.fleet.generation:
                self._retire_fifos()
                raise
            # After a re-exec the workers of the master before go on, and new ones will try for themselves.
            logger.error("preload failed: %s", error)
        if has_event_loop():
            logger.warning(
                "the application took an event loop while it was preloaded; that loop never runs, and whatever waits "
                "for it waits for ever: take the loop in a view, or leave preload out"
            )

    def wait_for(self, descriptor: int, then: Callable[[], object]) -> None:
        """Call `then` whenever the descriptor is readable."""
        self.waiting[descriptor] = then
        self._poll.register(descriptor, select.POLLIN)

    def forget(self, descriptor: int) -> None:
        """Do not wait for it any more; before it is closed."""
        del self.waiting[descriptor]
        self._poll.unregister(descriptor)

    def _wait(self) -> None:
        now = time.monotonic()
        seconds = min(next_time(self.fleet, now), self.rounds.next_at, self.router.next_at) - now
        for descriptor, _events in self._poll.poll(max(0.0, seconds) * 1000):
            then = self.waiting.get(descriptor)  # one that was forgotten a moment ago is told no more
            if then is not None:
                then()

    def _signals_came(self) -> bool:
        """Do what signals ask for; whether there were any."""
        numbers = self.signals.read()
        for number in numbers:
            if number == signal.SIGCHLD:
                self.crew.reap()
            else:
                self.control.obey_signal(number)
        return bool(numbers)

    # -- what happens to workers ----------------------------------------------------------------------------------

    def change(self, fleet: Fleet) -> None:
        """The fleet is now this; say what that means for all."""
        before, self.fleet = self.fleet, fleet
        if fleet.generation != before.generation:
            logger.info("generation %d is ready: %d workers", fleet.generation, fleet.wanted)
            self.router.generation_came(before.generation)
            self.control.generation_came()
            self.is_ready = True
            self.prepared.ready()

    # -- acting ---------------------------------------------------------------------------------------------------

    def _finished(self) -> bool:
        """Carry out the plan until nothing is left to do now. True when nothing is left to do at all."""
        while self.exit_code is None:
            now = time.monotonic()
            actions = plan(self.fleet, now)
            if not actions or (self.daemons.running and now < self.end_by and isinstance(actions[0], Finish)):
                return False
            self._carry_out(actions, now)
        return True

    def _carry_out(self, actions: Sequence[Action], now: float) -> None:
        """Do these; less if something comes in between that may change the plan, since it is made anew after this.

        A system that has no process for one worker has none for the next. And a hundred workers take their time to be
        started, in which an operator may have thought better of it.
        """
        for number, action in enumerate(actions):
            if not isinstance(action, Start):
                self._do(action, now)
                continue
            try:
                self.crew.start(action.worker, now)
            except OSError as error:
                self.crew.not_started([each.worker for each in actions[number:] if isinstance(each, Start)], error, now)
                return
            if self._signals_came():
                return

    def _do(self, action: Action, now: float) -> None:
        if isinstance(action, Retire):
            self.crew.retire(action, now)
        elif isinstance(action, Kill):
            self.crew.kill(action.pid, action.why)
        elif isinstance(action, Finish):
            self.exit_code = action.exit_code

    def _clean_up(self) -> None:
        self._retire_fifos()
        self.daemons.kill()

    def _leave_behind(self) -> None:
        """In a process that a preloaded application has forked: let go of what is the master's."""
        channels = (child.channel.fileno() for child in self.crew.children.values())
        forks.let_go((*channels, *(fifo.reader for fifo in self.fifos)))

    def _retire_fifos(self) -> None:
        for fifo in self.fifos:
            fifo.retire()
