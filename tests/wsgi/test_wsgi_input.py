"""corelet.wsgi.input against an ordinary file, for pieces of every size, and at the end of a body that is cut short."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsgi_fakes import FakePeer

from corelet.base.errors import BodyError
from corelet.wsgi.input import EMPTY_INPUT, Input

BODY = b"12345line one\nline two\n\nline four\nthe rest"

CUTS = [[BODY], [BODY[:5], BODY[5:]], [BODY[:14], BODY[14:15], BODY[15:]], [bytes([byte]) for byte in BODY]]


def make(cut, first=0):
    """An Input whose first `first` pieces came with the head."""
    return Input(b"".join(cut[:first]), FakePeer(*cut[first:]))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("first", [0, 1])
def test_reads_of_every_kind_literally(cut, first):
    body = make(cut, first)
    assert body.read(5) == b"12345"
    assert body.readline(3) == b"lin"
    assert body.readline() == b"e one\n"
    assert body.read(0) == b""
    assert body.readline(0) == b""
    assert next(body) == b"line two\n"
    assert body.readline(1) == b"\n"
    assert body.readlines() == [b"line four\n", b"the rest"]
    assert [body.read(), body.read(1), body.readline(), body.readlines(), list(body)] == [b"", b"", b"", [], []]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("size", [(), (-1,), (None,), (-5,)])
def test_read_without_a_limit_takes_all(cut, size):
    assert make(cut).read(*size) == BODY


@pytest.mark.parametrize("size", [(), (-1,), (None,)])
def test_read_all_after_a_small_read_takes_the_rest(size):
    body = make(CUTS[3])
    assert body.read(5) == b"12345"
    assert body.read(*size) == BODY[5:]


@pytest.mark.parametrize("cut", CUTS)
def test_readlines_stops_after_its_hint(cut):
    assert make(cut).readlines(1) == [b"12345line one\n"]
    assert make(cut).readlines(15) == [b"12345line one\n", b"line two\n"]
    assert make(cut).readlines(0) == [b"12345line one\n", b"line two\n", b"\n", b"line four\n", b"the rest"]


def test_a_limit_of_readline_is_found_before_more_is_asked_for():
    peer = FakePeer(b"abc")
    assert Input(b"0123456789", peer).readline(4) == b"0123"
    assert peer.asked == []


def test_a_read_never_asks_for_more_than_is_missing():
    # What is behind the body belongs to the next request.
    peer = FakePeer(b"67", b"8")
    assert Input(b"12345", peer).read(8) == b"12345678"
    assert peer.asked == [3, 1]


def test_a_read_that_is_satisfied_does_not_wait():
    peer = FakePeer(b"never asked for")
    body = Input(b"12345", peer)
    assert (body.read(5), body.read(0), body.readline(0), peer.asked) == (b"12345", b"", b"", [])


def test_a_line_that_is_there_does_not_wait():
    peer = FakePeer(b"never asked for")
    body = Input(b"one\ntwo\n", peer)
    assert (body.readline(), next(body), peer.asked) == (b"one\n", b"two\n", [])


def test_readline_waits_for_no_more_than_the_line():
    peer = FakePeer(b"e one\nline", b" two\n")
    body = Input(b"lin", peer)
    assert body.readline() == b"line one\n"
    assert len(peer.asked) == 1
    assert body.read() == b"line two\n"


def test_a_huge_size_takes_what_there_is():
    assert make(CUTS[2]).read(1 << 60) == BODY
    assert make(CUTS[2]).readline(1 << 60) == b"12345line one\n"


@pytest.mark.parametrize("read", [
    lambda body: body.read(), lambda body: body.read(-1), lambda body: body.read(100), lambda body: body.read(11),
    lambda body: body.readlines(), list, lambda body: [body.readline(), body.readline()],
        lambda body: body.readline(-1) + body.readline(200),
])  # fmt: skip
@pytest.mark.parametrize("pieces", [(), (b"67",), (b"6", b"7\n"), (b"67890",)])
def test_a_body_cut_short_is_an_error_and_never_a_result(read, pieces):
    body = Input(b"12345", FakePeer(*pieces, broken=True))
    with pytest.raises(BodyError) as caught:
        read(body)
    assert isinstance(caught.value, OSError)


def test_a_body_cut_short_stays_an_error():
    body = Input(b"12345", FakePeer(broken=True))
    for _ in range(3):
        with pytest.raises(BodyError):
            body.read()


def test_a_body_cut_short_gives_what_came_before():
    body = Input(b"12345\n", FakePeer(b"67\n8", broken=True))
    assert (body.read(3), body.readline(), body.readline()) == (b"123", b"45\n", b"67\n")
    with pytest.raises(BodyError):
        body.readline()


@pytest.mark.parametrize("read", [
    lambda body: body.read(), lambda body: body.read(1), lambda body: body.readline(), lambda body: body.readline(5),
    lambda body: body.readlines(), next, list,
])  # fmt: skip
def test_after_its_request_an_input_is_an_error(read):
    peer = FakePeer(b"another request's bytes")
    body = Input(b"left over", peer)
    body.detach()
    with pytest.raises(BodyError):
        read(body)
    assert peer.asked == []


def test_the_empty_input_is_always_at_its_end():
    for _ in range(2):
        assert EMPTY_INPUT.read() == EMPTY_INPUT.read(5) == EMPTY_INPUT.readline() == b""
        assert EMPTY_INPUT.readlines() == list(EMPTY_INPUT) == []
        EMPTY_INPUT.detach()


def test_sizes_around_the_buffer_s_own():
    for size in (65535, 65536, 65537, 200_000):
        data = (b"x" * 999 + b"\n") * (size // 1000) + b"y" * (size % 1000)
        assert Input(b"", FakePeer(data)).read() == data
        assert Input(data[:100], FakePeer(data[100:])).read(size) == data
        assert b"".join(Input(data[:100], FakePeer(data[100:]))) == data


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["read", "readline", "readlines"]), st.none() | st.integers(min_value=-1, max_value=40)),
    max_size=12,
)


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=20) | st.sampled_from([b"\n", b"a\nb\n", b"\n\n"]), max_size=10),
    first=st.integers(0, 3),
    operations=OPERATIONS,
)
def test_any_sequence_of_reads_gives_what_a_file_gives(pieces, first, operations):
    body, file = make(pieces, first), io.BytesIO(b"".join(pieces))
    for name, size in operations:
        arguments = () if size is None and name == "readlines" else (size,)
        assert getattr(body, name)(*arguments) == getattr(file, name)(*arguments)
    assert list(body) == list(file)
