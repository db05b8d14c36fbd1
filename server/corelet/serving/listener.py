"""A listening socket in the loop.

It is watched only while a core is free and a connection may be held: what is not accepted stays in the kernel's
backlog, where a sibling worker or a later core takes it (uWSGI went on accepting and used 70 % of a CPU while full).
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from time import monotonic
from typing import TYPE_CHECKING

from corelet.base.address import Address
from corelet.serving.hub import TURN_SECONDS

if TYPE_CHECKING:
    from corelet.serving.connection import Connection
    from corelet.serving.worker import Worker

logger = logging.getLogger("corelet.listener")

BATCH = 64  # connections accepted in one turn of the loop
PAUSE_SECONDS = 0.5  # after the process has run out of descriptors
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Listener:
    """Accepts connections of one protocol."""

    def __init__(self, worker: Worker, sock: socket.socket, address: Address, protocol: type[Connection]) -> None:
        self.worker = worker
        self.address = address
        self.watching = False
        self._sock = sock
        self._protocol = protocol
        # What socket.socket.accept() is made of: a descriptor, and no socket object around it.
        self._accept = sock._accept  # type: ignore[attr-defined]
        self._paused_until = 0.0

    def resume(self) -> None:
        """Watch the socket, unless it is watched or the process is out of descriptors."""
        worker = self.worker
        if self.watching or worker.draining or worker.paused or worker.loop.time() < self._paused_until:
            return
        self.watching = True
        if worker.only_call_soon:
            worker.loop.add_reader(self._sock.fileno(), worker.loop.call_soon, self._ready)
        else:
            worker.loop.add_reader(self._sock.fileno(), self._ready)

    def pause(self) -> None:
        """Leave waiting connections to the kernel."""
        if self.watching:
            self.watching = False
            self.worker.loop.remove_reader(self._sock.fileno())

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self._sock.fileno()

    def look(self) -> None:
        """See whether a connection waits, if we may take one."""
        if self.watching:
            self._ready()

    def close(self, look: bool = True) -> None:
        """Stop for good, after a last look into the backlog; the socket itself belongs to the process layer."""
        self.pause()
        if look:
            self._ready()

    def take_more(self) -> bool:
        """Accept some more after `close`, whether a core is free or not. False when nobody waits."""
        return self._take(even_if_busy=True)

    def _ready(self) -> None:
        self._take(even_if_busy=False)

    def _take(self, even_if_busy: bool) -> bool:
        hub = self.worker.hub
        hub.hide()
        try:
            return self._accept_batch(even_if_busy)
        finally:
            hub.show()

    def _accept_batch(self, even_if_busy: bool) -> bool:
        """Whether there may be more."""
        worker = self.worker
        idle = worker.hub.idle
        accept, protocol, family = self._accept, self._protocol, self._sock.family
        turn_ends = monotonic() + TURN_SECONDS
        for _ in range(BATCH):
            if (not idle and not even_if_busy) or worker.connections >= worker.max_connections:
                worker.full()
                return False
            try:
                descriptor, address = accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                    return False
                continue  # ECONNABORTED and its kin: that connection is gone, the next may be well
            worker.connections += 1
            os.set_blocking(descriptor, False)
            connection = protocol(worker, descriptor, address, family)
            try:
                connection.begin()
            except Exception:
                logger.critical("a connection failed in the server itself; it is cut", exc_info=True)
                connection.abandon()
            if monotonic() > turn_ends:
                break  # the rest is told again in the next turn: this socket is watched by level
        return True

    def _exhausted(self, error: OSError) -> None:
        """Never spin on an error that only time cures."""
        worker = self.worker
        worker.complain(
            "descriptors",
            "%s: cannot accept: %s; waiting %.1f s (%d open; raise the limit of files or lower max-connections)",
            self.address.label,
            error.strerror,
            PAUSE_SECONDS,
            worker.connections,
        )
        self.pause()
        if worker.siblings is not None:
            worker.siblings.call()
        self._paused_until = worker.loop.time() + PAUSE_SECONDS
        worker.loop.call_later(PAUSE_SECONDS, self._after_pause)

    def _after_pause(self) -> None:
        self._paused_until = 0.0
        self.worker.free()
