"""uwsgi.websocket_*: the real client library, and literal frames, directly and through a real nginx."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest
from harness import PATIENCE_SECONDS, fronting, read_until, running
from masters import mastered
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK
from websockets.sync.client import connect

ECHO = """
import uwsgi

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/plain":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"plain"]
    uwsgi.websocket_handshake()
    if path == "/binary":
        uwsgi.websocket_send_binary(uwsgi.websocket_recv())
        return b""
    if path == "/once":
        uwsgi.websocket_send("only this")
        return []
    try:
        while True:
            message = uwsgi.websocket_recv()
            uwsgi.websocket_send(message)
    except OSError as error:
        print("ended:", error, flush=True)
    return b""
"""

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n"
)
MASK = b"\x01\x02\x03\x04"


def frame(opcode, payload=b"", *, fin=True, mask=True, reserved=0):
    """A client's frame, to the letter of RFC 6455 5.2."""
    first = (0x80 if fin else 0) | reserved | opcode
    size = len(payload)
    bit = 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not mask:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[place % 4] for place, byte in enumerate(payload))


def opened(address, more=b"", headers=b""):
    """A raw connection whose handshake was answered; what came behind the answer."""
    sock = socket.create_connection(address, PATIENCE_SECONDS)
    sock.sendall(HANDSHAKE % headers + more)
    head, _, rest = read_until(sock, b"\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
    return sock, head, rest


def exactly(sock, count, already=b""):
    data = already
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"end of file after {data!r}"
        data += piece
    return data


def close_frame(sock):
    """The code of the close frame that comes next, and then the end of the stream."""
    head = exactly(sock, 2)
    assert head[0] == 0x88, head
    body = exactly(sock, head[1])
    assert sock.recv(1) == b""
    return struct.unpack("!H", body[:2])[0]


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("echo")
    with running(folder, ECHO, "--asyncio", "50", "--websockets-max-size", "100") as server:
        yield server


@pytest.fixture(scope="module", params=["http", "nginx", "nginx-unix"])
def place(request, echo, tmp_path_factory):
    """host:port of the echo: directly, or behind nginx with nothing but uwsgi_pass."""
    if request.param == "http":
        yield echo.http
        return
    target = echo.unix if request.param == "nginx-unix" else None
    to = f"unix:{target}" if target else f"127.0.0.1:{echo.uwsgi[1]}"
    with fronting(tmp_path_factory.mktemp("front"), f"location / {{ uwsgi_pass {to}; }}") as front:
        yield ("127.0.0.1", front.port)


def url(place, path="/"):
    return f"ws://{place[0]}:{place[1]}{path}"


def test_messages_come_back_text_and_large_ones(place):
    with connect(url(place), compression=None) as client:
        for message in ("hello", "", "žluťoučký kůň", "x" * 60_000):
            client.send(message)
            assert client.recv(PATIENCE_SECONDS) == message


def test_binary_is_sent_as_binary(place):
    with connect(url(place, "/binary"), compression=None) as client:
        client.send(b"\x00\xff\x80")
        assert client.recv(PATIENCE_SECONDS) == b"\x00\xff\x80"


def test_a_view_that_returns_closes_in_order(place):
    with connect(url(place, "/once"), compression=None) as client:
        assert client.recv(PATIENCE_SECONDS) == "only this"
        with pytest.raises(ConnectionClosedOK) as closed:
            client.recv(PATIENCE_SECONDS)
        assert closed.value.rcvd.code == 1000


def test_the_peers_code_and_reason_reach_the_application(place, echo):
    start = len(echo.log.lines)
    with connect(url(place), compression=None) as client:
        client.close(4321, "enough")
    echo.log.wait_for("closed with 4321 (enough)", start=start)


def test_one_subprotocol_of_those_offered_is_agreed(place):
    with connect(url(place), compression=None, subprotocols=["chat", "superchat"]) as client:
        assert client.subprotocol == "chat"


def test_the_answer_is_that_of_the_rfcs_example(echo):
    sock, head, _ = opened(echo.http)
    with sock:
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head.split(b"\r\n")
        assert b"Upgrade: websocket" in head.split(b"\r\n")


def test_a_ping_is_answered_with_its_payload(echo):
    sock, _, _ = opened(echo.http)
    with sock:
        sock.sendall(frame(9, b"are you there"))
        assert exactly(sock, 15) == b"\x8a\x0dare you there"


def test_fragments_of_one_message_are_joined_and_pings_between_them_answered(echo):
    sock, _, _ = opened(echo.http)
    with sock:
        sock.sendall(frame(1, b"one ", fin=False) + frame(9, b"p") + frame(0, b"two ", fin=False) + frame(0, b"three"))
        assert exactly(sock, 3) == b"\x8a\x01p"
        assert exactly(sock, 15) == b"\x81\x0done two three"


def test_a_frame_that_came_behind_the_handshake_is_not_lost(echo):
    sock, _, rest = opened(echo.http, more=frame(1, b"early"))
    with sock:
        assert exactly(sock, 7, rest) == b"\x81\x05early"


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(1, b"unmasked", mask=False), 1002),
        (frame(1, b"reserved", reserved=0x40), 1002),
        (frame(3, b"opcode"), 1002),
        (frame(0, b"nothing to continue"), 1002),
        (frame(1, b"a", fin=False) + frame(1, b"b"), 1002),
        (frame(9, b"x" * 126), 1002),
        (frame(9, b"x", fin=False), 1002),
        (frame(8, b"\x03"), 1002),
        (frame(1, b"\xff\xfe"), 1007),
        (frame(1, b"\xce", fin=False) + frame(0, b"\xce"), 1007),
        (frame(1, b"x" * 102_401), 1009),
        (frame(1, b"x" * 60_000, fin=False) + frame(0, b"x" * 60_000), 1009),
    ],
    ids=[
        "unmasked", "reserved bit", "unknown opcode", "continuation of nothing", "message within a message",
        "long ping", "fragmented ping", "close of one byte", "no UTF-8", "no UTF-8 over fragments", "too large",
        "too large over fragments",
    ],
)  # fmt: skip
def test_a_broken_frame_closes_with_its_code(echo, frames, code):
    sock, _, _ = opened(echo.http)
    with sock:
        sock.sendall(frames)
        assert close_frame(sock) == code
    assert echo.get("/plain").body == b"plain"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ=") % b"", 400),
        (HANDSHAKE.replace(b"Version: 13", b"Version: 8") % b"", 426),
        (b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", 426),
        (HANDSHAKE.replace(b"GET", b"POST") % b"Content-Length: 0\r\n", 405),
    ],
    ids=["short key", "old version", "ordinary request", "post"],
)
def test_what_is_no_handshake_is_answered(echo, head, status):
    with socket.create_connection(echo.http, PATIENCE_SECONDS) as sock:
        sock.sendall(head)
        assert read_until(sock, b"\r\n").startswith(b"HTTP/1.1 %d " % status)


def test_after_an_abrupt_end_the_next_request_is_answered_two_hundred_times(place, echo):
    for _ in range(200):
        with contextlib.suppress(ConnectionClosed), connect(url(place), compression=None) as client:
            client.send("x")
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()
        assert echo.get("/plain").body == b"plain"


def test_a_reload_closes_websockets_with_1001_and_loses_none(tmp_path):
    with mastered(tmp_path, ECHO, sockets=("http",)) as server:
        with connect(url(server.http), compression=None) as client:
            client.send("before")
            assert client.recv(PATIENCE_SECONDS) == "before"
            old = server.ready()
            server.reload()
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(PATIENCE_SECONDS)
            assert closed.value.rcvd.code == 1001
        for pid in old.values():
            server.wait(f"(pid {pid}) ended")
        with connect(url(server.http), compression=None) as client:
            client.send("after")
            assert client.recv(PATIENCE_SECONDS) == "after"


def test_a_peer_that_answers_no_ping_is_let_go(tmp_path):
    with running(tmp_path, ECHO, "--websockets-ping-freq", "0.3", "--websockets-pong-tolerance", "0.3") as server:
        sock, _, _ = opened(server.http)
        with sock:
            assert exactly(sock, 2) == b"\x89\x00"
            assert close_frame(sock) == 1001
        server.log.wait_for("ended: unable to receive websocket message")


def test_a_peer_that_answers_pings_stays(tmp_path):
    with running(tmp_path, ECHO, "--websockets-ping-freq", "0.2", "--websockets-pong-tolerance", "0.5") as server:
        sock, _, _ = opened(server.http)
        with sock:
            for _ in range(4):
                assert exactly(sock, 2) == b"\x89\x00"
                sock.sendall(frame(10))
            sock.sendall(frame(1, b"still here"))
            assert exactly(sock, 12) == b"\x81\x0astill here"


def test_harakiri_is_no_deadline_for_a_websocket(tmp_path):
    with running(tmp_path, ECHO, "--harakiri", "1", "--websockets-ping-freq", "0.5") as server:
        sock, _, _ = opened(server.http)
        with sock:
            for _ in range(5):  # 2.5 seconds
                assert exactly(sock, 2) == b"\x89\x00"
                sock.sendall(frame(10))
            sock.sendall(frame(1, b"alive"))
            assert exactly(sock, 7) == b"\x81\x05alive"


def test_a_reader_that_does_not_read_suspends_its_own_core_only(tmp_path):
    application = """
import uwsgi
def application(environ, start_response):
    if environ["PATH_INFO"] == "/plain":
        start_response("200 OK", [])
        return [b"plain"]
    uwsgi.websocket_handshake()
    for number in range(100):
        uwsgi.websocket_send(b"x" * 100_000)
    return b""
"""
    with running(tmp_path, application) as server, connect(url(server.http), compression=None, max_queue=1) as client:
        assert server.get("/plain").body == b"plain"
        for _ in range(100):
            assert len(client.recv(PATIENCE_SECONDS)) == 100_000
        with pytest.raises(ConnectionClosedOK):
            client.recv(PATIENCE_SECONDS)


def test_a_refused_handshake_may_be_answered_by_the_application(tmp_path):
    application = """
import uwsgi
def application(environ, start_response):
    try:
        uwsgi.websocket_handshake()
    except OSError as error:
        start_response("418 I'm a teapot", [("Content-Type", "text/plain")])
        return [str(error).encode()]
    return b""
"""
    with running(tmp_path, application) as server:
        reply = server.get("/")
        assert reply.status == 418
        assert reply.body.startswith(b"unable to complete websocket handshake")


def test_functions_without_a_handshake_say_so(tmp_path):
    application = """
import uwsgi
def application(environ, start_response):
    start_response("200 OK", [])
    said = []
    for call in (uwsgi.websocket_recv, uwsgi.websocket_recv_nb, lambda: uwsgi.websocket_send("x")):
        try:
            call()
        except OSError as error:
            said.append(str(error))
    return ["\\n".join(said).encode()]
"""
    with running(tmp_path, application) as server:
        lines = server.get("/").body.decode().splitlines()
        assert [line.partition(":")[0] for line in lines] == [
            "unable to receive websocket message",
            "unable to receive websocket message",
            "unable to send websocket message",
        ]
        assert all("websocket_handshake() first" in line for line in lines)


CHAT = """
import asyncio
import greenlet
import uwsgi

def ready(me):
    me.readable = True
    me.switch()

def application(environ, start_response):
    "As in uWSGI's websockets_chat_asyncio: a reader of the application's own, and switching by hand."
    if environ["PATH_INFO"] == "/plain":
        start_response("200 OK", [])
        return [b"plain"]
    uwsgi.websocket_handshake()
    me = greenlet.getcurrent()
    me.readable = False
    asyncio.get_event_loop().add_reader(uwsgi.connection_fd(), ready, me)
    while True:
        me.parent.switch()
        if me.readable:
            me.readable = False
            try:
                while message := uwsgi.websocket_recv_nb():
                    uwsgi.websocket_send(b"you said " + message)
            except OSError:
                print("the client left", flush=True)
                return b""
"""


@pytest.mark.parametrize("kind", ["http", "uwsgi", "unix"])
def test_an_application_that_reads_the_descriptor_and_switches_by_hand_chats(tmp_path, kind):
    with running(tmp_path, CHAT, "--asyncio", "5") as server:
        with contextlib.ExitStack() as stack:
            place = server.http
            if kind != "http":
                to = f"unix:{server.unix}" if kind == "unix" else f"127.0.0.1:{server.uwsgi[1]}"
                front = stack.enter_context(fronting(tmp_path / "front", f"location / {{ uwsgi_pass {to}; }}"))
                place = ("127.0.0.1", front.port)
            for round_ in range(10):
                with connect(url(place), compression=None) as client:
                    for word in ("one", "two", f"round {round_}"):
                        client.send(word)
                        assert client.recv(PATIENCE_SECONDS) == f"you said {word}"
                for each in ("http", "uwsgi", "unix"):  # the reader that the application left behind hangs nobody
                    assert server.get("/plain", each).body == b"plain"
            with connect(url(place), compression=None) as client:
                client.send("and gone")
                assert client.recv(PATIENCE_SECONDS) == "you said and gone"
                client.socket.close()
        server.log.wait_for("the client left")
