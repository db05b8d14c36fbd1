"""A suspended request that nobody will resume never costs a core for good.

Its client has gone, or a deadline passes: the core is unwound, its `finally` blocks run, and one log line says which
core it was, for how long it hung, and where.
"""

from __future__ import annotations

import re
import socket
import time

import pytest
from harness import running
from stage import PRELUDE, Peer, at_gate, begin, cpu_seconds, finish, http_get, open_gate, packet, reset, tell, unique

CORES = 2
VIEWS = (
    PRELUDE
    + '''
import corelet

@contextlib.contextmanager
def told(environ, unwound_by="any"):
    name = environ["QUERY_STRING"]
    LOOP.call_soon(say, f"suspended {name}.")
    try:
        yield
    except BaseException as error:
        say(f"unwound {name} by {type(error).__name__}, an Exception: {isinstance(error, Exception)}.")
        raise
    finally:
        say(f"finally {name}.")

def view_never(environ, start_response):
    with told(environ):
        greenlet.getcurrent().parent.switch()  # LINE never

def view_lost(environ, start_response):
    """The wake-up fails before it comes to its switch."""
    me = greenlet.getcurrent()
    def wake():
        asyncio.Future().result()
        me.switch()
    LOOP.call_soon(wake)
    with told(environ):
        me.parent.switch()  # LINE lost

async def fails(me):
    await asyncio.sleep(0)
    raise LookupError("on the way")
    me.switch()

def view_failed_task(environ, start_response):
    me = greenlet.getcurrent()
    task = asyncio.Task(fails(me))
    with told(environ):
        me.parent.switch()  # LINE failed_task

def view_generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    with told(environ):
        yield b"One"
        greenlet.getcurrent().parent.switch()  # LINE generator
        yield b"Two"

def view_sleep(environ, start_response):
    with told(environ):
        corelet.sleep(3600)

def view_await(environ, start_response):
    name = environ["QUERY_STRING"]
    async def awaited():
        try:
            await asyncio.sleep(3600)
        finally:
            say(f"awaited {name} cancelled.")
    with told(environ):
        corelet.await_(awaited())

def view_timer(environ, start_response):
    me = greenlet.getcurrent()
    LOOP.call_later(3600, me.switch)
    with told(environ):
        me.parent.switch()  # LINE timer

def view_child(environ, start_response):
    """A child greenlet leaves to the loop for the core."""
    me = greenlet.getcurrent()
    with told(environ):
        greenlet.greenlet(lambda: me.parent.switch()).switch()

def view_swallow(environ, start_response):
    with told(environ):
        try:
            greenlet.getcurrent().parent.switch()
        except BaseException as error:
            say(f"swallowed {environ['QUERY_STRING']} {type(error).__name__}.")
    return text(start_response, "late answer")

def view_swallow_exception(environ, start_response):
    """What a framework does."""
    with told(environ):
        try:
            greenlet.getcurrent().parent.switch()
        except Exception:
            say("swallowed by except Exception")
    return text(start_response, "late answer")

def view_again(environ, start_response):
    """Suspends itself again while it is unwound: the clean-up gets its time, and no more than that."""
    with told(environ):
        try:
            greenlet.getcurrent().parent.switch()
        finally:
            corelet.sleep(0.01)
            say(f"cleaned {environ['QUERY_STRING']}.")

def view_keep(environ, start_response):
    """Keeps its stream going for as long as somebody reads it."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    with told(environ):
        while True:
            yield b"tick"
            corelet.sleep(0.01)
'''
)


def line_of(view):
    lines = VIEWS.split("\n")
    return next(number for number, line in enumerate(lines, 1) if line.endswith(f"# LINE {view}"))


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def patient(request, tmp_path_factory):
    """Only a client that goes away ends a request here, whatever happens."""
    arguments = ("--asyncio", str(CORES), "--suspend-timeout", "3600", "--loop", request.param)
    with running(tmp_path_factory.mktemp("patient"), VIEWS, *arguments) as server:
        yield server


@pytest.fixture(scope="module")
def eager(tmp_path_factory):
    """suspend-timeout 1, for all that wait by a raw switch."""
    with running(tmp_path_factory.mktemp("eager"), VIEWS, "--asyncio", str(CORES), "--suspend-timeout", "1") as server:
        yield server


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """harakiri 1, for everything."""
    with running(tmp_path_factory.mktemp("strict"), VIEWS, "--asyncio", str(CORES + 2), "--harakiri", "1") as server:
        yield server


@pytest.fixture(scope="module")
def gone(tmp_path_factory):
    """http-eof gone: an end of file from an HTTP client is its end."""
    arguments = ("--asyncio", str(CORES), "--suspend-timeout", "3600", "--http-eof", "gone")
    with running(tmp_path_factory.mktemp("gone"), VIEWS, *arguments) as server:
        yield server


def suspend(server, view, kind):
    """Begin a request and wait until its core is suspended; returns its socket and its name."""
    name = unique("n")
    sock = begin(server, f"/{view}?{name}", kind)
    server.log.wait_for(f"suspended {name}.")
    return sock, name


LINE = re.compile(r"core (\d+) suspended for (\d+\.\d) s at (\S+):(\d+)")


def report(server, name):
    """The log line about this request, taken apart: core, seconds, file, line."""
    line = server.log.wait_for("suspended for", start=index_of(server, f"suspended {name}."))
    found = LINE.search(line)
    assert found, line
    return int(found[1]), float(found[2]), found[3], int(found[4])


def index_of(server, text):
    return next(number for number, line in enumerate(server.log.lines) if text in line)


VIEW_NAMES = ["never", "lost", "failed_task", "generator", "sleep", "await", "timer", "child"]
ENDINGS = [("uwsgi", "close"), ("uwsgi", "reset"), ("unix", "close"), ("http", "reset"), ("uwsgi", "half")]


@pytest.mark.parametrize("view", VIEW_NAMES)
@pytest.mark.parametrize("kind, ending", ENDINGS)
def test_a_client_that_goes_away_frees_the_core(patient, view, kind, ending):
    for _ in range(CORES + 1):  # more often than there are cores
        sock, name = suspend(patient, view, kind)
        if ending == "reset":
            reset(sock)
        elif ending == "half":
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.close()
        patient.log.wait_for(f"finally {name}.")
        patient.log.wait_for(f"unwound {name} by ClientDisconnected, an Exception: False.")
        sock.close()
    assert patient.get("/hello", kind).body == b"hello"


@pytest.mark.parametrize("view", ["never", "lost", "failed_task", "generator", "timer"])
def test_the_log_says_which_core_hung_for_how_long_and_where(patient, view):
    sock, name = suspend(patient, view, "uwsgi")
    sock.close()
    patient.log.wait_for(f"finally {name}.")
    core, seconds, file, line = report(patient, name)
    assert core in range(CORES)
    assert 0 <= seconds < 60
    assert file.endswith("app.py")
    assert line == line_of(view)


def test_what_was_awaited_is_cancelled_when_the_client_goes_away(patient):
    sock, name = suspend(patient, "await", "uwsgi")
    sock.close()
    patient.log.wait_for(f"awaited {name} cancelled.")


def test_clean_up_that_waits_itself_is_let_finish(patient):
    sock, name = suspend(patient, "again", "uwsgi")
    sock.close()
    patient.log.wait_for(f"cleaned {name}.")
    patient.log.wait_for(f"finally {name}.")
    assert patient.get("/hello").body == b"hello"


@pytest.mark.parametrize("kind", ["uwsgi", "unix", "http"])
def test_a_stream_ends_when_its_client_closes(patient, kind):
    start = len(patient.log.lines)
    for _ in range(CORES + 1):
        sock, name = suspend(patient, "keep", kind)
        sock.close()
        patient.log.wait_for(f"finally {name}.")
    assert patient.get("/hello", kind).body == b"hello"
    assert "Traceback" not in "\n".join(patient.log.lines[start:])


@pytest.mark.parametrize("kind, ending", [("uwsgi", "close"), ("unix", "close"), ("http", "reset"), ("uwsgi", "reset")])
def test_bytes_that_the_application_has_not_read_do_not_hide_that_the_client_has_gone(patient, kind, ending):
    for _ in range(CORES + 1):
        name = unique("n")
        sock = patient.connect(kind)
        if kind == "http":
            sock.sendall(
                b"POST /never?%s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" % name.encode() + b"x" * 100
            )
        else:
            sock.sendall(packet(f"/never?{name}", "POST", b"x" * 100))
        patient.log.wait_for(f"suspended {name}.")
        if ending == "reset":
            reset(sock)
        else:
            sock.close()
        patient.log.wait_for(f"unwound {name} by ClientDisconnected")


def test_a_suspended_request_with_unread_bytes_costs_no_cpu(eager):
    used = cpu_seconds(eager)
    socks = []
    for kind in ("http", "uwsgi"):
        name = unique("n")
        data = packet(f"/never?{name}", "POST", b"x" * 100_000)
        if kind == "http":
            data = (
                b"POST /never?%s HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" % name.encode() + b"x" * 100_000
            )
        socks.append(eager.connect(kind))
        socks[-1].sendall(data)
    for sock in socks:
        assert sock.recv(65536).startswith(b"HTTP/1.1 504 ")  # a second later
        sock.close()
    assert cpu_seconds(eager) - used < 0.5


def test_an_http_client_that_only_stops_sending_is_still_answered(patient):
    name = unique()
    sock = begin(patient, f"/gate?{name}")
    at_gate(patient, name)
    sock.shutdown(socket.SHUT_WR)
    assert patient.get("/hello").body == b"hello"
    open_gate(patient, name)
    assert finish(sock).body.startswith(b"opened")


def test_an_http_client_that_stops_sending_at_once_is_answered(patient):
    with patient.connect() as sock:
        sock.sendall(http_get("/hello"))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        while sock.recv(65536):
            pass  # and the connection is closed, rather than kept for a request that cannot come


@pytest.mark.parametrize("ending", ["close", "half"])
@pytest.mark.parametrize("view", ["never", "sleep", "await", "generator"])
def test_http_eof_gone_takes_an_end_of_file_for_the_end(gone, view, ending):
    for _ in range(CORES + 1):
        sock, name = suspend(gone, view, "http")
        if ending == "close":
            sock.close()
        else:
            sock.shutdown(socket.SHUT_WR)
        gone.log.wait_for(f"unwound {name} by ClientDisconnected")
        sock.close()
    assert gone.get("/hello").body == b"hello"


@pytest.mark.parametrize("view", ["never", "lost", "failed_task", "timer", "child"])
def test_a_raw_wait_ends_at_suspend_timeout_though_the_client_still_waits(eager, view):
    began = time.monotonic()
    waiting = [suspend(eager, view, kind) for kind in ("http", "uwsgi")]
    replies = [finish(sock) for sock, _ in waiting]
    assert time.monotonic() - began >= 0.9
    assert [reply.status for reply in replies] == [504, 504]
    for _, name in waiting:
        eager.log.wait_for(f"finally {name}.")
    if view != "child":
        core, seconds, file, line = report(eager, waiting[0][1])
        assert (core in range(CORES), file.rpartition("/")[2], line) == (True, "app.py", line_of(view))
        assert seconds >= 0.9
    assert eager.get("/hello").body == b"hello"


def test_a_raw_wait_of_an_http_client_that_closed_quietly_ends_at_suspend_timeout(eager):
    for _ in range(CORES):
        sock, name = suspend(eager, "never", "http")
        sock.close()
    eager.log.wait_for(f"finally {name}.")
    assert eager.get("/hello").body == b"hello"


def test_suspend_timeout_midway_through_a_reply_cuts_it(eager):
    sock, name = suspend(eager, "generator", "http")
    with pytest.raises((ConnectionResetError, AssertionError)):  # reset, or the end before the last chunk
        Peer(eager, sock).reply()
    sock.close()
    eager.log.wait_for(f"finally {name}.")


@pytest.mark.parametrize("view", VIEW_NAMES)
def test_harakiri_ends_one_request_while_the_others_go_on(strict, view):
    began = time.monotonic()
    sock, name = suspend(strict, view, "uwsgi")
    with Peer(strict) as peer:
        while not strict.log.count(f"finally {name}."):
            assert peer.get("/hello").body == b"hello"
            assert time.monotonic() - began < 20
    assert time.monotonic() - began >= 0.9
    strict.log.wait_for(f"unwound {name} by HarakiriError, an Exception: False.")
    if view == "generator":
        with sock, pytest.raises(ConnectionResetError):
            while sock.recv(65536):
                pass
    else:
        assert finish(sock).status == 504


def test_harakiri_fires_for_that_request_only(strict):
    name = unique()
    sock, _ = suspend(strict, "never", "uwsgi")
    began = time.monotonic()
    while time.monotonic() - began < 0.5:  # so that the other one is half a second younger
        assert strict.get("/hello").body == b"hello"
    young = begin(strict, f"/gate?{name}", "uwsgi")
    at_gate(strict, name)
    assert finish(sock).status == 504
    open_gate(strict, name)
    assert finish(young).body.startswith(b"opened")


@pytest.mark.parametrize("kind", ["uwsgi", "http"])
@pytest.mark.parametrize("view", ["swallow", "swallow_exception"])
def test_an_answer_after_harakiri_is_discarded(strict, kind, view):
    sock, name = suspend(strict, view, kind)
    reply = finish(sock)
    assert reply.status == 504
    assert b"late answer" not in reply.body
    strict.log.wait_for(f"finally {name}.")
    assert not strict.log.count("swallowed by except Exception")


def test_every_core_is_free_again_after_all_this(patient, eager, strict, gone):
    for server in (patient, eager, strict, gone):
        assert tell(server, "asyncio.get_running_loop() is LOOP") == "True"
        text = server.log.text()
        assert "never awaited" not in text
        assert "Cannot enter into task" not in text
        cores = CORES + 2 if server is strict else CORES
        names = [unique() for _ in range(cores)]
        waiting = [begin(server, f"/gate?{name}", "uwsgi") for name in names]
        for name in names:
            open_gate(server, name)
        assert sorted(finish(sock).body for sock in waiting) == [b"opened %d" % number for number in range(cores)]
