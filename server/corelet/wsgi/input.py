"""`wsgi.input`: the request's body as a blocking file, for any size of read.

It holds what came with the head and asks a callable for more; it knows no socket, no core and no protocol. The
callable raises BodyError when the body ends early, so that a body cut short never looks complete (security rule 7).
Several applications mix read(5) with read(-1) and readline(3): uWSGI fails on the first and ignores the limit of the
second, which is why every method here goes through one buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corelet.base.errors import BodyError

PIECE_BYTES = 65536

Receive = Callable[[int], bytes]
"""receive(max_bytes) -> 1..max_bytes bytes of the body, or b"" when it is complete; raises BodyError."""


def no_more(_max_bytes: int) -> bytes:
    """The Receive of a body that is complete."""
    return b""


def _over(_max_bytes: int) -> bytes:
    raise BodyError("wsgi.input was read after its request had ended; read the body before returning the reply")


class Input:
    """PEP 3333 input stream: read, readline, readlines and iteration.

    `first` holds the body's bytes that are here already, `receive` fetches the rest. `unread` tells whether anything
    of the body may still be outside.
    """

    __slots__ = ("_buffer", "_position", "_receive")

    def __init__(self, first: bytes = b"", receive: Receive = no_more) -> None:
        self._buffer = first
        self._position = 0
        self._receive = receive

    def read(self, size: int | None = -1, /) -> bytes:
        """Return exactly `size` bytes, fewer only at the body's end; all of it for -1 or None."""
        if size is None or size < 0:
            return self._read_all()
        start = self._position
        end = start + size
        if end <= len(self._buffer):
            self._position = end
            return self._buffer[start:end]
        pieces = [self._take_buffer()]
        missing = size - len(pieces[0])
        while missing > 0:
            piece = self._receive(min(missing, PIECE_BYTES))
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def read1(self, size: int = PIECE_BYTES, /) -> bytes:
        """Return what is here, or what comes next: 1..size bytes, b"" at the body's end."""
        if self._position < len(self._buffer):
            return self._take(min(size, len(self._buffer) - self._position))
        return self._receive(min(size, PIECE_BYTES))

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return one line with its newline; at most `size` bytes of it when size is given and not negative."""
        limit = -1 if size is None or size < 0 else size
        line = self._line_in_buffer(limit)
        if line is not None:
            return line
        pieces = [self._take_buffer()]
        length = len(pieces[0])
        while piece := self._receive(PIECE_BYTES):  # each byte is searched once and joined once
            self._buffer = piece
            self._position = 0
            line = self._line_in_buffer(-1 if limit < 0 else limit - length)
            if line is not None:
                pieces.append(line)
                break
            pieces.append(self._take_buffer())
            length += len(pieces[-1])
        return b"".join(pieces)

    def _line_in_buffer(self, limit: int) -> bytes | None:
        """Take a line, or `limit` bytes of one, from the buffer; None when it holds neither."""
        start = self._position
        stop = len(self._buffer) if limit < 0 else min(len(self._buffer), start + limit)
        newline = self._buffer.find(b"\n", start, stop)
        if newline >= 0:
            return self._take(newline + 1 - start)
        if 0 <= limit <= len(self._buffer) - start:
            return self._take(limit)
        return None

    def readlines(self, hint: int | None = None, /) -> list[bytes]:
        """Return the remaining lines; stop after `hint` bytes or more when it is given."""
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def detach(self) -> None:
        """End of the request: what the application kept must never read the next request's bytes."""
        self._receive = _over
        self._buffer = b""
        self._position = 0

    def _take(self, count: int) -> bytes:
        start = self._position
        self._position = start + count
        return self._buffer[start : start + count]

    def _take_buffer(self) -> bytes:
        rest = self._buffer[self._position :] if self._position else self._buffer
        self._buffer = b""
        self._position = 0
        return rest

    def _read_all(self) -> bytes:
        first = self._take_buffer()
        piece = self._receive(PIECE_BYTES)
        if not piece:
            return first  # the usual case: the whole body came with the head
        pieces = [first, piece]
        while piece := self._receive(PIECE_BYTES):
            pieces.append(piece)
        return b"".join(pieces)


class EmptyInput(Input):
    """The input of every request that has no body: one object serves all of them, since it holds nothing."""

    __slots__ = ()

    def detach(self) -> None:
        """Nothing to take away."""


EMPTY_INPUT = EmptyInput()
