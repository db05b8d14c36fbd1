"""What the API knows of the process that it is imported in: one Server for each process, made before the application.

It is there while the application is imported (`import uwsgi` at the top of a module, signals registered there), when no
worker exists yet, and changes once: `worker` is set when it serves. In a master that loads the application itself
(preload) it is the master's, with worker_id 0, and each worker replaces it after the fork.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from corelet.base.config import Config
from corelet.base.errors import CoreletError
from corelet.base.roster import Roster
from corelet.serving.worker import Worker


class NotServed(CoreletError, RuntimeError):
    """A call that needs the server was made in a process that is none of its own."""


def _nobody(_word: str, _text: str = "") -> bool:
    """There is no master to tell anything."""
    return True


@dataclass
class Server:
    """A process of the server.

    `tell(word, text)` says something to the master, and returns whether it was taken; see process/channel.py for words.
    """

    config: Config
    worker_id: int  # from 1; 0 in a master that preloads
    master_pid: int = 0  # 0: there is no master
    loop: asyncio.AbstractEventLoop | None = None
    tell: Callable[[str, str], bool] = _nobody
    is_a_reload: bool = False
    worker: Worker | None = None
    cache_folder: str | None = None  # where the caches of this machine are; made by the master
    roster: Roster | None = None  # None: there is no master
    locks: int = -1  # descriptor of the file that locks are held in (process/locks.py)
    started_on: float = field(default_factory=time.time)

    def serving(self) -> Worker:
        """The worker. Raises NotServed while the application is still being loaded."""
        if self.worker is None:
            raise NotServed("no requests are served yet: call this from a view, or later, not while it is imported")
        return self.worker


_current: Server | None = None


def be(server: Server) -> None:
    """From now on this process is that one."""
    global _current  # noqa: PLW0603 - there is one process
    _current = server


def current() -> Server:
    """The process that we are in. Raises NotServed outside of corelet."""
    if _current is None:
        raise NotServed("this works in an application that corelet runs; here it was imported by something else")
    return _current


def known() -> Server | None:
    """The same, or None outside of corelet."""
    return _current
