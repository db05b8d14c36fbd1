"""The uwsgi packet protocol: a four-byte header and a block of variables, between a web server and its backend.

    errors      what can be wrong, and the status to answer
    pairs       the block of variables, bytes <-> dict; the hot path
    modifiers   the table of packet kinds, and which are served
    reader      bytes of a connection -> one packet, need more, or an error
    packet      Header, PairBlock and Packet as constructs, to stand in other constructs
    client      build a request, read the reply

A library of its own: no sockets, no event loop, no logging, and nothing of the server that uses it.
"""

from uwsgiproto.errors import (
    BadBlock,
    BadReply,
    BlockTooLarge,
    HttpOnUwsgiSocket,
    ProtocolError,
    RepeatedVariable,
    ReservedVariable,
    TlsOnUwsgiSocket,
    TooManyVariables,
    UnsupportedModifier,
)
from uwsgiproto.modifiers import MODIFIERS, PING_PACKET, PONG_PACKET, Modifier, Verdict, modifier
from uwsgiproto.packet import Header, Packet, PairBlock
from uwsgiproto.pairs import (
    HEADER_BYTES,
    MAX_BLOCK_BYTES,
    MAX_VARS,
    decode_pairs,
    decode_vars,
    encode_pairs,
    merge_pairs,
)
from uwsgiproto.reader import PING_HEADER, Event, PacketReceived, Reader, check_header

__all__ = [
    "HEADER_BYTES",
    "MAX_BLOCK_BYTES",
    "MAX_VARS",
    "MODIFIERS",
    "PING_HEADER",
    "PING_PACKET",
    "PONG_PACKET",
    "BadBlock",
    "BadReply",
    "BlockTooLarge",
    "Event",
    "Header",
    "HttpOnUwsgiSocket",
    "Modifier",
    "Packet",
    "PacketReceived",
    "PairBlock",
    "ProtocolError",
    "Reader",
    "RepeatedVariable",
    "ReservedVariable",
    "TlsOnUwsgiSocket",
    "TooManyVariables",
    "UnsupportedModifier",
    "Verdict",
    "check_header",
    "decode_pairs",
    "decode_vars",
    "encode_pairs",
    "merge_pairs",
    "modifier",
]
