"""Ten upstream calls at once inside one plain WSGI view, and one aiohttp session for all requests of the worker.

`corelet.gather` starts them all on the worker's event loop and suspends this core until the last has answered, so the
view takes as long as the slowest call and not as long as all ten. If one fails, the others are cancelled.

    python examples/slow_upstream.py
    corelet --asyncio 100 --http-socket :9090 --wsgi-file examples/aiohttp_fanout.py

pip install aiohttp. UPSTREAM names another upstream than http://127.0.0.1:8001/.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import aiohttp

import corelet

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:8001/")
SHOPS = ("north", "south", "east", "west", "harbour", "station", "airport", "market", "bridge", "castle")
TIMEOUT_SECONDS = 10


async def keep(session: asyncio.Future[aiohttp.ClientSession]) -> None:
    """One session, with its pool of connections, for the whole worker.

    It has to be made in the loop, and closed there. A Task does both: what is left in the loop is cancelled when the
    worker has served its last request.
    """
    patience = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=patience) as ours:
        session.set_result(ours)
        try:
            await asyncio.Event().wait()
        finally:
            print("closing the session", flush=True)


loop = asyncio.get_event_loop()  # the worker's: it is set before the application is imported
session: asyncio.Future[aiohttp.ClientSession] = loop.create_future()
keeper = loop.create_task(keep(session))  # noqa: RUF006 - the module keeps it


async def price(shop: str) -> int:
    """One call."""
    async with (await session).get(f"{UPSTREAM}shops/{shop}") as reply:
        reply.raise_for_status()
        found: dict[str, Any] = await reply.json()
        return int(found["price"])


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The price in each shop."""
    began = time.monotonic()
    try:
        prices = corelet.gather(*map(price, SHOPS))
    except (aiohttp.ClientError, TimeoutError) as error:
        start_response("502 Bad Gateway", [("Content-Type", "text/plain")])
        return [f"A shop does not answer: {type(error).__name__}\n".encode()]
    found = {"prices": dict(zip(SHOPS, prices, strict=True)), "seconds": round(time.monotonic() - began, 2)}
    body = json.dumps(found).encode() + b"\n"
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
