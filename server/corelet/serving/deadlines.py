"""Deadlines of connections without a timer each.

One queue for each kind of timeout: as every entry of a queue waits equally long, the order of arrival is the order of
expiry, and one periodic sweep looks only at the front. A connection stands in at most one queue. Time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Entry = TypeVar("Entry")

SWEEP_SECONDS = 0.5


class DeadlineQueue(Generic[Entry]):
    """Entries that each wait `seconds`, oldest first; 0 seconds means that nothing here ever expires."""

    def __init__(self, seconds: float, expire: Callable[[Entry], None], arm: Callable[[], None]) -> None:
        self.seconds = seconds
        self.expire = expire
        self._arm = arm  # called when the queue is no longer empty: somebody has to call `sweep` from now on
        self._entries: dict[Entry, float] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry, now: float) -> None:
        """Start, or start anew."""
        entries = self._entries
        entries.pop(entry, None)  # a dict keeps the place of a key that it knows: take it out, to go to the end
        if not entries:
            self._arm()
        entries[entry] = now

    def discard(self, entry: Entry) -> None:
        """It is no longer waited for."""
        self._entries.pop(entry, None)

    def sweep(self, now: float) -> None:
        """Expire what is due."""
        if not self.seconds:
            return
        due = now - self.seconds
        while self._entries:
            entry, since = next(iter(self._entries.items()))
            if since > due:
                return
            del self._entries[entry]
            self.expire(entry)

    def entries(self) -> list[Entry]:
        """All that wait here."""
        return list(self._entries)
