"""The hub: the greenlet that runs the event loop, and gives control to cores.

Control goes hub -> core in `_slice` (and `start`, its hot form), core -> hub in `wait` and in the application's own
`parent.switch()`. Nothing else moves it.

Rules, each paid for by a measurement (see ARCHITECTURE.md):
* Greenlets are pooled: a fresh one costs 10 µs from CPython 3.11 on, a pooled one 0.4. One that somebody still holds a
  reference to is retired instead, so that a late `switch()` finds a dead greenlet and never another request.
* Every request runs in a fresh contextvars.Context.
* The running loop is hidden while a core runs: a visible one makes asyncio.run, asgiref and Django's ORM refuse to
  work.
* Under uvloop control enters a core from call_soon only: libuv keeps lists on the C stack that a switch would swap out.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import itertools
import logging
import sys
import threading
from asyncio import tasks as asyncio_tasks
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from corelet.base import forks
from corelet.base.errors import NotInCore, Unwind
from corelet.base.scoreboard import Scoreboard
from corelet.serving.contexts import enterable
from corelet.serving.cores import RETIRED, Core, Job, getcurrent
from corelet.serving.cores import raw_switch as _raw_switch
from corelet.serving.cores import raw_throw as _raw_throw
from corelet.serving.jobs import Beside, Nothing
from corelet.serving.overdue import NEVER, Overdue
from corelet.serving.policy import UnknownPolicy, thread_policy
from corelet.serving.where import suspended_at

logger = logging.getLogger("corelet.cores")

UNWIND_GRACE_SECONDS = 5.0  # how long `finally` blocks may wait before they are interrupted in their turn
MAX_KEPT_SWITCHES = 64
TURN_SECONDS = 0.005  # of views, one after the other, before timers and other callbacks get their turn

_set_running_loop = asyncio._set_running_loop
_get_running_loop = asyncio._get_running_loop


class Hub:
    """All cores of a worker, and the greenlet that they switch to.

    To be made in the thread, and the greenlet, that runs the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        count: int,
        environ: Callable[[int], dict[str, Any]],
        *,
        hide_loop: bool = True,
        only_call_soon: bool = False,
        suspend_seconds: float = NEVER,
        harakiri_seconds: float = 0.0,
        stubborn_seconds: float = NEVER,
        on_stubborn: Callable[[Core], None] | None = None,
        board: Scoreboard | None = None,
    ) -> None:
        self.loop = loop
        self.greenlet = getcurrent()
        self.thread = threading.get_ident()
        self.hide_loop = hide_loop
        self.only_call_soon = only_call_soon
        self.suspend_seconds = suspend_seconds
        self.harakiri_seconds = harakiri_seconds
        self.stubborn_seconds = stubborn_seconds
        self.on_stubborn = on_stubborn  # told when a core goes on so long after its harakiri
        self.board = board
        self.queue: deque[tuple[Job, float]] = deque()  # complete requests that wait for a core, and since when
        self.on_free: Callable[[], None] | None = None  # set by who wants to be told once that a core is free
        self.retired = 0
        self.background: set[asyncio.Future[Any]] = set()  # what requests have left to finish beside them
        self._base_context = contextvars.copy_context()
        # Where asyncio keeps the thread's loop: 0.05 µs to look at, after every slice, against 0.3 by get_event_loop().
        self._thread_loop: Any = getattr(thread_policy(), "_local", None) or UnknownPolicy(loop)
        self._feeding = False
        self._hidden = False
        self.running: Core | None = None  # the core that the hub has given control to
        self._overdue = Overdue(self)
        self._beside: dict[int, Core] = {}
        self._idle_references = sys.maxsize
        self.cores = [Core(self, number, environ(number)) for number in range(count)]
        self.idle = [self.cores[number] for number in reversed(range(count))]  # core 0 is taken first
        self._calibrate()

    # -- taking and starting a core, on the hot way ---------------------------------------------------------------

    def take(self) -> Core:
        """Take a free core. One that is still known to somebody is replaced: see the rules above."""
        core = self.idle.pop()
        if sys.getrefcount(core) > self._idle_references or core.dead:
            core = self._replace(core)
        return core

    def start(self, core: Core, job: Job) -> None:
        """Control goes to the core; it comes back when the request is over or the core is suspended."""
        core.job = job
        core.gr_context = self._base_context.copy()
        core.serial += 1
        core.switches = 1
        if self.harakiri_seconds:
            core.harakiri_at = self.loop.time() + self.harakiri_seconds
        self.running = core  # nothing below raises: Core.run keeps what the application does to itself
        if self._hidden:
            value = _raw_switch(core, job)
            if _get_running_loop() is not None or self._thread_loop._loop is not self.loop:
                self._tidy(core)
        else:
            self.hide()
            try:
                value = _raw_switch(core, job)
                self._tidy(core)
            finally:
                self.show()
        self.running = None
        if core.job is None:
            self._release(core, job)
        else:
            self._suspended(core, job, value)

    def _release(self, core: Core, job: Job) -> None:
        if core.number < 0:
            del self._beside[core.number]
            _raw_switch(core, RETIRED)
            return
        core.requests += 1
        if core.switches > 1 or core.since or self.harakiri_seconds:
            core.unwinding = core.late = core.kept = core.nested = core.awaited = core.doomed = None
            core.waiting = core.watched = core.lost = False
            core.gone_at = core.harakiri_at = core.stubborn_at = NEVER
            core.since = 0.0
        if core.__dict__:
            core.__dict__.clear()  # what the application hung on the greenlet was this request's
        self.idle.append(core)
        job.released()
        if self.queue and not self._feeding:
            self._feed()
        if self.on_free is not None and self.idle:
            tell = self.on_free
            self.on_free = None
            tell()

    def _feed(self) -> None:
        """Give free cores to those who wait; a loop, since a recursion through start could fill the stack."""
        self._feeding = True
        turn_ends = monotonic() + TURN_SECONDS
        try:
            while self.queue and self.idle:
                if monotonic() > turn_ends:
                    self.loop.call_soon(self._feed)  # others have waited for the loop meanwhile
                    return
                job, _since = self.queue.popleft()
                self.start(self.take(), job)
        finally:
            self._feeding = False

    def _calibrate(self) -> None:
        """Learn the reference count of a core that nobody but the hub knows, with one that has run already."""
        core = self.running = self.idle[-1]
        core.job = job = Nothing()
        _raw_switch(core, job)
        self.running = None
        core = self.idle.pop()
        self._idle_references = sys.getrefcount(core)
        self.idle.append(core)

    def _replace(self, core: Core) -> Core:
        fresh = Core(self, core.number, core.environ)
        fresh.requests = core.requests
        self.cores[core.number] = fresh
        self.retired += 1
        _raw_switch(core, RETIRED)  # its run() returns: it is dead from here on
        return fresh

    def beside(self, function: Callable[[], object], title: str) -> None:
        """In the hub, from a plain callback: run a function on a core of its own, beside those that serve requests.

        It may wait like a view. What it raises is logged under its title.
        """
        number = next(number for number in itertools.count(-2, -1) if number not in self._beside)
        core = self._beside[number] = Core(self, number, {})
        core.began = monotonic()
        core.job = job = Beside(function, title)
        core.gr_context = self._base_context.copy()
        self._slice(core, _raw_switch, (job,), {})

    # -- suspension -----------------------------------------------------------------------------------------------

    def wait(self, core: Core, deadline: float = NEVER, late: BaseException | None = None) -> Any:
        """Called in the core: go to the hub until the server resumes it. Returns what `resume` was given.

        At `deadline` (loop time) `late` is raised here. May raise an Unwind.
        """
        if getcurrent() is not core:
            raise NotInCore("a child greenlet cannot wait for its core: do this in the greenlet that runs the view")
        core.waiting = True
        core.deadline = deadline
        core.late = late
        if self.running is not core:  # see Core.run: nobody in the hub will notice that the core is suspended
            self.loop.call_soon(self._suspended_late, core, core.serial)
        try:
            return self.greenlet.switch()
        finally:
            core.waiting = False

    def resume(self, core: Core, value: Any = None) -> None:
        """In the hub, from a plain callback: end a server's wait."""
        self._slice(core, _raw_switch, (value,), {})

    def raise_in(self, core: Core, error: BaseException) -> None:
        """In the hub, from a plain callback: end a server's wait with an exception."""
        self._slice(core, _raw_throw, (error,), {})

    def unwind(self, core: Core, error: Unwind, why: str) -> None:
        """In the hub: throw `error` into a core that is not running, and say where it was. Its `finally` blocks run."""
        job = core.job
        if job is None:
            return
        place = suspended_at(core.gr_frame)
        seconds = self.loop.time() - core.since
        logger.info("core %d suspended for %.1f s at %s (%s): %s", core.number, seconds, place, job.title(), why)
        core.unwinding = error
        if core.awaited is not None:
            self._stop_awaiting(core)
        self._slice(core, _raw_throw, (error,), {})

    def doom(self, core: Core, error: Unwind, why: str) -> None:
        """In the hub: let the wait that is going on end; `error` is thrown where the request next begins to wait."""
        if core.job is not None and core.unwinding is None and core.doomed is None:
            core.doomed = error
            logger.info("core %d (%s): %s", core.number, core.job.title(), why)

    def meet_doom(self, core: Core) -> None:
        """In the core: it begins to wait, and is not to."""
        error, core.doomed = core.doomed, None
        if error is not None:
            core.unwinding = error
            raise error

    def _doomed_by_now(self, core: Core, serial: int) -> None:
        """In the hub: the application has suspended the core by itself although it is not to wait any more."""
        error, core.doomed = core.doomed, None
        if error is not None and core.serial == serial and core.since:
            self.unwind(core, error, str(error))

    def give_up(self, core: Core, error: BaseException) -> None:
        """In the hub, from a plain callback: raise `error` where the core awaits by `parent.switch(awaitable)`."""
        self._stop_awaiting(core)
        self.raise_in(core, error)

    def _await_for(self, core: Core, awaitable: Any) -> None:
        """The application has switched to us with an awaitable (SQLAlchemy's way): switch back with its result."""
        core.waiting = True
        core.deadline = NEVER
        core.late = None
        task: asyncio.Future[Any] = (
            awaitable
            if asyncio.isfuture(awaitable) and awaitable.get_loop() is self.loop
            else self.loop.create_task(
                # A coroutine goes in bare: cancelled before its first step, it would be one that was never awaited.
                awaitable if inspect.iscoroutine(awaitable) else _result_of(awaitable),
                context=enterable(core.gr_context),
            )
        )
        core.awaited = task
        task.add_done_callback(functools.partial(self._awaited, core, core.serial))

    def _awaited(self, core: Core, serial: int, future: asyncio.Future[Any]) -> None:
        if core.serial != serial or core.awaited is not future:
            return
        core.awaited = None
        core.waiting = False
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            # With its traceback, or greenlet would begin a new one and the coroutine's part be lost.
            self._slice(core, _raw_throw, (type(error), error, error.__traceback__), {})
        else:
            self._slice(core, _raw_switch, (future.result(),), {})

    def _stop_awaiting(self, core: Core) -> None:
        future, core.awaited = core.awaited, None
        core.waiting = False
        if future is not None:
            future.cancel()  # nobody is left to take its result

    def enter(self, core: Core, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The application's switch() or throw(), from anywhere."""
        current = getcurrent()
        if current is self.greenlet:
            if self.only_call_soon:
                self.loop.call_soon(self._enter_later, core, core.serial, call, args, kwargs)
                return None
            return self._enter_now(core, call, args, kwargs)
        if current is core:
            return call(core, *args, **kwargs)
        if threading.get_ident() != self.thread:
            self.loop.call_soon_threadsafe(self._enter_later, core, core.serial, call, args, kwargs)
            return None
        parent = current.parent
        while parent is not None:
            if parent is core:  # a child greenlet of the application's own, on its way back
                return call(core, *args, **kwargs)
            parent = parent.parent
        self.loop.call_soon(self._enter_later, core, core.serial, call, args, kwargs)
        return None

    def _enter_later(
        self, core: Core, serial: int, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if core.serial == serial:
            self._enter_now(core, call, args, kwargs)

    def _enter_now(self, core: Core, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if core.job is None or core.dead:
            return args[0] if len(args) == 1 else args  # as a switch to a dead greenlet does
        if core.waiting:
            kept = core.kept
            if kept is None:
                kept = core.kept = deque()
            if len(kept) < MAX_KEPT_SWITCHES:
                kept.append((call, args, kwargs))
            else:
                logger.warning("core %d: %d switches came during one wait; the rest is dropped", core.number, len(kept))
            return None
        task = asyncio_tasks.current_task(self.loop)
        if task is None:
            return self._slice(core, call, args, kwargs)
        # A coroutine switches into the core: the core must not see the coroutine's task as its own.
        asyncio_tasks._leave_task(self.loop, task)
        try:
            return self._slice(core, call, args, kwargs)
        finally:
            asyncio_tasks._enter_task(self.loop, task)

    def _replay(self, core: Core, serial: int) -> None:
        if core.serial == serial and core.kept and not core.waiting and core.job is not None:
            call, args, kwargs = core.kept.popleft()
            self._slice(core, call, args, kwargs)

    def _slice(self, core: Core, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Control goes to a suspended core until it is suspended again or its request is over."""
        job = core.job
        if job is None:
            return None
        since = core.since
        serial = core.serial
        core.since = 0.0
        core.switches += 1
        self.running = core
        if self.board is not None:
            self.board.running(core.number, job.title().replace("'", ""), core.began)
        try:
            if self._hidden:
                value = self._go(core, call, args, kwargs)
            else:
                self.hide()
                try:
                    value = self._go(core, call, args, kwargs)
                finally:
                    self.show()
        except BaseException:
            # throw() with arguments that are no exception raises here, in its caller; the core has not moved.
            if core.serial == serial and core.job is job:
                core.since = since
            raise
        finally:
            self.running = None
        if core.job is None:
            self._release(core, job)
        else:
            self._suspended(core, job, value)
        return value

    def _go(self, core: Core, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if core.nested is not None:  # it was suspended inside an asyncio.run() of its own
            _set_running_loop(core.nested)
            core.nested = None
        try:
            return call(core, *args, **kwargs)
        finally:
            self._tidy(core)

    def _tidy(self, core: Core) -> None:
        """After a slice: the next core must find the worker's loop set, and none running."""
        if self._thread_loop._loop is not self.loop:  # asyncio.run() in the view has ended
            if forks.is_fork():  # or see leave_behind
                forks.leave()
            asyncio.set_event_loop(self.loop)
        if self.hide_loop:
            nested = _get_running_loop()
            if nested is not None:  # asyncio.run() in the view has not ended: its loop is that core's own
                core.nested = nested
                _set_running_loop(None)

    def hide(self) -> None:
        """Cores are about to run. A callback that starts many hides the loop once for all of them; `show` undoes it."""
        self._hidden = True
        if self.hide_loop:
            _set_running_loop(None)

    def show(self) -> None:
        """Back in the hub: the loop is the running one, and the thread's, whatever an application did (asyncio.run)."""
        self._hidden = False
        if self.hide_loop:
            try:
                if asyncio.get_event_loop() is not self.loop:  # a view may have exchanged the whole policy
                    asyncio.set_event_loop(self.loop)
            except RuntimeError:
                asyncio.set_event_loop(self.loop)
            _set_running_loop(self.loop)

    def _suspended_late(self, core: Core, serial: int) -> None:
        if core.serial == serial and core.waiting and core.job is not None:
            self._suspended(core, core.job)

    def _suspended(self, core: Core, job: Job, value: Any = ()) -> None:
        """The core is suspended; `value` is what the application's own switch to the hub brought along."""
        now = core.since = self.loop.time()
        if self.board is not None:
            self.board.left()
        if not core.waiting:
            if core.doomed is not None:
                self.loop.call_soon(self._doomed_by_now, core, core.serial)
            if value.__class__ is not tuple and inspect.isawaitable(value):
                self._await_for(core, value)
        if core.unwinding is not None:
            core.deadline = now + UNWIND_GRACE_SECONDS
            core.late = core.unwinding
        elif not core.waiting:
            core.deadline = now + self.suspend_seconds
            core.late = None
        if core.kept and not core.waiting:
            self.loop.call_soon(self._replay, core, core.serial)
        if not core.watched:
            core.watched = True
            job.suspended(core)
        self._overdue.arm()

    def leave_behind(self) -> None:
        """In a process that the application has forked: it ends when control comes back from a core, or to the loop.

        To look for that after each slice would cost something. What is looked for anyway is an exchanged loop, so one
        is found by `_tidy`.
        """
        self._thread_loop = UnknownPolicy(None)
        if threading.get_ident() == self.thread:
            self.loop.call_soon(forks.leave)

    def busy(self) -> list[Core]:
        """The cores that have a request which somebody waits for, and those that run something beside them."""
        return [core for core in self.all() if core.job is not None and not core.lost]

    def all(self) -> list[Core]:
        """All cores, those beside the requests included."""
        return [*self.cores, *self._beside.values()]


async def _result_of(awaitable: Any) -> Any:
    return await awaitable
