"""corelet.await_ and its kin, from the view's side: results, errors, time limits, context, clear words on misuse."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from harness import PATIENCE_SECONDS, ROOT, running
from stage import PRELUDE, at_gate, begin, finish, open_gate, tell, unique

VIEWS = (
    PRELUDE
    + '''
import corelet
from corelet import await_, in_core, sleep, spawn, to_thread

VAR = contextvars.ContextVar("VAR", default="unset")

async def double(x):
    await asyncio.sleep(0.001)
    return 2 * x

async def fails_inside_the_coroutine():
    await asyncio.sleep(0)
    raise LookupError("the coroutine's own error")

class Awaitable:
    def __await__(self):
        yield from asyncio.sleep(0.001).__await__()
        return "an awaitable object"

def view_result(environ, start_response):
    return text(start_response, await_(double(21)))

def view_no_wait(environ, start_response):
    async def at_once():
        return "at once"
    return text(start_response, await_(at_once()))

def view_awaitable(environ, start_response):
    return text(start_response, await_(Awaitable()))

def view_future(environ, start_response):
    future = asyncio.Future()
    LOOP.call_soon(future.set_result, "a future's")
    return text(start_response, await_(future))

def view_done_future(environ, start_response):
    future = asyncio.Future()
    future.set_result("done already")
    return text(start_response, await_(future), await_(future))

def view_task(environ, start_response):
    return text(start_response, await_(asyncio.Task(double(4))))

def view_gather(environ, start_response):
    async def all_of_them():
        return await asyncio.gather(*map(double, range(5)))
    return text(start_response, await_(all_of_them()))

def view_many(environ, start_response):
    return text(start_response, sum(await_(asyncio.sleep(0, number)) for number in range(500)))

def view_exception(environ, start_response):
    try:
        await_(fails_inside_the_coroutine())
    except LookupError as error:
        return text(start_response, "caught", error)

def line_in_the_view(environ, start_response):
    return await_(fails_inside_the_coroutine())

view_traceback = line_in_the_view

def view_timeout(environ, start_response):
    cancelled = []
    async def slow():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append("cancelled")
            raise
    began = LOOP.time()
    try:
        await_(slow(), timeout=0.05)
    except TimeoutError as error:
        waited = LOOP.time() - began
        await_(asyncio.sleep(0))
        return text(start_response, 0.04 < waited, *cancelled, str(error) != "")

def view_timeout_0(environ, start_response):
    try:
        await_(asyncio.sleep(3600), timeout=0)
    except TimeoutError:
        return text(start_response, "timed out")

def view_in_time(environ, start_response):
    return text(start_response, await_(double(1), timeout=60))

def view_own_timeout_error(environ, start_response):
    async def own():
        raise TimeoutError("the coroutine's own")
    try:
        await_(own(), timeout=60)
    except TimeoutError as error:
        return text(start_response, error)

def view_timeout_swallowed(environ, start_response):
    async def stubborn():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "result all the same"
    try:
        return text(start_response, await_(stubborn(), timeout=0.01))
    except TimeoutError:
        return text(start_response, "timed out")

def view_cancelled(environ, start_response):
    task = asyncio.Task(asyncio.sleep(3600))
    LOOP.call_soon(task.cancel)
    try:
        await_(task)
    except asyncio.CancelledError:
        return text(start_response, "CancelledError")

def view_not_awaitable(environ, start_response):
    try:
        await_(17)
    except TypeError as error:
        return text(start_response, error)

def view_context(environ, start_response):
    async def set_it():
        seen = VAR.get()
        await asyncio.sleep(0.001)
        VAR.set("from the coroutine")
        return seen
    VAR.set("from the view")
    seen = await_(set_it())
    return text(start_response, seen, "/", VAR.get())

def view_context_of_spawn(environ, start_response):
    async def set_it():
        VAR.set("from the spawned one")
    VAR.set("before")
    await_(spawn(set_it()))
    return text(start_response, VAR.get())

def view_spawn(environ, start_response):
    one, two = spawn(double(1)), spawn(double(2))
    return text(start_response, await_(two), await_(one), isinstance(one, asyncio.Task))

def view_spawn_and_leave(environ, start_response):
    name = environ["QUERY_STRING"]
    async def afterwards():
        await asyncio.sleep(0.01)
        say(f"spawned {name} ran on.")
    spawn(afterwards())
    return text(start_response, "left")

def view_spawn_fails(environ, start_response):
    task = spawn(fails_inside_the_coroutine())
    try:
        await_(task)
    except LookupError as error:
        return text(start_response, error)

def view_sleep(environ, start_response):
    began = time.monotonic()
    returned = sleep(0.05)
    return text(start_response, 0.049 <= time.monotonic() - began, returned, sleep(0), sleep(-1))

def view_sleep_gate(environ, start_response):
    name = environ["QUERY_STRING"]
    LOOP.call_soon(say, f"at gate {name}.")
    sleep(0.2)
    return text(start_response, "slept")

def view_to_thread(environ, start_response):
    VAR.set("the view's")
    def work(a, *, b):
        time.sleep(0.01)
        return a + b, VAR.get(), threading.current_thread() is not threading.main_thread(), in_core()
    return text(start_response, *to_thread(work, 1, b=2))

def view_to_thread_fails(environ, start_response):
    try:
        to_thread(int, "x")
    except ValueError as error:
        return text(start_response, error)

def view_in_core(environ, start_response):
    me = greenlet.getcurrent()
    seen = {"view": in_core()}
    async def coroutine():
        seen["coroutine"] = in_core()
    await_(coroutine())
    def callback():
        seen["callback"] = in_core()
        me.switch()
    LOOP.call_soon(callback)
    me.parent.switch()
    seen["thread"] = to_thread(in_core)
    return text(start_response, *seen.items())

def view_in_body(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        yield str(in_core()).encode()
        yield await_(asyncio.sleep(0.001, b" awaited"))
    finally:
        say(f"close awaits {await_(asyncio.sleep(0.001, 'too'))}.")

def misuse(where):
    """await_ where there is no core: what it says, and that the coroutine was closed."""
    coroutine = double(1)
    try:
        await_(coroutine)
    except RuntimeError as error:
        return f"{type(error).__name__}: {error} [closed: {coroutine.cr_frame is None}]"
    return f"{where} got through"

def view_misuse(environ, start_response):
    me = greenlet.getcurrent()
    async def coroutine():
        return misuse("coroutine")
    said = [await_(coroutine())]
    LOOP.call_soon(lambda: me.switch(misuse("callback")))
    said.append(me.parent.switch())
    said.append(to_thread(misuse, "thread"))
    return text(start_response, "\\n".join(said))

def view_misuse_in_child(environ, start_response):
    coroutine = double(1)
    def work():
        try:
            return await_(coroutine)
        except RuntimeError as error:
            return f"{error} [closed: {coroutine.cr_frame is None}]"
    answer = greenlet.greenlet(work).switch()
    return text(start_response, answer)

def view_sleep_in_child(environ, start_response):
    def work():
        try:
            return sleep(0.001)
        except RuntimeError as error:
            return f"{error}"
    return text(start_response, greenlet.greenlet(work).switch())

def view_await_gate(environ, start_response):
    return text(start_response, await_(future_gate(environ["QUERY_STRING"])))

def view_disconnect(environ, start_response):
    name = environ["QUERY_STRING"]
    async def awaited():
        say(f"at gate {name}.")
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            say(f"awaited {name}: finally.")
    try:
        await_(awaited(), timeout=3600)
    finally:
        say(f"view {name}: finally.")
'''
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("bridge"), VIEWS, "--asyncio", "4", "--loop", request.param) as server:
        yield server


@pytest.mark.parametrize(
    "view, answer",
    [
        ("result", "42"),
        ("no_wait", "at once"),
        ("awaitable", "an awaitable object"),
        ("future", "a future's"),
        ("done_future", "done already done already"),
        ("task", "8"),
        ("gather", "[0, 2, 4, 6, 8]"),
        ("many", "124750"),
        ("exception", "caught the coroutine's own error"),
        ("timeout", "True cancelled True"),
        ("timeout_0", "timed out"),
        ("in_time", "2"),
        ("own_timeout_error", "the coroutine's own"),
        ("cancelled", "CancelledError"),
        ("context", "from the view / from the coroutine"),
        ("context_of_spawn", "from the spawned one"),
        ("spawn", "4 2 True"),
        ("spawn_fails", "the coroutine's own error"),
        ("sleep", "True None None None"),
        ("to_thread", "3 the view's True False"),
        ("to_thread_fails", "invalid literal for int() with base 10: 'x'"),
        ("in_core", "('view', True) ('coroutine', False) ('callback', False) ('thread', False)"),
    ],
)
@pytest.mark.parametrize("kind", ["uwsgi", "http"])
def test_the_bridge_gives_the_view_what_await_would(server, kind, view, answer):
    reply = server.get("/" + view, kind)
    assert (reply.status, reply.body.decode()) == (200, answer)


def test_a_coroutine_that_swallows_its_cancellation_ends_the_wait(server):
    assert server.get("/timeout_swallowed", "uwsgi").body in (b"timed out", b"result all the same")


def test_the_traceback_of_an_error_shows_the_view_and_the_coroutine(server):
    start = len(server.log.lines)
    assert server.get("/traceback", "uwsgi").status == 500
    server.log.wait_for("LookupError: ", start=start)
    text = "\n".join(server.log.lines[start:])
    assert "in line_in_the_view" in text
    assert "in fails_inside_the_coroutine" in text


def test_something_that_cannot_be_awaited_is_a_type_error_that_says_what_came(server):
    assert b"int" in server.get("/not_awaitable", "uwsgi").body


def test_other_requests_are_served_while_one_awaits_or_sleeps(server):
    name, other = unique(), unique()
    waiting = begin(server, f"/await_gate?{name}", "uwsgi")
    at_gate(server, name)
    sleeping = begin(server, f"/sleep_gate?{other}", "uwsgi")
    at_gate(server, other)
    for _ in range(5):
        assert server.get("/result").body == b"42"
    open_gate(server, name, "awaited")
    assert finish(waiting).body == b"awaited"
    assert finish(sleeping).body == b"slept"


def test_a_spawned_coroutine_outlives_its_request(server):
    name = unique()
    assert server.get(f"/spawn_and_leave?{name}", "uwsgi").body == b"left"
    server.log.wait_for(f"spawned {name} ran on.")


def test_an_iterator_and_its_close_may_await(server):
    start = len(server.log.lines)
    assert server.get("/in_body", "uwsgi").body == b"True awaited"
    server.log.wait_for("close awaits too.", start=start)


def test_outside_a_core_the_error_says_what_to_do_and_the_coroutine_is_closed(server):
    lines = server.get("/misuse", "uwsgi").body.decode().split("\n")
    assert len(lines) == 3
    for line in lines:
        assert "await_" in line
        assert "view" in line  # where to call it from
        assert line.endswith("[closed: True]")


@pytest.mark.parametrize("view", ["misuse_in_child", "sleep_in_child"])
def test_in_a_child_greenlet_the_error_is_clear_and_the_request_goes_on(server, view):
    start = len(server.log.lines)
    reply = server.get("/" + view, "uwsgi")
    assert reply.status == 200
    assert b"child greenlet" in reply.body
    if view == "misuse_in_child":
        assert reply.body.endswith(b"[closed: True]")
    assert server.get("/result").body == b"42"
    assert not any("never awaited" in line or "was destroyed" in line for line in server.log.lines[start:])


@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
def test_a_client_that_goes_away_cancels_what_is_awaited_and_unwinds_the_view(server, kind):
    for _ in range(6):  # more often than there are cores
        name = unique()
        sock = begin(server, f"/disconnect?{name}", kind)
        at_gate(server, name)
        sock.close()
        server.log.wait_for(f"view {name}: finally.")
        server.log.wait_for(f"awaited {name}: finally.")
    assert server.get("/result").body == b"42"


def test_nothing_was_left_unawaited_or_unretrieved(server):
    assert tell(server, "__import__('gc').collect() >= 0") == "True"
    text = server.log.text()
    for word in ("never awaited", "never retrieved", "was destroyed but it is pending", "Exception in callback"):
        assert word not in text


# -- without a server ---------------------------------------------------------------------------------------------


def script(source: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "server")]))
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", source],
        env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "call", ["await_(coroutine())", "spawn(coroutine())", "sleep(0)", "to_thread(int)", "await_(Future())"]
)
def test_in_a_script_each_call_says_that_it_needs_a_core(call):
    source = f"""
import asyncio
from corelet import await_, spawn, sleep, to_thread, in_core
async def coroutine(): pass
def Future(): return asyncio.new_event_loop().create_future()
assert in_core() is False
try:
    {call}
except RuntimeError as error:
    print(error)
"""
    done = script(source)
    assert done.returncode == 0, done.stderr
    assert call.partition("(")[0] in done.stdout
    assert "core" in done.stdout
    assert "never awaited" not in done.stderr


def test_in_a_coroutine_under_asyncio_run_it_says_that_it_needs_a_core():
    done = script(
        "import asyncio, corelet\n"
        "corelet.in_core()\n"  # loads the bridge: not in a coroutine, whose time asyncio's debug mode takes
        "async def main():\n"
        "    try: corelet.await_(asyncio.sleep(0))\n"
        "    except RuntimeError as error: print(error)\n"
        "asyncio.run(main())\n"
    )
    assert (done.returncode, "await" in done.stdout, done.stderr) == (0, True, "")


def test_importing_corelet_does_not_take_a_second_or_start_anything():
    began = time.monotonic()
    done = script("import corelet, threading; print(corelet.in_core(), threading.active_count())")
    assert (done.stdout, done.stderr) == ("False 1\n", "")
    assert time.monotonic() - began < PATIENCE_SECONDS
