"""What an HTTP/1.x head must look like, as pure judgements; and the verdict on a head that has only partly arrived.

Knows bytes and statuses, no sockets, no httptools, no environ. `http1.HeadParser` reads whole heads fast and comes here
for the request line, for the Host, and for the reason when something is wrong; what llhttp refuses by itself is refused
there. The policy, one row for each thing that peers disagree on (numbers are RFC sections):

    leading CRLFs                      two are skipped, more are refused         9112 2.2
    bare LF, bare CR, NUL, controls    400, without waiting for the line's end   9112 2.2, 9110 5.5
    request line                       exactly two single spaces, else 400       9112 3
    version other than HTTP/1.0, 1.1   505 (the HTTP/2 preface too)              9110 2.5, 15.6.6
    method not a token                 400                                       9110 9.1
    unknown method, CONNECT            501                                       9110 9.1, 9.3.6
    target with fragment, control, non-ASCII byte, or a decoded NUL: 400         9112 3.2, 3986 7.3
    target form that is not the method's: 400                                    9112 3.2.1 - 3.2.4
    obs-fold, space before the colon, empty or non-token name: 400               9112 5.1, 5.2
    Host: none in 1.1, more than one, or not valid: 400                          9112 3.2
    Content-Length: not digits only, several, or with Transfer-Encoding: 400     9112 6.3
    Transfer-Encoding: in HTTP/1.0, or chunked not last: 400; other coding: 501  9112 6.1
    Expect other than 100-continue: 417; ignored in HTTP/1.0                     9110 10.1.1
    request line, head, header count, body over its limit: 414, 431, 431, 413

A verdict depends on the bytes up to the place where it is found and on nothing behind it: so it is the same however the
head was cut into pieces, and a refusal of what has arrived can never be wrong about what has not.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from corelet.base.errors import RequestRefused
from corelet.base.limits import Limits

MAX_LEADING_EMPTY_LINES: Final = 2

# What llhttp takes for HTTP, CONNECT excepted: an origin server has no tunnel to offer (RFC 9110 9.3.6).
_METHODS: Final = """
GET HEAD POST PUT DELETE OPTIONS TRACE PATCH COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND
ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK SOURCE QUERY
"""
METHODS: Final = frozenset(_METHODS.split())

TOKEN_BYTES: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # RFC 9110 5.6.2
_ALLOWED_BYTES: Final = bytes((0x09, *range(0x20, 0x7F), *range(0x80, 0x100)))  # field-content, RFC 9110 5.5
_CONTROL_NAMES: Final = {
    0x0A: "a line feed without a carriage return",
    0x0D: "a carriage return without a line feed",
    0: "a NUL byte",
}

# uri-host [ ":" port ], RFC 9110 7.2 and RFC 3986 3.2.2. Possessive, so it cannot backtrack on what a peer sends.
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]++|\[[0-9A-Fa-f:.]++\]|\[[vV][0-9A-Fa-f]++\.[A-Za-z0-9._~:-]++\])(?::[0-9]{0,5}+)?+"
)
_VERSION: Final = re.compile(r"HTTP/[0-9]\.[0-9]")

_WRONG_PROTOCOL: Final = {
    0x16: "a TLS handshake came to a plain HTTP socket: use http:// here, or end TLS in front of the server",
    0x00: "a uwsgi packet came to an HTTP socket: use proxy_pass with http-socket, or uwsgi_pass with socket",
}


RequestLine: TypeAlias = tuple[str, str, str, str, str, str]
"""(method, target, version, path, query, authority): `path` percent-decoded (bytes as latin-1), `query` raw,
`authority` that of an absolute-form target or ''. A bare tuple: one is made for every request."""


def shown(raw: bytes | str, limit: int = 40) -> str:
    """The peer's text as a reason may show it: ASCII with escapes, in quotes, cut."""
    text = raw.decode("latin-1") if isinstance(raw, bytes) else raw
    return ascii(text[:limit]) + ("…" if len(text) > limit else "")


def head_start(buffer: bytes) -> int:
    """Where the request line begins: past at most two empty lines, left over from a sloppy client (RFC 9112 2.2)."""
    start = 0
    while start < 2 * MAX_LEADING_EMPTY_LINES and buffer.startswith(b"\r\n", start):
        start += 2
    return start


def parse_request_line(line: str) -> RequestLine:
    """Read one request line, given as latin-1 text without its CRLF. Raises RequestRefused 400, 501 or 505."""
    parts = line.split(" ")
    if len(parts) != 3:  # RFC 9112 3: lenient splitting on other whitespace is how two parsers come to disagree
        raise RequestRefused(400, f"a request line is 'METHOD target HTTP/1.1' with single spaces, not {shown(line)}")
    method, target, version = parts
    if version != "HTTP/1.1" and version != "HTTP/1.0":  # noqa: PLR1714  two compares are cheaper than a tuple
        raise _version_refusal(version)
    if method not in METHODS:
        raise _method_refusal(method)
    if not (target.isascii() and target.isprintable()):  # SP cannot be in it; RFC 3986 2 knows printable ASCII only
        raise RequestRefused(400, f"the request target holds bytes that must be percent-encoded: {shown(target)}")
    if "#" in target:  # RFC 9112 3.2: a fragment is never sent
        raise RequestRefused(400, f"the request target holds a fragment: {shown(target)}")
    if target.startswith("/"):
        path, _, query = target.partition("?")
        authority = ""
    else:
        path, query, authority = _parse_other_form(method, target)
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
        if "\0" in path:  # RFC 3986 7.3; nginx refuses it as well
            raise RequestRefused(400, f"the request target holds an encoded NUL: {shown(target)}")
    return method, target, version, path, query, authority


def _version_refusal(version: str) -> RequestRefused:
    if _VERSION.fullmatch(version):  # RFC 9110 15.6.6
        return RequestRefused(505, f"this socket speaks HTTP/1.1 and HTTP/1.0, not {version}")
    return RequestRefused(400, f"a request line ends in HTTP/1.1 or HTTP/1.0, not in {shown(version)}")


def _method_refusal(method: str) -> RequestRefused:
    if not is_token(method.encode("latin-1")):
        return RequestRefused(400, f"the method is not a token: {shown(method)}")
    return RequestRefused(501, f"the method {shown(method)} is not implemented")


def _parse_other_form(method: str, target: str) -> tuple[str, str, str]:
    """Path, query and authority of a target that does not begin with '/'."""
    if target == "*":
        if method != "OPTIONS":  # RFC 9112 3.2.4
            raise RequestRefused(400, f"the target '*' is for OPTIONS only, not for {method}")
        return "", "", ""
    scheme, separator, rest = target.partition("://")  # absolute-form, RFC 9112 3.2.2
    if not separator or scheme.lower() not in ("http", "https"):
        raise RequestRefused(400, f"the request target is neither a path nor an http URL: {shown(target)}")
    before_query, _, query = rest.partition("?")
    authority, slash, path = before_query.partition("/")
    if not is_host(authority):  # user information is refused with it: RFC 9110 4.2.4
        raise RequestRefused(400, f"the request target names no valid host: {shown(target)}")
    return slash + path if slash else "/", query, authority


def is_token(name: bytes) -> bool:
    """RFC 9110 5.6.2."""
    return bool(name) and not name.translate(None, TOKEN_BYTES)


def is_host(text: str) -> bool:
    """Whether a Host value, or the authority of a target, names a host (RFC 9110 4.2.1: never an empty one)."""
    return _HOST.fullmatch(text) is not None


def judge_bytes(line: bytes) -> None:
    """Refuse control bytes in a piece of a line, its CRLF not included (RFC 9112 2.2, RFC 9110 5.5)."""
    bad = line.translate(None, _ALLOWED_BYTES)
    if bad:
        name = _CONTROL_NAMES.get(bad[0], f"the control byte 0x{bad[0]:02x}")
        raise RequestRefused(400, f"a line holds {name}")


def judge_header_line(line: bytes) -> None:
    """Refuse a whole header line (or trailer line) that is no `name: value`. Raises RequestRefused 400."""
    judge_bytes(line)
    if line[:1] in (b" ", b"\t"):  # RFC 9112 5.2
        raise RequestRefused(400, f"a header line is folded: {shown(line)}")
    name, colon, _ = line.partition(b":")
    if not colon:
        raise RequestRefused(400, f"a header line has no colon: {shown(line)}")
    if name[-1:] in (b" ", b"\t"):  # RFC 9112 5.1
        raise RequestRefused(400, f"a header name is followed by a space: {shown(line)}")
    if not is_token(name):
        raise RequestRefused(400, f"a header name is not a token: {shown(name)}")


class PartialHead:
    """Judges a head that is still growing, each byte once; also finds the reason when a whole head is no good.

    `seen` is how many bytes of the buffer have been judged and need no second look.
    """

    __slots__ = ("_header_count", "_limits", "_line_start", "_refusal", "_start", "seen")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._refusal: RequestRefused | None = None
        self._start = -1  # of the request line; -1 while that line is not whole
        self._line_start = 0
        self._header_count = 0
        self.seen = 0

    def judge(self, buffer: bytes) -> None:
        """Refuse what can never become a good head; `buffer` is the last one with more bytes behind it.

        Raises RequestRefused, and once it has done so, the same one for ever: nothing that follows a refused request
        may be served (a pipelined second one was, CVE-2024-49768).
        """
        if self._refusal is not None:
            raise self._refusal
        try:
            if self._start >= 0 or self._judge_request_line(buffer):
                self._judge_header_lines(buffer)
        except RequestRefused as refusal:
            self._refusal = refusal
            raise

    @property
    def refused(self) -> bool:
        """Whether the verdict has been given."""
        return self._refusal is not None

    def close(self, refusal: RequestRefused) -> RequestRefused:
        """Remember a refusal that was found elsewhere."""
        self._refusal = refusal
        return refusal

    def _judge_request_line(self, buffer: bytes) -> bool:
        start = head_start(buffer)
        limit = self._limits.max_request_line_bytes
        opening = buffer[start : start + 1]
        if not opening or (buffer[start:] == b"\r" and start < 2 * MAX_LEADING_EMPTY_LINES):
            return False
        if opening not in TOKEN_BYTES:
            reason = _WRONG_PROTOCOL.get(opening[0], f"no HTTP request begins with the byte 0x{opening[0]:02x}")
            raise RequestRefused(400, reason)
        end = self._judge_piece(buffer, start, start + limit + 2)
        if end < 0:
            if len(buffer) - start > limit + 1:
                raise RequestRefused(414, f"the request line is longer than {limit} bytes")
            return False
        parse_request_line(buffer[start:end].decode("latin-1"))
        self._start = start
        self._line_start = self.seen = end + 2
        return True

    def _judge_header_lines(self, buffer: bytes) -> None:
        limits = self._limits
        window_end = self._start + limits.max_head_bytes
        while True:
            line_start = self._line_start
            # Behind the window nothing is looked at: with one byte less, the head's size would decide.
            opening = buffer[line_start : min(line_start + 1, window_end)]
            if self._header_count == limits.max_header_count and opening not in (b"", b"\r"):
                raise RequestRefused(431, f"there are more than {limits.max_header_count} header lines")
            end = self._judge_piece(buffer, line_start, window_end)
            if end == line_start:
                return
            if end < 0:
                break
            judge_header_line(buffer[line_start:end])
            self._header_count += 1
            self._line_start = self.seen = end + 2
        if len(buffer) >= window_end:
            raise RequestRefused(431, f"the head is longer than {limits.max_head_bytes} bytes")

    def _judge_piece(self, buffer: bytes, line_start: int, window_end: int) -> int:
        """Judge the bytes of one line that have arrived inside the window; the place of its CRLF, or -1."""
        unseen = max(line_start, self.seen)
        end = buffer.find(b"\r\n", unseen, window_end)
        piece = buffer[unseen:end] if end >= 0 else buffer[unseen:window_end]
        if end < 0 and piece.endswith(b"\r"):  # its line feed may be on the way
            piece = piece[:-1]
        judge_bytes(piece)
        self.seen = unseen + len(piece)
        return end
