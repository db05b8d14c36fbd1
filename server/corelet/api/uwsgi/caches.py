"""The part of `uwsgi` for caches: cache_get() and its kin, with uWSGI's answers.

They are there with or without a cache, as in uWSGI, and without one answer as it does: None, 0, and ValueError from
cache_keys; the log says once which option is missing. The last argument names the cache, the first one by default.
`name@address` would be a cache of another server, which is refused.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from typing import Any

from corelet.api.cache.embedded import Embedded
from corelet.api.cache.redis import Redis
from corelet.api.cache.store import Change, Store, number_of
from corelet.api.server import Server
from corelet.base.cache_spec import CacheSpec

logger = logging.getLogger("corelet.cache")

LIVE: dict[str, Callable[[], Any]] = {}

Text = str | bytes


def names(server: Server) -> dict[str, Any]:
    """The functions. From now on they use the caches of this process."""
    _caches.be(server)
    return {
        function.__name__: function
        for function in (
            cache_get, cache_set, cache_update, cache_del, cache_exists, cache_clear,
            cache_inc, cache_dec, cache_mul, cache_div, cache_num, cache_keys,
        )
    }  # fmt: skip


MAX_TOLD = 100  # names may be made up without end


class _Caches:
    """The caches of this process, by name. Making one opens nothing."""

    def __init__(self) -> None:
        self._stores: dict[str, tuple[CacheSpec, Store]] = {}
        self._told: set[str] = set()

    def be(self, server: Server) -> None:
        self._stores = {}
        for spec in server.config.caches:
            self._stores[spec.name] = (spec, _store_of(spec, server))
        if self._stores:
            self._stores[""] = next(iter(self._stores.values()))

    def find(self, name: str) -> tuple[CacheSpec, Store] | None:
        """The cache of this name; None, and once a line of the log, if there is none."""
        found = self._stores.get(name)
        if found is not None:
            return found
        if not isinstance(name, str):
            raise TypeError(f"the name of a cache must be str, not {type(name).__name__}")
        if "\0" in name:
            raise ValueError("embedded null character")
        if "@" in name:
            raise ValueError(
                f"{name!r} would be a cache of another server, which corelet does not ask; share one with "
                "cache2 = name=…,backend=redis://HOST/0"
            )
        if name not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(name)
            logger.warning("an application uses %s", self.missing(name))
        return None

    def missing(self, name: str) -> str:
        """What is missing, and what to do."""
        there = ", ".join(filter(None, self._stores))
        if there:
            return f"a cache {name!r}, and there are only: {there}; add cache2 = name={name},items=N"
        return f"a cache, and none is configured; add cache2 = name={name or 'default'},items=N"


def _store_of(spec: CacheSpec, server: Server) -> Store:
    if spec.backend:
        return Redis(spec)
    store = Embedded(spec, server.cache_folder, server.config.cache_expire_freq)
    if server.worker_id:  # opening it takes some milliseconds: before there are requests
        store.open()
    return store


_caches = _Caches()


def cache_get(key: Text, cache: str = "", /) -> bytes | None:
    """The value of an item, or None."""
    key = _bytes(key)
    found = _caches.find(cache)
    return None if found is None or not _is_key(key, found[0]) else found[1].get(key)


def cache_exists(key: Text, cache: str = "", /) -> bool | None:
    """True if there is such an item, else None."""
    key = _bytes(key)
    found = _caches.find(cache)
    return (found is not None and _is_key(key, found[0]) and found[1].exists(key)) or None


def cache_set(key: Text, value: Text, expires: float = 0, cache: str = "", /) -> bool | None:
    """Store a value if there is none yet: True, else None. It expires after so many seconds; 0 is never."""
    return _put(key, value, expires, cache, replace=False)


def cache_update(key: Text, value: Text, expires: float = 0, cache: str = "", /) -> bool | None:
    """Store a value, whether there is one or not: True; None if it is too large or the cache full."""
    return _put(key, value, expires, cache, replace=True)


def cache_del(key: Text, cache: str = "", /) -> bool | None:
    """Delete an item: True; None if there was none."""
    key = _bytes(key)
    found = _caches.find(cache)
    return (found is not None and _is_key(key, found[0]) and found[1].delete(key)) or None


def cache_clear(cache: str = "", /) -> bool | None:
    """Delete all items: True; None if there is no such cache."""
    found = _caches.find(cache)
    return (found is not None and found[1].clear()) or None


def cache_inc(key: Text, number: int = 1, expires: float = 0, cache: str = "", /) -> bool | None:
    """Add to the number of an item, from 0 if there is none: True, else None. At once for all workers."""
    return _change(key, Change.INC, number, expires, cache)


def cache_dec(key: Text, number: int = 1, expires: float = 0, cache: str = "", /) -> bool | None:
    """Take from the number of an item."""
    return _change(key, Change.DEC, number, expires, cache)


def cache_mul(key: Text, number: int = 2, expires: float = 0, cache: str = "", /) -> bool | None:
    """Multiply the number of an item."""
    return _change(key, Change.MUL, number, expires, cache)


def cache_div(key: Text, number: int = 2, expires: float = 0, cache: str = "", /) -> bool | None:
    """Divide the number of an item, towards zero; by zero gives zero."""
    return _change(key, Change.DIV, number, expires, cache)


def cache_num(key: Text, cache: str = "", /) -> int:
    """The number that cache_inc and its kin have made of an item; 0 for anything else."""
    return number_of(cache_get(key, cache))


def cache_keys(cache: str = "", /) -> list[bytes]:
    """All keys. Raises ValueError if there is no such cache."""
    found = _caches.find(cache)
    if found is None:
        raise ValueError(f"no local cache available: this asks for {_caches.missing(cache)}")
    return found[1].keys()


def _put(key: Text, value: Text, expires: float, cache: str, *, replace: bool) -> bool | None:
    key, value, seconds = _bytes(key), _bytes(value), _seconds(expires)
    found = _caches.find(cache)
    if found is None or not value or not _is_key(key, found[0]) or len(value) > found[0].largest_value_bytes:
        return None
    return found[1].put(key, value, seconds, replace=replace) or None


def _change(key: Text, how: Change, number: int, expires: float, cache: str) -> bool | None:
    key, number, seconds = _bytes(key), _long(number), _seconds(expires)
    found = _caches.find(cache)
    if found is None or not _is_key(key, found[0]):
        return None
    return found[1].change(key, how, number, seconds) or None


def _is_key(key: bytes, spec: CacheSpec) -> bool:
    return 0 < len(key) <= spec.keysize


def _bytes(text: Any) -> bytes:
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode()
    if isinstance(text, (bytearray, memoryview)):
        return bytes(text)
    raise TypeError(f"a bytes-like object is required, not {type(text).__name__!r}")


def _long(number: int) -> int:
    number = operator.index(number)
    if not -(2**63) <= number < 2**63:
        raise OverflowError("Python int too large to convert to C long")
    return number


def _seconds(expires: float) -> float:
    return expires if isinstance(expires, float) else _long(expires)
