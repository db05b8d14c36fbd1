"""uwsgi.lock: among the cores of a worker in their order, and among workers; given back whatever happens."""

from __future__ import annotations

import os
import select
import signal

from harness import PATIENCE_SECONDS, running
from masters import await_end, gated
from stage import PRELUDE, begin, finish, open_gate, unique

VIEWS = """
import uwsgi

def view_hold(environ, start_response):
    uwsgi.lock(1)
    try:
        gate(environ["QUERY_STRING"])
    finally:
        uwsgi.unlock(1)
    return text(start_response, os.getpid())

def view_is_locked(environ, start_response):
    return text(start_response, uwsgi.is_locked(1))

def view_count(environ, start_response):
    uwsgi.lock()
    with open("count", "r+") as file:
        number = int(file.read() or 0)
        corelet.sleep(0.001)
        file.seek(0)
        file.write(str(number + 1))
    uwsgi.unlock()
    return text(start_response, os.getpid())
"""

ALONE = (
    PRELUDE
    + """
import uwsgi, corelet

uwsgi.lock(2)           # blocking is no matter while the application is imported
uwsgi.unlock(2)
ORDER = []

def view_hold(environ, start_response):
    name = environ["QUERY_STRING"]
    say(f"{name} wants it.")
    uwsgi.lock()
    ORDER.append(name)
    gate(name)
    if not name.startswith("forgets"):
        uwsgi.unlock()
    return text(start_response, *ORDER)

def view_harakiri(environ, start_response):
    uwsgi.lock(1)
    uwsgi.set_user_harakiri(0.05)
    corelet.sleep(60)

def view_is_locked(environ, start_response):
    return text(start_response, uwsgi.is_locked(1))

def view_fails(environ, start_response):
    uwsgi.lock(1)
    raise LookupError

def view_twice(environ, start_response):
    uwsgi.lock(1)
    try:
        uwsgi.lock(1)
    except RuntimeError as error:
        return text(start_response, error)

def view_callback(environ, start_response):
    uwsgi.lock(1)
    future = LOOP.create_future()
    def callback():
        try:
            uwsgi.lock(1)
        except Exception as error:
            future.set_result(error)
    LOOP.call_soon(callback)
    return text(start_response, corelet.await_(future))

def view_thread(environ, start_response):
    uwsgi.lock(1)
    def in_thread():
        uwsgi.lock(1)
        uwsgi.unlock(1)
        return "had it"
    task = LOOP.run_in_executor(None, in_thread)
    corelet.sleep(0.02)
    uwsgi.unlock(1)
    return text(start_response, corelet.await_(task))
"""
)


def test_cores_get_it_one_by_one_in_their_order_and_the_worker_goes_on(tmp_path):
    with running(tmp_path / "order", ALONE, "--locks", "2") as server:
        names = [unique(name) for name in ("a", "b", "c")]
        waiting = []
        for name in names:
            waiting.append(begin(server, f"/hold?{name}"))
            server.log.wait_for(f"{name} wants it.")
        assert server.get("/hello").body == b"hello"
        for number, (name, sock) in enumerate(zip(names, waiting, strict=True), 1):
            open_gate(server, name)
            assert finish(sock).body.decode().split()[:number] == names[:number]


def test_whatever_ends_a_request_gives_its_lock_back(tmp_path):
    with running(tmp_path / "ends", ALONE, "--locks", "2") as server:
        for view, status in (("harakiri", 504), ("fails", 500)):
            start = len(server.log.lines)
            assert server.get(f"/{view}").status == status
            assert server.get("/is_locked").body == b"False"
            server.log.wait_for("a request ended without unlocking: uwsgi.unlock(1) was done for it", start=start)


def test_a_lock_that_can_never_come_is_a_clear_error(tmp_path):
    with running(tmp_path / "errors", ALONE, "--locks", "2") as server:
        assert b"has this lock already" in server.get("/twice").body
        assert b"take the lock in a view, or in a thread" in server.get("/callback").body


def test_a_thread_waits_for_it_by_itself(tmp_path):
    with running(tmp_path / "threads", ALONE, "--locks", "2") as server:
        assert server.get("/thread").body == b"had it"


def test_workers_exclude_each_other_and_the_kernel_frees_what_a_dead_one_held(tmp_path):
    with gated(tmp_path / "workers", VIEWS, "--locks", "1", "--async", "10") as (server, gates):
        first = begin(server, "/hold?first")
        gate = gates.at("first")
        waiting = [begin(server, f"/hold?next{number}") for number in range(3)]
        seen = {server.get("/is_locked").body for _ in range(20)}
        assert seen == {b"True"}, "whichever worker is asked"
        os.kill(gate.pid, signal.SIGKILL)
        await_end(gate.pid)
        assert first.recv(10) == b""
        for number, sock in enumerate(waiting):  # those of the killed worker have gone with it
            go_on_if_alive(gates, sock, f"next{number}")
        assert server.get("/is_locked").body == b"False"


def go_on_if_alive(gates, sock, name: str) -> None:
    """Wait until the request is at its gate, or its connection has ended."""
    readable = select.select([sock, gates], [], [], PATIENCE_SECONDS)[0]
    assert readable, f"{name} was never served"
    if sock not in readable:
        gates.at(name).open()
        assert finish(sock).status == 200


def test_what_several_workers_count_together_is_right(tmp_path):
    folder = tmp_path / "counting"
    folder.mkdir()
    (folder / "count").write_text("0")
    with gated(folder, VIEWS, "--async", "10") as (server, _gates):
        pids = set()
        for _ in range(5):
            waiting = [begin(server, "/count") for _ in range(20)]
            pids |= {finish(sock).body for sock in waiting}
        assert (folder / "count").read_text() == "100"
        assert len(pids) == 2


def test_a_lock_holds_against_the_workers_of_a_new_master(tmp_path):
    """A re-exec hands the locks' file down: a request of an old worker goes on to exclude those of the new ones."""
    with gated(tmp_path / "exec", VIEWS, "--locks", "1", "--reload", "exec", "--async", "10") as (server, gates):
        holding = begin(server, "/hold?old")
        gate = gates.at("old")
        assert server.reload() == 2
        start = server.mark()
        wanting = begin(server, "/hold?new")
        assert server.get("/is_locked").body == b"True"
        gate.open()
        assert finish(holding).status == 200
        gates.at("new").open()
        assert finish(wanting).status == 200
        assert "died" not in "".join(server.log.lines[start:])
