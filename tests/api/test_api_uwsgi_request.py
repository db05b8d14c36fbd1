"""What acts for one request: which one it is, its deadline, its line in the log, its reply."""

from __future__ import annotations

import subprocess
import sys

import pytest
from harness import running
from stage import PRELUDE, begin, finish, open_gate, unique

VIEWS = (
    PRELUDE
    + '''
import uwsgi, corelet

AT_IMPORT = (hasattr(uwsgi, "env"), hasattr(uwsgi, "start_response"), hasattr(uwsgi, "snmp_set_counter32"))

def view_at_import(environ, start_response):
    return text(start_response, *AT_IMPORT)

def view_env(environ, start_response):
    """The current request is the core's own, whatever ran meanwhile."""
    before = uwsgi.env is environ
    gate(environ["QUERY_STRING"])
    same = uwsgi.env is environ and uwsgi.start_response == start_response
    return text(start_response, before, same, uwsgi.env["QUERY_STRING"])

def errors_of(*calls):
    found = []
    for call in calls:
        try:
            found.append(f"{call()!r}")
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found

def view_elsewhere(environ, start_response):
    """From a child greenlet, and from a callback of the loop, without a context."""
    child = greenlet.greenlet(lambda: errors_of(uwsgi.connection_fd, uwsgi.suspend, lambda: uwsgi.env))
    found = child.switch()
    future = LOOP.create_future()
    LOOP.call_soon(lambda: future.set_result(errors_of(uwsgi.connection_fd, uwsgi.suspend, lambda: uwsgi.env)))
    found += corelet.await_(future)
    return text(start_response, *(line + "\\n" for line in found))

def view_with_context(environ, start_response):
    context = uwsgi.request_context()
    def act():
        uwsgi.set_logvar("by", "a callback", request_context=context)
        uwsgi.add_var("ADDED", "too", request_context=context)
        return [
            uwsgi.connection_fd(request_context=context) == fd, uwsgi.cl(request_context=context),
            uwsgi.get_logvar("by", request_context=context), uwsgi.chunked_read_nb(request_context=context),
        ]
    fd = uwsgi.connection_fd()
    future = LOOP.create_future()
    LOOP.call_soon(lambda: future.set_result(act()))
    found = corelet.await_(future)
    found += greenlet.greenlet(act).switch()
    KEPT.append(context)
    return text(start_response, *found, environ["ADDED"])

KEPT = []

def view_kept_context(environ, start_response):
    return text(start_response, *errors_of(lambda: uwsgi.connection_fd(request_context=KEPT[0]),
                                           lambda: uwsgi.connection_fd(request_context="x")))

def view_harakiri(environ, start_response):
    uwsgi.set_user_harakiri(0.05)
    try:
        corelet.sleep(60)
    finally:
        say(f"harakiri's finally {environ['QUERY_STRING']}.")

def view_harakiri_off(environ, start_response):
    uwsgi.set_user_harakiri(0.05)
    uwsgi.set_user_harakiri(0)
    corelet.sleep(1.2)
    return text(start_response, "went on")

def view_harakiri_ends_with_its_request(environ, start_response):
    uwsgi.set_user_harakiri(0.01)
    return text(start_response, "quick")

def view_sleep(environ, start_response):
    corelet.sleep(1.2)
    return text(start_response, "slept")

def view_logged(environ, start_response):
    uwsgi.log_this_request()
    uwsgi.set_logvar("mine", "\\u20ac")
    return text(start_response, "logged")

def view_sendfile(environ, start_response):
    start_response("200 OK", [])
    uwsgi.sendfile(__file__)
    return []

def view_sendfile_part(environ, start_response):
    start_response("200 OK", [])
    return uwsgi.sendfile(__file__, 0, 1, 10)

def view_sendfile_yielded(environ, start_response):
    start_response("200 OK", [])
    yield uwsgi.sendfile(os.open(__file__, os.O_RDONLY))

def view_sendfile_too_early(environ, start_response):
    return uwsgi.sendfile(__file__)

def view_body(environ, start_response):
    pieces = []
    while piece := uwsgi.chunked_read():
        pieces.append(piece)
    return text(start_response, b"".join(pieces), environ["wsgi.input"].read())

def view_disconnect(environ, start_response):
    uwsgi.disconnect()
    corelet.sleep(0.05)
    say(f"went on {environ['QUERY_STRING']}.")
    return text(start_response, "nobody hears")
'''
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("request")
    with running(folder, VIEWS, "--async", "4", "--disable-logging", "--log-format", "line %(uri) %(mine)") as server:
        yield server


def test_names_that_are_not_there_are_absent_and_env_is_there_in_requests_only(server):
    assert server.get("/at_import").body == b"False False False"


def test_env_and_start_response_are_those_of_the_core(server):
    one, two = unique(), unique()
    first, second = begin(server, f"/env?{one}"), begin(server, f"/env?{two}")
    for name in (one, two):
        open_gate(server, name)
    assert finish(first).body == f"True True {one}".encode()
    assert finish(second).body == f"True True {two}".encode()


def test_a_call_that_belongs_to_no_request_is_a_clear_error(server):
    lines = server.get("/elsewhere").body.decode().splitlines()
    assert len(lines) == 6
    for line in lines[:3]:
        assert "child greenlet" in line and "request_context" in line
    for line in lines[3:]:
        assert "none is here" in line and "request_context" in line
    assert all(line.strip().startswith(("NotInCore", "AttributeError")) for line in lines)


def test_a_callback_acts_for_the_request_whose_context_it_is_given(server):
    seen = "True 0 b'a callback' b''"
    assert server.get("/with_context").body == f"{seen} {seen} too".encode()
    body = server.get("/kept_context").body.decode()
    assert "the request_context of a request that has ended" in body
    assert "what uwsgi.request_context() gave, 'x' came" in body


def test_a_requests_own_harakiri_unwinds_it(server):
    name = unique("harakiri")
    assert server.get(f"/harakiri?{name}").status == 504
    server.log.wait_for(f"harakiri's finally {name}.")
    server.log.wait_for("harakiri after 0.05 s; unwound")


def test_zero_switches_it_off(server):
    assert server.get("/harakiri_off").body == b"went on"


def test_it_holds_for_its_own_request_only(server):
    for _ in range(4):
        assert server.get("/harakiri_ends_with_its_request").body == b"quick"
    assert server.get("/sleep").body == b"slept"


def test_one_request_can_be_logged_where_the_log_is_off(server):
    server.get("/at_import")
    server.get("/logged")
    assert server.log.wait_for("line /") == "line /logged \u20ac"


@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
def test_sendfile_sends_at_once_what_it_returns_may_go_anywhere(server, kind):
    whole = VIEWS.encode()
    for view, expected in (("sendfile", whole), ("sendfile_part", whole[1:11]), ("sendfile_yielded", whole)):
        assert server.get(f"/{view}", kind).body == expected
    assert server.get("/sendfile_too_early", kind).status == 500


@pytest.mark.parametrize("kind", ["http", "uwsgi", "unix"])
def test_chunked_read_gives_any_body(server, kind):
    body = bytes(range(256)) * 1000
    assert server.get("/body", kind, "POST", body).body == f"{body!r} b''".encode()


@pytest.mark.parametrize("kind", ["http", "uwsgi", "unix"])
def test_after_disconnect_the_request_goes_on(server, kind):
    name = unique("disconnect")
    with begin(server, f"/disconnect?{name}", kind) as sock:
        assert sock.recv(100) == b""
    server.log.wait_for(f"went on {name}.")


def test_outside_of_corelet_there_is_no_such_module():
    done = subprocess.run(
        [sys.executable, "-c", "import corelet\nimport uwsgi"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1 and "No module named 'uwsgi'" in done.stderr
