"""Calls that are to run on a core while it waits: what asgiref's thread-sensitive `sync_to_async` needs.

A view waits for a coroutine; the coroutine calls plain code that belongs to the view's own thread: Django's database
connection, a transaction, a `threading.local`. Here all that belongs to the core. So the call is queued, the core is
woken, runs it between two looks at its condition, and goes on waiting (`until(core, done, between)`).

Calls keep to their level. A queued call may itself wait for a coroutine, whose calls then run inside it; calls of the
outer coroutine wait until it is done. Otherwise they could end up inside a transaction that is none of theirs.
"""

from __future__ import annotations

import threading
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import TYPE_CHECKING, Any

from corelet.api.scope import scope_of
from corelet.api.timeouts import LimitPassed
from corelet.api.waiting import wake
from corelet.base.errors import CoreletError
from corelet.serving.cores import Core

if TYPE_CHECKING:
    from corelet.serving.hub import Hub

_PART = "queued"
BESIDE = "a call of a coroutine that its request has left"


class RequestOver(CoreletError, RuntimeError):
    """A call was to run on a core whose request has ended, or is being unwound."""


class CoreExecutor(Executor):
    """Runs calls on a core, at one level; `outer` is the level around it. asgiref takes any Executor.

    It knows the core while it is open only: a core that somebody holds does not go back to the pool.
    """

    def __init__(self, core: Core, outer: CoreExecutor | None) -> None:
        self._core: Core | None = core
        self._serial = core.serial
        self._hub: Hub = core.hub
        self._outer = outer
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call, from the loop or from any thread.

        A level that is over leaves it to the one around it. After the request, and where the core cannot run it, it
        runs on a core of its own.
        """
        future: Future[Any] = Future()
        call = partial(function, *args, **kwargs)
        hub = self._hub
        # Never from a Task's own step, and from another thread the loop is to be woken.
        later = hub.loop.call_soon if threading.get_ident() == hub.thread else hub.loop.call_soon_threadsafe
        level: CoreExecutor | None = self
        while level is not None:
            # A core that awaits by `parent.switch(awaitable)` can run nothing until it is resumed.
            if level._core is not None and level._core.awaited is None:
                level._calls.append((future, call))
                later(wake, level._core, level._serial)
                return future
            level = level._outer
        later(hub.beside, partial(_perform, future, call), BESIDE)
        return future

    def run(self) -> bool:
        """In the core: run what is queued. True if anything was."""
        if not self._calls or self._core is None:
            return False
        parts = scope_of(self._core).parts
        while self._calls:
            future, call = self._calls.popleft()
            inner = parts[_PART] = CoreExecutor(self._core, self)
            try:
                _perform(future, call)
            finally:
                parts[_PART] = self
                inner.close()
        return True

    def close(self) -> None:
        """Nobody runs calls at this level any more.

        What waits goes to the level around it. At the request's end it goes to a core of its own, and fails where the
        request is unwound.
        """
        core, self._core = self._core, None
        outer = self._outer
        while self._calls:
            future, call = self._calls.popleft()
            if outer is not None and outer._core is not None:
                outer._calls.append((future, call))
            elif core is not None and core.unwinding is None:
                self._hub.loop.call_soon(self._hub.beside, partial(_perform, future, call), BESIDE)
            elif future.set_running_or_notify_cancel():
                future.set_exception(RequestOver("the request ended before a synchronous call could run on its core"))


def executor_of(core: Core) -> CoreExecutor:
    """The core's executor at the level where it runs now; made for each request when it is first asked for."""
    scope = scope_of(core)
    found: CoreExecutor | None = scope.parts.get(_PART)
    if found is None:
        found = scope.parts[_PART] = CoreExecutor(core, None)
        scope.at_end.append(found.close)
    return found


# Set when something is imported that queues calls (asgiref_hook.py): makes the executor known to it.
provide: Callable[[Core], CoreExecutor] | None = None


def between(core: Core) -> Callable[[], bool] | None:
    """Before a coroutine is started or waited for: what the wait is to run in between, see `until`."""
    return None if provide is None else provide(core).run


def _perform(future: Future[Any], call: Callable[[], Any]) -> None:
    """Run one call; its result, or whatever it raises, is its caller's."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except LimitPassed as error:
        future.set_exception(RequestOver(f"the call was ended: {error}"))
        raise  # the core's, on its way out to the block that it belongs to
    except (Exception, CancelledError) as error:  # noqa: BLE001 - as every executor does
        future.set_exception(error)
    except BaseException as error:
        future.set_exception(RequestOver(f"the call was ended: {error!r}"))
        raise  # an Unwind, or sys.exit(), which would end the loop if the coroutine raised it
    else:
        future.set_result(result)
