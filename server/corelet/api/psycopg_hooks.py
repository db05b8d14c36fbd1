"""psycopg 2 and 3 in a core: their waits suspend the core, through the hooks that both were given for this.

psycopg2 asks `set_wait_callback` for what is to be done while libpq has nothing to do. psycopg 3 writes its protocol as
generators that say what they wait for, and drives them by `waiting.wait` and `waiting.wait_conn`.

A core that is unwound in the wait, or whose time limit passes, has its query cancelled, so that the server does not go
on computing it. psycopg2 then closes the connection, psycopg 3 keeps it.

Outside a core (threads, scripts, callbacks) both block as they always do.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import select
import time
from typing import Any

from corelet.api.bridge import to_thread
from corelet.api.descriptors import wait_for_descriptor
from corelet.base.errors import Unwind
from corelet.serving.cores import Core, current_core

logger = logging.getLogger("corelet.api")

MIN_TICK_SECONDS = 0.1  # psycopg before 3.3 asks to be called so often, to look at its own deadline


def _core_here() -> Core | None:
    core = current_core()
    return core if core is not None and core.is_current() else None


# ---- psycopg2 ----


def install_psycopg2(module: Any) -> None:
    """psycopg2.extensions has been imported. One callback serves the whole process, and both kinds of caller."""

    def wait(connection: Any) -> None:
        core = _core_here()
        try:
            while (state := connection.poll()) != module.POLL_OK:
                reads, writes = state == module.POLL_READ, state == module.POLL_WRITE
                if not (reads or writes):
                    raise module.connection.OperationalError(f"psycopg2's poll() returned {state}")
                descriptor = connection.fileno()
                if core is None:
                    _block(descriptor, select.POLLIN if reads else select.POLLOUT)
                else:
                    wait_for_descriptor(core, descriptor, read=reads, write=writes)
        except (Unwind, asyncio.CancelledError):
            _cancel(connection)
            raise

    module.set_wait_callback(wait)


def _block(descriptor: int, events: int) -> None:
    poll = select.poll()
    poll.register(descriptor, events)
    poll.poll()


def _cancel(connection: Any) -> None:
    """Have the server end the query. It needs a connection of its own, which libpq makes in a blocking way."""
    try:
        to_thread(connection.cancel)
    except Exception as error:  # noqa: BLE001 - the connection is closed behind us in any case
        logger.info("a query of an unwound request could not be cancelled: %s", str(error).strip())


# ---- psycopg 3 ----


def install_psycopg(module: Any) -> None:
    """psycopg.waiting has been imported."""
    original_wait, original_wait_conn = module.wait, module.wait_conn
    errors = module.e
    ticks = "timeout" not in inspect.signature(module.wait_selector).parameters

    def wait(generator: Any, fileno: int, interval: float = 0.0, **options: Any) -> Any:
        core = _core_here()
        if core is None:
            return original_wait(generator, fileno, interval, **options)
        return _drive(core, generator, interval, options, lambda asked: (fileno, asked))

    def wait_conn(generator: Any, interval: float = 0.0, **options: Any) -> Any:
        core = _core_here()
        if core is None:
            return original_wait_conn(generator, interval, **options)
        return _drive(core, generator, interval, options, lambda asked: asked)

    def _drive(core: Core, generator: Any, interval: float, options: dict[str, Any], what: Any) -> Any:
        timeout = options.get("timeout")
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            asked = next(generator)
            while True:
                seconds = max(MIN_TICK_SECONDS, interval) if ticks else None
                if deadline is not None:
                    seconds = max(0.0, deadline - time.monotonic())
                descriptor, state = what(asked)
                read, write = wait_for_descriptor(
                    core,
                    descriptor,
                    read=bool(state & module.WAIT_R),
                    write=bool(state & module.WAIT_W),
                    seconds=seconds,
                )
                ready = (module.READY_R if read else 0) | (module.READY_W if write else 0)
                asked = generator.send(module.Ready(ready) if ready else 0)
                if deadline is not None and time.monotonic() >= deadline:
                    raise errors._WaitTimeout("wait timeout expired")
        except StopIteration as end:
            return end.value

    module.wait, module.wait_conn = wait, wait_conn


def install_psycopg_connection(module: Any) -> None:
    """psycopg.connection has been imported: what interrupts a query, so that it is cancelled, is an unwinding too."""
    if isinstance(getattr(module, "_INTERRUPTED", None), tuple):
        module._INTERRUPTED = (*module._INTERRUPTED, Unwind, asyncio.CancelledError)
        return
    original = module.Connection.wait

    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        except (Unwind, asyncio.CancelledError):
            self.close()  # this version cannot cancel a query without blocking
            raise

    module.Connection.wait = wait
