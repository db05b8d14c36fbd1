"""SIGTERM and SIGINT: no new connection, every running request to its end, then exit code 0."""

from __future__ import annotations

import signal

import pytest
from harness import PATIENCE_SECONDS
from stage import PRELUDE, Peer, at_gate, begin, finish, http_get, open_gate, packet, tell

VIEWS = (
    PRELUDE
    + """
def view_stream(environ, start_response):
    name = environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"One"
    gate(name)
    yield b"Two"

def view_stuck(environ, start_response):
    try:
        gate(environ["QUERY_STRING"])
    finally:
        say("stuck: finally.")

def view_read(environ, start_response):
    say("reading.")
    return text(start_response, len(environ["wsgi.input"].read()))
"""
)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_requests_are_finished_and_the_exit_code_is_0(serve, number, loop):
    server = serve(VIEWS, "--asyncio", "10", "--loop", loop)
    idle = Peer(server)
    assert idle.get("/hello").body == b"hello"
    running = [begin(server, f"/gate?{kind}", kind) for kind in ("uwsgi", "http", "unix")]
    stream = begin(server, "/stream?stream", "uwsgi")
    body = server.connect()
    body.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
    server.log.wait_for("reading.")
    for name in ("uwsgi", "http", "unix", "stream"):
        at_gate(server, name)
    server.process.send_signal(number)
    assert idle.ended()  # an idle connection is no reason to wait
    for kind in ("uwsgi", "http"):
        with pytest.raises(ConnectionRefusedError):
            server.connect(kind)
    for name in ("uwsgi", "http", "unix", "stream"):
        open_gate(server, name)
    assert [finish(sock).body[:6] for sock in running] == [b"opened"] * 3
    assert finish(stream).body == b"OneTwo"
    body.sendall(b"56789")
    with Peer(server, body) as peer:
        reply = peer.reply()
        assert reply.body == b"10"
        assert reply.header("Connection") == "close"
        assert peer.ended()
    assert server.process.wait(PATIENCE_SECONDS) == 0
    server.log.join()
    assert "Traceback" not in server.log.text()
    idle.sock.close()


def test_an_idle_server_stops_at_once(serve):
    server = serve(VIEWS)
    assert server.stop(signal.SIGINT) == 0
    assert "stopped after 0 requests" in server.log.text()
    assert "Traceback" not in server.log.text()


def test_requests_that_do_not_end_within_the_mercy_are_unwound(serve):
    server = serve(VIEWS, "--asyncio", "3", "--reload-mercy", "1")
    stuck = [begin(server, f"/stuck?{kind}", kind) for kind in ("uwsgi", "http")]
    for kind in ("uwsgi", "http"):
        at_gate(server, kind)
    assert server.stop() == 0
    assert server.log.count("stuck: finally.") == 2
    for sock in stuck:
        sock.close()


def test_a_request_whose_head_was_under_way_does_not_hold_the_end_up(serve):
    server = serve(VIEWS, "--asyncio", "3")
    peers = [server.connect(kind) for kind in ("http", "uwsgi", "unix")]
    peers[0].sendall(http_get("/hello")[:-2])
    peers[1].sendall(packet("/hello")[:-2])
    assert tell(server, "1") == "1"
    held = begin(server, "/gate?held", "uwsgi")
    at_gate(server, "held")
    server.process.send_signal(signal.SIGTERM)
    open_gate(server, "held")
    assert finish(held).status == 200
    assert server.process.wait(PATIENCE_SECONDS) == 0
    for sock in peers:
        sock.close()


def test_pipelined_requests_behind_the_running_one_are_not_begun_after_the_signal(serve):
    server = serve(VIEWS, "--asyncio", "3")
    with Peer(server) as peer:
        peer.send(http_get("/gate?first") + http_get("/hello"))
        at_gate(server, "first")
        server.process.send_signal(signal.SIGTERM)
        server.log.wait_for("SIGTERM")
        open_gate(server, "first")
        reply = peer.reply()
        assert reply.body.startswith(b"opened")
        assert reply.header("Connection") == "close"
        assert peer.ended()
    assert server.process.wait(PATIENCE_SECONDS) == 0


def test_a_second_signal_unwinds_what_is_still_running_at_once(serve):
    server = serve(VIEWS, "--asyncio", "3")
    held = begin(server, "/stuck?held", "uwsgi")
    at_gate(server, "held")
    server.process.send_signal(signal.SIGTERM)
    server.log.wait_for("SIGTERM")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE_SECONDS) == 0
    server.log.join()
    assert server.log.count("stuck: finally.") == 1
    held.close()
