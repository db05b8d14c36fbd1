"""A connection on an HTTP socket: one request after the other, until somebody wants no more.

Between two requests it holds no core, only its place in the poller and in a queue of deadlines. While a request runs,
nothing more is read than its body: a pipelining client is slowed down by its own socket's buffer.

HTTP allows a client to close its sending side and still read the reply, which looks like leaving. So a peer that has
closed counts as gone only when the connection is reset or a write fails, unless `http-eof = gone`; a core suspended
for such a peer gets one http-timeout more (RFC 9112 9.6).
"""

from __future__ import annotations

import logging
import os
import select
import time
from time import monotonic
from typing import TYPE_CHECKING, Any

from corelet.base.errors import BodyError, RequestRefused
from corelet.serving.connection import READ_BYTES, Connection
from corelet.serving.cores import Core
from corelet.serving.exchange import exchange
from corelet.serving.hub import TURN_SECONDS
from corelet.serving.overdue import NEVER
from corelet.serving.poller import IN, LOST, PEER_CLOSED
from corelet.wire.chunked import ChunkedDecoder
from corelet.wire.http1 import HeadParser
from corelet.wire.reply import SERVER, http_date, refusal
from corelet.wire.request import CHUNKED, Request
from corelet.wsgi.input import EMPTY_INPUT, Input
from corelet.wsgi.response import Response

if TYPE_CHECKING:
    from corelet.serving.worker import Worker

logger = logging.getLogger("corelet.http")

DRAIN_BYTES = 65536  # of an unread body that is read to keep the connection; beyond it a new one is cheaper
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpConnection(Connection):
    """One HTTP/1.x connection."""

    _buffer = b""  # bytes since the last message's end
    _ahead = False  # the socket may hold bytes that nobody has been told of again
    _request: Request | None = None
    _head_began = False
    _served = False  # a request has come: from here on it is idle between two of them, and not late with its first
    _head_bytes = 0
    _decoder: ChunkedDecoder | None = None
    _keep = False
    _advancing = False

    def __init__(self, worker: Worker, fd: int, address: Any, family: int) -> None:
        super().__init__(worker, fd, address, family)
        self._parser = HeadParser(worker.limits, worker.connection_variables(self.sock, address))
        self._pieces: list[bytes] = []

    # -- heads, in the hub ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Accepted: the first request has usually come along (TCP_DEFER_ACCEPT)."""
        self._read()

    def readable(self, mask: int) -> None:
        """The poller, while no core serves the connection: bytes, or the end of file."""
        self.eof = self.eof or bool(mask & PEER_CLOSED)
        if self.lingering:
            self.throw_away()
        elif self._request is not None:
            self._ahead = True  # it waits for a core, and is not read on
            if mask & LOST or (self.eof and self.worker.config.http_eof == "gone"):
                self.worker.withdraw(self)
        else:
            self._read()

    def _read(self) -> None:
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            self._ahead = False
            if not self._served and not self._head_began:
                self.worker.heads.add(self, self.worker.loop.time())
            self._watch(IN | PEER_CLOSED)
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()  # between two requests it is an ordinary end, in a head nobody is left to be told
            return
        # A short read has emptied the socket, but an end of file behind it gives no event of its own.
        self._ahead = len(data) == READ_BYTES or self.eof
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    def _advance(self) -> None:
        """Serve what has come; a loop, since requests can be pipelined by the thousand."""
        if self._advancing:
            return
        self._advancing = True
        turn_ends = monotonic() + TURN_SECONDS
        try:
            while self._buffer and self._request is None and not self.closed and not self.lingering:
                if not self._next_head():
                    break
                if monotonic() > turn_ends:
                    self.worker.loop.call_soon(self._advance)  # others want a turn too
                    return
        finally:
            self._advancing = False
        if self._request is None and not self.closed and not self.lingering:
            if self._ahead:
                self.worker.loop.call_soon(self._read_on)
            elif not self.mask:
                self._watch(IN | PEER_CLOSED)

    def _read_on(self) -> None:
        if self._request is None and not self.closed and not self.lingering:
            self._read()

    def _next_head(self) -> bool:
        worker = self.worker
        try:
            parsed = self._parser.parse(self._buffer)
        except RequestRefused as error:
            self.refuse(error.status, error.reason)
            return False
        if parsed is None:
            if not self._head_began:
                self._head_began = True
                worker.idle_connections.discard(self)
                worker.heads.add(self, worker.loop.time())  # absolute: no byte that comes later moves it
            return False
        request, used = parsed
        buffer = self._buffer
        self._head_bytes = used
        length = request.body_length
        if length == 0:
            self._buffer = buffer[used:]
        else:
            self._begin_body(length, buffer[used:])
        self._request = request
        self._served = True
        self._head_began = False
        worker.heads.discard(self)
        worker.idle_connections.discard(self)
        hub = worker.hub
        if hub.idle:
            hub.start(hub.take(), self)
            return True
        worker.enqueue(self)
        return False

    def _begin_body(self, length: int, behind: bytes) -> None:
        self.body_received = 0
        self.body_waited = 0.0
        if length == CHUNKED:
            self._decoder = ChunkedDecoder(self.worker.limits)
            self.body_left = 1  # not known: 1 until the decoder is complete
            self._buffer = behind  # decoded at the first read, so that an error rises where the body is read
        else:
            first = behind[:length]
            self._pieces = [first] if first else []
            self.body_received = len(first)
            self.body_left = length - len(first)
            self._buffer = behind[length:]

    def close(self) -> None:
        """Close; it may stand in a queue of deadlines without ever having been in the poller."""
        self.worker.forget(self)
        super().close()

    def refuse(self, status: int, reason: str) -> None:
        """Answer by ourselves, name it in the log, and close: nothing that came behind it is looked at (rule 17)."""
        worker = self.worker
        self.complain(status, reason)
        try:
            os.write(self.fd, refusal(status, reason, http=True, now=time.time()))
        except OSError:
            self.close()
            return
        worker.forget(self)
        self._buffer = b""
        self.linger()

    def expire(self) -> None:
        """A deadline has passed: of a head, or between two requests."""
        if self._head_began:
            self.refuse(408, f"the request's head was not complete within {self.worker.heads.seconds:g} s")
        else:
            self.close()

    # -- the request, in a core -----------------------------------------------------------------------------------

    def serve(self, core: Core) -> None:
        """Run the request."""
        request = self._request
        assert request is not None
        self.core = core
        self.partial = False
        self.read_errors = self.write_errors = 0
        self._keep = request.keep_alive and self.worker.keeps_alive
        if request.body_length:
            pieces = self._pieces
            body = Input(pieces.pop() if pieces else b"", self._receive)
        else:
            body = EMPTY_INPUT
        variables = request.variables
        complete = exchange(self, core, variables, body, (len(variables), self._head_bytes))
        self.core = None
        if not complete or self.gone:
            self._keep = False
            self.cut()

    def released(self) -> None:
        """The reply is out and the core free: go on with the next request, or close."""
        request = self._request
        if request is None or self.closed:
            return
        self._decoder = None
        self._pieces = []
        if not self._keep:
            self._request = None
            if self.body_left or self._buffer or self._ahead or self._more_came():
                self._buffer = b""
                self.linger()
            else:
                self.close()
            return
        self._request = None
        worker = self.worker
        self._ahead = self._ahead or self.eof
        if not self._buffer:
            if worker.draining:
                self.close()
                return
            worker.idle_connections.add(self, worker.loop.time())
        self._advance()

    def _more_came(self) -> bool:
        """A client that pipelines has sent more: closing now would reset the connection under the reply."""
        try:
            return bool(os.read(self.fd, 1))
        except OSError:
            return False

    def _all_here(self) -> bool:
        """Fetch what is left of a small body if it has come already, for whoever may still read it."""
        request = self._request
        if request is None or request.expects_continue:
            return False
        budget = DRAIN_BYTES
        try:
            while self.body_left and budget > 0:
                data = self._buffer if self._decoder else b""
                data = data or os.read(self.fd, READ_BYTES if self._decoder else min(self.body_left, READ_BYTES))
                if not data:
                    return False
                budget -= len(data)
                if self._decoder is None:
                    self.body_left -= len(data)
                    self._pieces.append(data)
                else:
                    self._buffer = b""
                    self._decode(data)
        except (OSError, RequestRefused):
            return False
        return not self.body_left

    def _receive(self, max_bytes: int) -> bytes:
        """wsgi.input's source: the next 1..max_bytes bytes of the body, b"" at its end."""
        if self._pieces:
            return self._take_piece(max_bytes)
        if not self.body_left:
            return b""
        request = self._request
        if request is not None and request.expects_continue:
            request.expects_continue = False
            self.send(CONTINUE)  # RFC 9110 10.1.1: the application wants the body now
        if self._decoder is None:
            data = self._receive_raw(min(max_bytes, self.body_left))
            self.body_left -= len(data)
            return data
        while self.body_left and not self._pieces:
            data = self._buffer or self._receive_raw(READ_BYTES)
            self._buffer = b""
            try:
                self._decode(data)
            except RequestRefused as error:
                self._keep = False
                self.read_errors = 1
                raise BodyError(f"the request's body is malformed: {error.reason}", error.status) from None
        return self._take_piece(max_bytes) if self._pieces else b""

    def _receive_raw(self, max_bytes: int) -> bytes:
        try:
            return self.receive_some(max_bytes)
        except BodyError:
            self._keep = False  # where the next request would begin is not known any more
            raise

    def take_over(self, owner: Any) -> bytes:
        """As Connection.take_over."""
        super().take_over(owner)
        behind, self._buffer = self._buffer, b""
        self._ahead = True  # the peer may be sending when we end: do not reset what it has not read
        return behind

    def last_reply(self) -> None:
        """The reply that follows is the connection's last one."""
        self._keep = False

    def _decode(self, data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        pieces = decoder.feed(data)
        if pieces:  # joined: a body of single bytes would else be handed out byte by byte
            self._pieces.append(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if decoder.complete:
            self.body_left = 0
            self._buffer = decoder.unused

    def _take_piece(self, max_bytes: int) -> bytes:
        piece = self._pieces[0]
        if len(piece) <= max_bytes:
            del self._pieces[0]
            return piece
        self._pieces[0] = piece[max_bytes:]
        return piece[:max_bytes]

    def head_end(self, response: Response, length: int | None) -> str:
        """Date, Server, how the body ends, and whether the connection goes on (RFC 9112 6.3, 9.3)."""
        request = self._request
        http_10 = request is not None and request.http_10
        lines = "" if response.said_date else f"Date: {http_date(time.time())}\r\n"
        if not response.said_server:
            lines += f"Server: {SERVER}\r\n"
        if response.length is None and not response.bodyless:
            if length is not None:
                lines += f"Content-Length: {length}\r\n"
            elif http_10:
                self._keep = False
            else:
                response.chunked = True
                lines += "Transfer-Encoding: chunked\r\n"
        if response.said_close or not self.worker.keeps_alive or (self.body_left and not self._all_here()):
            self._keep = False  # with a body still to come, nobody knows where the next request will begin
        if request is not None:
            request.expects_continue = False  # RFC 9110 10.1.1: no 100 after the final status line
        if not self._keep:
            return lines + "Connection: close\r\n\r\n"
        return lines + "Connection: keep-alive\r\n\r\n" if http_10 else lines + "\r\n"

    # -- the peer -------------------------------------------------------------------------------------------------

    def peer_closed(self) -> None:
        """End of file while a request runs. `ready` has set `gone` where the connection is broken."""
        self.eof = True
        core = self.core
        if self.gone or core is None:
            return
        if self.worker.config.http_eof == "gone":
            self.gone = True
        elif self.worker.config.client_gone != "ignore":
            core.gone_at = self.worker.loop.time() + self.timeout()

    def means_gone(self, events: int) -> bool:
        """Over HTTP a client may stop sending and still read."""
        return bool(events & (select.POLLHUP | select.POLLERR)) or self.worker.config.http_eof == "gone"

    def ready(self, mask: int) -> None:
        """The poller's event."""
        if mask & IN and self.core is not None and not self.wanted:
            self._ahead = True
        super().ready(mask)

    def suspended(self, core: Core) -> None:
        """The core is suspended for the first time in this request."""
        if self.eof:
            self.worker.loop.call_soon(self.ready, PEER_CLOSED)
        else:
            self._watch(IN | PEER_CLOSED)

    def timeout(self) -> float:
        """The longest silence of the peer, in seconds."""
        return self.worker.config.http_timeout or NEVER

    def title(self) -> str:
        """Method and URI."""
        if self._request is None:
            return "no request yet"
        variables = self._request.variables
        return f"{variables.get('REQUEST_METHOD', '-')} {variables.get('REQUEST_URI', '-')!a}"
