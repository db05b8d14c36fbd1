"""gather, timeout, spawn's at_end, current_request: from the view's side, and what the log says."""

from __future__ import annotations

import re

import pytest
from harness import running
from stage import PRELUDE, at_gate, begin, finish, nothing_is_left, open_gate, packet, tell, unique

VIEWS = (
    PRELUDE
    + '''
import corelet
from corelet import await_, current_request, gather, in_core, sleep, spawn, timeout, to_thread

VAR = contextvars.ContextVar("VAR", default="unset")

async def later(value, seconds=0.001):
    await asyncio.sleep(seconds)
    return value

async def fails(text="failed", seconds=0):
    await asyncio.sleep(seconds)
    raise LookupError(text)

def waits_forever(seen, name="it"):
    async def wait():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            seen.append(name)
    return wait()

def view_gather(environ, start_response):
    return text(start_response, gather(later(1, 0.02), later(2), LOOP.create_task(later(3))), gather())

def view_gather_fails(environ, start_response):
    seen = []
    try:
        gather(waits_forever(seen, "one"), fails(), waits_forever(seen, "two"))
    except LookupError as error:
        return text(start_response, error, sorted(seen))

def view_gather_returns_exceptions(environ, start_response):
    return text(start_response, gather(later(1), fails(), return_exceptions=True))

def view_gather_two_fail(environ, start_response):
    try:
        gather(fails("first"), fails("second"))
    except LookupError as error:
        return text(start_response, error)

def view_gather_sets(environ, start_response):
    async def set_it():
        VAR.set("set")
    gather(set_it(), later(1))
    return text(start_response, VAR.get())

def view_gather_nothing_awaitable(environ, start_response):
    try:
        gather(later(1), 17)
    except TypeError as error:
        return text(start_response, error)

def view_gather_gone(environ, start_response):
    name = environ["QUERY_STRING"]
    async def wait():
        try:
            await asyncio.sleep(3600)
        finally:
            say(f"gathered {name}: finally.")
    LOOP.call_later(0.01, say, f"at gate {name}.")
    try:
        gather(wait(), later(1))
    finally:
        say(f"view {name}: finally.")

# -- timeout

def outcome(function):
    """What leaves a block, and how long it took, in tenths of a second."""
    began = time.monotonic()
    try:
        result = function()
    except TimeoutError as error:
        result = "TimeoutError"
    return f"{result} after {int((time.monotonic() - began + 0.002) * 10)}"  # uvloop has milliseconds

def in_await():
    with timeout(0.1):
        await_(asyncio.sleep(3600))

def in_sleep():
    with timeout(0.1):
        sleep(3600)

def in_gather():
    with timeout(0.1):
        gather(asyncio.sleep(3600), asyncio.sleep(3600))

def in_to_thread():
    event = threading.Event()
    try:
        with timeout(0.1):
            to_thread(event.wait, 5)
    finally:
        event.set()

def in_switch_with_awaitable():
    with timeout(0.1):
        greenlet.getcurrent().parent.switch(asyncio.sleep(3600))

def in_time():
    with timeout(60) as limit:
        return await_(later("result")) + f" {limit.expired}"

def none():
    with timeout(None):
        return await_(later("result"))

def at_once():
    with timeout(0):
        sleep(3600)

def inner():
    with timeout(60):
        try:
            with timeout(0.1):
                sleep(3600)
        except TimeoutError:
            return "inner"

def outer():
    try:
        with timeout(0.1):
            try:
                with timeout(60):
                    sleep(3600)
            except TimeoutError:
                return "wrong"
    except TimeoutError:
        return "outer"

def both():
    try:
        with timeout(0.1):
            try:
                with timeout(0.1):
                    time.sleep(0.15)  # nothing is told while it computes
                    sleep(3600)
            except TimeoutError:
                return "the inner one first"
    except TimeoutError:
        return "the outer one"

def not_swallowed():
    with timeout(0.1):
        while True:
            try:
                sleep(3600)
            except Exception:
                pass

def finally_may_wait():
    try:
        with timeout(0.1):
            try:
                sleep(3600)
            finally:
                say("cleaned up:", await_(later("yes", 0.01)))
    except TimeoutError:
        return "cleaned up"

def computing_is_told_at_its_next_wait():
    with timeout(0.05):
        time.sleep(0.1)
        LOOP.call_soon(greenlet.getcurrent().switch)
        greenlet.getcurrent().parent.switch()  # not a wait of the API's: nothing is told
        said = "computed"
        sleep(3600)

def over_without_a_wait():
    with timeout(0.05):
        time.sleep(0.1)
    sleep(0)
    return "nothing"

def cancels_what_was_awaited():
    seen = []
    try:
        with timeout(0.1):
            await_(waits_forever(seen))
    except TimeoutError:
        sleep(0.01)
        return seen

def own_cancellation():
    task = spawn(asyncio.sleep(3600))
    LOOP.call_soon(task.cancel)
    try:
        with timeout(60):
            await_(task)
    except asyncio.CancelledError:
        return "CancelledError"

def view_timeout(environ, start_response):
    return text(start_response, outcome(globals()[environ["QUERY_STRING"]]))

def view_stream_in_timeout(environ, start_response):
    """A client that reads slowly: the time passes in the server's own write, and is told in the next wait."""
    name = environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    LOOP.call_later(0.4, say, f"at gate {name}.")
    try:
        with timeout(0.2):
            yield b"x" * 10_000_000
            say(f"stream {name}: written.")
            sleep(3600)
    except TimeoutError:
        yield b"TimeoutError"

def view_timeout_twice(environ, start_response):
    limit = timeout(1)
    with limit:
        pass
    try:
        with limit:
            pass
    except RuntimeError as error:
        return text(start_response, error)

# -- spawn

def spawning(environ, start_response, at_end):
    name = environ["QUERY_STRING"]
    async def background():
        say(f"spawned {name} began.")
        try:
            await future_gate(name)
            say(f"spawned {name} finished.")
        except asyncio.CancelledError:
            say(f"spawned {name} was cancelled.")
            raise
    spawn(background(), at_end=at_end)
    sleep(0.001)
    return text(start_response, "left")

def view_finish(environ, start_response):
    return spawning(environ, start_response, "finish")

def view_cancel(environ, start_response):
    return spawning(environ, start_response, "cancel")

def view_report(environ, start_response):
    return spawning(environ, start_response, "report")

def view_at_end_is_checked(environ, start_response):
    try:
        spawn(later(1), at_end="forget")
    except ValueError as error:
        return text(start_response, error)

def view_spawn_fails(environ, start_response):
    spawn(fails(environ["QUERY_STRING"]))
    sleep(0.001)
    return text(start_response, "left")

def view_spawn_fails_later(environ, start_response):
    spawn(fails(environ["QUERY_STRING"], 0.02))
    return text(start_response, "left")

def view_spawn_taken(environ, start_response):
    task = spawn(fails(environ["QUERY_STRING"]))
    try:
        await_(task)
    except LookupError as error:
        return text(start_response, error)

def view_spawn_cancelled(environ, start_response):
    task = spawn(asyncio.sleep(3600))
    sleep(0)
    task.cancel()
    try:
        await_(task)
    except asyncio.CancelledError:
        return text(start_response, "CancelledError")

# -- current_request

def view_request(environ, start_response):
    request = current_request()
    sleep(0.01)
    try:
        request.path = "/other"
        frozen = False
    except AttributeError:
        frozen = True
    return text(start_response, request.environ is environ, request.core == environ["uwsgi.core"], request.worker,
                request.method, request.path, 0.005 <= request.seconds < 10, request.client_is_there, frozen)

def view_request_in_child(environ, start_response):
    return text(start_response, greenlet.greenlet(lambda: current_request().path).switch())

def view_request_misuse(environ, start_response):
    async def coroutine():
        try:
            current_request()
        except RuntimeError as error:
            return str(error)
    return text(start_response, await_(coroutine()))

KEPT = []

def view_request_kept(environ, start_response):
    KEPT.append(current_request())
    return text(start_response, "kept")

def view_client_is_there(environ, start_response):
    name = environ["QUERY_STRING"]
    request = current_request()
    say(f"{name} is there: {request.client_is_there}.")
    until = time.monotonic() + 20
    while request.client_is_there and time.monotonic() < until:
        time.sleep(0.001)  # it computes: the loop sees nothing
    say(f"{name} is there: {request.client_is_there}.")
    return text(start_response, "nobody reads this")

# -- other things that must hold

def view_other_loop(environ, start_response):
    other = asyncio.SelectorEventLoop()
    try:
        await_(other.create_future())
    except RuntimeError as error:
        return text(start_response, error)
    finally:
        other.close()

def view_inside_context_run(environ, start_response):
    async def set_it():
        await asyncio.sleep(0)
        VAR.set("from the coroutine")
    def inside():
        VAR.set("inside")
        await_(set_it())
        await_(spawn(later(1)))
        greenlet.getcurrent().parent.switch(asyncio.sleep(0))
        return VAR.get(), gather(later(1), later(2))
    context = contextvars.copy_context()
    return text(start_response, *context.run(inside), VAR.get())

def view_exits(environ, start_response):
    async def exits():
        await asyncio.sleep(0)
        sys.exit(3)
    await_(exits())

def view_spawn_exits(environ, start_response):
    async def exits():
        sys.exit(3)
    spawn(exits())
    sleep(0.001)
    return text(start_response, "left")

def view_stale(environ, start_response):
    """Wake-ups that are left from waits that are over end no other wait."""
    for _ in range(50):
        try:
            with timeout(0.0005):
                sleep(0.0006)
        except TimeoutError:
            pass
        try:
            await_(asyncio.sleep(0.0005), timeout=0.0004)
        except TimeoutError:
            pass
    began = time.monotonic()
    value = greenlet.getcurrent().parent.switch(later("awaited", 0.1))
    return text(start_response, value, time.monotonic() - began >= 0.09)
'''
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("calls"), VIEWS, "--asyncio", "4", "--loop", request.param) as server:
        yield server
        nothing_is_left(server)


@pytest.mark.parametrize(
    "view, answer",
    [
        ("gather", "[1, 2, 3] []"),
        ("gather_fails", "failed ['one', 'two']"),
        ("gather_returns_exceptions", "[1, LookupError('failed')]"),
        ("gather_two_fail", "first"),
        ("gather_sets", "set"),
        ("gather_nothing_awaitable", "await_() is to be given an awaitable, a int came"),
        ("at_end_is_checked", "at_end is finish, cancel or report; 'forget' came"),
        ("spawn_taken?nobody", "nobody"),
        ("spawn_cancelled", "CancelledError"),
        ("timeout_twice", "this timeout was entered before: make a new one for each block"),
        ("request", "True True 1 GET /request True True True"),
        ("request_in_child", "/request_in_child"),
        ("inside_context_run", "from the coroutine [1, 2] unset"),
        ("stale", "awaited True"),
    ],
)
def test_the_calls_of_the_bridge_answer(server, view, answer):
    for kind in ("uwsgi", "http"):
        reply = server.get("/" + view, kind)
        assert (reply.status, reply.body.decode()) == (200, answer)


@pytest.mark.parametrize(
    "block, answer",
    [
        ("in_await", "TimeoutError after 1"),
        ("in_sleep", "TimeoutError after 1"),
        ("in_gather", "TimeoutError after 1"),
        ("in_to_thread", "TimeoutError after 1"),
        ("in_switch_with_awaitable", "TimeoutError after 1"),
        ("in_time", "result False after 0"),
        ("none", "result after 0"),
        ("at_once", "TimeoutError after 0"),
        ("inner", "inner after 1"),
        ("outer", "outer after 1"),
        ("both", "the outer one after 1"),
        ("not_swallowed", "TimeoutError after 1"),
        ("finally_may_wait", "cleaned up after 1"),
        ("computing_is_told_at_its_next_wait", "TimeoutError after 1"),
        ("over_without_a_wait", "nothing after 1"),
        ("cancels_what_was_awaited", "['it'] after 1"),
        ("own_cancellation", "CancelledError after 0"),
    ],
)
def test_a_timeout_ends_the_wait_in_its_block_and_no_other(server, block, answer):
    said, _, tenths = server.get(f"/timeout?{block}", "uwsgi").body.decode().rpartition(" after ")
    expected, _, least = answer.rpartition(" after ")
    assert said == expected
    assert int(least) <= int(tenths) < 50


def test_a_timeout_does_not_fire_in_the_servers_own_write(server):
    name = unique()
    sock = begin(server, f"/stream_in_timeout?{name}", "uwsgi")
    at_gate(server, name)  # the time has passed, and the reply is not written
    assert server.log.count(f"stream {name}: written.") == 0
    reply = finish(sock)
    assert len(reply.body) == 10_000_000 + len(b"TimeoutError")
    assert server.log.count(f"stream {name}: written.") == 1


def test_a_client_that_goes_away_cancels_all_that_is_gathered(server):
    name = unique()
    sock = begin(server, f"/gather_gone?{name}", "uwsgi")
    at_gate(server, name)
    sock.close()
    server.log.wait_for(f"view {name}: finally.")
    server.log.wait_for(f"gathered {name}: finally.")


def test_what_is_spawned_finishes_after_its_request(server):
    name = unique()
    assert server.get(f"/finish?{name}", "uwsgi").body == b"left"
    open_gate(server, name, "done")
    server.log.wait_for(f"spawned {name} finished.")


def test_what_is_spawned_is_cancelled_with_its_request_if_it_was_asked_for(server):
    name = unique()
    assert server.get(f"/cancel?{name}", "uwsgi").body == b"left"
    server.log.wait_for(f"spawned {name} was cancelled.")


def test_what_is_spawned_is_reported_with_its_request_and_its_place_and_goes_on(server):
    name = unique()
    assert server.get(f"/report?{name}", "uwsgi").body == b"left"
    line = server.log.wait_for("which it spawned, still runs")
    assert f"GET '/report?{name}'" in line or f"/report?{name}" in line
    assert re.search(
        r"spawning\.<locals>\.background, which it spawned, still runs, at \S+app\.py:\d+; it goes on", line
    )
    open_gate(server, name, "done")
    server.log.wait_for(f"spawned {name} finished.")


@pytest.mark.parametrize("view", ["spawn_fails", "spawn_fails_later"])
def test_an_exception_that_nobody_took_is_logged_once_with_its_request_and_traceback(server, view):
    name = unique("nobody")
    assert server.get(f"/{view}?{name}", "uwsgi").body == b"left"
    server.log.wait_for(f"LookupError: {name}")
    assert tell(server, "__import__('gc').collect() >= 0") == "True"
    text = server.log.text()
    assert text.count(f"LookupError: {name}") == 1
    line = next(line for line in server.log.lines if f"/{view}?{name}" in line and "nobody took its exception" in line)
    assert re.search(r"fails \(\S+app\.py:\d+\), which it spawned, failed", line)
    assert "never retrieved" not in text


def test_an_exception_that_somebody_took_is_not_logged(server):
    name = unique("taken")
    assert server.get(f"/spawn_taken?{name}", "uwsgi").body.decode() == name
    assert server.get("/hello").body == b"hello"
    assert server.log.count(f"LookupError: {name}") == 0


def test_outside_a_request_current_request_says_where_to_call_it(server):
    assert b"outside a request" in server.get("/request_misuse").body
    assert "outside a request" in tell(server, "corelet.current_request()")


def test_after_its_end_the_client_of_a_kept_request_counts_as_gone(server):
    assert server.get("/request_kept", "uwsgi").body == b"kept"
    assert tell(server, "KEPT.pop().client_is_there") == "False"


@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
def test_a_view_that_computes_can_ask_whether_its_client_is_there(server, kind):
    name = unique()
    sock = server.connect(kind)
    sock.sendall(packet(f"/client_is_there?{name}"))
    server.log.wait_for(f"{name} is there: True.")
    sock.close()
    server.log.wait_for(f"{name} is there: False.")


def test_a_future_of_another_loop_is_refused_with_what_to_do(server):
    body = server.get("/other_loop", "uwsgi").body
    assert b"belongs to another event loop" in body
    assert b"to_thread" in body


def test_sys_exit_in_a_coroutine_is_an_error_of_its_request_alone(server):
    name = unique()
    other = begin(server, f"/gate?{name}")
    at_gate(server, name)
    assert server.get("/exits", "uwsgi").status == 500
    assert server.get("/spawn_exits", "uwsgi").body == b"left"
    open_gate(server, name, "still there")
    assert finish(other).body.startswith(b"still there")


def test_a_worker_that_ends_lets_finish_what_requests_have_spawned(serve):
    server = serve(VIEWS, "--asyncio", "2")
    name = unique()
    assert server.get(f"/finish?{name}", "uwsgi").body == b"left"
    at_gate(server, name)
    server.process.terminate()
    server.log.wait_for("finishing 0 running requests")
    open_gate(server, name, "done")
    server.log.wait_for(f"spawned {name} finished.")
    assert server.process.wait(20) == 0
