"""The store of several machines: a Redis. An item is a key `corelet:NAME:KEY`, its expiry is Redis's own.

In a core it is asked by redis.asyncio and the core waits; elsewhere (while the application is imported, in a thread, in
a callback) by the synchronous client, which blocks its thread for the time-out at most. If Redis is gone, calls answer
as a miss; after a failure it is left alone for a second, so that not every request waits for the time-out.

How many items there are is Redis's business (maxmemory, maxmemory-policy): nothing here counts them.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from corelet.api import bridge
from corelet.api.cache.store import NUMBER_BYTES, Change, Complaints, changed
from corelet.base.cache_spec import CacheSpec
from corelet.base.errors import OperatorError
from corelet.serving.cores import current_core

RETRY_SECONDS = 1.0
MAX_CONNECTIONS = 8  # of one worker: Redis answers one after the other, so more only wait elsewhere
KEYS_AT_A_TIME = 1000

# 64 bits exactly and wrapping around, which a number of Lua is not: BITFIELD calculates, on bytes in network order.
ADD = """
local value = redis.call('GET', KEYS[1])
local made = not value
if made then value = ARGV[3] end
value = string.sub(value .. string.rep('\\0', 8), 1, 8)
local left = redis.call('PTTL', KEYS[1])
redis.call('SET', KEYS[1], string.reverse(value))
redis.call('BITFIELD', KEYS[1], 'OVERFLOW', 'WRAP', 'INCRBY', 'i64', '0', ARGV[1])
value = string.reverse(redis.call('GET', KEYS[1]))
if made then left = tonumber(ARGV[2]) end
if left > 0 then redis.call('SET', KEYS[1], value, 'PX', left) else redis.call('SET', KEYS[1], value) end
return 1
"""

# Multiplication and division are calculated here; the result is taken if nobody was faster.
EXCHANGE = """
local value = redis.call('GET', KEYS[1])
if (value or '') ~= ARGV[1] then return 0 end
local left = redis.call('PTTL', KEYS[1])
if not value then left = tonumber(ARGV[3]) end
if left > 0 then redis.call('SET', KEYS[1], ARGV[2], 'PX', left) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1
"""


def require_redis(specs: Iterable[CacheSpec]) -> None:
    """Raises OperatorError if a cache wants Redis and its client is not installed."""
    wanting = next((spec.name for spec in specs if spec.backend), None)
    if wanting is not None and importlib.util.find_spec("redis") is None:
        raise OperatorError(f"cache {wanting} needs the package redis: pip install 'corelet[redis]'")


class Redis:
    """A Store in a Redis. Needs the package redis (corelet[redis]); `require_redis` tells."""

    def __init__(self, spec: CacheSpec) -> None:
        self.spec = spec
        self._library = _library()
        self.complaints = Complaints(spec.name)
        self._prefix = b"corelet:%s:" % spec.name.encode()
        self._of_loop: Any = None
        self._of_threads: Any = None
        self._pid = 0
        self._retry_at = 0.0
        self._answered_at = 0.0

    # -- the interface --------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        value: bytes | None = self._ask(None, "GET", self._prefix + key)
        return value

    def exists(self, key: bytes) -> bool:
        """Whether there is such an item."""
        return bool(self._ask(0, "EXISTS", self._prefix + key))

    def put(self, key: bytes, value: bytes, seconds: float, *, replace: bool) -> bool:
        """Store a value; False if it was not stored."""
        if seconds < 0 and not self.spec.no_expire:  # it has expired already
            return self._ask(None, "DEL", self._prefix + key) is not None if replace else not self.exists(key)
        milliseconds = self._milliseconds(seconds)
        words: list[Any] = ["SET", self._prefix + key, value]
        words += ["PX", milliseconds] if milliseconds else []
        words += [] if replace else ["NX"]
        return bool(self._ask(None, *words))

    def change(self, key: bytes, how: Change, number: int, seconds: float) -> bool:
        """Calculate with the number."""
        if self.spec.largest_value_bytes < NUMBER_BYTES:
            return False
        name = self._prefix + key
        milliseconds = self._milliseconds(seconds)
        if how in (Change.INC, Change.DEC):
            step = number if how is Change.INC else -number
            step -= 2**64 if step >= 2**63 else 0
            initial = (self.spec.math_initial % 2**64).to_bytes(NUMBER_BYTES, "little")
            return bool(self._ask(0, "EVAL", ADD, 1, name, step, milliseconds, initial))
        until = time.monotonic() + self.spec.timeout_seconds
        while time.monotonic() < until:
            if time.monotonic() < self._retry_at:
                return False
            old = self.get(key)
            value = changed(old, how, number, self.spec.math_initial)
            if self._ask(0, "EVAL", EXCHANGE, 1, name, old or b"", value, milliseconds):
                return True
        return False

    def delete(self, key: bytes) -> bool:
        """False if there was nothing."""
        return bool(self._ask(0, "DEL", self._prefix + key))

    def clear(self) -> bool:
        """Delete everything, some keys at a time."""
        return self._each(lambda names: self._ask(None, "UNLINK", *names) is not None)

    def keys(self) -> list[bytes]:
        """All keys."""
        found: set[bytes] = set()  # SCAN may give one twice

        def take(names: list[bytes]) -> bool:
            found.update(name[len(self._prefix) :] for name in names)
            return True

        self._each(take)
        return list(found)

    def _each(self, work: Callable[[list[bytes]], bool]) -> bool:
        """Do it with all names there are, in parts. False as soon as Redis does not answer."""
        pattern = self._prefix
        for character in (b"\\", b"*", b"?", b"[", b"]"):
            pattern = pattern.replace(character, b"\\" + character)
        cursor: Any = 0
        while True:
            part = self._ask(None, "SCAN", cursor, "MATCH", pattern + b"*", "COUNT", KEYS_AT_A_TIME)
            if part is None:
                return False
            cursor, names = part
            if names and not work(list(names)):
                return False
            if int(cursor) == 0:
                return True

    def _milliseconds(self, seconds: float) -> int:
        """0: never. The greatest number that Redis takes is far less than 2**63."""
        if seconds <= 0 or self.spec.no_expire:
            return 0
        return max(1, int(min(seconds, 10**10) * 1000))

    # -- getting there --------------------------------------------------------------------------------------------

    def _ask(self, otherwise: Any, *words: Any) -> Any:
        """Redis's answer, or `otherwise`."""
        if time.monotonic() < self._retry_at:
            return otherwise
        core = current_core()
        try:
            if core is not None and core.is_current():
                client = self._client_of_loop()
                answer = bridge.await_(_within(client, words), timeout=self.spec.timeout_seconds)
            else:
                answer = self._client_of_threads().execute_command(*words)
        except (OSError, self._library.RedisError) as error:  # TimeoutError is an OSError
            if isinstance(error, self._library.ResponseError):  # its memory is full, or it is a replica
                self.complaints.about("refused", "%s refuses: %s; nothing is stored", self._where(), error)
                return otherwise
            now = time.monotonic()
            if now > self._answered_at + self.spec.timeout_seconds:  # not just slow: others have no answer either
                self._retry_at = now + RETRY_SECONDS
            self.complaints.about(
                "gone", "%s does not answer (%s); calls answer as for an empty cache",
                self._where(), str(error) or type(error).__name__,
            )  # fmt: skip
            return otherwise
        self._answered_at = time.monotonic()
        self.complaints.over("gone", "Redis answers again")
        return answer

    def _where(self) -> str:
        """The address without a password."""
        parts = urlsplit(self.spec.backend)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def _client_of_loop(self) -> Any:
        if self._pid != os.getpid():
            self._of_loop, self._pid = None, os.getpid()
        if self._of_loop is None:
            redis = self._library.asyncio
            pool = redis.BlockingConnectionPool.from_url(
                self.spec.backend, max_connections=MAX_CONNECTIONS, timeout=self.spec.timeout_seconds,
                **self._how_patient(redis.retry.Retry),
            )  # fmt: skip
            self._of_loop = redis.Redis(connection_pool=pool)
        return self._of_loop

    def _client_of_threads(self) -> Any:
        if self._of_threads is None:  # its pool notices a fork by itself
            options = self._how_patient(self._library.retry.Retry)
            self._of_threads = self._library.Redis.from_url(self.spec.backend, **options)
        return self._of_threads

    def _how_patient(self, retry: Any) -> dict[str, Any]:
        """Never asked twice: an increment might count twice. A connection that was closed is noticed before it."""
        options: dict[str, Any] = {
            "socket_timeout": self.spec.timeout_seconds,
            "retry": retry(self._library.backoff.NoBackoff(), 0),
        }
        if not self.spec.backend.startswith("unix:"):
            options["socket_connect_timeout"] = self.spec.timeout_seconds
        return options


def _library() -> Any:
    """The package; not before a cache wants it: it is an extra, and takes 100 ms."""
    import redis.asyncio.retry  # noqa: PLC0415
    import redis.backoff  # noqa: PLC0415
    import redis.retry  # noqa: PLC0415

    return redis


async def _within(client: Any, words: tuple[Any, ...]) -> Any:
    answer: Awaitable[Any] = client.execute_command(*words)
    return await answer
