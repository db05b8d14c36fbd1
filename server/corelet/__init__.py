"""corelet: a WSGI server for nginx uwsgi_pass, with greenlet cores on one asyncio loop.

What an application imports:

    from corelet import await_, spawn, gather, sleep, timeout, to_thread, in_core, current_request
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "await_",
    "current_request",
    "gather",
    "in_core",
    "sleep",
    "spawn",
    "timeout",
    "to_thread",
]

if TYPE_CHECKING:
    from corelet.api.bridge import await_, gather, in_core, sleep, to_thread
    from corelet.api.requests import current_request
    from corelet.api.spawned import spawn
    from corelet.api.timeouts import timeout

_MODULES = {
    "await_": "bridge",
    "current_request": "requests",
    "gather": "bridge",
    "in_core": "bridge",
    "sleep": "bridge",
    "spawn": "spawned",
    "timeout": "timeouts",
    "to_thread": "bridge",
}


def __getattr__(name: str) -> Any:
    """Load the bridge when it is asked for: the lower layers import this package too, and must not pull it in."""
    if name in _MODULES:
        found = globals()[name] = getattr(importlib.import_module(f"corelet.api.{_MODULES[name]}"), name)
        return found
    raise AttributeError(f"module 'corelet' has no attribute {name!r}")
