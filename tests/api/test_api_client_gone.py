"""client-gone: what becomes of a generator that awaits between its events when its reader has gone."""

from __future__ import annotations

import pytest
from harness import Nginx, running
from stage import PRELUDE, Peer, at_gate, begin, http_get, nothing_is_left, open_gate, packet, reset, unique

VIEWS = (
    PRELUDE
    + '''
import corelet
from corelet import await_, gather, sleep, spawn, timeout

def held(name):
    """Wait for the gate, and say how the waiting ended."""
    async def wait():
        try:
            return await future_gate(name)
        except asyncio.CancelledError:
            say(f"{name} was cancelled.")
            raise
    return wait()

def kinds(name):
    "The kinds of waits, to be tried one after the other."
    me = greenlet.getcurrent()
    return {
        "await": lambda: await_(asyncio.sleep(0)),
        "sleep": lambda: sleep(0),
        "gather": lambda: gather(asyncio.sleep(0)),
        "switch": lambda: me.parent.switch(),
        "awaitable": lambda: me.parent.switch(asyncio.sleep(3600)),
    }

def view_events(environ, start_response):
    """Server-sent events: two, and something is awaited before each."""
    name, _, kind = environ["QUERY_STRING"].partition(",")
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")])
    try:
        yield b"data: hello\\n\\n"
        got = await_(held(name))
        say(f"{name} got {got}.")
        kinds(name)[kind or "await"]()
        say(f"{name} went on.")
        yield b"data: more\\n\\n"
        yield b"data: and more\\n\\n"
        say(f"{name} ran to its end.")
    except BaseException as error:
        say(f"{name} saw {type(error).__name__}.")
        raise
    finally:
        say(f"{name} finally.")
        await_(asyncio.sleep(0.001))
        say(f"{name} awaited in finally.")

def view_swallows(environ, start_response):
    name = environ["QUERY_STRING"]
    try:
        await_(held(name))
    except BaseException as error:
        say(f"{name} saw {type(error).__name__}.")
    return text(start_response, "nobody reads this")

def view_ignore(environ, start_response):
    name = environ["QUERY_STRING"]
    await_(held(name))
    sleep(0)
    say(f"{name} computed its answer.")
    return text(start_response, "x" * 3_000_000)
'''
)


def serving(tmp_path_factory, *arguments):
    return running(tmp_path_factory.mktemp("gone"), VIEWS, "--asyncio", "4", *arguments)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request):
    return request.param


@pytest.fixture(scope="module")
def unwinding(loop, tmp_path_factory):
    with serving(tmp_path_factory, "--loop", loop) as server:
        yield server
        nothing_is_left(server)


@pytest.fixture(scope="module")
def at_next_wait(loop, tmp_path_factory):
    with serving(tmp_path_factory, "--loop", loop, "--client-gone", "next-wait") as server:
        yield server
        nothing_is_left(server)


@pytest.fixture(scope="module")
def ignoring(loop, tmp_path_factory):
    with serving(tmp_path_factory, "--loop", loop, "--client-gone", "ignore") as server:
        yield server
        nothing_is_left(server)


def fronted(server, folder):
    return Nginx(folder, f"location / {{ uwsgi_pass 127.0.0.1:{server.uwsgi[1]}; }}")


def leave(server, tmp_path, way, target, name):
    """Begin to read a stream in some way, and go away once the view waits at its gate."""
    if way == "nginx":
        front = fronted(server, tmp_path / name)
        try:
            with Peer(server, front.connect()) as peer:
                peer.send(http_get(target))
                assert b"200" in peer.head()
                at_gate(server, name)
        finally:
            front.stop()
    elif way == "http":
        peer = Peer(server)
        peer.send(http_get(target))
        assert b"200" in peer.head()
        at_gate(server, name)
        reset(peer.sock)  # over HTTP a client that only stops sending may still read
    else:
        sock = server.connect(way)
        sock.sendall(packet(target))
        at_gate(server, name)
        sock.close()


WAYS = ["uwsgi", "unix", "http", "nginx"]


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_whose_reader_has_gone_is_unwound_at_once_and_what_it_awaits_is_cancelled(unwinding, tmp_path, way):
    server, name = unwinding, unique()
    leave(server, tmp_path, way, f"/events?{name}", name)
    server.log.wait_for(f"{name} was cancelled.")
    server.log.wait_for(f"{name} saw ClientDisconnected.")
    server.log.wait_for(f"{name} awaited in finally.")
    assert server.log.count(f"{name} got") == 0


def gone_is_noticed(server, name):
    """The server has seen that the client of this request has gone; it says so where it is to act later."""
    server.log.wait_for("to be unwound at its next wait", start=first_line_with(server, f"at gate {name}."))


def first_line_with(server, text):
    return next(number for number, line in enumerate(server.log.lines) if text in line)


@pytest.mark.parametrize("way", WAYS)
def test_with_next_wait_the_wait_is_finished_and_the_next_one_raises(at_next_wait, tmp_path, way):
    server, name = at_next_wait, unique()
    leave(server, tmp_path, way, f"/events?{name}", name)
    gone_is_noticed(server, name)
    open_gate(server, name, "its result")
    server.log.wait_for(f"{name} got its result.")
    server.log.wait_for(f"{name} saw ClientDisconnected.")
    server.log.wait_for(f"{name} awaited in finally.")
    assert server.log.count(f"{name} was cancelled") == 0
    assert server.log.count(f"{name} went on") == 0


@pytest.mark.parametrize("kind", ["await", "sleep", "gather", "switch", "awaitable"])
def test_with_next_wait_a_wait_of_any_kind_raises(at_next_wait, tmp_path, kind):
    server, name = at_next_wait, unique()
    leave(server, tmp_path, "uwsgi", f"/events?{name},{kind}", name)
    gone_is_noticed(server, name)
    open_gate(server, name, "its result")
    server.log.wait_for(f"{name} saw ClientDisconnected.")
    server.log.wait_for(f"{name} awaited in finally.")
    assert server.log.count(f"{name} went on") == 0


@pytest.mark.parametrize("way", WAYS)
def test_with_ignore_the_view_runs_to_its_end_and_its_writes_go_nowhere(ignoring, tmp_path, way):
    server, name = ignoring, unique()
    leave(server, tmp_path, way, f"/events?{name}", name)
    open_gate(server, name, "its result")
    server.log.wait_for(f"{name} ran to its end.")
    server.log.wait_for(f"{name} awaited in finally.")
    assert server.log.count(f"{name} saw") == 0
    assert server.get("/hello").body == b"hello"


@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
def test_with_ignore_an_answer_of_any_size_to_nobody_is_no_error(ignoring, kind):
    server, name = ignoring, unique()
    start = len(server.log.lines)
    sock = server.connect(kind)
    sock.sendall(packet(f"/ignore?{name}"))
    at_gate(server, name)
    sock.close()
    open_gate(server, name, "go")
    server.log.wait_for(f"{name} computed its answer.")
    server.log.wait_for("/ignore", start=start)  # its access line
    assert "Traceback" not in server.log.text()


def test_a_view_that_catches_it_is_not_told_again_and_its_answer_is_discarded(unwinding):
    server, name = unwinding, unique()
    sock = begin(server, f"/swallows?{name}", "uwsgi")
    at_gate(server, name)
    sock.close()
    server.log.wait_for(f"{name} saw ClientDisconnected.")
    assert server.get("/hello").body == b"hello"


def test_all_cores_are_free_again_afterwards(unwinding, at_next_wait, ignoring):
    for server in (unwinding, at_next_wait, ignoring):
        gates = [unique() for _ in range(4)]  # as many as there are cores
        waiting = [begin(server, f"/gate?{gate}", "uwsgi") for gate in gates]
        for gate in gates:
            open_gate(server, gate, "free")
        for sock in waiting:
            sock.close()
