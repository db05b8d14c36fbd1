"""wsgiref.validate around the application: every promise of PEP 3333 that it can check, on every way of a request."""

import hashlib

import pytest
from wsgi_site import DIRECT, NGINX, site

APPLICATION = """
import hashlib
from wsgiref.validate import validator

def describe(environ):
    body = environ["wsgi.input"].read(-1)
    return "|".join([
        environ["REQUEST_METHOD"], environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["QUERY_STRING"],
        str(len(body)), hashlib.md5(body).hexdigest(), environ["wsgi.url_scheme"],
        str(environ["wsgi.version"]), str(environ["wsgi.run_once"]), str(environ["wsgi.input_terminated"]),
    ]).encode("latin-1")

def as_list(environ, start_response):
    text = describe(environ)
    start_response("200 OK", [("Content-Type", "text/plain; charset=latin-1"), ("Content-Length", str(len(text)))])
    return [text]

def as_generator(environ, start_response):
    text = describe(environ)
    start_response("200 OK", [("Content-Type", "text/plain; charset=latin-1")])
    return (text[at:at + 7] for at in range(0, len(text), 7))

def by_write(environ, start_response):
    text = describe(environ)
    write = start_response("200 OK", [("Content-Type", "text/plain; charset=latin-1")])
    write(text[:5])
    return [text[5:]]

def by_lines(environ, start_response):
    lines = list(environ["wsgi.input"])
    start_response("200 OK", [("Content-Type", "text/plain; charset=latin-1")])
    return [str(len(lines)).encode(), b"|", b"".join(lines)]

def nothing(environ, start_response):
    start_response("204 No Content", [])
    return []

views = {"list": validator(as_list), "generator": validator(as_generator), "write": validator(by_write),
         "lines": validator(by_lines), "nothing": validator(nothing)}

def application(environ, start_response):
    return views[environ.get("HTTP_X_VIEW", "list")](environ, start_response)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with site(tmp_path_factory.mktemp("validate"), APPLICATION) as place:
        yield place
        log = place.server.log.text()
    for complaint in ("AssertionError", "WSGIWarning", "garbage collected", "Traceback"):
        assert complaint not in log


def expected(method, path, query, body=b""):
    digest = hashlib.md5(body).hexdigest()
    return f"{method}||{path}|{query}|{len(body)}|{digest}|http|(1, 0)|False|True".encode("latin-1")


CASES = [
    ("GET", "/", "/", "", b""),
    ("GET", "/?", "/", "", b""),
    ("GET", "/a/b?c=d&e=%20f", "/a/b", "c=d&e=%20f", b""),
    ("GET", "/?a=1?b=2", "/", "a=1?b=2", b""),
    ("GET", "/a%20b%2Fc", "/a b/c", "", b""),
    ("GET", "/a%2520b", "/a%20b", "", b""),
    ("GET", "/caf%C3%A9", "/caf\xc3\xa9", "", b""),
    ("GET", "/%E2%82%AC?q=%E2%82%AC", "/\xe2\x82\xac", "q=%E2%82%AC", b""),
    ("GET", "/plus+plus;a=b", "/plus+plus;a=b", "", b""),
    ("POST", "/empty", "/empty", "", b""),
    ("POST", "/small?x", "/small", "x", b"a=b"),
    ("POST", "/large", "/large", "", bytes(range(256)) * 4096),
    ("PUT", "/put", "/put", "", b"x" * 70000),
    ("DELETE", "/gone", "/gone", "", b""),
    ("PATCH", "/patched", "/patched", "", b"\x00\xff"),
    ("OPTIONS", "/options", "/options", "", b""),
]


@pytest.mark.parametrize("way", DIRECT + NGINX)
@pytest.mark.parametrize("view", ["list", "generator", "write"])
def test_the_validator_passes_what_every_way_delivers(place, way, view):
    for method, target, path, query, body in CASES:
        reply = place.ask(way, target, method, body, [("X-View", view)])
        assert (target, reply.status, reply.body) == (target, 200, expected(method, path, query, body))
        assert reply.header("Content-Type") == "text/plain; charset=latin-1"


@pytest.mark.parametrize("way", DIRECT + NGINX)
@pytest.mark.parametrize("view", ["list", "generator", "write"])
def test_the_validator_passes_a_head(place, way, view):
    reply = place.ask(way, "/head?q=1", "HEAD", headers=[("X-View", view)])
    assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize("way", DIRECT + NGINX)
def test_the_validator_passes_iteration_over_the_body(place, way):
    reply = place.ask(way, "/", "POST", b"one\ntwo\n\nlast", [("X-View", "lines")])
    assert reply.body == b"4|one\ntwo\n\nlast"


@pytest.mark.parametrize("way", DIRECT + NGINX)
def test_the_validator_passes_a_reply_without_content(place, way):
    reply = place.ask(way, "/", headers=[("X-View", "nothing")])
    assert (reply.status, reply.reason, reply.body) == (204, "No Content", b"")


@pytest.mark.parametrize("way", ("http", *NGINX))
def test_the_validator_passes_a_chunked_body(place, way):
    chunked = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n"
    with place.open(way, "/c", "POST", chunked, [("Transfer-Encoding", "chunked"), ("X-View", "list")]) as sock:
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.endswith(expected("POST", "/c", "", b"hello world"))


@pytest.mark.parametrize("way", ("http", *NGINX))
def test_the_validator_passes_http_10_without_a_host(place, way):
    with place.connect(way) as sock:
        sock.sendall(b"GET /old?x=y HTTP/1.0\r\n\r\n")
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    assert data.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n"))
    assert data.endswith(expected("GET", "/old", "x=y"))


def test_the_validator_passes_the_asterisk_form(place):
    with place.connect("http") as sock:
        sock.sendall(b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("way", ["uwsgi", "unix"])
def test_the_validator_passes_the_smallest_packet_that_nginx_can_be_told_to_send(place, way):
    # uwsgi_pass without any uwsgi_params but these two, and no Host header.
    packet = b"\x00\x28\x00\x00\x0e\x00REQUEST_METHOD\x03\x00GET\x09\x00PATH_INFO\x06\x00/small"
    reply = place.server.raw(packet, way)
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.endswith(expected("GET", "/small", ""))
