"""The part of `uwsgi` that tells what does not depend on a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from corelet.api.server import Server, current

LIVE: dict[str, Callable[[], Any]] = {}


def names(server: Server) -> dict[str, Any]:
    """The plain attributes."""
    return {"worker_id": worker_id, "masterpid": masterpid, "numproc": server.config.processes}


def worker_id() -> int:
    """The number of this worker, from 1."""
    return current().worker_id


def masterpid() -> int:
    """The process id of the master; 0 without one."""
    return current().master_pid
