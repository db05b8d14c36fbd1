"""A callback two seconds after the reply.

The view asks the worker's loop to call a function later and returns at once. The client has its reply immediately; the
function runs when the time has come, on the loop's own greenlet, long after the request is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

DELAY_SECONDS = 2


def after_the_reply() -> None:
    """Run by the loop. No request is at hand here any more."""
    print(f"{DELAY_SECONDS} seconds after the reply", flush=True)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Reply at once and leave a callback behind."""
    asyncio.get_event_loop().call_later(DELAY_SECONDS, after_the_reply)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"The reply is here; a line in the server's log follows in two seconds.\n"]
