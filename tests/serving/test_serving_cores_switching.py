"""What an application may do with its own greenlet: switch away, be resumed from anywhere, with values and errors.

Each test runs under asyncio's loop and under uvloop, against one server per loop.
"""

from __future__ import annotations

import pytest
from harness import running
from stage import PRELUDE, at_gate, begin, finish, open_gate, tell, unique

VIEWS = (
    PRELUDE
    + """
import concurrent.futures

def view_values(environ, start_response):
    me = greenlet.getcurrent()
    LOOP.call_soon(me.switch, "val", 2)
    two = me.parent.switch()
    LOOP.call_soon(me.switch, "alone")
    one = me.parent.switch()
    LOOP.call_soon(me.switch)
    none = me.parent.switch()
    return text(start_response, two, one, none)

def view_parent(environ, start_response):
    me = greenlet.getcurrent()
    seen = []
    def look():
        seen.append(greenlet.getcurrent() is me.parent)
        me.switch()
    LOOP.call_soon(look)
    me.parent.switch()
    return text(start_response, isinstance(me, greenlet.greenlet), seen)

def view_throw(environ, start_response):
    me = greenlet.getcurrent()
    LOOP.call_soon(me.throw, ValueError("thrown in"))
    try:
        me.parent.switch()
    except ValueError as error:
        return text(start_response, "caught", error)

def view_executor(environ, start_response):
    me = greenlet.getcurrent()
    future = LOOP.run_in_executor(None, lambda: threading.current_thread() is not threading.main_thread())
    future.add_done_callback(lambda future: me.switch(future.result()))
    return text(start_response, me.parent.switch())

def view_call_soon_threadsafe(environ, start_response):
    me = greenlet.getcurrent()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.submit(int, "17").add_done_callback(
        lambda future: LOOP.call_soon_threadsafe(me.switch, future.result()))
    answer = me.parent.switch()
    pool.shutdown()
    return text(start_response, answer)

def view_thread(environ, start_response):
    me = greenlet.getcurrent()
    thread = threading.Thread(target=me.switch, args=("from a thread",))
    LOOP.call_soon(thread.start)
    answer = me.parent.switch()
    thread.join()
    return text(start_response, answer, threading.current_thread() is threading.main_thread())

def view_thread_at_once(environ, start_response):
    me = greenlet.getcurrent()
    thread = threading.Thread(target=me.switch, args=("before we had left",))
    thread.start()
    thread.join()
    return text(start_response, me.parent.switch())

def view_throw_from_thread(environ, start_response):
    me = greenlet.getcurrent()
    thread = threading.Thread(target=me.throw, args=(KeyError("from a thread"),))
    LOOP.call_soon(thread.start)
    try:
        me.parent.switch()
    except KeyError as error:
        return text(start_response, repr(error))
    finally:
        thread.join()

async def wake(me, value):
    await asyncio.sleep(0)
    task = asyncio.current_task()
    me.switch(value)
    say("after the switch:", asyncio.current_task() is task, asyncio.get_running_loop() is LOOP)
    await asyncio.sleep(0)
    say("the coroutine went on.")

def view_task(environ, start_response):
    me = greenlet.getcurrent()
    task = asyncio.Task(wake(me, "from a task"))
    answer = me.parent.switch()
    current = asyncio.current_task(LOOP)
    return text(start_response, answer, current, not task.done())

def view_task_twice(environ, start_response):
    me = greenlet.getcurrent()
    first = asyncio.Task(wake(me, 1))
    one = me.parent.switch()
    second = asyncio.Task(wake(me, 2))     # made while the first one's step is below us
    two = me.parent.switch()
    return text(start_response, one, two)

def view_task_fails_after(environ, start_response):
    me = greenlet.getcurrent()
    task = asyncio.Task(wake(me, 1))
    me.parent.switch()
    raise LookupError("the view's own failure")

def view_wakes(environ, start_response):
    me = greenlet.getcurrent()
    other = WAITING.pop(environ["QUERY_STRING"])
    other("from another core")
    return text(start_response, "went on")

def view_child(environ, start_response):
    me = greenlet.getcurrent()
    def work():
        me.switch("to the core")
    child = greenlet.greenlet(work)
    return text(start_response, child.switch(), child.parent is me)

def view_child_returns(environ, start_response):
    def work(x):
        return x * 2
    return text(start_response, greenlet.greenlet(work).switch(21))

def view_child_waits(environ, start_response):
    me = greenlet.getcurrent()
    def work():
        child = greenlet.getcurrent()
        LOOP.call_soon(child.switch, "resumed")
        return "child " + me.parent.switch()
    return text(start_response, greenlet.greenlet(work).switch())

def view_attribute(environ, start_response):
    me = greenlet.getcurrent()
    had = hasattr(me, "has_ws_msg")
    me.has_ws_msg = True
    gate(environ["QUERY_STRING"])
    return text(start_response, had, me.has_ws_msg)

def view_many(environ, start_response):
    me = greenlet.getcurrent()
    total = 0
    for number in range(1000):
        LOOP.call_soon(me.switch, number)
        total += me.parent.switch()
    return text(start_response, total)

def view_write_between(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    me = greenlet.getcurrent()
    for number in range(3):
        LOOP.call_soon(me.switch, b"%d;" % number)
        write(me.parent.switch())
    return []

class Body:
    def __iter__(self):
        return self
    def __init__(self):
        self.left = 3
    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        me = greenlet.getcurrent()
        LOOP.call_soon(me.switch, b"%d;" % self.left)
        return me.parent.switch()
    def close(self):
        me = greenlet.getcurrent()
        LOOP.call_soon(me.switch, "in close")
        say("body closed", me.parent.switch())

def view_iterator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Body()
"""
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("switching"), VIEWS, "--asyncio", "4", "--loop", request.param) as server:
        yield server


@pytest.mark.parametrize(
    "view, answer",
    [
        ("values", b"('val', 2) alone ()"),
        ("parent", b"True [True]"),
        ("throw", b"caught thrown in"),
        ("executor", b"True"),
        ("call_soon_threadsafe", b"17"),
        ("thread", b"from a thread True"),
        ("thread_at_once", b"before we had left"),
        ("throw_from_thread", b"KeyError('from a thread')"),
        ("task", b"from a task None True"),
        ("task_twice", b"1 2"),
        ("child", b"to the core True"),
        ("child_returns", b"42"),
        ("child_waits", b"child resumed"),
        ("many", b"499500"),
        ("write_between", b"0;1;2;"),
    ],
)
@pytest.mark.parametrize("kind", ["uwsgi", "http"])
def test_a_view_that_switches_to_its_parent_is_resumed(server, kind, view, answer):
    reply = server.get("/" + view, kind)
    body = reply.body if reply.header("Transfer-Encoding") is None else unchunked(reply.body)
    assert (reply.status, body) == (200, answer)


def unchunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body


def test_a_coroutine_that_resumed_a_core_goes_on_as_the_current_task(server):
    start = len(server.log.lines)
    assert server.get("/task", "uwsgi").status == 200
    assert server.log.wait_for("after the switch", start=start) == "after the switch: True True"
    server.log.wait_for("the coroutine went on.", start=start)


def test_an_error_in_a_view_resumed_by_a_coroutine_is_the_requests_error_not_the_coroutines(server):
    start = len(server.log.lines)
    assert server.get("/task_fails_after", "uwsgi").status == 500
    server.log.wait_for("LookupError: the view's own failure", start=start)
    server.log.wait_for("the coroutine went on.", start=start)


def test_one_core_wakes_another_and_both_go_on(server):
    name = unique()
    waiting = begin(server, f"/gate?{name}", "uwsgi")
    at_gate(server, name)
    assert server.get(f"/wakes?{name}", "uwsgi").body == b"went on"
    assert finish(waiting).body.startswith(b"from another core ")


def test_an_iterator_may_switch_in_next_and_in_close(server):
    start = len(server.log.lines)
    assert server.get("/iterator", "uwsgi").body == b"2;1;0;"
    server.log.wait_for("body closed in close", start=start)


def test_what_a_request_sets_on_its_greenlet_is_its_own(server):
    for _ in range(2):  # the second time on greenlets that were used before
        pairs = [(begin(server, f"/attribute?{name}", "uwsgi"), name) for name in (unique() for _ in range(4))]
        for _, name in pairs:
            open_gate(server, name)
        assert [finish(sock).body for sock, _ in pairs] == [b"False True"] * 4


def test_no_callback_failed_and_the_loop_is_well(server):
    assert tell(server, "asyncio.get_running_loop() is LOOP") == "True"
    for word in ("Exception in callback", "Task exception was never", "Cannot enter into task", "never awaited"):
        assert word not in server.log.text()
