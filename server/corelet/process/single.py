"""One process that serves, without a master: it is told by signals.

Order matters: sockets are bound first (nothing is loaded for a port that is taken), then the loop is made and set, then
the application is imported, then connections are accepted. A master puts a fork between the first two.

Nobody watches this process, so a thread of its own looks whether its loop is blocked (watch.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable

from corelet.api.server import Server
from corelet.api.uwsgi import hooks as application_hooks
from corelet.base.config import Config
from corelet.base.scoreboard import Scoreboard
from corelet.process import report
from corelet.process.duty import AccessLog, Duty
from corelet.process.fleet import Fleet, Member
from corelet.process.life import State
from corelet.process.prepare import Prepared, announce, enter, load
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
    board = Scoreboard()
    loop = make_loop(config, MarkingSelector(board.cells))
    prepared.hooks.run("post-fork")
    ringing = Ringing(loop)
    server = Server(config, worker_id=1, loop=loop, tell=ringing.tell, cache_folder=prepared.cache_folder.path)
    enter(server)
    applications = load(config, prepared.hooks)
    access_log = None if config.disable_logging else AccessLog(config, prepared.file, loop)
    worker = server.worker = Worker(config, loop, access_log=access_log)
    worker.board = board  # what it publishes when it is asked: to do so in every turn is for a master that looks
    application_hooks.post_fork()
    worker.after_request = application_hooks.after_request()
    worker.serve(applications, [(sock, sock.address) for sock in prepared.sockets])
    prepared.hooks.run("accepting")
    ringing.begin(worker)
    prepared.title.worker(1)
    duty = Duty(worker, prepared.release)
    _obey_signals(duty, prepared.notifier)
    _answer_signals(worker, board)
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
    if access_log is not None:
        access_log.flush()
    logger.info("stopped after %d requests", worker.requests)
    return 0


def _keep_alive(notifier: Notifier, loop: asyncio.AbstractEventLoop) -> None:
    """Tell systemd that the loop comes round, if it wants to know (WatchdogSec)."""
    if notifier.watchdog_seconds:
        notifier.watchdog()
        loop.call_later(notifier.watchdog_seconds, _keep_alive, notifier, loop)


def _obey_signals(duty: Duty, notifier: Notifier) -> None:
    """The first signal ends in order, the second does not wait, the third, and SIGQUIT, leave at once."""
    signals = 0
    config = duty.worker.config

    def stop(number: int) -> None:
        nonlocal signals
        if number == signal.SIGHUP and signals:
            return  # systemd sends it right behind SIGTERM (SendSIGHUP): that is no second order
        signals += 1
        notifier.stopping()
        if signals == 1:
            duty.end(config.reload_mercy, signal.Signals(number).name, last=True)
        elif signals == 2:
            logger.warning("a second signal: not waiting for %d running requests", len(duty.worker.busy_cores()))
            duty.hurry()
        else:
            duty.quit()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        duty.worker.loop.add_signal_handler(number, stop, number)
    duty.worker.loop.add_signal_handler(signal.SIGQUIT, duty.quit)


def _answer_signals(worker: Worker, board: Scoreboard) -> None:
    """Those that have a meaning for a master, so that none of them ends or freezes a server that has none."""
    born = time.monotonic()
    config = worker.config
    member = Member(os.getpid(), worker=1, generation=1, state=State.READY, born=born)
    fleet = Fleet(1, config.worker_reload_mercy, config.reload_mercy, generation=1, coming=0, members=(member,))

    def say(lines: Iterable[str]) -> None:
        for line in lines:
            logger.info("%s", line)

    def look() -> list[report.Look]:
        worker.publish()
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

    for number, answer in ((signal.SIGUSR1, statistics), (signal.SIGUSR2, workers), (signal.SIGTSTP, pause)):
        worker.loop.add_signal_handler(number, answer)
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        worker.loop.add_signal_handler(number, needs_master, number)
