"""From plain WSGI code to asyncio: await_, gather, sleep, to_thread, in_core.

Every call here suspends the core, never the worker. The work itself runs as a Task of the worker's loop in the core's
own contextvars.Context, so that what a coroutine sets, the view sees. How a core waits is waiting.py's business.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal, ParamSpec, TypeVar, overload

from corelet.api import queued
from corelet.api.waiting import call_later, core_for, until, waker
from corelet.serving.contexts import enterable
from corelet.serving.cores import Core, current_core

T = TypeVar("T")
P = ParamSpec("P")


def in_core() -> bool:
    """True where `await_` works: in a request's own greenlet, under corelet."""
    return current_core() is not None


def await_(awaitable: Awaitable[T], timeout: float | None = None) -> T:
    """Wait for an awaitable and return its result, or raise its exception; other requests are served meanwhile.

    `timeout` is in seconds: past it the awaitable is cancelled and TimeoutError raised. When the request ends early
    (its client has gone, its deadline has passed) the awaitable is cancelled too.

    Raises NotInCore outside a request, RuntimeError for a Future of another event loop.
    """
    core = core_for("corelet.await_", awaitable)
    between = queued.between(core)
    context = core.gr_context
    own = enterable(context)
    future = _future(core, awaitable, own)
    if not future.done():
        _wait_for(core, future, timeout, between)
    if own is not context:
        _take_over(own)
    if future.cancelled() and getattr(future, "_corelet_expired", False):
        raise TimeoutError(f"the awaitable took longer than {timeout:g} s")
    return future.result()


@overload
def gather(*awaitables: Awaitable[T], return_exceptions: Literal[False] = False) -> list[T]: ...


@overload
def gather(*awaitables: Awaitable[T], return_exceptions: bool) -> list[T | BaseException]: ...


def gather(*awaitables: Awaitable[Any], return_exceptions: bool = False) -> list[Any]:
    """Wait for all of them at once and return their results in their order.

    When one fails, the others are cancelled, and have ended when its exception is raised here. With `return_exceptions`
    all run to their end and exceptions stand among the results. Raises NotInCore outside a request.
    """
    try:
        core = core_for("corelet.gather")
    except BaseException:
        for awaitable in awaitables:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
        raise
    queued.between(core)
    context = enterable(core.gr_context)
    return await_(_all([_future(core, awaitable, context) for awaitable in awaitables], return_exceptions))


def sleep(seconds: float) -> None:
    """Suspend the core for so long. Raises NotInCore outside a request."""
    core = core_for("corelet.sleep")
    over: list[bool] = []
    wake = waker(core)

    def passed() -> None:
        over.append(True)
        wake()

    timer = call_later(core, seconds, passed)
    try:
        until(core, lambda: over, queued.between(core))
    finally:
        timer.cancel()


def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a thread of the loop's pool and return its result; context variables go along.

    Raises NotInCore outside a request.
    """
    core = core_for("corelet.to_thread")
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await_(core.hub.loop.run_in_executor(None, call))


def _wait_for(
    core: Core, future: asyncio.Future[Any], timeout: float | None, between: Callable[[], bool] | None
) -> None:
    """Until it is done. It is cancelled when the wait ends in another way: nobody is left to take its result."""
    timer = None if timeout is None else call_later(core, timeout, _expire, future)
    wake = waker(core)
    future.add_done_callback(wake)
    try:
        until(core, future.done, between)
    except BaseException:
        future.remove_done_callback(wake)
        future.cancel()
        raise
    finally:
        if timer is not None:
            timer.cancel()


def _future(core: Core, awaitable: Awaitable[T], context: contextvars.Context) -> asyncio.Future[T]:
    loop = core.hub.loop
    if asyncio.isfuture(awaitable):
        if awaitable.get_loop() is not loop:
            raise RuntimeError(
                f"{awaitable!r} belongs to another event loop than the worker's: make it in the worker's loop"
                " (asyncio.get_event_loop() in a view, or while the application is imported); what runs in a loop of"
                " its own, in a thread, is waited for with to_thread"
            )
        return awaitable
    coroutine = awaitable if inspect.iscoroutine(awaitable) else _awaiting(awaitable)
    return loop.create_task(coroutine, context=context)


async def _awaiting(awaitable: Awaitable[T]) -> T:
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"await_() is to be given an awaitable, a {type(awaitable).__name__} came")
    return await awaitable


async def _all(futures: list[asyncio.Future[Any]], return_exceptions: bool) -> list[Any]:
    try:
        return await asyncio.gather(*futures, return_exceptions=return_exceptions)
    except BaseException:
        rest = [future for future in futures if not future.done()]
        for future in rest:
            future.cancel()
        if rest:
            await asyncio.wait(rest)
        raise
    finally:
        for future in futures:  # what failed second is not told by the garbage collector
            if future.done() and not future.cancelled():
                future.exception()


def _take_over(context: contextvars.Context) -> None:
    """What was set in a copy of the current context is set here too."""
    for variable, value in context.items():
        if variable.get(_NONE) is not value:
            variable.set(value)


_NONE: Any = object()


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future._corelet_expired = True  # type: ignore[attr-defined]
        future.cancel()
