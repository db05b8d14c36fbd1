"""Good replies of every kind leave nothing in nginx's error log: no reset, no premature close, no 502; nor in ours."""

import pytest
from wsgi_site import NGINX, site

APPLICATION = """
import io

with open("file", "wb") as file:
    file.write(b"f" * 1_000_000)

def application(environ, start_response):
    return globals()[environ["PATH_INFO"][1:]](environ, start_response)

def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

def read(environ, start_response):
    size = len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(size).encode()]

def read_some(environ, start_response):
    size = len(environ["wsgi.input"].read(5))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(size).encode()]

def generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (piece for piece in [b"one", b"", b"two"])

def read_late(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"size "
    yield str(len(environ["wsgi.input"].read())).encode()

def large(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * 1_000_000]

def file(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](open("file", "rb"))

def memory(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"m" * 100_000))

def nothing(environ, start_response):
    start_response("204 No Content", [])
    return []

def unchanged(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"')])
    return []

def surplus(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello and more"]

def error(environ, start_response):
    raise ValueError("before the headers")

def redirect(environ, start_response):
    start_response("302 Found", [("Location", "/elsewhere")])
    return [b""]
"""

GOOD = [
    # method, target, bytes of body, status, the reply's body
    ("GET", "/hello", 0, 200, b"hello"),
    ("HEAD", "/hello", 0, 200, b""),
    ("HEAD", "/large", 0, 200, b""),
    ("HEAD", "/generator", 0, 200, b""),
    ("HEAD", "/file", 0, 200, b""),
    ("POST", "/read", 0, 200, b"0"),
    ("POST", "/read", 1, 200, b"1"),
    ("POST", "/read", 10, 200, b"10"),
    ("POST", "/read", 65_536, 200, b"65536"),
    ("POST", "/read", 200_000, 200, b"200000"),
    ("POST", "/read", 2_000_000, 200, b"2000000"),
    ("POST", "/read_late", 10, 200, b"size 10"),
    ("POST", "/read_late", 200_000, 200, b"size 200000"),
    ("POST", "/read_some", 10, 200, b"5"),
    ("POST", "/read_some", 200_000, 200, b"5"),
    ("POST", "/read_some", 2_000_000, 200, b"5"),
    ("POST", "/hello", 1, 200, b"hello"),
    ("POST", "/hello", 10, 200, b"hello"),
    ("POST", "/hello", 200_000, 200, b"hello"),
    ("POST", "/hello", 2_000_000, 200, b"hello"),
    ("POST", "/generator", 200_000, 200, b"onetwo"),
    ("POST", "/large", 2_000_000, 200, b"x" * 1_000_000),
    ("POST", "/file", 2_000_000, 200, b"f" * 1_000_000),
    ("POST", "/nothing", 200_000, 204, b""),
    ("GET", "/generator", 0, 200, b"onetwo"),
    ("GET", "/large", 0, 200, b"x" * 1_000_000),
    ("GET", "/file", 0, 200, b"f" * 1_000_000),
    ("GET", "/memory", 0, 200, b"m" * 100_000),
    ("GET", "/nothing", 0, 204, b""),
    ("GET", "/unchanged", 0, 304, b""),
    ("GET", "/redirect", 0, 302, b""),
    ("GET", "/surplus", 0, 200, b"hello"),
]

LEVELS = ("[warn]", "[error]", "[crit]", "[alert]", "[emerg]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with site(tmp_path_factory.mktemp("quiet"), APPLICATION, "--disable-logging") as place:
        yield place


def complaints(front, start=0):
    # The one warning is about the machine's account, before the first request.
    return [line for line in front.error_log[start:].splitlines() if any(level in line for level in LEVELS)]


@pytest.mark.parametrize("way", NGINX)
def test_fifty_good_replies_of_every_kind_leave_nothing_in_nginx_error_log(place, way):
    nginx_start, own_start = len(place.front.error_log), len(place.server.log.lines)
    for method, target, size, status, body in (GOOD * 2)[:50]:
        reply = place.ask(way, target, method, b"b" * size)
        assert (method, target, size, reply.status, reply.body) == (method, target, size, status, body)
    # nginx works through its events in order: when this is answered, the connections before it are finished.
    assert place.ask(way, "/hello").body == b"hello"
    assert complaints(place.front, nginx_start) == []
    assert [line for line in place.server.log.lines[own_start:] if "surplus" not in line] == []


@pytest.mark.parametrize("way", NGINX)
def test_a_500_before_the_headers_is_a_good_reply_to_nginx(place, way):
    start = len(place.front.error_log)
    for size in (0, 10, 200_000, 2_000_000):
        reply = place.ask(way, "/error", "POST", b"b" * size)
        assert (reply.status, reply.header("Content-Length")) == (500, str(len(reply.body)))
    assert place.ask(way, "/hello").body == b"hello"
    assert complaints(place.front, start) == []


@pytest.mark.parametrize("way", NGINX)
def test_twenty_at_a_time_leave_nothing_in_nginx_error_log(place, way):
    start = len(place.front.error_log)
    sockets = [place.open(way, "/hello", "POST", b"b" * 100_000) for _ in range(20)]
    sockets += [place.open(way, "/generator") for _ in range(20)]
    for sock in sockets:
        with sock:
            data = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
        assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert complaints(place.front, start) == []


def test_replies_on_one_client_connection_follow_each_other(place):
    request = b"GET /%s HTTP/1.1\r\nHost: x\r\n%s\r\n"
    for way in NGINX:
        with place.connect(way) as sock:
            sock.sendall(
                request % (b"hello", b"")
                + request % (b"nothing", b"")
                + request % (b"generator", b"")
                + request % (b"hello", b"Connection: close\r\n")
            )
            data = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
        assert data.count(b"HTTP/1.1 200 OK\r\n") == 3
        assert data.count(b"HTTP/1.1 204 No Content\r\n") == 1
        assert data.endswith(b"hello")
