"""`asyncio-compat`: give back `asyncio.coroutine`, which CPython 3.11 removed, so that code of 2014 runs as printed.

types.coroutine alone is not enough: Task refuses its generators from CPython 3.12 on ("a coroutine was expected"). So
the decorated function becomes an `async def` that awaits it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any


def coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a generator function with `yield from` into a coroutine function; a plain function's result is returned.

    Source: asyncio.coroutine of CPython 3.4-3.10 (Lib/asyncio/coroutines.py).
    """
    if inspect.iscoroutinefunction(function):
        return function
    generator: Any = types.coroutine(function) if inspect.isgeneratorfunction(function) else None

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if generator is not None:
            return await generator(*args, **kwargs)
        result = function(*args, **kwargs)
        if inspect.isgenerator(result):
            return await _run(result)
        return await result if inspect.isawaitable(result) else result

    return wrapper


@types.coroutine
def _run(generator: Any) -> Any:
    return (yield from generator)


def install() -> None:
    """Put it where old code looks for it; CPython's own is left alone where it exists."""
    if not hasattr(asyncio, "coroutine"):
        asyncio.coroutine = coroutine  # type: ignore[attr-defined]
