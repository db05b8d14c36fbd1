"""The upstream of bench/inflight.py: an HTTP server that answers after as many milliseconds as its path says.

    python bench/apps/upstream.py PORT

It is made to be cheap, since it shares the machine with those that are measured: no parsing beyond the path, and one
queue with one timer for each delay, in which the order of arrival is the order of answering.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque

PORT_VARIABLE = "BENCH_UPSTREAM_PORT"
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
BACKLOG = 4096


def request_for(milliseconds: int) -> bytes:
    """The question."""
    return b"GET /%d HTTP/1.1\r\nHost: upstream\r\n\r\n" % milliseconds


class Delay:
    """Those who asked for the same delay."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._waiting: deque[tuple[float, asyncio.Transport]] = deque()

    def ask(self, transport: asyncio.Transport) -> None:
        """Answer this one when its time has come."""
        due = self._loop.time() + self._seconds
        self._waiting.append((due, transport))
        if len(self._waiting) == 1:
            self._loop.call_at(due, self._answer)

    def _answer(self) -> None:
        now = self._loop.time()
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            waiting.popleft()[1].write(REPLY)
        if waiting:
            self._loop.call_at(waiting[0][0], self._answer)


class Connection(asyncio.Protocol):
    """One client, which asks one question at a time."""

    delays: dict[bytes, Delay] = {}  # noqa: RUF012 - all connections share them

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Accepted."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """One question: its path is the delay."""
        path = data.split(b" ", 2)[1]
        delay = self.delays.get(path)
        if delay is None:
            delay = self.delays[path] = Delay(asyncio.get_running_loop(), int(path[1:]) / 1000)
        delay.ask(self.transport)


async def serve(port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
