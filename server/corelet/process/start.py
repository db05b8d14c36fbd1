"""From a configuration to a running server: in the background or not, with a master or alone."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from corelet.base import forks
from corelet.base.config import Config, Resolved
from corelet.base.errors import LoadError, OperatorError, StopOrdered
from corelet.process import signals, single
from corelet.process.daemon import Report, detach
from corelet.process.handover import Handover
from corelet.process.master import Master
from corelet.process.prepare import open_log, prepare
from corelet.process.systemd import listen_descriptors

logger = logging.getLogger("corelet")

STDERR = 2

Reconfigure = Callable[[], Resolved]


class NotStarted(OperatorError):
    """The server in the background could not start; its message, and its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def serve(config: Config, reconfigure: Reconfigure) -> int:
    """Serve until told to stop; return the exit code. `reconfigure` reads the configuration again, for a reload.

    With daemonize it returns when the server in the background is ready. Raises OperatorError when it cannot start.
    """
    _have_standard_streams()
    handed = Handover.from_environment()
    inherited = listen_descriptors()  # by our own process id, which is not that of a server in the background
    if config.daemonize is None or handed is not None:
        return _serve(config, reconfigure, handed, inherited, lambda: None)
    outcome = detach(lambda report: _in_background(config, reconfigure, inherited, report))
    if outcome.code:
        raise NotStarted(outcome.text, outcome.code)
    return 0


def _have_standard_streams() -> None:
    """Let 0, 1 and 2 be open, if only to nowhere: the next file would get such a number, and be written into.

    What is printed goes to 1 and 2 themselves, behind which the log may be later (logto).
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for descriptor, name in enumerate(("stdout", "stderr"), 1):
        if getattr(sys, name) is None:
            # For the life of the process; like those that Python would have made.
            stream = open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _in_background(config: Config, reconfigure: Reconfigure, inherited: Sequence[int], report: Report) -> int:
    try:
        return _serve(config, reconfigure, None, inherited, report.ready)
    except OperatorError as error:
        detail = f"{error.detail}\n" if isinstance(error, LoadError) and error.detail else ""
        if logger.handlers:  # otherwise the log itself could not be opened; the launching process says it
            logger.error("%s", error, extra={"detail": detail})
        report.failed(error.exit_code, str(error))
        return error.exit_code


def _serve(
    config: Config,
    reconfigure: Reconfigure,
    handed: Handover | None,
    inherited: Sequence[int],
    on_ready: Callable[[], None],
) -> int:
    file = open_log(config, again=handed is not None)
    signals.end_by_exception()
    try:
        prepared = prepare(config, file, handed, inherited)
        prepared.on_ready = on_ready
        forks.belongs(prepared.leave_behind)
        try:
            if config.has_master:
                return Master(prepared, reconfigure, handed).run()
            return single.serve(config, prepared)
        except BaseException as error:
            if forks.is_fork():  # what follows is for the process that it was forked from
                forks.leave(error)
            raise
        finally:
            prepared.clean_up()
    except StopOrdered as order:
        logger.info("stopped by %s before anything was served", signal.Signals(order.number).name)
        return 0
