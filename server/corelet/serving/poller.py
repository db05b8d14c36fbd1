"""One epoll descriptor for all connections of a worker, itself one reader of the loop.

asyncio's add_reader and remove_reader cost 10 µs a pair and belong to the application: on a connection's descriptor it
may register what it likes (uWSGI's websocket examples do). So the server watches its sockets here, edge-triggered, with
one registration for a connection's life, and only once a connection has to wait at all. A socket with unread bytes
stays silent, which is what lets a core be suspended with its request's body pending and its client's departure still
noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from corelet.serving.hub import TURN_SECONDS

if TYPE_CHECKING:
    from corelet.serving.hub import Hub

logger = logging.getLogger("corelet.poller")

IN = select.EPOLLIN
OUT = select.EPOLLOUT
PEER_CLOSED = select.EPOLLRDHUP
LOST = select.EPOLLHUP | select.EPOLLERR
_EDGE = select.EPOLLET
_BATCH = 256


class Watched(Protocol):
    """Something with a descriptor."""

    def ready(self, mask: int) -> None:
        """`mask`: IN, OUT, PEER_CLOSED and LOST bits of what has happened since the last call."""

    def abandon(self) -> None:
        """`ready` raised: leave, for good."""


class Poller:
    """The worker's epoll. Everything here runs in the hub or in a core of it; nothing suspends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hub: Hub) -> None:
        self._loop = loop
        self._hub = hub
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self._events: dict[int, int] = {}  # taken from the kernel, which tells an edge once, and not yet passed on
        if hub.only_call_soon:
            loop.add_reader(self._epoll.fileno(), loop.call_soon, self._ready)
        else:
            loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, descriptor: int, mask: int, owner: Watched) -> None:
        """Tell `owner` of these events; what is ready already is told at once, in the next turn of the loop."""
        if descriptor in self._watched:
            self._epoll.modify(descriptor, mask | _EDGE)
        else:
            self._epoll.register(descriptor, mask | _EDGE)
            self._watched[descriptor] = owner

    def forget(self, descriptor: int) -> None:
        """To be called before the descriptor is closed: a stale registration would swallow its successor's events."""
        self._events.pop(descriptor, None)
        if self._watched.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):  # closed by somebody else: the kernel has unregistered it
                self._epoll.unregister(descriptor)

    def fileno(self) -> int:
        """The epoll."""
        return self._epoll.fileno()

    def watched(self) -> list[int]:
        """Every descriptor that is watched."""
        return list(self._watched)

    def close(self) -> None:
        """Leave the loop."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _ready(self) -> None:
        events = self._events
        if not events:
            events.update(self._epoll.poll(0, _BATCH))
        watched = self._watched
        turn_ends = monotonic() + TURN_SECONDS
        self._hub.hide()
        try:
            while events:
                descriptor, mask = events.popitem()
                owner = watched.get(descriptor)
                if owner is not None:  # else it was closed by an earlier event of this batch
                    try:
                        owner.ready(mask)
                    except Exception:
                        logger.critical("a connection failed in the server itself; it is cut", exc_info=True)
                        owner.abandon()
                if monotonic() > turn_ends:
                    break
        finally:
            self._hub.show()
        if events:
            self._loop.call_soon(self._ready)
