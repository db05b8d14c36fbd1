"""A Future carries a coroutine's result, or its failure, to the view.

A coroutine that failed before its last line would never switch back, and the view would wait until its deadline. So the
failure is put into the Future as well, and the switch happens either way; `result()` then returns or raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import greenlet

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

DELAY_SECONDS = 2


async def answer(core: greenlet.greenlet, future: asyncio.Future[bytes]) -> None:
    """Find the answer, leave it in the Future, and wake the view."""
    try:
        await asyncio.sleep(DELAY_SECONDS)
        future.set_result(b"The answer took two seconds.\n")
    except Exception as error:  # noqa: BLE001  whatever it is, the view must hear of it
        future.set_exception(error)
    core.switch()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Start the coroutine, wait for it, reply with what it found."""
    me = greenlet.getcurrent()
    future: asyncio.Future[bytes] = asyncio.Future()
    task = asyncio.Task(answer(me, future))
    me.parent.switch()
    body = future.result()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body, f"It came from {task.get_name()}.\n".encode()]
