"""Bodies over HTTP: chunked in any pieces, 100 Continue, limits, and bodies that nobody read."""

from __future__ import annotations

import hashlib

import pytest
from harness import read_all, running
from stage import PRELUDE, Peer, at_gate, http_get, open_gate, silent, tell, unique

VIEWS = (
    PRELUDE
    + '''
import hashlib

def view_echo(environ, start_response):
    body = environ["wsgi.input"].read()
    return text(start_response, environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING"),
                environ["wsgi.input_terminated"], hashlib.sha1(body).hexdigest())

def view_lines(environ, start_response):
    return text(start_response, *(line.decode() for line in environ["wsgi.input"]))

def view_parts(environ, start_response):
    """What has come so far, as it comes."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    while line := environ["wsgi.input"].readline():
        yield line

def view_unread(environ, start_response):
    return text(start_response, "unread")

def view_partly(environ, start_response):
    return text(start_response, len(environ["wsgi.input"].read(3)))

def view_gate_then_read(environ, start_response):
    gate(environ["QUERY_STRING"])
    return text(start_response, len(environ["wsgi.input"].read()))

def view_status_417(environ, start_response):
    start_response("417 Expectation Failed", [("Content-Length", "0")])
    return []

def view_trailers(environ, start_response):
    environ["wsgi.input"].read()
    return text(start_response, sorted(key for key in environ if "TRAILER" in key or "SMUGGLED" in key))
'''
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("bodies"), VIEWS, "--asyncio", "3", "--loop", request.param) as server:
        yield server


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"


def post(target: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


CHUNKED = post("/echo", "Transfer-Encoding: chunked") + chunked(
    b"hello ", b"world", b"!" * 20, trailer=b"X-Trailer: 1\r\n"
)


@pytest.mark.parametrize("cut", range(1, len(CHUNKED), 3))
def test_a_chunked_body_may_be_cut_anywhere(server, cut):
    with Peer(server) as peer:
        peer.send(CHUNKED[:cut])
        tell(server, "0")
        peer.send(CHUNKED[cut:] + http_get("/unread"))
        reply = peer.reply()
        assert reply.body.decode() == f"None chunked True {digest(b'hello world' + b'!' * 20)}"
        assert peer.reply().body == b"unread"


def test_a_chunked_body_may_come_byte_by_byte(server):
    with Peer(server) as peer:
        for byte in CHUNKED:
            peer.send(bytes([byte]))
        assert peer.reply().body.endswith(digest(b"hello world" + b"!" * 20).encode())
        assert peer.get("/unread").body == b"unread"


@pytest.mark.parametrize("pieces", [[b"x" * 3_000_000], [b"y" * 1000] * 500, [b"z"] * 3000])
def test_chunks_of_any_size_are_put_together(server, pieces):
    with Peer(server) as peer:
        peer.send(post("/echo", "Transfer-Encoding: chunked") + chunked(*pieces))
        assert peer.reply().body.endswith(digest(b"".join(pieces)).encode())
        assert peer.get("/unread").body == b"unread"


def test_a_long_body_of_known_length_is_read_whole(server):
    body = bytes(range(256)) * 20_000
    with Peer(server) as peer:
        peer.send(post("/echo", f"Content-Length: {len(body)}") + body)
        assert peer.reply().body.decode() == f"{len(body)} None True {digest(body)}"
        assert peer.get("/unread").body == b"unread"


def test_a_body_is_streamed_to_the_application_as_it_comes(server):
    with Peer(server) as peer:
        peer.send(post("/parts", "Transfer-Encoding: chunked") + b"4\r\none\n\r\n")
        peer.head()
        replies = peer.chunks()
        assert next(replies) == b"one\n"
        peer.send(b"8\r\ntwo\nthre\r\n")
        assert next(replies) == b"two\n"
        peer.send(b"2\r\ne\n\r\n0\r\n\r\n")
        assert list(replies) == [b"three\n"]


def test_lines_are_iterated_over_chunks(server):
    with Peer(server) as peer:
        peer.send(post("/lines", "Transfer-Encoding: chunked") + chunked(b"a\nb", b"b\n", b"c"))
        assert peer.reply().body == b"a\n bb\n c"


def test_trailers_do_not_reach_the_environ(server):
    with Peer(server) as peer:
        peer.send(
            post("/trailers", "Transfer-Encoding: chunked") + chunked(b"a", trailer=b"Smuggled: 1\r\nX-Trailer: 2\r\n")
        )
        assert peer.reply().body == b"[]"


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"g\r\n",
        b"5;\x00\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5" + b" " * 2000 + b"\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"0\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
    ],
)
def test_a_malformed_chunked_body_is_an_error_and_ends_the_connection(server, body):
    with Peer(server) as peer:
        peer.send(post("/echo", "Transfer-Encoding: chunked") + body + http_get("/unread"))
        reply = peer.reply()
        assert reply.status in (400, 500)
        assert reply.header("Connection") == "close"
        assert peer.ended()


# -- Expect: 100-continue -----------------------------------------------------------------------------------------


def test_100_continue_is_sent_at_the_first_read_and_not_before(server):
    name = unique()
    with Peer(server) as peer:
        peer.send(post(f"/gate_then_read?{name}", "Content-Length: 5", "Expect: 100-continue"))
        at_gate(server, name)
        assert tell(server, "1") == "1"
        assert silent(peer.sock)
        open_gate(server, name)
        assert peer.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send(b"hello")
        assert peer.reply().body == b"5"
        assert peer.get("/unread").body == b"unread"


def test_100_continue_is_sent_for_a_chunked_body(server):
    with Peer(server) as peer:
        peer.send(post("/echo", "Transfer-Encoding: chunked", "Expect: 100-Continue"))
        assert peer.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send(chunked(b"hello"))
        assert peer.reply().body.endswith(digest(b"hello").encode())


def test_100_continue_is_not_sent_to_who_did_not_wait(server):
    with Peer(server) as peer:
        peer.send(post("/echo", "Content-Length: 5", "Expect: 100-continue") + b"hello")
        head = peer.head()
        if head.startswith(b"HTTP/1.1 100 "):  # allowed (RFC 9110 10.1.1: MAY omit), if it comes once and first
            head = peer.head()
        assert head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("view", ["unread", "status_417"])
def test_an_application_that_does_not_read_sends_no_100_and_announces_the_close(server, view):
    with Peer(server) as peer:
        peer.send(post(f"/{view}", "Content-Length: 5", "Expect: 100-continue"))
        reply = peer.reply()
        assert reply.status in (200, 417)
        # The body may follow or not; only closing is safe (RFC 9110 10.1.1).
        assert reply.header("Connection") == "close"
        assert peer.ended()


def test_an_http_1_0_expectation_is_ignored(server):
    with Peer(server) as peer:
        peer.send(b"POST /echo HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        tell(server, "1")
        assert silent(peer.sock)
        peer.send(b"hello")
        assert peer.reply().body.endswith(digest(b"hello").encode())


def test_an_expectation_on_a_uwsgi_socket_is_ignored(server):
    reply = server.get("/echo", "uwsgi", "POST", b"hello", [("Expect", "100-continue")])
    assert (reply.status, reply.body.endswith(digest(b"hello").encode())) == (200, True)


# -- unread bodies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["unread", "partly"])
@pytest.mark.parametrize("size", [1, 5, 100, 4000])
def test_after_a_small_unread_body_the_connection_goes_on(server, view, size):
    with Peer(server) as peer:
        for _ in range(3):
            peer.send(post(f"/{view}", f"Content-Length: {size}") + b"G" * size)
            assert peer.reply().status == 200
            peer.send(post(f"/{view}", "Transfer-Encoding: chunked") + chunked(b"G" * size))
            assert peer.reply().status == 200
        assert peer.get("/unread").body == b"unread"


def test_a_small_unread_body_that_comes_after_the_reply_is_skipped_or_the_close_was_announced(server):
    with Peer(server) as peer:
        peer.send(post("/unread", "Content-Length: 50"))
        reply = peer.reply()
        assert reply.body == b"unread"
        if reply.header("Connection") == "close":
            assert peer.ended()
            return
        peer.send(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".ljust(50, b"x") + http_get("/partly"))
        assert peer.reply().body == b"0"


@pytest.mark.parametrize("view", ["unread", "partly"])
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_after_a_large_unread_body_the_connection_is_closed_without_a_reset(server, view, kind):
    body = b"x" * 2_000_000
    with Peer(server) as peer:
        if kind == "length":
            peer.send(post(f"/{view}", f"Content-Length: {len(body)}") + body)
        else:
            peer.send(post(f"/{view}", "Transfer-Encoding: chunked") + chunked(body))
        assert peer.reply().status == 200  # not a reset on the way
        assert peer.rest + read_all(peer.sock) == b""


def test_a_large_unread_body_over_uwsgi_is_no_reset(server):
    for kind in ("uwsgi", "unix"):
        assert server.get("/unread", kind, "POST", b"x" * 2_000_000).body == b"unread"


# -- limits -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    arguments = ("--asyncio", "2", "--limit-post", "1000", "--http-max-request-line", "200", "--http-max-headers", "10")
    with running(tmp_path_factory.mktemp("limits"), VIEWS, *arguments, "--http-max-head", "2000") as server:
        yield server


@pytest.mark.parametrize(
    "data, status",
    [
        (post("/echo", "Content-Length: 1000") + b"x" * 1000, 200),
        (post("/echo", "Content-Length: 1001") + b"x" * 1001, 413),
        (post("/unread", "Content-Length: 1001"), 413),
        (post("/echo", "Content-Length: 1001", "Expect: 100-continue"), 413),
        (post("/echo", "Transfer-Encoding: chunked") + chunked(b"x" * 1000), 200),
        (post("/echo", "Transfer-Encoding: chunked") + chunked(b"x" * 600, b"x" * 600), 413),
        (http_get("/echo?" + "x" * 150), 200),
        (http_get("/echo?" + "x" * 300), 414),
        (b"GET /" + b"x" * 300, 414),
        (http_get("/echo", *(f"X-{n}: 1" for n in range(8))), 200),
        (http_get("/echo", *(f"X-{n}: 1" for n in range(20))), 431),
        (http_get("/echo", "X-Long: " + "x" * 3000), 431),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 3000, 431),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"X" * 3000, 431),
    ],
)
def test_a_limit_is_answered_with_its_status_and_the_connection_closed(limited, data, status):
    with Peer(limited) as peer:
        peer.send(data)
        reply = peer.reply()
        assert reply.status == status
        if status != 200:
            assert reply.header("Connection") == "close"
            assert peer.ended()
    assert limited.get("/unread").body == b"unread"


def test_the_same_limit_of_a_body_holds_over_uwsgi(limited):
    assert limited.get("/echo", "uwsgi", "POST", b"x" * 1000).status == 200
    assert limited.get("/echo", "uwsgi", "POST", b"x" * 1001).status == 413
    assert limited.get("/echo", "unix", "POST", b"x" * 500_000).status == 413


def test_the_default_limits_take_what_browsers_send_and_no_more(server):
    assert server.get("/unread?" + "x" * 8000).status == 200
    assert server.get("/unread?" + "x" * 9000).status == 414
    assert server.get("/unread", headers=[(f"X-{n}", "1") for n in range(90)]).status == 200
    assert server.get("/unread", headers=[(f"X-{n}", "1") for n in range(110)]).status == 431
    assert server.get("/unread", headers=[("Cookie", "x" * 60_000)]).status == 200
    assert server.get("/unread", headers=[("Cookie", "x" * 70_000)]).status == 431
