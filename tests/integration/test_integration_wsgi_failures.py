"""Whatever an application raises is an error of its request, never of the server."""

import pytest
from harness import read_until
from wsgi_site import DIRECT, NGINX, read_end, site

APPLICATION = r"""
import asyncio
import os
import sys

import greenlet

class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")
    __repr__ = __str__

class Base(BaseException):
    pass

KINDS = {
    "exception": lambda: ValueError("a secret"), "exit": lambda: SystemExit(3),
    "exit-text": lambda: SystemExit("a secret"),
    "exit-none": lambda: SystemExit(), "keyboard": lambda: KeyboardInterrupt(),
    "generator-exit": lambda: GeneratorExit(),
    "cancelled": lambda: asyncio.CancelledError(), "greenlet-exit": lambda: greenlet.GreenletExit(),
    "timeout": lambda: TimeoutError(),
    "base": lambda: Base("a secret"), "stop-iteration": lambda: StopIteration(), "memory": lambda: MemoryError(),
    "oserror": lambda: OSError(5, "a secret"),
    "broken-pipe": lambda: BrokenPipeError(32, "of the application"), "reset": lambda: ConnectionResetError(104,
    "of the application"),
    "connection-aborted": lambda: ConnectionAbortedError(), "unprintable": lambda: Unprintable(),
    "group": lambda: ExceptionGroup("a secret", [ValueError()]),
    "assertion": lambda: AssertionError(), "surrogate": lambda: ValueError("\udc80"),
    "unicode": lambda: "x".encode("latin-1") and ValueError("\u0416\n\x1b[31m"),
    "import": lambda: ImportError("x"), "recursion": lambda: RecursionError(),
    "async-stop": lambda: StopAsyncIteration(),
}

def application(environ, start_response):
    _, where, name = environ["PATH_INFO"].split("/")
    raised = KINDS.get(name)
    if where == "pid":
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]
    if where == "call":
        raise raised()
    start_response("200 OK", [("Set-Cookie", "secret=1")])
    if where == "started":
        raise raised()
    if where == "exits":
        sys.exit(int(name))
    if where == "deep":
        def deeper():
            deeper()
        deeper()
    return Generator(where, raised)

class Generator:
    def __init__(self, where, raised):
        self.where = where
        self.raised = raised
        self.count = 0

    def __iter__(self):
        if self.where == "iter":
            raise self.raised()
        return self

    def __next__(self):
        self.count += 1
        if self.where == "first" or (self.where == "second" and self.count == 2):
            raise self.raised()
        if self.count == 3:
            raise StopIteration
        return b"a chunk"

    def close(self):
        if self.where == "close":
            raise self.raised()
"""

KINDS = ["exception", "exit", "exit-text", "exit-none", "keyboard", "generator-exit", "cancelled", "greenlet-exit",
    "timeout",
         "base", "memory", "oserror", "broken-pipe", "reset", "connection-aborted", "unprintable", "group",
         "assertion", "surrogate", "unicode", "import", "recursion", "async-stop"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with site(tmp_path_factory.mktemp("failures"), APPLICATION, "--disable-logging") as place:
        pid = place.ask("http", "/pid/x").body
        yield place
        assert place.ask("http", "/pid/x").body == pid


def check_500(reply):
    assert (reply.status, reply.reason) == (500, "Internal Server Error")
    assert reply.header("Content-Length") == str(len(reply.body))
    assert reply.body != b""
    assert b"secret" not in reply.body
    assert reply.header("Set-Cookie") is None
    assert reply.header("Content-Type").startswith("text/")


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("where", ["call", "started", "iter", "first"])
@pytest.mark.parametrize("kind", [*KINDS, "stop-iteration"])
def test_an_error_before_the_headers_is_a_real_500_with_a_line_in_the_log(place, way, where, kind):
    start = len(place.server.log.lines)
    if (where, kind) == ("first", "stop-iteration"):  # the ordinary end of an iterator
        assert place.ask(way, f"/{where}/{kind}").status == 200
        return
    check_500(place.ask(way, f"/{where}/{kind}"))
    line = place.server.log.wait_for(f"'/{where}/{kind}'", start=start, seconds=5)
    assert " error " in line


@pytest.mark.parametrize("way", NGINX)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_error_before_the_headers_reaches_nginx_client_as_it_is(place, way, method):
    start = len(place.front.error_log)
    for kind in ("exception", "exit", "keyboard", "cancelled"):
        check_500(place.ask(way, f"/first/{kind}", method, b"x" * 100_000 if method == "POST" else b""))
    assert "[error]" not in place.front.error_log[start:]


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_after_the_headers_cuts_the_reply(place, way, kind):
    start = len(place.server.log.lines)
    with place.open(way, f"/second/{kind}") as sock:
        data, end = read_end(sock)
    assert end == "reset"
    assert b"500 Internal" not in data
    assert not data.endswith(b"0\r\n\r\n")
    place.server.log.wait_for(f"'/second/{kind}'", start=start, seconds=5)


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("kind", [*KINDS, "stop-iteration"])
def test_an_error_in_close_comes_too_late_to_harm_the_reply(place, way, kind):
    start = len(place.server.log.lines)
    with place.open(way, f"/close/{kind}") as sock:
        data, end = read_end(sock)
    body = data.partition(b"\r\n\r\n")[2]
    assert end == "end of file"
    assert body == (b"7\r\na chunk\r\n7\r\na chunk\r\n0\r\n\r\n" if way == "http" else b"a chunka chunk")
    place.server.log.wait_for(f"'/close/{kind}'", start=start, seconds=5)


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("code", ["0", "1", "255"])
def test_sys_exit_is_an_error_of_its_request(place, way, code):
    with place.open(way, "/pid/x", "POST", b"12345", length=10) as other:
        check_500(place.ask(way, f"/exits/{code}"))
        assert read_until(other, str(place.server.pid).encode())
    assert place.server.process.poll() is None


@pytest.mark.parametrize("way", DIRECT)
def test_an_endless_recursion_is_a_500(place, way):
    check_500(place.ask(way, "/deep/x"))


@pytest.mark.parametrize("way", DIRECT)
def test_the_log_holds_the_application_s_own_part_of_the_traceback(place, way):
    start = len(place.server.log.lines)
    place.ask(way, "/call/exception")
    place.server.log.wait_for("ValueError: a secret", start=start)
    lines = place.server.log.lines[start:]
    files = [line for line in lines if line.startswith('  File "')]
    assert len(files) == 1
    assert "app.py" in files[0]


def test_the_cores_are_all_there_after_many_failures(place):
    for number in range(150):  # more than there are cores
        assert place.ask("uwsgi", f"/call/{KINDS[number % 7]}").status == 500
    assert place.ask("uwsgi", "/pid/x").body == str(place.server.pid).encode()
