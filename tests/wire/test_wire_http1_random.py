"""HTTP heads at random: any bytes give a request, "more" or a refusal; and the same one however they are cut."""

from __future__ import annotations

import string

from hypothesis import given, settings
from hypothesis import strategies as st
from wire_http1_feeding import LIMITS, PEER, SECOND, Verdict, bytewise, feed, request_of, whole

from corelet.base.errors import RequestRefused
from corelet.base.limits import Limits
from corelet.wire.http1 import HeadParser, cgi_key
from corelet.wire.http1_rules import METHODS

SMALL = Limits(max_request_line_bytes=30, max_header_count=4, max_head_bytes=90, max_body_bytes=50)

# Pieces that are near to a request, so that most of what is put together of them gets past the first line.
PIECES = st.sampled_from(
    [
        *(
            b"GET",
            b"POST",
            b"OPTIONS",
            b"CONNECT",
            b"FOO",
            b"PRI",
            b" ",
            b"  ",
            b"/",
            b"*",
            b"/a%20b?c",
            b"/%00",
            b"http://b/c",
        ),
        *(
            b"http://",
            b"#",
            b" HTTP/1.1",
            b" HTTP/1.0",
            b" HTTP/2.0",
            b" HTTP/1.1\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\r",
            b"\n",
        ),
        *(
            b"GET / HTTP/1.1\r\n",
            b"POST /x HTTP/1.1\r\nHost: a\r\n",
            b"Host: a\r\n",
            b"Host: b\r\n",
            b"Host:",
            b"Host",
            b": ",
        ),
        *(
            b"Content-Length: 5\r\n",
            b"Content-Length: 51\r\n",
            b"Content-Length: 5 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
        ),
        *(
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Content-Length: 99999999999999999999\r\n",
            b"Expect: 100-continue\r\n",
        ),
        *(
            b"Expect: x\r\n",
            b"Connection: close\r\n",
            b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
            b"X_Y: z\r\n",
            b"Proxy: z\r\n",
        ),
        *(
            b"X",
            b"x: y \r\n",
            b"X: z\r\n",
            b"X :",
            b":",
            b"\t",
            b" z\r\n",
            b"\x00",
            b"\x7f",
            b"\x80",
            b"\xff",
            b"\x16\x03",
            b"(",
            b"y" * 30,
        ),
    ]
)
NEAR_REQUESTS = st.lists(PIECES, max_size=14).map(b"".join)
HEAD_LINES = st.lists(PIECES, max_size=8).map(
    lambda pieces: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(pieces) + b"\r\n\r\n"
)
BYTES = st.one_of(st.binary(max_size=60), NEAR_REQUESTS, HEAD_LINES)
LIMITS_EITHER = st.sampled_from([LIMITS, SMALL])


@settings(max_examples=500, deadline=None)
@given(BYTES, LIMITS_EITHER)
def test_any_bytes_give_a_request_or_more_or_a_refusal_and_the_same_by_single_bytes(
    data: bytes, limits: Limits
) -> None:
    verdict = whole(data, limits)
    assert verdict.status in (0, 400, 413, 414, 417, 431, 501, 505)
    assert bytewise(data, limits) == verdict
    assert 0 <= verdict.consumed <= len(data)


@settings(max_examples=150, deadline=None)
@given(BYTES, LIMITS_EITHER, st.lists(st.integers(0, 200), max_size=4))
def test_the_verdict_is_the_same_however_the_bytes_are_split(data: bytes, limits: Limits, cuts: list[int]) -> None:
    buffers = [data[:cut] for cut in sorted(cuts) if 0 < cut < len(data)] + [data]
    assert feed(buffers, limits) == whole(data, limits)


@settings(max_examples=150, deadline=None)
@given(BYTES, st.binary(max_size=40), LIMITS_EITHER)
def test_what_follows_never_changes_a_verdict(data: bytes, after: bytes, limits: Limits) -> None:
    verdict = whole(data, limits)
    if verdict != Verdict():
        assert whole(data + after, limits) == verdict
        assert whole(data + SECOND, limits) == verdict


TOKENS = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=12)
FIELD_CHARS = [chr(code) for code in (*range(0x21, 0x7F), *range(0x80, 0x100))]
VALUES = st.lists(st.text(FIELD_CHARS, min_size=1, max_size=8), max_size=4).map(" ".join)
RESERVED = {"host", "content-length", "transfer-encoding", "expect", "connection", "upgrade"}
HEADERS = st.lists(st.tuples(TOKENS.filter(lambda name: name.lower() not in RESERVED), VALUES), max_size=12)
PATHS = st.text([chr(code) for code in range(0x21, 0x7F) if chr(code) not in "%#?"], max_size=20).map("/".__add__)
BLANKS = st.text(" \t", max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(METHODS)), PATHS, HEADERS, BLANKS, BLANKS, st.booleans())
def test_a_good_request_is_read_as_it_was_written(
    method: str, path: str, headers: list[tuple[str, str]], before: str, after: str, http_10: bool
) -> None:
    version = "HTTP/1.0" if http_10 else "HTTP/1.1"
    lines = [f"{method} {path} {version}", "Host: a", *(f"{name}:{before}{value}{after}" for name, value in headers)]
    data = "\r\n".join([*lines, "", ""]).encode("latin-1")
    expected = {
        **PEER,
        "REQUEST_METHOD": method,
        "REQUEST_URI": path,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": version,
        "SCRIPT_NAME": "",
        "HTTP_HOST": "a",
    }
    for name, value in headers:
        key = cgi_key(name.encode())
        if key:
            glue = "; " if key == "HTTP_COOKIE" else ", "
            expected[key] = expected[key] + glue + value if key in expected else value
    assert request_of(data + SECOND).variables == expected
    assert bytewise(data) == whole(data)
    assert whole(data).consumed == len(data)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from([SECOND, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"]), BYTES),
        max_size=5,
    )
)
def test_a_connection_reads_its_requests_one_after_the_other(messages: list[bytes]) -> None:
    """A parser that has read other heads before gives the same verdict as a new one."""
    parser = HeadParser(LIMITS, PEER)
    buffer = b"".join(messages)
    while buffer:
        expected = whole(buffer)
        try:
            answer = parser.parse(buffer)
        except RequestRefused as refusal:
            assert (refusal.status, refusal.reason) == (expected.status, expected.reason)
            return
        if answer is None:
            assert expected == Verdict()
            return
        request, consumed = answer
        assert consumed == expected.consumed
        buffer = buffer[consumed + max(request.body_length, 0) :]
