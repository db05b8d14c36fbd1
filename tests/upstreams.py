"""The upstream of the examples, in a thread of the test, held at gates: the test says when each token is sent.

All calls wait at the gate of their next token until the test opens it. So "all have the first before anybody has the
last" is arranged, and not hoped for from a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from harness import PATIENCE_SECONDS, ROOT, free_port

EXAMPLES = ROOT / "examples"


def example(name: str):
    """An example's module, imported from its file."""
    specification = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


class GatedUpstream:
    """examples/slow_upstream.py at the test's pace. `at` counts the calls that have come to each gate.

    A gate is a token's number, 0 for an answer in one piece, or a path: a call waits until either is opened.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.at: Counter[int | str] = Counter()
        self._open_below = 0
        self._open_paths: set[str] = set()
        self._changed = threading.Condition()
        self._moved: asyncio.Condition | None = None
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._prepare())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def _prepare(self) -> None:
        module = example("slow_upstream")
        self.words: tuple[str, ...] = module.WORDS
        self._moved = asyncio.Condition()
        self.server = module.Upstream(self._pace)
        self._listener = await self.server.serve("127.0.0.1", self.port)

    async def _pace(self, path: str, number: int) -> None:
        with self._changed:
            self.at[number] += 1
            self.at[path] += 1
            self._changed.notify_all()
        async with self._moved:
            await self._moved.wait_for(lambda: number < self._open_below or path in self._open_paths)

    def open(self, below: int = 0, path: str = "") -> None:
        """Let all calls go on to gate number `below`, or those for a path to their end."""

        async def move() -> None:
            self._open_below = max(below, self._open_below)
            self._open_paths.add(path)
            async with self._moved:
                self._moved.notify_all()

        asyncio.run_coroutine_threadsafe(move(), self._loop).result(PATIENCE_SECONDS)

    def wait_until(self, came: Callable[[], bool], what: str) -> None:
        """Wait until something has come true of the upstream, which is looked at whenever a call moves or ends."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            while not came():
                assert time.monotonic() < deadline, f"{what}: {vars(self.server)}, at gates {dict(self.at)}"
                self._changed.wait(0.02)

    def stop_listening(self) -> None:
        """Nobody is there any more for a new call."""
        self._loop.call_soon_threadsafe(self._listener.close)
        self.wait_until(lambda: not self._listener.is_serving(), "it has stopped listening")

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self._loop.close()

    async def _end(self) -> None:
        self._listener.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


@contextlib.contextmanager
def gated_upstream() -> Iterator[GatedUpstream]:
    """One, for the length of a with block."""
    upstream = GatedUpstream()
    try:
        yield upstream
    finally:
        upstream.stop()
