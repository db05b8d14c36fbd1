"""A call from one worker to all others: look at the listening sockets, somebody waits there.

The kernel wakes one worker for a new connection (EPOLLEXCLUSIVE, see selector.py). If that one finds all its cores
taken, or ends, the wake-up is spent and the connection would wait for the next one to arrive. So whoever leaves a
connection behind calls the others, through an eventfd that all of them watch edge-triggered: nobody has to read it.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable


class Siblings:
    """The eventfd, shared with every process that is forked afterwards."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def call(self) -> None:
        """Have all look."""
        with contextlib.suppress(BlockingIOError):  # after 2**64 calls
            os.eventfd_write(self.descriptor, 1)

    def call_for(self, descriptors: Iterable[int]) -> None:
        """Have all look if a connection waits at one of these."""
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        if poll.poll(0):
            self.call()
