"""uWSGI's signals in a process without a master: the same agenda (agenda.py), beside the loop of the one worker.

What the API would tell a master comes here instead. One timer of the loop stands for the earliest timer of the agenda;
crons and monitors are looked at every half second while there are any. So a process without them is never woken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

from corelet.api import handlers
from corelet.api.registry import entries_of, registry
from corelet.process.agenda import NEVER, Agenda
from corelet.serving.worker import Worker

LOOK_SECONDS = 0.5


class Ringing:
    """The agenda of one loop. `tell` takes the words that a master would."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.agenda = Agenda()
        self.worker: Worker | None = None
        self.on_stop: Callable[[], None] | None = None  # the application wants the process to end
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None

    def begin(self, worker: Worker) -> None:
        """The application is loaded: what it has registered counts from now on."""
        self.worker = worker
        for text in registry.texts():
            self._register(text, again=False)

    def tell(self, word: str, text: str) -> bool:
        """From the API, in any thread. Other words are for a master, and there is none."""
        self.loop.call_soon_threadsafe(self._told, word, text)
        return True

    def _told(self, word: str, text: str) -> None:
        if word == "registers":
            self._register(text, again=True)
        elif word == "raise":
            self._raise(int(text))
        elif word == "stop" and self.on_stop is not None:
            self.on_stop()

    def _register(self, text: str, again: bool) -> None:
        self.agenda.register(entries_of(text), time.monotonic(), again)
        self._arm()
        if self._looking is None and self.agenda.has_to_look:
            self._look()

    def _raise(self, number: int) -> None:
        if self.worker is not None and not self.worker.draining:
            handlers.deliver(number)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.agenda.next_at
        if at < NEVER:
            self._timer = self.loop.call_later(max(0.0, at - time.monotonic()), self._ring)

    def _ring(self) -> None:
        for number in self.agenda.timers_due(time.monotonic()):
            self._raise(number)
        self._arm()

    def _look(self) -> None:
        for number in self.agenda.seen_due(datetime.now()):
            self._raise(number)
        self._looking = self.loop.call_later(LOOK_SECONDS, self._look)
