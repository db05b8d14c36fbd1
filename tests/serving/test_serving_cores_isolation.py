"""What one request leaves behind never reaches another: wake-ups, context variables, exceptions, the core's number."""

from __future__ import annotations

import pytest
from harness import running
from stage import PRELUDE, at_gate, begin, finish, open_gate, tell, unique

VIEWS = (
    PRELUDE
    + '''
VAR = contextvars.ContextVar("VAR", default="unset")
BASE = contextvars.ContextVar("BASE")
BASE.set("from the module")

def late(me, name):
    me.switch("late")
    say(f"late switch {name} done.")

def view_leave(environ, start_response):
    """Answer at once, and leave a wake-up behind for a request that is over by then."""
    me = greenlet.getcurrent()
    LOOP.call_later(0.02, late, me, environ["QUERY_STRING"])
    return text(start_response, "left")

def view_leave_bound(environ, start_response):
    switch = greenlet.getcurrent().switch
    name = environ["QUERY_STRING"]
    LOOP.call_later(0.02, lambda: (switch("late"), say(f"late switch {name} done.")))
    return text(start_response, "left")

def view_leave_suspended_first(environ, start_response):
    """As view_leave, after a suspension of its own."""
    me = greenlet.getcurrent()
    LOOP.call_soon(me.switch)
    me.parent.switch()
    LOOP.call_later(0.02, late, me, environ["QUERY_STRING"])
    return text(start_response, "left")

def view_leave_thread(environ, start_response):
    me = greenlet.getcurrent()
    name = environ["QUERY_STRING"]
    def work():
        GO.wait()
        me.switch("late")
        LOOP.call_soon_threadsafe(say, f"late switch {name} done.")
    threading.Thread(target=work).start()
    LOOP.call_later(0.02, GO.set)
    return text(start_response, "left")

GO = threading.Event()

def view_leave_throw(environ, start_response):
    me = greenlet.getcurrent()
    name = environ["QUERY_STRING"]
    def throw():
        with contextlib.suppress(RuntimeError):
            me.throw(RuntimeError("late throw"))
        say(f"late switch {name} done.")
    LOOP.call_later(0.02, throw)
    return text(start_response, "left")

async def late_coroutine(me, name):
    await asyncio.sleep(0.02)
    late(me, name)

def view_leave_coroutine(environ, start_response):
    BACKGROUND.append(asyncio.Task(late_coroutine(greenlet.getcurrent(), environ["QUERY_STRING"])))
    return text(start_response, "left")

BACKGROUND = []

def view_leave_child(environ, start_response):
    """Only a child greenlet knows the core; it ends later, and its end is a switch to its parent."""
    name = environ["QUERY_STRING"]
    me = greenlet.getcurrent()
    child = greenlet.greenlet(lambda: me.switch("started") and None)
    child.switch()
    LOOP.call_later(0.02, lambda: (child.switch(), say(f"late switch {name} done.")))
    return text(start_response, "left")

def view_leave_stray(environ, start_response):
    """A wake-up kept during a wait and never asked for."""
    import corelet
    me = greenlet.getcurrent()
    LOOP.call_soon(me.switch, "late")
    corelet.sleep(0)
    LOOP.call_soon(me.switch, "late")
    corelet.await_(asyncio.sleep(0.001))
    say(f"late switch {environ['QUERY_STRING']} done.")
    return text(start_response, "left")

def view_await_gate(environ, start_response):
    import corelet
    return text(start_response, corelet.await_(future_gate(environ["QUERY_STRING"])))

def view_number(environ, start_response):
    return text(start_response, repr(environ["uwsgi.core"]))

def view_context(environ, start_response):
    name = environ["QUERY_STRING"]
    before = VAR.get()
    token = VAR.set(name)
    gate(name)
    during = VAR.get()
    VAR.reset(token)
    after = VAR.get()
    VAR.set("left behind")
    BASE.set("changed by a request")
    return text(start_response, before, during, after)

def view_base(environ, start_response):
    return text(start_response, VAR.get(), BASE.get(), len(list(contextvars.copy_context())))

def view_in_except(environ, start_response):
    try:
        raise KeyError(environ["QUERY_STRING"])
    except KeyError:
        gate(environ["QUERY_STRING"])
        return text(start_response, repr(sys.exc_info()[1]))

def view_exc_info(environ, start_response):
    return text(start_response, sys.exc_info())

def view_fails_in_except(environ, start_response):
    try:
        raise KeyError("first")
    except KeyError:
        gate(environ["QUERY_STRING"])
        raise ValueError("second")

def view_generator_in_except(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    try:
        raise KeyError("in a generator")
    except KeyError:
        yield b"ab"
        yield b""
'''
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def one(request, tmp_path_factory):
    """A server with a single core, so that every request comes to the same one."""
    with running(tmp_path_factory.mktemp("one"), VIEWS, "--asyncio", "1", "--loop", request.param) as server:
        yield server


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    with running(tmp_path_factory.mktemp("four"), VIEWS, "--asyncio", "4") as server:
        yield server


@pytest.mark.parametrize(
    "leave",
    [
        "leave",
        "leave_bound",
        "leave_suspended_first",
        "leave_thread",
        "leave_throw",
        "leave_coroutine",
        "leave_child",
        "leave_stray",
    ],
)
@pytest.mark.parametrize("wait", ["gate", "await_gate"])
def test_a_late_wake_up_of_a_request_that_is_over_wakes_nobody(one, leave, wait):
    left, waits = unique(), unique()
    if leave == "leave_thread":
        tell(one, "GO.clear()")
    assert one.get(f"/{leave}?{left}", "uwsgi").body == b"left"
    waiting = begin(one, f"/{wait}?{waits}", "uwsgi")
    at_gate(one, waits)
    one.log.wait_for(f"late switch {left} done.")
    open_gate(one, waits, "by its own gate")
    assert finish(waiting).body.startswith(b"by its own gate")


def test_late_wake_ups_leave_no_trace_in_the_log(one):
    text = one.log.text()
    assert "Exception in callback" not in text
    assert "Traceback" not in text


def test_cores_are_numbered_from_0_and_no_two_requests_at_once_have_the_same(four):
    names = [unique() for _ in range(4)]
    waiting = [begin(four, f"/gate?{name}", "uwsgi") for name in names]
    for name in names:
        open_gate(four, name)
    assert sorted(int(finish(sock).body.split()[1]) for sock in waiting) == [0, 1, 2, 3]


def test_the_core_number_is_an_int_in_the_environ_and_in_the_access_line(one):
    start = len(one.log.lines)
    assert one.get("/number", "uwsgi").body == b"0"
    assert one.log.wait_for("GET /number", start=start).endswith("on core 0)")


def test_context_variables_are_those_of_the_request(four):
    names = [unique() for _ in range(4)]
    waiting = [begin(four, f"/context?{name}", "uwsgi") for name in names]
    for name in reversed(names):
        open_gate(four, name)
    assert [finish(sock).body.decode() for sock in waiting] == [f"unset {name} unset" for name in names]


def test_every_request_starts_with_the_context_of_the_workers_base(four):
    for _ in range(9):
        assert four.get("/base", "uwsgi").body.startswith(b"unset from the module ")


def test_a_request_suspended_in_an_except_block_does_not_show_its_exception_to_others(four):
    name = unique()
    waiting = begin(four, f"/in_except?{name}", "uwsgi")
    at_gate(four, name)
    for _ in range(5):
        assert four.get("/exc_info", "uwsgi").body == b"(None, None, None)"
    assert tell(four, "sys.exc_info()") == "(None, None, None)"
    open_gate(four, name)
    assert finish(waiting).body == f"KeyError('{name}')".encode()


def test_no_exception_is_left_on_a_core_by_a_request_that_failed(one):
    name = unique()
    waiting = begin(one, f"/fails_in_except?{name}", "uwsgi")
    open_gate(one, name)
    assert finish(waiting).status == 500
    assert one.get("/exc_info", "uwsgi").body == b"(None, None, None)"
    assert one.get("/generator_in_except", "uwsgi").body == b"ab"
    assert one.get("/exc_info", "uwsgi").body == b"(None, None, None)"
