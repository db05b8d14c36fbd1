"""The part of `uwsgi` that locks: lock(n), unlock(n), is_locked(n), across all workers, without ever blocking the loop.

A lock is held twice over: inside the worker by one of its cores, which others wait for in order; and outside by the
worker as a whole, as a lock on byte n of a file that all workers have inherited (process/locks.py). Each process opens
that file anew, since such locks (F_OFD_SETLK, fcntl(2)) belong to what was opened: so each worker is an owner of its
own, and when it dies the kernel gives back what it held. The kernel's own waiting would block the loop, so a core
tries again and again, with a pause that grows.

A request that ends without unlocking what it has locked, by an exception, harakiri or forgetfulness, gives it back with
a warning. uWSGI keeps it locked until that worker ends, and every other request waits for ever.

While the application is imported, and in threads, waiting blocks, as there is nobody to keep waiting.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from corelet.api.scope import scope_of
from corelet.api.server import NotServed, Server, current
from corelet.api.waiting import call_later, until, waker
from corelet.base.errors import NotInCore
from corelet.serving.cores import Core, current_core

logger = logging.getLogger("corelet.locks")

LIVE: dict[str, Callable[[], Any]] = {}

FIRST_PAUSE_SECONDS = 0.0005
LONGEST_PAUSE_SECONDS = 0.02
_FLOCK = struct.Struct("hh4xqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid (0 for OFD)


def names(server: Server) -> dict[str, Any]:
    """The plain attributes. In a process that was forked from one that had locks, they begin anew."""
    global _locks  # noqa: PLW0603 - as there is one process
    if _locks is not None:
        _locks.close()
    _locks = Locks(server.locks, server.config.locks) if server.locks >= 0 else None
    return {"is_locked": is_locked, "lock": lock, "unlock": unlock}


def lock(number: int = 0, /) -> None:
    """Take the lock, waiting for it. Raises ValueError for a number beyond the option `locks`."""
    _the_locks().of(number).take()


def unlock(number: int = 0, /) -> None:
    """Give the lock back, whoever of this worker has it; one that another worker has stays locked."""
    _the_locks().of(number).give_back()


def is_locked(number: int = 0, /) -> bool:
    """Whether anybody has the lock, here or in another worker."""
    return _the_locks().of(number).is_held()


class Locks:
    """All locks of this process, and the file that they are held in."""

    def __init__(self, inherited: int, highest: int) -> None:
        self.descriptor = os.open(f"/proc/self/fd/{inherited}", os.O_RDWR | os.O_CLOEXEC)
        self._locks = [_Lock(self, number) for number in range(highest + 1)]

    def of(self, number: int) -> _Lock:
        """The lock of this number."""
        if not isinstance(number, int):
            raise TypeError(f"a lock has a number, a {type(number).__name__} came")
        if not 0 <= number < len(self._locks):
            raise ValueError(
                f"Invalid lock number {number}: there are 0 to {len(self._locks) - 1}; the option locks = N gives more"
            )
        return self._locks[number]

    def close(self) -> None:
        """Let go of the file; a copy of it that our parent has keeps the parent's locks."""
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = -1

    def try_file(self, number: int) -> bool:
        """Take the byte for this process, if no other has it."""
        try:
            self._fcntl(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, number)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def free_file(self, number: int) -> None:
        """Give the byte back."""
        self._fcntl(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, number)

    def file_is_held(self, number: int) -> bool:
        """Whether another process has the byte."""
        found = self._fcntl(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, number)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)

    def _fcntl(self, command: int, kind: int, number: int) -> bytes:
        return fcntl.fcntl(self.descriptor, command, _FLOCK.pack(kind, os.SEEK_SET, number, 1, 0))


class _Lock:
    """One lock. `_owner` is who has it in this process, or is about to have it."""

    def __init__(self, locks: Locks, number: int) -> None:
        self._locks = locks
        self._number = number
        self._guard = threading.Lock()  # held for a few instructions, never across a wait
        self._owner: object = None
        self._waiting: deque[_Turn] = deque()
        self._held = False  # the file's byte is ours as well

    def is_held(self) -> bool:
        """Whether anybody has it."""
        return self._held or self._locks.file_is_held(self._number)

    def take(self) -> None:
        """Take it, waiting."""
        core = current_core()
        if core is None or not core.is_current():
            self._take_without_core(core)
            return
        turn = _Turn(core)
        owner = self._owner
        if isinstance(owner, _Turn) and owner.is_of(core):
            raise NotInCore(
                f"uwsgi.lock({self._number}): this request has this lock already, and would wait for itself"
            )
        try:
            self._take_turn(turn)
            self._take_file(turn)
        except BaseException:
            self._pass_on(turn)
            raise
        self._remember(core)

    def _take_turn(self, turn: _Turn) -> None:
        """Be the owner in this process, after those who came before."""
        with self._guard:
            if self._owner is None and not self._waiting:
                self._owner = turn
                return
            self._waiting.append(turn)
        until(turn.core, lambda: self._owner is turn)

    def _take_file(self, turn: _Turn) -> None:
        """Be the owner among the processes."""
        pause = FIRST_PAUSE_SECONDS
        while not self._locks.try_file(self._number):
            rung: list[bool] = []
            timer = call_later(turn.core, pause, _ring, rung, turn.wake)
            try:
                until(turn.core, lambda rung=rung: rung)  # type: ignore[misc]
            finally:
                timer.cancel()
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        self._held = True

    def _take_without_core(self, core: Core | None) -> None:
        """At import, and in a thread: block. In a callback of the loop, or a child greenlet: only what is free."""
        server = current()
        may_block = core is None and (server.worker is None or threading.get_ident() != server.worker.hub.thread)
        me = _Outsider()
        pause = FIRST_PAUSE_SECONDS
        while not self._try(me):
            if not may_block:
                raise NotInCore(
                    f"uwsgi.lock({self._number}) would wait here, in a callback of the loop or a child greenlet, which"
                    " stops the worker: take the lock in a view, or in a thread"
                )
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _try(self, me: object) -> bool:
        with self._guard:
            if self._owner is not None:
                return False
            self._owner = me
        if self._locks.try_file(self._number):
            self._held = True
            return True
        self._pass_on(me)
        return False

    def give_back(self) -> None:
        """Unlock it, if this process has it."""
        if self._held:
            owner = self._owner
            self._held = False
            self._locks.free_file(self._number)
            self._pass_on(owner)

    def _remember(self, core: Core) -> None:
        """See to it that the request does not keep the lock."""
        scope = scope_of(core)
        taken = scope.parts.get("locks")
        if taken is None:
            taken = scope.parts["locks"] = set()
            scope.at_end.append(lambda: [lock.left_by(core) for lock in taken])
        taken.add(self)

    def left_by(self, core: Core) -> None:
        """The request on this core ends: it has the lock no more."""
        if isinstance(self._owner, _Turn) and self._owner.is_of(core):
            logger.warning("a request ended without unlocking: uwsgi.unlock(%d) was done for it", self._number)
            self.give_back()

    def _pass_on(self, owner: object) -> None:
        """This one has it no more, or wants it no more: the next one's turn."""
        with self._guard:
            if self._owner is not owner:
                if owner in self._waiting:
                    self._waiting.remove(owner)  # type: ignore[arg-type]
                return
            following = self._owner = self._waiting.popleft() if self._waiting else None
        if following is not None:
            following.ring()


class _Turn:
    """A request that has a lock, or waits for it."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.wake = waker(core)
        self._serial = core.serial

    def is_of(self, core: Core) -> bool:
        """Whether it is this core's request of now."""
        return self.core is core and self._serial == core.serial

    def ring(self) -> None:
        """From anywhere: have it look whether its turn has come."""
        self.core.hub.loop.call_soon_threadsafe(self.wake)


class _Outsider:
    """Somebody without a request, who has a lock."""


def _ring(rung: list[bool], wake: Callable[..., None]) -> None:
    rung.append(True)
    wake()


_locks: Locks | None = None


def _the_locks() -> Locks:
    if _locks is None:
        raise NotServed("uwsgi.lock() works in a process of the server; this one is none")
    return _locks


def _in_a_child() -> None:
    """A process that the application forks must not keep the file open: the worker's locks would outlive the worker."""
    global _locks  # noqa: PLW0603
    if _locks is not None:
        _locks.close()
        _locks = None


os.register_at_fork(after_in_child=_in_a_child)
