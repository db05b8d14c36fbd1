"""The part of `uwsgi` that has the server do something: reload, stop, write a line, name the process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from corelet.api.server import NotServed, Server, current

logger = logging.getLogger("corelet.application")

LIVE: dict[str, Callable[[], Any]] = {}

COMM_BYTES = 15  # of a name in /proc/PID/comm (proc(5))


def names(server: Server) -> dict[str, Any]:
    """The plain attributes."""
    return {"log": log, "reload": reload, "setprocname": setprocname, "stop": stop}


def log(message: str | bytes, /) -> bool:
    """Write a line to the server's log."""
    text = message.decode("utf-8", "backslashreplace") if isinstance(message, bytes) else message
    logger.info("%s", text)
    return True


def reload() -> bool:
    """Have the master start new workers and retire the old ones, as by SIGHUP."""
    server = current()
    if not server.master_pid:
        raise NotServed("uwsgi.reload() needs a master, which starts the new workers: give --master")
    server.tell("reload", "")
    return True


def stop() -> bool:
    """Have the server stop, with running requests to their end."""
    server = current()
    server.serving()
    server.tell("stop", "")
    return True


def setprocname(name: str | bytes, /) -> None:
    """Name this process for `ps -o comm` and `top`; 15 bytes of the name are to be seen there."""
    data = name.encode() if isinstance(name, str) else name
    with open("/proc/self/comm", "wb") as file:
        file.write(data[:COMM_BYTES])
