"""attach-daemon: commands that run beside the workers. Started with the server, started again when they end.

uWSGI's "dumb" daemons (core/daemons.c): the command stays in the foreground, and its process is a child of the master,
who hears of its end. One that ends again and again is given growing pauses, so that a daemon with a broken
configuration costs a line of the log now and then, and no processor. A command that cannot be started at all is treated
like one that has died at once: the server serves without it, says so, and tries again.

Each leads a process group of its own, and signals go to the group: `sh -c 'redis-server | tee log'` is two processes
behind one process id. A re-exec keeps the master's process id, so its children stay its children; `handover` and
`adopt` tell the new program which they are. A master that is killed by SIGKILL leaves them running, since posix_spawn
knows no PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corelet.base.errors import ConfigError, OperatorError
from corelet.process import commands

logger = logging.getLogger("corelet.process")

QUICK_DEATH_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 30.0


def pause_seconds(quick_deaths: int) -> float:
    """How long to wait before the next start, after so many quick deaths in a row: 0, 0, 1, 2, 4, 8, 16, 30, 30, …"""
    if quick_deaths <= 1:
        return 0.0
    return min(2.0 ** min(quick_deaths - 2, 10), LONGEST_PAUSE_SECONDS)


@dataclass
class _Daemon:
    """One command. It runs (`pid`), or is to be started at `due_at`, or neither, once it has been told to stop."""

    text: str
    words: list[str]
    pid: int | None = None
    started_at: float = 0.0
    quick_deaths: int = 0
    due_at: float | None = None
    wanted: bool = True


class AttachedDaemons:
    """The commands of attach-daemon and what becomes of them. `now` is time.monotonic() throughout."""

    def __init__(self, texts: Iterable[str], start: Callable[[Sequence[str]], int] = commands.start) -> None:
        """Take the commands; `start` starts one. Raises ConfigError with all mistakes, one in a line."""
        self._start = start
        self._daemons: list[_Daemon] = []
        problems: list[str] = []
        for text in texts:
            try:
                self._daemons.append(_Daemon(text, commands.words_of(text)))
            except ConfigError as error:
                problems.append(f"--attach-daemon: {error}")
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def running(self) -> list[int]:
        """The process ids of those that run, or have ended and not been reaped yet."""
        return [daemon.pid for daemon in self._daemons if daemon.pid is not None]

    def begin(self, now: float) -> None:
        """Start all that neither run nor wait for their next start."""
        for daemon in self._daemons:
            if daemon.pid is None and daemon.due_at is None and daemon.wanted:
                self._launch(daemon, now)

    def tick(self, now: float) -> None:
        """Start again what has waited long enough."""
        for daemon in self._daemons:
            if daemon.due_at is not None and now >= daemon.due_at:
                self._launch(daemon, now)

    def _launch(self, daemon: _Daemon, now: float) -> None:
        daemon.started_at, daemon.due_at = now, None
        try:
            daemon.pid = self._start(daemon.words)
        except OperatorError as error:
            self._plan_next(daemon, now)
            logger.error("attached daemon: %s; tried again %s", error, _when(daemon, now))
            return
        logger.info("attached daemon %s: started (pid %d)", daemon.text, daemon.pid)

    def _plan_next(self, daemon: _Daemon, now: float) -> None:
        lived_briefly = now - daemon.started_at < QUICK_DEATH_SECONDS
        daemon.quick_deaths = daemon.quick_deaths + 1 if lived_briefly else 0
        daemon.due_at = now + pause_seconds(daemon.quick_deaths)

    def reaped(self, pid: int, status: int, now: float) -> bool:
        """Whether this process, which ended with that status of os.waitpid, was one of ours; it is started again."""
        for daemon in self._daemons:
            if daemon.pid == pid:
                daemon.pid = None
                self._has_ended(daemon, pid, commands.ending(os.waitstatus_to_exitcode(status)), now)
                return True
        return False

    def _has_ended(self, daemon: _Daemon, pid: int, how: str, now: float) -> None:
        if not daemon.wanted:
            logger.info("attached daemon %s (pid %d) ended: %s", daemon.text, pid, how)
            return
        self._plan_next(daemon, now)
        logger.warning(
            "attached daemon %s (pid %d) died: %s; started again %s", daemon.text, pid, how, _when(daemon, now)
        )

    # ---- the end ----

    def stop(self, now: float) -> None:
        """Ask all of them to end (SIGTERM to each group), and start none again."""
        for daemon in self._daemons:
            daemon.wanted, daemon.due_at = False, None
            if daemon.pid is not None:
                logger.info("attached daemon %s (pid %d) is told to stop: SIGTERM", daemon.text, daemon.pid)
                _signal_group(daemon.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End what still runs (SIGKILL to each group), and start none again."""
        for daemon in self._daemons:
            daemon.wanted, daemon.due_at = False, None
            if daemon.pid is not None:
                logger.warning("attached daemon %s (pid %d) is killed: it did not stop", daemon.text, daemon.pid)
                _signal_group(daemon.pid, signal.SIGKILL)

    # ---- a new master ----

    def handover(self) -> list[dict[str, Any]]:
        """What a new master of the same process id must know, as JSON can hold it."""
        return [
            {
                "command": daemon.text,
                "pid": daemon.pid,
                "started_at": daemon.started_at,  # CLOCK_MONOTONIC goes on through an exec
                "quick_deaths": daemon.quick_deaths,
                "due_at": daemon.due_at,
            }
            for daemon in self._daemons
        ]

    def adopt(self, state: Iterable[Mapping[str, Any]]) -> None:
        """Take over what `handover` gave, before `begin`, which then starts only what is new in the configuration.

        A daemon that is not in the configuration any more is told to stop, and is ours until it has ended.
        """
        free = [daemon for daemon in self._daemons if daemon.pid is None and daemon.wanted]
        for entry in state:
            daemon = next((daemon for daemon in free if daemon.text == entry["command"]), None)
            if daemon is not None:
                free.remove(daemon)
                daemon.pid, daemon.started_at = entry["pid"], entry["started_at"]
                daemon.quick_deaths, daemon.due_at = entry["quick_deaths"], entry["due_at"]
            elif entry["pid"] is not None:
                self._let_go(entry["command"], entry["pid"])

    def _let_go(self, text: str, pid: int) -> None:
        logger.info("attached daemon %s (pid %d) is not in the configuration any more: SIGTERM", text, pid)
        self._daemons.append(_Daemon(text, [], pid, wanted=False))
        _signal_group(pid, signal.SIGTERM)


def _when(daemon: _Daemon, now: float) -> str:
    wait_seconds = 0.0 if daemon.due_at is None else daemon.due_at - now
    return f"in {wait_seconds:g} s" if wait_seconds > 0 else "at once"


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass  # it has ended, and is only not reaped yet
    except PermissionError:
        logger.warning("attached daemon (pid %d) has become another user, whom we may not signal; end it by hand", pid)
