"""Status lines and header lines of a reply: judged once, remembered, refused with a sentence that helps.

What an application says of a reply is the same from one request to the next, so a judged line is kept, and the usual
reply costs one look-up for each header. The stores are bounded: an application that invents values (ETags, cookies)
empties them now and then and is otherwise as well off as without.

Security rule 21: a name is a token, a value holds no CR, LF or NUL and is latin-1, a status is three digits and a
blank.
"""

from __future__ import annotations

from typing import Any

from corelet.base.errors import ResponseError

MAX_REMEMBERED = 1024  # entries in each store
MAX_REMEMBERED_CHARACTERS = 256  # in one of them

TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")  # RFC 9110 5.6.2

PLAIN, CONTENT_LENGTH, CONNECTION, DROPPED, DATE, SERVER = range(6)

SPECIAL = {
    "content-length": CONTENT_LENGTH,
    "connection": CONNECTION,
    "date": DATE,
    "server": SERVER,
    # Hop-by-hop headers belong to the server (RFC 9110 7.6.1, PEP 3333 "Other HTTP Features").
    "keep-alive": DROPPED,
    "proxy-connection": DROPPED,
    "te": DROPPED,
    "trailer": DROPPED,
    "transfer-encoding": DROPPED,
    "upgrade": DROPPED,
}

known_lines: dict[tuple[str, str], str] = {}
"""(name, value) -> its line, for headers that mean nothing to the server."""

known_statuses: dict[str, tuple[str, int]] = {}
"""status -> status line and code."""

_kinds: dict[str, int] = {}


def status_line(status: Any) -> tuple[str, int]:
    """Return the status line with its line end, and the code. Raises ResponseError."""
    if not isinstance(status, str):
        raise ResponseError(f"the status is to be a str such as '200 OK', a {type(status).__name__} came: {status!a}")
    code = status[:3]
    if not (code.isascii() and code.isdigit() and len(code) == 3 and status[3:4] in ("", " ")):
        raise ResponseError(f"the status is to be three digits, a blank and a reason ('200 OK'), {status!a} came")
    if not 200 <= int(code) <= 599:
        # nginx takes a 1xx for the final answer (field notes); beyond 599 a peer may do anything.
        raise ResponseError(f"the status is to be within 200 and 599, {status!a} came")
    check_text("status", status)
    result = (f"HTTP/1.1 {status}{'' if status[3:] else ' '}\r\n", int(code))
    if len(status) <= MAX_REMEMBERED_CHARACTERS:
        _remember(known_statuses, status, result)
    return result


def header_line(header: tuple[str, str]) -> tuple[str, int]:
    """Return a header's line with its line end, and what kind it is. Raises ResponseError."""
    if not isinstance(header, tuple) or len(header) != 2:
        raise ResponseError(f"a header is to be a tuple (name, value), {header!a} came")
    name, value = header
    if name == "Content-Length" and type(value) is str and value.isdigit() and value.isascii():
        return f"Content-Length: {value}\r\n", CONTENT_LENGTH  # in most replies, and mostly with a new value
    kind = _kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        kind = _classify(name)
    if not isinstance(value, str):
        raise ResponseError(f"the value of header {name} is to be a str, a {type(value).__name__} came: {value!a}")
    if kind == CONTENT_LENGTH and not (value.isascii() and value.isdigit()):
        raise ResponseError(f"Content-Length is to be digits, it came as {value!a}")
    check_text(name, value)
    line = f"{name}: {value}\r\n"
    if kind == PLAIN and len(line) <= MAX_REMEMBERED_CHARACTERS:
        _remember(known_lines, header, line)
    return line, kind


def check_text(what: str, text: str) -> None:
    """Refuse what would become another line of the head, and what no head can carry."""
    if "\r" in text or "\n" in text or "\0" in text:
        raise ResponseError(f"the value of {what} holds a line end or NUL: {text!a} (header injection)")
    if not text.isascii():
        try:
            text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise ResponseError(
                f"the value of {what} holds {text[error.start : error.end]!a}, which is not latin-1;"
                " encode it first (percent-encoding, or RFC 8187)"
            ) from None


def _classify(name: Any) -> int:
    if not isinstance(name, str) or not name or not TOKEN.issuperset(name):
        raise ResponseError(f"a header name is to be a token (RFC 9110 5.6.2), {name!a} came")
    kind = SPECIAL.get(name.lower(), PLAIN)
    _remember(_kinds, name, kind)
    return kind


def _remember(store: dict[Any, Any], key: Any, value: Any) -> None:
    if len(store) >= MAX_REMEMBERED:
        store.clear()
    store[key] = value
