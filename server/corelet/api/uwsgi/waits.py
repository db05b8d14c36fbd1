"""The part of `uwsgi` that waits: for descriptors and for time, as its `--async` mode does.

An application says what it waits for (`wait_fd_read(fd, 3)`, as often as it likes, `async_sleep(1)`), which returns b""
at once, and then goes to wait for any of it: by `suspend()`, or by yielding a chunk from its generator. The first time
limit that was given holds. What has come ends all of it.

What is waited for is watched under a descriptor of our own (os.dup) in the worker's Poller, never in the loop: the
application's own `loop.add_reader(fd)` replaces no watch of ours, and no watch of ours takes out its reader. A copy
cannot outlive the request either, so closing the connection leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any

from corelet.api.scope import scope_of
from corelet.api.server import Server
from corelet.api.uwsgi.context import core_of
from corelet.api.waiting import call_later, until, waker
from corelet.serving.cores import Core
from corelet.serving.poller import IN, LOST, OUT, PEER_CLOSED, Poller
from corelet.serving.worker import Worker

LIVE: dict[str, Callable[[], Any]] = {}

READABLE = "x-wsgiorg.fdevent.readable"
WRITABLE = "x-wsgiorg.fdevent.writable"
TIMED_OUT = "x-wsgiorg.fdevent.timeout"
READY_FD = "uwsgi.ready_fd"


def names(server: Server) -> dict[str, Any]:
    """The plain attributes."""
    return {
        "async_sleep": async_sleep,
        "green_schedule": suspend,
        "ready_fd": ready_fd,
        "suspend": suspend,
        "wait_fd_read": wait_fd_read,
        "wait_fd_write": wait_fd_write,
    }


def serve(worker: Worker) -> None:
    """The worker is made: its environ has the keys of wsgiorg's fdevent from now on, as in uWSGI."""
    keys: dict[str, Any] = {READABLE: wait_fd_read, WRITABLE: wait_fd_write, TIMED_OUT: None}
    for core in worker.hub.cores:
        core.environ.update(keys)


def wait_fd_read(fd: int, timeout: float = 0, /) -> bytes:
    """The next wait ends when the descriptor is readable, or after so many seconds (0: no limit)."""
    return _waits("wait_fd_read").add(fd, IN | PEER_CLOSED, timeout)


def wait_fd_write(fd: int, timeout: float = 0, /) -> bytes:
    """The next wait ends when the descriptor is writable, or after so many seconds (0: no limit)."""
    return _waits("wait_fd_write").add(fd, OUT, timeout)


def async_sleep(seconds: float, /) -> bytes:
    """The next wait ends after so many seconds."""
    return _waits("async_sleep").limit(seconds)


def suspend() -> bool:
    """Wait for what was said. Without anything to wait for, give the others a turn."""
    _waits("suspend").wait()
    return True


def ready_fd() -> int:
    """The descriptor that ended the last wait; -1 where its time was over."""
    found = scope_of(core_of("ready_fd")).parts.get("waits")
    return -1 if found is None else found.ready_fd


def wait_for(core: Core, fd: int, mask: int, seconds: float | None) -> bool:
    """Wait for one descriptor, apart from what the application waits for. False when the time was over."""
    waits = Waits(core)
    try:
        waits.add(fd, mask, seconds or 0)
        if seconds is not None:
            waits.limit(seconds)
        waits.wait()
    finally:
        waits.clear()
    return waits.ready_fd >= 0


class Waits:
    """What one request waits for."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._wake = waker(core)
        self._watched: list[_Watch] = []
        self._timer: asyncio.TimerHandle | None = None
        self._over = False  # something has come, or the time has passed
        self.ready_fd = -1  # of the last wait

    def add(self, fd: int, mask: int, seconds: float) -> bytes:
        """Wait for this too."""
        limit = _number(seconds)
        self._begin()
        self._watched.append(_Watch(self._poller(), fd, mask, self._came))
        return self.limit(limit) if limit > 0 else b""

    def limit(self, seconds: float) -> bytes:
        """Wait so long at most, if no other limit was given before."""
        limit = _number(seconds)
        self._begin()
        if self._timer is None:
            self._timer = call_later(self._core, limit, self._came, -1)
        return b""

    def wait(self) -> None:
        """In the core: until something has come. Afterwards nothing is waited for."""
        try:
            if not self._watched and self._timer is None:
                self.limit(0)  # a turn of the loop
            until(self._core, lambda: self._over)
        finally:
            self.clear()

    def between_chunks(self) -> None:
        """In the core: the application has yielded a chunk. What has come stands in its environ afterwards."""
        environ = self._core.current
        if environ is None or (not self._watched and self._timer is None):
            return
        self.wait()
        if self.ready_fd < 0:
            environ[TIMED_OUT] = True
        else:
            environ[TIMED_OUT] = None
            environ[READY_FD] = self.ready_fd

    def clear(self) -> None:
        """Wait for nothing any more, and leave no descriptor behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._watched:
            self._watched.pop().close()

    def _begin(self) -> None:
        if not self._watched and self._timer is None:
            self._over = False
            self.ready_fd = -1
            if self._core.current is not None:
                self._core.current[TIMED_OUT] = None

    def _came(self, fd: int) -> None:
        if not self._over:
            self._over = True
            self.ready_fd = fd
            self._wake()

    def _poller(self) -> Poller:
        connection: Any = self._core.job
        poller: Poller = connection.worker.poller
        return poller


class _Watch:
    """One descriptor, watched under a number of its own."""

    def __init__(self, poller: Poller, fd: int, mask: int, came: Callable[[int], None]) -> None:
        self._poller = poller
        self._fd = fd
        self._came = came
        self._mask = mask | LOST
        try:
            self._copy = os.dup(fd)
        except OSError as error:
            raise OSError(error.errno, f"descriptor {fd} cannot be waited for: {error.strerror}") from None
        try:
            poller.watch(self._copy, mask, self)
        except OSError as error:
            os.close(self._copy)
            hint = "; a file on a disk is always ready" if isinstance(error, PermissionError) else ""
            raise OSError(error.errno, f"descriptor {fd} cannot be waited for: {error.strerror}{hint}") from None

    def ready(self, mask: int) -> None:
        """The poller's event."""
        if mask & self._mask:
            self._came(self._fd)

    def abandon(self) -> None:
        """It failed: nobody waits for it any more."""
        self.close()

    def close(self) -> None:
        """Take it out of the poller, before the number can be somebody else's."""
        if self._copy >= 0:
            self._poller.forget(self._copy)
            with contextlib.suppress(OSError):
                os.close(self._copy)
            self._copy = -1


def _number(seconds: float) -> float:
    if isinstance(seconds, (str, bytes)):
        raise TypeError(f"seconds are to be a number, a {type(seconds).__name__} came")
    return float(seconds)


def _waits(what: str) -> Waits:
    """What the caller's request waits for; made at its first call."""
    core = core_of(what)
    scope = scope_of(core)
    found = scope.parts.get("waits")
    if found is None:
        found = scope.parts["waits"] = Waits(core)
        scope.at_end.append(found.clear)
        core.response.between_chunks = found.between_chunks
    waits: Waits = found
    return waits
