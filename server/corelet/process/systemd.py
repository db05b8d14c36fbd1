"""What systemd and we tell each other: sockets it opened for us, and how we are.

    listen_descriptors   the sockets of a .socket unit (LISTEN_FDS, sd_listen_fds(3))
    Notifier             READY, RELOADING, STOPPING, WATCHDOG, STATUS (NOTIFY_SOCKET, sd_notify(3))

Both protocols are a few environment variables, and a datagram: no library is needed. The variables are taken out of the
environment when they are read. They are meant for one process, and a worker, a daemon or an application that finds them
would speak in the master's name, or take sockets that are not its own; a re-exec of the master gets those of the
notifier back with `Notifier.environment`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Self

from corelet.base.errors import OperatorError

logger = logging.getLogger("corelet.process")

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
MAX_DESCRIPTORS = 65535
MAX_DIGITS = 20  # of a 64-bit number

LISTEN_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def listen_descriptors(environ: MutableMapping[str, str] = os.environ, pid: int | None = None) -> list[int]:
    """The descriptors that were handed over to this process, close-on-exec from now on; none without socket activation.

    To be called once, by the process that systemd has started (before any fork: LISTEN_PID names it). The variables are
    removed. `pid` is this process, unless a test says otherwise. Raises OperatorError if they name what is not there.
    """
    values = {name: environ.pop(name, "") for name in LISTEN_VARIABLES}
    text = values["LISTEN_FDS"]
    if not text or values["LISTEN_PID"] != str(os.getpid() if pid is None else pid):
        return []
    count = _number(text)
    if count is None or count > MAX_DESCRIPTORS:
        raise OperatorError(
            f"LISTEN_FDS: expected a number of descriptors; got {text!r}; unset it, or use a .socket unit"
        )
    found = list(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + count))
    for descriptor in found:
        try:
            os.set_inheritable(descriptor, False)
        except OSError as error:
            raise OperatorError(
                f"LISTEN_FDS={text}: descriptor {descriptor} is not open; whatever starts us (sudo, a script, a "
                "supervisor) must pass the sockets on, or LISTEN_FDS is to be unset"
            ) from error
    return found


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None


class Notifier:
    """Tells systemd how the service is. Without NOTIFY_SOCKET every method does nothing; none raises or waits.

    `address` is NOTIFY_SOCKET or None; `watchdog_seconds` how often `watchdog` is to be called (half of WatchdogSec=),
    or None when nobody counts.
    """

    def __init__(self, address: str | None = None, watchdog_usec: int | None = None) -> None:
        self.address = address
        self.watchdog_seconds = None if watchdog_usec is None else watchdog_usec / 2 / 1_000_000
        self._watchdog_usec = watchdog_usec
        self._complained = False

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ, pid: int | None = None) -> Self:
        """The notifier that the environment asks for; its variables are removed. `pid` is this process."""
        address = environ.pop("NOTIFY_SOCKET", "") or None
        usec = _number(environ.pop("WATCHDOG_USEC", ""))
        for_whom = environ.pop("WATCHDOG_PID", "")
        # sd_watchdog_enabled(3): without WATCHDOG_PID it is meant for whoever finds it.
        meant = not for_whom or for_whom == str(os.getpid() if pid is None else pid)
        return cls(address, usec if address is not None and meant and usec else None)

    def environment(self) -> dict[str, str]:
        """The variables that a re-exec of this process needs to find its notifier again."""
        if self.address is None:
            return {}
        variables = {"NOTIFY_SOCKET": self.address}
        if self._watchdog_usec is not None:
            variables |= {"WATCHDOG_USEC": str(self._watchdog_usec), "WATCHDOG_PID": str(os.getpid())}
        return variables

    def ready(self, status: str = "") -> None:
        """The service serves: at start, and at the end of a reload."""
        self._send("READY=1", *_status(status))

    def reloading(self, status: str = "") -> None:
        """A reload begins; `ready` ends it."""
        # systemd ignores a reload that has no time, or one before its own order (sd_notify(3), Type=notify-reload).
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", *_status(status))

    def stopping(self, status: str = "") -> None:
        """The service ends."""
        self._send("STOPPING=1", *_status(status))

    def watchdog(self) -> None:
        """The master is alive; to be called every `watchdog_seconds`."""
        self._send("WATCHDOG=1")

    def watchdog_waits(self, seconds: float) -> None:
        """Nobody will call `watchdog` for a while: it waits so long at least, until `watchdog_again`."""
        if self._watchdog_usec is not None:
            self._send(f"WATCHDOG_USEC={max(self._watchdog_usec, round(seconds * 1_000_000))}", "WATCHDOG=1")

    def watchdog_again(self) -> None:
        """The watchdog waits no longer than it was told to at first."""
        if self._watchdog_usec is not None:
            self._send(f"WATCHDOG_USEC={self._watchdog_usec}", "WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text))

    def _send(self, *assignments: str) -> None:
        if self.address is None or not assignments:
            return
        data = "\n".join(assignments).encode("utf-8", "backslashreplace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(data, _destination(self.address))
        except (OSError, ValueError) as error:
            self._complain(assignments[0], error)

    def _complain(self, what: str, error: Exception) -> None:
        """Once: a socket that does not listen would otherwise be named at every beat of the watchdog."""
        if not self._complained:
            self._complained = True
            logger.warning(
                "systemd was not told %s: %s: %s; is NOTIFY_SOCKET reachable for our user, and is NotifyAccess= set?",
                what,
                self.address,
                error,
            )


def _destination(address: str) -> bytes:
    if address[0] not in "/@":
        raise ValueError("expected a path or @name")  # vsock: is for virtual machines
    name = os.fsencode(address)
    return b"\0" + name[1:] if address[0] == "@" else name


def _status(text: str) -> list[str]:
    """A status is one line: a newline in it would begin another assignment."""
    return ["STATUS=" + " ".join(text.split())] if text else []
