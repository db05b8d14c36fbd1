"""Deadlines: who blocks a worker is named and killed, who does not give in loses, the others are served meanwhile."""

from __future__ import annotations

import os
import re
import select
import signal

import pytest
from gates import GATES, Gates
from masters import await_end, gated
from stage import begin, finish

HARAKIRI = ("--harakiri", "0.5", "--harakiri-graceful-timeout", "0.5", "--min-worker-lifetime", "0")

BLOCKS = """
def view_time_sleep(environ, start_response):
    time.sleep(1000)  # time_sleep

def view_regex(environ, start_response):
    import re
    re.match(r"(a+)+$", "a" * 60 + "b")  # regex

def view_loop(environ, start_response):
    while True: os.getpid()  # loop

def view_in_a_module(environ, start_response):
    import json
    json.dumps([1], default=None, cls=Slow)  # in_a_module

class Slow:
    def __init__(self, **kwargs): pass
    def encode(self, data): return blocking_gate("encode")
"""


def line_of(server, mark):
    """The number of the line of app.py that ends with this comment."""
    lines = (server.folder / "app.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(f"# {mark}"))


def test_a_worker_that_is_blocked_is_named_and_killed_and_the_others_serve(tmp_path):
    ways = ["time_sleep", "regex", "loop"]
    with gated(tmp_path, BLOCKS, "--processes", "4", *HARAKIRI) as (server, _):
        before = server.ready()
        blocked = [begin(server, f"/{way}") for way in ways]
        start = 0
        for way in ways:
            line = server.wait(f"GET /{way}, ", start)
            while "harakiri" not in line:
                start = server.log.lines.index(line, start) + 1
                line = server.wait(f"GET /{way}, ", start)
            said = re.search(
                r"worker (\d) \(pid (\d+)\) is blocked for (\d+\.\d) s in core 0, GET /\w+, (.*:\d+ in \w+)", line
            )
            assert said, line
            worker, pid, seconds, place = said.groups()
            assert before[int(worker)] == int(pid)
            assert float(seconds) >= 0.5
            assert place == f"{tmp_path / 'app.py'}:{line_of(server, way)} in view_{way}"
            assert line.endswith("harakiri: it is killed in 0.5 s unless it goes on")
            server.wait(f"(pid {pid}) is killed: still blocked 0.5 s after harakiri")
            server.wait(f"(pid {pid}) ended: killed by SIGKILL")
            assert server.get("/pid").status == 200
            start = 0
        text = server.log.text()
        assert text.count("(most recent call first)") >= 3
        assert re.search(r'File ".*app\.py", line \d+ in view_regex\n', text)
        for sock in blocked:
            with sock:
                assert sock.recv(100) == b""  # nothing but the end: its process is gone
        server.wait_until_workers(4)
        assert server.stop() == 0


def test_a_worker_that_goes_on_within_the_grace_is_not_killed(tmp_path):
    arguments = ("--processes", "1", "--harakiri", "0.5", "--harakiri-graceful-timeout", "20")
    with gated(tmp_path, "", *arguments) as (server, gates):
        pid = server.ready()[1]
        blocked = begin(server, "/block?it")
        gate = gates.at("it")
        server.wait("harakiri: it is killed in 20 s unless it goes on")
        gate.open()
        assert finish(blocked).status == 200  # late, but nobody has unwound it
        assert server.get_pid() == pid
        assert "is killed:" not in server.log.text()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_waiting_request_is_unwound_at_its_deadline_and_its_worker_lives(tmp_path, loop):
    with gated(tmp_path, "", "--loop", loop, "--processes", "1", *HARAKIRI) as (server, gates):
        pid = server.ready()[1]
        stuck = begin(server, "/gate?stuck")
        gate = gates.at("stuck")
        assert finish(stuck).status == 504
        assert gate.left()
        assert server.get_pid() == pid
        assert "is killed" not in server.log.text()


# ---- warnings -------------------------------------------------------------------------------------------------------

LATER = """
def view_later(environ, start_response):
    asyncio.get_event_loop_policy().get_event_loop().call_later(0.01, in_a_callback)
    return text(start_response, "later")

def in_a_callback():
    blocking_gate("callback")  # callback

def view_sleeps(environ, start_response):
    time.sleep(1.5)  # sleeps
    return text(start_response, "slept")
"""
LATER = LATER.replace("asyncio.get_event_loop_policy().get_event_loop()", "LOOP") + "LOOP = asyncio.get_event_loop()\n"


def test_a_master_warns_of_a_blocked_loop_and_says_where(tmp_path):
    with gated(tmp_path, LATER, "--blocked-warning", "0.3") as (server, gates):
        blocked = begin(server, "/block?it")
        gate = gates.at("it")
        line = server.wait("GET /block?it, ")
        said = re.search(r"\(pid (\d+)\) is blocked for (0\.\d|1\.0) s in core 0, GET /block\?it, ", line)
        assert said and int(said[1]) == gate.pid and float(said[2]) >= 0.3, line
        assert re.search(rf", {tmp_path}/app\.py:\d+ in blocking_gate; all other requests wait meanwhile", line), line
        gate.open()
        assert finish(blocked).status == 200
        start = server.mark()
        assert server.get("/later").status == 200
        gate = gates.at("callback")
        line = server.wait(f"(pid {gate.pid}) is blocked for", start)
        assert " in a callback of the loop, " in line
        gate.open()
        for _ in range(5):
            assert server.get_pid() in server.ready().values()
        assert server.log.count("is blocked for") == 2  # once for each


def test_a_process_without_a_master_warns_too(serve, tmp_path):
    gates = Gates(tmp_path / "server0")
    server = serve(GATES + LATER)
    try:
        slow = begin(server, "/sleeps")
        line = server.log.wait_for("blocked for 1.")
        assert "in core 0, GET '/sleeps', at " in line
        assert f"app.py:{line_of(server, 'sleeps')} in view_sleeps; " in line
        assert finish(slow).status == 200
        assert server.get("/later").status == 200
        gate = gates.at("callback")
        line = server.log.wait_for("in a callback of the loop")
        assert "blocked for 1." in line
        gate.open()
        assert server.get("/pid").status == 200
        assert server.log.count("blocked for") == 2
    finally:
        gates.close()


# ---- applications that do not give in -------------------------------------------------------------------------------

SWALLOWS = """
import atexit

def view_swallow(environ, start_response):
    say("swallowing.")
    while True:
        try:
            gate(environ["QUERY_STRING"])
        except BaseException:
            pass

def view_swallow_and_block(environ, start_response):
    say("swallowing.")
    try:
        gate(environ["QUERY_STRING"])
    except BaseException:
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass

if os.path.exists("atexit"):
    atexit.register(lambda: blocking_gate("atexit"))
"""


def test_who_swallows_every_exception_gets_504_and_loses_its_worker(tmp_path):
    with gated(tmp_path, SWALLOWS, *HARAKIRI) as (server, gates):
        stuck = begin(server, "/swallow?it")
        gate = gates.at("it")
        assert finish(stuck).status == 504
        line = server.wait(f"(pid {gate.pid}) is to be replaced: core 0 does not end GET ")
        start = server.log.lines.index(line)
        worker = int(re.search(r"worker (\d)", line)[1])
        new = server.wait_for_worker("is ready", start, worker=worker)
        server.wait(f"(pid {gate.pid}) retires: core 0 does not end GET ", start)
        server.wait(f"worker {worker} (pid {gate.pid}) ended")
        await_end(gate.pid)
        assert server.ready()[worker] == new
        assert server.get("/pid").status == 200
        assert server.stop() == 0


def test_the_master_has_the_last_word(tmp_path):
    """At a reload and at a stop: over those that swallow what unwinds them, and over those that then block."""
    mercy = ("--reload-mercy", "0.2", "--worker-reload-mercy", "0.2")
    with gated(tmp_path, SWALLOWS, *mercy) as (server, gates):
        stuck, pids = [], {}
        for number, view in enumerate(["swallow", "swallow_and_block"] * 2):
            stuck.append(begin(server, f"/{view}?{number}"))
            pids.setdefault(gates.at(str(number)).pid, []).append(view)
            if number == 1:
                server.reload()
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
        for pid, views in pids.items():
            await_end(pid)
            if "swallow_and_block" in views:
                server.wait(f"(pid {pid}) is killed: it did not end in the time that it was given")
        for sock in stuck:
            with sock:
                sock.recv(1000)  # a reply, or its end; but not for ever


def test_workers_that_block_while_they_end_or_are_stopped_do_not_hold_a_stop_up(tmp_path):
    (tmp_path / "atexit").touch()
    with gated(tmp_path, SWALLOWS, "--reload-mercy", "0.2") as (server, gates):
        stopped = server.ready()[1]
        os.kill(stopped, signal.SIGSTOP)
        server.wait(f"(pid {stopped}) retires: stopped by SIGSTOP")
        server.signal(signal.SIGTERM)
        blocked = [gates.at("atexit").pid, gates.at("atexit").pid]
        for pid in [stopped, *blocked]:
            server.wait(f"(pid {pid}) is killed: it did not end in the time that it was given")
        assert server.exit_code() == 0
        assert "stopped after 0 requests" in server.log.text()


# ---- stopped workers ------------------------------------------------------------------------------------------------


def test_a_stopped_worker_is_replaced_and_killed_in_the_end_and_service_goes_on(tmp_path):
    with gated(tmp_path, "", "--worker-reload-mercy", "0.3", sockets=("http", "uwsgi", "unix")) as (server, _):
        old = server.ready()
        for worker, pid in old.items():
            os.kill(pid, signal.SIGSTOP)
            for kind in ("http", "uwsgi", "unix") * 10:
                assert server.get("/pid", kind).body != str(pid).encode()
            server.wait(f"worker {worker} (pid {pid}) was stopped by SIGSTOP; `kill -CONT {pid}` lets it go on")
            server.wait(f"worker {worker} (pid {pid}) retires: stopped by SIGSTOP")
            assert pid not in server.ready().values()
            assert len(server.ready()) == 2
        for worker, pid in old.items():
            server.wait(f"worker {worker} (pid {pid}) is killed: it did not end in the time that it was given")
            server.wait(f"worker {worker} (pid {pid}) ended: killed by SIGKILL")
        assert server.stop() == 0


def test_a_stopped_worker_that_is_continued_finishes_what_it_had_begun(tmp_path):
    with gated(tmp_path, "") as (server, gates):
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        os.kill(gate.pid, signal.SIGSTOP)
        server.wait(f"(pid {gate.pid}) retires: stopped by SIGSTOP")
        gate.open()
        assert server.get_pid() != gate.pid
        os.kill(gate.pid, signal.SIGCONT)
        assert finish(running).body.decode() == str(gate.pid)
        server.wait(f"(pid {gate.pid}) ended")
        assert "is killed" not in server.log.text()


AT_EXIT = """
import atexit

@atexit.register
def last():
    blocking_gate("atexit")
    say("the exit handler has ended")
"""


def test_an_exit_handler_has_the_mercy_and_no_deadline_of_a_request(tmp_path):
    arguments = ("--processes", "1", "--harakiri", "0.5", "--harakiri-graceful-timeout", "0.5")
    with gated(tmp_path, AT_EXIT, *arguments) as (server, gates):
        server.signal(signal.SIGTERM)
        gate = gates.at("atexit")
        assert not select.select([gate.sock], [], [], 2.5)[0]  # beyond harakiri and its grace
        gate.open()
        server.wait("the exit handler has ended")
        assert server.exit_code() == 0
        assert "blocked" not in server.log.text()


FINALLY = """
def view_finally(environ, start_response):
    try:
        gate("inside")
    finally:
        say("its finally block ran")
    return text(start_response, "done")
"""


def test_a_stop_shortens_the_time_of_a_worker_that_a_reload_has_told_to_end(tmp_path):
    arguments = ("--processes", "1", "--reload-mercy", "1", "--worker-reload-mercy", "1000")
    with gated(tmp_path, FINALLY, *arguments) as (server, gates):
        asked = begin(server, "/finally")
        gates.at("inside")
        server.reload()
        server.wait("finishing 1 running requests")
        server.signal(signal.SIGTERM)
        assert finish(asked).status == 504
        assert server.exit_code() == 0
        assert "its finally block ran" in server.log.text()
        assert "is killed" not in server.log.text()
