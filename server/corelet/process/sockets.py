"""The listening sockets of a configuration: bound, taken over from systemd, and kept or replaced when it changes.

What an address *is* stands in base/address.py, what is special about a unix socket in unix_sockets.py, and how a
descriptor is judged that somebody else opened in inherited.py. Sockets come out listening and non-blocking, with the
options that accepted connections inherit on Linux, so that no accept pays for them.

A reload keeps each socket whose address is still configured, with all connections that wait in its backlog, and binds
the new ones before anything is given up: a configuration that cannot be bound changes nothing. What it cannot do is
refused with the reason. Two sockets cannot hold one address, not even for a moment, so an address that is served can
neither change its protocol nor be widened from 127.0.0.1 to all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import socket
from collections.abc import Iterable, Sequence

from corelet.base.address import Address
from corelet.base.config import Config
from corelet.base.errors import BindError
from corelet.process.inherited import assigned, known, look_at, place
from corelet.process.listening import ListeningSocket
from corelet.process.unix_sockets import make_file, owner_of, protect

__all__ = ["ListeningSocket", "bind", "bind_all", "rebind"]

log = logging.getLogger("corelet")

SOMAXCONN_FILE = "/proc/sys/net/core/somaxconn"


def bind(address: Address, config: Config) -> ListeningSocket:
    """A listening, non-blocking socket at the address, as the configuration wants it. Raises BindError."""
    if address.descriptor is not None:
        bound = look_at(address.descriptor, address.label)
        return _adopt(known(address, bound), address.descriptor, config)
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


def bind_all(config: Config, inherited: Sequence[int] = ()) -> list[ListeningSocket]:
    """A socket for every address of the configuration; all of them or, if one fails, none. Raises BindError.

    `inherited` are descriptors that systemd opened: each stands for the address it is bound to, which has to be in the
    configuration; if that names no socket at all, they are what is served.
    """
    _warn_of_long_backlog(config.listen)
    made: list[ListeningSocket] = []
    try:
        for address, descriptor in assigned(config.addresses, inherited, config.protocol):
            made.append(bind(address, config) if descriptor is None else _adopt(address, descriptor, config))
    except BaseException:
        _undo(made)
        raise
    return made


def _undo(made: Iterable[ListeningSocket]) -> None:
    """Leave things as they were before these sockets: ours are gone, those of others stay open for another try."""
    for sock in made:
        if sock.handed:
            sock.detach()
        else:
            sock.retire(vacuum=True)


def _adopt(address: Address, descriptor: int, config: Config) -> ListeningSocket:
    """Take a socket over that listens already. Its backlog, owner and mode were chosen by whoever made it."""
    _warn_if_exposed(address)
    sock = ListeningSocket.adopted(address, descriptor)
    sock.handed = True
    _set_tcp_options(sock, config)
    return sock


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


# ---- a changed configuration ----


def rebind(config: Config, present: list[ListeningSocket]) -> tuple[list[ListeningSocket], list[ListeningSocket]]:
    """The sockets that the configuration asks for, and those of the present ones that it no longer does.

    Equal are addresses of one kind, host, port, path and protocol. Every present socket is in exactly one of the lists;
    it is for the caller to retire the second. If the configuration names no address, the sockets of systemd stay. On
    failure BindError is raised, and nothing has changed. Relative paths are those of the current folder.
    """
    wanted = config.addresses or tuple(
        dataclasses.replace(sock.address, protocol=config.protocol)
        for sock in present
        if sock.handed and sock.address.descriptor is None
    )
    if not wanted:
        raise BindError("no socket is named any more: give --http-socket :9090, or --socket 127.0.0.1:3031 for nginx")
    kept, unwanted = _match(wanted, present)
    missing = [address for address, sock in zip(wanted, kept, strict=True) if sock is None]
    _warn_of_long_backlog(config.listen)
    fresh = _bind_missing(missing, present, unwanted, config)
    for sock in kept:
        if sock is not None:
            _renew_options(sock, config)
    _warn_of_forsaken(unwanted)
    return [sock or fresh.pop(0) for sock in kept], unwanted


def _match(
    wanted: Sequence[Address], present: Sequence[ListeningSocket]
) -> tuple[list[ListeningSocket | None], list[ListeningSocket]]:
    """For each address the socket that serves it already, or None; and the sockets that are left over."""
    left = list(present)
    kept: list[ListeningSocket | None] = []
    for address in wanted:
        key = (place(address), address.protocol)
        match = next((sock for sock in left if (place(sock.address), sock.address.protocol) == key), None)
        if match is not None:
            left.remove(match)
        kept.append(match)
    return kept, left


def _bind_missing(
    missing: Sequence[Address], present: Sequence[ListeningSocket], unwanted: Sequence[ListeningSocket], config: Config
) -> list[ListeningSocket]:
    fresh: list[ListeningSocket] = []
    try:
        for address in missing:
            _refuse_other_protocol(address, unwanted)
            _refuse_own_descriptor(address, [*present, *fresh])
            fresh.append(_bind_explained(address, unwanted, config))
    except BaseException:
        _undo(fresh)
        raise
    return fresh


def _bind_explained(address: Address, unwanted: Sequence[ListeningSocket], config: Config) -> ListeningSocket:
    try:
        return bind(address, config)
    except BindError as error:
        # What is in the way may be a socket of our own that this very reload would have closed.
        for sock in unwanted:
            if address.is_tcp and sock.address.is_tcp and sock.address.port == address.port:
                raise BindError(
                    f"{error}; our own {sock.address.label} is open until the reload is over, so an address that "
                    "overlaps it takes a restart"
                ) from error
        raise


def _refuse_other_protocol(address: Address, unwanted: Sequence[ListeningSocket]) -> None:
    for sock in unwanted:
        if place(sock.address) == place(address):
            raise BindError(
                f"{address.label} speaks {sock.address.protocol} so far: what a socket speaks is not changed while "
                f"clients use it; restart the server to make it {address.protocol}, or choose another address"
            )


def _refuse_own_descriptor(address: Address, ours: Sequence[ListeningSocket]) -> None:
    """A number that was not passed on may be one of our own sockets by now."""
    for sock in ours:
        if address.descriptor is not None and sock.fileno() == address.descriptor:
            raise BindError(
                f"{address.label} is our own socket {sock.name}, and none that was passed on to us; only a start takes "
                "descriptors over: restart the server"
            )


def _renew_options(sock: ListeningSocket, config: Config) -> None:
    """What may have changed in the configuration and can change on an open socket."""
    _set_tcp_options(sock, config)
    if not sock.handed:
        sock.listen(config.listen)


def _warn_of_forsaken(unwanted: Sequence[ListeningSocket]) -> None:
    for sock in unwanted:
        if sock.handed:
            log.warning(
                "%s is no longer served, but whoever opened it for us (systemd) keeps it open: clients that connect "
                "will wait; stop its .socket unit, or name it again",
                sock.name,
            )


# ---- TCP ----


def _bind_tcp(sock: ListeningSocket, config: Config) -> None:
    address = sock.address
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if config.reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if address.kind == "tcp6":
        # One socket, one family: [::]:80 beside :80 is then no clash, and IPv4 peers are not logged as ::ffff:…
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind((address.host, address.port))
    except OSError as error:
        raise BindError(_tcp_message(address, error)) from error
    _set_tcp_options(sock, config)


def _set_tcp_options(sock: ListeningSocket, config: Config) -> None:
    """Set what accepted connections inherit on Linux (tcp(7)), so that no accept pays a system call for it."""
    if not sock.address.is_tcp:
        return
    if config.so_keepalive or not sock.handed:  # what a .socket unit says (KeepAlive=) is not taken back
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(config.so_keepalive))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(config.tcp_nodelay))
    # A uwsgi connection carries one reply, and most replies are one write and a close: under the cork both leave in one
    # segment, which wakes the front end once and saves 5 µs of 45 for a request (measured). UwsgiConnection.send takes
    # the cork off a reply that goes out in pieces.
    if sock.address.protocol == "uwsgi" and hasattr(socket, "TCP_CORK"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    # The kernel shows a connection only once it has sent something, as uWSGI does (core/socket.c:751): a peer that
    # connects and says nothing, or a probe that connects and closes, costs no accept. Over the time-out it is shown.
    if hasattr(socket, "TCP_DEFER_ACCEPT"):
        seconds = 0 if config.no_defer_accept else max(1, int(config.head_timeout or config.socket_timeout))
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
    owner = None if config.chown_socket is None else owner_of(config.chown_socket)
    sock.file = make_file(sock, sock.address)
    protect(sock.address, owner, config.chmod_socket)
