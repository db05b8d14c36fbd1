"""Addresses to listen at, as uWSGI's users write them, as values.

    127.0.0.1:3031    one IPv4 address            :9090      every IPv4 address, as in uWSGI
    [::1]:9090        one IPv6 address            [::]:80    every IPv6 address
    localhost:8080    resolved once, here         app.sock   a unix socket, relative to the folder of the start
    /run/app.sock     a unix socket               @name      an abstract unix socket (Linux); also \\0name
    fd://3            a descriptor that listens already, opened by whoever starts us

Reading is strict where uWSGI is lenient: there, `--http-socket 9090` makes a unix socket of that name and a port of
99999 wraps around. It opens nothing; the only thing it asks of the machine is what a host name stands for.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass

from corelet.base.errors import ConfigError

# sockaddr_un.sun_path is 108 bytes on Linux, the terminating NUL included (unix(7)).
MAX_UNIX_PATH_BYTES = 107

MAX_DESCRIPTOR = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `kind` is tcp4, tcp6, unix, abstract or fd; `protocol` is uwsgi or http.

    `host` (numeric) and `port` belong to TCP, `path` to unix sockets (abstract: the name without its leading NUL);
    `descriptor` is the number of an fd:// address, and stays with it when the kind of its socket has become known;
    `label` is the address as the operator wrote it, for messages.
    """

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""
    protocol: str = "uwsgi"
    label: str = ""
    descriptor: int | None = None

    @property
    def is_tcp(self) -> bool:
        """Whether it is a TCP address, of either version."""
        return self.kind in ("tcp4", "tcp6")

    @property
    def is_exposed(self) -> bool:
        """Whether the world may reach it: every address of this machine, or one neither loopback nor private."""
        if not self.is_tcp:
            return False
        ip = ipaddress.ip_address(self.host.partition("%")[0])
        return ip.is_unspecified or not (ip.is_loopback or ip.is_private or ip.is_link_local)


def _look_up(host: str) -> list[str]:
    """The numeric addresses of a host name, IPv4 before IPv6 as uWSGI (gethostbyname) would have it."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return [str(entry[4][0]) for entry in found]


def parse(text: str, protocol: str = "uwsgi", look_up: Callable[[str], list[str]] = _look_up) -> Address:
    """The Address that the text means. Raises ConfigError that says what is wrong and what would be right.

    `look_up` turns a host name into numeric addresses and may raise OSError.
    """
    label = text.strip()
    if not label:
        raise ConfigError("an address is expected, such as 127.0.0.1:3031 or /run/app.sock; got an empty value")
    if any(ord(character) < 0x20 for character in label):
        raise ConfigError(f"{label!r} holds a control character")
    if label[0] == "@" or label.startswith("\\0"):
        return _abstract(label, protocol)
    if label.startswith("fd://"):
        return _descriptor(label, protocol)
    if "://" in label:
        raise ConfigError(f"{label}: a URL is no address; write host:port, a path, or fd://3 for an open descriptor")
    if label[0] in "/.":
        return _unix(label, protocol)
    if label[0] == "[":
        return _bracketed(label, protocol)
    if ":" not in label:
        _refuse_likely_mistake(label)
        return _unix(label, protocol)
    return _tcp(label, protocol, look_up)


def _abstract(label: str, protocol: str) -> Address:
    name = label[1:] if label[0] == "@" else label[2:]
    if not name:
        raise ConfigError(f"{label}: an abstract socket needs a name, such as @app")
    if len(name.encode("utf-8", "surrogateescape")) > MAX_UNIX_PATH_BYTES:
        raise ConfigError(f"{label}: the name is longer than the {MAX_UNIX_PATH_BYTES} bytes that the system allows")
    return Address("abstract", path=name, protocol=protocol, label=label)


def _descriptor(label: str, protocol: str) -> Address:
    digits = label.removeprefix("fd://")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 10 or int(digits) > MAX_DESCRIPTOR:
        raise ConfigError(f"{label}: a descriptor is a number, such as fd://3; got {digits or 'nothing'}")
    return Address("fd", protocol=protocol, label=label, descriptor=int(digits))


def _unix(label: str, protocol: str) -> Address:
    size = len(label.encode("utf-8", "surrogateescape"))
    if size > MAX_UNIX_PATH_BYTES:
        raise ConfigError(
            f"{label}: a unix socket's path has at most {MAX_UNIX_PATH_BYTES} bytes, this one {size}; use a shorter "
            "folder such as /run"
        )
    return Address("unix", path=label, protocol=protocol, label=label)


def _refuse_likely_mistake(label: str) -> None:
    """A word without a colon is a relative path, but not when everything says that something else was meant."""
    if label.isdecimal():
        raise ConfigError(f"{label} has no colon: write :{label} for the port, or ./{label} for a unix socket")
    try:
        ipaddress.IPv4Address(label)
    except ValueError:
        if label != "localhost":
            return
    raise ConfigError(f"{label} has no port: write {label}:3031, or ./{label} for a unix socket")


def _bracketed(label: str, protocol: str) -> Address:
    inside, closed, rest = label[1:].partition("]")
    rest = rest.strip()
    if not closed or not rest.startswith(":"):
        raise ConfigError(f"{label}: an IPv6 address is written [::1]:9090")
    host = inside.strip()
    try:
        ipaddress.IPv6Address(host)
    except ValueError as error:
        raise ConfigError(f"{label}: {host or 'nothing'} is no IPv6 address") from error
    return Address("tcp6", host=host, port=_port(rest[1:], label), protocol=protocol, label=label)


def _tcp(label: str, protocol: str, look_up: Callable[[str], list[str]]) -> Address:
    host, _, port_text = label.rpartition(":")
    host = host.strip()
    if ":" in host:
        raise ConfigError(f"{label}: an IPv6 address needs brackets: [{host}]:{port_text.strip()}")
    port = _port(port_text, label)
    if "*" in host:
        raise ConfigError(f"{label}: patterns of addresses are not read; write :{port} for every address")
    numeric = _numeric(host, label, look_up) if host else "0.0.0.0"
    kind = "tcp6" if ":" in numeric else "tcp4"
    return Address(kind, host=numeric, port=port, protocol=protocol, label=label)


def _numeric(host: str, label: str, look_up: Callable[[str], list[str]]) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass
    try:
        found = look_up(host)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{label}: the host {host} cannot be resolved ({error}); write its number instead") from error
    if not found:
        raise ConfigError(f"{label}: the host {host} has no address; write its number instead")
    return found[0]


def _port(text: str, label: str) -> int:
    digits = text.strip()
    # 0 asks the kernel for a free port, as in uWSGI ("port auto-assigned").
    if not (digits.isascii() and digits.isdecimal()) or int(digits) > 65535:
        raise ConfigError(f"{label}: a port is a number from 0 to 65535; got {digits or 'nothing'}")
    return int(digits)
