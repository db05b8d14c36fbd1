"""Chunked bodies: what is decoded, what is refused, and that the cuts between pieces change nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corelet.base.errors import RequestRefused
from corelet.base.limits import Limits
from corelet.wire.chunked import ChunkedDecoder

LIMITS = Limits()
SMALL = Limits(max_body_bytes=20, max_chunk_line_bytes=12, max_trailer_bytes=30)
SECOND = b"GET /second HTTP/1.1\r\nHost: second\r\n\r\n"


def decode(pieces: list[bytes], limits: Limits = LIMITS) -> tuple[int, bytes, bool, bytes]:
    """(status of the refusal or 0, body, complete, unused); no body and no unused bytes after a refusal."""
    decoder = ChunkedDecoder(limits)
    body = b""
    for piece in pieces:
        try:
            decoded = decoder.feed(piece)
        except RequestRefused as refusal:
            return refusal.status, b"", decoder.complete, b""
        assert all(decoded)
        body += b"".join(decoded)
    return 0, body, decoder.complete, decoder.unused


def bytewise(data: bytes) -> list[bytes]:
    return [data[position : position + 1] for position in range(len(data))]


GOOD = [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
    (b"000\r\n\r\n", b""),
    (b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
    (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    (b"3\r\n\x00\xff\n\r\n0\r\n\r\n", b"\x00\xff\n"),
    (b"5;a\r\nhello\r\n0;b=c\r\n\r\n", b"hello"),
    (b'5;a=b;c="d e\t\xff"\r\nhello\r\n0\r\n\r\n', b"hello"),
    (b"5;\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"0\r\nX: y\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\nX: y\r\nContent-Length: 5\r\n\r\n", b"hello"),
]


@pytest.mark.parametrize(("data", "body"), GOOD, ids=lambda value: ascii(value)[2:50])
def test_a_chunked_body_is_decoded_however_it_arrives(data: bytes, body: bytes) -> None:
    assert decode([data]) == (0, body, True, b"")
    assert decode(bytewise(data)) == (0, body, True, b"")
    for cut in range(len(data)):
        assert decode([data[:cut], data[cut:]]) == (0, body, True, b"")
        assert decode([data[:cut]])[2] is False


@pytest.mark.parametrize(("data", "body"), GOOD, ids=lambda value: ascii(value)[2:50])
def test_the_request_behind_the_body_is_left_unused(data: bytes, body: bytes) -> None:
    assert decode([data + SECOND]) == (0, body, True, SECOND)
    assert decode(bytewise(data + SECOND)) == (0, body, True, SECOND)
    assert decode([data, SECOND[:9], SECOND[9:]]) == (0, body, True, SECOND)


REFUSED = [
    # lines end in CRLF only (CVE-2022-32214, CVE-2025-22871)
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r\n0\n\r\n",
    b"5\r\nhello\r\n0\r\n\n",
    b"5\r\nhello\r\n0\r\nX: y\n\r\n",
    b"5\r\r\nhello\r\n0\r\n\r\n",
    b"5\rhello\r\n0\r\n\r\n",
    b"\n5\r\nhello\r\n0\r\n\r\n",
    # a size is hex digits, nothing around them (int(x, 16) takes most of these)
    b"\r\n",
    b";a\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"0_5\r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"5\t\r\nhello\r\n0\r\n\r\n",
    b"5 ;a\r\nhello\r\n0\r\n\r\n",
    b"5,\r\nhello\r\n0\r\n\r\n",
    b"5.0\r\nhello\r\n0\r\n\r\n",
    b"g\r\nhello\r\n0\r\n\r\n",
    b"\xb5\r\nhello\r\n0\r\n\r\n",
    b"\xd9\xa5\r\nhello\r\n0\r\n\r\n",
    b"5\x00\r\nhello\r\n0\r\n\r\n",
    b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\nhello\r\n",
    # the data is followed by CRLF and by nothing else (CVE-2025-43859)
    b"5\r\nhelloXX0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhello world\r\n0\r\n\r\n",
    b"5\r\nhell\r\n0\r\n\r\n",
    b"5\r\nhello \r\n0\r\n\r\n",
    b"5\r\nhello\r\r\n0\r\n\r\n",
    b"5\r\nhello\r\n\r\n0\r\n\r\n",
    # extensions hold no line break and no control byte (CVE-2021-22960)
    b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
    b"5;a\x1bb\r\nhello\r\n0\r\n\r\n",
    b"0;a\nGET /smuggled HTTP/1.1\r\n\r\n",
    # trailers are header lines
    b"0\r\nX\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\n X: y\r\n\r\n",
    b"0\r\nX: y\r\n z\r\n\r\n",
    b"0\r\n: y\r\n\r\n",
    b"0\r\nX: \x00\r\n\r\n",
    b"0\r\nX: y\rz\r\n\r\n",
    b"0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
]


@pytest.mark.parametrize("data", REFUSED, ids=lambda data: ascii(data)[2:50])
def test_a_malformed_body_is_refused_however_it_arrives(data: bytes) -> None:
    for behind in (b"", SECOND):
        assert decode([data + behind]) == (400, b"", False, b"")
        assert decode(bytewise(data + behind)) == (400, b"", False, b"")


def test_the_lines_of_a_chunk_are_bounded() -> None:
    assert decode([b"5;23456789ab\r\nhello"], SMALL)[:2] == (0, b"hello")
    assert decode([b"5;23456789abc\r\nhello"], SMALL)[0] == 400
    assert decode([b"5;23456789abc"], SMALL)[0] == 0
    assert decode([b"5;23456789abcd"], SMALL)[0] == 400
    assert decode(bytewise(b"5;23456789abcd"), SMALL)[0] == 400
    assert decode([b"5;" + b"x" * 1022 + b"\r\nhello"])[1] == b"hello"
    assert decode([b"5;" + b"x" * 1023 + b"\r\nhello"])[0] == 400
    assert decode([b"0" * 5_000_000])[0] == 400


def test_extensions_are_bounded_over_the_whole_body() -> None:
    # CVE-2023-39326: a kilobyte of extensions with every byte of data
    chunk = b"1;" + b"x" * 1000 + b"\r\ny\r\n"
    assert decode([chunk * 16 + b"0\r\n\r\n"]) == (0, b"y" * 16, True, b"")
    assert decode([chunk * 17 + b"0\r\n\r\n"])[0] == 400
    assert decode([b"1\r\ny\r\n" * 20_000 + b"0\r\n\r\n"])[1] == b"y" * 20_000


def test_trailers_are_bounded_and_discarded() -> None:
    fits = b"A: " + b"x" * 10 + b"\r\n"  # 15 of the 30 bytes
    assert decode([b"0\r\n" + fits * 2 + b"\r\n"], SMALL) == (0, b"", True, b"")
    assert decode(bytewise(b"0\r\n" + fits * 2 + b"\r\n"), SMALL) == (0, b"", True, b"")
    for data in (
        b"0\r\n" + fits * 2 + b"A: x\r\n\r\n",
        b"0\r\n" + fits + b"A" + fits + b"\r\n",
        b"0\r\nA: " + b"x" * 100,
    ):
        assert decode([data], SMALL)[0] == 400
        assert decode(bytewise(data), SMALL)[0] == 400


def test_a_body_over_its_limit_is_refused_before_its_data_arrives() -> None:
    assert decode([b"14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n"], SMALL)[1:3] == (b"x" * 20, True)
    assert decode([b"15\r\n"], SMALL)[0] == 413
    assert decode([b"ffffffffff\r\n"], SMALL)[0] == 413
    assert decode([b"a\r\n0123456789\r\na\r\n0123456789\r\n1\r\n"], SMALL)[0] == 413
    assert decode(bytewise(b"a\r\n0123456789\r\nb\r\n"), SMALL)[0] == 413
    assert decode([b"ffffffffffffffff\r\n"])[0] == 0  # 0 is unlimited


def test_after_a_refusal_nothing_more_is_decoded() -> None:
    decoder = ChunkedDecoder(LIMITS)
    for data in (b"x\r\n", b"5\r\nhello\r\n0\r\n\r\n", SECOND):
        with pytest.raises(RequestRefused) as caught:
            decoder.feed(data)
        assert caught.value.status == 400
    assert not decoder.complete
    assert decoder.unused == b""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"5\n", "line feed without a carriage return"),
        (b"+5\r\n", "hex digits, not '+5'"),
        (b"1\r\naXX", "followed by CRLF, not by 'XX'"),
        (b"\x00\xff\r\n", r"'\x00\xff'"),
        (b"1;a\x00\r\n", "a NUL byte"),
    ],
)
def test_the_reason_names_the_cause(data: bytes, words: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        ChunkedDecoder(LIMITS).feed(data)
    assert words in caught.value.reason


def test_data_inside_one_chunk_is_handed_on_without_a_copy() -> None:
    decoder = ChunkedDecoder(LIMITS)
    assert decoder.feed(b"100000\r\n") == []
    data = b"x" * 65536
    assert decoder.feed(data)[0] is data


def test_an_empty_piece_changes_nothing() -> None:
    decoder = ChunkedDecoder(LIMITS)
    assert decoder.feed(b"") == []
    assert decoder.feed(b"5\r\nhel") == [b"hel"]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"lo\r\n0\r\n\r\n") == [b"lo"]
    assert decoder.complete


def cut_at(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 400), max_size=10)
CHUNKS = st.lists(st.binary(min_size=1, max_size=60), max_size=6)


@settings(max_examples=150, deadline=None)
@given(CHUNKS, CUTS, st.sampled_from([b"", SECOND, b"\r\n", b"0\r\n\r\n"]), st.sampled_from([b"", b"X: y\r\n"]))
def test_what_was_encoded_is_decoded_whatever_the_cuts(
    chunks: list[bytes], cuts: list[int], behind: bytes, trailer: bytes
) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n" + behind
    assert decode(cut_at(data, cuts)) == (0, b"".join(chunks), True, behind)


PIECES = st.sampled_from(
    [
        *(
            b"0",
            b"1",
            b"5",
            b"a",
            b"F",
            b"14",
            b"15",
            b"\r\n",
            b"\r\n",
            b"\r",
            b"\n",
            b"x",
            b"hello",
            b"5\r\nhello\r\n",
            b"0\r\n",
        ),
        *(
            b"\r\n\r\n",
            b"0\r\n\r\n",
            b";a=b",
            b";" + b"x" * 12,
            b" ",
            b"\t",
            b"\x00",
            b"\xff",
            b"X: y\r\n",
            b"g",
            b"-",
            b"_",
            b":",
        ),
    ]
)
BYTES = st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=12).map(b"".join))


@settings(max_examples=400, deadline=None)
@given(BYTES, CUTS, st.sampled_from([LIMITS, SMALL]))
def test_any_bytes_give_a_body_or_a_refusal_and_the_same_whatever_the_cuts(
    data: bytes, cuts: list[int], limits: Limits
) -> None:
    verdict = decode([data], limits)
    assert verdict[0] in (0, 400, 413)
    assert decode(bytewise(data), limits) == verdict
    assert decode(cut_at(data, cuts), limits) == verdict
