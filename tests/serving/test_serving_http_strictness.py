"""What llhttp lets through, refuses or reports in its own way, seen from a real socket: each gets our answer.

The rows follow the table of strictness in BEHAVIOUR.md; a refused request is always the last one of its connection.
"""

from __future__ import annotations

import pytest
from harness import running
from stage import PRELUDE, Peer, http_get

VIEWS = (
    PRELUDE
    + """
def view_echo(environ, start_response):
    body = environ["wsgi.input"].read()
    seen = environ.get("HTTP_X_FOO"), environ["SERVER_PROTOCOL"], environ.get("HTTP_UPGRADE")
    return text(start_response, repr(body), *seen)

def view_unserved(environ, start_response):
    say("the second one was served")
    return text(start_response, "unserved")
"""
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("strict"), VIEWS, "--asyncio", "2") as server:
        yield server


HOST = b"Host: x\r\n"
POST = b"POST /echo HTTP/1.1\r\n" + HOST
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

REFUSED = {
    # llhttp refuses these itself
    "Content-Length with Transfer-Encoding": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
        400,
    ),
    "Transfer-Encoding with Content-Length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKS,
        400,
    ),
    "two equal Content-Lengths": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "two Content-Lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "a list of Content-Lengths": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "Content-Length with a plus": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "Content-Length with an underscore": (POST + b"Content-Length: 5_0\r\n\r\nhello", 400),
    "Content-Length in hex": (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "an empty Content-Length": (POST + b"Content-Length: \r\n\r\nhello", 400),
    "a huge Content-Length": (POST + b"Content-Length: 99999999999999999999999999\r\n\r\nhello", (400, 413)),
    "Content-Length in other digits": (POST + "Content-Length: ٥\r\n\r\nhello".encode(), 400),
    "a bare LF after the request line": (b"GET /echo HTTP/1.1\nHost: x\r\n\r\n", 400),
    "a bare LF after a header": (b"GET /echo HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
    "bare LFs only": (b"GET /echo HTTP/1.1\nHost: x\n\n", 400),
    "a bare CR in a value": (b"GET /echo HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
    "a folded header": (b"GET /echo HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", 400),
    "a blank before the colon": (b"GET /echo HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n", 400),
    "a blank before the first name": (b"GET /echo HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "an empty name": (b"GET /echo HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n", 400),
    "a NUL in a value": (b"GET /echo HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
    "a NUL in a name": (b"GET /echo HTTP/1.1\r\nHost: x\r\nX\0: a\r\n\r\n", 400),
    "a control byte in a value": (b"GET /echo HTTP/1.1\r\nHost: x\r\nX: a\x01b\r\n\r\n", 400),
    "chunked that is not last": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS, 400),
    # llhttp lets these through
    "Transfer-Encoding in HTTP/1.0": (b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, 400),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS, (400, 501)),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS, (400, 501)),
    "chunked on two lines": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
        (400, 501),
    ),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", (400, 501)),
    "chunked behind a vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS, (400, 501)),
    "an empty Transfer-Encoding": (POST + b"Transfer-Encoding: \r\n\r\n", (400, 501)),
    "no Host": (b"GET /echo HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET /echo HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    "a Host that is none": (b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "a Host with a path": (b"GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /echo HTTP/0.9\r\n\r\n", (400, 505)),
    "HTTP/0.9 without a version": (b"GET /echo\r\n\r\n", 400),
    "HTTP/2.0": (b"GET /echo HTTP/2.0\r\nHost: x\r\n\r\n", (400, 505)),
    "HTTP/1.2": (b"GET /echo HTTP/1.2\r\nHost: x\r\n\r\n", (400, 505)),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 505)),
    "two blanks in the request line": (b"GET  /echo HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "two blanks before the version": (b"GET /echo  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a fragment in the target": (b"GET /echo#a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a control byte in the target": (b"GET /ec\x01ho HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a target without a slash": (b"GET echo HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "an asterisk for GET": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a name longer than any head": (b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"X" * 200_000 + b": 1\r\n\r\n", 431),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_what_follows_is_not_served(server, name):
    data, statuses = REFUSED[name]
    start = len(server.log.lines)
    with Peer(server) as peer:
        peer.send(data + http_get("/unserved"))
        reply = peer.reply()
        assert reply.status in (statuses if isinstance(statuses, tuple) else (statuses,))
        assert reply.header("Connection") == "close"
        assert peer.ended()
    new = server.log.lines[start:]
    assert "the second one was served" not in new
    assert not any("Traceback" in line for line in new)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_on_a_kept_connection_too(server, name):
    data, statuses = REFUSED[name]
    with Peer(server) as peer:
        assert peer.get("/hello").body == b"hello"
        peer.send(data)
        assert peer.reply().status in (statuses if isinstance(statuses, tuple) else (statuses,))
        assert peer.ended()


def test_a_header_name_with_an_underscore_is_dropped(server):
    with Peer(server) as peer:
        assert peer.get("/echo", "X_Foo: spoofed").body == b"b'' None HTTP/1.1 None"
        assert peer.get("/echo", "X-Foo: real", "X_Foo: spoofed").body == b"b'' real HTTP/1.1 None"


def test_blanks_around_a_value_are_stripped(server):
    with Peer(server) as peer:
        assert peer.get("/echo", "X-Foo:  \t a b \t ").body == b"b'' a b HTTP/1.1 None"
        peer.send(POST + b"Content-Length:  5 \t\r\n\r\nhello")
        assert peer.reply().body.startswith(b"b'hello'")
        peer.send(POST + b"Transfer-Encoding:  CHUNKED \r\n\r\n" + CHUNKS)
        assert peer.reply().body.startswith(b"b'hello'")


def test_an_upgrade_that_is_no_websocket_is_served_as_an_ordinary_request(server):
    with Peer(server) as peer:
        h2c = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
        assert peer.get("/echo", *h2c).body == b"b'' None HTTP/1.1 h2c"
        peer.send(POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello" + http_get("/hello"))
        assert peer.reply().body == b"b'hello' None HTTP/1.1 h2c"
        assert peer.reply().body == b"hello"
        peer.send(POST + b"Connection: Upgrade\r\nUpgrade: foo\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS)
        assert peer.reply().body == b"b'hello' None HTTP/1.1 foo"


def test_connect_is_refused_or_left_to_the_application_and_never_a_tunnel(server):
    with Peer(server) as peer:
        peer.send(b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + http_get("/unserved"))
        assert 400 <= peer.reply().status < 502
        assert peer.ended()


def test_bytes_after_connection_close_do_not_spoil_the_reply(server):
    with Peer(server) as peer:
        peer.send(POST + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello" + b"garbage \0\xff" * 50)
        assert peer.reply().body.startswith(b"b'hello'")
        assert peer.ended()


def test_empty_lines_before_a_request_are_skipped(server):
    with Peer(server) as peer:
        peer.send(b"\r\n" + http_get("/hello") + b"\r\n\r\n" + http_get("/hello"))  # RFC 9112 2.2
        assert peer.reply().body == b"hello"
        assert peer.reply().body == b"hello"


def test_trailers_and_chunk_extensions_are_ignored(server):
    with Peer(server) as peer:
        peer.send(
            POST
            + b"Transfer-Encoding: chunked\r\n\r\n5;name=value\r\nhello\r\n0\r\nX-Foo: trailer\r\n\r\n"
            + http_get("/hello")
        )
        assert peer.reply().body == b"b'hello' None HTTP/1.1 None"
        assert peer.reply().body == b"hello"


def test_the_absolute_form_is_served_and_its_host_counts(server):
    with Peer(server) as peer:
        peer.send(b"GET http://other.example/echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peer.reply().body == b"b'' None HTTP/1.1 None"


def test_five_megabytes_of_head_are_refused_before_they_have_all_come(server):
    with Peer(server) as peer:
        try:
            peer.send(b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"X" * 5_000_000)
            assert peer.reply().status == 431
        except ConnectionError:
            pass  # the reply was overtaken by the reset that so much unread data may end in
    assert server.get("/hello").body == b"hello"
