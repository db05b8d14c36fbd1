"""A generator that waits between its chunks: the first arrives at two seconds, the second at four.

Every chunk a view yields is sent at once. nginx collects replies by default, and would hand over both chunks at four
seconds; the header X-Accel-Buffering tells it not to for this reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import greenlet

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

DELAY_SECONDS = 2


def pause(seconds: float) -> None:
    """Suspend the core this is called on. Any function may wait, however deep below the view."""
    me = greenlet.getcurrent()
    asyncio.get_event_loop().call_later(seconds, me.switch)
    me.parent.switch()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Two chunks, each after a pause."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Accel-Buffering", "no")])
    pause(DELAY_SECONDS)
    yield b"One\n"
    pause(DELAY_SECONDS)
    yield b"Two\n"
