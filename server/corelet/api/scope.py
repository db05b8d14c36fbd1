"""What the API keeps for one request: made when it is first needed, ended with the request, before its connection is.

Most requests never make one, so it costs the way of a request a look at one slot (serving/exchange.py). Each part of
the API keeps its own value in `parts`, under its own key, and adds to `at_end` what has to be undone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from corelet.serving.cores import Core

logger = logging.getLogger("corelet.api")


class Scope:
    """One request's share of the API."""

    __slots__ = ("access_log", "at_end", "parts")

    def __init__(self) -> None:
        self.access_log: Any = None  # where this request's line goes although the log is off
        self.at_end: list[Callable[[], object]] = []
        self.parts: dict[str, Any] = {}

    def end(self) -> None:
        """The request is over: run what was left for this, last first. In the core; nothing here may wait."""
        while self.at_end:
            callback = self.at_end.pop()
            try:
                callback()
            except Exception:  # the border around what parts of the API and applications leave behind
                logger.exception("what was left for the end of a request failed")


def scope_of(core: Core) -> Scope:
    """The scope of the request that runs on this core."""
    scope: Scope | None = core.scope
    if scope is None:
        scope = core.scope = Scope()
    return scope
