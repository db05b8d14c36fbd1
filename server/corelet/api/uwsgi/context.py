"""Which request a call of the `uwsgi` module is about: the one of the core that calls, or the one that it names.

uWSGI has one request that is current for the whole process; here each core has its own. A call from a loop callback or
from a child greenlet has none, so it is an error that says so, unless it is given the value of `request_context()`.
"""

from __future__ import annotations

from typing import Any

from corelet.base.errors import NotInCore
from corelet.serving.cores import Core, current_core


class RequestContext:
    """One request, for callbacks that act for it. Opaque: there is nothing in it for an application to read."""

    __slots__ = ("_core", "_serial")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._serial = core.serial

    def core(self, what: str) -> Core:
        """The core, while the request runs. Raises NotInCore afterwards."""
        core = self._core
        if core.serial != self._serial or core.current is None:
            raise NotInCore(f"uwsgi.{what}() was given the request_context of a request that has ended")
        return core


def request_context() -> RequestContext:
    """The request of the caller, to be given on: `request_context=` of the functions that act for a request."""
    return RequestContext(core_of("request_context"))


def core_of(what: str, context: RequestContext | None = None) -> Core:
    """The core whose request a call is about. Raises NotInCore where there is none."""
    if context is not None:
        if not isinstance(context, RequestContext):
            raise TypeError(f"request_context is to be what uwsgi.request_context() gave, {context!a} came")
        return context.core(what)
    core = current_core()
    if core is not None and core.current is not None:
        if core.is_current():
            return core
        raise NotInCore(
            f"uwsgi.{what}() was called in a child greenlet: call it in the view's own greenlet, or take"
            " uwsgi.request_context() there and give it as request_context="
        )
    raise NotInCore(
        f"uwsgi.{what}() acts for a request, and none is here: call it from a view; a callback of the loop takes"
        " request_context=, which uwsgi.request_context() makes in the view"
    )


def connection_of(core: Core) -> Any:
    """The connection of the request that runs on this core."""
    return core.job
