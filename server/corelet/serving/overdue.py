"""Deadlines of suspended cores: nothing that an application forgets costs a core for good.

One sweep looks at all cores while any is suspended; a timer for each wait would cost more than the half second by which
a deadline may be noticed late. What is due, in the order of its weight:

    harakiri        the whole request has taken too long
    stubborn_at     the application has caught that, and goes on
    gone_at         an HTTP client closed its side, and has had its time to read
    deadline, late  the current wait: `late` says what to raise; without it, it is a raw suspension (suspend-timeout)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from corelet.base.errors import ClientDisconnected, HarakiriError, Unwind

if TYPE_CHECKING:
    from corelet.serving.cores import Core
    from corelet.serving.hub import Hub

NEVER = float("inf")
SWEEP_SECONDS = 0.5


class Overdue:
    """Expires what is due among a hub's cores."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """A core has been suspended: sweep from now on, until none is."""
        if self._timer is None:
            self._timer = self._hub.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        hub = self._hub
        now = hub.loop.time()
        try:
            for core in hub.all():
                if core.since and min(core.deadline, core.harakiri_at, core.gone_at) <= now:
                    self._expire(core, now)
                if core.stubborn_at <= now:
                    self._stubborn(core)
        finally:
            if any(core.since for core in hub.all()):
                self.arm()

    def _expire(self, core: Core, now: float) -> None:
        hub = self._hub
        error: Unwind
        if core.harakiri_at <= now:
            core.harakiri_at = NEVER
            core.stubborn_at = now + hub.stubborn_seconds
            seconds = core.user_harakiri or hub.harakiri_seconds
            error = HarakiriError(f"the request took longer than harakiri = {seconds:g} s")
            hub.unwind(core, error, f"harakiri after {seconds:g} s; unwound")
        elif core.gone_at <= now:
            core.gone_at = NEVER
            error = ClientDisconnected("the client closed its side of the connection")
            hub.unwind(core, error, "the client closed its side long ago (http-timeout); unwound")
        elif core.late is None:
            allowed = f"{hub.suspend_seconds:g} s"
            error = HarakiriError(f"nobody resumed this core for suspend-timeout = {allowed}; was its wake-up lost?")
            hub.unwind(core, error, f"nobody resumed it for {allowed} (suspend-timeout); unwound")
        elif isinstance(core.late, Unwind):
            hub.unwind(core, core.late, str(core.late))
        else:
            hub.raise_in(core, core.late)

    def _stubborn(self, core: Core) -> None:
        core.stubborn_at = NEVER
        if core.job is not None and self._hub.on_stubborn is not None:
            self._hub.on_stubborn(core)
