"""More peers than cores, slow peers and silent ones: who is served, who waits where, and who is refused.

Every core is busy here at some time; nothing of what these peers do may stop the others, or make the worker spin.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time

import pytest
from harness import PATIENCE_SECONDS, Server, read_until
from stage import (
    PRELUDE,
    Peer,
    at_gate,
    begin,
    cpu_seconds,
    finish,
    http_get,
    open_gate,
    open_sockets,
    packet,
    reset,
    silent,
    tell,
)

VIEWS = (
    PRELUDE
    + '''
import resource

ACTIVE = PEAK = 0

def view_wave(environ, start_response):
    global ACTIVE, PEAK
    ACTIVE += 1
    PEAK = max(PEAK, ACTIVE)
    me = greenlet.getcurrent()
    LOOP.call_later(0.3, me.switch)
    me.parent.switch()
    ACTIVE -= 1
    return text(start_response, "wave")

def view_big(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [b"x" * 50_000_000]

class Endless:
    def __iter__(self):
        try:
            while True:
                yield b"x" * 1_000_000
        finally:
            say("endless: finally.")

def view_endless(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return iter(Endless())

def view_echo(environ, start_response):
    return text(start_response, len(environ["wsgi.input"].read()))

HOGGED = []

def hog():
    """Take every descriptor there is."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with contextlib.suppress(OSError):
        while True:
            HOGGED.append(os.dup(0))
    return len(HOGGED) > 100

def give_back():
    while HOGGED:
        os.close(HOGGED.pop())
'''
)


def test_more_requests_than_cores_are_served_in_waves_without_spinning(serve):
    server = serve(VIEWS, "--asyncio", "3")
    before, began = cpu_seconds(server), time.monotonic()
    waiting = [begin(server, "/wave", kind) for kind in ["uwsgi", "http", "unix", "uwsgi"] * 2]
    assert [finish(sock).status for sock in waiting] == [200] * 8
    elapsed = time.monotonic() - began
    assert elapsed >= 0.85  # three waves
    assert tell(server, "PEAK") == "3"
    assert cpu_seconds(server) - before < elapsed / 2


def test_while_no_core_is_free_connections_stay_in_the_backlog_and_are_served_later(serve):
    server = serve(VIEWS, "--asyncio", "1")
    assert server.get("/hello").body == b"hello"
    held = begin(server, "/gate?held", "uwsgi")
    at_gate(server, "held")
    before = open_sockets(server)
    used = cpu_seconds(server)
    waiting = [begin(server, "/hello", kind) for kind in ("uwsgi", "http", "unix", "uwsgi", "http")]
    for number in range(50):
        assert tell(server, str(number)) == str(number)
    assert open_sockets(server) == before
    assert all(silent(sock) for sock in waiting)
    open_gate(server, "held")
    assert [finish(sock).body for sock in [held, *waiting]] == [b"opened 0", *[b"hello"] * 5]
    assert cpu_seconds(server) - used < 2


def test_with_one_core_a_suspended_request_lets_the_loop_run_and_the_next_one_waits(serve):
    server = serve(VIEWS, "--asyncio", "1")
    for number in range(3):
        first = begin(server, f"/gate?{number}")
        at_gate(server, str(number))
        second = begin(server, "/hello")
        assert tell(server, "1 + 1") == "2"
        open_gate(server, str(number))
        assert finish(first).body == b"opened 0"
        assert finish(second).body == b"hello"


# -- heads that do not come ---------------------------------------------------------------------------------------


def unfinished(server: Server) -> list[socket.socket]:
    """Connections of each kind that said nothing, one byte, or nearly all."""
    peers = []
    for kind in ("http", "uwsgi", "unix"):
        whole = http_get("/hello") if kind == "http" else packet("/hello")
        for part in (b"", whole[:1], whole[:3], whole[:5], whole[:-1]):
            sock = server.connect(kind)
            sock.sendall(part)
            peers.append(sock)
    return peers


def test_partial_heads_hold_no_core_and_end_at_the_head_timeout(serve):
    server = serve(VIEWS, "--asyncio", "2", "--head-timeout", "1")
    began = time.monotonic()
    peers = unfinished(server)
    for kind in ("http", "uwsgi", "unix"):
        assert server.get("/hello", kind).body == b"hello"
    ended = []
    for sock in peers:
        with sock, contextlib.suppress(ConnectionResetError):
            ended.append(b"".join(iter(lambda sock=sock: sock.recv(65536), b"")))
    assert time.monotonic() - began >= 0.9
    assert len(ended) == len(peers)  # answered or closed, none by a reset
    for data in ended[1:5]:
        assert data.startswith(b"HTTP/1.1 408 "), ended
    assert server.get("/hello").body == b"hello"
    assert "Traceback" not in server.log.text()


def test_bytes_that_keep_coming_do_not_put_the_head_timeout_off(serve):
    server = serve(VIEWS, "--asyncio", "1", "--head-timeout", "1")
    for kind in ("http", "uwsgi", "unix"):
        head = http_get("/hello", "X-Filler: " + "x" * 500) if kind == "http" else packet("/hello?" + "x" * 500)
        began = time.monotonic()
        with server.connect(kind) as sock:
            sock.settimeout(0.1)
            for byte in head:
                try:
                    sock.sendall(bytes([byte]))
                    if not sock.recv(65536):
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            assert 0.9 <= time.monotonic() - began < 15
        assert server.get("/hello", kind).body == b"hello"


@pytest.mark.parametrize("kind", ["http", "uwsgi", "unix"])
def test_a_request_sent_byte_by_byte_is_served(serve, kind):
    server = serve(VIEWS, "--asyncio", "1")
    body = b"0123456789"
    if kind == "http":
        data = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n" + body
    else:
        data = packet("/echo", "POST", body)
    with server.connect(kind) as sock:
        if kind != "unix":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            sock.sendall(bytes([byte]))
        assert sock.recv(65536).split(b"\r\n\r\n", 1)[1] in (b"10", b"")


# -- readers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uwsgi", "http", "unix"])
def test_a_slow_reader_of_50_mb_gets_it_all_and_the_others_do_not_wait(serve, kind):
    server = serve(VIEWS, "--asyncio", "2")
    sock = begin(server, "/big", kind)
    with Peer(server, sock) as peer:
        head = peer.head()
        for _ in range(20):
            peer.exactly(100_000)
            assert server.get("/hello", kind).body == b"hello"
        peer.exactly(50_000_000 - 2_000_000)
        assert peer.rest == b""
        assert b"200 OK" in head
        assert sock.recv(1) == b""


@pytest.mark.parametrize("kind", ["uwsgi", "http", "unix"])
@pytest.mark.parametrize("view", ["big", "endless"])
def test_a_reader_that_never_reads_is_cut_off_after_the_socket_timeout(serve, kind, view):
    server = serve(VIEWS, "--asyncio", "1", "--socket-timeout", "1", "--http-timeout", "1")
    with begin(server, f"/{view}", kind):
        if view == "endless":
            server.log.wait_for("endless: finally.")
        server.log.wait_for(f"GET /{view} ")  # its access line: the core is free
        assert server.get("/hello", kind).body == b"hello"
    assert "Traceback" not in server.log.text()


@pytest.mark.parametrize("kind", ["uwsgi", "http", "unix"])
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_reader_that_goes_away_midway_frees_the_core(serve, kind, ending):
    server = serve(VIEWS, "--asyncio", "1")
    for view in ("big", "endless"):
        with begin(server, f"/{view}", kind) as sock:
            read_until(sock, b"xxxx")
            if ending == "reset":
                reset(sock)
        server.log.wait_for(f"GET /{view} ")
        assert server.get("/hello", kind).body == b"hello"
    server.log.wait_for("endless: finally.")
    assert "Traceback" not in server.log.text()


@pytest.mark.parametrize("kind", ["uwsgi", "http", "unix"])
def test_a_body_that_never_comes_ends_at_the_socket_timeout(serve, kind):
    server = serve(VIEWS, "--asyncio", "1", "--socket-timeout", "1", "--http-timeout", "1")
    whole = packet("/echo", "POST", b"0123456789")
    if kind == "http":
        whole = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789"
    began = time.monotonic()
    with server.connect(kind) as sock:
        sock.sendall(whole[:-5])
        status = sock.recv(65536).split(b"\r\n")[0]
        assert status.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 ", b"HTTP/1.1 500 ")), status
    assert time.monotonic() - began >= 0.9
    assert server.get("/hello", kind).body == b"hello"


# -- bounds -------------------------------------------------------------------------------------------------------


def test_no_more_connections_are_open_than_max_connections(serve):
    server = serve(VIEWS, "--asyncio", "2", "--max-connections", "3")
    assert server.get("/hello").body == b"hello"  # whatever it opens when it begins to run is open
    before = open_sockets(server)
    peers = [server.connect() for _ in range(8)]
    for sock in peers:
        sock.sendall(b"GET /hello")
    for number in range(20):
        tell(server, str(number))
    assert open_sockets(server) <= before + 3
    for sock in peers:
        sock.sendall(b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert [finish(sock).body for sock in peers] == [b"hello"] * 8


def test_a_closed_idle_connection_makes_room_below_max_connections(serve):
    server = serve(VIEWS, "--asyncio", "2", "--max-connections", "2")
    first, second = Peer(server), Peer(server)
    assert first.get("/hello").body == second.get("/hello").body == b"hello"
    third = Peer(server)
    third.send(http_get("/hello"))
    first.sock.close()
    assert third.reply().body == b"hello"
    assert second.get("/hello").body == b"hello"
    second.sock.close()
    third.sock.close()


def test_a_full_queue_answers_503_and_the_connection_that_waits_is_served(serve):
    server = serve(VIEWS, "--asyncio", "1", "--max-queued", "1")
    peers = [Peer(server) for _ in range(3)]
    for peer in peers:
        assert peer.get("/hello").body == b"hello"
    held = begin(server, "/gate?held")
    at_gate(server, "held")
    peers[0].send(http_get("/hello"))
    tell(server, "1")  # it is queued by now
    for peer in peers[1:]:
        peer.send(http_get("/hello"))
        assert peer.reply().status == 503
    assert silent(peers[0].sock)
    open_gate(server, "held")
    assert peers[0].reply().body == b"hello"
    assert finish(held).status == 200
    for peer in peers:
        peer.sock.close()


def test_a_full_queue_answers_503_over_uwsgi(serve):
    server = serve(VIEWS, "--asyncio", "1", "--max-queued", "1")
    peers = [server.connect("uwsgi") for _ in range(3)]
    whole = packet("/hello")
    for sock in peers:
        sock.sendall(whole[:-1])  # accepted while a core is free, complete when none is
    assert server.get("/hello", "uwsgi").body == b"hello"
    held = begin(server, "/gate?held", "uwsgi")
    at_gate(server, "held")
    for sock in peers:
        sock.sendall(whole[-1:])
        tell(server, "1")
    replies = [finish(sock) for sock in peers[1:]]
    assert [reply.status for reply in replies] == [503, 503]
    open_gate(server, "held")
    assert finish(peers[0]).body == b"hello"
    assert finish(held).status == 200


def test_a_request_that_waited_too_long_for_a_core_is_answered_503(serve):
    server = serve(VIEWS, "--asyncio", "1", "--queue-timeout", "1")
    early = Peer(server)
    assert early.get("/hello").body == b"hello"
    held = begin(server, "/gate?held", "uwsgi")
    at_gate(server, "held")
    began = time.monotonic()
    early.send(http_get("/hello"))
    assert early.reply().status == 503
    assert time.monotonic() - began >= 0.9
    open_gate(server, "held")
    assert finish(held).status == 200
    assert server.get("/hello").body == b"hello"
    early.sock.close()


def test_a_client_that_goes_away_while_it_is_queued_is_not_served(serve):
    server = serve(VIEWS, "--asyncio", "1")
    early = Peer(server)
    assert early.get("/hello").body == b"hello"
    held = begin(server, "/gate?held", "uwsgi")
    at_gate(server, "held")
    early.send(http_get("/hello"))
    tell(server, "1")
    early.sock.close()
    tell(server, "1")
    open_gate(server, "held")
    assert finish(held).status == 200
    assert server.get("/hello").body == b"hello"


# -- descriptors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_without_free_descriptors_accepting_pauses_says_so_once_and_recovers(serve, loop):
    server = serve(VIEWS, "--asyncio", "5", "--max-connections", "100", "--loop", loop)
    assert server.get("/hello").body == b"hello"
    assert tell(server, "hog()") == "True"
    used, began = cpu_seconds(server), time.monotonic()
    waiting = [begin(server, "/hello", kind) for kind in ("uwsgi", "http", "unix")]
    line = server.log.wait_for("Too many open files")
    waiting[0].settimeout(1.2)  # long enough for several attempts
    with pytest.raises(TimeoutError):
        waiting[0].recv(1)
    waiting[0].settimeout(PATIENCE_SECONDS)
    assert tell(server, "1 + 1") == "2"  # the loop is well
    said = [line for line in server.log.lines if "Too many open files" in line]
    assert said == [line]
    tell(server, "give_back()")
    assert [finish(sock).body for sock in waiting] == [b"hello"] * 3
    assert cpu_seconds(server) - used < 0.5 * (time.monotonic() - began) + 0.3
    for _ in range(3):
        assert server.get("/hello").body == b"hello"
    assert "Traceback" not in server.log.text()


def test_connections_above_a_small_limit_of_open_files_wait_their_turn(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))  # inherited by the server
    try:
        server = Server(tmp_path, VIEWS, ("--asyncio", "50"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        waiting = [begin(server, "/hello", "uwsgi") for _ in range(100)]
        assert [finish(sock).body for sock in waiting] == [b"hello"] * 100
        waiting = [begin(server, f"/gate?g{number}", "uwsgi") for number in range(10)]
        for number in range(10):
            open_gate(server, f"g{number}")
        assert [finish(sock).status for sock in waiting] == [200] * 10
        assert "Traceback" not in server.log.text()
    finally:
        assert server.stop() == 0


# -- a probe ------------------------------------------------------------------------------------------------------


def test_a_probe_that_connects_and_closes_leaves_no_line(serve):
    server = serve(VIEWS, "--asyncio", "2")
    assert server.get("/hello").body == b"hello"
    server.log.wait_for("GET /hello ")
    before = list(server.log.lines)
    for kind in ("http", "uwsgi", "unix"):
        for _ in range(5):
            server.connect(kind).close()
            reset(server.connect(kind))
    assert server.get("/hello").body == b"hello"
    assert server.get("/hello", "uwsgi").body == b"hello"
    assert server.stop() == 0
    new = server.log.lines[len(before) :]
    expected = ("GET /hello ", "SIGTERM", "stopped after 3")
    assert [line for line in new if not any(word in line for word in expected)] == []


def test_many_clients_at_once_are_all_answered(serve):
    server = serve(VIEWS, "--asyncio", "4", "--listen", "64")
    failed: list[str] = []

    def client(number: int) -> None:
        kind = ("http", "uwsgi", "unix")[number % 3]
        for _ in range(20):
            try:
                if server.get("/hello", kind).body != b"hello":
                    failed.append(kind)
            except Exception as error:
                failed.append(f"{kind}: {error!r}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert failed == []
