"""Signals in a worker: the handler of one that has come runs on a core beside the requests, and those who wait wake up.

A handler may wait like a view (await_, sleep, the ORM). The same signal is handled by one core at a time: what comes
meanwhile is counted, and handled after it; beyond MAX_PENDING it is dropped, with one line. Different signals run
beside one another.

A worker that is ending begins no more handlers. What was meant for any worker it gives back, for another one to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from corelet.api.registry import ANY, registry
from corelet.api.scope import scope_of
from corelet.api.server import Server, current
from corelet.api.waiting import core_for, until, waker
from corelet.serving.cores import Core, current_core

logger = logging.getLogger("corelet.signals")

MAX_PENDING = 100
ANY_SIGNAL = -1  # what somebody waits for who takes any


class _Waiter:
    """A core in signal_wait()."""

    def __init__(self, core: Core, number: int) -> None:
        self.wake = waker(core)
        self.number = number
        self.received: int | None = None


class Inbox:
    """What has come to this worker and is not done yet."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pending: dict[int, int] = {}  # signals whose handler runs, and how many more of each have come
        self.waiters: list[_Waiter] = []

    def deliver(self, number: int) -> None:
        """In the loop: a signal has come."""
        worker = self.server.serving()
        handler = registry.handlers.get(number)
        if worker.draining:
            if handler is None or handler.target == ANY:
                self.server.tell("raise", str(number))
        elif handler is None:
            worker.loop.call_soon(self._wake, number)
        elif number not in self.pending:
            self.pending[number] = 0
            self._begin(number, handler.function, handler.name)
        elif self.pending[number] < MAX_PENDING:
            self.pending[number] += 1
        else:
            worker.complain(
                f"signal {number}", "signal %d comes faster than handler %s is done with it: dropped, %d wait already",
                number, handler.name, MAX_PENDING,
            )  # fmt: skip

    def _begin(self, number: int, function: Callable[[int], object], name: str) -> None:
        worker = self.server.serving()

        def run() -> None:
            try:
                function(number)
            finally:
                worker.loop.call_soon(self._ended, number)

        # By call_soon: under uvloop control enters a core from nowhere else.
        worker.loop.call_soon(worker.hub.beside, run, f"signal {number} handler {name}")

    def _ended(self, number: int) -> None:
        waiting = self.pending.pop(number)
        self._wake(number)
        if waiting and self.server.serving().draining:
            for _ in range(waiting):
                self.deliver(number)
        elif waiting:
            self.deliver(number)
            if number in self.pending:
                self.pending[number] += waiting - 1

    # -- waiting --------------------------------------------------------------------------------------------------

    def wait(self, number: int) -> int:
        """In a core: suspend it until the signal has come, and its handler has run. Returns the signal."""
        core = core_for("uwsgi.signal_wait")
        waiter = _Waiter(core, number)
        first = all(other.number != number for other in self.waiters)
        self.waiters.append(waiter)
        if first:
            self.server.tell("awaits", str(number))
        try:
            until(core, lambda: waiter.received is not None)
        finally:
            self.waiters.remove(waiter)
            if all(other.number != number for other in self.waiters):
                self.server.tell("awaits-not", str(number))
        assert waiter.received is not None
        scope_of(core).parts["signal"] = waiter.received
        return waiter.received

    def _wake(self, number: int) -> None:
        for waiter in list(self.waiters):
            if waiter.number in (ANY_SIGNAL, number) and waiter.received is None:
                waiter.received = number
                waiter.wake()


def received() -> int:
    """The signal that the request has waited for last; 0 before it has."""
    core = current_core()
    if core is None or core.scope is None:
        return 0
    last: int = core.scope.parts.get("signal", 0)
    return last


_inbox: Inbox | None = None


def inbox() -> Inbox:
    """That of this process."""
    global _inbox  # noqa: PLW0603 - there is one process, and a forked one is another
    server = current()
    if _inbox is None or _inbox.server is not server:
        _inbox = Inbox(server)
    return _inbox


def deliver(number: int) -> None:
    """In the loop: a signal has come to this worker."""
    inbox().deliver(number)
