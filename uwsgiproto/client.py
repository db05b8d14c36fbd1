"""The other end of the wire: build what a front end would send, read what a server answers.

Bytes in and out, like the rest: whoever uses it owns the socket. It serves probes and command lines, so it is strict
about a reply: one that was cut short is an error here, where a front end may pass it on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from uwsgiproto.errors import BadReply
from uwsgiproto.modifiers import PING_PACKET, PONG_PACKET, WSGI
from uwsgiproto.pairs import MAX_BLOCK_BYTES, encode_pairs, merge_pairs

_DIGITS: Final = frozenset("0123456789")


def build_request(
    variables: Mapping[str, str] | Iterable[tuple[str, str]],
    body: bytes = b"",
    modifier1: int = WSGI,
    modifier2: int = 0,
) -> bytes:
    """A packet and the body behind it. CONTENT_LENGTH is the caller's; see request_variables.

    Raises ValueError for variables that no packet can hold.
    """
    block = encode_pairs(variables)
    if len(block) > MAX_BLOCK_BYTES:
        raise ValueError(f"the variables take {len(block)} bytes, a packet holds {MAX_BLOCK_BYTES}")
    return bytes((modifier1, len(block) & 0xFF, len(block) >> 8, modifier2)) + block + body


def build_ping() -> bytes:
    """The packet that asks whether a uwsgi server is there."""
    return PING_PACKET


def is_pong(data: bytes) -> bool:
    """Whether `data`, all that came back, is the answer to a ping."""
    return data == PONG_PACKET


def request_variables(
    method: str,
    target: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    *,
    body_bytes: int | None = None,
    scheme: str = "http",
    protocol: str = "HTTP/1.1",
    server_name: str = "localhost",
    server_port: int = 80,
    remote_addr: str = "127.0.0.1",
    remote_port: int = 0,
    document_root: str = "",
) -> dict[str, str]:
    """What nginx sends with its `include uwsgi_params` for this request, in its order.

    `target` is the request target in origin form, percent-encoded, with its query. `body_bytes` is the length of the
    body, None when there is none; a Content-Length among `headers` serves as well. Header names with an underscore are
    left out as nginx leaves them out. A repeated header is joined, as nginx does from 1.23 on.
    """
    fields = list(headers.items() if isinstance(headers, Mapping) else headers)
    by_name = {name.lower(): value for name, value in fields}
    if body_bytes is not None and "content-length" not in by_name:
        by_name["content-length"] = str(body_bytes)
        fields.append(("Content-Length", str(body_bytes)))
    path, _, query = target.partition("?")
    variables = [
        ("QUERY_STRING", query),
        ("REQUEST_METHOD", method),
        ("CONTENT_TYPE", by_name.get("content-type", "")),
        ("CONTENT_LENGTH", by_name.get("content-length", "")),
        ("REQUEST_URI", target),
        ("PATH_INFO", _normalised(unquote_to_bytes(path.encode("latin-1")).decode("latin-1"))),
        ("DOCUMENT_ROOT", document_root),
        ("SERVER_PROTOCOL", protocol),
        ("REQUEST_SCHEME", scheme),
        *([("HTTPS", "on")] if scheme == "https" else []),
        ("REMOTE_ADDR", remote_addr),
        ("REMOTE_PORT", str(remote_port)),
        ("SERVER_PORT", str(server_port)),
        ("SERVER_NAME", server_name),
    ]
    variables += [("HTTP_" + name.upper().replace("-", "_"), value) for name, value in fields if "_" not in name]
    return merge_pairs(variables)


def _normalised(path: str) -> str:
    """The decoded path as nginx's $document_uri has it: slashes merged, dot segments resolved (RFC 3986 5.2.4)."""
    segments: list[str] = []
    parts = path.split("/")
    for part in parts:
        if part == "..":
            del segments[-1:]
        elif part not in ("", "."):
            segments.append(part)
    closing = "/" if segments and parts[-1] in ("", ".", "..") else ""
    return "/" + "/".join(segments) + closing


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered. Header names are as they came, values without surrounding blanks."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of the header `name`, in whatever case, or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def parse_reply(data: bytes, *, to_head: bool = False) -> Reply:
    """The reply in `data`, all the bytes until the server closed the connection.

    Like nginx it takes a status line, a CGI `Status:` header, or neither (200), and a body up to Content-Length or to
    the end. `to_head` says that the request was a HEAD, so that no body is missed.

    Raises BadReply for no reply, a head that is not one, and a body shorter than announced.
    """
    if not data:
        raise BadReply("the server closed the connection without a reply")
    head, blank_line, body = data.partition(b"\r\n\r\n")
    if not blank_line:
        raise BadReply(f"the reply ends inside its head, after {len(data)} bytes: {data[:80]!r}")
    lines = head.decode("latin-1").split("\r\n")
    status_line = lines.pop(0) if lines[0].startswith("HTTP/") else None
    headers = tuple(_header(line) for line in lines)
    by_name = {name.lower(): value for name, value in headers}
    if status_line is not None:
        status, reason = _status(status_line.partition(" ")[2])
    else:
        status, reason = _status(by_name.get("status", "200 OK"))
    if to_head or status in (204, 304):  # RFC 9110 6.4.1: these have none, whatever Content-Length says
        return Reply(status, reason, headers, b"")
    return Reply(status, reason, headers, _body(body, by_name.get("content-length")))


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise BadReply(f"not a header line: {line[:80]!r}")
    return name, value.strip(" \t")


def _status(text: str) -> tuple[int, str]:
    code, _, reason = text.partition(" ")
    if len(code) != 3 or not _DIGITS.issuperset(code):
        raise BadReply(f"the status code is three digits, this reply has {text[:80]!r}")
    return int(code), reason


def _body(body: bytes, content_length: str | None) -> bytes:
    if content_length is None:
        return body
    if not content_length or not _DIGITS.issuperset(content_length):
        raise BadReply(f"Content-Length is a number, this reply has {content_length[:80]!r}")
    expected = int(content_length)
    if len(body) < expected:
        raise BadReply(f"the body was cut short: {len(body)} bytes came of {expected}")
    return body[:expected]
