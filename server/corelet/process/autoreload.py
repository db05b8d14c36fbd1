"""py-autoreload: tells when a source file of this process has changed, from inside a worker, on its loop.

Only a worker knows what it has imported, so the watch runs in worker 1 and tells its master, which then does what it
does for any reload: a new generation, while the old one serves until the new one is ready.

Files are looked at every so often, a few milliseconds at a stretch (sources.py says which). With the package watchfiles
(the extra `reload`) a thread notices changes, and has the watch look at once. The looking goes on beside it: the thread
sees no change on a network file system or in some containers, and which folders it is to watch only a look can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from types import ModuleType

from corelet.process.sources import PYTHON_ENDINGS, SourceFiles, forget_compiled, signature_of, syntax_problem

logger = logging.getLogger("corelet.process")

MAX_POLL_SECONDS = 0.5
SLICE_SECONDS = 0.003  # of one stretch of a scan: less than what anybody notices in a reply
PAUSE_SECONDS = 0.02  # between two stretches
SETTLE_SECONDS = 0.05  # a file is looked at again after this: an editor may still be writing it
NOTICE_MILLISECONDS = 500  # how often the thread looks whether it is to end, or to watch other folders


class Watch:
    """The watch of one process. `stop` ends it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        period_seconds: float,
        changed: Callable[[str], None],
        *,
        modules: Mapping[str, object] = sys.modules,
        loading_began_ns: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.files = SourceFiles(modules, loading_began_ns)
        self.stopped = threading.Event()
        self._loop = loop
        self._period = period_seconds
        self._changed = changed
        self._clock = clock
        self._scan: Generator[str | None, None, None] | None = None
        self._scan_again = False
        self._settling: dict[str, asyncio.TimerHandle] = {}
        self._first_scan_done: Callable[[], None] | None = None
        self._timer: asyncio.Handle | None = None

    def begin(self, when_ready: Callable[[], None]) -> None:
        """Scan from now on; `when_ready` is called once it is known how everything looks."""
        self._first_scan_done = when_ready
        self._timer = self._loop.call_soon(self._begin_scan)

    def stop(self) -> None:
        """End the watch; nothing is reported from now on."""
        self.stopped.set()
        for handle in (self._timer, *self._settling.values()):
            if handle is not None:
                handle.cancel()
        if self._scan is not None:
            self._scan.close()

    def look_now(self) -> None:
        """Scan at once: something may have changed."""
        if self.stopped.is_set():
            return
        if self._scan is not None:
            self._scan_again = True
            return
        if self._timer is not None:
            self._timer.cancel()
        self._begin_scan()

    def hurry(self, period_seconds: float) -> None:
        """Scan at least so often from now on."""
        self._period = min(self._period, period_seconds)
        self.look_now()

    def _begin_scan(self) -> None:
        self._scan_again = False
        self._scan = self.files.look()
        self._go_on()

    def _go_on(self) -> None:
        """One stretch of a scan. Whatever goes wrong in it is logged: the loop has requests to serve."""
        try:
            ended = self._stretch()
        except Exception:
            logger.exception("py-autoreload: a scan failed; the next one follows in %g s", self._period)
            ended = True
        if self.stopped.is_set():
            return
        if not ended:
            self._timer = self._loop.call_later(PAUSE_SECONDS, self._go_on)
            return
        self._scan = None
        self._timer = self._loop.call_later(0 if self._scan_again else self._period, self._begin_scan)
        self._say_ready()

    def _say_ready(self) -> None:
        if self._first_scan_done is None:
            return
        ready, self._first_scan_done = self._first_scan_done, None
        try:
            ready()
        except RuntimeError as error:  # the system has no thread left
            logger.warning("py-autoreload: %s; looking every %g s", error, MAX_POLL_SECONDS)
            self.hurry(MAX_POLL_SECONDS)

    def _stretch(self) -> bool:
        """Go on with the scan until it ends (True) or its time is over."""
        assert self._scan is not None
        until = self._clock() + SLICE_SECONDS
        for path in self._scan:
            if path is not None and path not in self._settling:
                self._settling[path] = self._loop.call_later(SETTLE_SECONDS, self._settle, path)
            if self._clock() >= until:
                return False
        return True

    def _settle(self, path: str) -> None:
        """The file has changed a moment ago: report it, unless it is still changing."""
        del self._settling[path]
        if self.files.changed(path):
            self._settling[path] = self._loop.call_later(SETTLE_SECONDS, self._settle, path)
            return
        try:
            problem = syntax_problem(path)
            if problem:
                logger.error("py-autoreload: %s; the running workers go on", problem)
            elif signature_of(path) is not None:
                forget_compiled(path)
                self._changed(path)
        except Exception:
            logger.exception("py-autoreload: the change of %s could not be reported; reload by hand", path)


def watch(
    loop: asyncio.AbstractEventLoop,
    interval_seconds: float,
    changed: Callable[[str], None],
    *,
    polling: bool = False,
    modules: Mapping[str, object] = sys.modules,
    loading_began_ns: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Watch:
    """Call `changed(path)` on the loop, once for each change of a source file, until the returned watch is stopped.

    With the package watchfiles a change is seen at once, and every `interval_seconds` where that sees none; without it,
    or with `polling`, every `interval_seconds` and every half second at least. A file that cannot be compiled is an
    error in the log and is not reported. With `loading_began_ns` a file that was written since then is a change too.
    `clock` is what a scan's stretches are measured by; not the loop's, which under uvloop stands still within a turn.
    """
    notices = None if polling else _watchfiles()
    often = min(interval_seconds, MAX_POLL_SECONDS)
    period = interval_seconds if notices else often
    made = Watch(loop, period, changed, modules=modules, loading_began_ns=loading_began_ns, clock=clock)

    def ready() -> None:
        how = "watchfiles tells of changes" if notices else f"looking every {often:g} s"
        logger.info("py-autoreload: %d files are watched, %s", len(made.files), how)
        if notices:
            arguments = (made, loop, notices, often)
            threading.Thread(target=_notice, args=arguments, name="corelet-autoreload", daemon=True).start()

    made.begin(ready)
    return made


# ---- the package watchfiles ----


def _watchfiles() -> ModuleType | None:
    try:
        import watchfiles  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    logging.getLogger("watchfiles.main").setLevel(logging.WARNING)  # a line for each batch of changes, otherwise
    return watchfiles


def _notice(watch: Watch, loop: asyncio.AbstractEventLoop, watchfiles: ModuleType, often: float) -> None:
    """In a thread of its own: have the watch look whenever something happens in its folders, until it is stopped."""
    try:
        while not watch.stopped.is_set():
            _notice_in(watch.files.folders, watch, loop, watchfiles)
    except Exception as error:  # noqa: BLE001 - too many folders for the system, or a loop that was closed
        if not watch.stopped.is_set() and not loop.is_closed():
            logger.info("py-autoreload: watchfiles failed (%s); looking every %g s instead", error, often)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(watch.hurry, often)


def _notice_in(folders: frozenset[str], watch: Watch, loop: asyncio.AbstractEventLoop, watchfiles: ModuleType) -> None:
    """The same until the watch has other folders."""
    existing = [folder for folder in folders if os.path.isdir(folder)]
    if not existing:
        watch.stopped.wait(NOTICE_MILLISECONDS / 1000)
        return
    batches = watchfiles.watch(
        *existing,
        watch_filter=None,
        stop_event=watch.stopped,
        rust_timeout=NOTICE_MILLISECONDS,
        yield_on_timeout=True,
        raise_interrupt=False,
        recursive=False,
        ignore_permission_denied=True,
    )
    is_first = True
    with contextlib.closing(batches):
        for batch in batches:
            # With the first one it is sure that changes are noticed, and one may have come before that.
            if is_first or any(path.endswith(PYTHON_ENDINGS) or path in watch.files for _, path in batch):
                loop.call_soon_threadsafe(watch.look_now)
            is_first = False
            if watch.files.folders is not folders:
                return
