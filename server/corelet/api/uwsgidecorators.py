"""uWSGI's Python module `uwsgidecorators`: @timer, @cron, @signal, @postfork, @lock … Importable in a worker only.

Written afresh: names and arguments are uWSGI's, the code is not. What belongs to mules and to the spooler is absent.
Unlike uWSGI's, every decorator gives back a function that can be called as before.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from corelet.api import server
from corelet.api.registry import SIGNALS, registry
from corelet.api.uwsgi import hooks, signals

P = ParamSpec("P")
T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[[int], object])

__all__ = (
    "cron", "filemon", "get_free_signal", "harakiri", "lock", "postfork", "rb_timer", "rbtimer", "signal", "thread",
    "timer",
)  # fmt: skip


def get_free_signal() -> int:
    """The lowest signal without a handler: the same one in every worker that runs the same code. Raises ValueError."""
    for number in range(SIGNALS):
        if number not in registry.handlers:
            return number
    raise ValueError(f"all {SIGNALS} signals have a handler already: let functions share one")


def _registered(function: Handler, number: int | None, target: str) -> int:
    number = get_free_signal() if number is None else number
    signals.register_signal(number, target, function)
    return number


def signal(num: int, *, target: str = "") -> Callable[[Handler], Handler]:
    """Make the function the handler of a signal."""

    def decorate(function: Handler) -> Handler:
        _registered(function, num, target)
        return function

    return decorate


def timer(secs: float, *, signum: int | None = None, target: str = "") -> Callable[[Handler], Handler]:
    """Call the function every so many seconds."""

    def decorate(function: Handler) -> Handler:
        signals.add_timer(_registered(function, signum, target), secs)
        return function

    return decorate


def rbtimer(
    secs: float, *, signum: int | None = None, target: str = "", iterations: int = 0
) -> Callable[[Handler], Handler]:
    """Call the function every so many seconds, so many times; 0: without end."""

    def decorate(function: Handler) -> Handler:
        signals.add_rb_timer(_registered(function, signum, target), secs, iterations)
        return function

    return decorate


rb_timer = rbtimer


def cron(
    minute: int, hour: int, day: int, month: int, dayweek: int, *, signum: int | None = None, target: str = ""
) -> Callable[[Handler], Handler]:
    """Call the function in the minutes that these fields name; -1 is every, -N every Nth."""

    def decorate(function: Handler) -> Handler:
        signals.add_cron(_registered(function, signum, target), minute, hour, day, month, dayweek)
        return function

    return decorate


def filemon(
    fsobj: str | os.PathLike[str], *, signum: int | None = None, target: str = ""
) -> Callable[[Handler], Handler]:
    """Call the function when a file, or what is in a folder, changes."""

    def decorate(function: Handler) -> Handler:
        signals.add_file_monitor(_registered(function, signum, target), os.fspath(fsobj))
        return function

    return decorate


def postfork(function: Any) -> Any:
    """Call the function in each worker before it serves; with a number, @postfork(2), in that worker only."""
    if callable(function):
        hooks.after_fork.append(function)
        return function
    if isinstance(function, bool) or not isinstance(function, int) or function < 0:
        raise TypeError(f"@postfork takes a function or a worker's number, a {type(function).__name__} came")
    return functools.partial(_in_worker, function)


def _in_worker(number: int, function: Callable[[], T]) -> Callable[[], T]:
    def only_there() -> None:
        if number in (0, server.current().worker_id):
            function()

    hooks.after_fork.append(only_there)
    return function


def thread(function: Callable[P, object]) -> Callable[P, threading.Thread]:
    """Each call runs in a thread of its own, which ends with the process, and gives back that thread."""

    @functools.wraps(function)
    def started(*args: P.args, **kwargs: P.kwargs) -> threading.Thread:
        runs = threading.Thread(target=function, args=args, kwargs=kwargs, name=function.__qualname__, daemon=True)
        runs.start()
        return runs

    return started


def lock(function: Callable[P, T]) -> Callable[P, T]:
    """Each call holds uwsgi.lock() meanwhile: one at a time, in all workers together."""

    @functools.wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> T:
        uwsgi = _uwsgi()
        uwsgi.lock()
        try:
            return function(*args, **kwargs)
        finally:
            uwsgi.unlock()

    return alone


def harakiri(seconds: float) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Each call may take so long, or its request is unwound."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def limited(*args: P.args, **kwargs: P.kwargs) -> T:
            uwsgi = _uwsgi()
            uwsgi.set_user_harakiri(seconds)
            try:
                return function(*args, **kwargs)
            finally:
                uwsgi.set_user_harakiri(0)

        return limited

    return decorate


def _uwsgi() -> Any:
    return sys.modules["uwsgi"]  # it is made while the server starts
