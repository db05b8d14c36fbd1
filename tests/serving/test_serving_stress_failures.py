"""What an application does wrong costs its own request and nothing else, and the peer is told the truth about it."""

from __future__ import annotations

import socket

import pytest
from harness import Server, read_all, running
from stage import PRELUDE, Peer, at_gate, begin, finish, http_get, open_gate, packet, tell, unique

VIEWS = (
    PRELUDE
    + """
import signal

HTML = [("Content-Type", "text/plain")]

def view_raises(environ, start_response):
    raise ValueError("before start_response")

def view_raises_after_start(environ, start_response):
    start_response("200 OK", HTML)
    raise ValueError("after start_response")

def view_raises_in_generator(environ, start_response):
    start_response("200 OK", HTML)
    raise ValueError("before the first chunk")
    yield b""

def view_raises_midway(environ, start_response):
    start_response("200 OK", HTML)
    yield b"One"
    raise ValueError("midway")

def view_raises_midway_of_length(environ, start_response):
    start_response("200 OK", [*HTML, ("Content-Length", "100")])
    yield b"One"
    raise ValueError("midway")

def view_no_start_response(environ, start_response):
    return [b"body"]

def view_str(environ, start_response):
    start_response("200 OK", HTML)
    return ["str"]

def view_bytearray(environ, start_response):
    start_response("200 OK", HTML)
    return [bytearray(b"x")]

def view_none(environ, start_response):
    start_response("200 OK", HTML)

def view_twice(environ, start_response):
    start_response("200 OK", HTML)
    start_response("201 Created", HTML)
    return [b"second"]

def view_exc_info(environ, start_response):
    try:
        start_response("200 OK", HTML)
        raise KeyError
    except KeyError:
        start_response("500 Oops", HTML, sys.exc_info())
        return [b"an error page"]

def view_exc_info_too_late(environ, start_response):
    write = start_response("200 OK", HTML)
    write(b"One")
    try:
        raise KeyError("the first error")
    except KeyError:
        start_response("500 Oops", HTML, sys.exc_info())

def view_crlf(environ, start_response):
    start_response("200 OK", [("X-A", "a\\r\\nInjected: yes")])
    return [b"body"]

def view_too_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return [b"12345"]

def view_too_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"123", b"4567", b"89"]

def view_bytes(environ, start_response):
    start_response("200 OK", HTML)
    return b"a body that is not a list"

def view_sys_exit(environ, start_response):
    sys.exit(3)

def view_sys_exit_midway(environ, start_response):
    start_response("200 OK", HTML)
    yield b"One"
    sys.exit()

def view_keyboard_interrupt(environ, start_response):
    raise KeyboardInterrupt

def view_greenlet_exit(environ, start_response):
    raise greenlet.GreenletExit

def view_generator_exit(environ, start_response):
    raise GeneratorExit

def view_cancelled(environ, start_response):
    raise asyncio.CancelledError

def view_stop_iteration(environ, start_response):
    raise StopIteration

def view_recursion(environ, start_response):
    return view_recursion(environ, start_response)

class Closing:
    def __iter__(self):
        return iter([b"One"])
    def close(self):
        say("close was called.")
        raise ValueError("in close")

def view_close_raises(environ, start_response):
    start_response("200 OK", HTML)
    return Closing()

def view_input(environ, start_response):
    body = environ["wsgi.input"]
    return text(start_response, body.read(5), body.readline(3), body.read(-1), body.read())

def view_read(environ, start_response):
    try:
        return text(start_response, len(environ["wsgi.input"].read()), environ.get("wsgi.input_terminated"))
    except OSError as error:
        say(f"the body: {type(error).__name__}.")
        raise

def view_scheme(environ, start_response):
    return text(start_response, environ["wsgi.url_scheme"], environ.get("HTTPS"))
"""
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("failures"), VIEWS, "--asyncio", "3") as server:
        yield server


@pytest.mark.parametrize("kind", ["uwsgi", "unix", "http"])
@pytest.mark.parametrize(
    "view, said",
    [
        ("raises", "ValueError: before start_response"),
        ("raises_after_start", "ValueError: after start_response"),
        ("raises_in_generator", "ValueError: before the first chunk"),
        ("no_start_response", "start_response"),
        ("str", "str"),
        ("bytearray", "bytearray"),
        ("none", "None"),
        ("twice", "AssertionError"),
        ("crlf", "X-A"),
        ("sys_exit", "SystemExit"),
        ("keyboard_interrupt", "KeyboardInterrupt"),
        ("greenlet_exit", "GreenletExit"),
        ("generator_exit", "GeneratorExit"),
        ("cancelled", "CancelledError"),
        ("stop_iteration", "StopIteration"),
        ("recursion", "RecursionError"),
    ],
)
def test_a_failure_before_the_reply_is_a_whole_500_and_is_logged(server, kind, view, said):
    start = len(server.log.lines)
    reply = server.get("/" + view, kind)
    assert reply.status == 500
    assert reply.header("Content-Length") == str(len(reply.body))
    assert reply.body
    if kind == "http":
        assert reply.header("Connection") == "close"
    assert "Injected" not in dict(reply.headers)
    server.log.wait_for(said, start=start)


@pytest.mark.parametrize("kind", ["uwsgi", "http"])
@pytest.mark.parametrize(
    "view", ["raises_midway", "raises_midway_of_length", "exc_info_too_late", "sys_exit_midway", "too_short"]
)
def test_a_failure_after_the_first_byte_cuts_the_reply(server, kind, view):
    with begin(server, "/" + view, kind) as sock, pytest.raises(ConnectionResetError):
        read_all(sock)


@pytest.mark.parametrize("kind", ["uwsgi", "unix", "http"])
@pytest.mark.parametrize(
    "view, status, body",
    [
        ("exc_info", 500, b"an error page"),
        ("too_long", 200, b"12345"),
        ("bytes", 200, b"a body that is not a list"),
    ],
)
def test_what_can_be_answered_is_answered(server, kind, view, status, body):
    if kind == "http":
        with Peer(server) as peer:
            reply = peer.get("/" + view)
    else:
        reply = server.get("/" + view, kind)
    assert (reply.status, reply.body) == (status, body)


def test_an_error_in_close_comes_too_late_to_change_the_reply_and_is_logged(server):
    start = len(server.log.lines)
    with begin(server, "/close_raises", "uwsgi") as sock:
        data = read_all(sock)
    assert data.endswith(b"One")
    server.log.wait_for("ValueError: in close", start=start)


@pytest.mark.parametrize("kind", ["uwsgi", "http"])
def test_sys_exit_leaves_the_other_requests_and_the_worker_alone(server, kind):
    name = unique()
    other = begin(server, f"/gate?{name}", kind)
    at_gate(server, name)
    for _ in range(4):
        assert server.get("/sys_exit", kind).status == 500
    open_gate(server, name)
    assert finish(other).status == 200
    assert server.process.poll() is None


# -- bodies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uwsgi", "unix", "http"])
def test_sizes_given_to_the_input_are_honoured(server, kind):
    assert server.get("/input", kind, "POST", b"01234abcdef\nrest").body == b"b'01234' b'abc' b'def\\nrest' b''"


@pytest.mark.parametrize("kind", ["uwsgi", "unix", "http"])
def test_a_body_that_ends_early_is_an_error_in_the_application(server, kind):
    name = unique("early")
    data = packet(f"/read?{name}", "POST", b"0123456789")
    if kind == "http":
        data = f"POST /read?{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789".encode()
    with server.connect(kind) as sock:
        sock.sendall(data[:-5])
        sock.shutdown(socket.SHUT_WR)
        assert "(HTTP/1.1 200)" not in server.log.wait_for(f"POST /read?{name} ")
    assert server.get("/hello", kind).body == b"hello"


def test_a_chunked_body_over_http_is_read_whole_and_is_terminated(server):
    with Peer(server) as peer:
        peer.send(
            b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        )
        assert peer.reply().body == b"11 True"


# -- heads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uwsgi", "unix", "http"])
def test_heads_far_above_4096_bytes_are_served(server, kind):
    assert server.get("/hello", kind, headers=[("X-Long", "x" * 60_000)]).body == b"hello"


def test_a_packet_above_the_buffer_size_gets_a_reply(tmp_path):
    with running(tmp_path, VIEWS, "--buffer-size", "4096") as server:
        for kind in ("uwsgi", "unix"):
            reply = server.get("/hello", kind, headers=[("X-Long", "x" * 5000)])
            assert 400 <= reply.status < 500
        assert server.get("/hello", "uwsgi", headers=[("X-Long", "x" * 3000)]).body == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"GET /hello\r\n\r\n",
        b"GET /hello HTTP/0.9\r\n\r\n",
        b"\0\0\0\0\0\0\0\0",
        b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
    ],
)
def test_what_is_no_request_is_a_400_on_an_http_socket(server, data):
    start = len(server.log.lines)
    reply = server.raw(data)
    assert reply.split(b"\r\n")[0].startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 "))
    assert not any("Traceback" in line or "(HTTP/1.1 200)" in line for line in server.log.lines[start:])


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"garbage, not a packet"]
)
@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
def test_what_is_no_packet_is_a_400_on_a_uwsgi_socket(server, kind, data):
    assert server.raw(data, kind).startswith(b"HTTP/1.1 400 ")


def test_an_http_request_on_a_uwsgi_socket_is_told_which_option_to_use(server):
    assert b"http-socket" in server.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "uwsgi")


def test_x_forwarded_proto_does_not_set_the_scheme(server):
    for kind in ("uwsgi", "http"):
        reply = server.get("/scheme", kind, headers=[("X-Forwarded-Proto", "javascript"), ("X-Forwarded-SSL", "on")])
        assert reply.body == b"http None"


def test_head_has_no_body(server):
    with Peer(server) as peer:
        peer.send(b"HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n" + http_get("/hello"))
        assert peer.reply(to_head=True).status == 200
        assert peer.reply().body == b"hello"
    assert server.get("/hello", "uwsgi", "HEAD").body == b""


# -- mounts, and the end ------------------------------------------------------------------------------------------


def test_two_mounted_applications_share_the_loop(tmp_path):
    second = "import asyncio\nLOOP = asyncio.get_event_loop()\n" + (
        "def application(environ, start_response):\n"
        "    import app\n"
        "    start_response('200 OK', [])\n"
        "    return [repr(LOOP is app.LOOP).encode()]\n"
    )
    (tmp_path / "second.py").write_text(second)
    server = Server(tmp_path, VIEWS, ("--mount", "/a=app.py", "--mount", "/b=second.py", "--manage-script-name"))
    try:
        for kind in ("http", "uwsgi"):
            assert server.get("/a/hello", kind).body == b"hello"
            assert server.get("/b/x", kind).status in (200, 500)
        assert server.get("/a/hello").body == b"hello"
    finally:
        assert server.stop() == 0


def test_the_worker_is_well_after_all_this(server):
    names = [unique() for _ in range(3)]
    waiting = [begin(server, f"/gate?{name}", "uwsgi") for name in names]
    for name in names:
        open_gate(server, name)
    assert sorted(finish(sock).body for sock in waiting) == [b"opened 0", b"opened 1", b"opened 2"]
    assert tell(server, "asyncio.get_running_loop() is LOOP") == "True"
