"""Locks for packages that hold one while they wait for a database: a core that wants it is suspended.

threading.Lock blocks the thread. The core that holds it is suspended in the middle of a query and runs in that very
thread, so it is never resumed: the first two requests at once of an application with SQLAlchemy over psycopg2 stopped
the worker for good, at the lock around the first connection (seen). Whatever is made to wait cooperatively needs its
locks to be so too; cooperate.py says where they are put in.

They work between cores, between threads, and between both. An RLock belongs to a core, or to a thread.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from corelet.api.waiting import call_later, until, wake
from corelet.serving.cores import Core, current_core


class CoreLock:
    """threading.Lock, for cores too. Those that wait get it in their order, as far as nobody else takes it first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Core, int]] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As threading.Lock."""
        if self._lock.acquire(False):
            return True
        if not blocking:
            return False
        core = current_core()
        if core is None or not core.is_current():
            return self._lock.acquire(True, timeout)
        return self._wait(core, None if timeout < 0 else timeout)

    def _wait(self, core: Core, seconds: float | None) -> bool:
        came: list[str] = []

        def done() -> bool:
            if not came and self._lock.acquire(False):
                came.append("lock")
            return bool(came)

        def over() -> None:
            came.append("time")
            wake(core, serial)

        serial = core.serial
        entry = (core, serial)
        timer = None if seconds is None else call_later(core, seconds, over)
        self._waiting.append(entry)
        try:
            until(core, done)
        finally:
            self._waiting.remove(entry)
            if timer is not None:
                timer.cancel()
            if came != ["lock"] and not self._lock.locked():
                self._wake_next()  # the release that woke this core is the next one's
        return came == ["lock"]

    def release(self) -> None:
        """As threading.Lock."""
        self._lock.release()
        self._wake_next()

    def _wake_next(self) -> None:
        if self._waiting:
            core, serial = self._waiting[0]
            hub = core.hub
            later = hub.loop.call_soon if threading.get_ident() == hub.thread else hub.loop.call_soon_threadsafe
            later(wake, core, serial)

    def locked(self) -> bool:
        """As threading.Lock."""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exception: object) -> None:
        self.release()


class CoreRLock:
    """threading.RLock; the owner is a core, where there is one."""

    def __init__(self) -> None:
        self._block = CoreLock()
        self._owner: Any = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As threading.RLock."""
        if self._is_owned():
            self._count += 1
            return True
        if not self._block.acquire(blocking, timeout):
            return False
        self._owner = _me()
        self._count = 1
        return True

    def release(self) -> None:
        """As threading.RLock."""
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._block.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exception: object) -> None:
        self.release()

    # What threading.Condition asks of its lock.

    def _is_owned(self) -> bool:
        return self._owner is not None and bool(self._owner == _me())

    def _release_save(self) -> int:
        count, self._count, self._owner = self._count, 0, None
        self._block.release()
        return count

    def _acquire_restore(self, count: int) -> None:
        self._block.acquire()
        self._owner = _me()
        self._count = count


class CoreCondition(threading.Condition):
    """threading.Condition, whose waiters wait at a lock of ours."""

    _waiters: deque[Any]

    def __init__(self, lock: Any = None) -> None:
        own: Any = CoreRLock() if lock is None else lock
        super().__init__(own)

    def wait(self, timeout: float | None = None) -> bool:
        """As threading.Condition."""
        inner: Any = self
        if not inner._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = CoreLock()
        waiter.acquire()
        self._waiters.append(waiter)
        saved = inner._release_save()
        notified = False
        try:
            notified = waiter.acquire(True, -1 if timeout is None else max(0.0, timeout))
        finally:
            inner._acquire_restore(saved)
            if not notified and waiter in self._waiters:
                self._waiters.remove(waiter)
        return notified


class Threading:
    """Stands in a package's module for the module `threading`: with our locks, and all the rest as it is there."""

    Lock = CoreLock
    RLock = CoreRLock
    Condition = CoreCondition

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


def _me() -> object:
    return current_core() or threading.get_ident()
