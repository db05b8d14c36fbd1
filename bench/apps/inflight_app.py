"""The application of bench/inflight.py: a view that asks an upstream and waits for its answer.

GET /WAY/MILLISECONDS asks the upstream (upstream.py) to answer after so long, and replies with the most requests that
waited together. The way is how the view waits:

    await_    corelet.await_ of a coroutine
    switch    by hand: a Task wakes the greenlet, which has switched to the loop; on uWSGI's engine and on corelet
    sockets   blocking sockets, which gevent has made cooperative

All three keep their connections to the upstream in a pool, one question at a time on each, as HTTP clients do. The
client is small, on both sides of the comparison the same amount of it: with a library like aiohttp most of what is
measured would be that library.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import greenlet

from bench.apps.upstream import PORT_VARIABLE, REPLY, request_for
from corelet import await_  # it can be imported anywhere, and works under corelet

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

T = TypeVar("T")

ADDRESS = ("127.0.0.1", int(os.environ[PORT_VARIABLE]))

waiting_now = 0
waiting_peak = 0


class Connection(asyncio.Protocol):
    """A connection of the pool; one question at a time."""

    transport: asyncio.Transport
    answer: asyncio.Future[bytes] | None = None
    received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self.transport = transport  # type: ignore[assignment]  # of a TCP connection, which can write

    def data_received(self, data: bytes) -> None:
        """A part of the answer, nearly always all of it."""
        self.received += data
        if len(self.received) >= len(REPLY) and self.answer is not None and not self.answer.done():
            self.answer.set_result(self.received)

    def connection_lost(self, error: Exception | None) -> None:
        """The upstream has gone."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError("the upstream closed the connection"))

    async def ask(self, request: bytes) -> bytes:
        """One question and its answer."""
        self.received = b""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answer


idle: list[Connection] = []
idle_sockets: list[socket.socket] = []


async def asked(request: bytes) -> bytes:
    """Ask over a connection of the pool, or over a new one."""
    if idle:
        connection = idle.pop()
    else:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *ADDRESS)
    answer = await connection.ask(request)
    idle.append(connection)  # one that failed is not used again
    return answer


def switched(awaitable: Awaitable[T]) -> T:
    """Wait for it as uWSGI's document shows: the Task's end switches back to this greenlet."""
    me = greenlet.getcurrent()
    task = asyncio.ensure_future(awaitable, loop=asyncio.get_event_loop())
    task.add_done_callback(lambda _: me.switch())
    me.parent.switch()
    return task.result()


def by_await(request: bytes) -> bytes:
    """With corelet's bridge."""
    return await_(asked(request))


def by_switch(request: bytes) -> bytes:
    """With a greenlet's own switch."""
    return switched(asked(request))


def by_sockets(request: bytes) -> bytes:
    """With a blocking socket of the pool, or a new one."""
    if idle_sockets:
        connection = idle_sockets.pop()
    else:
        connection = socket.socket()
        connection.connect(ADDRESS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(request)
    answer = b""
    while len(answer) < len(REPLY):
        data = connection.recv(4096)
        if not data:
            raise ConnectionResetError("the upstream closed the connection")
        answer += data
    idle_sockets.append(connection)
    return answer


WAYS: dict[str, Callable[[bytes], bytes]] = {"await_": by_await, "switch": by_switch, "sockets": by_sockets}


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Wait for the upstream in the way that the path names."""
    global waiting_now, waiting_peak  # noqa: PLW0603 - one process, one thread: counters are what is wanted
    _, way, milliseconds = environ["PATH_INFO"].split("/")
    waiting_now += 1
    waiting_peak = max(waiting_peak, waiting_now)
    answer = WAYS[way](request_for(int(milliseconds)))
    waiting_now -= 1
    if answer != REPLY:
        raise ValueError(f"the upstream's answer was to be {REPLY!r}; {answer!r} came")
    body = b"%5d" % waiting_peak
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
