"""A worker at work: from the moment it serves until it has ended, in order or in a hurry.

What both kinds of process have in common: the one that serves alone and is told by signals (single.py), and the one
that a master tells through its channel (child.py). The orders are the same three: end within so many seconds, hurry,
quit.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence

from corelet.base import accesslog, forks, logs
from corelet.base.config import Config
from corelet.base.outcome import Outcome
from corelet.serving.worker import Worker

logger = logging.getLogger("corelet")

FLUSH_SECONDS = 0.02  # how long an access line may wait for others
BACKLOG_SECONDS = 5.0  # for a backlog that grows as fast as it is taken
CLOSE_SECONDS = 2.0  # for tasks that answer their cancellation with more work


class AccessLog:
    """Access lines, gathered for a moment and written in one call: a write for each would be a tenth of the request."""

    def __init__(self, config: Config, file: logs.LogFile, loop: asyncio.AbstractEventLoop) -> None:
        self._line = accesslog.compile_format(config.log_format, config.log_x_forwarded_for)
        self._writer = logs.LogWriter(file)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        forks.belongs(self._writer.forget)

    def __call__(self, outcome: Outcome) -> None:
        """Take one outcome."""
        self._writer.write(self._line(outcome))
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what has gathered."""
        self._timer = None
        self._writer.flush()


class Duty:
    """One worker's term. `release` gives the listening sockets back, once nothing more is accepted."""

    def __init__(self, worker: Worker, release: Callable[[], None], quiet: bool = False) -> None:
        """`quiet`: say nothing where there is nothing to wait for, since a master says enough."""
        self.worker = worker
        self._quiet = quiet
        self._release = release
        self._task: asyncio.Task[None] | None = None

    @property
    def ending(self) -> bool:
        """Whether it was told to end."""
        return self._task is not None

    def end(self, seconds: float, why: str, last: bool = False) -> None:
        """Accept no more, let requests finish for so long, and leave the loop. Told again, the shorter time holds.

        `last`: no other worker goes on accepting, so what waits in the backlog is ours.
        """
        if self._task is None:
            self._task = self.worker.loop.create_task(self._end(seconds, why, last))
        else:
            self.worker.drain_within(seconds)

    def hurry(self) -> None:
        """Do not wait for requests any longer."""
        self.worker.hurry()

    def quit(self) -> None:
        """Leave the loop now, and wait for no thread of the application either."""
        self.worker.hurry()
        self.worker.loop.stop()

    async def _end(self, seconds: float, why: str, last: bool) -> None:
        worker = self.worker
        worker.stop_accepting()
        if last:
            await worker.take_the_rest(min(BACKLOG_SECONDS, seconds))
        self._release()  # from here on a new connection is refused, or a sibling's, and not left hanging
        running = len(worker.busy_cores())
        if running or not self._quiet:
            logger.info("%s: finishing %d running requests", why, running)
        began = worker.loop.time()
        if not await worker.drain(seconds):
            waited = worker.loop.time() - began
            logger.warning("some requests did not end; they were given %.3g s", min(waited, seconds))
        worker.loop.stop()

    def run(self, on_signals: Sequence[int] = ()) -> None:
        """Serve until an order has been carried out. `on_signals` have no effect any more while the rest is closed."""
        loop = self.worker.loop
        self._run_forever()
        if self._task is not None:
            self._task.cancel()
        for number in on_signals:
            loop.add_signal_handler(number, _already_ending)
        self._close()
        sys.stdout.flush()

    def _run_forever(self) -> None:
        """Until the loop is stopped. sys.exit() in a coroutine or a callback is an error of its own, as in a view.

        asyncio takes it for the end of the program and lets it out of the loop, and everybody's requests would end.
        """
        while True:
            try:
                self.worker.loop.run_forever()
                return
            except SystemExit as error:
                if forks.is_fork():
                    raise  # the end of a process that the application has forked
                logger.error("sys.exit(%r) in a coroutine or a callback of the loop ends nothing", error.code)

    def _close(self) -> None:
        """Unwind what still runs, cancel what is left in the loop, and give both a moment to end in order."""
        loop = self.worker.loop
        loop.run_until_complete(self.worker.unwind_all("the server stops at once; unwound"))
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=CLOSE_SECONDS))
        loop.run_until_complete(loop.shutdown_asyncgens())


def _already_ending() -> None:
    """A signal handler that does nothing."""
