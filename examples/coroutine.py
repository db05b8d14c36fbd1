"""A view that starts a coroutine and waits until it switches back.

The view is a plain function, so it cannot use `await`. It makes a Task of a coroutine, gives it its own greenlet, and
leaves to the loop, which runs the Task like any other. The coroutine's last act is to switch to the view.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import greenlet

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

DELAY_SECONDS = 2


async def sleep_and_wake(core: greenlet.greenlet) -> None:
    """Anything that can be awaited may stand here."""
    await asyncio.sleep(DELAY_SECONDS)
    core.switch()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Start the coroutine, wait for it, reply."""
    me = greenlet.getcurrent()
    task = asyncio.Task(sleep_and_wake(me))  # on the worker's loop; asyncio.create_task asks for a coroutine around it
    me.parent.switch()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{task.get_name()} slept for {DELAY_SECONDS} seconds\n".encode()]
