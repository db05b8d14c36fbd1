"""Where asyncio keeps the loop of a thread. Looking there costs a sixth of asking asyncio, and makes no loop."""

from __future__ import annotations

import asyncio
from typing import Any


def thread_policy() -> Any:
    """The policy, without the warning that CPython 3.14 gives for the public name."""
    private = getattr(asyncio.events, "_get_event_loop_policy", None)
    return private() if private is not None else asyncio.get_event_loop_policy()


class UnknownPolicy:
    """In the place of a policy's thread-local: one that keeps its loop where we do not know is asked in `show` only."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
