"""What holds for any bytes: a packet or a protocol error, the oracle's verdict, and the same in pieces of any size."""

from itertools import pairwise

import oracle
from construct import ConstructError
from hypothesis import given, settings
from hypothesis import strategies as st

from uwsgiproto import (
    Event,
    Packet,
    PacketReceived,
    PairBlock,
    ProtocolError,
    Reader,
    decode_vars,
    encode_pairs,
)
from uwsgiproto.client import build_request

patient = settings(deadline=None, max_examples=200, database=None)  # the machine may be busy with other tests

latin = st.text(st.characters(max_codepoint=255), max_size=20)
keys = st.sampled_from(
    [
        "A",
        "HTTP_COOKIE",
        "HTTP_X",
        "PATH_INFO",
        "REQUEST_METHOD",
        "CONTENT_LENGTH",
        "wsgi.input",
        "uwsgi.x",
        "wsgi",
        "é",
    ]
) | latin.filter(bool)
pair_lists = st.lists(st.tuples(keys, latin | st.just("v" * 300)), max_size=12)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Blocks that are good, nearly good, or anything."""
    block = encode_pairs(draw(pair_lists))
    match draw(st.sampled_from(["good", "cut", "longer", "changed", "empty key", "anything"])):
        case "cut":
            return block[: draw(st.integers(0, len(block)))]
        case "longer":
            return block + draw(st.binary(max_size=6))
        case "changed" if block:
            at = draw(st.integers(0, len(block) - 1))
            return block[:at] + draw(st.binary(min_size=1, max_size=1)) + block[at + 1 :]
        case "empty key":
            return block + b"\x00\x00" + encode_pairs(draw(pair_lists))
        case "anything":
            return draw(st.binary(max_size=200))
    return block


@st.composite
def connections(draw: st.DrawFn) -> bytes:
    """The bytes of a connection: now and then a header that fits its block, and something behind it."""
    block = draw(blocks())
    size = draw(st.just(len(block)) | st.integers(0, 0xFFFF))
    header = (
        draw(st.sampled_from([0, 0, 0, 30, 100, 17, 22])).to_bytes(1, "little") + size.to_bytes(2, "little") + b"\x00"
    )
    return draw(st.just(header + block) | st.binary(max_size=40)) + draw(st.binary(max_size=10))


def verdict(block: bytes, max_vars: int = 1000) -> dict[str, str] | None:
    try:
        return decode_vars(block, 0, len(block), max_vars)
    except ProtocolError as error:
        assert error.status == 400
        assert error.reason.isprintable()
        return None


def outcome(pieces: list[bytes]) -> tuple[object, bytes]:
    reader = Reader(max_block_bytes=4096, max_vars=8)
    event: object = Event.NEED_MORE
    for piece in pieces:
        reader.feed(piece)
        try:
            event = reader.next_event()
        except ProtocolError as error:
            event = (type(error), error.reason)
    return event, reader.unused


@patient
@given(st.lists(blocks(), min_size=1, max_size=5), st.integers(0, 14))
def test_the_hot_path_agrees_with_the_oracle_whatever_came_before(sequence: list[bytes], max_vars: int) -> None:
    for block in sequence:
        expected = oracle.variables_of(block, max_vars)
        for _ in range(2):
            found = verdict(block, max_vars)
            assert found == expected
            assert found is None or list(found) == list(expected or {})


@patient
@given(blocks(), blocks())
def test_the_hot_path_agrees_with_the_oracle_after_learning_another_layout(usual: bytes, block: bytes) -> None:
    for _ in range(9):
        assert verdict(usual) == oracle.variables_of(usual)
    assert verdict(block) == oracle.variables_of(block)
    assert verdict(usual) == oracle.variables_of(usual)


@patient
@given(blocks())
def test_the_block_construct_agrees_with_the_oracle(block: bytes) -> None:
    try:
        pairs = list(PairBlock().parse(block))
    except ConstructError:
        pairs = None
    assert pairs == oracle.pairs_of(block)


@patient
@given(connections())
def test_the_packet_construct_agrees_with_the_oracle(data: bytes) -> None:
    try:
        ours = Packet.parse(data)
    except ConstructError:
        ours = None
    try:
        declared = oracle.DeclaredPacket.parse(data)
    except ConstructError:
        declared = None
    assert (ours is None) == (declared is None)
    if ours is not None and declared is not None:
        assert (ours.modifier1, ours.datasize, ours.modifier2) == (
            declared.modifier1,
            declared.datasize,
            declared.modifier2,
        )
        assert ours.vars == [(pair.key, pair.value) for pair in declared.block.pairs]


@patient
@given(connections() | st.binary(max_size=300))
def test_any_bytes_are_an_event_or_a_protocol_error(data: bytes) -> None:
    event, unused = outcome([data])
    if isinstance(event, PacketReceived):
        assert data[4 + event.block_bytes :] == unused
        assert event.variables == oracle.variables_of(data[4 : 4 + event.block_bytes], 8)


@patient
@given(connections(), st.lists(st.integers(0, 120), max_size=6))
def test_where_the_bytes_are_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert outcome(pieces) == outcome([data])
    assert outcome([data[n : n + 1] for n in range(len(data))]) == (outcome([data]) if data else (Event.NEED_MORE, b""))


@patient
@given(pair_lists, st.integers(0, 255), st.integers(0, 255))
def test_build_and_parse_are_inverse(pairs: list[tuple[str, str]], modifier1: int, modifier2: int) -> None:
    data = Packet.build({"modifier1": modifier1, "modifier2": modifier2, "vars": pairs})
    parsed = Packet.parse(data)
    assert (parsed.modifier1, parsed.modifier2, list(parsed.vars)) == (modifier1, modifier2, pairs)
    assert Packet.build(parsed) == data
    assert len(data) == Packet.sizeof(vars=pairs)
    assert data == build_request(pairs, modifier1=modifier1, modifier2=modifier2)


@patient
@given(st.dictionaries(latin.filter(lambda key: key and "wsgi" not in key), latin, min_size=1), st.binary(max_size=20))
def test_what_the_client_builds_the_reader_reads(variables: dict[str, str], body: bytes) -> None:
    reader = Reader()
    reader.feed(build_request(variables, body))
    event = reader.next_event()
    assert isinstance(event, PacketReceived)
    assert event.variables == variables
    assert reader.unused == body
