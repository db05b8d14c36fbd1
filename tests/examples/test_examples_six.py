"""The six examples of the mission, over HTTP, over uwsgi and behind nginx, all at the same time, with their times.

A time is checked from below, as the document promises it ("two seconds", "the second at four"), and generously from
above: what counts there is that all of them waited together and not one after the other.
"""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import PATIENCE_SECONDS, ROOT, Log, Nginx, Server, free_port
from stage import http_get, packet

EXAMPLES = ROOT / "examples"
PAGE = b"<h1>a page of the upstream</h1>"
TOGETHER_SECONDS = 12.0  # eight examples, three ways each: one after the other they take more than a minute


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_words: object) -> None:
        """Nothing on stderr."""


@dataclass
class Visit:
    """One request's bytes as they came: (seconds since the request, bytes) of each read."""

    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    error: str = ""

    @property
    def data(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    def came(self, mark: bytes) -> float:
        """When `mark` was complete."""
        data = b""
        for seconds, piece in self.pieces:
            data += piece
            if mark in data:
                return seconds
        raise AssertionError(f"no {mark!r} in {self.data!r} {self.error}")


def visit(sock, request: bytes, into: Visit) -> None:
    began = time.monotonic()
    try:
        with sock:
            sock.sendall(request)
            while piece := sock.recv(65536):
                into.pieces.append((time.monotonic() - began, piece))
    except OSError as error:
        into.error = repr(error)


NAMES = ["callback", "suspended", "generator", "coroutine", "future", "aiohttp_client"]
PRINTED = ["as_printed/coroutine", "as_printed/future"]
WAYS = ["http", "uwsgi", "unix", "nginx"]


class Theatre:
    """All examples running at once, and what each way to each of them brought."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.visits: dict[tuple[str, str], Visit] = {}
        self.servers: dict[str, Server] = {}
        self.upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        threading.Thread(target=self.upstream.serve_forever, daemon=True).start()
        environment = f"UPSTREAM=http://127.0.0.1:{self.upstream.server_port}/"
        for name in NAMES + PRINTED:
            options = ["--asyncio", "10", "--greenlet", "--env", environment, "--wsgi-file", f"{EXAMPLES}/{name}.py"]
            if name in PRINTED:
                options.append("--asyncio-compat")
            self.servers[name] = Server(folder / name.replace("/", "-"), "", (*options, *arguments))
        locations = "\n".join(
            f"location /{name} {{ uwsgi_pass 127.0.0.1:{server.uwsgi[1]}; }}" for name, server in self.servers.items()
        )
        self.nginx = Nginx(folder / "nginx", locations)
        began = time.monotonic()
        threads = []
        for name, server in self.servers.items():
            for way in WAYS:
                request = packet("/") if way in ("uwsgi", "unix") else http_get(f"/{name}", "Connection: close")
                sock = self.nginx.connect() if way == "nginx" else server.connect(way)
                self.visits[name, way] = Visit()
                threads.append(threading.Thread(target=visit, args=(sock, request, self.visits[name, way])))
                threads[-1].start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        self.seconds = time.monotonic() - began

    def stop(self) -> list[int]:
        self.nginx.stop()
        self.upstream.shutdown()
        self.upstream.server_close()
        return [server.stop() for server in self.servers.values()]


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def theatre(request, tmp_path_factory):
    theatre = Theatre(tmp_path_factory.mktemp("six"), "--loop", request.param)
    yield theatre
    assert theatre.stop() == [0] * len(theatre.servers)


@pytest.mark.parametrize("way", WAYS)
def test_a_callback_runs_two_seconds_after_the_reply(theatre, way):
    found = theatre.visits["callback", way]
    assert found.came(b"The reply is here") < found.came(b"two seconds.\n") + 1.9
    assert found.data.startswith(b"HTTP/1.1 200 OK\r\n")
    server = theatre.servers["callback"]
    server.log.wait_for("2 seconds after the reply")


def test_every_reply_of_the_callback_example_is_followed_by_its_callback(theatre):
    log = theatre.servers["callback"].log
    start = 0
    for _ in WAYS:
        log.wait_for("2 seconds after the reply", start=start)
        start = next(n for n, line in enumerate(log.lines) if n >= start and "2 seconds after the reply" in line) + 1


def test_the_callback_comes_after_the_reply_not_with_it(theatre):
    assert theatre.visits["callback", "http"].pieces[-1][0] < 1.9


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name, body",
    [
        ("suspended", b"woken by a timer after 2 seconds\n"),
        ("coroutine", b" slept for 2 seconds\n"),
        ("future", b"The answer took two seconds.\n"),
        ("as_printed/coroutine", b"Hello World"),
        ("as_printed/future", b"Hello World"),
    ],
)
def test_a_suspended_reply_arrives_after_two_seconds(theatre, name, body, way):
    found = theatre.visits[name, way]
    assert 1.95 <= found.came(body) < TOGETHER_SECONDS
    assert found.data.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("way", WAYS)
def test_a_generators_chunks_arrive_at_two_and_at_four_seconds(theatre, way):
    found = theatre.visits["generator", way]
    one, two = found.came(b"One\n"), found.came(b"Two\n")
    assert 1.95 <= one < two
    assert two - one >= 1.5  # not collected and sent together
    assert 3.9 <= two < TOGETHER_SECONDS


@pytest.mark.parametrize("way", WAYS)
def test_an_aiohttp_call_brings_the_upstreams_page(theatre, way):
    found = theatre.visits["aiohttp_client", way]
    found.came(PAGE)
    assert found.data.startswith(b"HTTP/1.1 200 OK\r\n")


def test_all_of_them_waited_together(theatre):
    assert theatre.seconds < TOGETHER_SECONDS
    for server in theatre.servers.values():
        assert "Traceback" not in server.log.text()


def test_an_aiohttp_call_that_fails_is_a_502_with_the_reason(tmp_path):
    options = ("--env", f"UPSTREAM=http://127.0.0.1:{free_port()}/", "--wsgi-file", f"{EXAMPLES}/aiohttp_client.py")
    server = Server(tmp_path, "", options)
    try:
        reply = server.get("/", "uwsgi")
        assert (reply.status, b"ClientConnectorError" in reply.body) == (502, True)
    finally:
        assert server.stop() == 0


def test_without_asyncio_compat_the_printed_examples_do_not_load(tmp_path):
    with pytest.raises(AssertionError, match="coroutine"):
        Server(tmp_path, "", ("--wsgi-file", f"{EXAMPLES}/as_printed/coroutine.py"))


DOCUMENTED = "corelet --asyncio 10 --http-socket :9090 --greenlet --wsgi-file app.py"


@pytest.mark.parametrize(
    "program", [[str(Path(sys.executable).with_name("corelet"))], [sys.executable, "-m", "corelet"]]
)
def test_the_documented_command_line_is_accepted_word_for_word(tmp_path, program):
    assert DOCUMENTED in (EXAMPLES / "README.md").read_text().replace("examples/callback.py", "app.py")
    (tmp_path / "app.py").write_text((EXAMPLES / "suspended.py").read_text())
    port = free_port()
    command = [*program, *DOCUMENTED.replace(":9090", f":{port}").split()[1:]]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "server")]), PYTHONUNBUFFERED="1")
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        log = Log(process.stdout)
        log.wait_for("10 cores")
        log.wait_for(f":{port} (http)")
        began = time.monotonic()
        found = [Visit() for _ in range(10)]
        threads = []
        for one in found:
            sock = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
            threads.append(threading.Thread(target=visit, args=(sock, http_get("/", "Connection: close"), one)))
            threads[-1].start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        for one in found:
            assert one.came(b"woken by a timer") >= 1.95
        assert time.monotonic() - began < TOGETHER_SECONDS
    finally:
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
        log.join()
