"""`threading.local` for each core instead of for each thread.

All cores of a worker share one thread. With the standard class two requests that take turns share Django's database
connection, and one request's atomic() holds the other's writes (measured). gevent replaces the class for the same reason.

Values belong to the core's *number*, not to one request: as with a thread pool, a connection kept in a local is there for
the next request on that core. Outside a core (the loop's callbacks, other threads) it is the thread that counts.
Installed before the application is imported; `thread-local = thread` leaves the standard class in place.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from corelet.serving.cores import Core, getcurrent

_thread_local = threading.local  # the standard one
_get = object.__getattribute__


class _Values:
    """Where one `local` object keeps its values: a dict for each core, a real thread-local for the rest."""

    __slots__ = ("__weakref__", "arguments", "cores", "key", "threads")

    def __init__(self, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        self.key = id(self)
        self.arguments = arguments
        self.threads = _thread_local()
        self.cores: weakref.WeakSet[Any] = weakref.WeakSet()


class CoreLocal:
    """Stands in for threading.local: same use, subclassing with __init__ per core included."""

    def __new__(cls, /, *args: Any, **kwargs: Any) -> CoreLocal:
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError("Initialization arguments are not supported")
        self = object.__new__(cls)
        values = _Values((args, kwargs))
        object.__setattr__(self, "_corelet_values", values)
        # The creator's own __init__ runs by the ordinary construction; its dict has to be there before.
        _store(values)[1].update()
        return self

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return _get(self, name)
        own = _own(self)
        if name == "__dict__":
            return own
        try:
            return own[name]
        except KeyError:
            pass
        found = _get(self, name) if name in _DIRECT else _from_class(self, name)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        _own(self)[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del _own(self)[name]
        except KeyError:
            raise AttributeError(name) from None


_DIRECT = frozenset(("_corelet_values",))


def _from_class(self: CoreLocal, name: str) -> Any:
    for kind in type(self).__mro__:
        if name in kind.__dict__:
            return _get(self, name)
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _store(values: _Values) -> tuple[bool, dict[str, Any]]:
    """Return whether the dict of the caller's core, or thread, is new, and the dict."""
    current: Any = getcurrent()
    while current is not None and not isinstance(current, Core):
        current = current.parent
    if current is not None and current.job is not None:
        own = current.local.get(values.key)
        if own is None or own[0]() is not values:
            own = current.local[values.key] = (weakref.ref(values, _forget(current.local, values.key)), {})
            return True, own[1]
        return False, own[1]
    threads = values.threads
    try:
        return False, threads.own
    except AttributeError:
        threads.own = {}
        return True, threads.own


def _forget(local: dict[int, Any], key: int) -> Callable[[Any], None]:
    def forget(reference: Any) -> None:
        entry = local.get(key)
        if entry is not None and entry[0] is reference:
            del local[key]

    return forget


def _own(self: CoreLocal) -> dict[str, Any]:
    values = _get(self, "_corelet_values")
    is_new, own = _store(values)
    if is_new:
        args, kwargs = values.arguments
        type(self).__init__(self, *args, **kwargs)
    return own


def install() -> None:
    """Put it in the place of threading.local, for everything that is imported from now on."""
    threading.local = CoreLocal  # type: ignore[misc,assignment]


def uninstall() -> None:
    """Put the standard class back."""
    threading.local = _thread_local  # type: ignore[misc]
