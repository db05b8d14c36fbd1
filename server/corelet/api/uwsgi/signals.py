"""The part of `uwsgi` about its signals: register_signal(), signal(), signal_wait(), timers, crons, file monitors.

Return values are uWSGI's: None, except True of add_cron() and b"" of signal_wait().
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from corelet.api import handlers
from corelet.api.registry import (
    Entry,
    cron_fields_of,
    iterations_of,
    path_of,
    registry,
    seconds_of,
    signal_number,
    texts_of,
)
from corelet.api.server import NotServed, Server, current
from corelet.base.logs import RateLimited

_limited = RateLimited(logging.getLogger("corelet.signals"))

LIVE: dict[str, Callable[[], Any]] = {}


def names(_server: Server) -> dict[str, Any]:
    """The plain attributes."""
    return {
        "register_signal": register_signal,
        "signal_registered": signal_registered,
        "signal": signal,
        "signal_wait": signal_wait,
        "signal_received": signal_received,
        "add_timer": add_timer,
        "add_rb_timer": add_rb_timer,
        "add_ms_timer": add_ms_timer,
        "add_cron": add_cron,
        "add_file_monitor": add_file_monitor,
    }


def _registered(entry: Entry) -> None:
    server = current()
    if server.worker is not None:  # before that, all of it is told when the worker is ready
        for text in texts_of([entry]):
            if not server.tell("registers", text):
                raise OSError("the master does not take the registration, so much has it to do: try it again later")


def register_signal(number: int, who: str, handler: Callable[[int], object], /) -> None:
    """Have `handler(number)` called for a signal; `who`: '', worker, worker0, workers, active-workers, workerN."""
    _registered(registry.register(number, who, handler))


def signal_registered(number: int, /) -> bool | None:
    """True if the signal has a handler in this process, otherwise None."""
    return True if signal_number(number) in registry.handlers else None


def signal(number: int, node: str = "", /) -> None:
    """Raise a signal, for whoever is its target."""
    if node:
        raise ValueError("signals to other nodes are not sent here: let a request to that server call uwsgi.signal()")
    server = current()
    if server.worker_id == 0:
        raise NotServed("there is no worker yet: raise the signal in post_fork_hook, in a view or by a timer")
    if not server.tell("raise", str(signal_number(number))):
        # uWSGI says so and goes on too ("SIGNAL QUEUE IS FULL"), but a line for each.
        _limited.log(
            time.monotonic(), number, logging.WARNING,
            "signal %d was dropped: the master has not taken those before it", number,
        )  # fmt: skip


def signal_wait(number: int | None = None, /) -> bytes:
    """Suspend the core until this signal, or any, has come to this worker and has been handled."""
    handlers.inbox().wait(handlers.ANY_SIGNAL if number is None else signal_number(number))
    return b""


def signal_received() -> int:
    """The signal that this request's signal_wait() has waited for; 0 before."""
    return handlers.received()


def add_timer(number: int, seconds: float, /) -> None:
    """Raise the signal every so many seconds."""
    _registered(registry.add("timer", signal_number(number), seconds_of(seconds), 0))


def add_rb_timer(number: int, seconds: float, iterations: int = 0, /) -> None:
    """Raise the signal every so many seconds, so many times; 0 times: without end."""
    _registered(registry.add("timer", signal_number(number), seconds_of(seconds), iterations_of(iterations)))


def add_ms_timer(number: int, milliseconds: float, /) -> None:
    """Raise the signal every so many milliseconds."""
    _registered(registry.add("timer", signal_number(number), seconds_of(seconds_of(milliseconds) / 1000), 0))


def add_cron(number: int, minute: int, hour: int, day: int, month: int, week: int, /) -> bool:
    """Raise the signal in the minutes that these fields name; -1 is every, -N every Nth."""
    _registered(registry.add("cron", signal_number(number), *cron_fields_of((minute, hour, day, month, week))))
    return True


def add_file_monitor(number: int, path: str, /) -> None:
    """Raise the signal when a file, or what is in a folder, changes."""
    _registered(registry.add("file", signal_number(number), path_of(path)))
