"""Ends that an application delays: threads, pools, handlers of atexit, views that block, imports slow or failing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

import pytest
from gates import GATES, Gates
from masters import HELLO, Master, Tail, await_end, children_of, mastered, until
from stage import begin, finish

from corelet.process.clock import AT_ONCE_SECONDS, GRACE_SECONDS, time_to_end

ALONE = ()
MASTER = ("--master", "--processes", "1")
PRELOAD = ("--preload", "--processes", "1")

everywhere = pytest.mark.parametrize("master", [ALONE, MASTER, PRELOAD], ids=["alone", "master", "preload"])
loading_here = pytest.mark.parametrize("master", [ALONE, PRELOAD], ids=["alone", "preload"])


@contextlib.contextmanager
def begun(folder, application, *arguments, master=MASTER, **how):
    """A server with gates that has been started, and serves or not."""
    gates = Gates(folder)
    server = Master(
        folder, GATES + application, "--pidfile", "pid", *arguments,
        master=master, fifo=bool(master), sockets=("http", "unix"), **how,
    )  # fmt: skip
    try:
        yield server, gates
    finally:
        gates.close()
        server.end()


@contextlib.contextmanager
def served(folder, application, *arguments, master=MASTER, **how):
    """The same, when it serves."""
    with begun(folder, application, *arguments, master=master, **how) as (server, gates):
        server.wait("listening on")
        if master:
            server.wait_for_generation()
        yield server, gates


def left_nothing(server):
    """Its files are gone."""
    assert not os.path.exists(server.unix)
    assert not (server.folder / "pid").exists()
    assert not server.fifo.exists()
    assert "the server itself failed" not in server.log.text()


# ---- threads --------------------------------------------------------------------------------------------------------

THREADS = """
import atexit, concurrent.futures, threading

def view_for_ever(environ, start_response):
    threading.Thread(target=threading.Event().wait, name="eternal").start()
    return text(start_response, "begun")

def view_jobs(environ, start_response):
    pool = concurrent.futures.ThreadPoolExecutor(1)
    for name in "first", "second":
        pool.submit(lambda name=name: (blocking_gate(name), say(f"{name} job is done")))
    return text(start_response, "begun")

def view_to_thread(environ, start_response):
    corelet.to_thread(blocking_gate, "thread")

atexit.register(say, "atexit runs")
"""


@everywhere
def test_a_thread_that_does_not_end_is_left_when_the_mercy_is_over_and_atexit_runs(tmp_path, master):
    arguments = ("--reload-mercy", "1")
    with served(tmp_path, THREADS, *arguments, master=master) as (server, _gates):
        assert server.get("/for_ever").body == b"begun"
        since = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
        assert time.monotonic() - since < 1 + 2  # what a master waits at most
        server.wait("waiting for threads of the application: eternal")
        server.wait("left without waiting any longer for threads of the application: eternal")
        assert "atexit runs" in server.log.text()
        assert "is killed" not in server.log.text()
        left_nothing(server)


@loading_here
def test_a_thread_of_the_import_holds_nothing_up_either(tmp_path, master):
    application = "import threading\nthreading.Thread(target=threading.Event().wait, name='eternal').start()\n"
    with served(tmp_path, application, "--reload-mercy", "0", master=master) as (server, _gates):
        server.signal(signal.SIGTERM)
        assert server.exit_code(5) == 0
        left_nothing(server)


@everywhere
def test_what_a_pool_was_given_is_done_within_the_mercy(tmp_path, master):
    with served(tmp_path, THREADS, master=master) as (server, gates):
        assert server.get("/jobs").body == b"begun"
        first = gates.at("first")
        server.signal(signal.SIGTERM)
        server.wait("waiting for threads of the application")
        first.open()
        gates.at("second").open()
        assert server.exit_code() == 0
        log = server.log.text()
        assert log.index("first job is done") < log.index("second job is done") < log.rindex("atexit runs")
        assert "left without waiting" not in log
        left_nothing(server)


def test_a_second_signal_does_not_wait_for_threads(tmp_path):
    with served(tmp_path, THREADS, master=ALONE) as (server, _gates):
        assert server.get("/for_ever").body == b"begun"
        server.signal(signal.SIGTERM)
        server.wait("waiting for threads of the application: eternal")
        server.signal(signal.SIGTERM)
        assert server.exit_code(5) == 0
        assert "atexit runs" in server.log.text()


@everywhere
def test_sigquit_waits_for_no_thread(tmp_path, master):
    with served(tmp_path, THREADS, master=master) as (server, _gates):
        assert server.get("/for_ever").body == b"begun"
        server.signal(signal.SIGQUIT)
        assert server.exit_code(5) == 0
        assert "waiting for threads" not in server.log.text()
        left_nothing(server)


@everywhere
def test_a_call_in_a_thread_that_outlasts_the_mercy_is_left(tmp_path, master):
    with served(tmp_path, THREADS, "--reload-mercy", "0.5", master=master) as (server, gates):
        waiting = begin(server, "/to_thread")
        held = gates.at("thread")
        server.signal(signal.SIGTERM)
        assert finish(waiting).status == 504
        assert server.exit_code(5) == 0
        assert held.left()


# ---- a loop that is blocked -----------------------------------------------------------------------------------------

BLOCKS = """
import re

def view_sleep(environ, start_response):
    say("it blocks")
    time.sleep(60)

def view_spin(environ, start_response):
    say("it blocks")
    while True:
        pass
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("path", ["/sleep", "/spin", "/block?gate"])
@pytest.mark.parametrize("numbers", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]])
def test_sigquit_and_a_third_signal_end_a_process_whose_loop_is_blocked(tmp_path, numbers, path, loop):
    with served(tmp_path, BLOCKS, "--loop", loop, "--blocked-warning", "0", master=ALONE) as (server, gates):
        stuck = begin(server, path)
        if "gate" in path:
            gates.at("gate")
        else:
            server.wait("it blocks")
        for number in numbers:
            server.signal(number)
            until(lambda number=number: not is_pending(server.pid, number), "the signal was taken")
        assert server.exit_code(8) == 0
        server.wait("not ended by itself until now; this process is left")
        left_nothing(server)
        stuck.close()


def is_pending(pid, number):
    """Whether a signal has been sent and not been taken: two of the same at once are one."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_the_clock_of_a_process_alone_gives_the_mercy_then_a_grace_and_at_the_third_signal_nothing():
    assert time_to_end(1, signal.SIGTERM, 25.0) == 25.0 + GRACE_SECONDS
    assert time_to_end(2, signal.SIGINT, 25.0) == GRACE_SECONDS
    assert time_to_end(3, signal.SIGTERM, 25.0) == AT_ONCE_SECONDS
    assert time_to_end(1, signal.SIGQUIT, 25.0) == AT_ONCE_SECONDS


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_handlers_that_an_application_gives_to_the_loop_hear_of_their_signals_once(tmp_path, loop):
    application = """
asyncio.get_event_loop().add_signal_handler(14, say, "SIGALRM has come")

def view_late(environ, start_response):
    asyncio.get_event_loop().add_signal_handler(28, say, "SIGWINCH has come")
    return text(start_response, "")
"""
    with served(tmp_path, application, "--loop", loop, master=ALONE) as (server, _gates):
        assert server.get("/pid").status == 200  # the loop runs
        server.signal(signal.SIGALRM)
        server.wait("SIGALRM has come")
        server.get("/late")
        server.signal(signal.SIGWINCH)
        server.wait("SIGWINCH has come")
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
        assert server.log.count("has come") == 2


# ---- while the application is loaded --------------------------------------------------------------------------------

LOADS = "blocking_gate('load')\n"
CATCHES = "try:\n    blocking_gate('load')\nexcept BaseException:\n    pass\n"
FAILS = "try:\n    blocking_gate('load')\nexcept BaseException as error:\n    raise ImportError('no') from error\n"
ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
@loading_here
def test_a_stop_while_the_application_is_loaded_is_an_ordered_one(tmp_path, master, number):
    with begun(tmp_path, LOADS, master=master) as (server, gates):
        gate = gates.at("load")
        server.signal(number)
        assert server.exit_code() == 0
        assert gate.left()
        assert number.name in server.log.text()
        assert "Traceback" not in server.log.text()
        left_nothing(server)


@pytest.mark.parametrize("application", [CATCHES, FAILS], ids=["catches", "fails"])
@loading_here
def test_an_application_that_catches_everything_while_it_is_imported_does_not_lose_the_order(
    tmp_path, master, application
):
    with begun(tmp_path, application, master=master) as (server, gates):
        gates.at("load")
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
        assert "is ready" not in server.log.text()
        assert "cannot load" not in server.log.text()
        left_nothing(server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_new_master_that_is_told_to_end_while_it_loads_ends_workers_and_daemons(tmp_path, number):
    application = "if os.path.exists('second'):\n    blocking_gate('load')\n"
    arguments = ("--attach-daemon", f"{sys.executable} -c 'import signal; signal.pause()'")
    with served(tmp_path, application, *arguments, master=PRELOAD) as (server, gates):
        worker = server.get_pid()
        (daemon,) = set(children_of(server.pid)) - {worker}
        (tmp_path / "second").touch()
        server.signal(signal.SIGHUP)
        assert gates.at("load").pid == server.pid
        assert server.get_pid() == worker
        server.signal(number)
        assert server.exit_code() == 0
        await_end(worker)
        await_end(daemon)
        assert "the master is gone" not in server.log.text()
        left_nothing(server)


# ---- what an import may raise ---------------------------------------------------------------------------------------

RAISES = {
    "import asyncio\nraise asyncio.CancelledError('q')": "raised CancelledError: q",
    "raise KeyboardInterrupt": "raised KeyboardInterrupt",
    "import greenlet\nraise greenlet.GreenletExit": "raised GreenletExit",
    "class Own(BaseException): pass\nraise Own('q')": "raised Own: q",
    "class Own(Exception):\n    def __str__(self): raise ValueError\nraise Own": "raised Own: (its text cannot be had",
    "import sys\nsys.exit(0)": "called sys.exit(0)",
}


@pytest.mark.parametrize("application", RAISES, ids=lambda text: RAISES[text].split()[1].rstrip(":"))
@everywhere
def test_whatever_an_import_raises_is_a_failure_to_load_with_22(tmp_path, master, application):
    server = Master(tmp_path, application + "\n", master=master, fifo=bool(master), sockets=("http", "unix"))
    try:
        assert server.exit_code() == 22
        text = server.log.text()
    finally:
        server.end()
    assert f"cannot load app.py: it {RAISES[application]}" in text
    assert "the server itself failed" not in text
    assert "server/corelet" not in text


@pytest.mark.parametrize("application", RAISES, ids=lambda text: RAISES[text].split()[1].rstrip(":"))
def test_a_reload_whose_import_raises_whatever_leaves_the_old_workers_serving(tmp_path, application):
    with mastered(tmp_path, HELLO) as server:
        (tmp_path / "app.py").write_text(application + "\n")
        server.signal(signal.SIGHUP)
        server.wait(f"cannot load app.py: it {RAISES[application]}")
        assert server.get("/").body == b"hello"


# ---- streams that are closed ----------------------------------------------------------------------------------------


@everywhere
def test_what_is_printed_to_streams_that_were_closed_goes_to_the_log(tmp_path, master):
    application = HELLO + "import sys\nprint('printed out')\nprint('printed err', file=sys.stderr)\n"
    closing = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh")
    server = Master(tmp_path, application, "--logto", "log", master=master, fifo=bool(master), prefix=closing)
    log = Tail(tmp_path / "log")
    try:
        log.wait("printed out")
        log.wait("printed err")
        log.wait("listening on")
        until(lambda: server.get("/").body == b"hello", "it serves") if not master else log.wait("is ready")
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
    finally:
        server.end()
