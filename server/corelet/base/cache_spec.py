"""What `cache2` and `cache` say: each cache as a frozen value, from uWSGI's list of keys and values.

uWSGI parses `name=a,items=10,…` and ignores what it does not know, so a misspelt key is never noticed; here it is an
error that names the nearest one. It knows nothing of stores: what a cache is kept in is api/cache's business.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from urllib.parse import urlsplit

from corelet.base.errors import ConfigError
from corelet.base.option import FALSE_WORDS, TRUE_WORDS

DEFAULT_BLOCK_BYTES = 65536  # uWSGI's, and the next one
DEFAULT_KEY_BYTES = 2048
DEFAULT_NAME = "default"  # what uWSGI calls the cache of the old option

# How long a call may wait for Redis. It is one or two milliseconds away, and a page without its cache is better than
# one that comes after seconds.
DEFAULT_TIMEOUT_SECONDS = 1.0

REDIS_SCHEMES = ("redis", "rediss", "unix")

# uWSGI's spellings, and the one that each is here.
_SPELLINGS = {
    "max_items": "items", "maxitems": "items", "key_size": "keysize", "hash_size": "hashsize", "lru": "purge_lru",
    "lazy": "lazy_expire", "storesync": "store_sync", "storedelete": "store_delete", "node": "nodes",
    "udp_servers": "udp", "udp_server": "udp", "udpservers": "udp", "udpserver": "udp",
}  # fmt: skip
_NUMBERS = ("items", "blocks", "blocksize", "keysize", "math_initial")
_FLAGS = ("bitmap", "purge_lru", "clear_on_full", "no_expire", "ignore_full")
_TEXTS = ("name", "backend", "timeout")
_WITHOUT_EFFECT = {
    "hash": "the store has its own index",
    "hashsize": "the store has its own index",
    "lastmod": "nothing in the API shows the time of the last change",
    "lazy_expire": "an expired item is never returned, swept or not",
    "sweep_on_full": "a full cache is always swept first",
    "store_sync": "there is no file to be synchronised",
    "store_delete": "there is no file to be deleted",
}
_REFUSED = {
    "store": "this version keeps no cache in a file; it survives reloads, and backend=redis://… survives restarts",
    "nodes": "this version copies no caches between machines; backend=redis://HOST/0 shares one",
    "sync": "this version copies no caches between machines; backend=redis://HOST/0 shares one",
    "udp": "this version copies no caches between machines; backend=redis://HOST/0 shares one",
}
KEYS = (*_NUMBERS, *_FLAGS, *_TEXTS, *_WITHOUT_EFFECT, *_REFUSED)


@dataclass(frozen=True)
class CacheSpec:
    """One cache. `items` 0 stands for no bound, which only Redis may have."""

    name: str
    items: int
    blocks: int
    blocksize: int = DEFAULT_BLOCK_BYTES
    keysize: int = DEFAULT_KEY_BYTES
    bitmap: bool = False  # whether an item may have more than one block
    purge_lru: bool = False
    clear_on_full: bool = False
    no_expire: bool = False
    ignore_full: bool = False
    math_initial: int = 0
    backend: str = ""  # a URL of Redis; empty: the store of this machine
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS

    @property
    def largest_value_bytes(self) -> int:
        """The largest value that one item can have."""
        return self.blocksize * (self.blocks if self.bitmap else 1)

    @property
    def most_bytes(self) -> int:
        """What all values and keys can come to."""
        return self.blocks * self.blocksize + self.items * self.keysize


def parse_cache2(text: str) -> tuple[CacheSpec, tuple[str, ...]]:
    """The cache that a value of `cache2` describes, and notes for the operator. Raises ConfigError."""
    given: dict[str, str] = {}
    notes = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        word, equals, value = part.partition("=")
        key = _SPELLINGS.get(word.strip(), word.strip())
        if key not in KEYS:
            raise ConfigError(f"{word!r} is no key of cache2{_nearest(word)}; they are {', '.join(sorted(KEYS))}")
        if not value.strip():
            if equals or key in ("name", "items"):
                raise ConfigError(f"{key} needs a value: {key}=…; none came")
            notes.append(f"{word} without a value has no effect, as in uWSGI")
        elif key in _REFUSED:
            raise ConfigError(f"{part}: {_REFUSED[key]}")
        elif key in _WITHOUT_EFFECT:
            notes.append(f"{word} has no effect: {_WITHOUT_EFFECT[key]}")
        else:
            given[key] = value.strip()
    return _spec(given), tuple(notes)


def _spec(given: dict[str, str]) -> CacheSpec:
    name = given.get("name")
    if not name:
        raise ConfigError("a cache needs a name: name=NAME,items=N")
    if "@" in name:
        raise ConfigError(f"name={name}: a name with @ would mean a cache of another machine; leave it out")
    numbers = {key: _number(key, given[key]) for key in _NUMBERS if key in given}
    flags = {key: _flag(key, given[key]) for key in _FLAGS if key in given}
    backend = given.get("backend", "")
    if backend:
        _check_backend(backend)
    items = numbers.get("items", 0)
    if not items and not backend:
        raise ConfigError(f"cache {name} needs its greatest number of items: items=N, 1 or more")
    blocks = numbers.get("blocks", items)
    if blocks < items:
        raise ConfigError(f"cache {name}: expected as many blocks as items, or more; got {blocks} for {items} items")
    return CacheSpec(
        name=name,
        items=items,
        blocks=max(blocks, 1),
        blocksize=numbers.get("blocksize", DEFAULT_BLOCK_BYTES),
        keysize=numbers.get("keysize", DEFAULT_KEY_BYTES),
        math_initial=numbers.get("math_initial", 0),
        backend=backend,
        timeout_seconds=_seconds(given["timeout"]) if "timeout" in given else DEFAULT_TIMEOUT_SECONDS,
        **flags,
    )


def caches_of(
    cache2: tuple[str, ...], items: int, blocksize: int, no_expire: bool
) -> tuple[tuple[CacheSpec, ...], tuple[str, ...], tuple[str, ...]]:
    """All caches in their order, the one of the old option first; notes, and problems."""
    specs, notes, problems = [], [], []
    if items:
        old = CacheSpec(name=DEFAULT_NAME, items=items, blocks=items, blocksize=blocksize, no_expire=no_expire)
        specs.append(old)
    for text in cache2:
        try:
            spec, said = parse_cache2(text)
        except ConfigError as error:
            problems.append(f"cache2 {text}: {error}")
            continue
        notes += [f"cache2 {spec.name}: {note}" for note in said]
        if any(other.name == spec.name for other in specs):
            problems.append(f"cache2 {text}: there is a cache {spec.name} already; give it another name")
        specs.append(spec)
    return tuple(specs), tuple(notes), tuple(problems)


def _nearest(word: str) -> str:
    near = difflib.get_close_matches(word, (*KEYS, *_SPELLINGS), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _number(key: str, text: str) -> int:
    is_a_size = key != "math_initial"
    digits = text if is_a_size else text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or (is_a_size and int(text) < 1):
        raise ConfigError(f"{key}: expected a whole number{', 1 or more' if is_a_size else ''}; got {text!r}")
    if abs(int(text)) >= 2**63:
        raise ConfigError(f"{key}: expected a number below 2**63; got {text}")
    return int(text)


def _flag(key: str, text: str) -> bool:
    if text.lower() not in (*TRUE_WORDS, *FALSE_WORDS):
        raise ConfigError(f"{key}: expected 1 or 0; got {text!r}")
    return text.lower() in TRUE_WORDS


def _seconds(text: str) -> float:
    whole, _, fraction = text.partition(".")
    if not (text.isascii() and (whole + fraction).isdecimal() and float(text) > 0):
        raise ConfigError(f"timeout: expected a number of seconds above 0; got {text!r}")
    return float(text)


def _check_backend(url: str) -> None:
    if urlsplit(url).scheme not in REDIS_SCHEMES or "://" not in url:
        raise ConfigError(f"backend: expected redis://HOST:PORT/DB, rediss://… or unix://PATH; got {url!r}")
