"""A view that awaits between its chunks: each chunk arrives before the next one is made, through nginx as well."""

from __future__ import annotations

import pytest
from harness import Nginx, running
from stage import PRELUDE, Peer, at_gate, http_get, open_gate, unique

VIEWS = (
    PRELUDE
    + """
import corelet

def view_stream(environ, start_response):
    name = environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    for number in range(3):
        yield corelet.await_(future_gate(f"{name}-{number}"))

def view_unbuffered(environ, start_response):
    name = environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")])
    for number in range(3):
        yield corelet.await_(future_gate(f"{name}-{number}"))

def view_write(environ, start_response):
    name = environ["QUERY_STRING"]
    write = start_response("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")])
    for number in range(3):
        write(corelet.await_(future_gate(f"{name}-{number}")))
    return []

def view_fails(environ, start_response):
    name = environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")])
    yield corelet.await_(future_gate(f"{name}-0"))
    async def fails():
        raise LookupError("midway")
    yield corelet.await_(fails())

def view_endless(environ, start_response):
    name = environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")])
    try:
        yield b"One"
        corelet.await_(future_gate(name))
    finally:
        say(f"stream {name}: finally.")
"""
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("streaming"), VIEWS, "--asyncio", "4", "--loop", request.param) as server:
        yield server


@pytest.fixture(scope="module")
def front(server, tmp_path_factory):
    """nginx before the TCP and the unix socket, unbuffered by its configuration or by the reply's own header."""
    locations = f"""
        location / {{ uwsgi_pass 127.0.0.1:{server.uwsgi[1]}; }}
        location /stream {{ uwsgi_pass 127.0.0.1:{server.uwsgi[1]}; uwsgi_buffering off; }}
        location /unix/ {{ rewrite ^ /unbuffered break; uwsgi_pass unix:{server.unix}; }}
    """
    nginx = Nginx(tmp_path_factory.mktemp("front"), locations)
    yield nginx
    nginx.stop()


def chunk_by_chunk(server, peer, target, name):
    peer.send(http_get(f"{target}?{name}"))
    chunks = None
    for number in range(3):
        open_gate(server, f"{name}-{number}", b"chunk %d\n" % number)
        if chunks is None:
            assert b"chunked" in peer.head()
            chunks = peer.chunks()
        assert next(chunks) == b"chunk %d\n" % number  # before the next gate is opened
    assert list(chunks) == []


@pytest.mark.parametrize("view", ["/stream", "/unbuffered", "/write"])
def test_each_chunk_arrives_before_the_next_is_awaited_over_http(server, view):
    with Peer(server) as peer:
        for _ in range(2):
            chunk_by_chunk(server, peer, view, unique())


@pytest.mark.parametrize("view", ["/stream", "/unbuffered", "/write", "/unix/"])
def test_each_chunk_arrives_before_the_next_is_awaited_behind_nginx(server, front, view):
    with Peer(server, front.connect()) as peer:
        for _ in range(2):
            chunk_by_chunk(server, peer, view, unique())


def test_a_stream_that_fails_midway_is_never_passed_on_as_complete(server, front):
    name = unique()
    with Peer(server, front.connect()) as peer:
        peer.send(http_get(f"/fails?{name}"))
        open_gate(server, f"{name}-0", b"chunk 0\n")
        peer.head()
        chunks = peer.chunks()
        assert next(chunks) == b"chunk 0\n"
        with pytest.raises((AssertionError, ConnectionResetError)):  # the end, without the last chunk of length 0
            next(chunks)


def test_a_client_of_nginx_that_goes_away_ends_the_stream(server, front):
    for _ in range(6):  # more often than there are cores
        name = unique()
        with Peer(server, front.connect()) as peer:
            peer.send(http_get(f"/endless?{name}"))
            peer.head()
            at_gate(server, name)
        server.log.wait_for(f"stream {name}: finally.")
    with Peer(server, front.connect()) as peer:
        assert peer.get("/hello").body == b"hello"
