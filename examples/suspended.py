"""A reply suspended for two seconds by a raw switch.

Each request runs on a core, and a core is a greenlet whose parent runs the worker's loop. A view that has to wait hands
its own greenlet to whatever will wake it and switches to the parent: the worker serves others meanwhile. Ten of these
at the same time take two seconds together on ten cores, in one process and without threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import greenlet

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

DELAY_SECONDS = 2


def wake(core: greenlet.greenlet) -> None:
    """Run by the loop: go back into the view that waits."""
    core.switch("woken by a timer")


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Wait on the loop, then reply with what the waker has handed over."""
    me = greenlet.getcurrent()
    asyncio.get_event_loop().call_later(DELAY_SECONDS, wake, me)
    message = me.parent.switch()  # to the loop; returns what `wake` gives to switch()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{message} after {DELAY_SECONDS} seconds\n".encode()]
