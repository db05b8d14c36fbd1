"""How the head of a reply ends, for both protocols, and the complete replies that the server gives by itself. Pure.

On a uwsgi socket the reply is the front end's to dress: no Server, no Date, no Connection (nginx passes on what the
backend says), and the body ends with the connection. On HTTP/1.1 every reply knows its own end (RFC 9112 6.3).
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

SERVER = "corelet"

_date = ("", -1)


def http_date(now: float) -> str:
    """Return `now` (seconds since the epoch) as an IMF-fixdate (RFC 9110 5.6.7); made once a second."""
    global _date  # noqa: PLW0603 - one string for all replies of a second
    second = int(now)
    text, of = _date
    if of != second:
        text = formatdate(second, usegmt=True)
        _date = (text, second)
    return text


def reason_phrase(status: int) -> str:
    """The standard phrase of a status code, or 'Error' for one without."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def refusal(status: int, reason: str, *, http: bool, now: float = 0.0, head_only: bool = False) -> bytes:
    """Return a whole reply that says `status` and why, and closes the connection.

    `http` adds what a browser needs and a front end does not. 503 asks to come again in a second.
    """
    body = f"{status} {reason_phrase(status)}: {reason}\n".encode("utf-8", "backslashreplace")
    lines = [
        f"HTTP/1.1 {status} {reason_phrase(status)}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append("Retry-After: 1")
    if http:
        lines += [f"Date: {http_date(now)}", f"Server: {SERVER}", "Connection: close"]
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    return head if head_only else head + body
