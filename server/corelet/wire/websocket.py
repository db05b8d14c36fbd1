"""RFC 6455, sans-I/O: the handshake, and a conversation of messages on top of the frames of the `websockets` package.

The package knows frames, masking, close codes and sizes; here stand messages: fragments joined for each connection,
and text judged as UTF-8 (RFC 6455 8.1). Whoever has the socket feeds bytes in, takes messages out, and sends what
`outgoing` gives.
"""

from __future__ import annotations

import base64
import binascii
from collections import deque
from dataclasses import dataclass
from typing import Any

from websockets.frames import BINARY, CONT, PONG, TEXT
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.utils import accept_key

from corelet.base.errors import HandshakeRefused
from corelet.wire.http1_rules import is_token

VERSION = "13"
KEY_BYTES = 16

NORMAL = 1000
GOING_AWAY = 1001
NO_STATUS = 1005
ABNORMAL = 1006
INVALID_DATA = 1007


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message; text stays the UTF-8 bytes that came, judged already."""

    data: bytes
    is_text: bool


def accept(variables: dict[str, Any], key: str = "", origin: str = "", subprotocol: str = "") -> bytes:
    """The head that answers a handshake: 101. Empty values are taken from the request's variables.

    Raises HandshakeRefused, which knows its status: 400, or 426 for a request that is no handshake.
    """
    method = variables.get("REQUEST_METHOD")
    if method != "GET":
        raise HandshakeRefused(f"a websocket handshake is a GET; a {method} came", 405)
    if "websocket" not in variables.get("HTTP_UPGRADE", "").lower().replace(",", " ").split():
        raise HandshakeRefused("a websocket handshake was expected (Upgrade: websocket); an ordinary request came", 426)
    version = variables.get("HTTP_SEC_WEBSOCKET_VERSION", "")
    if version.strip() != VERSION:
        raise HandshakeRefused(f"websocket version {VERSION} was expected; {version!a} came", 426)
    key = key or variables.get("HTTP_SEC_WEBSOCKET_KEY", "")
    _check_key(key)
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(key)}",
    ]
    if chosen := _subprotocol(subprotocol, variables.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")):
        lines.append(f"Sec-WebSocket-Protocol: {chosen}")
    if origin:
        lines.append(f"Sec-WebSocket-Origin: {_checked(origin)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _check_key(key: str) -> None:
    try:
        size = len(base64.b64decode(key.encode("ascii"), validate=True))
    except (binascii.Error, UnicodeEncodeError):
        size = 0
    if size != KEY_BYTES:
        raise HandshakeRefused(f"Sec-WebSocket-Key is to be {KEY_BYTES} bytes in base64; {key!a} came", 400)


def _subprotocol(wanted: str, offered: str) -> str:
    """One of those that the client offers: the one that the application names, else the first.

    A browser that has offered some fails a connection whose answer names none, and one that names what was not offered.
    """
    names = [name.strip() for name in offered.split(",") if name.strip()]
    if not names or (wanted and wanted not in names):
        return ""
    chosen = wanted or names[0]
    return chosen if is_token(chosen.encode()) else ""


def _checked(value: str) -> str:
    if any(mark in value for mark in "\r\n\0") or not value.isascii():
        raise HandshakeRefused(f"an origin that can stand in a header was expected; {value!a} came", 400)
    return value


class Conversation:
    """One open websocket, as its server sees it."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: of a message, all its fragments together; a longer one closes with 1009."""
        self._protocol = Protocol(SERVER, state=OPEN, max_size=max_bytes)
        self._protocol.debug = False
        self._fragments: list[bytes] = []
        self._is_text = False
        self.messages: deque[Message] = deque()
        self.pongs = 0

    # -- what comes -----------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes of the peer; b"" is the end of its stream. What is broken closes with the code for it."""
        protocol = self._protocol
        if protocol.reader.eof:
            return
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        for frame in protocol.events_received():
            self._frame(frame)

    def _frame(self, frame: Any) -> None:
        opcode = frame.opcode
        if opcode in (TEXT, BINARY):
            self._is_text = opcode == TEXT
        elif opcode == PONG:
            self.pongs += 1
        if opcode not in (TEXT, BINARY, CONT):
            return
        self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return
        data = self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments)
        self._fragments = []
        if self._is_text and not _is_utf8(data):
            self.close(INVALID_DATA, "text is to be UTF-8")
            return
        self.messages.append(Message(data, self._is_text))

    # -- what goes ------------------------------------------------------------------------------------------------

    def send(self, data: bytes, is_text: bool) -> None:
        """A whole message. Only while `is_open`."""
        if is_text:
            self._protocol.send_text(data)
        else:
            self._protocol.send_binary(data)

    def ping(self) -> None:
        """Ask the peer for a sign of life: `pongs` counts them."""
        if self.is_open:
            self._protocol.send_ping(b"")

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say that we end it; a second time it does nothing. RFC 6455 5.5: a reason has 123 bytes at most."""
        if self.is_open:
            self._protocol.send_close(code, reason.encode()[:123].decode(errors="ignore"))

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        return b"".join(self._protocol.data_to_send())

    # -- how it stands --------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Messages may be sent, and may still come."""
        return self._protocol.state is OPEN

    @property
    def peer_closed(self) -> bool:
        """The peer has said that it ends, or is gone, or broke the protocol."""
        protocol = self._protocol
        return protocol.close_rcvd is not None or protocol.reader.eof or protocol.parser_exc is not None

    @property
    def close_code(self) -> int:
        """Of the peer; 1006 if it left without one, and ours if it broke the protocol."""
        protocol = self._protocol
        if protocol.close_rcvd is not None:
            return int(protocol.close_rcvd.code)
        return int(protocol.close_sent.code) if protocol.close_sent is not None else ABNORMAL

    @property
    def close_reason(self) -> str:
        """The words that came, or that we sent, with the code."""
        close = self._protocol.close_rcvd or self._protocol.close_sent
        return close.reason if close is not None else ""


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
