"""The one place where the API suspends a core: every wait of the bridge and of the `uwsgi` module goes through `until`.

A wait is a condition and somebody who wakes the core when it may have come true. Whoever waits writes

    core = a core that is current (core_for)
    loop.call_later(2, waker(core))          # any loop callback, a Future's done callback included
    until(core, lambda: came)                # other requests are served meanwhile

`until` looks at the condition before it suspends and after each wake-up, so a wake-up too many does no harm: wakers
hold no promise, they only say "look again". A wake-up that comes late (its wait is over, the core sits in a wait of the
server's own, its request has ended) does nothing.

What ends a wait early is raised in it, here and nowhere else: an Unwind (the client has gone, harakiri), thrown by the
server; and an expired `corelet.timeout`, which is delivered only in a wait of the API's: at once when the core sits in
one, at the next one otherwise. So a timeout never fires in the server's own writing to a slow client.

It must not know what is waited for.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Protocol

from corelet.base.errors import NotInCore
from corelet.serving.cores import Core, current_core


class Limit(Protocol):
    """A time limit around some waits (timeouts.py)."""

    due: bool  # it has passed, and the core has not been told

    def tell(self) -> BaseException:
        """Return what to raise in the core; it is due no more."""


def core_for(what: str, awaitable: object = None) -> Core:
    """The core that the caller may suspend. Raises NotInCore, which names `what`, and closes a coroutine unawaited."""
    core = current_core()
    if core is not None and core.is_current():
        return core
    if inspect.iscoroutine(awaitable):
        awaitable.close()  # or Python warns that it was never awaited
    if core is not None:
        raise NotInCore(f"{what}() was called in a child greenlet: call it in the view's own greenlet")
    raise NotInCore(
        f"{what}() suspends the core of a request, and none is here: call it from a view served by corelet;"
        " in a coroutine or callback use `await` and asyncio, in a script asyncio.run(); corelet.in_core() tells"
    )


def until(core: Core, done: Callable[[], object], between: Callable[[], bool] | None = None) -> None:
    """In the core: suspend it until `done()` is true.

    `between` runs in the core before it is suspended, each time; it may wait too, and returns whether it did anything.
    Raises what ends the wait early: an Unwind, or the exception of a time limit.
    """
    if core.doomed is not None:
        core.hub.meet_doom(core)
    if core.limits:
        tell_limits(core)
    hub = core.hub
    while not done():
        if between is not None and between():
            continue
        core.pausing = True
        try:
            hub.wait(core)
        finally:
            core.pausing = False
        if core.limits and not done():
            tell_limits(core)


def tell_limits(core: Core) -> None:
    """Raise the outermost time limit that is due, if any is."""
    for limit in core.limits or ():
        if limit.due:
            raise limit.tell()


def wake(core: Core, serial: int, *_from_a_callback: object) -> None:
    """In the hub, from a plain callback: have the core look at its condition, if it still sits in a wait of the API's.

    `serial` is `core.serial` of the request that waits.
    """
    if core.pausing and core.serial == serial and core.waiting:
        core.hub.resume(core)


def waker(core: Core) -> Callable[..., None]:
    """`wake` for the request that runs now, as a callback for the loop; it takes any arguments."""
    serial = core.serial

    def callback(*_arguments: object) -> None:
        wake(core, serial)

    return callback


def call_later(core: Core, seconds: float, callback: Callable[..., Any], *arguments: Any) -> asyncio.TimerHandle:
    """The loop's call_later, for callbacks that may wake a core: under uvloop control enters one by call_soon only."""
    hub = core.hub
    if hub.only_call_soon:
        return hub.loop.call_later(max(0.0, seconds), hub.loop.call_soon, callback, *arguments)
    return hub.loop.call_later(max(0.0, seconds), callback, *arguments)
