"""asgiref in a core: `async_to_sync` runs on the worker's loop, and thread-sensitive code on the core that waits.

Flask and Django call an `async def` view by asgiref's async_to_sync. Its own way starts a thread with a loop of its own
and blocks the worker until the view has answered: one request at a time (measured). With this hook it is an await_, and
such views run side by side in one worker.

sync_to_async inside them (Django's ORM, atomic()) is to run in "the thread that called async_to_sync"; here that is the
core, whose connections and thread-locals they then use (queued.py). asgiref finds the executor for such calls in
`AsyncToSync.executors.current`, which is kept in a context variable.

Outside a core, and where a new loop is asked for, nothing is changed.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable
from typing import Any

from corelet.api import queued
from corelet.api.bridge import await_
from corelet.api.waiting import core_for
from corelet.serving.cores import Core, current_core


def install(module: Any) -> None:
    """asgiref.sync has been imported."""
    kind = module.AsyncToSync
    original = kind.__call__
    executors = kind.executors

    def provide(core: Core) -> queued.CoreExecutor:
        executor = queued.executor_of(core)
        if getattr(executors, "current", None) is not executor:
            executors.current = executor
        return executor

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        core = current_core()
        if core is None or _has_a_loop_of_its_own(core):
            return original(self, *args, **kwargs)
        core_for("async_to_sync")  # in a child greenlet asgiref's own way would wait for the loop that it blocks
        if not self.force_new_loop:
            return await_(_handling(sys.exc_info()[1], self.awaitable(*args, **kwargs)))
        before, executors.current = getattr(executors, "current", None), None
        try:
            return original(self, *args, **kwargs)
        finally:
            executors.current = before

    kind.__call__ = call
    queued.provide = provide


def _has_a_loop_of_its_own(core: Core) -> bool:
    """The view is inside an asyncio.run(): async_to_sync there is the mistake that asgiref says it is."""
    running = asyncio._get_running_loop()
    return running is not None and running is not core.hub.loop


async def _handling(error: BaseException | None, awaitable: Awaitable[Any]) -> Any:
    """What is called in an `except` block sees in sys.exc_info() what its caller sees."""
    if error is None:
        return await awaitable
    try:
        raise error
    except BaseException:  # noqa: BLE001 - nothing is caught: the exception is being handled by the caller
        return await awaitable
