"""A worker process, from the fork to its end.

It makes and sets its loop, loads the application, says that it is ready, and does what its master says over the channel
until it is told to end. Signals from others than the master mean what they mean in uWSGI's workers: SIGTERM and SIGHUP
end it in order (the master replaces it), SIGQUIT at once; Ctrl-C in a terminal reaches every process of the group, and
here it is the master's.

While the application is loaded nobody listens to the channel. A master that changes its mind then sends SIGTERM, which
has its default action until the loop runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from corelet.api import handlers
from corelet.api.registry import registry
from corelet.api.server import Server
from corelet.api.uwsgi import hooks as application_hooks
from corelet.base import forks, leaving
from corelet.base.config import Config
from corelet.base.errors import LoadError, OperatorError
from corelet.base.loading import Applications
from corelet.base.logs import LogFile
from corelet.base.roster import Roster
from corelet.base.scoreboard import Scoreboard
from corelet.process import autoreload, privileges, signals
from corelet.process.channel import Channel
from corelet.process.duty import AccessLog, Duty
from corelet.process.hooks import Hooks
from corelet.process.listening import ListeningSocket
from corelet.process.prepare import begin, enter, load
from corelet.process.recycling import requests_at_most
from corelet.process.stacks import Stacks
from corelet.process.title import ProcessTitle
from corelet.serving.selector import MarkingSelector
from corelet.serving.siblings import Siblings
from corelet.serving.worker import Worker, make_loop

logger = logging.getLogger("corelet.process")

IGNORED = (signal.SIGINT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2)
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Seat:
    """What a worker is born with. `leave_behind` closes what belongs to the master."""

    worker: int
    config: Config
    sockets: list[ListeningSocket]
    file: LogFile
    hooks: Hooks
    title: ProcessTitle
    channel: Channel
    board: Scoreboard
    stacks: Stacks
    siblings: Siblings
    applications: Applications | None  # loaded by the master already (preload)
    cache_folder: str | None
    paused: bool
    is_a_reload: bool
    roster: Roster
    locks: int
    loading_began_ns: int  # by time.time_ns(): what was written since then may not be what was loaded
    leave_behind: Callable[[], None]

    def release(self) -> None:
        """Close our copies of the listening sockets; their files are the master's to remove."""
        for sock in self.sockets:
            sock.close()


def run(seat: Seat) -> int:
    """Be a worker; return the exit code."""
    signals.take_no_notice(*IGNORED)
    seat.leave_behind()
    forks.belongs(signals.back_to_default_unless_the_applications)
    forks.belongs(lambda: forks.let_go((seat.channel.fileno(), *(sock.fileno() for sock in seat.sockets))))
    seat.stacks.offer()
    seat.title.worker(seat.worker)
    try:
        return _serve(seat)
    except OperatorError as error:
        detail = error.detail if isinstance(error, LoadError) else ""
        seat.channel.send("failed", f"{error.exit_code} {error}\0{detail}")
        return error.exit_code


def _serve(seat: Seat) -> int:
    config = seat.config
    identity = privileges.identity_of(config) if config.master_as_root else None
    if identity is not None:
        privileges.become(identity)
    seat.hooks.run("post-fork")
    loop = make_loop(config, MarkingSelector(seat.board.cells))
    server = Server(
        config, seat.worker, os.getppid(), loop, seat.channel.send,
        is_a_reload=seat.is_a_reload, cache_folder=seat.cache_folder, roster=seat.roster, locks=seat.locks,
    )  # fmt: skip
    enter(server)
    applications = seat.applications or load(config, seat.hooks)
    access_log = AccessLog(config, seat.file, loop)
    worker = Worker(
        config,
        loop,
        worker_id=seat.worker,
        access_log=None if config.disable_logging else access_log,
        log_anyway=access_log,
        board=seat.board,
        siblings=seat.siblings,
        report=seat.channel.send,
    )
    begin(server, worker)
    worker.paused = seat.paused
    worker.requests_at_most = requests_at_most(config, seat.worker)
    duty = Duty(worker, seat.release, quiet=True)
    _obey(duty, seat)
    application_hooks.post_fork()
    worker.after_request = application_hooks.after_request()
    worker.serve(applications, [(sock, sock.address) for sock in seat.sockets])
    seat.hooks.run("accepting")
    seat.board.turn_begins()  # what came before was loading
    for text in registry.texts():
        seat.channel.send("registers", text)
    seat.channel.send("ready")
    if config.py_autoreload and seat.worker == 1:
        _watch_sources(duty, seat, loop)
    duty.run(END_SIGNALS)
    worker.publish()
    access_log.flush()
    leaving.grant(worker.mercy_left)
    seat.board.turn_ends()  # what comes, the application's atexit handlers among it, has the mercy and no watchdog
    application_hooks.at_exit()
    return 0


def _watch_sources(duty: Duty, seat: Seat, loop: asyncio.AbstractEventLoop) -> None:
    """py-autoreload. Who is ending already leaves what changes to its successor."""

    def changed(path: str) -> None:
        if not duty.ending:
            seat.channel.send("written" if path in watch.files.written_while_loading else "changed", path)

    watch = autoreload.watch(loop, seat.config.py_autoreload, changed, loading_began_ns=seat.loading_began_ns)


# ---- orders ----


def _obey(duty: Duty, seat: Seat) -> None:
    loop = duty.worker.loop
    mercy = seat.config.worker_reload_mercy

    def told_by_somebody_else(number: int) -> None:
        name = signal.Signals(number).name
        seat.channel.send("leaving", name)
        duty.end(mercy, name)

    def listen() -> None:
        for word, text in seat.channel.receive():
            _carry_out(duty, seat, word, text)
        if seat.channel.ended:
            loop.remove_reader(seat.channel.fileno())
            if not duty.ending:
                logger.error("the master is gone: this worker finishes what it has begun, and ends")
                duty.end(mercy, "no master")

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told_by_somebody_else, number)
    loop.add_signal_handler(signal.SIGQUIT, duty.quit)
    loop.add_reader(seat.channel.fileno(), listen)


def _carry_out(duty: Duty, seat: Seat, word: str, text: str) -> None:
    """One order of the master's; see channel.py for the words."""
    if word in ("drain", "stop"):
        duty.end(float(text), f"worker {seat.worker}", last=word == "stop")
    elif word == "hurry":
        duty.hurry()
    elif word == "quit":
        duty.quit()
    elif word == "pause":
        duty.worker.pause()
    elif word == "resume":
        duty.worker.unpause()
    elif word == "signal":
        handlers.deliver(int(text))
    elif word == "reopen" and (descriptor := seat.channel.take_descriptor()) is not None:
        seat.file.take_over(descriptor)
