"""One epoll descriptor for all connections of a worker, itself one reader of the loop.

asyncio's add_reader and remove_reader cost 10 µs a pair and belong to the application: on a connection's descriptor it
may register what it likes (uWSGI's websocket examples do). So the server watches its sockets here, edge-triggered, with
one registration for a connection's life, and only once a connection has to wait at all. A socket with unread bytes
stays silent, which is what lets a core be suspended with its request's body pending and its client's departure still
noticed.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from corelet.serving.cores import Hub

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


class Poller:
    """The worker's epoll. Everything here runs in the hub or in a core of it; nothing suspends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hub: Hub) -> None:
        self._loop = loop
        self._hub = hub
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
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
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Leave the loop."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _ready(self) -> None:
        watched = self._watched
        self._hub.hide()
        try:
            for descriptor, mask in self._epoll.poll(0, _BATCH):
                owner = watched.get(descriptor)
                if owner is not None:  # else it was closed by an earlier event of this batch
                    owner.ready(mask)
        finally:
            self._hub.show()
