"""examples/aiohttp_fanout.py behind nginx: ten upstream calls at once in one view, one session for the worker."""

from __future__ import annotations

import json

import pytest
from harness import ROOT, fronting, read_all, running
from stage import http_get
from upstreams import gated_upstream

CALLS = 10
REQUEST = http_get("/", "Connection: close")


@pytest.fixture
def place(tmp_path):
    with gated_upstream() as upstream:
        arguments = ("--asyncio", "10", "--env", f"UPSTREAM={upstream.url}")
        module = ("--wsgi-file", str(ROOT / "examples" / "aiohttp_fanout.py"))
        with (
            running(tmp_path / "server", "", *arguments, *module) as server,
            fronting(tmp_path / "nginx", f"location / {{ uwsgi_pass 127.0.0.1:{server.uwsgi[1]}; }}") as nginx,
        ):
            yield upstream, server, nginx


def ask(nginx):
    client = nginx.connect()
    client.sendall(REQUEST)
    return client


def test_all_ten_calls_of_a_view_are_at_the_upstream_at_once(place):
    upstream, server, nginx = place
    with ask(nginx) as client:
        upstream.wait_until(lambda: upstream.at[0] == CALLS, "all ten are there")
        upstream.open(1)
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    prices = json.loads(body)["prices"]
    assert list(prices)[:2] == ["north", "south"] and len(prices) == CALLS
    assert prices["north"] == 100 + 7 * len("/shops/north")
    assert "Traceback" not in server.log.text()


def test_two_views_wait_together(place):
    upstream, _, nginx = place
    with ask(nginx) as first, ask(nginx) as second:
        upstream.wait_until(lambda: upstream.at[0] == 2 * CALLS, "the calls of both are there")
        upstream.open(1)
        assert read_all(first).startswith(b"HTTP/1.1 200 OK")
        assert read_all(second).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_goes_away_cancels_all_ten_calls(place):
    upstream, server, nginx = place
    client = ask(nginx)
    upstream.wait_until(lambda: upstream.at[0] == CALLS, "all ten are there")
    client.close()
    upstream.wait_until(lambda: upstream.server.left == CALLS, "the worker has closed its connections")
    assert upstream.server.open == 0
    assert "Traceback" not in server.log.text()


def test_the_session_is_closed_in_order_when_the_worker_ends(place):
    upstream, server, nginx = place
    upstream.open(1)
    assert nginx.raw(REQUEST).startswith(b"HTTP/1.1 200 OK")
    assert server.log.count("closing the session") == 0
    assert server.stop() == 0
    assert server.log.count("closing the session") == 1
    for complaint in ("Unclosed", "never awaited", "was destroyed", "Traceback"):
        assert complaint not in server.log.text()
