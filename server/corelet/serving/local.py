"""`threading.local` for each core instead of for each thread.

All cores of a worker share one thread. With the standard class two requests that take turns share Django's database
connection, and one request's atomic() holds the other's writes (measured). gevent replaces the class for the same
reason.

Values belong to the core's *number*, not to one request: as with a thread pool, a connection kept in a local is there
for the next request on that core. Outside a core (the loop's callbacks, other threads) it is the thread that counts. It
is installed before the application is imported; `thread-local = thread` leaves the standard class in place.

How it works is the standard library's own pure-Python version (Lib/_threading_local.py): under a lock, the object's
`__dict__` is exchanged for that of the caller, and then the attribute is looked up in the ordinary way, so that
properties, methods and slots of subclasses behave.
"""

from __future__ import annotations

import threading
from typing import Any

from corelet.serving.cores import current_core

_thread_local = threading.local  # the standard one
_get = object.__getattribute__
_set = object.__setattr__


class _Values:
    """Where one local object keeps the dicts of its users, and what its __init__ is to be called with."""

    __slots__ = ("arguments", "cores", "lock", "threads")

    def __init__(self, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        self.arguments = arguments
        self.lock = threading.RLock()
        self.cores: dict[Any, dict[str, Any]] = {}
        self.threads = _thread_local()

    def own(self) -> tuple[dict[str, Any], bool]:
        """Return the caller's dict, and whether it is new."""
        core = current_core()
        users: dict[Any, dict[str, Any]] = self.threads.__dict__ if core is None else self.cores
        user = "thread" if core is None else core.number
        found = users.get(user)
        if found is not None:
            return found, False
        made = users[user] = {}
        return made, True


class CoreLocal:
    """Stands in for threading.local: same use, subclasses whose __init__ runs for each user included."""

    __slots__ = ("__dict__", "__weakref__", "_corelet_values")

    def __new__(cls, /, *args: Any, **kwargs: Any) -> CoreLocal:
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError("Initialization arguments are not supported")
        self = object.__new__(cls)
        values = _Values((args, kwargs))
        _set(self, "_corelet_values", values)
        values.own()  # the creator's __init__ runs by the ordinary construction, and not again
        return self

    def __getattribute__(self, name: str) -> Any:
        with _get(self, "_corelet_values").lock:
            _exchange(self)
            return _get(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        with _get(self, "_corelet_values").lock:
            _exchange(self)
            _set(self, name, value)

    def __delattr__(self, name: str) -> None:
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        with _get(self, "_corelet_values").lock:
            _exchange(self)
            object.__delattr__(self, name)


def _exchange(self: CoreLocal) -> None:
    values = _get(self, "_corelet_values")
    own, is_new = values.own()
    _set(self, "__dict__", own)
    if is_new:
        args, kwargs = values.arguments
        type(self).__init__(self, *args, **kwargs)
        _set(self, "__dict__", own)  # the __init__ may have waited, and another core have been here meanwhile


def install() -> None:
    """Put it in the place of threading.local, for everything that is imported from now on."""
    threading.local = CoreLocal  # type: ignore[assignment]


def uninstall() -> None:
    """Put the standard class back."""
    threading.local = _thread_local
