"""A connection on a uwsgi socket: one packet, one request, one reply, closed.

The whole packet is usually there when the connection is accepted, and goes straight to a core. A partial one waits in
the poller under an absolute deadline and holds no core.

How a reply is cut so that nginx notices decides how a request is read. Over TCP a reset does it. A unix socket resets
its peer only when it is closed with bytes unread, so there the request's last bytes are only peeked at and stay in the
kernel (`_held` bytes) until the reply is complete. It costs one more recv, 0.7 µs, and only on unix sockets.
"""

from __future__ import annotations

import logging
import os
from socket import AF_UNIX, IPPROTO_TCP, TCP_CORK
from typing import Any

from corelet.base.errors import BodyError, RequestRefused
from corelet.serving.connection import PEEK, READ_BYTES, Connection
from corelet.serving.cores import Core
from corelet.serving.exchange import exchange
from corelet.serving.poller import IN, PEER_CLOSED
from corelet.wire.reply import refusal
from corelet.wire.request import Request
from corelet.wire.uwsgi import read_request
from corelet.wsgi.input import EMPTY_INPUT, Input
from corelet.wsgi.response import Response
from uwsgiproto import HEADER_BYTES, PING_HEADER, PONG_PACKET, ProtocolError, check_header, decode_vars

logger = logging.getLogger("corelet.uwsgi")

FIRST_READ_BYTES = READ_BYTES + HEADER_BYTES  # the largest packet in one piece


class UwsgiConnection(Connection):
    """One packet from a front end, and its reply."""

    _buffer = b""  # what has been taken from the kernel of a packet that is not complete
    _held = 0  # bytes of the request that are still in the kernel
    _body = b""
    _request: Request | None = None
    _var_bytes = 0
    _uncorked = False
    _surplus = False  # more came than was announced
    _behind = b""  # that, if it came with the packet

    # -- the packet, in the hub -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """The connection has just been accepted: nginx has written its packet by now."""
        try:
            if self.family == AF_UNIX:
                data = self.sock.recv(FIRST_READ_BYTES, PEEK)
                self._held = len(data)
            else:
                data = os.read(self.fd, FIRST_READ_BYTES)
        except BlockingIOError:
            self._await_packet()
            return
        except OSError:
            self.close()
            return
        if data:
            self._packet(data)
        else:
            self.close()  # a probe: connected and gone, not worth a line

    def readable(self, mask: int) -> None:
        """More of a packet, or of what is thrown away."""
        self.eof = self.eof or bool(mask & ~IN)
        if self.lingering:
            self.throw_away()
            return
        if self._request is not None:
            # The packet is complete and waits for a core; nothing more is read, but a peer that left need not be
            # served.
            if mask & ~IN:
                self.worker.withdraw(self)
            return
        try:
            data = self.sock.recv(FIRST_READ_BYTES, PEEK if self.family == AF_UNIX else 0)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._broken_off()
            return
        self._held = len(data) if self.family == AF_UNIX else 0
        self._packet(self._buffer + data)
        if self.eof and self._request is None and not self.closed and not self.lingering:
            self._broken_off()  # the end came in the same event, which is not told again

    def _broken_off(self) -> None:
        if self._buffer:
            self.worker.complain("truncated", "a peer closed its connection %d bytes into a packet", len(self._buffer))
        self.close()

    def _packet(self, data: bytes) -> None:
        """`data` is all that has come so far, the held bytes at its end."""
        worker = self.worker
        try:
            if len(data) < HEADER_BYTES:
                self._wait_for_more(data)
                return
            size = check_header(data, worker.max_block_bytes)
            end = HEADER_BYTES + size
            if size <= 0:
                self._empty_or_ping(size)
                return
            if len(data) < end:
                self._wait_for_more(data)
                return
            variables = decode_vars(data, HEADER_BYTES, end, worker.max_vars)
            request, powerless = read_request(variables, data, end, data[0])
        except (ProtocolError, RequestRefused) as error:
            self.refuse(error.status, error.reason)
            return
        if powerless:
            worker.name_powerless(powerless)
        self._request = request
        self._var_bytes = size
        length = request.body_length
        if len(data) > end + length:
            self._surplus = True
            self._behind = data[end + length :]
        if length:
            limit = worker.limits.max_body_bytes
            if limit and length > limit:
                self.refuse(413, f"the body has {length} bytes, the limit is {limit} (limit-post)")
                return
            self._body = data[end : end + length]
            self.body_received = len(self._body)
            self.body_left = length - self.body_received
        if self.mask:
            self._buffer = b""
            worker.heads.discard(self)
        hub = worker.hub
        if hub.idle:
            hub.start(hub.take(), self)
        else:
            worker.enqueue(self)

    def _await_packet(self) -> None:
        self._watch(IN | PEER_CLOSED)
        self.worker.heads.add(self, self.worker.loop.time())

    def _wait_for_more(self, data: bytes) -> None:
        """Take what has come out of the kernel: a peer that sends a byte at a time would else fill its own buffer."""
        if self._held:
            self._release_held()
        self._buffer = data
        if not self.mask:
            self._await_packet()

    def _empty_or_ping(self, size: int) -> None:
        if size == PING_HEADER:
            self.reply(PONG_PACKET)
        self._finish()

    def refuse(self, status: int, reason: str) -> None:
        """Answer by ourselves, say why in the log, and close without a reset."""
        self.complain(status, reason)
        self.reply(refusal(status, reason, http=False))
        self.worker.heads.discard(self)
        self._release_held()
        self.linger()

    def reply(self, data: bytes) -> None:
        """A short reply of the server's own; a peer whose buffer has no room for it is beyond help."""
        try:
            os.write(self.fd, data)
        except OSError:
            self.gone = True

    def expire(self) -> None:
        """The head's deadline has passed."""
        if self._buffer:
            self.refuse(408, f"the packet was not complete within {self.worker.heads.seconds:g} s")
        else:
            self.close()

    # -- the request, in a core -----------------------------------------------------------------------------------

    def serve(self, core: Core) -> None:
        """Run the request."""
        request = self._request
        assert request is not None
        self.core = core
        length = request.body_length
        body = Input(self._body, self._receive) if length else EMPTY_INPUT
        variables = request.variables
        complete = exchange(self, core, variables, body, (len(variables), self._var_bytes))
        self.core = None
        if not complete or self.gone:
            self.cut()
        elif self._held or self.body_left or self._surplus:
            self._finish()
        else:
            self.close()

    def _receive(self, max_bytes: int) -> bytes:
        """wsgi.input's source: what of the body has not come with the packet."""
        left = self.body_left
        if not left:
            return b""
        if self.family != AF_UNIX:
            data = self.receive_some(min(max_bytes, left))
            self.body_left = left - len(data)
            return data
        data = self._receive_held(min(max_bytes, left))
        self.body_left = left - len(data)
        return data

    def _receive_held(self, max_bytes: int) -> bytes:
        """As receive_some, but the last byte given out stays in the kernel, so that closing now would be a reset."""
        if self._held > 1:
            self._held -= len(os.read(self.fd, self._held - 1))
        while True:
            try:
                data: bytes = self.sock.recv(self._held + max_bytes, PEEK)[self._held :]
            except BlockingIOError:
                data = b""
            except OSError as error:
                self.gone = True
                self.read_errors = 1
                raise BodyError(f"the connection broke in the middle of the request's body: {error.strerror}") from None
            if data:
                os.read(self.fd, self._held + len(data) - 1)
                self._held = 1
                self.body_received += len(data)
                return data
            if self.gone or self.eof:  # a peek does not show the end behind a held byte: the poller does
                raise self._cut_short()
            self._wait_readable()

    def send(self, *buffers: bytes) -> None:
        """Send a part of the reply: it is to leave now, so the cork goes (see process/sockets.py)."""
        if not self._uncorked:
            self._uncorked = True
            if self.family != AF_UNIX:
                self.sock.setsockopt(IPPROTO_TCP, TCP_CORK, 0)
        super().send(*buffers)

    def take_over(self, owner: Any) -> bytes:
        """As Connection.take_over; nothing of the request is held back any more."""
        super().take_over(owner)
        self._release_held()
        self._surplus = True  # the peer may be sending when we end: do not reset what it has not read
        return self._behind

    send_last = Connection.send  # under the cork: what completes the reply leaves with the close, in one segment

    def head_end(self, response: Response, length: int | None) -> str:
        """The front end dresses the reply; it is told the length where that is known, to notice a cut."""
        if length is None or response.length is not None or response.bodyless:
            return "\r\n"
        return f"Content-Length: {length}\r\n\r\n"

    def _release_held(self) -> None:
        while self._held:
            try:
                count = len(os.read(self.fd, self._held))
            except OSError:
                count = 0
            self._held = self._held - count if count else 0  # the end of file: it is not ours any more (base/forks.py)

    def shown(self) -> None:
        """Take out what was only peeked at: the socket would be readable for ever. A cut is a plain close from here."""
        self._release_held()

    def _finish(self) -> None:
        """The reply is complete: close so that nginx sees nothing but its end."""
        if self._held:
            self._release_held()
        if self.body_left or self._surplus:
            self.linger()
        else:
            self.close()

    def title(self) -> str:
        """Method and URI."""
        if self._request is None:
            return "no request yet"
        variables = self._request.variables
        return (
            f"{variables.get('REQUEST_METHOD', '-')} {variables.get('REQUEST_URI', variables.get('PATH_INFO', '-'))!a}"
        )
