"""Files that hold the master's process id, for scripts and for `corelet --stop FILE` and `--reload FILE`.

A reader (logrotate, monit, a script that says `kill $(cat …)`) may come at any moment, so a file appears whole, by a
rename. Where only the file may be written and not its folder (made beforehand and given to our user, or mounted alone
into a container), it is written in place: the new number over the old one, then cut, so that it is never empty.

At the end a file is removed only while it is the one that was written here and still holds our number: by then a new
server may have taken its place. One that was written as root in a folder of root's cannot be removed after privileges
are dropped; it stays, as uWSGI's does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from corelet.base.config import Config
from corelet.base.errors import OperatorError

logger = logging.getLogger("corelet.process")

# Everybody may read it, as uWSGI's. Nobody else may write it: whom root's scripts kill is in there.
FILE_MODE = 0o644
MAX_PID = 2**31 - 1
MAX_FILE_BYTES = 64  # more than a process id never needs


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One option that asks for a file."""

    option: str
    path: str
    safe: bool


@dataclass(frozen=True, slots=True)
class _Written:
    """A file that holds our process id, and which file that is."""

    wanted: _Wanted
    device: int
    inode: int
    pid: int

    def is_ours(self) -> bool:
        """Whether nobody has replaced it, or written another number into it. Raises OSError."""
        status = os.lstat(self.wanted.path)
        if (status.st_dev, status.st_ino) != (self.device, self.inode) or self.pid != os.getpid():
            return False
        try:
            return read_pid(self.wanted.path) == self.pid
        except ValueError:
            return False


class PidFiles:
    """The pid files of one configuration: check, write early, write late, retire.

    Paths are made absolute here, since chdir comes later.
    """

    def __init__(self, config: Config) -> None:
        self._early = _wanted(pidfile=config.pidfile, safe_pidfile=config.safe_pidfile)
        self._late = _wanted(pidfile2=config.pidfile2, safe_pidfile2=config.safe_pidfile2)
        self._written: list[_Written] = []

    def check(self, own: int | None = None) -> None:
        """Raise OperatorError if a safe file names a living process that is not ours (`own`; None: this one)."""
        own = os.getpid() if own is None else own
        for wanted in (*self._early, *self._late):
            if not wanted.safe:
                continue
            pid = _holder(wanted)
            if pid is not None and pid != own and _is_alive(pid):
                raise OperatorError(
                    f"{wanted.option} {wanted.path}: process {pid} ({_program(pid)}) is running; stop it first "
                    f"(corelet --stop {wanted.path}), or remove the file if that is another program"
                )

    def check_writable(self, own: int) -> None:
        """Raise OperatorError if a file that does not hold this id already could not be written. Changes nothing."""
        for wanted in (*self._early, *self._late):
            folder = os.path.dirname(wanted.path)
            if _holder(wanted) == own or os.access(folder, os.W_OK | os.X_OK) or os.access(wanted.path, os.W_OK):
                continue
            raise _cannot_be_written(wanted, os.strerror(errno.EACCES if os.path.isdir(folder) else errno.ENOENT))

    def write_early(self) -> None:
        """Write pidfile and safe-pidfile: before privileges are dropped. Raises OperatorError."""
        self._write(self._early)

    def write_late(self) -> None:
        """Write pidfile2 and safe-pidfile2: after privileges are dropped. Raises OperatorError."""
        self._write(self._late)

    def _write(self, wanted: tuple[_Wanted, ...]) -> None:
        self._written += [_write(file, os.getpid()) for file in wanted]

    def retire(self, vacuum: bool) -> None:
        """With `vacuum`, remove the files that are still ours. Never raises; a second call does nothing."""
        written, self._written = self._written, []
        for file in written if vacuum else ():
            try:
                if file.is_ours():
                    os.unlink(file.wanted.path)
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.info(
                    "%s %s stays behind: %s; nothing is wrong, the next start replaces it",
                    file.wanted.option,
                    file.wanted.path,
                    error.strerror,
                )


def _wanted(**paths: str | None) -> tuple[_Wanted, ...]:
    return tuple(
        _Wanted(name.replace("_", "-"), os.path.abspath(path), name.startswith("safe"))
        for name, path in paths.items()
        if path is not None
    )


# ---- reading ----


def read_pid(path: str) -> int | None:
    """The process id in the file, None if it is empty. Raises OSError, and ValueError if it holds something else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a fifo would wait for a writer
    try:
        data = os.read(descriptor, MAX_FILE_BYTES)
    finally:
        os.close(descriptor)
    text = data.strip(b" \t\r\n\0")  # some file systems fill a file with NUL when the power fails
    if not text:
        return None
    if not text.isdigit() or not 0 < int(text) <= MAX_PID:
        raise ValueError(f"expected a process id; got {text[:20].decode('ascii', 'backslashreplace')!r}")
    return int(text)


def _holder(wanted: _Wanted) -> int | None:
    """The process id in a file that we are to write, None if there is none. Raises OperatorError."""
    try:
        if not stat.S_ISREG(os.lstat(wanted.path).st_mode):
            # A rename would replace a device or a link; root writing through somebody's link would be worse.
            raise OperatorError(f"{wanted.option} {wanted.path}: that is no regular file; remove it, or name another")
        return read_pid(wanted.path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OperatorError(
            f"{wanted.option} {wanted.path}: {error}, so it is not ours to overwrite; remove it, or name another"
        ) from error
    except OSError as error:
        raise OperatorError(f"{wanted.option} {wanted.path}: cannot be read: {error.strerror}; name another") from error


def _is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and only waits for its parent to notice does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return _stat(pid).rpartition(")")[2].split()[:1] != ["Z"]


def _program(pid: int) -> str:
    return _stat(pid).partition("(")[2].rpartition(")")[0] or "of an unknown name"


def _stat(pid: int) -> str:
    """`/proc/PID/stat`: "PID (name) state …", or nothing; the name may itself hold brackets (proc_pid_stat(5))."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


# ---- writing ----


def _write(wanted: _Wanted, pid: int) -> _Written:
    """Have the file hold our process id. Raises OperatorError."""
    if _holder(wanted) != pid:  # after a re-exec it holds it already, and may no longer be ours to write
        data = b"%d\n" % pid
        try:
            _replace(wanted.path, data)
        except OSError as error:
            _overwrite(wanted, data, error)
    status = os.lstat(wanted.path)
    return _Written(wanted, status.st_dev, status.st_ino, pid)


def _replace(path: str, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    try:
        try:
            os.write(descriptor, data)
            os.fchmod(descriptor, FILE_MODE)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _overwrite(wanted: _Wanted, data: bytes, why: OSError) -> None:
    """Write into a file that is there already; `why` is what forbade to replace it."""
    try:
        descriptor = os.open(wanted.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise _cannot_be_written(wanted, why.strerror) from why
    try:
        os.write(descriptor, data)  # over the old number, which readers see until now
        os.ftruncate(descriptor, len(data))
    except OSError as error:
        raise OperatorError(
            f"{wanted.option} {wanted.path}: cannot be written: {error.strerror}; make room, or name another"
        ) from error
    finally:
        os.close(descriptor)


def _cannot_be_written(wanted: _Wanted, reason: str | None) -> OperatorError:
    return OperatorError(
        f"{wanted.option} {wanted.path}: cannot be written: {reason}; name a file in a folder that we may write to "
        "(systemd: RuntimeDirectory=)"
    )


# ---- using ----


def is_master(pid: int) -> bool:
    """Whether the process is a master, or may be one: false only for a corelet that surely is none.

    A master catches SIGCHLD, in the mask that the system shows of every process (proc_pid_status(5)); a server that
    is alone does not, unless its application does. Of other programs, and of those that have another name, nothing is
    known. A master that preloads its application hears of no signal yet, and SIGHUP would end it.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return True
    return b"corelet" not in map(os.path.basename, words) or bool(caught >> (signal.SIGCHLD - 1) & 1)


def signal_by_file(path: str, number: int, judge: Callable[[int], None] = lambda _pid: None) -> int:
    """Send the signal to the process that the file names, and return its id. Raises OperatorError, as `judge` may."""
    try:
        pid = read_pid(path)
    except FileNotFoundError as error:
        raise OperatorError(
            f"{path}: there is no such file; is the server running, and is this its pidfile?"
        ) from error
    except ValueError as error:
        raise OperatorError(f"{path}: {error}; name the pidfile of the server") from error
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read: {error.strerror}; name the pidfile of the server") from error
    if pid is None:
        raise OperatorError(f"{path}: expected a process id; the file is empty; name the pidfile of the server")
    judge(pid)
    try:
        os.kill(pid, number)
    except ProcessLookupError as error:
        raise OperatorError(f"{path}: there is no process {pid}: the server has ended; remove the file") from error
    except PermissionError as error:
        raise OperatorError(f"{path}: process {pid} is another user's; run this as root, or as that user") from error
    return pid
