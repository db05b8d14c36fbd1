"""What is held across a wait: asyncio's primitives suspend the request, those of threading do not know requests."""

from __future__ import annotations

import signal

import pytest
from harness import PATIENCE_SECONDS, running
from stage import PRELUDE, at_gate, begin, finish, open_gate, tell, unique

VIEWS = (
    PRELUDE
    + """
import corelet, queue

ASYNC_LOCK = asyncio.Lock()
RLOCK = threading.RLock()
LOCK = threading.Lock()
QUEUE = queue.Queue()
EVENT = threading.Event()
MAY_END = threading.Event()
THREAD = threading.Thread(target=MAY_END.wait, daemon=True)
THREAD.start()
INSIDE = []

@contextlib.contextmanager
def inside(name):
    INSIDE.append(name)
    say(f"{name} with {len(INSIDE)} inside.")
    try:
        gate(name)
        yield
    finally:
        INSIDE.remove(name)

def view_asyncio_lock(environ, start_response):
    name = environ["QUERY_STRING"]
    say(f"{name} asks.")
    corelet.await_(ASYNC_LOCK.acquire())
    try:
        with inside(name):
            return text(start_response, "had it")
    finally:
        ASYNC_LOCK.release()

def view_rlock(environ, start_response):
    with RLOCK, inside(environ["QUERY_STRING"]):
        return text(start_response, "had it")

def view_hold(environ, start_response):
    with LOCK:
        gate("hold")
    return text(start_response, "released")

# Each waits a second at most, for what the loop would do at its next turn.
def wait_for_lock():
    return LOCK.acquire(timeout=1)

def wait_for_event():
    LOOP.call_soon(EVENT.set)
    return EVENT.wait(1)

def wait_for_queue():
    LOOP.call_soon(QUEUE.put, True)
    try:
        return QUEUE.get(timeout=1)
    except queue.Empty:
        return False

def wait_for_thread():
    LOOP.call_soon(MAY_END.set)
    THREAD.join(1)
    return not THREAD.is_alive()

def view_in_vain(environ, start_response):
    what = environ["QUERY_STRING"]
    say(f"{what} waits.")
    result = globals()["wait_for_" + what]()
    say(f"{what} got {result}.")
    return text(start_response, result)

def view_released_before(environ, start_response):
    with LOCK:
        say("had it")
    gate(environ["QUERY_STRING"])
    return text(start_response, "waited without it")
"""
)


@pytest.fixture
def server(tmp_path):
    with running(tmp_path, VIEWS, "--asyncio", "4") as server:
        yield server


def test_an_asyncio_lock_excludes_and_suspends_only_the_requests_that_want_it(server):
    names = [unique("lock") for _ in range(3)]
    waiting = []
    for name in names:
        waiting.append(begin(server, f"/asyncio_lock?{name}", "uwsgi"))
        server.log.wait_for(f"{name} asks.")
    for name, sock in zip(names, waiting, strict=True):  # in the order in which they asked
        assert server.get("/hello").body == b"hello"
        assert server.log.wait_for(f"{name} with") == f"{name} with 1 inside."
        open_gate(server, name)
        assert finish(sock).body == b"had it"


def test_a_request_that_is_unwound_leaves_its_asyncio_lock_to_the_next(server):
    names = [unique("lock") for _ in range(3)]
    holder, waiter, last = [begin(server, f"/asyncio_lock?{name}", "uwsgi") for name in names]
    for name in names:
        server.log.wait_for(f"{name} asks.")
    at_gate(server, names[0])
    waiter.close()
    server.log.wait_for(f"?{names[1]}'): the client has gone; unwound")
    holder.close()
    open_gate(server, names[2])
    assert finish(last).body == b"had it"
    assert tell(server, "ASYNC_LOCK.locked(), INSIDE") == "(False, [])"


def test_a_threading_rlock_lets_every_request_in_since_all_are_one_thread(server):
    names = [unique("rlock") for _ in range(3)]
    waiting = []
    for number, name in enumerate(names, 1):
        waiting.append(begin(server, f"/rlock?{name}", "uwsgi"))
        assert server.log.wait_for(f"{name} with") == f"{name} with {number} inside."
    for name, sock in zip(names, waiting, strict=True):
        open_gate(server, name)
        assert finish(sock).body == b"had it"


def test_a_threading_lock_held_across_a_wait_stops_the_worker_its_signals_included(server):
    holder = begin(server, "/hold", "uwsgi")
    at_gate(server, "hold")
    wanting = begin(server, "/in_vain?lock", "uwsgi")
    server.log.wait_for("lock waits.")
    other = begin(server, "/hello", "uwsgi")
    server.process.send_signal(signal.SIGTERM)
    assert finish(wanting).body == b"False"
    assert finish(other).body == b"hello"
    open_gate(server, "hold")
    assert finish(holder).body == b"released"
    assert server.process.wait(PATIENCE_SECONDS) == 0
    server.log.join()
    lines = server.log.lines
    assert lines.index("lock got False.") < next(n for n, line in enumerate(lines) if "SIGTERM" in line)


@pytest.mark.parametrize("what", ["event", "queue", "thread"])
def test_other_waits_of_threading_block_the_worker_as_well(server, what):
    assert server.get(f"/in_vain?{what}").body == b"False"


def test_a_lock_that_is_released_before_the_view_waits_is_safe(server):
    names = [unique("free") for _ in range(3)]
    waiting = [begin(server, f"/released_before?{name}", "uwsgi") for name in names]
    for name in names:
        at_gate(server, name)
    for name, sock in zip(names, waiting, strict=True):
        open_gate(server, name)
        assert finish(sock).body == b"waited without it"
