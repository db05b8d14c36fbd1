"""The folder that the caches of this machine are in: made before the first fork, handed on, and removed at the end.

It lies in memory (/dev/shm) if there is room for all that the caches may hold, else where temporary files go. Its lock
is held by the master and by every worker, for as long as one of them lives: so a folder whose lock nobody holds was
left by a server that was killed, and the next start removes it. It belongs to the user who the workers are, alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass
from typing import Any, Self

from corelet.base.config import Config
from corelet.base.errors import OperatorError
from corelet.process.privileges import Identity

logger = logging.getLogger("corelet.process")

PREFIX = "corelet-cache-"
MEMORY = "/dev/shm"  # noqa: S108 - tmpfs on every Linux; the folder in it is ours alone, and has a name of chance
LOCK = "lock"
ROOM_FACTOR = 1.5  # pages are not filled to the last byte, and the log needs its own


@dataclass
class CacheFolder:
    """The folder, once it is there. `owner` is whom the workers become, if that is not who we are."""

    owner: Identity | None = None
    path: str | None = None
    lock: int = -1

    def provide(self, config: Config) -> str | None:
        """The path of the folder, made if caches of this machine are configured. Raises OperatorError."""
        needed = sum(spec.most_bytes for spec in config.caches if not spec.backend)
        if self.path is not None and os.path.isdir(self.path):
            return self.path
        if not needed:
            return None
        parent = _parent_for(needed)
        self._remove_stale()
        path = os.path.join(parent, PREFIX + secrets.token_hex(8))
        try:
            os.mkdir(path, 0o700)
            # Locked before it has its name: whoever looks for stale folders passes over one without a lock's file.
            self.lock = os.open(f"{path}/new", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self.lock, fcntl.LOCK_EX)
            os.rename(f"{path}/new", f"{path}/{LOCK}")
            if self.owner is not None:
                os.fchown(self.lock, self.owner.uid, self.owner.gid)
                os.chown(path, self.owner.uid, self.owner.gid, follow_symlinks=False)
        except OSError as error:
            raise OperatorError(
                f"no folder for the caches can be made in {parent}: {error.strerror}; let TMPDIR name one that has room"
            ) from error
        self.path = path
        logger.info("the caches are in %s (up to %d MB)", path, needed // 2**20 + 1)
        return path

    def provide_or_say(self, config: Config) -> str | None:
        """The same while the server runs: what is wrong is said in the log, and the caches are empty and full."""
        try:
            return self.provide(config)
        except OperatorError as error:
            logger.error("%s", error)
            return None

    def remove(self) -> None:
        """Leave nothing behind."""
        if self.path is not None:
            _remove(self.path)
            os.close(self.lock)
            self.path = None

    # -- over an exec ---------------------------------------------------------------------------------------------

    def handover(self) -> dict[str, Any] | None:
        """What `adopt` needs after an exec; the lock survives it."""
        if self.path is None:
            return None
        os.set_inheritable(self.lock, True)
        return {"path": self.path, "lock": self.lock}

    def keep(self) -> None:
        """The lock survives no exec any more."""
        if self.path is not None:
            os.set_inheritable(self.lock, False)

    @classmethod
    def adopt(cls, owner: Identity | None, left: dict[str, Any] | None) -> Self:
        """What the program before has left, if anything."""
        if left is None:
            return cls(owner)
        folder = cls(owner, str(left["path"]), int(left["lock"]))
        folder.keep()
        return folder

    # -- what others have left ------------------------------------------------------------------------------------

    def _remove_stale(self) -> None:
        uid = os.geteuid() if self.owner is None else self.owner.uid
        for parent in {MEMORY, tempfile.gettempdir()}:
            with contextlib.suppress(OSError):
                for entry in os.scandir(parent):
                    if entry.name.startswith(PREFIX) and _is_stale(entry.path, uid):
                        logger.info("removing %s, which a server that was killed has left", entry.path)
                        _remove(entry.path)


def _parent_for(needed_bytes: int) -> str:
    try:
        room = os.statvfs(MEMORY)
    except OSError:
        return tempfile.gettempdir()
    enough = room.f_bavail * room.f_frsize >= needed_bytes * ROOM_FACTOR
    return MEMORY if enough and os.access(MEMORY, os.W_OK | os.X_OK) else tempfile.gettempdir()


def _is_stale(path: str, uid: int) -> bool:
    """Whether it is that user's own folder, and nobody holds its lock."""
    try:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
            return False
        lock = os.open(f"{path}/{LOCK}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _remove(path: str) -> None:
    """The folder and the files in it; not a step further, whatever somebody has put there."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)
        os.rmdir(path)
