"""The application every contestant serves, from this one file.

It does next to nothing on purpose: what is measured is the server. All replies carry a Content-Length, as those of the
usual frameworks do, so that no server is made to pay for chunking and every reply's size is known beforehand. The one
exception is /compute, which holds the processor: a count of iterations that bench/run.py has chosen once, so that every
process of every server does the same work, however fast it runs at that moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

HELLO = b"Hello, World!"
LARGE = (b"0123456789abcdef" * 6250)[:100_000]  # 100 KB; not one repeated byte, so that a shifted copy would be seen

ITERATIONS_VARIABLE = "BENCH_COMPUTE_ITERATIONS"
ITERATIONS = int(os.environ.get(ITERATIONS_VARIABLE, "0"))


def computed(iterations: int) -> bytes:
    """Hold the processor for so many iterations. The result depends on every one of them: it shows they were done."""
    number = 1
    for _ in range(iterations):
        number = (number * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
    return b"%010d" % number


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """GET /hello, /large, /compute (ITERATIONS of them), POST /count (the body's length), POST /echo (the body)."""
    path = environ["PATH_INFO"]
    if path == "/hello":
        body = HELLO
    elif path == "/large":
        body = LARGE
    elif path in {"/count", "/echo"}:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if path == "/count":
            body = b"%d bytes" % len(body)
    elif path == "/compute" and ITERATIONS:
        body = computed(ITERATIONS)
    else:
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
