"""HTTP/1.x heads: bytes -> Request, by llhttp with our own policy on top.

`HeadParser` is given all bytes that a connection has received since the last message's end and answers with a request,
with "need more", or with a refusal that knows its status. It must not know sockets, time, bodies (only their framing)
or the WSGI environ. The policy is the table in `http1_rules`; here is what has to be quick (5 µs a request):

- The end of the head is found here, so llhttp never sees body bytes or a pipelined request: llhttp would parse all of
  them at once, and its idea of where a message ends could differ from ours, which is what request smuggling is made of.
- llhttp calls back once a header, into `dict.setdefault`: no Python frame. That loses repeated headers, so the lines
  are counted; when the count differs, the (by then validated) lines are split here and joined.
- Values are stripped, joined, decoded and split again as one block; names go through a bounded cache.
- Every head gets a fresh llhttp parser, which costs 0.15 µs: a kept one waits for a body it will never see, refuses
  data after its own idea of `Connection: close` (it obeys Proxy-Connection too), and could carry state along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from corelet.base.errors import RequestRefused
from corelet.base.limits import Limits
from corelet.wire.http1_rules import PartialHead, head_start, is_host, parse_request_line, shown
from corelet.wire.request import CHUNKED, Request

MAX_CACHED_NAMES: Final = 1024
MAX_CACHED_NAME_BYTES: Final = 64
MAX_CONTENT_LENGTH_DIGITS: Final = 18  # an exabyte; below 2**63 everywhere, and far from int()'s limit on digits

DROPPED: Final = ""
"""The key of header names that the application never sees."""

_COMMON_NAMES: Final = """
Accept Accept-Charset Accept-Encoding Accept-Language Access-Control-Request-Headers
Access-Control-Request-Method Authorization Cache-Control Connection Content-Encoding Content-Language Content-Length
Content-Type Cookie DNT Date Expect Forwarded From Host If-Match If-Modified-Since If-None-Match If-Range
If-Unmodified-Since Keep-Alive Max-Forwards Origin Pragma Priority Proxy Proxy-Authorization Proxy-Connection Range
Referer Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User
Sec-GPC Sec-WebSocket-Extensions Sec-WebSocket-Key Sec-WebSocket-Protocol Sec-WebSocket-Version TE Trailer
Transfer-Encoding Upgrade Upgrade-Insecure-Requests User-Agent Via X-CSRF-Token X-CSRFToken X-Forwarded-For
X-Forwarded-Host X-Forwarded-Port X-Forwarded-Proto X-Real-IP X-Request-ID X-Requested-With
"""


def cgi_key(name: bytes) -> str:
    """The CGI variable of a header name, or DROPPED. Only ever HTTP_*, CONTENT_TYPE or CONTENT_LENGTH.

    So no header sets SCRIPT_NAME, REMOTE_USER, HTTPS or SERVER_*. A name with '_' is dropped, since it would be taken
    for the one with '-' that a proxy has checked or removed (CVE-2015-0219; nginx does so by default), and so is Proxy
    (httpoxy, CVE-2016-1000110).
    """
    if b"_" in name:
        return DROPPED
    key = name.decode("latin-1").upper().replace("-", "_")
    if key == "PROXY":
        return DROPPED
    if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):  # RFC 3875 4.1.18: not repeated as HTTP_*
        return key
    return "HTTP_" + key


class _CgiKeys(dict[bytes, str]):
    """Header names as they came -> CGI keys; common ones from the start, others until it is full.

    Bounded in entries and in the length of each, so that a peer who invents names fills 64 kB at most, and slows down
    none but those who send rare names.
    """

    def __missing__(self, name: bytes) -> str:
        key = cgi_key(name)
        if len(self) < MAX_CACHED_NAMES and len(name) <= MAX_CACHED_NAME_BYTES:
            self[name] = key
        return key


CGI_KEYS: Final = _CgiKeys(
    {form: cgi_key(form) for name in _COMMON_NAMES.split() for form in (name.encode(), name.lower().encode())}
)


class _Callbacks:
    """What llhttp calls. The others are None, since an attribute that is absent costs httptools an exception each."""

    __slots__ = (
        "on_body",
        "on_chunk_complete",
        "on_chunk_header",
        "on_header",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "on_url",
    )

    def __init__(self, on_header: Callable[[bytes, bytes], object]) -> None:
        self.on_header = on_header
        self.on_url = self.on_message_begin = self.on_headers_complete = None
        self.on_body = self.on_message_complete = self.on_chunk_header = self.on_chunk_complete = None


# One for the process, since a head is read in one go: a dictionary for each connection would keep the bytes of its last
# head for as long as it is open or its request runs, 2 kB of them.
_headers: dict[bytes, bytes] = {}
_callbacks = _Callbacks(_headers.setdefault)


class HeadParser:
    """Reads the heads of one connection, one after the other.

    `connection_variables` (REMOTE_ADDR, SERVER_NAME … ; no HTTP_*) are copied into every request's variables. Once a
    request is refused the connection is to be closed: from then on `parse` raises the same refusal again.
    """

    __slots__ = ("_host", "_limits", "_partial", "_template")

    def __init__(self, limits: Limits, connection_variables: dict[str, str]) -> None:
        self._limits = limits
        # With every key that a request line sets, so that keys can be counted and a copy need not grow twice.
        request_line = dict.fromkeys(
            ("REQUEST_METHOD", "REQUEST_URI", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL"), ""
        )
        self._template = {**connection_variables, **request_line, "SCRIPT_NAME": ""}
        self._host: str | None = None  # the last Host found valid: on one connection it hardly ever changes
        self._partial: PartialHead | None = None

    def parse(self, buffer: bytes) -> tuple[Request, int] | None:
        """Read one head from the beginning of `buffer`, all bytes received since the last message's end.

        None: more bytes are needed, and `buffer` comes again with them. Otherwise the request and how many bytes of
        `buffer` its head took; what follows is its body or the next request. Raises RequestRefused.
        """
        start = head_start(buffer) if buffer.startswith(b"\r\n") else 0
        partial = self._partial
        # A head that grows by single bytes is not searched from its beginning each time.
        end = buffer.find(b"\r\n\r\n", start if partial is None else max(start, partial.seen - 2))
        if end < 0 or (partial is not None and partial.refused):
            if partial is None:
                partial = self._partial = PartialHead(self._limits)
            partial.judge(buffer)
            return None
        end += 4
        try:
            request = self._read(buffer[start:end])
        except RequestRefused as refusal:
            # What is found first in the bytes decides, so that the verdict is the same however they were cut.
            if partial is None:
                partial = self._partial = PartialHead(self._limits)
            partial.judge(buffer)
            raise partial.close(refusal) from None
        self._partial = None
        return request, end

    def _read(self, head: bytes) -> Request:
        limits = self._limits
        line_end = head.find(b"\r\n")
        line_count = head.count(b"\n") - 2  # llhttp refuses a bare LF, so these are the header lines
        if (
            line_end > limits.max_request_line_bytes
            or line_count > limits.max_header_count
            or len(head) > limits.max_head_bytes
        ):
            raise RequestRefused(431, "the head is over a limit")  # PartialHead says which
        method, target, version, path, query, authority = parse_request_line(head[:line_end].decode("latin-1"))
        headers = _headers
        headers.clear()
        try:
            HttpRequestParser(_callbacks).feed_data(head)
        except HttpParserUpgrade:
            pass  # the head is whole and good; an offer to upgrade that nobody takes up is an ordinary request
        except HttpParserError as error:
            raise _refusal_of(error) from None

        # bytes.strip() without argument also takes VT and FF, which llhttp has refused: it is SP and HTAB here.
        values = b"\n".join(map(bytes.strip, headers.values())).decode("latin-1").split("\n")
        variables = self._template.copy()
        variables.update(zip(map(CGI_KEYS.__getitem__, headers), values))  # noqa: B905  strict costs, and both are as long
        if len(variables) != len(self._template) + line_count or DROPPED in variables:
            variables = {**self._template, **_joined_headers(head[line_end + 2 : -4])}
        variables["REQUEST_METHOD"] = method
        variables["REQUEST_URI"] = target
        variables["PATH_INFO"] = path
        variables["QUERY_STRING"] = query
        variables["SERVER_PROTOCOL"] = version

        http_10 = version == "HTTP/1.0"
        host = variables.get("HTTP_HOST")
        if host != self._host or host is None:
            self._host = _checked_host(host, http_10)
        if authority:  # RFC 9112 3.2.2: the Host that came with it is to be ignored
            variables["HTTP_HOST"] = authority
        connection = variables.get("HTTP_CONNECTION")
        if connection is None:
            keep_alive = not http_10
        else:
            keep_alive = connection == "keep-alive" or _keeps_alive(connection, http_10)
        if "CONTENT_LENGTH" in variables or "HTTP_TRANSFER_ENCODING" in variables:
            body_length = _body_length(variables, http_10, limits)
        else:
            body_length = 0
        expects_continue = "HTTP_EXPECT" in variables and _expects_continue(variables["HTTP_EXPECT"], http_10)
        return Request(variables, body_length, keep_alive, expects_continue and body_length != 0, http_10)


def _refusal_of(error: HttpParserError) -> RequestRefused:
    text = str(error)  # llhttp's own words, none of the peer's
    if isinstance(error, HttpParserInvalidMethodError):  # an older llhttp that knows fewer methods
        return RequestRefused(501, "the method is not implemented")
    if text == "Content-Length overflow":
        return RequestRefused(413, "the Content-Length is too large for any server")
    return RequestRefused(400, f"the head is malformed: {text}")


def _joined_headers(lines: bytes) -> dict[str, str]:
    """The variables of header lines that llhttp has found good, repeated ones joined (RFC 9110 5.3), some dropped."""
    joined: dict[str, str] = {}
    for line in lines.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        key = CGI_KEYS[name.encode("latin-1")]
        value = value.strip(" \t")
        if key == DROPPED:
            continue
        if key not in joined:
            joined[key] = value
        elif key in ("HTTP_HOST", "CONTENT_LENGTH"):  # RFC 9112 3.2 and 6.3: equal ones too
            raise RequestRefused(400, f"{'Host' if key == 'HTTP_HOST' else 'Content-Length'} was sent more than once")
        else:
            joined[key] += ("; " if key == "HTTP_COOKIE" else ", ") + value  # RFC 6265 5.4
    return joined


def _checked_host(host: str | None, http_10: bool) -> str | None:
    if host is None:
        if not http_10:  # RFC 9112 3.2
            raise RequestRefused(400, "an HTTP/1.1 request has a Host header, this one has none")
    elif not is_host(host):
        raise RequestRefused(400, f"the Host header names no valid host: {shown(host)}")
    return host


def _keeps_alive(connection: str, http_10: bool) -> bool:
    """RFC 9112 9.3; `close` wins over anything beside it."""
    options = [option.strip(" \t").lower() for option in connection.split(",")]
    if "close" in options:
        return False
    return not http_10 or "keep-alive" in options


def _body_length(variables: dict[str, str], http_10: bool, limits: Limits) -> int:
    """How the body is framed: RFC 9112 6.3. Raises RequestRefused 400, 413 or 501."""
    length = variables.get("CONTENT_LENGTH")
    coding = variables.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if length is not None:  # RFC 9112 6.3 rule 3: two peers may see two different bodies (CVE-2024-1135)
            raise RequestRefused(400, "Content-Length and Transfer-Encoding were sent together")
        if http_10:  # RFC 9112 6.1
            raise RequestRefused(400, "Transfer-Encoding was sent with HTTP/1.0")
        return _chunked(coding)
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()):  # int() takes '+5', '5_0' and other scripts' digits
        raise RequestRefused(400, f"Content-Length is digits only, not {shown(length)}")
    if len(length) > MAX_CONTENT_LENGTH_DIGITS:
        raise RequestRefused(413, "the Content-Length is too large for any server")
    body_length = int(length)
    if limits.max_body_bytes and body_length > limits.max_body_bytes:
        raise RequestRefused(413, f"the body has {body_length} bytes, {limits.max_body_bytes} are allowed")
    return body_length


def _chunked(coding: str) -> int:
    codings = [part.strip(" \t") for part in coding.lower().split(",")]
    if codings == ["chunked"]:
        return CHUNKED
    if codings[-1] == "chunked" and "chunked" not in codings[:-1]:  # RFC 9112 6.1: a coding we do not decode
        raise RequestRefused(501, f"the Transfer-Encoding {shown(coding)} is not implemented, only 'chunked'")
    raise RequestRefused(400, f"the Transfer-Encoding is 'chunked', not {shown(coding)}")


def _expects_continue(expect: str, http_10: bool) -> bool:
    """RFC 9110 10.1.1; an HTTP/1.0 client cannot mean it."""
    if http_10:
        return False
    if expect.lower() != "100-continue":
        raise RequestRefused(417, f"the only expectation is '100-continue', not {shown(expect)}")
    return True
