"""Locks that suspend a core: among cores, with a thread, with time limits, and when a waiter is unwound."""

from __future__ import annotations

import pytest
from harness import running
from stage import PRELUDE, at_gate, begin, finish, nothing_is_left, open_gate, tell, unique

VIEWS = (
    PRELUDE
    + '''
import corelet
from corelet.api.locks import CoreCondition, CoreLock, CoreRLock

LOCKS = {"lock": CoreLock(), "rlock": CoreRLock()}
LOG = []

def view_holds(environ, start_response):
    kind, name = environ["QUERY_STRING"].split(",")
    with LOCKS[kind]:
        LOG.append(f"in {name}")
        corelet.await_(future_gate(name))
        LOG.append(f"out {name}")
    return text(start_response, name)

def view_wants(environ, start_response):
    kind, name = environ["QUERY_STRING"].split(",")
    say(f"wants {name}.")
    try:
        with LOCKS[kind]:
            LOG.append(f"in {name}")
            corelet.sleep(0)
            LOG.append(f"out {name}")
        return text(start_response, name)
    except BaseException as error:
        say(f"{name}: {type(error).__name__}.")
        raise

def view_tries(environ, start_response):
    lock = LOCKS[environ["QUERY_STRING"]]
    began = time.monotonic()
    timed = lock.acquire(timeout=0.05)
    waited = time.monotonic() - began >= 0.04
    try:
        with corelet.timeout(0.05):
            lock.acquire()
        limited = False
    except TimeoutError:
        limited = True
    return text(start_response, lock.acquire(False), timed, waited, limited)

def view_again(environ, start_response):
    lock = LOCKS["rlock"]
    with lock, lock:
        corelet.sleep(0)
    try:
        lock.release()
    except RuntimeError as error:
        return text(start_response, error)

def view_thread(environ, start_response):
    """A thread holds it, a core waits; then the other way round."""
    lock, started, go = CoreLock(), threading.Event(), threading.Event()
    def hold():
        with lock:
            started.set()
            go.wait(20)
    held = corelet.spawn(asyncio.to_thread(hold))
    corelet.to_thread(started.wait, 20)
    LOOP.call_later(0.02, go.set)
    with lock:
        first = "core after thread"
        other = corelet.spawn(asyncio.to_thread(lock.acquire))
        corelet.sleep(0.02)
        second = not other.done()
    third = corelet.await_(other)
    corelet.await_(held)
    return text(start_response, first, second, third)

def view_condition(environ, start_response):
    condition, said = CoreCondition(), []
    async def notify():
        def work():
            with condition:
                said.append("ready")
                condition.notify()
        await asyncio.sleep(0.01)
        await asyncio.to_thread(work)
    corelet.spawn(notify())
    with condition:
        came = condition.wait_for(lambda: said, timeout=20)
        late = condition.wait(timeout=0.01)
    return text(start_response, came, late)
'''
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("locks"), VIEWS, "--asyncio", "8", "--loop", request.param) as server:
        yield server
        nothing_is_left(server)


kinds = pytest.mark.parametrize("kind", ["lock", "rlock"])


@kinds
def test_requests_get_it_one_by_one_in_their_order_and_the_worker_serves_on(server, kind):
    holder, wanters = unique(), [unique() for _ in range(4)]
    first = begin(server, f"/holds?{kind},{holder}", "uwsgi")
    at_gate(server, holder)
    waiting = []
    for name in wanters:
        waiting.append(begin(server, f"/wants?{kind},{name}", "uwsgi"))
        server.log.wait_for(f"wants {name}.")
    assert server.get("/hello").body == b"hello"
    open_gate(server, holder)
    assert [finish(sock).body.decode() for sock in [first, *waiting]] == [holder, *wanters]
    log = tell(server, "LOG[-10:]")
    assert log == repr([f"{way} {name}" for name in [holder, *wanters] for way in ("in", "out")])


@kinds
def test_a_request_that_is_unwound_while_it_waits_takes_nobodys_turn(server, kind):
    holder, gone, next_one = unique(), unique(), unique()
    first = begin(server, f"/holds?{kind},{holder}", "uwsgi")
    at_gate(server, holder)
    leaving = begin(server, f"/wants?{kind},{gone}", "uwsgi")
    server.log.wait_for(f"wants {gone}.")
    waiting = begin(server, f"/wants?{kind},{next_one}", "uwsgi")
    server.log.wait_for(f"wants {next_one}.")
    leaving.close()
    server.log.wait_for(f"{gone}: ClientDisconnected.")
    open_gate(server, holder)
    assert finish(first).body.decode() == holder
    assert finish(waiting).body.decode() == next_one


@kinds
def test_time_limits_of_both_kinds_hold(server, kind):
    holder = unique()
    first = begin(server, f"/holds?{kind},{holder}", "uwsgi")
    at_gate(server, holder)
    assert server.get(f"/tries?{kind}", "uwsgi").body == b"False False True True"
    open_gate(server, holder)
    finish(first)


def test_an_rlock_is_its_cores_own(server):
    assert server.get("/again", "uwsgi").body == b"cannot release un-acquired lock"


def test_it_works_between_cores_and_threads(server):
    assert server.get("/thread", "uwsgi").body == b"core after thread True True"


def test_a_condition_suspends_its_core(server):
    assert server.get("/condition", "uwsgi").body == b"['ready'] False"
