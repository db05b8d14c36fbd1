"""Reload: new workers are ready before old ones go, what has begun finishes, what cannot be loaded changes nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
from masters import HELLO, await_end, gated, mastered
from stage import Peer, begin, finish

SLOW_IMPORT = """
if os.path.exists("slow"):
    blocking_gate("import")
"""

VIEWS = """
def view_stuck(environ, start_response):
    try:
        gate(environ["QUERY_STRING"])
    finally:
        say("unwound.")

def view_stream(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    yield b"One"
    gate(environ["QUERY_STRING"])
    yield b"Two"
"""


def in_order(server, start, *texts):
    """Assert that the log has these texts in this order from line `start` on, each in a line of its own."""
    for text in texts:
        start = server.log.lines.index(server.wait(text, start), start) + 1


# ---- requests and connections -------------------------------------------------------------------------------------


def test_new_workers_are_ready_before_old_ones_stop_accepting(tmp_path):
    with gated(tmp_path, SLOW_IMPORT) as (server, gates):
        old = server.ready()
        (tmp_path / "slow").touch()
        start = server.mark()
        server.signal(signal.SIGHUP)
        server.wait("reload (SIGHUP): starting generation 2", start)
        loading = [gates.at("import"), gates.at("import")]
        for _ in range(10):
            assert server.get_pid() in old.values()
        assert server.ready() == old
        loading[0].open()
        server.wait("is ready", start)
        assert "retires" not in server.log.text()  # both generations serve until the new one is complete
        loading[1].open()
        assert server.wait_for_generation(start) == 2
        for worker, pid in old.items():
            in_order(server, start, "generation 2 is ready: 2 workers", f"worker {worker} (pid {pid}) retires",
                     f"worker {worker} (pid {pid}) ended")  # fmt: skip
        new = {loading[0].pid, loading[1].pid}
        assert set(server.ready().values()) == new
        assert server.get_pid() in new


def test_requests_that_have_begun_finish_in_the_old_workers(tmp_path):
    with gated(tmp_path, VIEWS, sockets=("http", "uwsgi", "unix"), dev=True) as (server, gates):
        running = {kind: begin(server, f"/gate?{kind}", kind) for kind in ("http", "uwsgi", "unix")}
        stream = begin(server, "/stream?stream", "uwsgi")
        at = {name: gates.at(name) for name in (*running, "stream")}
        server.reload()
        for gate in at.values():
            server.wait(f"(pid {gate.pid}) retires: generation 2 is ready")
            server.wait_until_draining(gate.pid)
        assert server.get_pid() not in {gate.pid for gate in at.values()}
        for gate in at.values():
            gate.open()
        for kind, sock in running.items():
            assert finish(sock).body.decode() == str(at[kind].pid)
        assert finish(stream).body == b"OneTwo"
        for gate in at.values():
            server.wait(f"(pid {gate.pid}) ended")


def test_what_does_not_finish_within_the_mercy_is_unwound(tmp_path):
    with gated(tmp_path, VIEWS, "--worker-reload-mercy", "0.3") as (server, gates):
        stuck = begin(server, "/stuck?stuck")
        gate = gates.at("stuck")
        server.reload()
        server.wait("unwound.")
        assert finish(stuck).status == 504
        server.wait(f"(pid {gate.pid}) ended")
        assert gate.left()
        assert server.stop() == 0


def test_idle_connections_are_closed_cleanly_and_late_requests_on_them_are_answered(tmp_path):
    with mastered(tmp_path, HELLO) as server:
        idle = [Peer(server) for _ in range(8)]
        late = [Peer(server) for _ in range(8)]
        for peer in idle + late:
            assert peer.get("/").header("Connection") is None
        server.reload()
        begun = time.monotonic()
        for peer in late:
            while (reply := peer.get("/")).header("Connection") is None:
                assert reply.body == b"hello"  # the worker has not heard yet that it is to end
            assert (reply.body, reply.header("Connection")) == (b"hello", "close")
        assert all(peer.ended() for peer in late + idle)  # a reset would be an error
        assert time.monotonic() - begun < 3
        for peer in idle + late:
            peer.sock.close()


def test_what_is_sent_while_the_reload_goes_on_is_answered(tmp_path):
    """A body that is still under way, and a request whose head is half there."""
    with gated(tmp_path, "def view_read(e, s): return text(s, len(e['wsgi.input'].read()))\n") as (server, _):
        body = server.connect()
        body.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
        head = server.connect()
        head.sendall(b"GET /pid HTTP/1.1\r\nHo")
        server.get_pid()
        server.reload()
        body.sendall(b"56789")
        head.sendall(b"st: x\r\n\r\n")
        with Peer(server, body) as peer:
            assert peer.reply().body == b"10"
        with Peer(server, head) as peer:
            assert peer.reply().status == 200


# ---- generations that fail ----------------------------------------------------------------------------------------


def test_a_generation_that_cannot_be_loaded_leaves_the_old_one_serving_and_says_why(tmp_path):
    with gated(tmp_path, "") as (server, gates):
        old = server.ready()
        good = (tmp_path / "app.py").read_text()
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        (tmp_path / "app.py").write_text(good + "\nthis is no Python\n")
        start = server.mark()
        server.signal(signal.SIGHUP)
        line = server.wait("generation 2 failed: worker ", start)
        assert line.endswith("; generation 1 goes on serving")
        server.wait("SyntaxError: invalid syntax", start)
        assert "this is no Python" in server.log.text()
        assert server.ready() == old
        for _ in range(5):
            assert server.get_pid() in old.values()
        start = server.mark()
        (tmp_path / "app.py").write_text(good)
        assert server.reload() == 3
        in_order(server, start, "generation 3 is ready", f"worker 1 (pid {old[1]}) retires")
        server.wait_until_draining(gate.pid)
        server.wait(f"(pid {({*old.values()} - {gate.pid}).pop()}) ended")
        assert server.get_pid() not in old.values()
        gate.open()
        assert finish(running).body.decode() == str(gate.pid)
        assert server.stop() == 0


def test_a_generation_that_dies_while_it_loads_is_given_up_after_some_tries(tmp_path):
    with gated(tmp_path, "if os.path.exists('bad'): os._exit(3)\n", "--processes", "1") as (server, _):
        old = server.ready()
        (tmp_path / "bad").touch()
        server.signal(signal.SIGHUP)
        server.wait("died: exit code 3")
        server.wait("generation 2 failed: worker 1")
        assert server.get_pid() == old[1]
        assert server.ready() == old


def test_a_worker_that_loads_nothing_useful_is_no_successor(tmp_path):
    """No callable in the file, an exit while it is imported, an exception of a module that it imports."""
    with gated(tmp_path, "") as (server, _):
        old = server.ready()
        (tmp_path / "other.py").write_text("1 / 0\n")
        for number, (text, says) in enumerate(
            [("x = 1", "application"), ("raise SystemExit(7)", "SystemExit"), ("import other", "ZeroDivisionError")], 2
        ):
            (tmp_path / "app.py").write_text(text + "\n")
            start = server.mark()
            server.signal(signal.SIGHUP)
            server.wait(f"generation {number} failed", start)
            server.wait(says, start)
            assert server.get_pid() in old.values()
        assert server.ready() == old


# ---- a reload inside another ----------------------------------------------------------------------------------------


def test_a_reload_inside_a_reload_supersedes_it(tmp_path):
    with gated(tmp_path, SLOW_IMPORT) as (server, gates):
        old = server.ready()
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        (tmp_path / "slow").touch()
        server.signal(signal.SIGHUP)
        second = [gates.at("import"), gates.at("import")]
        server.signal(signal.SIGHUP)
        server.wait("starting generation 3")
        for each in second:
            with contextlib.suppress(BrokenPipeError):  # it may be gone already
                each.open()
        third = [gates.at("import"), gates.at("import")]
        assert server.ready() == old
        assert server.get_pid() in old.values()
        for each in third:
            each.open()
        server.wait("generation 3 is ready: 2 workers")
        for each in second:
            await_end(each.pid)
        assert "generation 2 is ready: 2 workers" not in server.log.text()
        assert set(server.ready().values()) == {each.pid for each in third}
        gate.open()
        assert finish(running).body.decode() == str(gate.pid)


# ---- one after the other --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["c", "touch"])
def test_a_chain_reload_replaces_one_worker_after_the_other(tmp_path, order):
    touched = tmp_path / "chain"
    touched.touch()
    with gated(tmp_path, SLOW_IMPORT, "--touch-chain-reload", str(touched)) as (server, gates):
        old = server.ready()
        (tmp_path / "slow").touch()
        start = server.mark()
        if order == "c":
            server.order("c")
        else:
            os.utime(touched)
        first = gates.at("import")
        assert server.ready() == old
        assert server.get_pid() in old.values()
        first.open()
        server.wait(f"worker 1 (pid {old[1]}) retires", start)
        second = gates.at("import")
        assert server.ready() == {1: first.pid, 2: old[2]}
        second.open()
        assert server.wait_for_generation(start) == 2
        in_order(
            server, start, "chain reload (", f"worker 1 (pid {first.pid}) is ready",
            f"worker 1 (pid {old[1]}) retires", f"worker 2 (pid {second.pid}) is ready",
            f"worker 2 (pid {old[2]}) retires",
        )  # fmt: skip


def test_a_chain_reload_stops_at_the_first_worker_that_cannot_load(tmp_path):
    with gated(tmp_path, "") as (server, _):
        old = server.ready()
        (tmp_path / "app.py").write_text("no Python\n")
        start = server.mark()
        server.order("c")
        server.wait("generation 2 failed: worker 1", start)
        assert server.ready() == old
        assert server.get_pid() in old.values()


# ---- what asks for it -----------------------------------------------------------------------------------------------


def test_a_touched_file_reloads(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch()
    other.touch()
    arguments = ("--touch-reload", str(one), "--touch-workers-reload", str(other))
    with mastered(tmp_path, HELLO, *arguments) as server:
        os.utime(one)
        server.wait(f"reload (touch-reload {one}): starting generation 2")
        server.wait("generation 2 is ready: 2 workers")
        other.write_text("changed")
        server.wait(f"reload (touch-workers-reload {other}): starting generation 3")
        server.wait("generation 3 is ready: 2 workers")


def test_a_brutal_reload_does_not_finish_what_has_begun(tmp_path):
    with gated(tmp_path, VIEWS) as (server, gates):
        stuck = begin(server, "/stuck?stuck")
        gate = gates.at("stuck")
        server.order("R")
        assert gate.left()
        assert finish(stuck).status == 504
        server.wait("generation 2 is ready: 2 workers")
        server.wait(f"(pid {gate.pid}) ended")
