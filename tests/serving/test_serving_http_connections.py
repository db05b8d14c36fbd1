"""HTTP/1.1 connections: kept, pipelined, idle without a core, and closed when and how they should be."""

from __future__ import annotations

import re
import socket
import time

import pytest
from harness import Server, free_port, read_all, running
from stage import PRELUDE, Peer, at_gate, begin, finish, http_get, open_gate, silent, tell, unique

VIEWS = (
    PRELUDE
    + """
def view_name(environ, start_response):
    body = environ["QUERY_STRING"].encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

def view_stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    name = environ["QUERY_STRING"]
    yield b"One"
    if name:
        gate(name)
    yield b""
    yield b"Two"

def view_read(environ, start_response):
    return text(start_response, len(environ["wsgi.input"].read()))

def view_fails(environ, start_response):
    raise ValueError

def view_says_close(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close"), ("Keep-Alive", "5"),
                              ("Transfer-Encoding", "chunked"), ("Upgrade", "h2c")])
    return [b"hello"]

def view_empty(environ, start_response):
    start_response("204 No Content", [])
    return []

def view_not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"a"')])
    return []

def view_own_date(environ, start_response):
    start_response("200 OK", [("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Server", "the application's")])
    return [b"x"]

def view_peer(environ, start_response):
    return text(start_response, repr(environ["REMOTE_ADDR"]), repr(environ["REMOTE_PORT"]),
                repr(environ["SERVER_NAME"]), repr(environ["SERVER_PORT"]))
"""
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("http"), VIEWS, "--asyncio", "3", "--loop", request.param) as server:
        yield server


# -- keep-alive -----------------------------------------------------------------------------------------------------


def test_a_connection_is_kept_for_many_requests(server):
    with Peer(server) as peer:
        for number in range(50):
            reply = peer.get(f"/name?{number}")
            assert (reply.status, reply.body) == (200, str(number).encode())
            assert (reply.header("Connection") or "keep-alive").lower() == "keep-alive"


@pytest.mark.parametrize("view", ["/hello", "/stream", "/read", "/empty", "/not_modified", "/no_such_view"])
def test_connection_close_is_obeyed_and_said(server, view):
    with Peer(server) as peer:
        reply = peer.get(view, "Connection: close")
        assert reply.header("Connection") == "close"
        assert peer.ended()


def test_connection_close_is_a_list_without_case(server):
    with Peer(server) as peer:
        assert peer.get("/hello", "Connection: foo, ClOsE").body == b"hello"
        assert peer.ended()


def test_an_http_1_0_client_is_answered_and_the_connection_closed(server):
    with Peer(server) as peer:
        peer.send(b"GET /name?abc HTTP/1.0\r\n\r\n")
        assert peer.reply().body == b"abc"
        assert peer.ended()


def test_an_http_1_0_client_that_asks_for_it_keeps_its_connection(server):
    with Peer(server) as peer:
        for _ in range(3):
            peer.send(b"GET /name?abc HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            reply = peer.reply()
            assert reply.body == b"abc"
            assert reply.header("Connection").lower() == "keep-alive"


def test_an_http_1_0_client_is_sent_no_chunks(server):
    for line in (b"", b"Connection: keep-alive\r\n"):
        with Peer(server) as peer:
            peer.send(b"GET /stream HTTP/1.0\r\n" + line + b"\r\n")
            head = peer.head()
            assert b"chunked" not in head.lower()
            assert peer.rest + read_all(peer.sock) == b"OneTwo"  # so the end of the connection is the end of the body


def test_an_unknown_length_goes_out_in_chunks_and_the_connection_is_kept(server):
    with Peer(server) as peer:
        for _ in range(3):
            reply = peer.get("/stream")
            assert reply.header("Transfer-Encoding") == "chunked"
            assert reply.header("Content-Length") is None
            assert reply.body == b"OneTwo"


def test_each_chunk_is_sent_at_once_and_an_empty_one_does_not_end_the_body(server):
    name = unique()
    with Peer(server) as peer:
        peer.send(http_get(f"/stream?{name}"))
        peer.head()
        chunks = peer.chunks()
        assert next(chunks) == b"One"
        open_gate(server, name)
        assert list(chunks) == [b"Two"]
        assert peer.get("/hello").body == b"hello"


def test_a_single_block_of_body_gets_its_length(server):
    with Peer(server) as peer:
        assert peer.get("/hello").header("Content-Length") == "5"


def test_a_connection_is_kept_after_204_and_304_without_a_body(server):
    with Peer(server) as peer:
        for view, status in (("/empty", 204), ("/not_modified", 304), ("/hello", 200)):
            reply = peer.get(view)
            assert reply.status == status
            assert reply.header("Transfer-Encoding") is None
            if status == 204:
                assert reply.header("Content-Length") is None


def test_head_is_answered_with_the_head_of_get_and_the_connection_is_kept(server):
    with Peer(server) as peer:
        for view in ("name?abc", "hello", "stream"):
            peer.send(b"HEAD /%s HTTP/1.1\r\nHost: x\r\n\r\n" % view.encode())
            reply = peer.reply(to_head=True)
            assert reply.status == 200
            if view == "name?abc":
                assert reply.header("Content-Length") == "3"
            assert peer.get("/name?after").body == b"after"


def test_hop_by_hop_headers_of_the_application_are_left_out(server):
    with Peer(server) as peer:
        reply = peer.get("/says_close")
        assert (reply.body, reply.header("Transfer-Encoding"), reply.header("Upgrade")) == (b"hello", None, None)
        assert reply.header("Content-Length") == "5"


def test_date_and_server_are_sent_once_and_only_if_the_application_sent_none(server):
    with Peer(server) as peer:
        reply = peer.get("/hello")
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", reply.header("Date"))
        assert reply.header("Server").startswith("corelet")
        reply = peer.get("/own_date")
        assert [value for name, value in reply.headers if name.lower() in ("date", "server")] == [
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "the application's",
        ]


def test_over_uwsgi_neither_date_nor_server_is_sent(server):
    reply = server.get("/hello", "uwsgi")
    assert (reply.header("Date"), reply.header("Server")) == (None, None)


def test_an_application_error_closes_the_connection(server):
    with Peer(server) as peer:
        reply = peer.get("/fails")
        assert (reply.status, reply.header("Connection")) == (500, "close")
        assert peer.ended()


# -- pipelining -----------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_their_order(server):
    with Peer(server) as peer:
        peer.send(b"".join(http_get(f"/name?{number}") for number in range(200)))
        assert [peer.reply().body for _ in range(200)] == [str(number).encode() for number in range(200)]


def test_pipelined_requests_with_bodies_are_taken_apart_rightly(server):
    one = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    two = b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n"
    three = b"POST /name?unread HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n"
    three += b"GET /name?smuggled HTTP/1.1\r\nHost: x\r\n\r\n"  # the body, 40 bytes
    with Peer(server) as peer:
        peer.send((one + two + three + http_get("/name?last")) * 3)
        assert [peer.reply().body for _ in range(12)] == [b"5", b"3", b"unread", b"last"] * 3


def test_requests_behind_a_suspended_one_wait_for_it_and_hold_no_core(server):
    name = unique()
    with Peer(server) as peer:
        peer.send(http_get(f"/gate?{name}") + b"".join(http_get(f"/name?{n}") for n in range(5)))
        at_gate(server, name)
        assert server.get("/hello").body == b"hello"
        assert tell(server, "1") == "1"
        assert silent(peer.sock)
        open_gate(server, name)
        assert peer.reply().body.startswith(b"opened")
        assert [peer.reply().body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_request_that_comes_in_pieces_behind_another_is_served(server):
    data = http_get("/name?first") + http_get("/name?second")
    for cut in range(1, len(data), 7):
        with Peer(server) as peer:
            peer.send(data[:cut])
            tell(server, "1")
            peer.send(data[cut:])
            assert [peer.reply().body, peer.reply().body] == [b"first", b"second"]


def test_requests_behind_connection_close_are_not_served(server):
    start = len(server.log.lines)
    with Peer(server) as peer:
        peer.send(http_get("/name?first", "Connection: close") + http_get("/name?unserved"))
        assert peer.reply().body == b"first"
        assert peer.ended()
    assert server.get("/hello").body == b"hello"
    assert not any("unserved" in line for line in server.log.lines[start:])


def test_requests_behind_a_refused_one_are_not_served(server):
    with Peer(server) as peer:
        peer.send(b"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + http_get("/name?unserved"))
        reply = peer.reply()
        assert (reply.status, reply.header("Connection")) == (400, "close")
        assert peer.ended()
    assert server.get("/hello").body == b"hello"
    assert not any("unserved" in line for line in server.log.lines)


def test_a_pipeline_of_a_client_that_has_gone_is_dropped(server):
    name = unique()
    peer = Peer(server)
    peer.send(http_get(f"/gate?{name}") + http_get("/name?x") * 50)
    at_gate(server, name)
    peer.sock.close()
    open_gate(server, name)
    assert server.get("/hello").body == b"hello"


# -- idle connections -----------------------------------------------------------------------------------------------


def test_idle_connections_hold_no_core(server):
    peers = [Peer(server) for _ in range(20)]  # on three cores
    for _ in range(3):
        for number, peer in enumerate(peers):
            assert peer.get(f"/name?{number}").body == str(number).encode()
    for peer in peers:
        peer.sock.close()


def test_an_idle_connection_is_closed_after_http_keepalive(tmp_path):
    with running(tmp_path, VIEWS, "--asyncio", "2", "--http-keepalive", "2") as server:
        before = time.monotonic()
        with Peer(server) as peer:
            assert peer.get("/hello").body == b"hello"
            began = time.monotonic()
            assert peer.ended()
            assert time.monotonic() - before >= 1.9
            assert time.monotonic() - began < 15


def test_http_keepalive_0_closes_after_each_reply(tmp_path):
    with running(tmp_path, VIEWS, "--asyncio", "2", "--http-keepalive", "0") as server, Peer(server) as peer:
        assert peer.get("/hello").header("Connection") == "close"
        assert peer.ended()


def test_a_kept_connection_whose_next_head_stalls_gets_408(tmp_path):
    with running(tmp_path, VIEWS, "--asyncio", "1", "--head-timeout", "1") as server, Peer(server) as peer:
        assert peer.get("/hello").body == b"hello"
        peer.send(b"GET /hel")
        assert server.get("/hello").body == b"hello"
        assert peer.reply().status == 408
        assert peer.ended()


def test_a_client_that_ends_an_idle_connection_leaves_no_line(server):
    peer = Peer(server)
    assert peer.get("/name?only").body == b"only"
    server.log.wait_for("GET /name?only ")
    before = len(server.log.lines)
    peer.sock.close()
    assert tell(server, "1 + 1") == "2"
    assert [line for line in server.log.lines[before:] if not line.startswith("told ")] == []


# -- other sockets --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def addressed(tmp_path_factory):
    """One server with an HTTP socket of every other kind; .sockets is kind -> how to connect."""
    folder = tmp_path_factory.mktemp("addresses")
    port = free_port()
    name = f"corelet-test-{port}"
    server = Server(
        folder,
        VIEWS,
        ("--http-socket", f"{folder}/http.sock", "--http-socket", f"[::1]:{port}", "--http-socket", f"@{name}"),
    )
    server.addresses = {
        "unix": (socket.AF_UNIX, f"{folder}/http.sock"),
        "ipv6": (socket.AF_INET6, ("::1", port)),
        "abstract": (socket.AF_UNIX, f"\0{name}"),
    }
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize("kind", ["unix", "ipv6", "abstract"])
def test_http_sockets_of_every_kind_serve(addressed, kind):
    family, address = addressed.addresses[kind]
    sock = socket.socket(family)
    sock.settimeout(20)
    sock.connect(address)
    with Peer(addressed, sock) as peer:
        assert peer.get("/hello").body == b"hello"
        peer.send(http_get("/name?1") + http_get("/stream") + http_get("/name?2"))
        assert [peer.reply().body for _ in range(3)] == [b"1", b"OneTwo", b"2"]
        where = peer.get("/peer").body.decode()
        if kind == "ipv6":
            assert where.startswith(f"'::1' '{sock.getsockname()[1]}' ")
            assert where.endswith(f" '{address[1]}'")
        else:
            assert "None" not in where
        assert peer.get("/hello", "Connection: close").status == 200
        assert peer.ended()


def test_a_suspended_request_on_a_unix_http_socket_is_served(addressed):
    name = unique()
    family, address = addressed.addresses["unix"]
    sock = socket.socket(family)
    sock.settimeout(20)
    sock.connect(address)
    sock.sendall(http_get(f"/gate?{name}", "Connection: close"))
    open_gate(addressed, name)
    assert finish(sock).body.startswith(b"opened")


def test_a_socket_option_may_speak_http(tmp_path):
    port = free_port()
    with (
        running(tmp_path, VIEWS, "--protocol", "http", "--socket", f"127.0.0.1:{port}") as server,
        Peer(server, socket.create_connection(("127.0.0.1", port), 20)) as peer,
    ):
        assert peer.get("/hello").body == b"hello"


def test_the_server_serves_requests_of_all_sockets_at_once(server):
    names = [(unique(), kind) for kind in ("http", "uwsgi", "unix")]
    waiting = [begin(server, f"/gate?{name}", kind) for name, kind in names]
    for name, _ in names:
        open_gate(server, name)
    assert [finish(sock).status for sock in waiting] == [200, 200, 200]
