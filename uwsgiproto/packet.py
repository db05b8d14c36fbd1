"""The packet and its parts as constructs: they parse, build and tell their size, inside any other construct too.

For tools, tests and formats that embed a packet. The server reads with reader.py and pairs.py, since a Struct costs
more than the rest of a request. Nothing here judges a packet: what parses is well formed, and may still be refused.

Errors are construct's own, as whoever parses with constructs expects (`Select` and `Optional` go by them); the
ProtocolError is their cause.
"""

from typing import Any

from construct import (
    Construct,
    ConstructError,
    Default,
    Int8ul,
    Int16ul,
    ListContainer,
    Rebuild,
    SizeofError,
    Struct,
    evaluate,
    stream_read,
    stream_read_entire,
    stream_write,
    this,
)

from uwsgiproto.errors import ProtocolError
from uwsgiproto.pairs import HEADER_BYTES, MAX_BLOCK_BYTES, decode_pairs, encode_pairs

Header = Struct(
    "modifier1" / Default(Int8ul, 0),
    "datasize" / Int16ul,
    "modifier2" / Default(Int8ul, 0),
)
"""The first four bytes (`<BHB`): whom the packet is for, and how many bytes of variables follow.

     0           1           2           3
    +-----------+-----------+-----------+-----------+
    | modifier1 |  datasize, lo     hi  | modifier2 |
    +-----------+-----------+-----------+-----------+
"""


class PairBlock(Construct):  # type: ignore[misc]
    """The variables of a packet, as a list of (key, value) pairs of latin-1 str.

         0     1     2           2+k   3+k   4+k         4+k+v
        +-----+-----+-----------+-----+-----+-----------+-----
        |  k, lo hi |  key      |  v, lo hi |  value    | and so on, to the block's last byte
        +-----+-----+-----------+-----+-----+-----------+-----
         k >= 1: a key is never empty     v >= 0: a value may be

    There is no count: the pairs end where the block does, so `size` is the block's length in bytes, a number or an
    expression on the context, like that of construct's Bytes; None is the rest of the stream. Builds from pairs or from
    a mapping. Keys stay in order and may repeat, so what was parsed builds the same bytes again.

    A subclass with a loop, since the declarative form takes twenty times as long, and `GreedyRange`, the only way to
    write "until the end", takes any error for the end: a block cut short parses as one with fewer variables.
    """

    def __init__(self, size: Any = None) -> None:
        super().__init__()
        self.size = size

    def _parse(self, stream: Any, context: Any, path: str) -> ListContainer:
        if self.size is None:
            block = stream_read_entire(stream, path)
        else:
            block = stream_read(stream, evaluate(self.size, context), path)
        try:
            return ListContainer(decode_pairs(block, 0, len(block), len(block)))
        except ProtocolError as error:
            raise ConstructError(error.reason, path) from error

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:
        block = _encode(obj, path)
        if self.size is not None and len(block) != (size := evaluate(self.size, context)):
            raise ConstructError(f"the pairs take {len(block)} bytes in a block of {size}", path)
        stream_write(stream, block, len(block), path)
        return obj

    def _sizeof(self, context: Any, path: str) -> int:
        if self.size is None:
            raise SizeofError("a block that goes to the end of the stream has no size of its own", path)
        try:
            return int(evaluate(self.size, context))
        except (KeyError, AttributeError) as error:
            raise SizeofError("the size of the block depends on a value that the context lacks", path) from error


class _Packet(Struct):  # type: ignore[misc]
    """Header and block. What it parses to has `modifier1`, `datasize`, `modifier2` and `vars`, a list of pairs.

    It builds from {"vars": ...}, pairs or a mapping; the modifiers are 0 unless given, and the size is always computed.
    `Packet.sizeof(vars=...)` and `Packet.sizeof(datasize=...)` tell how long such a packet is; without either it cannot
    be known.
    """

    def __init__(self) -> None:
        super().__init__(
            "modifier1" / Default(Int8ul, 0),
            "datasize" / Rebuild(Int16ul, lambda context: len(_encode(context.vars, "(building) -> vars"))),
            "modifier2" / Default(Int8ul, 0),
            "vars" / PairBlock(this.datasize),
        )

    def _sizeof(self, context: Any, path: str) -> int:
        if "datasize" in context:
            return HEADER_BYTES + int(context["datasize"])
        if "vars" in context:
            try:
                return HEADER_BYTES + len(_encode(context["vars"], path))
            except ConstructError as error:
                raise SizeofError("these variables do not fit into a packet", path) from error
        raise SizeofError("the size of a packet depends on its variables: give vars=... or datasize=...", path)


def _encode(variables: Any, path: str) -> bytes:
    try:
        block = encode_pairs(variables)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConstructError(f"not pairs of str that a block can hold: {error}", path) from error
    if len(block) > MAX_BLOCK_BYTES:
        raise ConstructError(f"the variables take {len(block)} bytes, a packet holds {MAX_BLOCK_BYTES}", path)
    return block


Packet = _Packet()
