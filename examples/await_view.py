"""A plain view that awaits, with corelet's own bridge.

`corelet.await_` does what the other examples do by hand: it runs the awaitable on the worker's loop, suspends this
core, and returns the result or raises the error. The view stays an ordinary function, so it may live in any WSGI
framework; this example only runs under corelet.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import corelet

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

TIMEOUT_SECONDS = 5


async def price(shop: str) -> tuple[str, int]:
    """Stands for a call to another service that takes a second."""
    await asyncio.sleep(1)
    return shop, 100 + 7 * len(shop)


async def prices(*shops: str) -> dict[str, int]:
    """Ask all of them at the same time."""
    return dict(await asyncio.gather(*map(price, shops)))


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Three calls of a second each, in one second."""
    began = time.monotonic()
    found = corelet.await_(prices("north", "south", "riverside"), timeout=TIMEOUT_SECONDS)
    body = json.dumps({"prices": found, "seconds": round(time.monotonic() - began, 2)}).encode() + b"\n"
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
