"""Flask, streaming the tokens of a slow upstream to hundreds of browsers from one worker.

The view is a synchronous generator, as Flask wants it. Between two tokens it waits on the worker's event loop with
`corelet.await_`, for one line of the upstream's reply, read by aiohttp; the worker serves the others meanwhile. When a
browser goes away, `await_` raises in the generator, whose `finally` ends the call to the upstream.

    python examples/slow_upstream.py
    corelet --asyncio 250 --http-socket :9090 --wsgi-file examples/flask_tokens.py

pip install flask aiohttp. UPSTREAM names another upstream than http://127.0.0.1:8001/.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from flask import Flask, Response, send_file

import corelet

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:8001/")
PAGE = Path(__file__).with_suffix(".html")
HEADERS = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}  # nginx collects replies unless it is told not to

application = Flask(__name__)
streams = 0  # open in this worker; all its requests share one thread, so a plain number will do


async def keep(session: asyncio.Future[aiohttp.ClientSession]) -> None:
    """One session for the whole worker. What is left in the loop is cancelled when the worker ends: then it is closed.

    limit=0: aiohttp's own limit is a hundred connections, and the hundred-and-first stream would wait for a free one.
    """
    patience = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=patience) as ours:
        session.set_result(ours)
        await asyncio.Event().wait()


loop = asyncio.get_event_loop()  # the worker's: it is set before the application is imported
session: asyncio.Future[aiohttp.ClientSession] = loop.create_future()
keeper = loop.create_task(keep(session))  # noqa: RUF006 - the module keeps it


@application.get("/")
def page() -> Response:
    """The page for a browser: it asks for /tokens and writes what comes."""
    return send_file(PAGE)


@application.get("/tokens")
def tokens() -> Response | tuple[str, int]:
    """Server-sent events, as they come. The upstream has begun before we do: until then a 502 can be said."""
    try:
        reply = corelet.await_(ask())
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"The upstream does not answer: {type(error).__name__}\n", 502
    return Response(events(reply), mimetype="text/event-stream", headers=HEADERS)


@application.get("/streams")
def how_many() -> str:
    """How many streams are open in this worker."""
    return str(streams)


async def ask() -> aiohttp.ClientResponse:
    """Begin the call to the upstream."""
    reply = await (await session).get(f"{UPSTREAM}tokens")
    reply.raise_for_status()
    return reply


def events(reply: aiohttp.ClientResponse) -> Iterator[bytes]:
    """Each event as soon as it is there; the core is suspended in between."""
    global streams  # noqa: PLW0603
    streams += 1
    try:
        while line := corelet.await_(reply.content.readline()):
            if line.startswith(b"data:"):
                yield line + b"\n"
        yield b"event: end\ndata: {}\n\n"  # without it EventSource would take the end for a failure, and ask again
    finally:
        streams -= 1
        reply.close()
