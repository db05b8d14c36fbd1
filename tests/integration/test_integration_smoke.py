"""One request by each way that a request can take."""

import pytest

HELLO = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


@pytest.mark.parametrize("kind", ["http", "uwsgi", "unix"])
def test_a_request_is_answered(serve, kind):
    reply = serve(HELLO).get("/", kind)
    assert (reply.status, reply.body) == (200, b"hello")


def test_a_request_through_nginx_is_answered(serve, nginx):
    server = serve(HELLO)
    front = nginx(f"location / {{ uwsgi_pass 127.0.0.1:{server.uwsgi[1]}; }}")
    reply = front.raw(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.endswith(b"hello")


def test_sigterm_ends_the_server_with_code_0(serve):
    server = serve(HELLO)
    assert server.stop() == 0
    assert "stopped after 0 requests" in server.log.text()
