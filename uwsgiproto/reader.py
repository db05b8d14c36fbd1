"""From the bytes of a connection to one packet, without doing any I/O.

    reader = Reader(max_block_bytes=65535, max_vars=1000)
    reader.feed(data)
    match reader.next_event():
        case Event.NEED_MORE: ...           read on, under a deadline that is the caller's affair
        case PacketReceived(): ...          the request; reader.unused is the beginning of its body
        case Event.EMPTY: ...               no variables at all: close quietly, as uWSGI does
        case Event.PING: ...                answer PONG_PACKET and close
    (or ProtocolError: answer error.status and error.reason, then close)

A connection carries one packet, since no front end sends a second one. A server in a hurry asks `check_header` and
`decode_vars` itself; every decision is made in those two, so there is one place for each.

What can be judged by its first four bytes is judged there and never waited for: with 64 KiB allowed, the "ET" of an
HTTP request is a legal size, and its sender would be kept waiting for the rest of a block that never comes.
"""

import enum
from dataclasses import dataclass
from typing import Final, NoReturn

from uwsgiproto.errors import (
    BadBlock,
    BlockTooLarge,
    HttpOnUwsgiSocket,
    ProtocolError,
    TlsOnUwsgiSocket,
    UnsupportedModifier,
)
from uwsgiproto.modifiers import PING, WSGI, WSGI_MOUNTED, modifier
from uwsgiproto.pairs import HEADER_BYTES, MAX_BLOCK_BYTES, MAX_VARS, decode_vars

PING_HEADER: Final = -1  # what check_header says instead of a size

# The first four bytes of a request line, methods of RFC 9110, 5789, 4918 (WebDAV) and the preface of HTTP/2. None of
# them begins with a modifier that is served here.
HTTP_STARTS: Final = frozenset(
    {b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"CONN", b"OPTI", b"TRAC", b"PATC", b"PRI "}
    | {b"PROP", b"MKCO", b"COPY", b"MOVE", b"LOCK", b"UNLO", b"REPO", b"SEAR"}
)
TLS_HANDSHAKE: Final = b"\x16\x03"  # record type and major version, RFC 8446 5.1


class Event(enum.Enum):
    """What a reader has to say beside a packet."""

    NEED_MORE = "the packet is not complete"
    EMPTY = "a header without variables: nothing is asked, nothing is answered"
    PING = "is this a uwsgi server, and alive?"


@dataclass(frozen=True, slots=True)
class PacketReceived:
    """A request. `variables` is as decode_vars gives it, `block_bytes` the size of the block on the wire."""

    modifier1: int
    modifier2: int
    variables: dict[str, str]
    block_bytes: int


def check_header(data: bytes | bytearray, max_block_bytes: int = MAX_BLOCK_BYTES) -> int:
    """The size in bytes of the block of variables that follows the header; at least four bytes of `data` are needed.

    0 means that nothing is asked, PING_HEADER that a pong is to be sent. Raises BlockTooLarge, UnsupportedModifier,
    HttpOnUwsgiSocket, TlsOnUwsgiSocket, and BadBlock for a ping with variables.
    """
    modifier1 = data[0]
    block_bytes = data[1] | data[2] << 8
    if modifier1 in (WSGI, WSGI_MOUNTED):
        if block_bytes > max_block_bytes:
            raise BlockTooLarge(
                f"the packet announces {block_bytes} bytes of variables, the limit is {max_block_bytes} (buffer-size)"
            )
        return block_bytes
    if modifier1 == PING and data[3] == 0:
        if block_bytes:
            raise BadBlock(f"a ping carries no variables, this one announces {block_bytes} bytes")
        return PING_HEADER
    _refuse(bytes(data[:HEADER_BYTES]))


def _refuse(start: bytes) -> NoReturn:
    """Say what came instead of a packet that is served here."""
    if start in HTTP_STARTS:
        raise HttpOnUwsgiSocket(
            "this socket speaks uwsgi, and an HTTP request came: "
            "use uwsgi_pass instead of proxy_pass in nginx, or serve HTTP with http-socket (or protocol = http)"
        )
    if start.startswith(TLS_HANDSHAKE):
        raise TlsOnUwsgiSocket(
            "this socket speaks uwsgi, and a TLS handshake came: "
            "use uwsgi_pass with a plain address in nginx, and let nginx speak TLS to its clients"
        )
    row = modifier(start[0])
    if row.number == PING:
        raise UnsupportedModifier(f"modifier2 of a ping is 0, this one has {start[3]} (1 is the answer to a ping)")
    raise UnsupportedModifier(f"modifier1 {row.number} ({row.name}) is not served here, only 0, 30 and 100 (ping) are")


class Reader:
    """The bytes of one connection, up to its packet. See the module's docstring for its use."""

    def __init__(self, max_block_bytes: int = MAX_BLOCK_BYTES, max_vars: int = MAX_VARS) -> None:
        self._max_block_bytes = max_block_bytes
        self._max_vars = max_vars
        self._received = bytearray()
        self._packet_bytes: int | None = None  # header and block, once the header has been judged
        self._outcome: Event | PacketReceived | ProtocolError | None = None

    def feed(self, data: bytes) -> None:
        """Take what was read from the connection, in pieces of any size."""
        self._received += data

    @property
    def unused(self) -> bytes:
        """The bytes behind the packet: the beginning of the body. Empty as long as the packet is not complete."""
        if self._outcome is None or self._packet_bytes is None:
            return b""
        return bytes(self._received[self._packet_bytes :])

    def next_event(self) -> Event | PacketReceived:
        """What the bytes so far amount to. Once it is more than NEED_MORE it stays the same.

        Raises ProtocolError, again each time.
        """
        if self._outcome is None:
            try:
                event = self._read()
            except ProtocolError as error:
                self._outcome = error
            else:
                if event is Event.NEED_MORE:
                    return event
                self._outcome = event
        if isinstance(self._outcome, ProtocolError):
            raise self._outcome
        return self._outcome

    def _read(self) -> Event | PacketReceived:
        if len(self._received) < HEADER_BYTES:
            return Event.NEED_MORE
        if self._packet_bytes is None:
            block_bytes = check_header(self._received, self._max_block_bytes)
            self._packet_bytes = HEADER_BYTES + max(block_bytes, 0)
            if block_bytes == PING_HEADER:
                return Event.PING
            if block_bytes == 0:
                return Event.EMPTY
        if len(self._received) < self._packet_bytes:
            return Event.NEED_MORE
        return PacketReceived(
            modifier1=self._received[0],
            modifier2=self._received[3],
            variables=decode_vars(bytes(self._received), HEADER_BYTES, self._packet_bytes, self._max_vars),
            block_bytes=self._packet_bytes - HEADER_BYTES,
        )
