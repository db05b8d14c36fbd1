"""A slow upstream for the examples: it stands for a language model, or for any other service that takes its time.

    python examples/slow_upstream.py [PORT]        # default 8001

GET /tokens answers with server-sent events in a chunked reply, one word at a time. Any other path is answered in one
piece, with a price. Nothing but asyncio; no server to copy for anything else.

`Upstream` can be given another pace than the clock's, by which a test holds all its clients at the same word.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable

ANSWER = (
    "A view is a plain function, and yet it can wait. Each token of this answer was awaited on the worker's event loop,"
    " while the same worker, one process with one thread, was streaming to everybody else who had asked."
)
WORDS = tuple(ANSWER.split(" "))
WORD_SECONDS = 0.08
PORT = 8001


async def by_the_clock(path: str, number: int) -> None:
    """Come to token `number` of the answer for `path`: the first takes a little longer."""
    await asyncio.sleep(WORD_SECONDS if number else 4 * WORD_SECONDS)


class Upstream:
    """The server, and how many of its calls are open, were answered in full, or were left by their client."""

    def __init__(self, pace: Callable[[str, int], Awaitable[None]] = by_the_clock) -> None:
        self.pace = pace
        self.open = self.answered = self.left = 0

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Listen; the server that is returned is to be closed."""
        return await asyncio.start_server(self.call, host, port, backlog=1000)

    async def call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one call after the other until the client closes it."""
        try:
            while head := await self.head(reader):
                path = head.split(b" ", 2)[1].decode("latin-1")
                await self.answered_or_left(
                    reader, self.tokens(writer) if path == "/tokens" else self.page(writer, path)
                )
        except ConnectionError:
            pass  # the client has closed its connection
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def head(self, reader: asyncio.StreamReader) -> bytes:
        """The next request's head, or nothing at the end of the connection."""
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""

    async def answered_or_left(self, reader: asyncio.StreamReader, answer: Awaitable[None]) -> None:
        """Give this answer unless the client goes away meanwhile, which is the only thing it may do now."""
        self.open += 1
        answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                self.left += 1
                raise ConnectionResetError("the client has gone")
            answering.result()
            self.answered += 1
        finally:
            self.open -= 1
            for task in (answering, leaving):
                task.cancel()
            await asyncio.wait({answering, leaving})

    async def tokens(self, writer: asyncio.StreamWriter) -> None:
        """Word after word, each an event and a chunk of its own."""
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number, word in enumerate(WORDS):
            await self.pace("/tokens", number)
            event = f"data: {json.dumps({'token': word if number == 0 else ' ' + word})}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async def page(self, writer: asyncio.StreamWriter, path: str) -> None:
        """A short answer in one piece."""
        await self.pace(path, 0)
        body = json.dumps({"path": path, "price": 100 + 7 * len(path)}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()


async def main(port: int) -> None:
    """Serve until Ctrl-C."""
    async with await Upstream().serve("127.0.0.1", port) as server:
        print(f"http://127.0.0.1:{port}/tokens")
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else PORT))
