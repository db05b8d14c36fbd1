"""The end of a process: what Python does there, with a bound that Python has not.

    threads    that are no daemons may end by themselves, as long as the mercy lasts (`grant`)
    atexit     handlers run, and the streams are flushed
    os._exit   if a thread is left, or if this process is a copy of another, whose frames it must not return to

Python itself waits for such threads for ever: one with `while True` in it, begun while the application was imported,
kept a server alive that had been told to stop. Whoever forked a worker and left by os._exit did the opposite, and threw
away what a pool of threads had still to do. So every process of the server ends here, by the same rules.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import NoReturn

logger = logging.getLogger("corelet")

LEAST_SECONDS = 0.1  # even without mercy: for the idle threads of a pool, which end as soon as they are told
LOOK_SECONDS = 0.1  # between two looks whether somebody is in a hurry by now

_until = 0.0


def grant(seconds: float) -> None:
    """Threads have so long from now on."""
    global _until  # noqa: PLW0603 - a process ends once
    _until = monotonic() + seconds


def hurry() -> None:
    """Threads have no time any more."""
    grant(0.0)


def end(code: int) -> None:
    """Wait for threads. Returns if none is left, since Python does the rest; otherwise this process is left."""
    if _others() and _threads_left():
        leave_now(code)


def leave(code: int) -> NoReturn:
    """Wait for threads, and leave this process in whatever frames it is."""
    with contextlib.suppress(Exception):
        _threads_left()
    leave_now(code)


def leave_now(code: int) -> NoReturn:
    """Leave this process; what is registered to run at its end runs."""
    try:
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def code_of(error: SystemExit) -> int:
    """The exit code that sys.exit() asks for; words are said on stderr, as Python does."""
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    with contextlib.suppress(Exception):
        sys.stderr.write(f"{error.code}\n")
    return 1


def _others() -> list[threading.Thread]:
    """The threads that Python would wait for."""
    own = threading.current_thread()
    return [thread for thread in threading.enumerate() if thread is not own and not thread.daemon]


def _threads_left() -> bool:
    """Wait for threads as long as they have; whether one is left."""
    since = monotonic()
    telling = threading.Thread(target=_tell_pools, name="corelet-end", daemon=True)
    telling.start()
    waiting: list[threading.Thread] = [telling]
    said = False
    while waiting:
        left = max(_until, since + LEAST_SECONDS) - monotonic()
        if left <= 0:
            break
        waiting[0].join(min(left, LOOK_SECONDS))
        waiting = [thread for thread in (telling, *_others()) if thread.is_alive()]
        if waiting and not said and monotonic() - since >= LEAST_SECONDS and left > LOOK_SECONDS:
            said = True
            logger.info("waiting for threads of the application: %s", _names(_others()))
    others = _others()
    if others:
        logger.warning("left without waiting any longer for threads of the application: %s", _names(others))
    return bool(others)


def _names(threads: list[threading.Thread]) -> str:
    return ", ".join(thread.name for thread in threads) or "none"


def _tell_pools() -> None:
    """Let pools of threads (concurrent.futures) finish what was given to them and end; it waits for that.

    What threading._shutdown does first. It is not called for it joins all other threads afterwards, without a bound.
    """
    calls: list[Callable[[], None]] = getattr(threading, "_threading_atexits", [])
    while calls:
        calls.pop()()  # last first; taken out, since Python would call them again
