"""Sockets that somebody else has opened for us: fd://N, and those of a systemd .socket unit.

A descriptor is only a number, so it is looked at before it is believed: one that was never passed on may be a log file,
and one that does not listen would be a server that never answers. Then it is decided, as a pure function, which
descriptor stands for which address of the configuration. A socket of systemd that no option names is refused: nobody
has said which protocol its clients speak, and if it were let be, the kernel would queue them for ever.

Nothing is bound here, and no socket is kept: sockets.py does both.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import socket
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence

from corelet.base.address import Address
from corelet.base.errors import BindError

KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def look_at(descriptor: int, who: str) -> Address:
    """The address that a descriptor listens at, with no protocol yet. Raises BindError that says what it is instead.

    `who` is whoever named the descriptor, for the message.
    """
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError as error:
        raise BindError(
            f"{who}: expected a listening socket; descriptor {descriptor} is not open; whatever starts us has to open "
            "it and to pass it on"
        ) from error
    if not stat.S_ISSOCK(mode):
        raise _unfit(who, descriptor, KINDS.get(stat.S_IFMT(mode), "no socket"))
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        what = _flaw(sock)
        if what:
            raise _unfit(who, descriptor, what)
        return _bound_to(sock)


def _unfit(who: str, descriptor: int, what: str) -> BindError:
    return BindError(
        f"{who}: expected a listening stream socket; descriptor {descriptor} is {what}; check the numbers, and what "
        "starts us"
    )


def _flaw(sock: socket.socket) -> str:
    """What makes a socket useless as a listener, or nothing."""
    if sock.type != socket.SOCK_STREAM:
        return {socket.SOCK_DGRAM: "a datagram socket"}.get(sock.type, "a socket without a stream")
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        return f"a socket of the address family {int(sock.family)}"
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return ""
    try:
        sock.getpeername()
    except OSError:
        return "a socket that does not listen"
    return "a connection (a .socket unit needs Accept=no)"


def _bound_to(sock: socket.socket) -> Address:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        if isinstance(name, bytes):  # so Python shows abstract ones, with their leading NUL
            path = os.fsdecode(name[1:])
            return Address("abstract", path=path, label=f"@{path}")
        return Address("unix", path=name, label=name)
    host, port = name[:2]
    if sock.family == socket.AF_INET6:
        return Address("tcp6", host=host, port=port, label=f"[{host}]:{port}")
    return Address("tcp4", host=host, port=port, label=f"{host}:{port}")


def place(address: Address) -> tuple[object, ...]:
    """What two addresses have in common that would be one socket, however they were written."""
    if address.descriptor is not None:
        return ("fd", address.descriptor)
    if address.is_tcp:
        return (address.kind, ipaddress.ip_address(address.host), address.port)
    if address.kind == "abstract":
        return (address.kind, address.path)
    folder, name = os.path.split(address.path)
    # The folder only: systemd says /run/app.sock where people write /var/run/app.sock.
    return (address.kind, os.path.join(os.path.realpath(folder), name))


def assigned(addresses: Sequence[Address], inherited: Sequence[int], protocol: str) -> list[tuple[Address, int | None]]:
    """Look at all descriptors that are inherited or named by an fd:// address, and assign them. Raises BindError.

    To be called before anything is bound: a number that was not passed on would otherwise be one of our own by then.
    """
    found = {descriptor: look_at(descriptor, "systemd (LISTEN_FDS)") for descriptor in inherited}
    for address in addresses:
        if address.descriptor is not None and address.descriptor not in found:
            found[address.descriptor] = look_at(address.descriptor, address.label)
    return assign(addresses, found, inherited, protocol)


def assign(
    addresses: Sequence[Address], found: Mapping[int, Address], given: Collection[int], protocol: str
) -> list[tuple[Address, int | None]]:
    """Each address to serve with the descriptor that stands for it, or None where a socket is to be bound.

    `found` tells where the descriptors listen, those of fd:// addresses and those of systemd; the latter are `given`,
    and each of them has to be used. Without any address they all are, and speak `protocol`. Raises BindError.
    """
    if not addresses:
        return [(dataclasses.replace(found[descriptor], protocol=protocol), descriptor) for descriptor in given]
    left = dict(found)
    # Those that name a number first: what they take cannot stand for another address too.
    order = sorted(range(len(addresses)), key=lambda index: addresses[index].descriptor is None)
    claims = {index: _claim(addresses[index], left) for index in order}
    _refuse_unused(left[descriptor] for descriptor in given if descriptor in left)
    return [
        (address if address.descriptor is None else known(address, found[address.descriptor]), claims[index])
        for index, address in enumerate(addresses)
    ]


def _claim(address: Address, left: dict[int, Address]) -> int | None:
    """Take the descriptor that stands for the address out of `left`."""
    if address.descriptor is not None:
        if left.pop(address.descriptor, None) is None:
            raise BindError(f"{address.label} is named twice; a descriptor can be one socket only: remove one of them")
        return address.descriptor
    wanted = place(address)
    for descriptor, bound in left.items():
        if place(bound) == wanted:
            del left[descriptor]
            return descriptor
    return None


def known(address: Address, bound: Address) -> Address:
    """The address of fd://N with all that a look at it has told."""
    return dataclasses.replace(bound, protocol=address.protocol, label=address.label, descriptor=address.descriptor)


def _refuse_unused(unused: Iterable[Address]) -> None:
    lines = [
        f"systemd hands over a socket that no option names: {bound.label}; add --socket {bound.label} or --http-socket "
        f"{bound.label}, or take it out of the .socket unit"
        for bound in unused
    ]
    if lines:
        raise BindError("\n".join(lines))
