"""%(rerr) and %(werr) of log-format: whether reading the request or writing the reply failed."""

from __future__ import annotations

import socket

import pytest
from harness import running
from stage import PRELUDE, http_get, packet, reset, unique

VIEWS = (
    PRELUDE
    + """
def view_read(environ, start_response):
    say(f"reading {environ['QUERY_STRING']}.")
    return text(start_response, len(environ["wsgi.input"].read()))

def view_catch(environ, start_response):
    \"\"\"As frameworks do.\"\"\"
    say(f"reading {environ['QUERY_STRING']}.")
    try:
        environ["wsgi.input"].read()
    except OSError:
        start_response("400 Bad Request", [("Content-Type", "text/plain")])
        return [b"that was not all"]

def view_large(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * 30_000_000]
"""
)
FORMAT = "%(var.QUERY_STRING) rerr=%(rerr) werr=%(werr) ioerr=%(ioerr) end"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("counts"), VIEWS, "--asyncio", "4", "--log-format", FORMAT) as server:
        yield server


def post(view, name, kind):
    """A request whose body of 100 bytes breaks off after 10."""
    if kind == "http":
        head = f"POST /{view}?{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        return head.encode() + b"0123456789"
    return packet(f"/{view}?{name}", "POST", b"x" * 100)[:-90]


@pytest.mark.parametrize("kind", ["uwsgi", "unix", "http"])
@pytest.mark.parametrize("view", ["read", "catch"])
def test_a_body_cut_short_is_a_read_error(server, view, kind):
    name = unique("body")
    with server.connect(kind) as sock:
        sock.sendall(post(view, name, kind))
        server.log.wait_for(f"reading {name}.")
        sock.shutdown(socket.SHUT_WR)
        assert server.log.wait_for(f"{name} rerr=") == f"{name} rerr=1 werr=0 ioerr=1 end"


@pytest.mark.parametrize("kind", ["uwsgi", "http"])
def test_a_reply_that_its_peer_resets_midway_is_a_write_error(server, kind):
    name = unique("reply")
    request = packet(f"/large?{name}") if kind == "uwsgi" else http_get(f"/large?{name}")
    sock = server.connect(kind)
    sock.sendall(request)
    assert sock.recv(1) == b"H"  # far more follows than the kernel holds: the core waits in the middle of it
    reset(sock)
    assert server.log.wait_for(f"{name} rerr=") == f"{name} rerr=0 werr=1 ioerr=1 end"


def test_a_good_request_has_no_errors(server):
    name = unique("good")
    assert server.get(f"/read?{name}", "uwsgi", "POST", b"whole").body == b"5"
    assert server.log.wait_for(f"{name} rerr=") == f"{name} rerr=0 werr=0 ioerr=0 end"
