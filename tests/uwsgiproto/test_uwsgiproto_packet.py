"""Packet, PairBlock and Header as constructs: alone, inside others, there and back."""

import pytest
from construct import Bytes, Const, Construct, ConstructError, GreedyBytes, Int8ul, Optional, SizeofError, Struct, this

from uwsgiproto import BadBlock, Header, Packet, PairBlock, ProtocolError

GET = b"\x00\x1e\x00\x00\x0e\x00REQUEST_METHOD\x03\x00GET\x04\x00HOST\x01\x00a"


def test_a_parsed_packet_has_modifiers_and_variables() -> None:
    packet = Packet.parse(GET)
    assert (packet.modifier1, packet.datasize, packet.modifier2) == (0, 30, 0)
    assert packet.vars == [("REQUEST_METHOD", "GET"), ("HOST", "a")]
    assert dict(packet.vars)["REQUEST_METHOD"] == "GET"


def test_a_packet_is_built_from_pairs_or_a_mapping() -> None:
    assert Packet.build({"vars": {"REQUEST_METHOD": "GET", "HOST": "a"}}) == GET
    assert Packet.build({"vars": [("REQUEST_METHOD", "GET"), ("HOST", "a")]}) == GET
    assert Packet.build({"modifier1": 100, "modifier2": 1, "vars": {}}) == b"\x64\x00\x00\x01"


def test_what_was_parsed_builds_the_same_bytes() -> None:
    repeated = b"\x00\x0c\x00\x00\x01\x00A\x01\x00B\x01\x00A\x01\x00C"
    assert Packet.build(Packet.parse(GET)) == GET
    assert Packet.build(Packet.parse(repeated)) == repeated


def test_the_size_is_computed_not_believed() -> None:
    assert Packet.build({"datasize": 9999, "vars": {"A": "B"}}) == b"\x00\x06\x00\x00\x01\x00A\x01\x00B"


def test_sizeof_asks_for_what_it_depends_on() -> None:
    assert Header.sizeof() == 4
    assert Packet.sizeof(vars={"A": "B"}) == 10
    assert Packet.sizeof(datasize=6) == 10
    assert PairBlock(6).sizeof() == 6
    assert PairBlock(this.datasize).sizeof(datasize=6) == 6
    for unknown in (Packet, PairBlock(), PairBlock(this.datasize)):
        with pytest.raises(SizeofError):
            unknown.sizeof()
    with pytest.raises(SizeofError):
        Packet.sizeof(vars={"A": "€"})


def test_a_packet_stands_inside_another_construct() -> None:
    frame = Struct(
        "magic" / Const(b"REC"), "packet" / Packet, "body" / Bytes(this.packet.modifier2), "rest" / GreedyBytes
    )
    data = b"REC\x00\x06\x00\x02\x01\x00A\x01\x00BhiTHERE"
    parsed = frame.parse(data)
    assert parsed.packet.vars == [("A", "B")]
    assert (parsed.body, parsed.rest) == (b"hi", b"THERE")
    assert frame.build(parsed) == data
    assert Packet[2].parse(GET + GET)[1].vars == Packet.parse(GET).vars


def test_a_block_stands_inside_another_construct() -> None:
    record = Struct("bytes" / Int8ul, "pairs" / PairBlock(this.bytes), "end" / Const(b"."))
    assert record.parse(b"\x06\x01\x00A\x01\x00B.").pairs == [("A", "B")]
    assert record.build({"bytes": 6, "pairs": {"A": "B"}}) == b"\x06\x01\x00A\x01\x00B."
    with pytest.raises(ConstructError, match="6 bytes in a block of 7"):
        record.build({"bytes": 7, "pairs": {"A": "B"}})


def test_a_block_without_a_size_goes_to_the_end() -> None:
    assert PairBlock().parse(b"\x01\x00A\x01\x00B\x01\x00C\x00\x00") == [("A", "B"), ("C", "")]
    assert PairBlock().build([("A", "B"), ("C", "")]) == b"\x01\x00A\x01\x00B\x01\x00C\x00\x00"
    assert PairBlock().parse(b"") == []


def test_a_well_formed_block_parses_whatever_a_server_would_say() -> None:
    many = b"\x01\x00A\x00\x00" * 2000 + b"\x0a\x00wsgi.input\x00\x00"
    assert len(PairBlock().parse(many)) == 2001


def test_a_bad_block_is_a_construct_error_with_the_reason_as_its_cause() -> None:
    with pytest.raises(ConstructError, match=r"\(parsing\) -> vars\n.*ends at byte 7 of a block of 6 bytes") as caught:
        Packet.parse(b"\x00\x06\x00\x00\x01\x00A\x02\x00B")
    assert isinstance(caught.value.__cause__, BadBlock)
    assert isinstance(caught.value.__cause__, ProtocolError)
    assert Struct("maybe" / Optional(Packet)).parse(b"\x00\x01\x00\x00\x01").maybe is None


@pytest.mark.parametrize("cut", range(len(GET)))
def test_a_packet_cut_short_never_parses_as_one_with_fewer_variables(cut: int) -> None:
    with pytest.raises(ConstructError):
        Packet.parse(GET[:cut])


@pytest.mark.parametrize(
    "variables", [{"": "x"}, {"A": "€"}, {"A": 5}, 5, [("A",)], {"A": "x" * 65531}, {"A": "x" * 65536}, None]
)
@pytest.mark.parametrize("construct", [PairBlock(), Packet], ids=["block", "packet"])
def test_what_does_not_fit_is_a_construct_error(construct: Construct, variables: object) -> None:
    with pytest.raises(ConstructError):
        construct.build({"vars": variables} if construct is Packet else variables)
