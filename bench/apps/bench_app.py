"""The application every contestant serves, from this one file.

It does next to nothing on purpose: what is measured is the server. All replies carry a Content-Length, as those of the
usual frameworks do, so that no server is made to pay for chunking and every reply's size is known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

HELLO = b"Hello, World!"
LARGE = (b"0123456789abcdef" * 6250)[:100_000]  # 100 KB; not one repeated byte, so that a shifted copy would be seen


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """GET /hello, GET /large, POST /count (replies with the body's length), POST /echo (replies with the body)."""
    path = environ["PATH_INFO"]
    if path == "/hello":
        body = HELLO
    elif path == "/large":
        body = LARGE
    elif path in {"/count", "/echo"}:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if path == "/count":
            body = b"%d bytes" % len(body)
    else:
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
