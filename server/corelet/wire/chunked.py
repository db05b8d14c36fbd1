"""Chunked request bodies: bytes in any pieces -> the body's bytes (RFC 9112 7.1).

Sans-I/O, and strict: each of these leniencies has been a way to smuggle a second request past a proxy (bare LF after a
size, CVE-2022-32214 and CVE-2025-22871; anything but CRLF after the data, CVE-2025-43859; line breaks in extensions,
CVE-2021-22960). llhttp is not used here: it has no limit on lines or trailers, and copies each piece of data through
a callback.

    chunk    =  size [ext] CRLF  data CRLF        size: 1 to 16 hex digits, nothing around them
    last     =  "0" [ext] CRLF  *( trailer CRLF )  CRLF

Extensions and trailers are checked and discarded: a trailer that became a header would come after every check on
headers has been made (RFC 9110 6.5.1).
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from corelet.base.errors import RequestRefused
from corelet.base.limits import Limits
from corelet.wire.http1_rules import judge_bytes, judge_header_line, shown

MAX_SIZE_DIGITS: Final = 16  # 2**64 - 1: what every other parser can hold, so that no two disagree on an overflow
MAX_EXCESS_BYTES: Final = 16384
"""How many bytes may go into extensions in all: a peer who sends a kilobyte of them with every byte of data otherwise
costs a thousand times what he is charged for. Go's net/http has the same bound (CVE-2023-39326)."""

_HEX_DIGITS: Final = b"0123456789abcdefABCDEF"


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()
    COMPLETE = auto()
    REFUSED = auto()


class ChunkedDecoder:
    """Decodes one chunked body.

    `complete`  the last chunk and its trailers have been read
    `unused`    what came after them: the next request
    """

    __slots__ = ("_body_bytes", "_excess_bytes", "_limits", "_line", "_remaining", "_state", "_trailer_bytes", "unused")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = _State.SIZE
        self._line = b""  # the beginning of a line whose end has not arrived
        self._remaining = 0  # bytes of the current chunk still to come
        self._body_bytes = 0
        self._excess_bytes = 0
        self._trailer_bytes = 0
        self.unused = b""

    @property
    def complete(self) -> bool:
        """Whether the body has ended; nothing more is decoded then."""
        return self._state is _State.COMPLETE

    def feed(self, data: bytes) -> list[bytes]:
        """Decode what has arrived. Returns pieces of the body, perhaps none; each is copied once, or not at all when
        `data` lies inside one chunk. Raises RequestRefused 400 or 413, and after that 400 for ever.
        """
        pieces: list[bytes] = []
        position = 0
        end = len(data)
        try:
            while position < end and self._state is not _State.COMPLETE:
                if self._state is _State.DATA:
                    piece = data[position : position + self._remaining]
                    pieces.append(piece)
                    position += len(piece)
                    self._remaining -= len(piece)
                    if not self._remaining:
                        self._state = _State.DATA_END
                        if data.startswith(b"\r\n", position):  # nearly always: no need to make it a line
                            self._state = _State.SIZE
                            position += 2
                else:
                    position = self._feed_line(data, position)
        except RequestRefused:
            self._state = _State.REFUSED
            raise
        if position < end:
            self.unused += data[position:]
        return pieces

    def _feed_line(self, data: bytes, position: int) -> int:
        """Take one line, or the piece of it that has arrived; the position behind it."""
        limit = self._line_limit() + 2
        room = limit - len(self._line)
        feed = data.find(b"\n", position, position + room)
        end = feed + 1 if feed >= 0 else min(len(data), position + room)
        line = self._line + data[position:end] if self._line else data[position:end]
        if feed < 0:
            if len(line) >= limit and self._state is _State.DATA_END:
                raise RequestRefused(400, f"a chunk's data is followed by CRLF, not by {shown(line)}")
            if len(line) >= limit:
                raise RequestRefused(400, f"a line of the chunked body is longer than {limit - 2} bytes")
            self._line = line
            return end
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise RequestRefused(400, "a line of the chunked body ends in a line feed without a carriage return")
        self._take_line(line[:-2])
        return end

    def _line_limit(self) -> int:
        """How long the line may be that comes now, without its CRLF."""
        match self._state:
            case _State.SIZE:
                return self._limits.max_chunk_line_bytes
            case _State.DATA_END:
                return 0
            case _State.TRAILER:
                return self._limits.max_trailer_bytes - self._trailer_bytes
            case _:
                raise RequestRefused(400, "the chunked body was refused before")

    def _take_line(self, line: bytes) -> None:
        if self._state is _State.SIZE:
            self._take_size(line)
        elif self._state is _State.DATA_END:
            self._state = _State.SIZE  # its limit of 0 has made sure that the line is empty
        elif line:
            self._trailer_bytes += len(line) + 2
            judge_header_line(line)
        else:
            self._state = _State.COMPLETE

    def _take_size(self, line: bytes) -> None:
        digits, semicolon, extension = line.partition(b";")
        if not digits or len(digits) > MAX_SIZE_DIGITS or digits.translate(None, _HEX_DIGITS):
            raise RequestRefused(400, f"a chunk's size is 1 to {MAX_SIZE_DIGITS} hex digits, not {shown(digits)}")
        if semicolon:
            judge_bytes(extension)  # RFC 9112 7.1.1: what is unknown is ignored, but never a CR, LF or NUL
            self._excess_bytes += len(extension) + 1
            if self._excess_bytes > MAX_EXCESS_BYTES:
                raise RequestRefused(400, f"the chunk extensions are longer than {MAX_EXCESS_BYTES} bytes in all")
        size = int(digits, 16)
        self._body_bytes += size
        if self._limits.max_body_bytes and self._body_bytes > self._limits.max_body_bytes:
            raise RequestRefused(413, f"the body is longer than the {self._limits.max_body_bytes} bytes allowed")
        self._remaining = size
        self._state = _State.DATA if size else _State.TRAILER
