"""The part of `uwsgi` that talks over descriptors: connect, send, recv, close.

As in uWSGI, what fails answers -1 or None and raises nothing. A descriptor in blocking mode is waited for by the core
alone; one in non-blocking mode, such as `async_connect` makes, is for `wait_fd_read` and `wait_fd_write`: `recv` then
answers None where there is nothing yet. `send` sends all of it on both.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from corelet.api.bridge import await_
from corelet.api.server import Server
from corelet.api.uwsgi.context import connection_of, core_of
from corelet.api.uwsgi.waits import wait_for
from corelet.serving.poller import IN, OUT, PEER_CLOSED

LIVE: dict[str, Callable[[], Any]] = {}

RECEIVE_BYTES = 4096
CONNECT_SECONDS = 3.0  # uWSGI's default for connect()


def names(server: Server) -> dict[str, Any]:
    """The plain attributes."""
    return {
        "async_connect": async_connect,
        "close": close,
        "connect": connect,
        "is_connected": is_connected,
        "recv": recv,
        "send": send,
    }


def async_connect(address: str | bytes, /) -> int:
    """Begin to connect to HOST:PORT or to a unix socket's path; the descriptor, or -1. It is writable when connected.

    A name is looked up first, in a thread, while other requests are served.
    """
    text = os.fsdecode(address)
    sock = None
    try:
        family, place = _place(text)
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        code = sock.connect_ex(place)
    except (OSError, ValueError):
        code = errno.EINVAL
    if sock is None:
        return -1
    if code not in (0, errno.EINPROGRESS):
        sock.close()
        return -1
    return sock.detach()


def _place(text: str) -> tuple[int, Any]:
    """(family, what connect takes). Raises OSError and ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon:
        return socket.AF_UNIX, "\0" + text[1:] if text.startswith("@") else text
    host = host.strip("[]") or "127.0.0.1"
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = core_of("async_connect").hub.loop
        found = await_(loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM))
    return found[0][0], found[0][4]


def connect(address: str | bytes, timeout: float = CONNECT_SECONDS, /) -> int:
    """Connect, waiting so many seconds at most; a descriptor in blocking mode, or -1."""
    core = core_of("connect")
    fd = async_connect(address)
    if fd < 0:
        return -1
    connected = False
    try:
        connected = wait_for(core, fd, OUT, timeout if timeout > 0 else None) and _error_of(fd) == 0
    finally:
        if not connected:
            os.close(fd)
    if not connected:
        return -1
    os.set_blocking(fd, True)
    return fd


def is_connected(fd: int, /) -> bool:
    """Whether the descriptor is a socket without an error; that its peer has closed is no error."""
    try:
        return _error_of(fd) == 0
    except OSError:
        return False


def _error_of(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        return int(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def send(*arguments: Any) -> bool | None:
    """send([fd,] data): send all of it, to the descriptor or raw to the client; True, or None where it fails."""
    if not 1 <= len(arguments) <= 2:
        raise TypeError(f"send() takes a descriptor and data, or data alone; {len(arguments)} values came")
    core = core_of("send")
    data = bytes(memoryview(arguments[-1]))
    if len(arguments) == 1:
        connection = connection_of(core)
        connection.last_reply()  # what is raw has no place among the messages of a connection that is kept
        connection.send(data)
        return True
    fd = arguments[0]
    rest = memoryview(data)
    try:
        while rest:
            try:
                rest = rest[_write(fd, rest) :]
            except BlockingIOError:
                wait_for(core, fd, OUT, None)
    except OSError:
        return None
    return True


def _write(fd: int, data: memoryview) -> int:
    """Write what there is room for. Raises BlockingIOError when there is none, whatever the descriptor's mode."""
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return sock.send(data, socket.MSG_DONTWAIT)
    except OSError as error:
        if error.errno != errno.ENOTSOCK:
            raise
    look = select.poll()
    look.register(fd, select.POLLOUT)
    if not look.poll(0):
        raise BlockingIOError
    return os.write(fd, data[: select.PIPE_BUF])  # so much a pipe that is writable takes without blocking (pipe(7))


def recv(fd: int, count: int = RECEIVE_BYTES, /) -> bytes | None:
    """1..count bytes; None at the end of file, after an error, and where a non-blocking descriptor has nothing yet."""
    core = core_of("recv")
    with contextlib.suppress(OSError):
        if os.get_blocking(fd):
            with contextlib.suppress(PermissionError):  # a file on a disk cannot be waited for, and need not be
                wait_for(core, fd, IN | PEER_CLOSED, None)
        return os.read(fd, count) or None
    return None


def close(fd: int, /) -> None:
    """Close a descriptor."""
    with contextlib.suppress(OSError):
        os.close(fd)
