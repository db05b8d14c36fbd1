"""uWSGI's Python module `uwsgi`, for applications that import it. There in a worker only; names we lack stay absent.

    facts       what does not depend on a request: worker_id(), version, opt, workers() …
    signals     register_signal(), add_timer() …
    websocket   websocket_handshake(), websocket_recv() …
    caches      cache_get(), cache_set() …
    orders      to the server: reload(), stop(), log() …
    request     what acts for the caller's request: connection_fd(), env, set_logvar() …
    waits       wait_fd_read(), async_sleep(), suspend() …
    sockets     async_connect(), send(), recv() …
    locks       lock(), unlock(), is_locked()

Each part is a module with two tables: NAMES, plain attributes, and LIVE, functions whose result is the attribute's
value at the moment it is asked for (`uwsgi.env`). A part without a function that an option switches off leaves it out
in `names(server)`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from corelet.api import uwsgidecorators
from corelet.api.server import Server
from corelet.api.uwsgi import caches, facts, locks, orders, request, signals, sockets, waits, websocket
from corelet.serving.worker import Worker

PARTS: tuple[Any, ...] = (facts, orders, request, waits, sockets, locks, signals, websocket, caches)


class UwsgiModule(types.ModuleType):
    """The module object. What an application assigns (`uwsgi.atexit = …`) is kept as on any module."""

    def __init__(self, live: dict[str, Callable[[], Any]]) -> None:
        super().__init__("uwsgi", "uWSGI's API, as corelet has it; see docs/uwsgi-api.md")
        self.__live__ = live
        self.__given__: dict[str, Any] = {}  # by the server; what the application assigns in its place is kept

    def __getattr__(self, name: str) -> Any:
        live = self.__dict__.get("__live__", {})
        if name in live:
            return live[name]()
        raise AttributeError(f"module 'uwsgi' has no attribute {name!r}: corelet has no such part of uWSGI's API")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__live__} - {"__live__", "__given__"})


def serve(worker: Worker) -> None:
    """The worker of this process is made: a part that has something to do with it, has a function of this name."""
    for part in PARTS:
        if hasattr(part, "serve"):
            part.serve(worker)


def install(server: Server) -> UwsgiModule:
    """Make the module for this process and put it where `import uwsgi` looks. One that is there already stays itself.

    A worker that is forked from a master that preloads finds the module that the application has imported.
    """
    live: dict[str, Callable[[], Any]] = {}
    names: dict[str, Any] = {}
    for part in PARTS:
        live |= part.LIVE
        names |= part.names(server)
    module = sys.modules.get("uwsgi")
    if not isinstance(module, UwsgiModule):
        module = sys.modules["uwsgi"] = UwsgiModule(live)
    before = module.__given__
    for name, value in names.items():
        if name not in before or module.__dict__.get(name) is before[name]:
            setattr(module, name, value)
    module.__given__ = names
    sys.modules["uwsgidecorators"] = uwsgidecorators
    return module
