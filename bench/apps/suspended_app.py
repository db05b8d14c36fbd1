"""The application of bench/suspended.py: a view ten Python frames deep that leaves its core waiting.

It uses nothing but asyncio and greenlet, so the same file runs on uWSGI's asyncio engine and on corelet. The frames
stand for a framework's middleware: each keeps a few locals alive, as real ones do, because a suspended request costs
what its frames hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import greenlet

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

FRAMES = 10
WARM_UP_PATH = "/warm-up"

suspended_now = 0
suspended_peak = 0


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """GET /?seconds=3 waits and replies with the most requests that waited together; GET /warm-up does not wait."""
    seconds = 0.0 if environ["PATH_INFO"] == WARM_UP_PATH else float(parse_qs(environ["QUERY_STRING"])["seconds"][0])
    peak = descend(environ, FRAMES - 1, seconds)
    body = b"%d" % peak
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def descend(environ: WSGIEnvironment, frames_left: int, seconds: float) -> int:
    """Call itself until `application` and its callees are FRAMES deep, then wait there."""
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    context = {"path": path, "method": method, "depth": frames_left}
    if frames_left > 1:
        return descend(environ, context["depth"] - 1, seconds)
    return wait(seconds)


def wait(seconds: float) -> int:
    """Suspend this core by a raw switch to the loop's greenlet; the timer switches back."""
    global suspended_now, suspended_peak  # noqa: PLW0603  one process, one thread: a counter is what is wanted
    suspended_now += 1
    suspended_peak = max(suspended_peak, suspended_now)
    me = greenlet.getcurrent()
    asyncio.get_event_loop().call_later(seconds, me.switch)
    me.parent.switch()
    suspended_now -= 1
    return suspended_peak
