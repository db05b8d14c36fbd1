"""The options about caches: one declaration each, with the reason of its default.

Part of the option table (config.py joins the parts, option.py says what a declaration is). What stands in a value of
cache2 is read by cache_spec.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from corelet.base.cache_spec import DEFAULT_BLOCK_BYTES, CacheSpec, caches_of
from corelet.base.option import Kind, option


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Caches."""

    cache2: tuple[str, ...] = option(
        kind=Kind.LIST,
        metavar="name=NAME,items=N,…",
        help="a cache for uwsgi.cache_get and its kin, shared by all workers; docs/cache.md has the keys",
    )

    cache: int = option(
        kind=Kind.INTEGER, default=0, metavar="ITEMS", help="uWSGI's older form: a cache `default` of so many items"
    )

    # uWSGI's default, here and in cache2: one value of 64 KB.
    cache_blocksize: int = option(
        kind=Kind.INTEGER,
        default=DEFAULT_BLOCK_BYTES,
        minimum=1,
        metavar="BYTES",
        help="largest value in the cache of `cache`",
    )

    # uWSGI's too. What is expired is never returned; this only says when its room is looked for.
    cache_expire_freq: float = option(
        kind=Kind.SECONDS, default=3.0, help="how often who writes to a cache removes what has expired in it"
    )

    cache_no_expire: bool = option(kind=Kind.FLAG, help="items in the cache of `cache` never expire")

    cache_report_freed_items: bool = option(
        kind=Kind.FLAG,
        help="say how many expired items were removed",
        accepted="removing them is part of writing",
    )

    cache_use_last_modified: bool = option(
        kind=Kind.FLAG,
        help="keep the time of an item's last change",
        accepted="nothing in the API shows it",
    )

    cache_store: str | None = option(
        kind=Kind.TEXT, metavar="FILE", help="not supported; refused with what to use instead"
    )

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        """The caches, in their order; those that cannot be understood are left out (`resolve` has complained)."""
        return caches_of(self.cache2, self.cache, self.cache_blocksize, self.cache_no_expire)[0]
