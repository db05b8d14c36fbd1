"""corelet: a WSGI server for nginx uwsgi_pass, with greenlet cores on one asyncio loop.

What an application imports:

    from corelet import await_, spawn, sleep, to_thread, in_core
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["__version__", "await_", "in_core", "sleep", "spawn", "to_thread"]

if TYPE_CHECKING:
    from corelet.api.bridge import await_, in_core, sleep, spawn, to_thread


def __getattr__(name: str) -> Any:
    """Load the bridge when it is asked for: the lower layers import this package too, and must not pull it in."""
    if name in __all__:
        from corelet.api import bridge  # noqa: PLC0415

        return getattr(bridge, name)
    raise AttributeError(f"module 'corelet' has no attribute {name!r}")
