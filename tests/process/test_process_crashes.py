"""Ends that were ordered and ends that were not: exit codes, deaths, and a master that is gone."""

from __future__ import annotations

import os
import re
import signal
import socket

import pytest
from gates import GATES
from harness import PATIENCE_SECONDS
from masters import HELLO, Master, accepts, await_end, gated, is_alive, mastered, moment, until
from stage import Peer, begin, finish


def fails(folder, application, *arguments, **how):
    """A server that does not come to serve; (exit code, what it said)."""
    server = Master(folder, application, *arguments, **how)
    try:
        return server.exit_code(), server.log.text()
    finally:
        server.end()


# ---- exit codes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "loop"), [(signal.SIGTERM, "asyncio"), (signal.SIGINT, "uvloop")])
def test_an_ordered_stop_finishes_what_has_begun_and_ends_with_0(tmp_path, number, loop):
    arguments = ("--loop", loop, "--pidfile", "late.pid")
    with gated(tmp_path, "", *arguments, sockets=("http", "uwsgi", "unix"), dev=True) as (server, gates):
        assert int((tmp_path / "late.pid").read_text()) == server.pid
        workers = server.ready().values()
        running = {kind: begin(server, f"/gate?{kind}", kind) for kind in ("http", "uwsgi", "unix")}
        at = [gates.at(kind) for kind in running]
        idle = Peer(server)
        assert idle.get("/pid").status == 200
        server.signal(number)
        server.wait(f"stopping ({signal.Signals(number).name}): 2 workers finish what they have begun")
        assert idle.ended()
        until(lambda: not accepts(server.http), "new connections are refused")
        until(lambda: not accepts(server.uwsgi), "new connections are refused")
        for gate in at:
            gate.open()
        assert [finish(sock).body.decode() for sock in running.values()] == [str(gate.pid) for gate in at]
        assert server.exit_code() == 0
        assert "stopped after 4 requests" in server.log.text()
        assert "Traceback" not in server.log.text()
        assert not any(is_alive(pid) for pid in workers)
        assert not os.path.exists(server.unix)
        assert not (tmp_path / "late.pid").exists()
        assert not server.fifo.exists()
        idle.sock.close()


@pytest.mark.parametrize(
    ("application", "says"),
    [
        ("import gone\n", "ModuleNotFoundError: No module named 'gone'"),
        ("no Python\n", "SyntaxError: invalid syntax (app.py, line 1)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("x = 1\n", "application"),
        ("import os\nos._exit(5)\n", "died: exit code 5"),
        ("import os\nos.kill(os.getpid(), 11)\n", "died: killed by SIGSEGV"),
    ],
    ids=["import", "syntax", "exit", "nothing", "dies", "crashes"],
)
def test_an_application_that_cannot_be_loaded_ends_the_start_with_22(tmp_path, application, says):
    code, text = fails(tmp_path, application, sockets=("http", "unix"))
    assert code == 22
    assert says in text
    assert ('app.py", line 1' in text) is ("Error" in says)  # its traceback, without ours
    assert "server/corelet" not in text
    assert "is ready" not in text
    assert os.listdir(tmp_path) in (["app.py"], ["app.py", "__pycache__"], ["__pycache__", "app.py"])


def test_the_start_fails_if_only_one_worker_cannot_load(tmp_path):
    application = GATES + "import os\nos.mkdir('only one can')\n"
    code, text = fails(tmp_path, application)
    assert code == 22
    assert "FileExistsError" in text
    assert "generation 1 is ready" not in text


def test_preload_that_cannot_be_loaded_ends_the_start_with_22(tmp_path):
    code, text = fails(tmp_path, "import gone\n", "--preload")
    assert code == 22
    assert "ModuleNotFoundError: No module named 'gone'" in text


def test_a_wrong_option_or_a_socket_that_cannot_be_had_ends_the_start_with_1(tmp_path):
    code, text = fails(tmp_path, HELLO, "--prozesses", "2")
    assert code == 1
    assert "processes" in text
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, text = fails(tmp_path, HELLO, "--http-socket", f"127.0.0.1:{other.getsockname()[1]}")
    assert code == 1
    assert "in use" in text
    assert "Traceback" not in text


# ---- stopping in a hurry --------------------------------------------------------------------------------------------


def test_a_second_signal_hurries(tmp_path):
    with gated(tmp_path, "") as (server, gates):
        stuck = begin(server, "/gate?stuck")
        gate = gates.at("stuck")
        server.signal(signal.SIGTERM)
        server.wait("stopping (SIGTERM): 2 workers")
        server.wait_until_draining(gate.pid)
        server.signal(signal.SIGTERM)
        server.wait("stopping (SIGTERM): not waiting for running requests")
        assert finish(stuck).status == 504
        assert server.exit_code() == 0


@pytest.mark.parametrize("numbers", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGQUIT], [signal.SIGTERM] * 3])
def test_sigquit_and_a_third_signal_are_immediate(tmp_path, numbers):
    with gated(tmp_path, "", sockets=("http", "unix")) as (server, gates):
        stuck = begin(server, "/gate?stuck")
        pids = {gates.at("stuck").pid}
        blocked = begin(server, "/block?blocked")
        pids.add(gates.at("blocked").pid)
        for number in numbers:
            start = server.mark()
            server.signal(number)
            server.wait("stopping", start)
        server.wait("stopping at once")
        assert server.exit_code(8) == 0  # and not after reload-mercy
        for pid in pids:
            await_end(pid)
        for sock in (stuck, blocked):
            sock.close()
        assert not os.path.exists(server.unix)


# ---- workers that die -----------------------------------------------------------------------------------------------

DIES = """
def view_exit(environ, start_response):
    os._exit(7)

def view_crash(environ, start_response):
    os.kill(os.getpid(), 11)
    time.sleep(10)
"""


def test_a_worker_that_a_view_ends_is_replaced_and_only_its_requests_are_lost(tmp_path):
    with gated(tmp_path, DIES, "--processes", "3") as (server, gates):
        running = [begin(server, f"/gate?{number}") for number in range(9)]
        at = [gates.at(str(number)) for number in range(9)]
        gone = set()
        for path, how in (("/exit", "exit code 7"), ("/crash", "killed by SIGSEGV")):
            old = dict(server.ready())
            start = server.mark()
            with begin(server, path) as lost:
                assert lost.recv(100) == b""
            pid = server.wait_for_worker(f"died: {how}", start)
            worker = next(number for number, its in old.items() if its == pid)
            server.wait_for_worker("is ready", start, worker=worker)
            gone.add(pid)
        assert len(gone) == 2 and len(server.ready()) == 3
        for gate, sock in zip(at, running, strict=True):
            if gate.pid in gone:
                assert gate.left()
                with sock:
                    assert sock.recv(100) == b""
            else:
                gate.open()
                assert finish(sock).body.decode() == str(gate.pid)


def test_a_worker_that_dies_again_and_again_is_replaced_after_growing_pauses(tmp_path):
    with gated(tmp_path, "") as (server, _):
        sibling = server.ready()[2]
        pauses = []
        for _ in range(3):
            start = server.mark()
            pid = server.ready()[1]
            os.kill(pid, signal.SIGKILL)
            died = server.wait(f"worker 1 (pid {pid}) died: killed by SIGKILL", start)
            assert server.get_pid() == sibling or not pauses
            new = server.wait_for_worker("is ready", start, worker=1)
            ready = server.wait(f"worker 1 (pid {new}) is ready", start)
            pauses.append((moment(ready) - moment(died)).total_seconds())
        assert pauses[0] < 0.5 <= pauses[1] < 1 <= pauses[2]
        assert server.ready()[2] == sibling
        server.reload()  # a reload forgives
        start = server.mark()
        os.kill(pid := server.ready()[1], signal.SIGKILL)
        died = server.wait(f"worker 1 (pid {pid}) died: killed by SIGKILL", start)
        new = server.wait_for_worker("is ready", start, worker=1)
        assert (moment(server.wait(f"worker 1 (pid {new}) is ready")) - moment(died)).total_seconds() < 0.5


def test_a_worker_whose_successor_cannot_load_leaves_the_others_serving(tmp_path):
    with gated(tmp_path, "") as (server, _):
        good = (tmp_path / "app.py").read_text()
        old = server.ready()
        (tmp_path / "app.py").write_text("no Python\n")
        os.kill(old[1], signal.SIGKILL)
        server.wait("it is tried again later")
        server.wait("SyntaxError")
        assert server.get_pid() == old[2]
        (tmp_path / "app.py").write_text(good)
        server.wait_until_workers(2)
        assert server.stop() == 0


def test_a_worker_that_is_told_to_end_by_somebody_else_finishes_and_is_replaced(tmp_path):
    with gated(tmp_path, "") as (server, gates):
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        os.kill(gate.pid, signal.SIGTERM)
        server.wait(f"(pid {gate.pid}) was told to end by somebody else")
        until(lambda: len(server.ready()) == 2 and gate.pid not in server.ready().values(), "it is replaced")
        gate.open()
        assert finish(running).body.decode() == str(gate.pid)
        server.wait(f"(pid {gate.pid}) ended")
        assert server.get("/pid").status == 200
        assert server.stop() == 0


def test_a_signal_to_the_whole_group_stops_in_order(tmp_path):
    """Ctrl-C in a terminal reaches master and workers."""
    with gated(tmp_path, "", prefix=("setsid",)) as (server, gates):
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        os.killpg(os.getpgid(gate.pid), signal.SIGINT)
        server.wait("stopping (SIGINT)")
        gate.open()
        assert finish(running).body.decode() == str(gate.pid)
        assert server.exit_code() == 0
        assert "died" not in server.log.text()


# ---- a master that is gone ------------------------------------------------------------------------------------------


def test_workers_of_a_killed_master_finish_what_they_have_begun_and_end(tmp_path):
    with gated(tmp_path, "", sockets=("http", "uwsgi")) as (server, gates):
        workers = list(server.ready().values())
        running = [begin(server, f"/gate?{kind}", kind) for kind in ("http", "uwsgi")]
        at = [gates.at(kind) for kind in ("http", "uwsgi")]
        idle = Peer(server)
        assert idle.get("/pid").status == 200
        server.process.kill()
        assert server.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        server.wait("the master is gone: this worker finishes what it has begun, and ends")
        assert idle.ended()
        until(lambda: not accepts(server.http), "new connections are refused")
        for gate, sock in zip(at, running, strict=True):
            gate.open()
            assert finish(sock).body.decode() == str(gate.pid)
        for pid in workers:
            await_end(pid)
        server.log.join()
        assert server.log.count("the master is gone") == 2
        assert "Traceback" not in server.log.text()
        idle.sock.close()


def test_a_worker_that_loads_when_its_master_dies_ends(tmp_path):
    with gated(tmp_path, "if os.path.exists('slow'): blocking_gate('import')\n") as (server, gates):
        (tmp_path / "slow").touch()
        server.signal(signal.SIGHUP)
        at = [gates.at("import"), gates.at("import")]
        server.process.kill()
        for gate in at:
            gate.open()
            await_end(gate.pid)
        server.log.join()


def test_a_socket_that_the_next_server_needs_is_free_after_a_crash(tmp_path):
    with mastered(tmp_path, HELLO, sockets=("http", "unix")) as server:
        server.process.kill()
        server.process.wait()
        until(lambda: not accepts(server.http), "the workers are gone")
        again = ("--http-socket", f"127.0.0.1:{server.http[1]}", "--socket", server.unix)
        with mastered(tmp_path, HELLO, *again, sockets=()) as other:
            other.http, other.unix = server.http, server.unix
            assert other.get("/").body == b"hello"
            assert other.get("/", "unix").body == b"hello"


# ---- what the log says ----------------------------------------------------------------------------------------------


def test_every_line_of_the_master_has_its_process_id(tmp_path):
    with mastered(tmp_path, HELLO) as server:
        server.reload()
        assert server.stop() == 0
        lines = [line for line in server.log.lines if "worker " in line or "generation" in line]
        assert lines
        begin = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ \[" + str(server.pid) + r"\] info ")
        assert all(begin.match(line) for line in lines)
