"""A stage for tests that decide who goes when: an application that is told to go on, a peer that reads its replies.

`PRELUDE` is put before a test's own views. A view stops at a gate and says so in the log; the test sees the line and
opens the gate with `tell`, a datagram that the application's own reader on the loop evaluates. So nothing has to sleep,
and the datagram needs no core: it gets through when all of them are busy.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Iterator

from harness import PATIENCE_SECONDS, Server, read_until

from uwsgiproto.client import Reply, build_request, parse_reply, request_variables

PRELUDE = '''
import asyncio, contextlib, contextvars, os, socket, sys, threading, time, weakref
import greenlet
from urllib.parse import parse_qs

LOOP = asyncio.get_event_loop()      # at import: it must be the loop that serves
CONTROL = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
CONTROL.setblocking(False)
CONTROL.bind("control")
WAITING = {}                         # gate name -> what opens it


def say(*words):
    print(*words, flush=True)


def control():
    number, _, expression = CONTROL.recv(65536).decode().partition(" ")
    try:
        result = eval(expression, globals())
    except Exception as error:
        result = error
    say(f"told {number}: {result!r}.")


def open_gate(name, *values):
    WAITING.pop(name)(*(values or ("opened",)))


def gate(name):
    """Suspend this core by a raw switch until a test says open_gate(name)."""
    me = greenlet.getcurrent()
    WAITING[name] = me.switch
    say(f"at gate {name}.")
    return me.parent.switch()


def future_gate(name):
    """A Future that open_gate(name) fulfils."""
    future = LOOP.create_future()
    WAITING[name] = future.set_result
    say(f"at gate {name}.")
    return future


def text(start_response, *words):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(map(str, words)).encode("latin-1")]


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/") or "hello"
    return globals()["view_" + name](environ, start_response)


def view_hello(environ, start_response):
    return text(start_response, "hello")


def view_gate(environ, start_response):
    return text(start_response, gate(environ["QUERY_STRING"]), environ["uwsgi.core"])


LOOP.add_reader(CONTROL, control)
'''

_numbers = itertools.count(1)


def unique(name: str = "g") -> str:
    """A name that no other test of this run has: for gates of a server that many tests share."""
    return f"{name}{next(_numbers)}"


def tell(server: Server, expression: str) -> str:
    """Evaluate an expression inside the server, on its loop, outside every core; returns the repr of the result."""
    number = next(_numbers)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(f"{number} {expression}".encode(), os.path.join(server.folder, "control"))
    line = server.log.wait_for(f"told {number}: ")
    return line.partition(": ")[2].removesuffix(".")


def open_gate(server: Server, name: str, *values: object) -> None:
    """Let the request go on that waits at this gate; waits until it has come there."""
    at_gate(server, name)
    result = tell(server, f"open_gate({', '.join(map(repr, (name, *values)))})")
    assert result == "None", result


def at_gate(server: Server, name: str) -> None:
    """Wait until a request has come to this gate."""
    server.log.wait_for(f"at gate {name}.")


def packet(target: str, method: str = "GET", body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A uwsgi packet as nginx sends it."""
    variables = request_variables(method, target, [("Host", "test"), *headers], body_bytes=len(body) or None)
    return build_request(variables, body)


def http_get(target: str, *lines: str) -> bytes:
    """An HTTP/1.1 GET that leaves the connection open, with more header lines."""
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: test", *lines, "", ""]).encode("latin-1")


def pause(server: Server, seconds: float) -> None:
    """Block the server's loop for a while, so that what is sent meanwhile reaches it all at once."""
    start = len(server.log.lines)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(f"0 say('paused.') or time.sleep({seconds})".encode(), os.path.join(server.folder, "control"))
    server.log.wait_for("paused.", start=start)


_begun: list[socket.socket] = []


def close_what_was_begun() -> None:
    """After each test: a test that failed leaves no suspended request behind for the next one."""
    while _begun:
        _begun.pop().close()


def begin(server: Server, target: str, kind: str = "http") -> socket.socket:
    """Send a request and return the socket on which its reply will come."""
    sock = server.connect(kind)
    _begun.append(sock)
    sock.sendall(http_get(target, "Connection: close") if kind == "http" else packet(target))
    return sock


def finish(sock: socket.socket) -> Reply:
    """The reply to `begin`: everything up to the end of file."""
    with sock:
        data = b""
        while piece := sock.recv(1 << 20):
            data += piece
    return parse_reply(data)


def reset(sock: socket.socket) -> None:
    """Close with a reset, as the kernel does for a process that was killed with unread bytes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Peer:
    """An HTTP/1.1 client on one connection that reads reply by reply and keeps what it read too much."""

    def __init__(self, server: Server, sock: socket.socket | None = None) -> None:
        self.sock = sock or server.connect()
        _begun.append(self.sock)
        self.rest = b""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self) -> bytes:
        """The next reply's head, with its blank line."""
        data = read_until(self.sock, b"\r\n\r\n", self.rest) if b"\r\n\r\n" not in self.rest else self.rest
        head, mark, self.rest = data.partition(b"\r\n\r\n")
        return head + mark

    def line(self) -> bytes:
        data = read_until(self.sock, b"\r\n", self.rest) if b"\r\n" not in self.rest else self.rest
        line, _, self.rest = data.partition(b"\r\n")
        return line

    def exactly(self, length: int) -> bytes:
        """So many bytes of body."""
        while len(self.rest) < length:
            piece = self.sock.recv(1 << 20)
            if not piece:
                raise AssertionError(f"end of file after {len(self.rest)} of {length} bytes: {self.rest[:200]!r}")
            self.rest += piece
        data, self.rest = self.rest[:length], self.rest[length:]
        return data

    def chunks(self) -> Iterator[bytes]:
        """The chunks of a chunked body as they come, without the last one of length 0."""
        while size := int(self.line(), 16):
            yield self.exactly(size)
            assert self.exactly(2) == b"\r\n"
        assert self.line() == b""  # no trailers

    def reply(self, *, to_head: bool = False) -> Reply:
        """The next whole reply."""
        head = self.head()
        status = parse_reply(head, to_head=True)
        if to_head or status.status in (204, 304) or 100 <= status.status < 200:
            return status
        if (status.header("Transfer-Encoding") or "").lower() == "chunked":
            body = b"".join(self.chunks())
        elif (length := status.header("Content-Length")) is not None:
            body = self.exactly(int(length))
        else:
            body = self.rest + b"".join(iter(lambda: self.sock.recv(1 << 20), b""))
            self.rest = b""
        return Reply(status.status, status.reason, status.headers, body)

    def get(self, target: str, *lines: str) -> Reply:
        self.send(http_get(target, *lines))
        return self.reply()

    def ended(self) -> bool:
        """Whether the server closes now, with nothing more said; waits for it."""
        return self.rest == b"" and self.sock.recv(65536) == b""


def nothing_is_left(server: Server) -> None:
    """At the end of a server that many tests shared: no coroutine was left unawaited, no exception untaken."""
    assert tell(server, "__import__('gc').collect() >= 0") == "True"
    text = server.log.text()
    for word in ("never awaited", "never retrieved", "was destroyed but it is pending", "Exception in callback"):
        assert word not in text, text


def silent(sock: socket.socket) -> bool:
    """Whether nothing has come on this socket so far."""
    sock.settimeout(0)
    try:
        return sock.recv(1, socket.MSG_PEEK) is None
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(PATIENCE_SECONDS)


def open_sockets(server: Server) -> int:
    """How many sockets the server's process has open: listening ones and the test's control included."""
    folder = f"/proc/{server.pid}/fd"
    count = 0
    for name in os.listdir(folder):
        try:
            count += os.readlink(f"{folder}/{name}").startswith("socket:")
        except FileNotFoundError:  # closed while we looked
            continue
    return count


def cpu_seconds(server: Server) -> float:
    """CPU time that the server has used so far."""
    with open(f"/proc/{server.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
