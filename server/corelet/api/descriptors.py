"""Waiting in a core for a descriptor that is somebody else's: a database connection's."""

from __future__ import annotations

from corelet.api.waiting import call_later, until, waker
from corelet.serving.cores import Core


def wait_for_descriptor(
    core: Core, descriptor: int, *, read: bool, write: bool, seconds: float | None = None
) -> tuple[bool, bool]:
    """In the core: suspend it until the descriptor is readable, or writable, or the time is over. Return which it is.

    It is registered in the loop for this wait alone: whoever owns it may close it between two.
    """
    hub = core.hub
    loop = hub.loop
    wake = waker(core)
    came = {"read": False, "write": False, "over": False}

    def event(what: str) -> None:
        came[what] = True
        if hub.only_call_soon and what != "over":
            loop.call_soon(wake)
        else:
            wake()

    timer = None if seconds is None else call_later(core, seconds, event, "over")
    try:
        if read:
            loop.add_reader(descriptor, event, "read")
        if write:
            loop.add_writer(descriptor, event, "write")
        until(core, lambda: came["read"] or came["write"] or came["over"])
    finally:
        if timer is not None:
            timer.cancel()
        if read:
            loop.remove_reader(descriptor)
        if write:
            loop.remove_writer(descriptor)
    return came["read"], came["write"]
