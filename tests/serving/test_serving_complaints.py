"""What a peer does wrong costs the log a few lines, however it varies its mistakes."""

from __future__ import annotations

import pytest
from harness import running
from stage import PRELUDE, tell

from uwsgiproto.client import build_request

KINDS = 50  # of the same mistake, each worded differently
FEW = 3  # lines within one interval of ten seconds: a slow machine may begin a second one


@pytest.fixture
def server(tmp_path):
    with running(tmp_path, PRELUDE, "--disable-logging", "--buffer-size=4096") as server:
        yield server


def head(line=b"GET / HTTP/1.1", *headers):
    return b"\r\n".join([line, b"Host: x", *headers, b"", b""])


def word(number):
    """A token without digits, another one for each number."""
    return b"".join(b"%c" % (65 + int(digit)) for digit in str(number + 100))


HTTP_MISTAKES = {
    "method": (501, lambda number: head(b"%s / HTTP/1.1" % word(number))),
    "method-with-digits": (501, lambda number: head(b"M%d / HTTP/1.1" % number)),
    "method-no-token": (400, lambda number: head(b"%s( / HTTP/1.1" % word(number))),
    "version-no-number": (400, lambda number: head(b"GET / %s" % word(number))),
    "target": (400, lambda number: head(b"GET /%s# HTTP/1.1" % word(number))),
    "quote": (400, lambda number: head(b"GET %s'\" HTTP/1.1" % word(number))),
    "host": (400, lambda number: b"GET / HTTP/1.1\r\nHost: %s/\r\n\r\n" % word(number)),
    "header-name": (400, lambda number: head(b"GET / HTTP/1.1", b"%s(: x" % word(number))),
    "header-value": (400, lambda number: head(b"GET / HTTP/1.1", b"X: %s\0" % word(number))),
    "length": (400, lambda number: head(b"POST / HTTP/1.1", b"Content-Length: %s" % word(number))),
    "coding": (501, lambda number: head(b"POST / HTTP/1.1", b"Transfer-Encoding: %s, chunked" % word(number))),
    "expectation": (417, lambda number: head(b"POST / HTTP/1.1", b"Content-Length: 1", b"Expect: %s" % word(number))),
}


@pytest.mark.parametrize("name", list(HTTP_MISTAKES))
def test_fifty_wordings_of_one_http_mistake_are_a_few_lines(server, name):
    status, wording = HTTP_MISTAKES[name]
    replies = {server.raw(wording(number)).split(b" ")[1] for number in range(KINDS)}
    assert replies == {b"%d" % status}
    assert tell(server, "1") == "1"
    assert 1 <= server.log.count(f"refused with {status}") <= FEW


def variables(**changed):
    return build_request({"REQUEST_METHOD": "POST", "PATH_INFO": "/", **changed})


PACKET_MISTAKES = {
    "length": lambda number: variables(CONTENT_LENGTH=word(number).decode()),
    "script-name": lambda number: variables(SCRIPT_NAME=word(number).decode()),
    "reserved": lambda number: variables(**{f"wsgi.{word(number).decode()}": "x"}),
    "size": lambda number: bytes([0, 4 + number, 0, 0]) + b"\xff" * (4 + number),
    "oversize": lambda number: bytes([0, number, 255, 0]) + b"x" * 100,
}


@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
@pytest.mark.parametrize("name", list(PACKET_MISTAKES))
def test_fifty_wordings_of_one_bad_packet_are_a_few_lines(server, name, kind):
    for number in range(KINDS):
        assert server.raw(PACKET_MISTAKES[name](number), kind).startswith(b"HTTP/1.1 400 ")
    assert tell(server, "1") == "1"
    assert 1 <= server.log.count("refused with 400") <= FEW


def test_a_refusal_that_differs_in_a_small_number_is_one_line_for_each_number(server):
    # The number of a modifier says what came; there are 256, and a line for each is the most that they cost.
    for _ in range(3):
        for number in range(1, 10):
            assert server.raw(bytes([number, 0, 0, 0]), "uwsgi").startswith(b"HTTP/1.1 400 ")
    assert tell(server, "1") == "1"
    assert server.log.count("refused with 400") <= 9


def test_the_complaint_that_is_written_is_whole_and_says_who_sent_what(server):
    with server.connect() as sock:
        host, port = sock.getsockname()
        sock.sendall(head(b"BREW /pot HTTP/1.1"))
        assert sock.recv(65536).startswith(b"HTTP/1.1 501 ")
    line = server.log.wait_for("refused with 501")
    assert line.endswith(f" warning {host}:{port}: refused with 501: the method 'BREW' is not implemented")
