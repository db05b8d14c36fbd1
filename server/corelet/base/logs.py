"""Where lines go: the log of events (logger `corelet`), the access log, and the rule that keeps either from flooding.

    LogFile      the descriptor that everything is written to: stderr, or the file of `logto`; can be opened again
    setup        makes logger `corelet` write to it, one line per event
    LogWriter    collects access lines and writes them in batches; a full disk or pipe costs lines, never a request
    RateLimited  one line per key and interval, with the number of those left out

A log must never hurt what it reports on: nothing here raises into its caller once the file is open, and nothing waits
longer than the write itself.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import stat
import sys
from collections.abc import Callable, Hashable
from typing import IO

from corelet.base.errors import ConfigError

STDERR = 2

# Written at once when so much has gathered, so that a burst between two flushes cannot grow without bound. The size of
# a pipe: what one write to it takes.
MAX_GATHERED_BYTES = 65536

# A file of logs holds addresses and paths of users: readable by its group, as uWSGI makes it (core/logging.c).
FILE_MODE = 0o640


class LogFile:
    """The descriptor that all lines go to. `reopen` is for rotation: the number stays, the file behind it changes."""

    def __init__(self, path: str | None = None, option: str = "logto") -> None:
        """Open `path` for appending, or take stderr. Raises ConfigError, which names `option`, if it cannot be opened.

        The path is made absolute: `chdir` comes later and rotation later still.
        """
        self.path = None if path is None else os.path.abspath(path)
        self._option = option
        self.descriptor = STDERR if self.path is None else _open(self.path, option)

    @classmethod
    def open_already(cls, path: str) -> LogFile:
        """The file that descriptor 2 is open to, which was opened by its path once."""
        file = cls()
        file.path = os.path.abspath(path)
        return file

    def reopen(self) -> bool:
        """Open the path again, after it was moved away. If that fails, the old file is kept and the failure logged.

        Returns whether what is written now goes where the configuration says.
        """
        if self.path is None:
            return True
        try:
            fresh = _open(self.path, self._option)
        except ConfigError as error:
            logging.getLogger("corelet").error("%s; still writing to the file that was open", error)
            return False
        self.take_over(fresh)
        return True

    def take_over(self, descriptor: int) -> None:
        """Write to this open file from now on, as `reopen` does to a new one. The descriptor is closed."""
        os.dup2(descriptor, self.descriptor, inheritable=self.descriptor == STDERR)
        if self.descriptor == STDERR and self.path is not None:
            os.dup2(descriptor, 1)
        os.close(descriptor)

    def redirect_standard_streams(self) -> None:
        """Let stdout and stderr, of the application's prints and of child processes, go to the file, as uWSGI's logto.

        Afterwards the file is descriptor 2, so one `reopen` serves all.
        """
        if self.path is None:
            return
        for stream in (sys.stdout, sys.stderr):
            _settle(stream)
        os.dup2(self.descriptor, 1)
        os.dup2(self.descriptor, STDERR)
        os.close(self.descriptor)
        self.descriptor = STDERR

    def close(self) -> None:
        """Close the file; stderr is left open."""
        if self.descriptor != STDERR:
            os.close(self.descriptor)
            self.descriptor = STDERR
            self.path = None


def _open(path: str, option: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise ConfigError(
            f"{option} {path}: {error.strerror}; is there such a folder, and may we write there?"
        ) from error


def _settle(stream: IO[str] | None) -> None:
    """Write what the stream still holds, and have it write at every line: to a file it would gather 8 KB first."""
    with contextlib.suppress(OSError, ValueError):  # a closed or broken stream has nothing more to lose
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            stream.reconfigure(line_buffering=True)


def write_what_goes(descriptor: int, data: bytes) -> int:
    """Write as much as goes without waiting, in one call where that is a file; return how many bytes did.

    A pipe that nobody reads would stop the process, and with it its signals. So where it is no file each piece is
    written only when the descriptor is ready, and is no longer than what a ready pipe takes whole (pipe(7), PIPE_BUF).
    """
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.write(descriptor, data)
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    written = 0
    while written < len(data) and poll.poll(0):
        written += os.write(descriptor, data[written : written + select.PIPE_BUF])
    return written


# ---- events ----


class _EventHandler(logging.Handler):
    """Writes each event as one line: time, pid, level, message. A traceback or detail follows on lines of its own."""

    def __init__(self, file: LogFile) -> None:
        super().__init__()
        self.file = file
        self._dropped = 0
        self.setFormatter(_EventFormatter("%(asctime)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            self._write(line.encode("utf-8", "backslashreplace"))
        except OSError:  # a full disk: nowhere is left to say it
            pass
        except Exception:  # noqa: BLE001 - a message whose arguments do not fit is a bug here, never the caller's end
            self.handleError(record)

    def _write(self, data: bytes) -> None:
        if self._dropped:
            data = f"corelet: {self._dropped} events were dropped: the log could not be written\n".encode() + data
        if write_what_goes(self.file.descriptor, data) < len(data):
            self._dropped += 1
        else:
            self._dropped = 0


class _EventFormatter(logging.Formatter):
    """An event is one line, even if what a peer sent is part of it; `extra={"detail": text}` follows as it is."""

    _controls = str.maketrans({code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)})

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = f"{record.asctime} [{record.process}] {record.levelname.lower()} {record.message}"
        detail = getattr(record, "detail", "")
        return line.translate(self._controls) + (f"\n{detail}" if detail else "")


def setup(file: LogFile, level: int = logging.INFO) -> None:
    """Make the logger `corelet` write to `file`, and to nothing else. Called again, it replaces what it did before."""
    logger = logging.getLogger("corelet")
    for handler in [handler for handler in logger.handlers if isinstance(handler, _EventHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(_EventHandler(file))
    logger.setLevel(level)
    logger.propagate = False


class RateLimited:
    """Logs at most one line per key and interval, and says how many were left out when it speaks of the key again.

    Time is a parameter, in seconds of any steady clock. At most `max_keys` keys are remembered; beyond that the one
    that spoke longest ago is forgotten, so ten thousand bad peers cost a bounded dictionary (gunicorn wrote 54,000
    lines in 75 s on one).
    """

    def __init__(self, logger: logging.Logger, interval_seconds: float = 10.0, max_keys: int = 1000) -> None:
        self._logger = logger
        self._interval = interval_seconds
        self._max_keys = max_keys
        # key -> [when it spoke, how many since, level]; the order of insertion is the order of speaking
        self._spoken: dict[Hashable, tuple[float, int, int]] = {}

    def log(self, now: float, key: Hashable, level: int, message: str, *arguments: object) -> bool:
        """Log the line unless the key has spoken within the interval. Returns whether it was logged."""
        entry = self._spoken.get(key)
        if entry is not None and now - entry[0] < self._interval:
            self._spoken[key] = (entry[0], entry[1] + 1, entry[2])
            return False
        left_out = self._forget(key) if entry is not None else 0
        if len(self._spoken) >= self._max_keys:
            self._forget(next(iter(self._spoken)))
        self._spoken[key] = (now, 0, level)
        if left_out:
            message += " (and %d more like it before)"
            arguments = (*arguments, left_out)
        self._logger.log(level, message, *arguments)
        return True

    def expire(self, now: float) -> None:
        """Speak of what was left out for keys whose interval is over, and forget them. For a periodic sweep."""
        over = [key for key, entry in self._spoken.items() if now - entry[0] >= self._interval]
        for key in over:
            _, _, level = self._spoken[key]
            left_out = self._forget(key)
            if left_out:
                self._logger.log(level, "%s: %d more like it in the last %g s", key, left_out, self._interval)

    def _forget(self, key: Hashable) -> int:
        return self._spoken.pop(key)[1]


# ---- access lines ----


class LogWriter:
    """Gathers access lines, and writes all of them in one call on `flush`.

    What cannot be written at once (a pipe that nobody reads, a full disk) is dropped and counted, and the count is
    written in front of the next lines that go through. A line cut by a short write is completed first, so that no two
    lines are ever glued.
    """

    def __init__(self, file: LogFile, write: Callable[[int, bytes], int] = write_what_goes) -> None:
        """`write` has the contract of os.write."""
        self.file = file
        self.dropped = 0
        self._write = write
        self._lines: list[str] = []
        self._gathered = 0
        self._rest = b""

    def write(self, line: str) -> None:
        """Take one line, without its newline."""
        self._lines.append(line)
        self._gathered += len(line) + 1
        if self._gathered >= MAX_GATHERED_BYTES:
            self.flush()

    def forget(self) -> None:
        """Drop what has gathered: somebody else writes it."""
        self._lines, self._gathered, self._rest = [], 0, b""

    def flush(self) -> None:
        """Write what has gathered. Never raises, never waits for whoever reads it."""
        if not self._lines and not self._rest:
            return
        lines, self._lines, self._gathered = self._lines, [], 0
        if self._rest:
            self._rest = self._rest[self._try(self._rest) :]
        if self._rest:
            self.dropped += len(lines)
        elif lines:
            self._write_lines(lines)

    def _write_lines(self, lines: list[str]) -> None:
        note = (
            f"corelet: {self.dropped} access lines were dropped: the log could not be written" if self.dropped else ""
        )
        # latin-1 gives back the bytes the peer sent; an application may have put other text into the environ.
        data = ("\n".join([note, *lines] if note else lines) + "\n").encode("latin-1", "backslashreplace")
        written = self._try(data)
        if 0 < written < len(data):  # a signal, or a pipe nearly full: once more, then give up
            written += self._try(data[written:])
        if not written:
            self.dropped += len(lines)
            return
        if data[written - 1] != 0x0A:  # in the middle of a line: the rest of it goes first next time
            end = data.index(b"\n", written) + 1
            self._rest, written = data[written:end], end
        self.dropped = data.count(b"\n", written)

    def _try(self, data: bytes) -> int:
        try:
            return self._write(self.file.descriptor, data)
        except OSError:  # EAGAIN, ENOSPC, EPIPE, EIO: all the same to a request
            return 0
