"""Cores: the greenlets that run requests. The only module that imports greenlet.

A *core* is a greenlet that serves one request at a time; its parent is the *hub* (hub.py), the greenlet that runs the
event loop. Control goes core -> hub in `Hub.wait`, in the application's own `me.parent.switch()`, and at the end of a
request; hub -> core in the hub only.

A core that is not running is in one of three states:
    idle       no job; it may be taken for the next request
    waiting    in one of the server's own waits (body, full socket, await_); only the server resumes it
    suspended  by the application's raw `parent.switch()`; whoever knows the greenlet resumes it with `switch()`
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import greenlet

from corelet.serving.overdue import NEVER

if TYPE_CHECKING:
    from corelet.base.errors import Unwind
    from corelet.serving.hub import Hub

logger = logging.getLogger("corelet.cores")

getcurrent = greenlet.getcurrent

raw_switch = greenlet.greenlet.switch
raw_throw = greenlet.greenlet.throw


RETIRED: Any = object()  # the last thing that a core is given


class Job(Protocol):
    """What a core runs: one request of one connection."""

    def serve(self, core: Core) -> None:
        """Run in the core, from the first byte of the application's work to the last of the reply. Never raises."""

    def suspended(self, core: Core) -> None:
        """In the hub: the core has been suspended for the first time; watch whether the client is still there."""

    def released(self) -> None:
        """In the hub: the core is free again."""

    def abandon(self) -> None:
        """`serve` raised after all: leave the request and its connection."""

    def title(self) -> str:
        """Return the request in a word or two, for the log."""


class Core(greenlet.greenlet):  # type: ignore[misc]  # greenlet has no types
    """One core: a greenlet with a number. `switch` and `throw` are safe to call from wherever an application is.

    Cores that serve requests are numbered from 0. One that runs something beside them (Hub.beside) has one below
    -1, which is nobody's on the scoreboard.
    """

    # SQLAlchemy asks the current greenlet for this before its async drivers do `parent.switch(awaitable)`, which the
    # hub answers (sqlalchemy/util/concurrency.py, await_).
    __sqlalchemy_greenlet_provider__ = True

    __slots__ = (
        "awaited",
        "began",
        "current",
        "deadline",
        "doomed",
        "environ",
        "gone_at",
        "harakiri_at",
        "hub",
        "job",
        "kept",
        "late",
        "limits",
        "lost",
        "nested",
        "number",
        "pausing",
        "requests",
        "response",
        "scope",
        "serial",
        "since",
        "stubborn_at",
        "switches",
        "unwinding",
        "user_harakiri",
        "waiting",
        "watched",
    )

    def __init__(self, hub: Hub, number: int, environ: dict[str, Any]) -> None:
        super().__init__(parent=hub.greenlet)
        self.hub = hub
        self.number = number
        self.environ = environ  # the server's keys of the environ that are the same for all requests on this core
        self.job: Job | None = None
        self.serial = 0  # of the request; tells a late callback that its request is over
        self.requests = 0
        self.switches = 0
        self.waiting = False
        self.pausing = False  # the wait is one of the API's (api/waiting.py)
        self.limits: list[Any] | None = None  # time limits around the API's waits, outermost first (api/timeouts.py)
        self.doomed: Unwind | None = None  # thrown where the request next begins to wait
        self.watched = False
        self.since = 0.0  # loop time of the suspension
        self.deadline = NEVER
        self.harakiri_at = NEVER
        self.stubborn_at = NEVER
        self.user_harakiri = 0.0  # seconds that the request itself has asked for
        self.lost = False  # the application has caught its unwinding: nobody waits for this request any more
        self.current: dict[str, Any] | None = None  # the environ of the request that runs
        self.response: Any = None  # of the request that runs
        self.scope: Any = None  # what the API keeps for the request that runs (api/scope.py); `end()` is called on it
        self.awaited: asyncio.Future[Any] | None = None  # by the application's own `parent.switch(awaitable)`
        self.began = 0.0  # monotonic time of the request's begin
        self.gone_at = NEVER  # when a client that has closed its side counts as gone
        self.nested: asyncio.AbstractEventLoop | None = None  # a loop that the view runs inside the core
        self.late: BaseException | None = None  # what to throw at the deadline
        self.unwinding: BaseException | None = None
        self.kept: deque[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] | None = None

    def run(self, job: Job | None) -> None:
        """The core's life: a job, then the hub; RETIRED ends it.

        Anything else that comes in is no order of the hub's: a child greenlet of an earlier request has ended late, and
        its end falls through to its parent. It is sent on to the hub.
        """
        hub = self.hub
        to_hub = hub.greenlet.switch
        while job is not RETIRED:
            if job is not None and job is self.job:
                try:
                    job.serve(self)
                except BaseException:  # a bug of ours; a core must not die with a request in its hands
                    logger.critical("core %d: the server itself failed", self.number, exc_info=True)
                    job.abandon()
                self.job = None
                if hub.running is not self:  # a child greenlet, resumed by the application, brought us past the hub
                    hub.loop.call_soon(hub._release, self, job)
            job = None
            job = to_hub()

    def is_current(self) -> bool:
        """True in the core's own greenlet, False in a child greenlet of it."""
        return getcurrent() is self

    def switch(self, *args: Any, **kwargs: Any) -> Any:
        """Resume the core with these values; what its `parent.switch()` returns.

        From a loop callback or a coroutine: at once, as under uWSGI. During one of the server's own waits: kept, and
        replayed after it. From another core: at the next turn of the loop. From another thread: as soon as the loop
        wakes up. After the request has ended: nothing.
        """
        return self.hub.enter(self, raw_switch, args, kwargs)

    def throw(self, *args: Any) -> Any:
        """Raise an exception in the core, where it is suspended; otherwise as `switch`."""
        return self.hub.enter(self, raw_throw, args, {})


def current_core() -> Core | None:
    """The core whose request the caller runs for: its own greenlet's, or the one that a child greenlet belongs to."""
    current: Any = getcurrent()
    while current is not None:
        if isinstance(current, Core):
            return current if current.job is not None else None
        current = current.parent
    return None
