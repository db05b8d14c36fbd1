"""start_response and everything that PEP 3333 says about a reply, as a state machine over a writer.

The states: nothing said -> started (start_response was called, nothing sent) -> open (the head went out) -> ended.
Whatever an application may get wrong is judged here, in start_response where that is possible, so that the error rises
in the application's own frames. Knows no socket and no core; how a head ends (Content-Length, chunked, Date,
Connection) is the protocol's business and asked from the writer.

On the hot way: a list of one chunk costs one check of the headers, one encode and one send. Header names are
classified once and remembered; values are checked all at once, by counting line ends in the finished text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from corelet.base.errors import ResponseError
from corelet.wsgi.file_wrapper import FileWrapper

JOIN_BYTES = 16384
"""Up to here head and body are joined into one buffer; above, copying costs more than a second buffer (measured)."""

MAX_REMEMBERED = 1024  # entries in each cache below: an application that invents names must not fill the memory

TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")  # RFC 9110 5.6.2

PLAIN, CONTENT_LENGTH, CONNECTION, DROPPED, DATE, SERVER = range(6)
_SPECIAL = {
    "content-length": CONTENT_LENGTH,
    "connection": CONNECTION,
    "date": DATE,
    "server": SERVER,
    # Hop-by-hop headers belong to the server (RFC 9110 7.6.1, PEP 3333 "Other HTTP Features").
    "keep-alive": DROPPED,
    "proxy-authenticate": PLAIN,
    "proxy-connection": DROPPED,
    "te": DROPPED,
    "trailer": DROPPED,
    "transfer-encoding": DROPPED,
    "upgrade": DROPPED,
}
_kinds: dict[str, int] = {}
_status_lines: dict[str, tuple[str, int]] = {}


class Writer(Protocol):
    """What a reply is written to; every call may suspend the caller until the peer has taken the bytes."""

    def send(self, *buffers: bytes) -> None:
        """Send all bytes of all buffers, in order."""

    def send_file(self, head: bytes, descriptor: int, offset: int, count: int) -> None:
        """Send `head`, then `count` bytes of a regular file from `offset`."""

    def head_end(self, response: Response, length: int | None) -> str:
        """Return the server's own header lines and the empty line.

        `length` is the body's length in bytes when the server knows it and the application did not say it. May set
        `response.chunked`.
        """


class Response:
    """One reply. `status`, `body_bytes`, `head_bytes`, `header_count` and `headers` are for the log."""

    # Beginnings on the class: a reply of one chunk changes half of them.
    _text: str | None = None
    head_sent = False
    complete = False
    chunked = False
    status = 0
    body_bytes = 0
    head_bytes = 0
    header_count = 0
    headers: Iterable[tuple[str, str]] | None = None
    length: int | None = None  # the Content-Length that the application gave
    surplus = False  # it gave more than that
    bodyless = False
    said_close = False
    said_date = False
    said_server = False

    def __init__(self, writer: Writer, head_only: bool = False) -> None:
        self._writer = writer
        self.head_only = head_only  # the request was a HEAD

    # -- what the application calls -------------------------------------------------------------------------------

    def start_response(self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None) -> Any:
        """PEP 3333 start_response. Returns the write callable.

        Raises ResponseError for a status or header that cannot be sent, AssertionError for a second call without
        exc_info, and exc_info's own exception when the head has gone out.
        """
        if self._text is not None:
            self._restart(exc_info)
            self.length = None
            self.said_close = self.said_date = self.said_server = False
        try:
            line, code = _status_lines[status]
        except (KeyError, TypeError):
            line, code = _status_line(status)
        lines = [line]
        kinds = _kinds
        try:
            for name, value in headers:
                kind = kinds.get(name)
                if kind is None:
                    kind = _classify(name)
                if kind:
                    if kind == DROPPED:
                        continue
                    self._special(kind, value)
                    if kind == CONNECTION:
                        continue
                lines.append(name + ": " + value)
        except (TypeError, ValueError) as error:
            raise _header_error(headers) from error
        lines.append("")
        text = "\r\n".join(lines)
        # One pass over the whole head instead of one per value: a line end that is not ours is an injection.
        ends = len(lines) - 1
        if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
            raise _injection_error(status, headers)
        self.status = code
        self.header_count = ends - 1
        self.headers = headers
        self._text = text
        if self.head_only or code in (204, 304):
            self.bodyless = True  # RFC 9110 6.4.1
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333 write callable: the bytes go out at once."""
        if not isinstance(data, bytes):
            raise _chunk_error(data)
        if data:
            self._send(data, last=False)

    # -- what the gateway calls -----------------------------------------------------------------------------------

    def whole(self, body: bytes) -> None:
        """The reply is this one chunk: head and body go out together, with a Content-Length."""
        if self.head_sent or type(body) is not bytes:
            self.chunk(body)
            self.end()
            return
        head = self._open(len(body))
        if self.bodyless or not body:
            self._writer.send(head)
        else:
            if self.length is not None and len(body) > self.length:
                body = self._limited(body)
            self.body_bytes = len(body)
            if len(body) <= JOIN_BYTES:
                self._writer.send(head + body)
            else:
                self._writer.send(head, body)
        self._check_length()
        self.complete = True

    def chunk(self, data: Any) -> bool:
        """One item of the application's iterable; an empty one sends nothing. False: no more is wanted."""
        if not isinstance(data, bytes):
            raise _chunk_error(data)
        if data:
            self._send(data, last=False)
        return not (self.bodyless and self.head_sent) and not self.surplus

    def file(self, wrapper: FileWrapper) -> bool:
        """Send a wrapped file through the kernel; False when it has to be iterated over."""
        if self.head_sent or self._text is None or (extent := wrapper.extent()) is None:
            return False
        descriptor, offset, count = extent
        if self.length is not None:
            count = min(count, self.length)
        head = self._open(count)
        if self.bodyless:
            self._writer.send(head)
        else:
            self._writer.send_file(head, descriptor, offset, count)
            self.body_bytes = count
        self._check_length()
        self.complete = True
        return True

    def end(self) -> None:
        """The iterable is exhausted. Raises ResponseError when the promised length was not reached."""
        if not self.head_sent:
            head = self._open(0)
            self._writer.send(head)
        elif self.chunked and not self.bodyless:
            self._writer.send(b"0\r\n\r\n")
        self._check_length()
        self.complete = True

    def replace(self, status: str, body: bytes, *headers: tuple[str, str]) -> None:
        """Answer this instead of whatever was started; only while nothing has been sent."""
        self._text = None
        self.length = None
        self.said_close = self.said_date = self.said_server = False
        self.start_response(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
        self.whole(body)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _open(self, length: int | None) -> bytes:
        if self._text is None:
            raise ResponseError(
                "the application did not call start_response(status, headers) before the first chunk of its reply"
            )
        end = self._writer.head_end(self, length)
        try:
            head = (self._text + end).encode("latin-1")
        except UnicodeEncodeError as error:
            raise ResponseError(
                f"a status or header holds {error.object[error.start : error.end]!a}, which is not latin-1;"
                " encode such values first (RFC 8187, or percent-encoding)"
            ) from None
        self.head_sent = True
        self.head_bytes = len(head)
        return head

    def _send(self, data: bytes, *, last: bool) -> None:
        head = b"" if self.head_sent else self._open(None)
        if self.bodyless:
            if head:
                self._writer.send(head)
            return
        if self.length is not None and self.body_bytes + len(data) > self.length:
            data = self._limited(data)
        self.body_bytes += len(data)
        if self.chunked:
            size = b"%x\r\n" % len(data)
            if len(data) <= JOIN_BYTES:
                self._writer.send(head + size + data + b"\r\n")
            else:
                self._writer.send(head + size, data, b"\r\n")
        elif not head:
            self._writer.send(data)
        elif len(data) <= JOIN_BYTES:
            self._writer.send(head + data)
        else:
            self._writer.send(head, data)

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

    def _special(self, kind: int, value: str) -> None:
        if kind == CONTENT_LENGTH:
            if not (value.isascii() and value.isdigit()):
                raise ResponseError(f"Content-Length is to be digits, it came as {value!a}")
            length = int(value)
            if self.length is not None and self.length != length:
                raise ResponseError(f"two different Content-Length headers came: {self.length} and {length}")
            self.length = length
        elif kind == CONNECTION:
            self.said_close = self.said_close or "close" in value.lower()
        elif kind == DATE:
            self.said_date = True
        elif kind == SERVER:
            self.said_server = True


Start = Callable[..., Any]


def _status_line(status: Any) -> tuple[str, int]:
    """Return the status line with its line end to come, and the code; remember it."""
    if not isinstance(status, str):
        raise ResponseError(f"the status is to be a str such as '200 OK', a {type(status).__name__} came: {status!a}")
    code = status[:3]
    if not (code.isascii() and code.isdigit() and len(code) == 3 and (len(status) == 3 or status[3] == " ")):
        raise ResponseError(f"the status is to be three digits, a blank and a reason ('200 OK'), {status!a} came")
    if not 200 <= int(code) <= 599:
        # nginx takes a 1xx for the final answer (field notes); beyond 599 a peer may do anything.
        raise ResponseError(f"the status is to be within 200 and 599, {status!a} came")
    result = ("HTTP/1.1 " + status + (" " if len(status) == 3 else ""), int(code))
    if len(_status_lines) < MAX_REMEMBERED:
        _status_lines[status] = result
    return result


def _classify(name: Any) -> int:
    if not isinstance(name, str) or not name or not TOKEN.issuperset(name):
        raise ResponseError(f"a header name is to be a token (RFC 9110 5.6.2), {name!a} came")
    kind = _SPECIAL.get(name.lower(), PLAIN)
    if len(_kinds) < MAX_REMEMBERED:
        _kinds[name] = kind
    return kind


def _header_error(headers: Any) -> ResponseError:
    return ResponseError(f"headers are to be a list of (str, str) tuples, {headers!a} came")


def _injection_error(status: str, headers: Iterable[tuple[str, str]]) -> ResponseError:
    for name, value in headers:
        if any(mark in value for mark in "\r\n\0"):
            return ResponseError(f"the value of header {name} holds a line end or NUL: {value!a} (header injection)")
    return ResponseError(f"the status holds a line end or NUL: {status!a} (header injection)")


def _chunk_error(data: Any) -> ResponseError:
    hint = "; encode it, for example with .encode()" if isinstance(data, str) else ""
    return ResponseError(f"the application's iterable is to give bytes, a {type(data).__name__} came{hint}")
