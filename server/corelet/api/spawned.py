"""Coroutines beside a request: `spawn`, and what becomes of them when the request ends.

A spawned coroutine is a Task in the request's own contextvars.Context. A worker that is told to end lets those finish
that are to finish, as it lets requests.

What nobody takes is told once: an exception that neither the request nor anybody else has asked the Task for is logged
when the request has ended, or when the Task has, whichever is later. asyncio would tell it too, whenever the garbage is
collected, and without saying which request it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any, Literal, TypeVar

from corelet.api import queued
from corelet.api.scope import scope_of
from corelet.api.waiting import core_for
from corelet.serving.contexts import enterable
from corelet.serving.cores import Core

T = TypeVar("T")
AtEnd = Literal["finish", "cancel", "report"]

logger = logging.getLogger("corelet.api")

_PART = "spawned"


def spawn(coroutine: Coroutine[Any, Any, T], at_end: AtEnd = "finish") -> asyncio.Task[T]:
    """Start a coroutine beside the request and return its Task: await it later with `await_`, cancel it, or leave it.

    `at_end` says what becomes of it if it still runs when the request ends: "finish" lets it run to its end, "cancel"
    cancels it, "report" logs a warning with its place, and lets it go on. Raises NotInCore outside a request.
    """
    core = core_for("corelet.spawn", coroutine)
    if at_end not in ("finish", "cancel", "report"):
        coroutine.close()
        raise ValueError(f"at_end is finish, cancel or report; {at_end!r} came")
    queued.between(core)
    task = core.hub.loop.create_task(coroutine, context=enterable(core.gr_context))
    _kept.add(task)
    task.add_done_callback(_kept.discard)
    if at_end == "finish":
        core.hub.background.add(task)
    scope = scope_of(core)
    if _PART not in scope.parts:
        scope.parts[_PART] = []
        scope.at_end.append(partial(_end, scope.parts[_PART]))
    scope.parts[_PART].append(_Spawned(core, task, at_end, coroutine))
    return task


class _Spawned:
    """One of them, and what is said about it."""

    def __init__(self, core: Core, task: asyncio.Task[Any], at_end: AtEnd, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.task = task
        self.at_end = at_end
        self.request_over = False
        self._background = core.hub.background
        self._coroutine: Any = coroutine
        self._name = getattr(coroutine, "__qualname__", repr(coroutine))
        self._place = self._where()
        self._request = core.job.title() if core.job is not None else "?"
        self._core_number = core.number
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        self._coroutine = None
        if self.request_over:
            # At the next turn: who awaits the Task is told in this one, after us.
            task.get_loop().call_soon(self.tell_what_nobody_took)

    def end(self) -> None:
        """The request is over."""
        self.request_over = True
        if self.task.done():
            self.tell_what_nobody_took()
        elif self.at_end == "cancel":
            self.task.cancel()
        elif self.at_end == "report":
            logger.warning(
                "core %d %s: the request has ended, and %s, which it spawned, still runs, at %s; it goes on",
                self._core_number,
                self._request,
                self._name,
                self._where(),
            )

    def tell_what_nobody_took(self) -> None:
        """Log the exception, unless somebody has asked for it."""
        task: Any = self.task
        if task.cancelled() or not task._log_traceback:
            return
        error = task.exception()  # from here on asyncio says nothing
        logger.error(
            "core %d %s: %s (%s), which it spawned, failed, and nobody took its exception",
            self._core_number,
            self._request,
            self._name,
            self._place,
            exc_info=error,
        )

    def _where(self) -> str:
        """File and line where the coroutine stands."""
        frame = getattr(self._coroutine, "cr_frame", None)
        if frame is not None:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        return getattr(self, "_place", "?")


_kept: set[asyncio.Task[Any]] = set()  # the loop itself keeps weak references only


def _end(spawned: list[_Spawned]) -> None:
    for one in spawned:
        one.end()
