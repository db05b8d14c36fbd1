"""Waiting by the `uwsgi` module beside what an application does itself: its own readers, raw switches, left-overs."""

from __future__ import annotations

import os

import pytest
from harness import running
from stage import PRELUDE, Peer, begin, finish, open_sockets, packet, tell, unique

VIEWS = (
    PRELUDE
    + '''
import uwsgi, corelet

PIPES = {}
LAST = []

def pipe(name):
    if name not in PIPES:
        PIPES[name] = os.pipe()
    return PIPES[name]

def view_wait(environ, start_response):
    """Wait for a pipe that the test writes to."""
    reader, _ = pipe(environ["QUERY_STRING"])
    uwsgi.wait_fd_read(reader)
    say(f"waits for {environ['QUERY_STRING']}.")
    uwsgi.suspend()
    return text(start_response, uwsgi.ready_fd() == reader, os.read(reader, 100))

def view_strays(environ, start_response):
    """Somebody who knows the greenlet switches to it while it waits, as uWSGI's websocket examples do."""
    me = greenlet.getcurrent()
    name = environ["QUERY_STRING"]
    reader, writer = pipe(name)
    for number in range(3):
        LOOP.call_soon(me.switch, f"stray {number}")
    LOOP.call_later(0.05, os.write, writer, b"x")
    began = LOOP.time()
    uwsgi.wait_fd_read(reader, 20)
    uwsgi.suspend()
    waited = LOOP.time() - began >= 0.049
    came = [me.parent.switch() for _ in range(3)]
    return text(start_response, waited, uwsgi.ready_fd() == reader, *came)

def view_own_reader(environ, start_response):
    """The application has its own reader on the connection, and waits for the same descriptor with us."""
    fd = uwsgi.connection_fd()
    seen = []
    def readable():
        seen.append(os.read(fd, 2))
        if len(seen) == 2:
            LOOP.remove_reader(fd)
    LOOP.add_reader(fd, readable)
    uwsgi.wait_fd_read(fd, 0.05)
    uwsgi.suspend()
    first = uwsgi.ready_fd()
    uwsgi.wait_fd_read(fd)
    say(f"own reader {environ['QUERY_STRING']}.")
    uwsgi.suspend()
    ready = uwsgi.ready_fd() == fd
    while len(seen) < 2:
        uwsgi.suspend()
    return text(start_response, first, ready, os.read(fd, 9), *seen)

def view_leave(environ, start_response):
    """Leave everything behind that can be left: a reader, a writer, a wait."""
    fd = uwsgi.connection_fd()
    LAST[:] = [fd]
    LOOP.add_reader(fd, lambda: None)
    LOOP.add_writer(fd, lambda: None)
    uwsgi.wait_fd_read(fd, 60)
    uwsgi.wait_fd_write(pipe("left")[1], 60)
    return text(start_response, "left")

def view_nothing(environ, start_response):
    """suspend() with nothing to wait for gives the others a turn."""
    turns = []
    LOOP.call_soon(turns.append, "a turn")
    return text(start_response, uwsgi.suspend(), *turns)

def view_float(environ, start_response):
    began = LOOP.time()
    uwsgi.async_sleep(0.05)
    uwsgi.suspend()
    return text(start_response, 0.049 <= LOOP.time() - began < 0.9)

def view_between(environ, start_response):
    """What comes between the registration and suspend() is not lost to another wait."""
    reader, writer = os.pipe()
    uwsgi.wait_fd_read(reader, 20)
    os.write(writer, b"x")
    corelet.sleep(0.02)
    uwsgi.suspend()
    return text(start_response, uwsgi.ready_fd() == reader)

def view_file(environ, start_response):
    try:
        uwsgi.wait_fd_read(os.open(__file__, os.O_RDONLY), 1)
    except OSError as error:
        return text(start_response, error)

def view_unwound(environ, start_response):
    reader, _ = pipe("never")
    try:
        uwsgi.wait_fd_read(reader)
        say(f"unwound waits {environ['QUERY_STRING']}.")
        uwsgi.suspend()
    finally:
        say(f"unwound {environ['QUERY_STRING']}.")

def view_streams(environ, start_response):
    start_response("200 OK", [])
    reader, writer = pipe(environ["QUERY_STRING"])
    while (piece := os.read(reader, 100)) != b"end":
        yield piece
        yield uwsgi.wait_fd_read(reader)

def view_list(environ, start_response):
    uwsgi.async_sleep(60)
    return text(start_response, "at once")

def view_connect_by_name(environ, start_response):
    fd = uwsgi.connect(f"localhost:{environ['SERVER_PORT']}")
    uwsgi.send(fd, b"GET /hello HTTP/1.0\\r\\nHost: test\\r\\n\\r\\n")
    reply = b""
    while piece := uwsgi.recv(fd):
        reply += piece
    uwsgi.close(fd)
    return text(start_response, reply.endswith(b"hello"))

def view_send_much(environ, start_response):
    """send() waits for its peer, and nobody waits for it."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    got = []
    def read():
        got.append(len(theirs.recv(1 << 20)))
    LOOP.add_reader(theirs, read)
    sent = uwsgi.send(ours.fileno(), bytes(3_000_000))
    while sum(got) < 3_000_000:
        uwsgi.suspend()
    LOOP.remove_reader(theirs)
    return text(start_response, sent, sum(got))

def view_send_to_client(environ, start_response):
    start_response("200 OK", [])
    return text(start_response, "x") if uwsgi.send(b"") is not True else [b"true"]
'''
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("waits")
    with running(folder, VIEWS, "--async", "10", "--loop", request.param) as server:
        yield server


def write(server, name: str, data: bytes) -> None:
    tell(server, f"os.write(pipe({name!r})[1], {data!r})")


def test_a_wait_ends_when_the_descriptor_is_ready_and_others_are_served_meanwhile(server):
    name = unique("pipe")
    waiting = begin(server, f"/wait?{name}")
    server.log.wait_for(f"waits for {name}.")
    assert server.get("/hello").body == b"hello"
    write(server, name, b"data")
    assert finish(waiting).body == b"True b'data'"


def test_stray_switches_neither_end_a_wait_nor_are_lost(server):
    assert server.get(f"/strays?{unique('pipe')}").body == b"True True stray 0 stray 1 stray 2"


@pytest.mark.parametrize("kind", ["http", "uwsgi", "unix"])
def test_the_applications_own_reader_and_our_wait_are_apart(server, kind):
    name = unique("own")
    sock = begin(server, f"/own_reader?{name}", kind)
    server.log.wait_for(f"own reader {name}.")
    sock.sendall(b"012345")
    assert finish(sock).body == b"-1 True b'45' b'01' b'23'"


@pytest.mark.parametrize("kind", ["http", "uwsgi", "unix"])
def test_what_is_left_registered_harms_no_later_connection(server, kind):
    before = open_sockets(server)
    for _ in range(3):
        assert server.get("/leave", kind).body == b"left"
    for _ in range(50):
        assert server.get("/hello", kind).body == b"hello"
    assert open_sockets(server) == before


def test_left_registrations_of_a_kept_connection_are_taken_out_with_their_request(server):
    with Peer(server) as peer:
        for _ in range(20):
            assert peer.get("/leave").body == b"left"
            assert peer.get("/hello").body == b"hello"
        assert tell(server, "LOOP.remove_reader(LAST[0]) or LOOP.remove_writer(LAST[0])") in ("False", "None")


def test_suspend_without_anything_to_wait_for_gives_one_turn(server):
    assert server.get("/nothing").body == b"True a turn"


def test_seconds_may_be_fractions(server):
    assert server.get("/float").body == b"True"


def test_what_comes_before_suspend_is_not_lost(server):
    assert server.get("/between").body == b"True"


def test_a_file_cannot_be_waited_for_and_the_error_says_so(server):
    assert b"a file on a disk is always ready" in server.get("/file").body


def test_a_client_that_goes_unwinds_the_wait_and_leaves_no_descriptor(server):
    counts = []
    for _ in range(4):
        name = unique("gone")
        sock = begin(server, f"/unwound?{name}", "unix")
        server.log.wait_for(f"unwound waits {name}.")
        sock.close()
        server.log.wait_for(f"unwound {name}.")
        tell(server, "None")  # a turn later
        counts.append(open_pipes(server))
    assert len(set(counts)) == 1


def open_pipes(server) -> int:
    folder = f"/proc/{server.pid}/fd"
    return sum(os.readlink(f"{folder}/{name}").startswith("pipe:") for name in os.listdir(folder))


def test_a_generator_streams_what_it_waits_for(server):
    name = unique("stream")
    write(server, name, b"one")
    with server.connect("uwsgi") as sock:
        sock.sendall(packet(f"/streams?{name}"))
        data = b""
        while not data.endswith(b"one"):
            data += sock.recv(1000)
        write(server, name, b"two")
        assert sock.recv(1000) == b"two"
        write(server, name, b"end")
        assert sock.recv(1000) == b""


def test_a_wait_left_behind_does_not_delay_a_list(server):
    """uWSGI waits after each chunk of any iterable, and so before the end of this one."""
    assert server.get("/list").body == b"at once"


def test_a_name_is_looked_up_and_a_blocking_descriptor_waits_for_its_core_only(server):
    assert server.get("/connect_by_name").body == b"True"


def test_send_sends_all_of_it_while_others_run(server):
    assert server.get("/send_much").body == b"True 3000000"


def test_send_with_data_alone_is_raw_to_the_client(server):
    reply = server.raw(b"GET /send_to_client HTTP/1.1\r\nHost: test\r\n\r\n")
    assert reply.endswith(b"true") and b"Connection: close" in reply


def test_two_hundred_requests_wait_at_once(tmp_path):
    with running(tmp_path / "many", VIEWS, "--async", "200") as many:
        names = [unique("many") for _ in range(200)]
        waiting = [begin(many, f"/wait?{name}") for name in names]
        for name in names:
            many.log.wait_for(f"waits for {name}.")
        for name in reversed(names):
            write(many, name, name.encode())
        for name, sock in zip(names, waiting, strict=True):
            assert finish(sock).body == f"True {name.encode()!r}".encode()
