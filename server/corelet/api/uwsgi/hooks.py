"""Functions that an application assigns in `uwsgi`: post_fork_hook, after_req_hook, atexit. The worker calls them here.

They are absent until they are assigned, as in uWSGI: some applications chain the one that was there. Each is called
without arguments. What it raises is logged, and nothing else happens.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from corelet.base import forks
from corelet.base.errors import Unwind

logger = logging.getLogger("corelet.uwsgi")

after_fork: list[Callable[[], object]] = []  # what @postfork of uwsgidecorators has added


def post_fork() -> None:
    """In a worker, when its application is there and nothing is served yet."""
    for function in (*after_fork, assigned("post_fork_hook")):
        call(function, "uwsgi.post_fork_hook")


def at_exit() -> None:
    """In a worker that ends in order, after its last request."""
    call(assigned("atexit"), "uwsgi.atexit")


def after_request() -> Callable[[], None] | None:
    """What a worker is to call after each request, or None."""
    function = assigned("after_req_hook")
    return None if function is None else lambda: call(function, "uwsgi.after_req_hook")


def assigned(name: str) -> Any:
    """What the application has assigned, or None."""
    return vars(sys.modules["uwsgi"]).get(name)


def call(function: Any, name: str) -> None:
    """Call one of them, if there is one. Never raises."""
    if function is None:
        return
    try:
        function()
    except SystemExit as error:
        if forks.is_fork():  # it has forked, and this is the child
            forks.leave(error)
        logger.error("%s: sys.exit(%s) ends nothing here; use uwsgi.stop() or a signal", name, error.code)
    except Unwind as error:  # it waited after its request
        logger.warning("%s was unwound: %s", name, error)
    except Exception as error:  # the border around the application's hook
        if forks.is_fork():
            forks.leave(error)
        logger.exception("%s failed", name)
