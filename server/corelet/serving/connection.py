"""A connection: a raw socket that a core reads from and writes to, suspended where the kernel has nothing or no room.

What both protocols share: sending with backpressure, waiting, noticing that the peer has gone, cutting a reply so that
the peer knows, closing without a reset. No asyncio transport or stream: the application may register the descriptor
itself, and the hot way of a request has no room for them.

The hot way works on the bare descriptor, in non-blocking mode: read, write and close. A socket object costs 1.3 µs
more, most of it for a getsockname() in its constructor (measured), so one is made only where more than that is needed.
"""

from __future__ import annotations

import _socket
import contextlib
import logging
import os
import re
import select
import socket
import struct
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from corelet.base.errors import BodyError, ClientDisconnected, Unwind
from corelet.serving.cores import Core
from corelet.serving.overdue import NEVER
from corelet.serving.poller import IN, LOST, OUT, PEER_CLOSED
from corelet.wsgi.response import Response

if TYPE_CHECKING:
    from corelet.serving.worker import Worker

PEEK = socket.MSG_PEEK
logger = logging.getLogger("corelet.connection")

READ_BYTES = 65536
SENDFILE_BYTES = 1 << 20  # per call, so that a fast reader of a large file does not keep the loop from the others
SMALL_FILE_BYTES = 16384  # up to here a read and one send cost less than two more system calls
LINGER_BYTES = 16 << 20  # of an unread body that is thrown away before the connection is closed all the same
MIN_BODY_RATE = 500  # bytes per second, after the first socket-timeout; as Apache's mod_reqtimeout (MinRate=500)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends a reset

_PEERS_WORDS = re.compile(
    r"['\"]|[0-9]{4}"
)  # where a reason stops being ours: a quotation, or a number of their choice
_scratch = bytearray(READ_BYTES)  # what is thrown away is read into here


class Discarded(Unwind):
    """What was to be sent is not wanted any more: the request is being unwound. None of it has gone out."""


class Connection(ABC):
    """One accepted socket. Life: made by the listener; `serve`d by cores; closed by `close`, `cut` or `linger`."""

    # What a connection begins with stands on the class: most of them live for one request and change little of it.
    core: Core | None = None
    mask = 0  # what the poller watches
    wanted = 0  # what the core waits for
    gone = False  # the connection is broken, or over for this protocol
    eof = False  # the peer sends no more; an edge-triggered poller says so once
    closed = False
    lingering = 0  # bytes that may still be thrown away
    body_left = 0
    body_received = 0
    body_waited = 0.0  # seconds
    read_errors = 0
    write_errors = 0
    partial = False  # a buffer of the reply has gone out in part
    impatient = False  # a read of the body that would have to wait raises BlockingIOError instead
    disconnected = False  # the application has closed it; the request goes on

    taken: Any = None  # whoever has taken the connection over (websocket.py): events are theirs

    _sock: Any = None

    def __init__(self, worker: Worker, fd: int, address: Any, family: int) -> None:
        self.worker = worker
        self.fd = fd
        self.address = address
        self.family = family

    @property
    def sock(self) -> Any:
        """The socket object of the descriptor, made when something needs more than reading, writing and closing."""
        if self._sock is None:
            self._sock = _socket.socket(self.family, socket.SOCK_STREAM, 0, self.fd)
        return self._sock

    # -- writing, in a core ---------------------------------------------------------------------------------------

    def send(self, *buffers: bytes) -> None:
        """Send all of it; the core is suspended while the peer does not read. Raises an Unwind when it never will."""
        core = self.core
        if core is not None and core.unwinding is not None:
            raise Discarded(str(core.unwinding))  # whatever the application still says
        try:
            if len(buffers) == 1:
                sent = os.write(self.fd, buffers[0])
                if sent == len(buffers[0]):
                    return
            else:
                sent = os.writev(self.fd, buffers)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lost(error)
            return
        self.partial = True
        for buffer in buffers:
            if sent >= len(buffer):
                sent -= len(buffer)
            else:
                self._send_rest(memoryview(buffer)[sent:])
                sent = 0

    def _send_rest(self, rest: memoryview) -> None:
        while rest:
            try:
                sent = os.write(self.fd, rest)
            except BlockingIOError:
                self._wait_writable()
            except OSError as error:
                self._lost(error)
                return
            else:
                rest = rest[sent:]

    send_last = send

    def send_file(self, head: bytes, descriptor: int, offset: int, count: int) -> None:
        """Send the head, then a part of a file by sendfile(2). A file that shrank meanwhile ends the reply short."""
        if count <= SMALL_FILE_BYTES:
            data = os.pread(descriptor, count, offset)
            if len(data) < count:
                raise OSError(f"the file ended {count - len(data)} bytes before the length that it had a moment ago")
            self.send_last(head + data)
            return
        self.send(head)
        while count > 0:
            try:
                sent = os.sendfile(self.fd, descriptor, offset, min(count, SENDFILE_BYTES))
            except BlockingIOError:
                self._wait_writable()
                continue
            except OSError as error:
                self._lost(error)
                return
            if sent == 0:
                raise OSError(f"the file ended {count} bytes before the length that it had when the reply began")
            offset += sent
            count -= sent
            if count:
                self._yield()

    def _yield(self) -> None:
        """Let the loop take a turn in the middle of a large file."""
        core = self._my_core()
        hub = self.worker.hub
        hub.loop.call_soon(_wake, hub, core, core.serial)
        hub.wait(core)

    def _wait_writable(self) -> None:
        core = self._my_core()
        hub = self.worker.hub
        seconds = self.timeout()
        late = ClientDisconnected(f"the client has not read for {seconds:g} s; unwound")
        self.wanted = OUT
        try:
            self._watch(OUT | PEER_CLOSED)
            hub.wait(core, hub.loop.time() + seconds, late)
        except ClientDisconnected:
            self.write_errors = 1
            raise
        finally:
            self.wanted = 0
        if self.gone:
            self.write_errors = 1
            if self.worker.config.client_gone != "ignore":
                raise ClientDisconnected("the client has closed the connection while the reply was sent")

    def _lost(self, error: OSError) -> None:
        """Nobody can be written to any more. Returns where the application is to run on (client-gone = ignore)."""
        self.gone = True
        self.write_errors = 1
        if self.worker.config.client_gone != "ignore":
            raise ClientDisconnected(f"the reply cannot be sent any more: {error.strerror}") from None

    # -- reading the body, in a core ------------------------------------------------------------------------------

    def receive_some(self, max_bytes: int) -> bytes:
        """Return 1..max_bytes bytes, waiting for them. Raises BodyError when the peer stops, or is too slow."""
        while True:
            try:
                data = os.read(self.fd, max_bytes)
            except BlockingIOError:
                self._wait_readable()
                continue
            except OSError as error:
                self.gone = True
                self.read_errors = 1
                raise BodyError(f"the connection broke in the middle of the request's body: {error.strerror}") from None
            if not data:
                self.peer_closed()
                raise self._cut_short()
            self.body_received += len(data)
            return data

    def _cut_short(self) -> BodyError:
        self.read_errors = 1
        return BodyError(
            f"the client closed the connection in the middle of the body, after {self.body_received} bytes"
        )

    def _wait_readable(self) -> None:
        if self.impatient:
            raise BlockingIOError
        core = self._my_core()
        hub = self.worker.hub
        seconds = self.timeout()
        now = hub.loop.time()
        # Two bounds: a pause, and an average below which a body is an attack (slow POST, CVE-2007-6750). Only waiting
        # counts: the time that the application took between two reads is not the peer's.
        allowed = seconds + self.body_received / MIN_BODY_RATE - self.body_waited
        deadline = now + min(seconds, allowed)
        late = BodyError(f"the request's body did not arrive in time ({self.body_received} bytes did)", status=408)
        self.wanted = IN
        try:
            self._watch(IN | PEER_CLOSED)
            hub.wait(core, deadline, late)
        except BodyError:
            self.read_errors = 1
            raise
        finally:
            self.wanted = 0
            self.body_waited += hub.loop.time() - now

    def _my_core(self) -> Core:
        if self.core is None:
            raise BodyError("the connection was used after its request had ended")
        return self.core

    # -- events, in the hub ---------------------------------------------------------------------------------------

    def _watch(self, mask: int) -> None:
        wider = self.mask | mask
        if wider != self.mask:
            self.mask = wider
            self.worker.poller.watch(self.fd, wider, self)

    def ready(self, mask: int) -> None:
        """The poller's event."""
        core = self.core
        if core is None:
            self.readable(mask)
            return
        if self.taken is not None:
            self.taken.event(mask)
            return
        if mask & LOST:
            self.gone = True
        if mask & (PEER_CLOSED | LOST):
            self.peer_closed()
        if self.wanted:
            # The core waits for this very socket. Let it look: bytes may stand before the end of file.
            if mask & (self.wanted | PEER_CLOSED | LOST):
                self.wanted = 0
                self.worker.hub.resume(core)
        elif self.gone and core.since:
            choice = self.worker.config.client_gone
            if choice == "unwind":
                self.worker.hub.unwind(core, ClientDisconnected("the client has gone"), "the client has gone; unwound")
            elif choice == "next-wait":
                error = ClientDisconnected("the client has gone (client-gone = next-wait)")
                self.worker.hub.doom(core, error, "the client has gone; to be unwound at its next wait")

    def is_there(self) -> bool:
        """Ask the kernel whether the peer is still connected; the poller tells only of suspended cores."""
        if self.gone or self.closed:
            return False
        poll = select.poll()
        poll.register(self.fd, select.POLLRDHUP)
        events = poll.poll(0)
        return not events or not self.means_gone(events[0][1])

    def means_gone(self, _events: int) -> bool:
        """Whether an end of file or worse, as poll(2) says it, is the end for this protocol."""
        return True

    def peer_closed(self) -> None:
        """The peer will send no more. On a uwsgi socket that means that it has gone."""
        self.gone = True

    @abstractmethod
    def readable(self, mask: int) -> None:
        """The connection waits for a request, or lingers."""

    def timeout(self) -> float:
        """The longest silence of the peer, in seconds."""
        return self.worker.config.socket_timeout or NEVER

    def complain(self, status: int, reason: str) -> None:
        """One line for a refusal; refusals of the same kind, whatever the peer put into them, share an interval."""
        kind = f"{status} {_PEERS_WORDS.split(reason, maxsplit=1)[0].strip()}"
        self.worker.complain(kind, "%s: refused with %d: %s", self.peer(), status, reason)

    def peer(self) -> str:
        """Who it is, for the log."""
        if isinstance(self.address, tuple):
            return f"{self.address[0]}:{self.address[1]}"
        return "a unix socket's peer"

    @abstractmethod
    def refuse(self, status: int, reason: str) -> None:
        """Answer by ourselves and close."""

    def take_over(self, owner: Any) -> bytes:
        """Events go to `owner` from now on, which reads and writes by itself; the bytes that came behind the request.

        The request ends with the connection, closed so that what was written last still arrives.
        """
        self.taken = owner
        self.last_reply()
        return b""

    def watch(self, mask: int) -> None:
        """For who has taken the connection over: have these events told, besides those that are already."""
        self._watch(mask)

    @abstractmethod
    def expire(self) -> None:
        """A deadline of the connection has passed, of its head or between two requests."""

    @abstractmethod
    def begin(self) -> None:
        """The connection has just been accepted."""

    @abstractmethod
    def serve(self, core: Core) -> None:
        """Run the request, in the core."""

    def enqueued(self) -> None:
        """The request waits for a core: notice whether the peer waits with it."""
        if self.eof:
            self.worker.loop.call_soon(self.ready, PEER_CLOSED)
        else:
            self._watch(PEER_CLOSED)

    def suspended(self, core: Core) -> None:
        """In the hub: the core is suspended for the first time in this request."""
        if self.eof:
            self.worker.loop.call_soon(self.ready, PEER_CLOSED)  # it came along with the request
        else:
            self._watch(PEER_CLOSED)

    def released(self) -> None:  # noqa: B027 - a connection of one request has nothing to go on with
        """In the hub: the request is over and its core free."""

    # -- the end --------------------------------------------------------------------------------------------------

    def linger(self) -> None:
        """Close without a reset while the peer may still be sending (RFC 9112 9.6): stop writing, throw away."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.core = None
        self.lingering = LINGER_BYTES
        self._watch(IN | PEER_CLOSED)
        self.worker.lingering.add(self, self.worker.loop.time())
        self.throw_away()

    def throw_away(self) -> None:
        """Read and forget; close at the end of file or when it was too much."""
        while self.lingering > 0:
            try:
                count = os.readv(self.fd, (_scratch,))
            except BlockingIOError:
                return
            except OSError:
                count = 0
            if not count:
                break
            self.lingering -= count
        self.close()

    def shown(self) -> None:  # noqa: B027 - nothing of the request is left in most sockets
        """In the core: the application may wait for the descriptor now; nothing of the request may be left in it."""

    def disconnect(self) -> None:
        """In the core: close towards the peer now, in order. The request goes on; nobody hears what it still says."""
        self.disconnected = True
        self.last_reply()
        if self.core is not None and self.taken is None:
            self.worker.poller.forget(self.fd)
            self.core.watched = True  # that the peer is gone is no reason to unwind the core any more
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End a reply that is not complete so that the peer can tell: a plain close is a complete reply to nginx."""
        if not self.closed:
            if self.family != socket.AF_UNIX and not self.disconnected:
                # An application may have closed a descriptor that is not its own: there is nothing left to reset.
                with contextlib.suppress(OSError):
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            # On a unix socket the request's last bytes are still unread (see UwsgiConnection): closing now resets.
            self.close()

    def close(self) -> None:
        """Close; nothing of the connection is left behind anywhere."""
        if self.closed:
            return
        self.closed = True
        self.core = None
        if self.mask:
            self.worker.poller.forget(self.fd)
            self.worker.forget(self)
        try:
            if self._sock is None:
                os.close(self.fd)
            else:
                self._sock.close()
        except OSError as error:
            logger.error("descriptor %d of a connection was closed by somebody else: %s", self.fd, error.strerror)
        self.fd = -1  # whoever still holds this connection must not reach the next one that gets the number
        worker = self.worker
        worker.connections -= 1
        if worker.connections == worker.max_connections - 1:
            worker.free()

    def abandon(self) -> None:
        """Something failed that must not: leave the connection, and nothing of it behind."""
        self.gone = True
        self.cut()

    def last_reply(self) -> None:  # noqa: B027 - a connection of one request has no other
        """The reply that follows is the connection's last one."""

    def title(self) -> str:
        """Return the request in two words."""
        return "no request yet"

    @abstractmethod
    def head_end(self, response: Response, length: int | None) -> str:
        """See wsgi.response.Writer."""


def _wake(hub: Any, core: Core, serial: int) -> None:
    if core.serial == serial and core.waiting:
        hub.resume(core)
