"""`with corelet.timeout(5):` in plain code: what asyncio.timeout is to a coroutine.

A limit belongs to the core and the request that entered it. When it passes it is *due*; waiting.py raises it in the
next wait of the API's, or the loop's callback here wakes the core that sits in one. It is told once: `finally` blocks
inside the block may wait.

Inside the block it is an asyncio.CancelledError, as under asyncio: an `except Exception` that tries again must not
swallow it. It becomes TimeoutError where the block ends, and only for the limit that has passed, so that nested ones
keep apart.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from corelet.api.scope import scope_of
from corelet.api.waiting import call_later, core_for, wake
from corelet.serving.cores import Core


class LimitPassed(asyncio.CancelledError):
    """Raised in a wait inside the block of a limit that has passed; leaves the block as TimeoutError."""


class Timeout:
    """The context manager that `timeout` returns. `expired` tells, afterwards too, whether the time was over."""

    __slots__ = ("_core", "_error", "_seconds", "_serial", "_timer", "due", "expired")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._core: Core | None = None
        self._serial = 0
        self._timer: asyncio.TimerHandle | None = None
        self._error: LimitPassed | None = None
        self.due = False
        self.expired = False

    def __enter__(self) -> Timeout:
        if self._core is not None:
            raise RuntimeError("this timeout was entered before: make a new one for each block")
        self._core = core = core_for("corelet.timeout")
        self._serial = core.serial
        if core.limits is None:
            core.limits = []
            scope_of(core).at_end.append(lambda: _forget_all(core))
        core.limits.append(self)
        if self._seconds is not None:
            if self._seconds <= 0:
                self.due = self.expired = True
            else:
                self._timer = call_later(core, self._seconds, self._passed)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.end()
        core = self._core
        if core is not None and core.serial == self._serial and core.limits and self in core.limits:
            core.limits.remove(self)  # by identity: blocks of two generators need not end in the order of their begin
        if self._error is None or not isinstance(error, asyncio.CancelledError):
            return
        if error is self._error or not isinstance(error, LimitPassed):  # a Task on the way may have made a new one
            raise TimeoutError(f"the block took longer than {self._seconds:g} s (corelet.timeout)") from error

    def end(self) -> None:
        """Nothing fires any more."""
        self.due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def tell(self) -> BaseException:
        """Return what to raise in the core; it is due no more."""
        self.due = False
        self._error = LimitPassed(f"corelet.timeout({self._seconds:g}) has passed")
        return self._error

    def _passed(self) -> None:
        """In the hub: the time is over."""
        core = self._core
        if self._timer is None or core is None or core.serial != self._serial:
            return
        self._timer = None
        self.due = self.expired = True
        if core.awaited is not None:
            core.hub.give_up(core, self.tell())
        else:
            wake(core, self._serial)


def timeout(seconds: float | None) -> Timeout:
    """Limit the waits in a block of plain code: `with timeout(5): await_(…); sleep(1)`. None means no limit.

    Past it the wait that is going on in the block is ended, what was awaited is cancelled, and TimeoutError leaves the
    block. A block that is computing is told at its next wait. Raises NotInCore outside a request.
    """
    return Timeout(seconds)


def _forget_all(core: Core) -> None:
    """The request is over: limits that a generator was left inside of."""
    for limit in core.limits or ():
        limit.end()
    core.limits = None
