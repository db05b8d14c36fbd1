"""`corelet.current_request()`: which request the caller runs for, as a small frozen value."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from corelet.api.server import known
from corelet.base.errors import NotInCore
from corelet.serving.cores import current_core


@dataclass(frozen=True, slots=True)
class CurrentRequest:
    """One request. It may be kept for as long as one likes; after the request's end its client counts as gone."""

    environ: dict[str, Any]
    core: int  # the number of the core, from 0
    worker: int  # the number of the worker, from 1
    method: str
    path: str  # PATH_INFO, decoded as PEP 3333 says: bytes as latin-1
    began: float  # time.monotonic() at its begin
    _connection: Any
    _serial: int  # of the request on its core; the core itself is not held, or it could not go back to the pool

    @property
    def seconds(self) -> float:
        """How long ago it began."""
        return time.monotonic() - self.began

    @property
    def client_is_there(self) -> bool:
        """Whether the client is still connected; asked of the kernel, 2 µs. False when the request is over."""
        core = self._connection.core
        return core is not None and core.serial == self._serial and bool(self._connection.is_there())


def current_request() -> CurrentRequest:
    """The request that the caller runs for; in a child greenlet of a view too. Raises NotInCore outside a request."""
    core = current_core()
    if core is None or core.current is None:
        raise NotInCore(
            "corelet.current_request() was called outside a request: call it in a view, or in what a view calls;"
            " a coroutine or a thread is to be given the request by the view"
        )
    server = known()
    environ = core.current
    return CurrentRequest(
        environ,
        core.number,
        1 if server is None else server.worker_id,
        environ["REQUEST_METHOD"],
        environ["PATH_INFO"],
        core.began,
        core.job,
        core.serial,
    )
