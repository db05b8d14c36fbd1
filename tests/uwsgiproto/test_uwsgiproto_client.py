"""The client: what it sends, and which replies it takes for complete."""

import pytest

from uwsgiproto import BadReply
from uwsgiproto.client import Reply, build_ping, build_request, is_pong, parse_reply, request_variables


def test_a_request_is_header_block_and_body() -> None:
    assert build_request({"A": "B"}, b"body") == b"\x00\x06\x00\x00\x01\x00A\x01\x00Bbody"
    assert build_request([("A", "B")], modifier1=30, modifier2=7) == b"\x1e\x06\x00\x07\x01\x00A\x01\x00B"


def test_a_request_above_64_kib_is_not_built() -> None:
    assert len(build_request({"A": "x" * 65530})) == 65539
    with pytest.raises(ValueError, match="65536 bytes, a packet holds 65535"):
        build_request({"A": "x" * 65531})


def test_ping_and_pong() -> None:
    assert build_ping() == b"\x64\x00\x00\x00"
    assert is_pong(b"\x64\x00\x00\x01")
    assert not is_pong(b"\x64\x00\x00\x00")
    assert not is_pong(b"")
    assert not is_pong(b"\x64\x00\x00\x01x")


def test_the_variables_of_a_request_are_those_of_nginx() -> None:
    assert request_variables("POST", "/a%20b?c=%20", {"Host": "x", "X-One": "1"}, body_bytes=3, scheme="https") == {
        "QUERY_STRING": "c=%20",
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "3",
        "REQUEST_URI": "/a%20b?c=%20",
        "PATH_INFO": "/a b",
        "DOCUMENT_ROOT": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "https",
        "HTTPS": "on",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "0",
        "SERVER_PORT": "80",
        "SERVER_NAME": "localhost",
        "HTTP_HOST": "x",
        "HTTP_X_ONE": "1",
        "HTTP_CONTENT_LENGTH": "3",
    }


def test_repeated_headers_are_joined() -> None:
    variables = request_variables("GET", "/", [("Cookie", "a=1"), ("X-A", "1"), ("cookie", "b=2"), ("X-A", "2")])
    assert variables["HTTP_COOKIE"] == "a=1; b=2"
    assert variables["HTTP_X_A"] == "1, 2"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("", "/"),
        ("//a///b//", "/a/b/"),
        ("/a/./b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/../../a", "/a"),
        ("/a%2Fb%2e%2e", "/a/b.."),
        ("/%C3%A9", "/\xc3\xa9"),
    ],
)
def test_the_path_is_decoded_and_normalised_once(target: str, path: str) -> None:
    assert request_variables("GET", target)["PATH_INFO"] == path


def test_a_reply_with_a_status_line() -> None:
    reply = parse_reply(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nX-A: \t b \r\n\r\ngone\r\n\r\n")
    assert reply == Reply(404, "Not Found", (("Content-Type", "text/plain"), ("X-A", "b")), b"gone\r\n\r\n")
    assert reply.header("content-type") == "text/plain"
    assert reply.header("Content-Length") is None


def test_a_reply_with_a_cgi_status_or_none() -> None:
    assert parse_reply(b"Status: 302 Found\r\nLocation: /\r\n\r\n").status == 302
    assert parse_reply(b"Content-Type: text/plain\r\n\r\nhello") == Reply(
        200, "OK", (("Content-Type", "text/plain"),), b"hello"
    )


def test_a_reply_ends_at_its_content_length() -> None:
    assert parse_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello").body == b"he"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_replies_have_no_body(status: bytes) -> None:
    assert parse_reply(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n").body == b""


def test_a_reply_to_head_has_no_body() -> None:
    assert parse_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", to_head=True).body == b""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "without a reply"),
        (b"HTTP/1.1 200 OK\r\nContent-", "ends inside its head, after 25 bytes"),
        (b"hello\r\n\r\n", "not a header line: 'hello'"),
        (b"\r\n\r\n", "not a header line: ''"),
        (b"HTTP/1.1 200 OK\r\n X: folded\r\n\r\n", "not a header line"),
        (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "not a header line"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "three digits, this reply has '2x0 OK'"),
        (b"HTTP/1.1\r\n\r\n", "three digits"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "Content-Length is a number, this reply has '[+]5'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello", "Content-Length is a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", "cut short: 5 bytes came of 6"),
    ],
)
def test_what_is_not_a_complete_reply_is_an_error(data: bytes, words: str) -> None:
    with pytest.raises(BadReply, match=words):
        parse_reply(data)
