"""The running loop is hidden from a core, so that asyncio.run and its kin work there; or shown, when asked for."""

from __future__ import annotations

import pytest
from harness import running
from stage import PRELUDE, Peer, at_gate, begin, finish, http_get, open_gate, pause, tell, unique

VIEWS = (
    PRELUDE
    + '''
import corelet

def running_loop():
    try:
        return "visible" if asyncio.get_running_loop() is LOOP else "another"
    except RuntimeError:
        return "hidden"

def view_running(environ, start_response):
    seen = [running_loop()]
    me = greenlet.getcurrent()
    LOOP.call_soon(me.switch)
    me.parent.switch()
    seen.append(running_loop())
    async def wake():
        me.switch()
    task = asyncio.Task(wake(), loop=LOOP)
    me.parent.switch()
    seen.append(running_loop())
    corelet.sleep(0)
    seen.append(running_loop())
    corelet.await_(asyncio.sleep(0.001))
    seen.append(running_loop())
    environ["wsgi.input"].read()
    seen.append(running_loop())
    return text(start_response, *seen)

class Body:
    def __iter__(self):
        yield running_loop().encode() + b" "
        corelet.sleep(0)
        yield running_loop().encode()
    def close(self):
        say("close:", running_loop())

def view_body(environ, start_response):
    start_response("200 OK", [])
    return Body()

def view_callback(environ, start_response):
    me = greenlet.getcurrent()
    LOOP.call_soon(lambda: me.switch(running_loop()))
    return text(start_response, me.parent.switch())

def view_after_switch(environ, start_response):
    """What a callback sees after it has been in the core."""
    me = greenlet.getcurrent()
    seen = []
    def wake():
        me.switch()
        seen.append(running_loop())
        me.switch()
    LOOP.call_soon(wake)
    me.parent.switch()
    me.parent.switch()
    return text(start_response, *seen)

async def answer():
    await asyncio.sleep(0.001)
    return asyncio.get_running_loop() is not LOOP

def view_asyncio_run(environ, start_response):
    return text(start_response, asyncio.run(answer()))

def view_async_to_sync(environ, start_response):
    from asgiref.sync import async_to_sync
    async def double(x):
        await asyncio.sleep(0.001)
        return 2 * x
    return text(start_response, async_to_sync(double)(21))

def view_loop_changed(environ, start_response):
    asyncio.set_event_loop(None)
    return text(start_response, "changed")

def view_new_loop(environ, start_response):
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gate(environ["QUERY_STRING"])
    return text(start_response, "changed")

def view_asyncio(environ, start_response):
    """What the mission's examples use, all of it without a running loop to be seen."""
    me = greenlet.getcurrent()
    future = asyncio.Future()
    async def coroutine():
        await asyncio.sleep(0.001)
        future.set_result("ok")
        me.switch()
    task = asyncio.Task(coroutine())
    me.parent.switch()
    same = asyncio.get_event_loop() is LOOP and future.get_loop() is LOOP and task.get_loop() is LOOP
    ensured = asyncio.ensure_future(asyncio.sleep(0.001, "ensured"))
    ensured.add_done_callback(lambda future: me.switch(future.result()))
    return text(start_response, future.result(), same, me.parent.switch())

def view_gate_then_asyncio(environ, start_response):
    gate(environ["QUERY_STRING"])
    return view_asyncio(environ, start_response)

def view_create_task(environ, start_response):
    me = greenlet.getcurrent()
    async def coroutine():
        me.switch("from create_task")
    task = asyncio.create_task(coroutine())
    return text(start_response, me.parent.switch(), asyncio.current_task())

def view_spawn(environ, start_response):
    return text(start_response, corelet.await_(corelet.spawn(asyncio.sleep(0.001, "spawned"))))
'''
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def hidden(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("hidden"), VIEWS, "--asyncio", "3", "--loop", request.param) as server:
        yield server


@pytest.fixture(scope="module")
def visible(tmp_path_factory):
    with running(tmp_path_factory.mktemp("visible"), VIEWS, "--asyncio", "3", "--running-loop", "visible") as server:
        yield server


def test_the_running_loop_is_hidden_however_the_core_was_entered(hidden):
    assert hidden.get("/running", "uwsgi").body == b"hidden hidden hidden hidden hidden hidden"
    assert hidden.get("/running", "uwsgi", "POST", b"abc").body == b"hidden hidden hidden hidden hidden hidden"


def test_the_running_loop_is_hidden_in_an_iterator_and_in_its_close(hidden):
    start = len(hidden.log.lines)
    assert hidden.get("/body", "uwsgi").body == b"hidden hidden"
    hidden.log.wait_for("close: hidden", start=start)


def test_callbacks_see_the_running_loop_before_and_after_they_have_been_in_a_core(hidden):
    assert hidden.get("/callback", "uwsgi").body == b"visible"
    assert hidden.get("/after_switch", "uwsgi").body == b"visible"


@pytest.mark.parametrize(
    "view, answer", [("asyncio_run", b"True"), ("async_to_sync", b"42"), ("loop_changed", b"changed")]
)
def test_a_view_with_a_loop_of_its_own_leaves_the_others_theirs(hidden, view, answer):
    names = [unique(), unique()]
    waiting = [begin(hidden, f"/gate_then_asyncio?{name}", "uwsgi") for name in names]
    for name in names:
        at_gate(hidden, name)
    assert hidden.get(f"/{view}", "uwsgi").body == answer
    assert hidden.get("/asyncio", "uwsgi").body == b"ok True ensured"
    assert tell(hidden, "asyncio.get_event_loop() is LOOP and asyncio.get_running_loop() is LOOP") == "True"
    for name in names:
        open_gate(hidden, name)
    assert [finish(sock).body for sock in waiting] == [b"ok True ensured"] * 2


@pytest.mark.parametrize("view", ["asyncio_run", "async_to_sync", "loop_changed"])
@pytest.mark.parametrize("kind", ["uwsgi", "http"])
def test_a_view_with_a_loop_of_its_own_leaves_theirs_to_requests_that_came_in_the_same_moment(hidden, view, kind):
    pause(hidden, 0.3)
    waiting = [begin(hidden, f"/{name}", kind) for name in (view, "asyncio", view)]
    assert [finish(sock).status for sock in waiting] == [200] * 3


@pytest.mark.parametrize("view", ["asyncio_run", "async_to_sync", "loop_changed"])
def test_a_view_with_a_loop_of_its_own_leaves_theirs_to_pipelined_requests(hidden, view):
    with Peer(hidden) as peer:
        peer.send(http_get(f"/{view}") + http_get("/asyncio") + http_get(f"/{view}") + http_get("/hello"))
        assert [peer.reply().status for _ in range(4)] == [200] * 4


@pytest.mark.parametrize("view", ["asyncio_run", "loop_changed"])
def test_a_view_with_a_loop_of_its_own_leaves_theirs_to_requests_woken_in_the_same_moment(hidden, view):
    name = unique()
    waiting = begin(hidden, f"/gate_then_asyncio?{name}", "uwsgi")
    at_gate(hidden, name)
    pause(hidden, 0.3)
    changing = begin(hidden, f"/{view}", "uwsgi")
    open_gate(hidden, name)
    assert finish(changing).status == 200
    assert finish(waiting).body == b"ok True ensured"


def test_a_view_that_set_another_loop_and_was_suspended_leaves_the_others_theirs(hidden):
    name = unique()
    waiting = begin(hidden, f"/new_loop?{name}", "uwsgi")
    at_gate(hidden, name)
    assert hidden.get("/asyncio", "uwsgi").body == b"ok True ensured"
    open_gate(hidden, name)
    assert finish(waiting).body == b"changed"
    assert hidden.get("/asyncio", "uwsgi").body == b"ok True ensured"


def test_spawn_needs_no_running_loop(hidden, visible):
    assert hidden.get("/spawn", "uwsgi").body == b"spawned"
    assert visible.get("/spawn", "uwsgi").body == b"spawned"


def test_running_loop_visible_shows_it_however_the_core_was_entered(visible):
    assert visible.get("/running", "uwsgi").body == b"visible visible visible visible visible visible"
    assert visible.get("/body", "uwsgi").body == b"visible visible"
    assert visible.get("/asyncio", "uwsgi").body == b"ok True ensured"


def test_running_loop_visible_makes_create_task_and_current_task_work(visible):
    assert visible.get("/create_task", "uwsgi").body == b"from create_task None"
