"""What a store of a cache offers, and what both stores share: the arithmetic of cache_inc and its kin, and complaints.

A store never raises for anything that the machine, the disk or the network can cause: it answers as a miss, or as a
full cache, and says so in the log, once in a while. Keys and values are bytes, and have been measured by the caller.
"""

from __future__ import annotations

import enum
import logging
import time
from typing import Protocol

logger = logging.getLogger("corelet.cache")

NUMBER_BYTES = 8  # uWSGI keeps a number as the int64_t of its machine: little-endian wherever we run
COMPLAINT_SECONDS = 10.0  # the same interval as for refused peers


class Change(enum.Enum):
    """What happens to a number."""

    INC = "inc"
    DEC = "dec"
    MUL = "mul"
    DIV = "div"


class Store(Protocol):
    """One cache. `seconds` until an item expires: 0 means never, below 0 that it has expired already."""

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    def exists(self, key: bytes) -> bool:
        """Whether there is such an item."""

    def put(self, key: bytes, value: bytes, seconds: float, *, replace: bool) -> bool:
        """Store a value; without `replace` only if there is none. False if it was not stored."""

    def change(self, key: bytes, how: Change, number: int, seconds: float) -> bool:
        """Calculate with the number, at once for all workers. `seconds` count for an item that is made by this."""

    def delete(self, key: bytes) -> bool:
        """False if there was nothing."""

    def clear(self) -> bool:
        """Delete everything."""

    def keys(self) -> list[bytes]:
        """All keys, in no order."""


def changed(value: bytes | None, how: Change, number: int, initial: int) -> bytes:
    """The bytes of the new number. As in uWSGI any value is one: its first 8 bytes; 64 bits, and it wraps around."""
    old = initial if value is None else int.from_bytes(value[:NUMBER_BYTES].ljust(NUMBER_BYTES, b"\0"), "little")
    if value is not None and old >= 2**63:
        old -= 2**64
    if how is Change.INC:
        new = old + number
    elif how is Change.DEC:
        new = old - number
    elif how is Change.MUL:
        new = old * number
    else:
        new = _divided(old, number)
    return (new % 2**64).to_bytes(NUMBER_BYTES, "little")


def _divided(old: int, number: int) -> int:
    """As C does: towards zero; and by zero gives zero, as uWSGI has it."""
    if number == 0:
        return 0
    quotient = abs(old) // abs(number)
    return quotient if (old < 0) == (number < 0) else -quotient


def number_of(value: bytes | None) -> int:
    """What cache_num says: 0 for what is no number of ours."""
    if value is None or len(value) != NUMBER_BYTES:
        return 0
    return int.from_bytes(value, "little", signed=True)


class Complaints:
    """One line for each kind of trouble in ten seconds, however many calls meet it."""

    def __init__(self, cache: str) -> None:
        self._cache = cache
        self._next: dict[str, float] = {}

    def about(self, kind: str, text: str, *words: object) -> None:
        """Say it, unless something of this kind has been said a moment ago."""
        now = time.monotonic()
        if now < self._next.get(kind, 0.0):
            return
        self._next[kind] = now + COMPLAINT_SECONDS
        logger.warning("cache %s: " + text, self._cache, *words)

    def over(self, kind: str, text: str) -> None:
        """The trouble has passed: say so, if it had been spoken of."""
        if self._next.pop(kind, None) is not None:
            logger.info("cache %s: %s", self._cache, text)
