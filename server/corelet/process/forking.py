"""Making a child process that is a copy of this one. The only caller of os.fork.

The child leaves by `os._exit`: it must never return into the frames it was forked from, whose `finally` blocks belong
to the parent (they remove the parent's sockets and pid file). What a Python program expects at its end is done before
(base/leaving.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable

from corelet.base import forks, leaving
from corelet.process import signals

logger = logging.getLogger("corelet.process")

CRASHED = 70  # EX_SOFTWARE (sysexits.h): the code of a child in which the server itself failed


def fork(run: Callable[[], int]) -> int:
    """Start a child that does `run` and exits with the code it returns. Returns the child's process id.

    Signals for the parent that come during the fork are the parent's; the child begins with the default actions.
    Raises OSError when the system has no process left.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # what stays in a buffer would be written twice
            stream.flush()
    with signals.held_back():
        with forks.our_own():
            pid = os.fork()
        if pid:
            return pid
        signals.back_to_default()
    _run_and_leave(run)
    return 0  # never: the child has left


def _run_and_leave(run: Callable[[], int]) -> None:
    code = CRASHED
    try:
        code = run()
    except SystemExit as error:
        code = leaving.code_of(error) if forks.is_fork() else error.code if isinstance(error.code, int) else CRASHED
    except BaseException as error:
        if forks.is_fork():  # a child of the child, made by the application: it came here through a callback
            forks.leave(error)
        with contextlib.suppress(Exception):
            logger.critical("the server itself failed in process %d", os.getpid(), exc_info=True)
    finally:
        leaving.leave(code)
