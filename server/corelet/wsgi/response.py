"""start_response and everything that PEP 3333 says about a reply, as a state machine over a writer.

The states: nothing said -> started (start_response was called, nothing sent) -> open (the head went out) -> complete.
Whatever an application may get wrong is judged here, in start_response where that is possible, so that the error rises
in the application's own frames. Knows no socket and no core; how a head ends (Content-Length, chunked, Date,
Connection) is the protocol's business and asked from the writer.

On the hot way a list of one chunk costs one look-up for each header, one encode and one send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from corelet.base.errors import ResponseError
from corelet.wsgi import headers as rules
from corelet.wsgi.file_wrapper import FileWrapper
from corelet.wsgi.headers import known_lines, known_statuses

JOIN_BYTES = 16384
"""Up to here head and body are joined into one buffer; above, copying costs more than a second buffer (measured)."""


class Writer(Protocol):
    """What a reply is written to; every call may suspend the caller until the peer has taken the bytes."""

    def send(self, *buffers: bytes) -> None:
        """Send all bytes of all buffers, in order, at once."""

    def send_last(self, *buffers: bytes) -> None:
        """Send what completes the reply; it may leave together with the connection's end."""

    def send_file(self, head: bytes, descriptor: int, offset: int, count: int) -> None:
        """Send `head`, then `count` bytes of a regular file from `offset`."""

    def head_end(self, response: Response, length: int | None) -> str:
        """Return the server's own header lines and the empty line.

        `length` is the body's length in bytes when the server knows it and the application did not say it. May set
        `response.chunked`.
        """


class _Ended:
    """The writer of a reply whose request is over."""

    def send(self, *_buffers: bytes) -> None:
        raise ResponseError("write() was called after its request had ended")

    send_last = send

    def send_file(self, _head: bytes, _descriptor: int, _offset: int, _count: int) -> None:
        self.send()

    def head_end(self, _response: Response, _length: int | None) -> str:
        self.send()
        return ""


ENDED = _Ended()


class Response:
    """One reply. `status`, `body_bytes`, `head_bytes` and `headers` are for the log."""

    # Beginnings stand on the class: a reply of one chunk changes half of them.
    _lines: list[str] | None = None
    head_sent = False
    complete = False
    chunked = False
    status = 0
    body_bytes = 0
    head_bytes = 0
    headers: Iterable[tuple[str, str]] | None = None
    length: int | None = None  # the Content-Length that the application gave
    went_out = False  # the first bytes have been sent, and more are to come
    surplus = False  # it gave more than that
    bodyless = False
    said_close = False
    said_date = False
    said_server = False
    between_chunks: Callable[[], None] | None = None  # called after each chunk of an iterable; set for one request

    def __init__(self, writer: Writer, head_only: bool = False) -> None:
        self._writer = writer
        self.head_only = head_only  # the request was a HEAD

    @property
    def header_count(self) -> int:
        """Header lines that the application gave and that were sent."""
        return len(self._lines) - 1 if self._lines else 0

    @property
    def started(self) -> bool:
        """Whether start_response was called."""
        return self._lines is not None

    # -- what the application calls -------------------------------------------------------------------------------

    def start_response(self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None) -> Any:
        """PEP 3333 start_response. Returns the write callable.

        Raises ResponseError for a status or header that cannot be sent, AssertionError for a second call without
        exc_info, and exc_info's own exception when the head has gone out.
        """
        if self._lines is not None:
            self._restart(exc_info)
        try:
            line, code = known_statuses.get(status) or rules.status_line(status)
            lines = [line]
            for header in headers:
                known = known_lines.get(header)
                if known is not None:
                    lines.append(known)
                else:
                    self._header(header, lines)
        except TypeError as error:  # not iterable, or not hashable: a list in the place of a tuple
            raise ResponseError(f"headers are to be a list of (str, str) tuples, {headers!a} came") from error
        self.status = code
        self.headers = headers
        self._lines = lines
        if self.head_only or code in (204, 304):
            self.bodyless = True  # RFC 9110 6.4.1
            if code == 204 and self.length is not None:  # RFC 9110 8.6: no Content-Length in a 204
                lines[1:] = [line for line in lines[1:] if not line.lower().startswith("content-length:")]
                self.length = None
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333 write callable: the bytes go out at once."""
        self.chunk(data)

    # -- what the gateway calls -----------------------------------------------------------------------------------

    def whole(self, body: bytes) -> None:
        """The reply is this one chunk: head and body go out together, with a Content-Length."""
        if self.head_sent or type(body) is not bytes:
            self.chunk(body)
            self.end()
            return
        size = len(body)
        head = self._open(size)
        if self.bodyless:
            self._writer.send_last(head)
        else:
            if self.length is not None and self.length < size:
                body = self._limited(body)
            self.body_bytes = len(body)
            if size <= JOIN_BYTES:
                self._writer.send_last(head + body)
            else:
                self._writer.send_last(head, body)
            if self.length is not None:
                self._check_length()
        self.complete = True

    def chunk(self, data: Any) -> bool:
        """One item of the application's iterable; an empty one sends nothing. False: no more is wanted."""
        if not isinstance(data, bytes):
            hint = "; encode it, for example with .encode()" if isinstance(data, str) else ""
            raise ResponseError(f"the application's iterable is to give bytes, a {type(data).__name__} came{hint}")
        if self.complete:
            if data:
                raise ResponseError("write() was called after the reply was complete")
            return False  # it was sent as a file by the application itself
        if data:
            self._send(data)
        return not (self.bodyless and self.head_sent) and not self.surplus

    def file(self, wrapper: FileWrapper) -> bool:
        """Send a wrapped file through the kernel; False when it has to be iterated over."""
        if self.head_sent or self._lines is None or (extent := wrapper.extent()) is None:
            return False
        descriptor, offset, count = extent
        if self.length is not None:
            count = min(count, self.length)
        head = self._open(count)
        if self.bodyless:
            self._writer.send_last(head)
        else:
            self._writer.send_file(head, descriptor, offset, count)
            self.body_bytes = count
        self._check_length()
        self.complete = True
        return True

    def end(self) -> None:
        """The iterable is exhausted. Raises ResponseError when the promised length was not reached."""
        if self.complete:
            return
        if not self.head_sent:
            self._writer.send_last(self._open(0))
        elif self.chunked and not self.bodyless:
            self._writer.send(b"0\r\n\r\n")
        self._check_length()
        self.complete = True

    def replace(self, status: str, body: bytes) -> None:
        """Answer this instead of whatever was started; only while nothing has gone out."""
        self._begin_again()
        self.head_sent = False
        self.body_bytes = 0
        self.start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        self.whole(body)

    def take_over(self, head: bytes) -> None:
        """The application answers by itself from here on (a websocket): what it returns is nothing to send.

        Raises ResponseError when a reply has begun.
        """
        if self.head_sent:
            raise ResponseError("the reply has begun: a websocket handshake is to come before the first chunk")
        self._begin_again()
        self.status = 101
        self._lines = [""]
        self.head_sent = self.bodyless = True
        self.head_bytes = len(head)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _header(self, header: tuple[str, str], lines: list[str]) -> None:
        """A header that is not remembered: a new one, or one that means something to the server."""
        line, kind = rules.header_line(header)
        value = header[1]
        if kind == rules.CONTENT_LENGTH:
            length = int(value)
            if self.length is not None and self.length != length:
                raise ResponseError(f"two different Content-Length headers came: {self.length} and {length}")
            self.length = length
        elif kind == rules.CONNECTION:
            self.said_close = self.said_close or "close" in value.lower()
            return
        elif kind == rules.DATE:
            self.said_date = True
        elif kind == rules.SERVER:
            self.said_server = True
        elif kind == rules.DROPPED:
            return
        lines.append(line)

    def _open(self, length: int | None) -> bytes:
        if self._lines is None:
            raise ResponseError(
                "the application did not call start_response(status, headers) before the first chunk of its reply"
            )
        head = ("".join(self._lines) + self._writer.head_end(self, length)).encode("latin-1")
        self.head_sent = True
        self.head_bytes = len(head)
        return head

    def _send(self, data: bytes) -> None:
        head = b"" if self.head_sent else self._open(None)
        if self.bodyless:
            if head:
                self._writer.send(head)
            return
        if self.length is not None and self.body_bytes + len(data) > self.length:
            data = self._limited(data)
        self.body_bytes += len(data)
        if self.chunked:
            head += b"%x\r\n" % len(data)
            end = b"\r\n"
        else:
            end = b""
        if len(data) <= JOIN_BYTES:
            self._writer.send(head + data + end)
        else:
            self._writer.send(head, data, end)
        self.went_out = True

    def _limited(self, data: bytes) -> bytes:
        """More than Content-Length must never reach the peer: it would be the next reply (request smuggling)."""
        self.surplus = True
        return data[: (self.length or 0) - self.body_bytes]

    def _check_length(self) -> None:
        if self.length is not None and self.body_bytes < self.length and not self.bodyless:
            raise ResponseError(
                f"the application promised Content-Length: {self.length} and gave {self.body_bytes} bytes;"
                " the connection is cut so that nobody takes the reply for complete"
            )

    def _restart(self, exc_info: Any) -> None:
        if exc_info is None:
            raise AssertionError("start_response was called twice; a second call needs exc_info (PEP 3333)")
        try:
            if self.head_sent:
                raise exc_info[1].with_traceback(exc_info[2])
        finally:
            exc_info = None  # PEP 3333: avoid the circular reference
        self._begin_again()

    def detach(self) -> None:
        """The request is over: the write callable that the application may have kept reaches no connection any more."""
        self._writer = ENDED

    def _begin_again(self) -> None:
        self._lines = None
        self.length = None
        self.said_close = self.said_date = self.said_server = False
        self.bodyless = False
