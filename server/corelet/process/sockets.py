"""Listening sockets: made, protected, warned about, and cleaned up after.

Everything about an address that needs the machine is here; what an address *is* stands in base/address.py. The sockets
come out listening and non-blocking, with the options that accepted connections inherit on Linux, so that no accept
pays for them.

A unix socket is a file that anybody with write permission on it may connect to, so its permissions are narrow before
it exists (umask) and final before it listens. A file that is there already is removed only if it is a socket that
nobody listens on; at the end it is removed only if it is still the file that was made here, since a new server may
have taken its place by then.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import pwd
import socket
import stat
from typing import Self

from corelet.base.address import Address
from corelet.base.config import Config
from corelet.base.errors import BindError

log = logging.getLogger("corelet")

# A socket file is made with 0777 minus the umask: nobody but owner and group may connect, for which they need to write.
SOCKET_UMASK = 0o117

SOMAXCONN_FILE = "/proc/sys/net/core/somaxconn"


class ListeningSocket(socket.socket):
    """A listening, non-blocking socket that knows its address and, if it is a unix socket, its own file."""

    def __init__(self, family: socket.AddressFamily, address: Address) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.address = address
        self._file: tuple[str, int, int] | None = None

    @classmethod
    def made(cls, address: Address) -> Self:
        """An unbound socket of the address's family. Raises BindError where the machine has no such family."""
        families = {"tcp4": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX, "abstract": socket.AF_UNIX}
        try:
            return cls(families[address.kind], address)
        except OSError as error:
            raise BindError(f"cannot make a socket for {address.label}: {error.strerror}") from error

    @property
    def name(self) -> str:
        """The address in full, with the port that the kernel chose if 0 was asked for; for the log."""
        if not self.address.is_tcp:
            return self.address.label
        host, port = self.getsockname()[:2]
        return f"[{host}]:{port}" if self.address.kind == "tcp6" else f"{host}:{port}"

    def remember_file(self) -> None:
        """Note which file this socket is, by device and inode; absolute, since chdir comes later."""
        status = os.lstat(self.address.path)
        self._file = (os.path.abspath(self.address.path), status.st_dev, status.st_ino)

    def retire(self, vacuum: bool) -> None:
        """Close the socket and, with `vacuum`, remove its file if it is still ours. Never raises."""
        self.close()
        if self._file is None or not vacuum:
            return
        path, device, inode = self._file
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if (status.st_dev, status.st_ino) == (device, inode):
                os.unlink(path)


def bind(address: Address, config: Config) -> ListeningSocket:
    """A listening, non-blocking socket at the address, as the configuration wants it. Raises BindError."""
    _warn_if_exposed(address)
    sock = ListeningSocket.made(address)
    try:
        if address.is_tcp:
            _bind_tcp(sock, config)
        elif address.kind == "abstract":
            _bind_abstract(sock)
        else:
            _bind_unix(sock, config)
        sock.listen(config.listen)
        sock.setblocking(False)
    except BaseException:
        sock.retire(vacuum=True)
        raise
    return sock


def bind_all(config: Config) -> list[ListeningSocket]:
    """A socket for every address of the configuration; all of them or, if one fails, none. Raises BindError."""
    _warn_of_long_backlog(config.listen)
    made: list[ListeningSocket] = []
    try:
        for address in config.addresses:
            made.append(bind(address, config))
    except BaseException:
        for sock in made:
            sock.retire(vacuum=True)
        raise
    return made


def _warn_if_exposed(address: Address) -> None:
    if address.protocol == "uwsgi" and address.is_exposed:
        log.warning(
            "socket %s speaks uwsgi and other machines may reach it: whoever connects is believed like nginx "
            "(REMOTE_ADDR, REMOTE_USER, HTTPS); bind it to 127.0.0.1 or a unix socket, or keep a firewall before it",
            address.label,
        )


def _warn_of_long_backlog(backlog: int) -> None:
    """uWSGI refuses to start then; the kernel only cuts the number, so a word is enough."""
    with contextlib.suppress(OSError, ValueError), open(SOMAXCONN_FILE, encoding="ascii") as file:
        most = int(file.read())
        if backlog > most:
            log.warning("listen %d: the system allows %d; raise net.core.somaxconn for more", backlog, most)


# ---- TCP ----


def _bind_tcp(sock: ListeningSocket, config: Config) -> None:
    address = sock.address
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address.kind == "tcp6":
        # One socket, one family: [::]:80 beside :80 is then no clash, and IPv4 peers are not logged as ::ffff:…
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind((address.host, address.port))
    except OSError as error:
        raise BindError(_tcp_message(address, error)) from error
    # Inherited by accepted connections on Linux (tcp(7)), so no accept pays a system call for it.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A uwsgi connection carries one reply, and most replies are one write and a close: under the cork both leave in one
    # segment, which wakes the front end once and saves 5 µs of 45 for a request (measured). UwsgiConnection.send takes
    # the cork off a reply that goes out in pieces.
    if address.protocol == "uwsgi" and hasattr(socket, "TCP_CORK"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    # The kernel shows a connection only once it has sent something, as uWSGI does (core/socket.c:751): a peer that
    # connects and says nothing, or a probe that connects and closes, costs no accept. Over the time-out it is shown.
    if hasattr(socket, "TCP_DEFER_ACCEPT"):
        seconds = max(1, int(config.head_timeout or config.socket_timeout))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, seconds)


def _tcp_message(address: Address, error: OSError) -> str:
    advice = {
        errno.EADDRINUSE: f"something listens there already; `ss -ltnp sport = :{address.port}` names it",
        errno.EACCES: "a port below 1024 needs root or CAP_NET_BIND_SERVICE; choose a higher one and let nginx have it",
        errno.EADDRNOTAVAIL: f"this machine has no address {address.host}; `ip address` lists what it has",
    }.get(error.errno or 0, "")
    return f"cannot listen on {address.label}: {error.strerror}" + (f"; {advice}" if advice else "")


# ---- unix sockets ----


def _bind_abstract(sock: ListeningSocket) -> None:
    address = sock.address
    try:
        sock.bind("\0" + address.path)
    except OSError as error:
        advice = "; something listens there already" if error.errno == errno.EADDRINUSE else ""
        raise BindError(f"cannot listen on {address.label}: {error.strerror}{advice}") from error


def _bind_unix(sock: ListeningSocket, config: Config) -> None:
    address = sock.address
    owner = None if config.chown_socket is None else _owner(config.chown_socket)
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
    sock.remember_file()
    try:
        if owner is not None:
            os.chown(address.path, *owner)
        if config.chmod_socket is not None:
            os.chmod(address.path, config.chmod_socket)
    except OSError as error:
        raise BindError(
            f"cannot give {address.label} the owner or mode that chown-socket and chmod-socket ask for: "
            f"{error.strerror}; only root may give files away, and others only to groups they are in"
        ) from error


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


def _owner(text: str) -> tuple[int, int]:
    """(user id, group id) of `user`, `user:group` or `:group`, by name or number; -1 leaves one as it is."""
    user, _, group = text.partition(":")
    try:
        uid = -1 if not user else int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        gid = -1 if not group else int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise BindError(
            f"chown-socket {text}: {error.args[0]}; names are those of /etc/passwd and /etc/group"
        ) from error
    return uid, gid
