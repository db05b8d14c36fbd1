"""Who watches a process that serves alone: a thread that looks whether its loop stands still.

Code that blocks the loop blocks every request of the process, and the loop cannot say so itself. A thread can, unless
the code holds the interpreter's lock all the time; under a master that case is seen too (watchdog.py).
"""

from __future__ import annotations

import logging
import sys
import threading
from time import monotonic

from corelet.base.scoreboard import SINCE, Scoreboard
from corelet.serving.cores import Core
from corelet.serving.selector import MarkingSelector, beat
from corelet.serving.where import suspended_at
from corelet.serving.worker import Worker

logger = logging.getLogger("corelet.worker")

ADVICE = "all other requests wait meanwhile: await something asynchronous (corelet.await_), or use corelet.to_thread"


class LoopWatch:
    """Warns once for each time that the loop has worked for `seconds` in one turn."""

    def __init__(self, board: Scoreboard, seconds: float) -> None:
        self._board = board
        self._seconds = seconds
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, worker: Worker) -> None:
        """Begin to watch the thread that calls this; nothing happens if `seconds` is 0."""
        if not self._seconds:
            return
        if not isinstance(getattr(worker.loop, "_selector", None), MarkingSelector):
            beat(worker.loop, self._board.cells, worker.publish)
        arguments = (worker, threading.get_ident())
        self._thread = threading.Thread(target=self._watch, args=arguments, name="corelet-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, worker: Worker, thread: int) -> None:
        warned = 0.0
        while not self._over.wait(self._seconds / 2):
            since = self._board.cells[SINCE]
            seconds = monotonic() - since
            if since and since != warned and seconds >= self._seconds:
                warned = since
                self._warn(worker, thread, seconds)

    def _warn(self, worker: Worker, thread: int, seconds: float) -> None:
        place = suspended_at(sys._current_frames().get(thread))
        core: Core | None = worker.hub.running
        job = core.job if core is not None else None
        what = "a callback of the loop"
        if core is not None and job is not None:
            what = f"core {core.number}, {job.title()}" if core.number >= 0 else job.title()
        logger.warning("blocked for %.1f s in %s, at %s; %s", seconds, what, place, ADVICE)
