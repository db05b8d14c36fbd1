"""Many clients doing what they like, with a fixed seed; afterwards the server must be as it was before.

What each client does, and when, comes from one seeded generator per client; how the kernel and the threads interleave
it does not. So replies are judged only where they must be certain, and the verdict is the worker's own state: every
core idle exactly once and clean, no connection, no registration, no deadline, no task, no descriptor left behind.

The state is told by a datagram socket in the loop, which needs no core.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import threading
import time

import pytest
from harness import PATIENCE_SECONDS, Server

from uwsgiproto.client import build_request, request_variables

CORES = 6
CLIENTS = 12
SECONDS = 2.5  # for each of the kinds of server below
BODY = bytes(range(256)) * 300  # more than one read, and more than is drained to keep a connection

APPLICATION = """
import asyncio, gc, json, os, socket
import greenlet
import corelet
from corelet.serving.worker import Worker

LOOP = asyncio.get_event_loop()
CONTROL = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
CONTROL.setblocking(False)
CONTROL.bind("control")


def state():
    worker = next(thing for thing in gc.get_objects() if type(thing) is Worker)
    hub = worker.hub
    return {
        "idle cores": sorted(core.number for core in hub.idle),
        "idle cores that are the hub's": all(hub.cores[core.number] is core for core in hub.idle),
        "unclean idle cores": sum(
            bool(core.since or core.watched or core.waiting or core.unwinding or core.kept or core.job or core.dead)
            for core in hub.idle
        ),
        "running": hub.running is not None or hub._hidden,
        "queued": len(hub.queue),
        "connections": worker.connections,
        "watched": len(worker.poller._watched),
        "deadlines": len(worker.heads) + len(worker.idle_connections) + len(worker.lingering),
        "tasks": len(asyncio.all_tasks(LOOP)),
        "listening": all(listener.watching for listener in worker.listeners),
        "sockets": sum(os.readlink(f"/proc/self/fd/{name}").startswith("socket:") for name in open_descriptors()),
    }


def open_descriptors():
    for name in os.listdir("/proc/self/fd"):
        if os.path.lexists(f"/proc/self/fd/{name}"):
            yield name


def tell():
    _, peer = CONTROL.recvfrom(64)
    CONTROL.sendto(json.dumps(state()).encode(), peer)


LOOP.add_reader(CONTROL, tell)


def small(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["QUERY_STRING"].encode()]


def bridge(environ, start_response):
    corelet.await_(asyncio.sleep(0.003))
    corelet.sleep(0.002)
    return small(environ, start_response)


def raw(environ, start_response):
    me = greenlet.getcurrent()
    LOOP.call_later(0.003, me.switch)
    LOOP.call_later(0.004, me.switch)      # a stray: it comes after the reply
    me.parent.switch()
    return small(environ, start_response)


def lost(environ, start_response):
    greenlet.getcurrent().parent.switch()  # nobody wakes it: the client leaves, or suspend-timeout comes
    return small(environ, start_response)


def fail(environ, start_response):
    raise ValueError("on purpose")


def fail_late(environ, start_response):
    start_response("200 OK", [])
    yield b"x" * 1000
    corelet.sleep(0.001)
    raise ValueError("on purpose, late")


def stream(environ, start_response):
    start_response("200 OK", [])
    for _ in range(5):
        yield b"s" * 3000
        corelet.sleep(0.001)


def big(environ, start_response):
    start_response("200 OK", [("Content-Length", "3000000")])
    return [b"b" * 3_000_000]


def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def part(environ, start_response):
    environ["wsgi.input"].read(1000)
    corelet.sleep(0.001)
    return small(environ, start_response)


def mutilate(environ, start_response):
    environ.clear()
    raise KeyError("an environ is the application's to spoil")


def child(environ, start_response):
    me, hub = greenlet.getcurrent(), greenlet.getcurrent().parent

    def in_child():
        LOOP.call_later(0.002, greenlet.getcurrent().switch)
        hub.switch()

    greenlet.greenlet(in_child, me).switch()
    return small(environ, start_response)


def swallow(environ, start_response):
    try:
        corelet.sleep(30)
    except BaseException:
        pass
    return small(environ, start_response)


def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)
"""

TARGETS = (
    "small", "small", "bridge", "bridge", "raw", "fail", "fail_late", "stream", "big", "echo", "part", "mutilate",
    "child",
)  # fmt: skip
LEAVERS = ("lost", "swallow", "big", "bridge", "stream", "echo", "part")


def ask(server: Server, seconds: float = PATIENCE_SECONDS) -> dict[str, object]:
    """The worker's state, told from inside."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(seconds)
        path = server.folder / "asking"
        sock.bind(str(path))
        try:
            sock.sendto(b"state", str(server.folder / "control"))
            return json.loads(sock.recv(65536))
        finally:
            path.unlink()


def settled(server: Server, before: dict[str, object]) -> dict[str, object]:
    """The worker's state, once it is what it was before, or when patience ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (state := ask(server)) != before and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    return state


def request_bytes(kind: str, target: str, body: bytes, mark: str, *, close: bool, chunked: bool) -> bytes:
    """A whole request."""
    if kind != "http":
        variables = request_variables(
            "POST" if body else "GET", f"/{target}?{mark}", [("Host", "test")], body_bytes=len(body) or None
        )
        return build_request(variables, body)
    lines = [f"{'POST' if body else 'GET'} /{target}?{mark} HTTP/1.1", "Host: test"]
    if close:
        lines.append("Connection: close")
    if body and chunked:
        lines.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    elif body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Client(threading.Thread):
    """One client: a seeded generator decides what it does until its time is over."""

    def __init__(self, server: Server, kind: str, seed: int, until: float) -> None:
        super().__init__()
        self.server, self.kind, self.until = server, kind, until
        self.random = random.Random(f"{seed} {kind}")
        self.seed = seed
        self.count = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        deeds = (
            self.whole, self.whole, self.leave, self.leave_early, self.half, self.pieces, self.slow, self.pipeline,
            self.garbage,
        )  # fmt: skip
        while time.monotonic() < self.until:
            self.count += 1
            deed = self.random.choice(deeds)
            with contextlib.suppress(ConnectionError), self.server.connect(self.kind) as sock:
                try:
                    deed(sock)
                except TimeoutError:
                    self.wrong.append(f"{self.kind} {deed.__name__} number {self.count}: no answer")
                if self.random.random() < 0.3:
                    self.reset(sock)

    def reset(self, sock: socket.socket) -> None:
        """Close so that the peer gets a reset."""
        if self.kind != "unix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def end(self, sock: socket.socket) -> None:
        """Close the sending side, unless the server has reset the connection already."""
        with contextlib.suppress(OSError):  # ENOTCONN has no class of its own
            sock.shutdown(socket.SHUT_WR)

    def request(self, target: str, *, close: bool = True) -> tuple[bytes, str]:
        size = self.random.choice((0, 10, 2000, len(BODY)))
        body = BODY[:size] if target in ("echo", "part", "small", "bridge") else b""
        mark = f"mark-{self.seed}-{self.count}-{self.random.randrange(10**6)}"
        chunked = self.random.random() < 0.4
        return request_bytes(self.kind, target, body, mark, close=close, chunked=chunked), mark

    # -- what it may do --------------------------------------------------------------------------------------------

    def whole(self, sock: socket.socket) -> None:
        """An ordinary request: its reply has to be its own."""
        target = self.random.choice(TARGETS)
        data, mark = self.request(target)
        sock.sendall(data)
        reply = self.read(sock)
        if target in ("small", "bridge", "raw", "child", "part") and (
            b" 200 " not in reply or mark.encode() not in reply
        ):
            self.wrong.append(f"{self.kind} {target} {mark}: {reply[:300]!r}")
        if target in ("fail", "mutilate") and b" 500 " not in reply:
            self.wrong.append(f"{self.kind} {target}: {reply[:300]!r}")

    def leave(self, sock: socket.socket) -> None:
        """Ask, and go before the answer can be there, or in the middle of it."""
        sock.sendall(self.request(self.random.choice(LEAVERS))[0])
        if self.random.random() < 0.5:
            threading.Event().wait(self.random.random() * 0.01)
        if self.kind == "http":
            self.reset(sock)  # a closed side alone is not a client that has gone (http-eof)

    def leave_early(self, sock: socket.socket) -> None:
        """Send a part of a request, and go."""
        data, _ = self.request(self.random.choice(TARGETS))
        sock.sendall(data[: self.random.randrange(len(data))])
        if self.random.random() < 0.5:
            threading.Event().wait(self.random.random() * 0.01)

    def half(self, sock: socket.socket) -> None:
        """Send a request, close the sending side, and read what comes."""
        sock.sendall(self.request(self.random.choice(TARGETS))[0])
        self.end(sock)
        self.read(sock)

    def pieces(self, sock: socket.socket) -> None:
        """Send a request in pieces."""
        data, _ = self.request(self.random.choice(("small", "echo", "part", "bridge")))
        while data:
            cut = self.random.randrange(1, 4 + len(data) // 2)
            sock.sendall(data[:cut])
            data = data[cut:]
            if self.random.random() < 0.3:
                threading.Event().wait(0.001)
        self.read(sock)

    def slow(self, sock: socket.socket) -> None:
        """Read a little of a large reply, slowly, and go or read on."""
        sock.sendall(self.request("big")[0])
        for _ in range(4):
            sock.recv(2000)
            threading.Event().wait(0.001)
        if self.random.random() < 0.5:
            self.read(sock)

    def pipeline(self, sock: socket.socket) -> None:
        """Several requests in one piece; perhaps a part of another one, perhaps the end of file behind it."""
        targets = [self.random.choice(TARGETS) for _ in range(self.random.randrange(2, 6))]
        data = b"".join(self.request(target, close=False)[0] for target in targets)
        last, _ = self.request(self.random.choice(TARGETS))
        if self.random.random() < 0.5:
            sock.sendall(data + last[: self.random.randrange(len(last))])
            self.end(sock)
        else:
            sock.sendall(data + last)
        self.read(sock)

    def garbage(self, sock: socket.socket) -> None:
        """Bytes of no protocol."""
        sock.sendall(self.random.randbytes(self.random.randrange(1, 300)))
        if self.random.random() < 0.5:
            self.end(sock)
            self.read(sock)

    def read(self, sock: socket.socket) -> bytes:
        """All there is, up to the end of file or a reset."""
        data = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(65536):
                data += piece
        return bytes(data)


@pytest.mark.parametrize("arguments", [(), ("--http-eof=gone", "--harakiri=1"), ("--loop=uvloop",)], ids=str)
def test_after_random_clients_every_core_connection_and_descriptor_is_free(serve, arguments):
    server = serve(
        APPLICATION, f"--asyncio={CORES}", "--suspend-timeout=1", "--socket-timeout=2", "--http-timeout=2",
        "--head-timeout=2", "--http-keepalive=2", *arguments,
    )  # fmt: skip
    before = ask(server)
    assert before["idle cores"] == list(range(CORES))
    assert before["connections"] == before["watched"] == before["deadlines"] == 0

    until = time.monotonic() + SECONDS
    clients = [Client(server, ("http", "uwsgi", "unix")[seed % 3], seed, until) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(3 * PATIENCE_SECONDS)

    assert not any(client.is_alive() for client in clients), "a client waits for ever:\n" + server.log.text()[-3000:]
    assert settled(server, before) == before
    assert [line for client in clients for line in client.wrong] == []
    for noise in ("Exception in callback", "Task was destroyed", "never retrieved", "never awaited", "unhandled"):
        assert noise not in server.log.text()
    for kind in ("http", "uwsgi", "unix"):
        assert server.get("/small?still-here", kind).body == b"still-here"
