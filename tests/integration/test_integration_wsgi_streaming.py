"""A generator's chunk leaves at once, and the application's iterable is closed whatever becomes of the reply.

No clock proves that a chunk left at once: the application waits, in its core, until a second request tells it that the
client has seen the chunk.
"""

import contextlib
import socket
import struct

import pytest
from harness import read_until
from wsgi_site import BUFFERED, DIRECT, UNBUFFERED, read_end, request_bytes, site

APPLICATION = """
import asyncio
import itertools
import corelet

gates = {}

def gate(environ):
    return gates.setdefault(environ["QUERY_STRING"], asyncio.Event())

def application(environ, start_response):
    return globals()[environ["PATH_INFO"][1:]](environ, start_response)

def go(environ, start_response):
    gate(environ).set()
    start_response("200 OK", [])
    return [b"gone on"]

def stream(environ, start_response):
    start_response("200 OK", [("X-Accel-Buffering", "no")] if "HTTP_X_ACCEL" in environ else [])
    yield b"one"
    corelet.await_(gate(environ).wait())
    yield b"two"

def stream_with_length(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    yield b"one"
    corelet.await_(gate(environ).wait())
    yield b"two"

def stream_by_write(environ, start_response):
    write = start_response("200 OK", [])
    write(b"one")
    corelet.await_(gate(environ).wait())
    write(b"two")
    return []

def stream_empties_first(environ, start_response):
    start_response("200 OK", [])
    yield b""
    yield b"one"
    yield b""
    corelet.await_(gate(environ).wait())
    yield b"two"

def headers_with_the_first_chunk(environ, start_response):
    start_response("200 OK", [("X-Early", "yes")])
    yield b""
    corelet.await_(gate(environ).wait())
    start_response("201 Created", [("X-Late", "yes")], (ValueError, ValueError("x"), None))
    yield b"onetwo"

class Body:
    def __init__(self, environ, chunks):
        self.query = environ["QUERY_STRING"]
        self.chunks = chunks

    def __iter__(self):
        return iter(self.chunks)

    def close(self):
        print("closed", self.query, flush=True)

def raising():
    yield b"one"
    raise ValueError("in the middle")

def closed(environ, start_response):
    start_response("200 OK", [])
    return Body(environ, [b"one", b"two"])

def closed_empty(environ, start_response):
    start_response("200 OK", [])
    return Body(environ, [])

def closed_204(environ, start_response):
    start_response("204 No Content", [])
    return Body(environ, [b"one", b"two"])

def closed_after_error(environ, start_response):
    start_response("200 OK", [])
    return Body(environ, raising())

def closed_before_headers(environ, start_response):
    return Body(environ, [b"one"])

def closed_str(environ, start_response):
    start_response("200 OK", [])
    return Body(environ, ["one"])

def closed_surplus(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return Body(environ, [b"one", b"two", b"three"])

def closed_endless(environ, start_response):
    start_response("200 OK", [])
    return Body(environ, itertools.repeat(b"x" * 65536))

def close_fails(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    body = Body(environ, [b"one"])
    body.close = lambda: 1 / 0
    return body

def suspended(environ, start_response):
    start_response("200 OK", [])
    try:
        yield b"one"
        corelet.await_(gate(environ).wait())
        yield b"two"
    finally:
        print("unwound", environ["QUERY_STRING"], flush=True)

def silent(environ, start_response):
    try:
        corelet.await_(gate(environ).wait())
    finally:
        print("unwound", environ["QUERY_STRING"], flush=True)
    start_response("200 OK", [])
    return [b"never"]

def reading(environ, start_response):
    try:
        environ["wsgi.input"].read()
    except BaseException as error:
        print("short", environ["QUERY_STRING"], type(error).__name__, flush=True)
        raise
    print("complete", environ["QUERY_STRING"], flush=True)
    start_response("200 OK", [])
    return [b"complete"]

class CloseMe(list):
    def close(self):
        print("closed", self.query, flush=True)

def closed_list(environ, start_response):
    start_response("200 OK", [])
    body = CloseMe([b"one"])
    body.query = environ["QUERY_STRING"]
    return body
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with site(tmp_path_factory.mktemp("streaming"), APPLICATION, "--disable-logging", "--reload-mercy=2") as place:
        yield place


def see_one_then_two(place, way, target, query, headers=()):
    with place.open(way, f"/{target}?{query}", headers=headers) as sock:
        data = read_until(sock, b"one")
        assert b"two" not in data
        assert place.ask("http", f"/go?{query}").body == b"gone on"
        rest, end = read_end(sock)
    assert end == "end of file"
    data += rest
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    return data.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("way", DIRECT + UNBUFFERED)
@pytest.mark.parametrize("target", ["stream", "stream_with_length", "stream_by_write", "stream_empties_first"])
def test_each_chunk_leaves_before_the_next_is_made(place, way, target):
    body = see_one_then_two(place, way, target, f"{target}-{way}")
    if way in ("uwsgi", "unix") or target == "stream_with_length":
        assert body == b"onetwo"
    else:
        assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize("way", BUFFERED)
def test_the_application_can_ask_nginx_for_streaming(place, way):
    body = see_one_then_two(place, way, "stream", f"accel-{way}", [("X-Accel", "wanted")])
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize("way", DIRECT)
def test_the_headers_wait_for_the_first_chunk_that_is_not_empty(place, way):
    # PEP 3333: "the start_response callable must not actually transmit the response headers. Instead, it must store
    # them for the server or gateway to transmit only after the first iteration of the application return value that
    # yields a non-empty bytestring".
    query = f"headers-{way}"
    with place.open(way, f"/headers_with_the_first_chunk?{query}") as sock:
        assert place.ask("http", f"/go?{query}").body == b"gone on"
        data, _ = read_end(sock)
    head = data.partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 201 Created\r\n")
    assert b"\r\nX-Late: yes" in head
    assert b"X-Early" not in head


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "target",
    ["closed", "closed_empty", "closed_204", "closed_after_error", "closed_before_headers", "closed_str",
        "closed_surplus", "closed_list"],
)  # fmt: skip
def test_close_is_called_once_whatever_the_reply_came_to(place, way, method, target):
    query = f"{target}-{method}-{way}"
    with place.open(way, f"/{target}?{query}", method) as sock:
        read_end(sock)
    place.server.log.wait_for(f"closed {query}")
    assert place.ask(way, "/go?-").status == 200
    assert place.server.log.count(f"closed {query}") == 1


@pytest.mark.parametrize("way", DIRECT)
def test_close_is_called_when_the_client_stops_reading_and_goes(place, way):
    query = f"endless-{way}"
    with place.open(way, f"/closed_endless?{query}") as sock:
        read_until(sock, b"xxx")
    place.server.log.wait_for(f"closed {query}")


@pytest.mark.parametrize("way", ["uwsgi", "unix", *UNBUFFERED])
def test_a_suspended_generator_is_unwound_when_the_client_goes(place, way):
    query = f"gone-{way}"
    with place.open(way, f"/suspended?{query}") as sock:
        read_until(sock, b"one")
    place.server.log.wait_for(f"unwound {query}")


def accepted(place, way):
    """A connection that the server has accepted and waits on: connections are accepted in their order."""
    sock = place.connect(way)
    assert place.ask(way, "/go?-").status == 200
    return sock


@pytest.mark.parametrize("way", ["uwsgi", "unix"])
def test_a_client_that_sends_its_packet_late_and_goes_at_once_is_noticed(place, way):
    # The packet and the end of file come in one event, before there is a core.
    query = f"late-{way}"
    with accepted(place, way) as sock:
        sock.sendall(request_bytes(way, f"/silent?{query}", "GET", b""))
    place.server.log.wait_for(f"unwound {query}", seconds=5)


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("sent", [b"", b"12345", b"123456789"])
def test_a_client_that_sends_half_a_body_late_and_goes_at_once_is_noticed(place, way, sent):
    query = f"half-{len(sent)}-{way}"
    with accepted(place, way) as sock:
        sock.sendall(request_bytes(way, f"/reading?{query}", "POST", sent, length=10))
    place.server.log.wait_for(f"short {query}", seconds=5)
    assert place.server.log.count(f"complete {query}") == 0


def test_a_suspended_generator_is_unwound_when_an_http_client_resets(place):
    sock = place.open("http", "/suspended?gone-http")
    with contextlib.closing(sock):
        read_until(sock, b"one")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    place.server.log.wait_for("unwound gone-http")


@pytest.mark.parametrize("way", DIRECT)
def test_an_error_in_close_comes_after_a_complete_reply(place, way):
    start = len(place.server.log.lines)
    reply = place.ask(way, "/close_fails?x")
    assert (reply.status, reply.body) == (200, b"one")
    place.server.log.wait_for("ZeroDivisionError", start=start)
