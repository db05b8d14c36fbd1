"""Packets that a real nginx sent (capture_golden.py makes them), and what is read from each."""

from pathlib import Path

import pytest

from uwsgiproto import Packet, PacketReceived, Reader
from uwsgiproto.client import build_request, request_variables

GOLDEN = Path(__file__).with_name("golden")

# What the captured requests have in common. The ports are those of one run of nginx.
COMMON = {
    "QUERY_STRING": "",
    "REQUEST_METHOD": "GET",
    "CONTENT_TYPE": "",
    "CONTENT_LENGTH": "",
    "DOCUMENT_ROOT": "/srv/www",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REQUEST_SCHEME": "http",
    "REMOTE_ADDR": "127.0.0.1",
    "SERVER_NAME": "example.test",
    "HTTP_HOST": "example.test",
}

EXPECTED: dict[str, dict[str, str]] = {
    "get_browser": {
        "REQUEST_URI": "/shop/items/4711",
        "PATH_INFO": "/shop/items/4711",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
        "HTTP_ACCEPT_ENCODING": "gzip, deflate",
        "HTTP_CONNECTION": "keep-alive",
        "HTTP_COOKIE": "sessionid=0123456789abcdef",
        "HTTP_UPGRADE_INSECURE_REQUESTS": "1",
        "HTTP_SEC_FETCH_DEST": "document",
        "HTTP_SEC_FETCH_MODE": "navigate",
        "HTTP_SEC_FETCH_SITE": "none",
        "HTTP_SEC_FETCH_USER": "?1",
    },
    "get_query_utf8": {
        "REQUEST_URI": "/caf%C3%A9/x/../a%2520b//y?q=%C3%A9&r=1",
        "PATH_INFO": "/caf\xc3\xa9/a%20b/y",
        "QUERY_STRING": "q=%C3%A9&r=1",
    },
    "post_form": {
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/login",
        "PATH_INFO": "/login",
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": "19",
        "HTTP_CONTENT_TYPE": "application/x-www-form-urlencoded",
        "HTTP_CONTENT_LENGTH": "19",
    },
    "post_chunked": {
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/upload",
        "PATH_INFO": "/upload",
        "CONTENT_LENGTH": "11",
        "HTTP_TRANSFER_ENCODING": "chunked",
    },
    "repeated_headers": {
        "REQUEST_URI": "/dup",
        "PATH_INFO": "/dup",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_DUP": "one, two, three",
    },
    "websocket_upgrade": {
        "REQUEST_URI": "/chat",
        "PATH_INFO": "/chat",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_ORIGIN": "http://example.test",
    },
    "large_cookie": {
        "REQUEST_URI": "/",
        "PATH_INFO": "/",
        "HTTP_COOKIE": "big=" + "0123456789abcdef" * 1000,
    },
    "head": {
        "REQUEST_METHOD": "HEAD",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "REQUEST_URI": "/robots.txt",
        "PATH_INFO": "/robots.txt",
    },
    "custom_params": {
        "REQUEST_URI": "/custom/page",
        "PATH_INFO": "/custom/page",
        "APP_SETTING": "blue green",
        "SCRIPT_NAME": "/custom",
        "HTTP_PROXY": "http://evil.test",
    },
    "empty_server_name": {
        "REQUEST_URI": "/",
        "PATH_INFO": "/",
        "SERVER_NAME": "",
        "HTTP_X_LATIN": "\xe9\xff",
    },
}

BODIES = {"post_form": b"user=ann&pass=s3cr3", "post_chunked": b"hello world"}


def read(name: str) -> tuple[PacketReceived, bytes]:
    reader = Reader()
    reader.feed((GOLDEN / f"{name}.bin").read_bytes())
    packet = reader.next_event()
    assert isinstance(packet, PacketReceived)
    return packet, reader.unused


def test_each_golden_packet_is_expected_here() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_variable_that_nginx_sent_is_read(name: str) -> None:
    packet, body = read(name)
    variables = dict(packet.variables)
    assert variables.pop("REMOTE_PORT").isdigit()
    assert variables.pop("SERVER_PORT").isdigit()
    assert variables == COMMON | EXPECTED[name]
    assert body == BODIES.get(name, b"")
    assert packet.modifier1 == (30 if name == "custom_params" else 0)


def test_nginx_1_22_repeats_keys() -> None:
    pairs = Packet.parse((GOLDEN / "repeated_headers.bin").read_bytes()).vars
    assert [value for key, value in pairs if key == "HTTP_X_DUP"] == ["one", "two", "three"]
    assert [value for key, value in pairs if key == "HTTP_COOKIE"] == ["a=1", "b=2"]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_golden_packet_builds_the_same_bytes(name: str) -> None:
    data = (GOLDEN / f"{name}.bin").read_bytes()
    assert Packet.build(Packet.parse(data)) == data[: len(data) - len(BODIES.get(name, b""))]


@pytest.mark.parametrize(
    ("name", "method", "target", "headers", "body"),
    [
        ("get_query_utf8", "GET", "/caf%C3%A9/x/../a%2520b//y?q=%C3%A9&r=1", [], b""),
        (
            "post_form",
            "POST",
            "/login",
            [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", "19")],
            b"user=ann&pass=s3cr3",
        ),
        (
            "websocket_upgrade",
            "GET",
            "/chat",
            [
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("Sec-WebSocket-Version", "13"),
                ("Origin", "http://example.test"),
                ("X_Under", "nginx leaves this out"),
            ],
            b"",
        ),
    ],
)
def test_the_client_builds_what_nginx_sends(
    name: str, method: str, target: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    variables = read(name)[0].variables
    ours = request_variables(
        method,
        target,
        [("Host", "example.test"), *headers],
        server_name="example.test",
        server_port=int(variables["SERVER_PORT"]),
        remote_port=int(variables["REMOTE_PORT"]),
        document_root="/srv/www",
    )
    assert build_request(ours, body) == (GOLDEN / f"{name}.bin").read_bytes()
