"""One process that serves: sockets, loop, application, worker, signals, and an ordered end.

Order matters: sockets are bound first (nothing is loaded for a port that is taken), then the loop is made and set, then
the application is imported, then connections are accepted. The master of several workers puts a fork between the
first two.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import resource
import signal
import sys

from corelet import __version__
from corelet.base import accesslog, logs
from corelet.base.config import Config
from corelet.base.loading import load_applications
from corelet.base.outcome import Outcome
from corelet.process.sockets import ListeningSocket, bind_all
from corelet.serving import compat
from corelet.serving.worker import Worker, make_loop

logger = logging.getLogger("corelet")

# SIGHUP too: with no master there is nobody to reload, and a closed terminal is a wish to end.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
FLUSH_SECONDS = 0.02  # how long an access line may wait for others
CLOSE_SECONDS = 2.0  # for tasks that answer their cancellation with more work


def serve(config: Config) -> int:
    """Serve until told to stop; return the exit code. Raises OperatorError when it cannot start."""
    file = logs.LogFile(config.logto)
    logs.setup(file)
    file.redirect_standard_streams()
    raise_descriptor_limit()
    sockets = bind_all(config)
    try:
        loop = make_loop(config)
        if config.asyncio_compat:
            compat.install()
        applications = load_applications(config)
        access_log = None if config.disable_logging else AccessLog(config, file, loop)
        worker = Worker(config, loop, access_log=access_log)
        worker.serve(applications, [(sock, sock.address) for sock in sockets])
        code = _run(worker, loop, sockets)
        if access_log is not None:
            access_log.flush()
        logger.info("stopped after %d requests", worker.requests)
        return code
    finally:
        for sock in sockets:
            sock.retire(config.vacuum)


def raise_descriptor_limit() -> None:
    """Use all descriptors that the administrator allows: the soft limit of 1024 is for programs that call select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            logger.info("the limit of open files stays at %d: %s", soft, error)


class AccessLog:
    """Access lines, gathered for a moment and written in one call: a write for each would be a tenth of the request."""

    def __init__(self, config: Config, file: logs.LogFile, loop: asyncio.AbstractEventLoop) -> None:
        self._line = accesslog.compile_format(config.log_format, config.log_x_forwarded_for)
        self._writer = logs.LogWriter(file)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, outcome: Outcome) -> None:
        """Take one outcome."""
        self._writer.write(self._line(outcome))
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what has gathered."""
        self._timer = None
        self._writer.flush()


def _announce(config: Config, sockets: list[ListeningSocket]) -> None:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    logger.info(
        "corelet %s on %s, pid %d, %d cores, loop %s", __version__, python, os.getpid(), config.cores, config.loop
    )
    for sock in sockets:
        logger.info("listening on %s (%s)", sock.name, sock.address.protocol)
    if os.geteuid() == 0:
        logger.warning("running as root: start as another user, who needs only to read the application")


def _close(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    """Unwind what still runs, cancel what is left in the loop, and give both a moment to end in order."""
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, _already_stopping)  # a further signal changes nothing any more
    loop.run_until_complete(worker.unwind_all("the server stops at once; unwound"))
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=CLOSE_SECONDS))
    loop.run_until_complete(loop.shutdown_asyncgens())


def _already_stopping() -> None:
    """A signal handler that does nothing."""


def _run(worker: Worker, loop: asyncio.AbstractEventLoop, sockets: list[ListeningSocket]) -> int:
    stopping = loop.create_future()

    signals = 0

    def stop(signal_number: int) -> None:
        nonlocal signals
        if signal_number == signal.SIGHUP and signals:
            return  # systemd sends it right behind SIGTERM (SendSIGHUP): that is no second order
        signals += 1
        if signals == 1:
            stopping.set_result(signal_number)
        elif signals == 2:
            logger.warning("a second signal: not waiting for %d running requests", len(worker.busy_cores()))
            worker.hurry()
        else:
            loop.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGQUIT, loop.stop)

    async def life() -> None:
        number = await stopping
        worker.stop_accepting()
        for sock in sockets:
            sock.retire(worker.config.vacuum)  # from here on a new connection is refused, and not left hanging
        logger.info("%s: finishing %d running requests", signal.Signals(number).name, len(worker.busy_cores()))
        if not await worker.drain(worker.config.reload_mercy):
            logger.warning("some requests did not end within reload-mercy = %g s", worker.config.reload_mercy)
        loop.stop()

    task = loop.create_task(life())
    _announce(worker.config, sockets)  # not before a signal would be answered: who waits for these lines may send one
    loop.run_forever()
    task.cancel()
    _close(worker, loop)
    sys.stdout.flush()
    return 0
