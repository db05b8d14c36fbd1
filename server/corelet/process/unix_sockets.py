"""Unix sockets as files: bound under a narrow umask, given an owner and a mode, never put in the place of a live one.

A unix socket is a file that anybody with write permission on it may connect to, so its permissions are narrow before
it exists (umask) and final before it listens. A file that is there already is removed only if it is a socket that
nobody listens on.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat

from corelet.base.address import Address
from corelet.base.errors import BindError

# A socket file is made with 0777 minus the umask: nobody but owner and group may connect, for which they need to write.
SOCKET_UMASK = 0o117

MAX_ID = 2**32 - 2  # 2**32 - 1 is -1 to chown(2), which means "leave it as it is"


def make_file(sock: socket.socket, address: Address) -> tuple[str, int, int]:
    """Bind the socket to its path. Returns which file that made: absolute path, device, inode. Raises BindError."""
    _remove_stale(address)
    # The umask belongs to the whole process: nothing else runs yet when sockets are made. The usual 022 takes the right
    # to write, which is all that a socket's group needs; one that gives the group nothing (077) is obeyed.
    before = os.umask(SOCKET_UMASK | 0o077)
    if before & 0o070 != 0o070:
        os.umask(SOCKET_UMASK)
    try:
        sock.bind(address.path)
    except OSError as error:
        raise BindError(_unix_message(address, error)) from error
    finally:
        os.umask(before)
    status = os.lstat(address.path)
    return (os.path.abspath(address.path), status.st_dev, status.st_ino)  # absolute, since chdir comes later


def protect(address: Address, owner: tuple[int, int] | None, mode: int | None) -> None:
    """Give the file its owner (user id, group id; -1 = as it is) and its mode. Raises BindError."""
    try:
        if owner is not None:
            os.chown(address.path, *owner)
        if mode is not None:
            os.chmod(address.path, mode)
    except OSError as error:
        raise BindError(
            f"cannot give {address.label} the owner or mode that chown-socket and chmod-socket ask for: "
            f"{error.strerror}; only root may give files away, and others only to groups they are in"
        ) from error


def remove_if_same(file: tuple[str, int, int]) -> None:
    """Remove a file that `make_file` made, unless somebody else has put another there. Never raises."""
    path, device, inode = file
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        if (status.st_dev, status.st_ino) == (device, inode):
            os.unlink(path)


def owner_of(text: str) -> tuple[int, int]:
    """(user id, group id) of `user`, `user:group` or `:group`, by name or number; -1 leaves one as it is."""
    user, _, group = text.partition(":")
    try:
        uid = -1 if not user else int(user) if _is_number(user) else pwd.getpwnam(user).pw_uid
        gid = -1 if not group else int(group) if _is_number(group) else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise BindError(
            f"chown-socket {text}: {error.args[0]}; names are those of /etc/passwd and /etc/group"
        ) from error
    if max(uid, gid) > MAX_ID:
        raise BindError(f"chown-socket {text}: expected names, or numbers from 0 to {MAX_ID}; got {max(uid, gid)}")
    return uid, gid


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _remove_stale(address: Address) -> None:
    """Remove a socket that nobody listens on. Raises BindError for anything else at that path."""
    try:
        status = os.lstat(address.path)
    except OSError:
        return  # nothing is there, or bind will say why it cannot be seen
    if not stat.S_ISSOCK(status.st_mode):
        raise BindError(
            f"cannot listen on {address.label}: a file that is no socket is there; remove it, or choose another"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        outcome = probe.connect_ex(address.path)
    if outcome == errno.ECONNREFUSED:
        with contextlib.suppress(FileNotFoundError):
            _unlink(address)
        return
    if outcome in (errno.EACCES, errno.EPERM):
        raise BindError(f"cannot listen on {address.label}: a socket of somebody else is there; is its owner running?")
    if outcome != errno.ENOENT:  # 0, or EAGAIN: its backlog is full
        raise BindError(f"cannot listen on {address.label}: something listens there already; `ss -lxp` names it")


def _unlink(address: Address) -> None:
    try:
        os.unlink(address.path)
    except PermissionError as error:
        raise BindError(
            f"cannot remove the stale socket {address.label}: {error.strerror}; remove it by hand"
        ) from error


def _unix_message(address: Address, error: OSError) -> str:
    folder = os.path.dirname(address.path) or "."
    advice = {
        errno.ENOENT: f"there is no folder {folder}; make it first (systemd: RuntimeDirectory=)",
        errno.EACCES: f"we may not write to {folder}; choose another folder or give us permission",
        errno.EPERM: f"we may not write to {folder}; choose another folder or give us permission",
        errno.ENOTDIR: f"{folder} is no folder",
        errno.EROFS: f"{folder} cannot be written to at all; choose another, such as /run or /tmp",
    }.get(error.errno or 0, "")
    return f"cannot listen on {address.label}: {error.strerror}" + (f"; {advice}" if advice else "")
