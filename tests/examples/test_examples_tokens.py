"""examples/flask_tokens.py behind nginx: 200 clients stream tokens of a slow upstream from one worker."""

from __future__ import annotations

import json

import pytest
from harness import ROOT, fronting, read_all, read_until, running
from stage import http_get
from upstreams import gated_upstream

CLIENTS = 200


def event(upstream, number: int) -> bytes:
    """What the upstream sends as this token, and the client is to get."""
    word = upstream.words[number]
    return f"data: {json.dumps({'token': word if number == 0 else ' ' + word})}\n\n".encode()


@pytest.fixture
def place(tmp_path):
    """The upstream, one worker with more cores than clients, and nginx as it is by default: with buffering."""
    with gated_upstream() as upstream:
        arguments = ("--asyncio", str(CLIENTS + 20), "--env", f"UPSTREAM={upstream.url}")
        module = ("--wsgi-file", str(ROOT / "examples" / "flask_tokens.py"))
        with (
            running(tmp_path / "server", "", *arguments, *module, "--listen", "512") as server,
            fronting(tmp_path / "nginx", f"location / {{ uwsgi_pass 127.0.0.1:{server.uwsgi[1]}; }}") as nginx,
        ):
            yield upstream, server, nginx


def ask(nginx):
    """A client that has asked for tokens and waits."""
    client = nginx.connect()
    client.sendall(http_get("/tokens", "Connection: close"))
    return client


def streams(nginx) -> int:
    """How many the worker says are open; asked while they are."""
    return int(nginx.raw(http_get("/streams", "Connection: close")).partition(b"\r\n\r\n")[2].split(b"\r\n")[0])


@pytest.mark.timeout(120)
def test_two_hundred_clients_have_their_first_token_before_anybody_has_the_last(place):
    upstream, server, nginx = place
    last = len(upstream.words) - 1
    clients = [ask(nginx) for _ in range(CLIENTS)]
    upstream.wait_until(lambda: upstream.at[0] == CLIENTS, "all calls are at the upstream at once")
    got = [b""] * CLIENTS
    for number in (0, 1, 2):
        upstream.open(number + 1)
        got = [read_until(client, event(upstream, number), data) for client, data in zip(clients, got, strict=True)]
        assert not any(event(upstream, number + 1) in data for data in got)  # piece by piece: the next is not sent yet
    assert streams(nginx) == upstream.server.open == CLIENTS
    upstream.open(last)
    upstream.wait_until(lambda: upstream.at[last] == CLIENTS, "all wait for their last token")
    upstream.open(last + 1)
    whole = b"".join(event(upstream, number) for number in range(last + 1)) + b"event: end\ndata: {}\n\n"
    for client, data in zip(clients, got, strict=True):
        with client:
            reply = data + read_all(client)
        assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
        assert unchunked(reply) == whole
    assert upstream.server.answered == CLIENTS
    assert "Traceback" not in server.log.text()


def unchunked(reply: bytes) -> bytes:
    """The body of nginx's chunked reply."""
    head, _, rest = reply.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower(), head
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            return body
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


def test_a_client_that_goes_away_ends_its_view_and_its_call_to_the_upstream(place):
    upstream, server, nginx = place
    staying, leaving = ask(nginx), ask(nginx)
    upstream.wait_until(lambda: upstream.at[0] == 2, "both calls are at the upstream")
    upstream.open(1)
    stayed = read_until(staying, event(upstream, 0))
    read_until(leaving, event(upstream, 0))
    assert streams(nginx) == 2
    leaving.close()
    upstream.wait_until(lambda: upstream.server.left == 1, "the worker has closed its connection")
    assert streams(nginx) == upstream.server.open == 1  # its `finally` has run
    upstream.open(len(upstream.words))
    with staying:
        assert (stayed + read_all(staying)).endswith(b"event: end\ndata: {}\n\n\r\n0\r\n\r\n")
    assert upstream.server.answered == 1
    assert "Traceback" not in server.log.text()


def test_without_an_upstream_the_reply_is_a_502_that_says_so(place):
    upstream, _, nginx = place
    upstream.stop_listening()
    reply = nginx.raw(http_get("/tokens", "Connection: close"))
    assert reply.startswith(b"HTTP/1.1 502 ") and b"The upstream does not answer: ClientConnectorError" in reply


def test_the_page_asks_for_the_tokens(place):
    _, _, nginx = place
    reply = nginx.raw(http_get("/", "Connection: close"))
    assert b"Content-Type: text/html" in reply and b'new EventSource("tokens")' in reply
