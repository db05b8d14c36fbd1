"""The corpus of malformed heads: what is refused, with which status, and that the bytes behind it are never served.

Each row is fed whole, one byte at a time, and with a good request behind it. The comments name the rule or the peer's
bug that the row is about.
"""

from __future__ import annotations

import pytest
from wire_http1_feeding import LIMITS, PEER, SECOND, Verdict, bytewise, step, whole

from corelet.base.limits import Limits
from corelet.wire.http1 import HeadParser

G = b"GET / HTTP/1.1\r\n"
P = b"POST / HTTP/1.1\r\n"
H = b"Host: a\r\n"
E = b"\r\n"

REFUSED: list[tuple[int, bytes]] = [
    # Content-Length and Transfer-Encoding together (CVE-2024-1135, CVE-2024-6827, CVE-2019-16786)
    (400, P + H + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" + E),
    (400, P + H + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" + E),
    (400, P + H + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n" + E),
    (400, P + H + b"content-length: 5\r\nX: y\r\nTRANSFER-ENCODING: Chunked\r\n" + E),
    # several Content-Length (GHSA-4ppp), equal ones too
    (400, P + H + b"Content-Length: 5\r\nContent-Length: 6\r\n" + E),
    (400, P + H + b"Content-Length: 5\r\nContent-Length: 5\r\n" + E),
    (400, P + H + b"Content-Length: 5\r\ncontent-length: 5\r\n" + E),
    (400, P + H + b"Content-Length: 5, 5\r\n" + E),
    (400, P + H + b"Content-Length: 5,5\r\n" + E),
    # Content-Length is digits only (int() takes all but the last of these)
    (400, P + H + b"Content-Length: +5\r\n" + E),
    (400, P + H + b"Content-Length: -5\r\n" + E),
    (400, P + H + b"Content-Length: 5_0\r\n" + E),
    (400, P + H + b"Content-Length: \xd9\xa5\r\n" + E),
    (400, P + H + b"Content-Length: \xb2\r\n" + E),
    (400, P + H + b"Content-Length: 5 0\r\n" + E),
    (400, P + H + b"Content-Length: 0x5\r\n" + E),
    (400, P + H + b"Content-Length: 5.0\r\n" + E),
    (400, P + H + b"Content-Length: 5;\r\n" + E),
    (400, P + H + b"Content-Length: \x0b5\r\n" + E),
    (400, P + H + b"Content-Length:\r\n" + E),  # CVE-2023-40225
    (400, P + H + b"Content-Length:  \t\r\n" + E),
    (413, P + H + b"Content-Length: 99999999999999999999\r\n" + E),  # above 2**64
    (413, P + H + b"Content-Length: 9999999999999999999\r\n" + E),  # above 2**63
    (413, P + H + b"Content-Length: " + b"9" * 5000 + b"\r\n" + E),  # above int()'s limit on digits
    # Transfer-Encoding: exactly one final "chunked" (CVE-2022-32215, CVE-2026-42585)
    (400, P + H + b"Transfer-Encoding: gzip\r\n" + E),
    (400, P + H + b"Transfer-Encoding: identity\r\n" + E),
    (400, P + H + b"Transfer-Encoding: chunked, gzip\r\n" + E),
    (400, P + H + b"Transfer-Encoding: chunked, identity\r\n" + E),
    (400, P + H + b"Transfer-Encoding: chunked, chunked\r\n" + E),
    (400, P + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" + E),
    (400, P + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" + E),
    (400, P + H + b"Transfer-Encoding:\r\n" + E),
    (400, P + H + b"Transfer-Encoding: chunked;q=1\r\n" + E),
    (400, P + H + b"Transfer-Encoding: xchunked\r\n" + E),
    (400, P + H + b"Transfer-Encoding: chunkedx\r\n" + E),
    (400, P + H + b'Transfer-Encoding: "chunked"\r\n' + E),
    (400, P + H + b"Transfer-Encoding: \x0bchunked\r\n" + E),
    (400, P + H + b"Transfer-Encoding: \xa0chunked\r\n" + E),
    (400, P + H + b"Transfer-Encoding: chunked\xa0\r\n" + E),
    (400, P + H + b"Transfer-Encoding: chunked\t\r\n" + E),  # RFC 9110 5.5 allows it, llhttp does not, nobody sends it
    (400, P + H + b"Transfer-Encoding: chun\r\n ked\r\n" + E),
    (501, P + H + b"Transfer-Encoding: gzip, chunked\r\n" + E),
    (501, P + H + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" + E),
    (501, P + H + b"Transfer-Encoding: identity, chunked\r\n" + E),
    (400, b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n" + E),
    (400, b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n" + E),
    # lines end in CRLF only (GHSA-pg36, CVE-2022-32214, CVE-2022-35256, CVE-2023-30589)
    (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    (400, G + b"Host: a\n" + E),
    (400, G + H + b"\n"),
    (400, G + b"Host: a\nX: y\r\n" + E),
    (400, G + b"X: y\n z\r\n" + H + E),
    (400, G + b"Host: a\rX: y\r\n" + E),
    (400, G + H + b"X: y\r\r\n" + E),
    (400, G + H + b"\r\r\n"),
    (400, b"GET / HTTP/1.1\rHost: a\r\r"),
    (400, b"GET /\r HTTP/1.1\r\n" + H + E),
    (400, b"\n" + G + H + E),
    (400, b"\rGET / HTTP/1.1\r\n" + H + E),
    (400, b"\r\n\r\n\r\n" + G + H + E),  # two empty lines in front are skipped, not three
    # obs-fold, and a space in or before the name (CVE-2021-22959)
    (400, G + H + b"X: y\r\n z\r\n" + E),
    (400, G + H + b"X: y\r\n\tz\r\n" + E),
    (400, G + b" Host: a\r\n" + E),
    (400, G + H + b"X : y\r\n" + E),
    (400, G + H + b"X\t: y\r\n" + E),
    (400, P + H + b"Content-Length : 5\r\n" + E),
    (400, P + H + b"Transfer-Encoding : chunked\r\n" + E),
    (400, P + H + b"Transfer Encoding: chunked\r\n" + E),
    # names: never empty (CVE-2023-25725), always tokens
    (400, G + H + b": y\r\n" + E),
    (400, G + H + b":\r\n" + E),
    (400, G + H + b"X\r\n" + E),
    (400, G + H + b"X(y): z\r\n" + E),
    (400, G + H + b"X@y: z\r\n" + E),
    (400, G + H + b"X/y: z\r\n" + E),
    (400, G + H + b'"X": z\r\n' + E),
    (400, G + H + b"X\x00: z\r\n" + E),
    (400, G + H + b"X\x80: z\r\n" + E),
    (400, G + H + b"\xff\xfe: z\r\n" + E),
    # control bytes in values
    (400, G + H + b"X: y\x00z\r\n" + E),
    (400, G + H + b"X: \x00\r\n" + E),
    (400, G + H + b"X: y\x08z\r\n" + E),
    (400, G + H + b"X: y\x0bz\r\n" + E),
    (400, G + H + b"X: y\x1b[31m\r\n" + E),
    (400, G + H + b"X: y\x7fz\r\n" + E),
    # Host
    (400, G + E),
    (400, G + b"X: y\r\n" + E),
    (400, G + H + H + E),
    (400, G + H + b"host: b\r\n" + E),
    (400, b"GET / HTTP/1.0\r\n" + H + b"Host: b\r\n" + E),
    (400, b"GET http://c/ HTTP/1.1\r\n" + H + b"Host: b\r\n" + E),
    (400, b"GET http://c/ HTTP/1.1\r\n" + E),
    (400, G + b"Host:\r\n" + E),
    (400, G + b"Host: a b\r\n" + E),
    (400, G + b"Host: a/b\r\n" + E),
    (400, G + b"Host: u@a\r\n" + E),
    (400, G + b"Host: a?b\r\n" + E),
    (400, G + b"Host: a#b\r\n" + E),
    (400, G + b"Host: a\\b\r\n" + E),
    (400, G + b"Host: <a>\r\n" + E),
    (400, G + b"Host: a:b\r\n" + E),
    (400, G + b"Host: a:80:80\r\n" + E),
    (400, G + b"Host: a:123456\r\n" + E),
    (400, G + b"Host: :80\r\n" + E),
    (400, G + b"Host: ::1\r\n" + E),
    (400, G + b"Host: [::1\r\n" + E),
    (400, G + b"Host: [::g]\r\n" + E),
    (400, G + b"Host: \xe9\r\n" + E),
    (400, b"GET / HTTP/1.0\r\nHost: a b\r\n" + E),
    (400, G + b"H_st: a\r\n" + b"Ho_st: a\r\n" + E),  # a dropped name is no Host
    # the request line
    (400, b"GET  / HTTP/1.1\r\n" + H + E),
    (400, b"GET /  HTTP/1.1\r\n" + H + E),
    (400, b" GET / HTTP/1.1\r\n" + H + E),
    (400, b"GET / HTTP/1.1 \r\n" + H + E),
    (400, b"GET\t/ HTTP/1.1\r\n" + H + E),
    (400, b"GET /\tHTTP/1.1\r\n" + H + E),
    (400, b"GET / x HTTP/1.1\r\n" + H + E),
    (400, b"GET /\r\n" + E),  # HTTP/0.9
    (400, b"GET\r\n" + E),
    (400, b"GET HTTP/1.1\r\n" + H + E),
    (400, b"GET / http/1.1\r\n" + H + E),
    (400, b"GET / HTTP/1\r\n" + H + E),
    (400, b"GET / HTTP/1.10\r\n" + H + E),
    (400, b"GET / HTTP/11\r\n" + H + E),
    (400, b"GET / HTTP/+1.1\r\n" + H + E),
    (400, b"GET / HTTP/\xb9.1\r\n" + H + E),
    (400, b"GET / RTSP/1.0\r\n" + H + E),
    (400, b"GET / ICE/1.0\r\n" + H + E),
    (505, b"GET / HTTP/0.9\r\n" + H + E),
    (505, b"GET / HTTP/1.2\r\n" + H + E),
    (505, b"GET / HTTP/2.0\r\n" + H + E),
    (505, b"GET / HTTP/3.0\r\n" + H + E),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    # methods
    (400, b"G(T / HTTP/1.1\r\n" + H + E),
    (400, b"GET/ / HTTP/1.1\r\n" + H + E),
    (400, b"G\xc9T / HTTP/1.1\r\n" + H + E),
    (501, b"get / HTTP/1.1\r\n" + H + E),
    (501, b"FOO / HTTP/1.1\r\n" + H + E),
    (501, b"GETX / HTTP/1.1\r\n" + H + E),
    (501, b"PRI / HTTP/1.1\r\n" + H + E),
    (501, b"DESCRIBE / HTTP/1.1\r\n" + H + E),
    (501, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n" + E),
    (501, b"CONNECT / HTTP/1.1\r\n" + H + E),
    # targets
    (400, b"GET index.html HTTP/1.1\r\n" + H + E),
    (400, b"GET a:80 HTTP/1.1\r\nHost: a:80\r\n" + E),
    (400, b"GET * HTTP/1.1\r\n" + H + E),
    (400, b"POST * HTTP/1.1\r\n" + H + E),
    (400, b"OPTIONS ** HTTP/1.1\r\n" + H + E),
    (400, b"GET /a#b HTTP/1.1\r\n" + H + E),
    (400, b"GET /?a#b HTTP/1.1\r\n" + H + E),
    (400, b"GET http://a/#b HTTP/1.1\r\n" + H + E),
    (400, b"GET /a\x00b HTTP/1.1\r\n" + H + E),
    (400, b"GET /a%00b HTTP/1.1\r\n" + H + E),
    (400, b"GET /a\x0cb HTTP/1.1\r\n" + H + E),
    (400, b"GET /a\x7fb HTTP/1.1\r\n" + H + E),
    (400, b"GET /\xc3\xa9 HTTP/1.1\r\n" + H + E),
    (400, b"GET /?\xff HTTP/1.1\r\n" + H + E),
    (400, b"GET http:///x HTTP/1.1\r\n" + H + E),
    (400, b"GET http:// HTTP/1.1\r\n" + H + E),
    (400, b"GET http://?x HTTP/1.1\r\n" + H + E),
    (400, b"GET http:/a HTTP/1.1\r\n" + H + E),
    (400, b"GET http://u:p@a/ HTTP/1.1\r\n" + H + E),
    (400, b"GET http://a:b/ HTTP/1.1\r\n" + H + E),
    (400, b"GET ftp://a/ HTTP/1.1\r\n" + H + E),
    (400, b"GET file:///etc/passwd HTTP/1.1\r\n" + H + E),
    # expectations
    (417, P + H + b"Content-Length: 5\r\nExpect: 200-ok\r\n" + E),
    (417, P + H + b"Content-Length: 5\r\nExpect:\r\n" + E),
    (417, P + H + b"Content-Length: 5\r\nExpect: 100-continue, 100-continue\r\n" + E),
    (417, P + H + b"Content-Length: 5\r\nExpect: 100-continue\r\nExpect: x\r\n" + E),
    # not HTTP at all
    (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),  # TLS
    (400, b"\x80\x2e\x01\x03\x01"),  # SSL 2
    (400, b"\x00\x0c\x00\x00\x0a\x00REQUEST_ME"),  # uwsgi
    (400, b"\x00" * 64),
    (400, b"\xff\xfb\x01"),
    (400, b'{"id": 1}\r\n\r\n'),
    (400, b"hello\r\n\r\n"),
    (400, b"SSH-2.0-OpenSSH_9.2\r\n"),
    (400, b"HTTP/1.1 200 OK\r\n\r\n"),
]


@pytest.mark.parametrize(("status", "data"), REFUSED, ids=lambda value: ascii(value)[2:70] if value != 0 else None)
def test_a_malformed_head_is_refused_with_its_status(status: int, data: bytes) -> None:
    verdict = whole(data)
    assert verdict.status == status, verdict
    assert bytewise(data) == verdict
    assert whole(data + SECOND) == verdict
    assert bytewise(data + SECOND) == verdict


@pytest.mark.parametrize(("status", "data"), REFUSED, ids=lambda value: ascii(value)[2:70] if value != 0 else None)
def test_the_reason_is_one_printable_ascii_line(status: int, data: bytes) -> None:
    reason = whole(data).reason
    assert 10 < len(reason) < 200
    assert reason.replace("…", "").isascii()
    assert reason.isprintable()


@pytest.mark.parametrize("data", [data for _, data in REFUSED[::9]], ids=lambda data: ascii(data)[2:70])
def test_after_a_refusal_the_connection_serves_nothing_more(data: bytes) -> None:
    # CVE-2024-49768: a rejected first request let the pipelined second one run
    parser = HeadParser(LIMITS, PEER)
    refusal = step(parser, data)
    assert step(parser, SECOND) == refusal
    assert step(parser, SECOND + SECOND) == refusal


@pytest.mark.parametrize("byte", [byte for byte in range(0x20) if byte != 0x09] + [0x7F])
@pytest.mark.parametrize("place", ["target", "method", "name", "value", "version"])
def test_every_control_byte_is_refused_everywhere(byte: int, place: str) -> None:
    head = {
        "target": b"GET /a%bb HTTP/1.1\r\nHost: a\r\n\r\n",
        "method": b"G%bT / HTTP/1.1\r\nHost: a\r\n\r\n",
        "name": b"GET / HTTP/1.1\r\nHost: a\r\nX%by: z\r\n\r\n",
        "value": b"GET / HTTP/1.1\r\nHost: a\r\nX: y%bz\r\n\r\n",
        "version": b"GET / HTTP/1%b.1\r\nHost: a\r\n\r\n",
    }[place] % bytes([byte])
    assert whole(head).status == bytewise(head).status == 400


@pytest.mark.parametrize("byte", sorted(set(range(0x80)) - set(b"!#$%&'*+-.^_`|~:") - {*range(0x30, 0x3A)}))
def test_a_header_name_is_a_token(byte: int) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX%by: z\r\n\r\n" % bytes([byte])
    assert whole(head).status == bytewise(head).status == (0 if chr(byte).isalpha() else 400)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x16", "TLS"),
        (b"\x00", "uwsgi packet"),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", "line feed without a carriage return"),
        (b"PRI * HTTP/2.0\r\n", "not HTTP/2.0"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n", "followed by a space"),
        (b"GET / HTTP/1.1\r\n: a\r\n", "not a token"),
        (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n", "folded"),
        (b"GET / HTTP/1.1\r\nX\r\n", "no colon"),
        (b"FOO / HTTP/1.1\r\n", "'FOO'"),
        (b"GET /\xff HTTP/1.1\r\n", "'/\\xff'"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", "Content-Length"),
        (b"GET / HTTP/1.1\r\n\r\n", "none"),
    ],
)
def test_the_reason_names_the_cause(data: bytes, words: str) -> None:
    assert words in whole(data).reason


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"\x16"),
        (400, b"\x00"),
        (400, b"\n"),
        (400, b"\r\n\r\n\r"),
        (400, b"\rG"),
        (400, b"GET / HTT\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\rb"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00"),
        (400, b"GET / HTTP/1.1\r\nbad name: a\r\n"),
        (505, b"GET / HTTP/2.0\r\n"),
        (501, b"CONNECT a:1 HTTP/1.1\r\n"),
    ],
)
def test_what_can_never_become_valid_is_refused_without_waiting_for_the_end(status: int, data: bytes) -> None:
    assert whole(data).status == bytewise(data).status == status
    assert whole(data[:-1]) == Verdict()


SMALL = Limits(max_request_line_bytes=40, max_header_count=3, max_head_bytes=120, max_body_bytes=1000)
LINE_40 = b"GET /" + b"x" * 26 + b" HTTP/1.1"
PAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: "

AT_LIMIT = [
    LINE_40 + b"\r\nHost: a\r\n\r\n",
    G + b"Host: a\r\nA: 1\r\nB: 2\r\n\r\n",
    PAD + b"x" * (120 - 4 - len(PAD)) + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00000001000\r\n\r\n",
    b"\r\n\r\n" + LINE_40 + b"\r\nHost: a\r\n\r\n",
]
OVER_LIMIT = [
    (414, LINE_40.replace(b"/x", b"/xx") + b"\r\nHost: a\r\n\r\n"),
    (414, LINE_40 + b"xx"),
    (414, b"GET /" + b"x" * 200),
    (414, b"X" * 50),
    (431, G + b"Host: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"),
    (431, G + b"Host: a\r\nA: 1\r\nB: 2\r\nC"),
    (431, G + b"Host: a\r\nA: 1\r\nA: 1\r\nA: 1\r\n\r\n"),
    (431, G + b"Host: a\r\nA_: 1\r\nB_: 1\r\nC_: 1\r\n\r\n"),
    (431, PAD + b"x" * (121 - 4 - len(PAD)) + b"\r\n\r\n"),
    (431, PAD + b"x" * 120),
    (431, G + b"X" * 200),
    (431, b"\r\n" + PAD + b"x" * 120 + b"\r\n\r\n"),
    (431, PAD + b"x" * (120 - 8 - len(PAD)) + b"\r\nY: z\r\nZ: z\r\n\r\n"),  # count and size end at one byte
    (413, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n"),
]


@pytest.mark.parametrize("data", AT_LIMIT, ids=range(len(AT_LIMIT)))
def test_a_head_at_its_limit_is_served(data: bytes) -> None:
    assert whole(data, SMALL).consumed == bytewise(data, SMALL).consumed == len(data)
    assert whole(data + SECOND, SMALL).consumed == len(data)


@pytest.mark.parametrize(("status", "data"), OVER_LIMIT, ids=range(len(OVER_LIMIT)))
def test_a_head_over_its_limit_is_refused(status: int, data: bytes) -> None:
    verdict = whole(data, SMALL)
    assert verdict.status == status, verdict
    assert bytewise(data, SMALL) == whole(data + SECOND, SMALL) == bytewise(data + SECOND, SMALL) == verdict


def test_the_default_limits_hold_for_large_heads() -> None:
    line = b"GET /" + b"x" * (8190 - 14) + b" HTTP/1.1"
    assert whole(line + b"\r\n" + H + E).consumed
    assert whole(line.replace(b"x", b"xx", 1) + b"\r\n" + H + E).status == 414
    many = G + H + b"".join(b"X-%d: y\r\n" % number for number in range(99))
    assert whole(many + E).consumed
    assert whole(many + b"Y: z\r\n" + E).status == 431
    large = G + H + b"X: " + b"y" * (65536 - len(G + H) - 7) + b"\r\n" + E
    assert whole(large).consumed == 65536
    assert whole(large.replace(b"y", b"yy", 1)).status == 431


def test_a_header_name_without_end_is_bounded() -> None:
    # httptools took one of 5 MB without an error or a callback
    parser = HeadParser(LIMITS, PEER)
    assert step(parser, G + b"X" * 60000) == Verdict()
    assert step(parser, G + b"X" * 5_000_000).status == 431
