"""What a coroutine of an application may not do to the loop: end it.

asyncio takes a SystemExit that leaves a Task for the end of the program: run_forever() raises it, and the worker is
gone with everybody's requests. In a view sys.exit() is an error of one request (serving/exchange.py), and so it is in
what a view awaits or spawns.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Exited(Exception):
    """The coroutine called sys.exit(); `exit` is what it raised."""

    def __init__(self, error: SystemExit) -> None:
        super().__init__(f"sys.exit({error.code!r}) was called")
        self.exit = error


async def guarded(awaitable: Awaitable[T]) -> T:
    """Await it. Raises TypeError when that cannot be done, and Exited for a SystemExit."""
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"await_() is to be given an awaitable, a {type(awaitable).__name__} came")
    try:
        return await awaitable
    except SystemExit as error:
        raise Exited(error) from error
