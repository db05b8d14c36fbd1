"""From plain WSGI code to asyncio: await_, spawn, sleep, to_thread, in_core.

Every call here suspends the core, never the worker. The work itself runs as a Task of the worker's loop in the core's
own contextvars.Context, so that what a coroutine sets, the view sees.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from corelet.base.errors import NotInCore
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

    Raises NotInCore outside a request.
    """
    core = _core("await_", awaitable)
    future = _future(core, awaitable)
    if future.done():
        return future.result()
    timer = None if timeout is None else core.hub.loop.call_later(max(0.0, timeout), _expire, future)
    waker = functools.partial(_wake, core, core.serial, future)
    future.add_done_callback(waker)
    try:
        while not future.done():
            core.hub.wait(core)
    except BaseException:
        future.remove_done_callback(waker)
        future.cancel()  # nobody is left to take its result
        raise
    finally:
        if timer is not None:
            timer.cancel()
    if future.cancelled() and getattr(future, "_corelet_expired", False):
        raise TimeoutError(f"the awaitable took longer than {timeout:g} s")
    return future.result()


def spawn(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a coroutine beside the request and return its Task, to be awaited later with `await_` or left to itself.

    It outlives the request when it is not awaited. Raises NotInCore outside a request.
    """
    core = _core("spawn", coroutine)
    task = core.hub.loop.create_task(coroutine, context=core.gr_context)
    _background.add(task)  # the loop itself keeps weak references only
    task.add_done_callback(_background.discard)
    return task


def sleep(seconds: float) -> None:
    """Suspend the core for so long. Raises NotInCore outside a request."""
    core = _core("sleep", None)
    hub = core.hub
    serial = core.serial
    done: list[bool] = []

    def wake() -> None:
        if core.serial == serial and core.waiting and not done:
            done.append(True)
            hub.resume(core)

    if hub.only_call_soon:
        timer = hub.loop.call_later(max(0.0, seconds), hub.loop.call_soon, wake)
    else:
        timer = hub.loop.call_later(max(0.0, seconds), wake)
    try:
        while not done:
            hub.wait(core)
    finally:
        timer.cancel()


def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a thread of the loop's pool and return its result; context variables go along.

    Raises NotInCore outside a request.
    """
    core = _core("to_thread", None)
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await_(core.hub.loop.run_in_executor(None, call))


_background: set[asyncio.Task[Any]] = set()


def _core(what: str, awaitable: object) -> Core:
    core = current_core()
    if core is not None and core.is_current():
        return core
    if inspect.iscoroutine(awaitable):
        awaitable.close()  # or Python warns that it was never awaited
    if core is not None:
        raise NotInCore(f"corelet.{what}() was called in a child greenlet: call it in the view's own greenlet")
    raise NotInCore(
        f"corelet.{what}() suspends the core of a request, and none is here: call it from a view served by corelet;"
        " in a coroutine or callback use `await` and asyncio, in a script asyncio.run(); corelet.in_core() tells"
    )


def _future(core: Core, awaitable: Awaitable[T]) -> asyncio.Future[T]:
    if asyncio.isfuture(awaitable):
        return awaitable
    coroutine = awaitable if inspect.iscoroutine(awaitable) else _awaiting(awaitable)
    return core.hub.loop.create_task(coroutine, context=core.gr_context)


async def _awaiting(awaitable: Awaitable[T]) -> T:
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"await_() is to be given an awaitable, a {type(awaitable).__name__} came")
    return await awaitable


def _wake(core: Core, serial: int, _awaited: asyncio.Future[Any], _done: asyncio.Future[Any]) -> None:
    if core.serial == serial and core.waiting:
        core.hub.resume(core)


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future._corelet_expired = True  # type: ignore[attr-defined]
        future.cancel()
