"""Signals and deadlines at the end of a server: what ends in order, what ends at once, what cannot be interrupted."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from harness import PATIENCE_SECONDS
from stage import PRELUDE, Peer, at_gate, begin, finish, http_get, open_gate, tell

VIEWS = (
    PRELUDE
    + """
import corelet

def view_stuck(environ, start_response):
    try:
        gate(environ["QUERY_STRING"])
    finally:
        say(f"finally {environ['QUERY_STRING']}.")

def view_blocks(environ, start_response):
    say("blocks.")
    time.sleep(1.2)  # what an application does that should not be on a loop
    if environ["QUERY_STRING"]:
        gate(environ["QUERY_STRING"])
    return text(start_response, "late")

def block_until_told():
    say("loop blocked.")
    with open("fifo") as fifo:
        fifo.read()
"""
)


def ended(server):
    """The exit code, when it has ended by itself; its log is complete then."""
    code = server.process.wait(PATIENCE_SECONDS)
    server.log.join()
    assert "Traceback" not in server.log.text()
    return code


def while_blocked(server, *numbers):
    """Send these signals while the loop stands still, so that it finds all of them at one turn."""
    fifo = server.folder / "fifo"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"0 block_until_told()", os.path.join(server.folder, "control"))
    server.log.wait_for("loop blocked.")
    with open(fifo, "w"):  # closing it lets the loop go on
        for number in numbers:
            server.process.send_signal(number)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sighup_ends_in_order_like_sigterm(serve, loop):
    server = serve(VIEWS, "--asyncio", "3", "--loop", loop)
    running = [begin(server, f"/gate?{kind}", kind) for kind in ("uwsgi", "http", "unix")]
    for kind in ("uwsgi", "http", "unix"):
        at_gate(server, kind)
    server.process.send_signal(signal.SIGHUP)
    server.log.wait_for("SIGHUP: finishing 3 running requests")
    with pytest.raises(ConnectionRefusedError):
        server.connect("uwsgi")
    for kind in ("uwsgi", "http", "unix"):
        open_gate(server, kind)
    assert [finish(sock).body[:6] for sock in running] == [b"opened"] * 3
    assert ended(server) == 0
    assert not os.path.exists(server.unix)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sigquit_ends_at_once(serve, loop):
    server = serve(VIEWS, "--asyncio", "3", "--loop", loop)
    stuck = begin(server, "/stuck?held", "uwsgi")
    at_gate(server, "held")
    server.process.send_signal(signal.SIGQUIT)
    assert ended(server) == 0
    assert "finishing" not in server.log.text()
    assert not os.path.exists(server.unix)
    stuck.close()


def test_a_third_signal_ends_at_once(serve):
    server = serve(VIEWS, "--asyncio", "3")
    stuck = begin(server, "/stuck?held", "uwsgi")
    at_gate(server, "held")
    while_blocked(server, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    assert ended(server) == 0
    stuck.close()


def test_two_signals_that_come_together_do_not_wait_either(serve):
    server = serve(VIEWS, "--asyncio", "3")
    stuck = begin(server, "/stuck?held", "uwsgi")
    at_gate(server, "held")
    while_blocked(server, signal.SIGTERM, signal.SIGINT)
    assert ended(server) == 0
    assert server.log.count("finally held.") == 1
    stuck.close()


def test_without_mercy_what_is_running_is_unwound_at_once(serve):
    server = serve(VIEWS, "--asyncio", "3", "--reload-mercy", "0")
    stuck = [begin(server, f"/stuck?{kind}", kind) for kind in ("uwsgi", "http")]
    for kind in ("uwsgi", "http"):
        at_gate(server, kind)
    server.process.send_signal(signal.SIGTERM)
    assert [finish(sock).status for sock in stuck] == [504, 504]
    assert ended(server) == 0
    for kind in ("uwsgi", "http"):
        assert server.log.count(f"finally {kind}.") == 1


def test_requests_that_wait_for_a_core_when_the_mercy_ends_are_answered_503(serve):
    server = serve(VIEWS, "--asyncio", "1", "--reload-mercy", "1")
    with Peer(server) as early, Peer(server) as late:
        for peer in (early, late):
            assert peer.get("/hello").body == b"hello"
        stuck = begin(server, "/stuck?held", "uwsgi")
        at_gate(server, "held")
        early.send(http_get("/hello"))
        late.send(http_get("/hello"))
        for _ in range(2):  # what was sent before the first is read before the second
            assert tell(server, "1") == "1"
        server.process.send_signal(signal.SIGTERM)
        for peer in (early, late):
            reply = peer.reply()
            assert reply.status == 503
            assert b"the server stops" in reply.body
            assert reply.header("Connection") == "close"
            assert peer.ended()
    assert finish(stuck).status == 504
    assert ended(server) == 0
    assert server.log.count("finally held.") == 1


def test_harakiri_does_not_interrupt_a_view_that_blocks(serve):
    server = serve(VIEWS, "--asyncio", "3", "--harakiri", "0.1")
    reply = server.get("/blocks", "uwsgi")
    assert (reply.status, reply.body) == (200, b"late")
    assert not server.log.count("harakiri after")


def test_harakiri_unwinds_a_view_that_has_blocked_when_it_waits(serve):
    server = serve(VIEWS, "--asyncio", "3", "--harakiri", "0.1")
    reply = server.get("/blocks?then", "uwsgi")
    assert reply.status == 504
    server.log.wait_for("harakiri after 0.1 s; unwound")
