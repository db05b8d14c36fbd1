"""A raw switch() that comes while the core waits for the server: it ends no wait, and it is not lost."""

from __future__ import annotations

import pytest
from harness import running
from stage import PRELUDE, Peer, at_gate, begin, finish, http_get, open_gate, packet, tell, unique

VIEWS = (
    PRELUDE
    + '''
import corelet

def stray(name, *values):
    """Have the core woken by values that nobody waits for, as soon as a test says so, or now."""
    me = greenlet.getcurrent()
    def wake():
        for value in values:
            me.switch(value)
        say(f"stray {name} sent.")
    return wake

def view_await(environ, start_response):
    name = environ["QUERY_STRING"]
    LOOP.call_soon(stray(name, "one", "two"))
    awaited = corelet.await_(future_gate(name))
    me = greenlet.getcurrent()
    return text(start_response, awaited, me.parent.switch(), me.parent.switch())

def view_sleep(environ, start_response):
    name = environ["QUERY_STRING"]
    LOOP.call_soon(stray(name, "one", "two"))
    began = LOOP.time()
    corelet.sleep(0.05)
    slept = LOOP.time() - began >= 0.049
    me = greenlet.getcurrent()
    return text(start_response, slept, me.parent.switch(), me.parent.switch())

def view_to_thread(environ, start_response):
    name = environ["QUERY_STRING"]
    done = threading.Event()
    wake = stray(name, "one", "two")
    LOOP.call_soon(lambda: (wake(), done.set()))
    waited = corelet.to_thread(done.wait)
    me = greenlet.getcurrent()
    return text(start_response, waited, me.parent.switch(), me.parent.switch())

def view_task(environ, start_response):
    """Strays from a coroutine, as in the chat example whose coroutines switch what a callback switches too."""
    name = environ["QUERY_STRING"]
    wake = stray(name, "one", "two")
    async def coroutine():
        wake()
    corelet.await_(coroutine())
    me = greenlet.getcurrent()
    return text(start_response, True, me.parent.switch(), me.parent.switch())

def view_threads(environ, start_response):
    name = environ["QUERY_STRING"]
    thread = threading.Thread(target=stray(name, "one", "two"))
    thread.start()
    thread.join()
    corelet.sleep(0.01)
    me = greenlet.getcurrent()
    return text(start_response, True, me.parent.switch(), me.parent.switch())

def view_double(environ, start_response):
    """The wake-up of one wait must not end the next one, of the server's or of its own."""
    me = greenlet.getcurrent()
    future = LOOP.create_future()
    future.add_done_callback(lambda future: me.switch("first"))
    future.add_done_callback(lambda future: me.switch("second"))
    LOOP.call_soon(future.set_result, None)
    first = me.parent.switch()
    awaited = corelet.await_(asyncio.sleep(0.01, "awaited"))
    return text(start_response, first, awaited, me.parent.switch())

def view_blocked_write(environ, start_response):
    name = environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    me = greenlet.getcurrent()
    WAITING[name] = lambda *values: [me.switch(value) for value in values] and None
    say(f"at gate {name}.")
    yield b"x" * 30_000_000
    yield me.parent.switch()
    yield me.parent.switch()

def view_blocked_read(environ, start_response):
    name = environ["QUERY_STRING"]
    me = greenlet.getcurrent()
    WAITING[name] = lambda *values: [me.switch(value) for value in values] and None
    say(f"at gate {name}.")
    body = environ["wsgi.input"].read()
    return text(start_response, len(body), me.parent.switch(), me.parent.switch())
'''
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("strays"), VIEWS, "--asyncio", "2", "--loop", request.param) as server:
        yield server


def test_a_stray_switch_does_not_end_await_and_comes_to_the_next_raw_wait(server):
    name = unique()
    waiting = begin(server, f"/await?{name}", "uwsgi")
    server.log.wait_for(f"stray {name} sent.")
    open_gate(server, name, "awaited")
    assert finish(waiting).body == b"awaited one two"


@pytest.mark.parametrize("view", ["sleep", "to_thread", "task", "threads"])
def test_stray_switches_are_replayed_in_their_order_after_the_servers_wait(server, view):
    assert server.get(f"/{view}?{unique()}", "uwsgi").body == b"True one two"


def test_the_second_wake_up_of_one_wait_is_kept_over_an_await(server):
    assert server.get("/double", "uwsgi").body == b"first awaited second"


@pytest.mark.parametrize("kind", ["uwsgi", "unix", "http"])
def test_a_stray_switch_does_not_end_a_blocked_write(server, kind):
    name = unique()
    sock = server.connect(kind)
    with Peer(server, sock) as peer:
        target = f"/blocked_write?{name}"
        peer.send(http_get(target, "Connection: close") if kind == "http" else packet(target))
        peer.head()  # the write has begun, and 30 MB fit no socket's buffers
        open_gate(server, name, b"one", b"two")
        if kind == "http":
            body = b"".join(peer.chunks())
        else:
            body = peer.rest + b"".join(iter(lambda: sock.recv(1 << 20), b""))
    assert len(body) == 30_000_006
    assert body.endswith(b"xonetwo")


@pytest.mark.parametrize("kind", ["uwsgi", "unix", "http"])
def test_a_stray_switch_does_not_end_a_blocked_read(server, kind):
    name = unique()
    head = (
        b"POST /blocked_read?%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n" % name.encode()
    )
    if kind != "http":
        head = packet(f"/blocked_read?{name}", "POST", b"0123456789")[:-10]
    sock = server.connect(kind)
    sock.sendall(head + b"01234")
    at_gate(server, name)
    assert tell(server, "1") == "1"  # the core is in its read by now
    open_gate(server, name, "one", "two")
    sock.sendall(b"56789")
    assert finish(sock).body == b"10 one two"
