"""A view that fetches a page with aiohttp while its worker goes on serving.

The page's address comes from the environment variable UPSTREAM (default http://127.0.0.1:8000/), never from the client.
`python -m http.server 8000` is enough to try it. aiohttp is not a dependency of corelet: pip install aiohttp.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import aiohttp
import greenlet

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:8000/")
TIMEOUT_SECONDS = 10


async def fetch(core: greenlet.greenlet, future: asyncio.Future[bytes]) -> None:
    """GET the upstream's page into the Future and wake the view, whether that went well or not."""
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(UPSTREAM) as response:
            response.raise_for_status()
            future.set_result(await response.read())
    except (aiohttp.ClientError, TimeoutError) as error:
        future.set_exception(error)
    finally:
        core.switch()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Pass the upstream's page on, or say in a 502 why there is none."""
    me = greenlet.getcurrent()
    future: asyncio.Future[bytes] = asyncio.Future()
    task = asyncio.Task(fetch(me, future))
    me.parent.switch()
    if not future.done():  # an error that `fetch` does not expect: the Task has it, and the server makes a 500 of it
        task.result()
    if error := future.exception():
        start_response("502 Bad Gateway", [("Content-Type", "text/plain")])
        yield f"The upstream gave no page: {type(error).__name__}\n".encode()
    else:
        start_response("200 OK", [("Content-Type", "text/html")])
        yield future.result()
