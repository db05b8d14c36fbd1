"""Going to the background, with the start's outcome still told in the foreground.

uWSGI's launching process ends as soon as it has forked, so a script that starts it learns nothing: not that the port
was taken, not that the application could not be imported. Here the launching process stays until the server says that
it is ready, or that it failed and why, or has died. How long a start may take is nobody's to guess: it waits as long
as the server lives.

    launching process ── fork ── child: setsid ── fork ── the server, in a session of its own, reads /dev/null
            └───────────── waits on a pipe ◄──────────────────┘

Where the logs go is not decided here, and the folder stays what it was, as in uWSGI.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass

from corelet.process import forking, signals

FAILED = 1
NO_PROCESS = 71  # EX_OSERR (sysexits.h): how the child in between says that it could not fork

# Passed on to the server while it starts: it is in another session, so the terminal's Ctrl-C does not reach it.
PASSED_ON = (signal.SIGINT, signal.SIGTERM)

# Less than a pipe holds, so that a report never waits for whoever reads it.
MAX_TEXT_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a start went: the exit code of the launching process, and what to tell the operator, if anything."""

    code: int
    text: str = ""


class Report:
    """The server's one word to the process that launched it. Never raises and never waits; a second word is not sent.

    Processes that the server forks have no part in it: in them it is closed, so that the launching process notices the
    server's death and not that of the last of its workers.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.register_at_fork(after_in_child=self._close)

    def ready(self) -> None:
        """The server serves."""
        self._say(Outcome(0))

    def failed(self, code: int, text: str) -> None:
        """The server cannot start: the exit code and the words for the operator."""
        self._say(Outcome(code, text))

    def _say(self, outcome: Outcome) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # whoever launched us may have gone: then nobody needs to know
                os.write(self._descriptor, b"%d\n%b" % (outcome.code, _last_bytes(outcome.text)))
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _last_bytes(text: str) -> bytes:
    """The text as bytes; of a long one the end, which is where a traceback names its error."""
    return text.encode("utf-8", "backslashreplace")[-MAX_TEXT_BYTES:]


def detach(run: Callable[[Report], int]) -> Outcome:
    """Do `run` in a process of its own in the background, and return, in this one, how its start went.

    `run` gets the Report to call and returns the exit code of the background process. This process waits until the
    server has reported or died, however long that takes. SIGINT and SIGTERM are passed on to it meanwhile; after a
    second one this process waits no longer. It should end soon after: its handlers of these two are not put back.
    Raises OSError when the system has no process left for the first fork.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    orders = signals.SignalPipe(PASSED_ON)
    try:
        child = forking.fork(lambda: _in_between(run, reader, writer, orders))
    finally:
        os.close(writer)
    try:
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            return Outcome(
                FAILED, "cannot start a process for the server: the system has none left (ulimit -u, TasksMax=)"
            )
        return _outcome(reader, orders)
    finally:
        os.close(reader)
        orders.close()


def _in_between(run: Callable[[Report], int], reader: int, writer: int, orders: signals.SignalPipe) -> int:
    """The first child: a session without a terminal, and a second fork so that none can be acquired again."""
    os.close(reader)
    orders.close()
    os.setsid()
    try:
        forking.fork(lambda: _serve(run, writer))
    except OSError:
        return NO_PROCESS
    return 0


def _serve(run: Callable[[Report], int], writer: int) -> int:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)
    os.write(writer, _pid_line(os.getpid()))
    return run(Report(writer))


# ---- in the launching process ----


def _pid_line(pid: int) -> bytes:
    return b"%10d\n" % pid


PID_LINE_BYTES = len(_pid_line(0))


def _outcome(reader: int, orders: signals.SignalPipe) -> Outcome:
    """Wait for the report or the end of the server, and for orders of the operator."""
    line = os.read(reader, PID_LINE_BYTES)  # written in one piece, first of all
    if not line:
        return _verdict(b"", "the server")
    pid = int(line)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(orders.reader, select.POLLIN)
    data = b""
    orders_given: list[int] = []
    while len(orders_given) < 2:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if reader in ready:
            piece = os.read(reader, MAX_TEXT_BYTES)
            data += piece
            if not piece:
                break
        if orders.reader in ready:
            orders_given += _pass_on(orders.read(), pid)
    if orders_given:
        return Outcome(128 + orders_given[0], f"interrupted; the server (process {pid}) was told to stop")
    return _verdict(data, f"the server (process {pid})")


def _pass_on(numbers: list[int], pid: int) -> list[int]:
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):  # it has just ended: the pipe says so next
            os.kill(pid, number)
    return numbers


def _verdict(data: bytes, who: str) -> Outcome:
    """The Outcome that was reported, or the one of a server that died without a word. Pure."""
    code, reported, text = data.partition(b"\n")
    if not reported:
        return Outcome(FAILED, f"{who} ended before it was ready; its log says why")
    return Outcome(int(code), text.decode("utf-8", "replace"))
