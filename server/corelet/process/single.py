"""One process that serves, without a master: it is told by signals.

Order matters: sockets are bound first (nothing is loaded for a port that is taken), then the loop is made and set, then
the application is imported, then connections are accepted. A master puts a fork between the first two.

Nobody watches this process, so a thread of its own looks whether its loop is blocked (watch.py), and another ends it if
it does not end as it was told (clock.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NoReturn

from corelet.api.server import Server
from corelet.api.uwsgi import hooks as application_hooks
from corelet.base import leaving
from corelet.base.config import Config
from corelet.base.scoreboard import Scoreboard
from corelet.process import report, signals
from corelet.process.clock import Clock
from corelet.process.duty import AccessLog, Duty
from corelet.process.fleet import Fleet, Member
from corelet.process.life import State
from corelet.process.locks import lock_file
from corelet.process.prepare import Prepared, announce, begin, enter, load
from corelet.process.recycling import memory_of
from corelet.process.ringing import Ringing
from corelet.process.systemd import Notifier
from corelet.process.watch import LoopWatch
from corelet.serving.selector import MarkingSelector
from corelet.serving.worker import Worker, make_loop

logger = logging.getLogger("corelet")

# SIGHUP too: with no master there is nobody to reload, and a closed terminal is a wish to end.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def serve(config: Config, prepared: Prepared) -> int:
    """Serve until told to stop; return the exit code. Raises OperatorError when it cannot start."""
    born = time.monotonic()  # the board counts from here too
    board = Scoreboard()
    loop = make_loop(config, MarkingSelector(board.cells))
    prepared.hooks.run("post-fork")
    ringing = Ringing(loop)
    folder = prepared.cache_folder.path
    server = Server(config, worker_id=1, loop=loop, tell=ringing.tell, cache_folder=folder, locks=lock_file())
    enter(server)
    applications = load(config, prepared.hooks)
    access_log = AccessLog(config, prepared.file, loop)
    worker = Worker(config, loop, access_log=None if config.disable_logging else access_log, log_anyway=access_log)
    begin(server, worker)
    application_hooks.post_fork()
    worker.after_request = application_hooks.after_request()
    worker.serve(applications, [(sock, sock.address) for sock in prepared.sockets])
    prepared.hooks.run("accepting")
    ringing.begin(worker)
    prepared.title.worker(1)
    duty = Duty(worker, prepared.release)
    ringing.on_stop = _obey_signals(duty, prepared.notifier)
    _answer_signals(worker, board, born)
    clock = Clock(config.reload_mercy, lambda: _leave_now(prepared, access_log))
    loop.call_soon(clock.begin)  # once the loop runs it has the descriptor that this takes the place of (uvloop)
    announce(config, prepared.sockets)  # not before a signal would be answered: who waits for this may send one
    prepared.ready()
    watch = LoopWatch(board, config.blocked_warning)
    watch.start(worker)
    _keep_alive(prepared.notifier, loop)
    try:
        duty.run(STOP_SIGNALS)
    finally:
        watch.stop()
    application_hooks.at_exit()
    access_log.flush()
    logger.info("stopped after %d requests", worker.requests)
    leaving.grant(worker.mercy_left)
    signals.call(leaving.hurry)
    return 0


def _leave_now(prepared: Prepared, access_log: AccessLog) -> NoReturn:
    """In the clock's thread: leave nothing behind but the frames that do not end."""
    try:
        access_log.flush()
        prepared.clean_up()
    finally:
        os._exit(0)


def _keep_alive(notifier: Notifier, loop: asyncio.AbstractEventLoop) -> None:
    """Tell systemd that the loop comes round, if it wants to know (WatchdogSec)."""
    if notifier.watchdog_seconds:
        notifier.watchdog()
        loop.call_later(notifier.watchdog_seconds, _keep_alive, notifier, loop)


def _obey_signals(duty: Duty, notifier: Notifier) -> Callable[[], None]:
    """The first signal ends in order, the second does not wait, the third, and SIGQUIT, leave at once.

    Returns what the application's own wish to stop does.
    """
    orders = 0
    config = duty.worker.config

    def stop(number: int) -> None:
        nonlocal orders
        if number == signal.SIGHUP and orders:
            return  # systemd sends it right behind SIGTERM (SendSIGHUP): that is no second order
        orders += 1
        notifier.stopping()
        if orders == 1:
            duty.end(config.reload_mercy, signal.Signals(number).name, last=True)
        elif orders == 2:
            logger.warning("a second signal: not waiting for %d running requests", len(duty.worker.busy_cores()))
            duty.hurry()
        else:
            duty.quit()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        duty.worker.loop.add_signal_handler(number, stop, number)
    duty.worker.loop.add_signal_handler(signal.SIGQUIT, duty.quit)

    def end() -> None:
        if not duty.ending:  # asked for twice, it is no order to hurry
            stop(signal.SIGTERM)

    return end


def _answer_signals(worker: Worker, board: Scoreboard, born: float) -> None:
    """Those that have a meaning for a master, so that none of them ends or freezes a server that has none."""
    config = worker.config
    member = Member(os.getpid(), worker=1, generation=1, state=State.READY, born=born)
    fleet = Fleet(1, config.worker_reload_mercy, config.reload_mercy, generation=1, coming=0, members=(member,))

    def say(lines: Iterable[str]) -> None:
        for line in lines:
            logger.info("%s", line)

    def look() -> list[report.Look]:
        worker.publish_on(board)
        return [report.Look(member, board.glimpse(), memory_of(member.pid))]

    def statistics() -> None:
        now = time.monotonic()
        say(report.statistics(look(), 0, now - born, now))

    def workers() -> None:
        say(report.workers(fleet, look(), config, time.monotonic(), paused=worker.paused))

    def pause() -> None:
        if worker.paused:
            worker.unpause()
        else:
            worker.pause()
        logger.info(report.PAUSED if worker.paused else report.RESUMED, "SIGTSTP")

    def needs_master(number: int) -> None:
        name = signal.Signals(number).name
        logger.warning("%s: the number of workers is a master's; start with --master", name)

    answers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGUSR1: statistics,
        signal.SIGUSR2: workers,
        signal.SIGTSTP: pause,
        signal.SIGTTIN: partial(needs_master, signal.SIGTTIN),
        signal.SIGTTOU: partial(needs_master, signal.SIGTTOU),
    }
    for number, answer in answers.items():
        if signal.getsignal(number) is signal.SIG_DFL:  # else the application has a meaning of its own for it
            worker.loop.add_signal_handler(number, answer)
