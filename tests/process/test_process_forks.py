"""What an application forks: it never becomes a second server, holds nothing of ours, and ends as programs do."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from gates import GATES, Gates
from masters import Master, await_end, is_alive, until_refused
from stage import Peer

ALONE = ()
MASTER = ("--master", "--processes", "1")
PRELOAD = ("--preload", "--processes", "1")
SOCKETS = ("http", "uwsgi", "unix")

everywhere = pytest.mark.parametrize("master", [ALONE, MASTER, PRELOAD], ids=["alone", "master", "preload"])
loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])

FORKS = """
import signal

def in_child(what):
    if what == "raise":
        raise RuntimeError("so it ends")
    if what == "words":
        sys.exit("some words")
    if what == "await":
        corelet.await_(asyncio.sleep(0))
    elif what == "switch":
        import greenlet
        greenlet.getcurrent().parent.switch()
    elif what != "return":
        sys.exit(int(what))

def view_fork(environ, start_response):
    "What the child came to; the parent waits for it."
    pid = os.fork()
    if pid == 0:
        in_child(environ["QUERY_STRING"])
        return text(start_response, "the child answers")
    return text(start_response, os.getpid(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def view_callback(environ, start_response):
    "The same in a callback of the loop."
    loop = asyncio.get_event_loop()
    ended = loop.create_future()
    def callback():
        pid = os.fork()
        if pid == 0:
            return in_child(environ["QUERY_STRING"])
        ended.set_result(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    loop.call_soon(callback)
    return text(start_response, os.getpid(), corelet.await_(ended))

def view_live(environ, start_response):
    "A child that lives on; the reply has no length."
    if os.fork() == 0:
        blocking_gate("child")
        os._exit(0)
    start_response("200 OK", [])
    return (piece for piece in (b"hel", b"lo"))
"""


@contextlib.contextmanager
def served(folder, application, *arguments, master=MASTER):
    """A server with gates, alone or with a master, that serves."""
    gates = Gates(folder)
    server = Master(folder, GATES + application, *arguments, master=master, fifo=bool(master), sockets=SOCKETS)
    try:
        server.wait("listening on")
        if master:
            server.wait_for_generation()
        yield server, gates
    finally:
        gates.close()
        server.end()


def stops(server):
    """It ends in order, and nothing of it is left."""
    server.signal(signal.SIGTERM)
    assert server.exit_code() == 0
    assert not os.path.exists(server.unix)
    until_refused(server.http[1])


@loops
@everywhere
def test_a_child_that_leaves_a_view_ends_with_its_own_code_and_serves_nobody(tmp_path, master, loop):
    codes = {"0": 0, "7": 7, "words": 1, "raise": 1, "return": 0, "await": 0, "switch": 0}
    with served(tmp_path, FORKS, "--loop", loop, master=master) as (server, _gates):
        pid = server.get_pid()
        for kind in SOCKETS:
            for what, code in codes.items():
                assert server.get(f"/fork?{what}", kind).body.decode() == f"{pid} {code}"
        assert {server.get_pid() for _ in range(20)} == {pid}
        stops(server)
        log = server.log.text()
    assert log.count("some words") == 3
    assert log.count("RuntimeError: so it ends") == 3
    assert log.count("which the application forked, failed") == 3
    assert log.count("which the application forked, came back to the server") == 9
    assert "the application failed" not in log


@loops
@everywhere
def test_a_child_that_was_forked_in_a_callback_of_the_loop_ends_too(tmp_path, master, loop):
    with served(tmp_path, FORKS, "--loop", loop, master=master) as (server, _gates):
        pid = server.get_pid()
        for what, code in {"0": 0, "7": 7, "return": 0}.items():
            # uvloop keeps a SystemExit to itself until its turn is over; by then the child has come back.
            expected = 0 if loop == "uvloop" else code
            assert server.get(f"/callback?{what}").body.decode() == f"{pid} {expected}"
        assert {server.get_pid() for _ in range(20)} == {pid}
        stops(server)


@loops
@everywhere
def test_a_child_that_lives_on_holds_neither_clients_nor_sockets(tmp_path, master, loop):
    with served(tmp_path, FORKS, "--loop", loop, master=master) as (server, gates):
        idle = Peer(server)
        assert idle.get("/pid").status == 200
        children = []
        for kind in SOCKETS:
            reply = server.get("/live", kind)  # to its end of file, while the child lives
            assert reply.status == 200
            assert reply.body == (b"hello" if kind != "http" else b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")
            children.append(gates.at("child"))
        stops(server)
        assert idle.ended()
        assert all(is_alive(child.pid) for child in children)
        for child in children:
            child.open()
            await_end(child.pid)


@pytest.mark.parametrize("leaves", ["sys.exit(3)", "raise RuntimeError('so it ends')", "pass"])
@everywhere
def test_a_child_that_was_forked_while_the_application_was_imported_ends_alone(tmp_path, master, leaves):
    application = f"if os.fork() == 0:\n    blocking_gate('child')\n    {leaves}\n"
    with served(tmp_path, application, master=master) as (server, gates):
        child = gates.at("child")
        assert int(server.get("/pid", "unix").body) != child.pid
        child.open()
        await_end(child.pid)
        assert int(server.get("/pid", "unix").body) != child.pid
        assert os.path.exists(server.unix)
        stops(server)
        assert "cannot load" not in server.log.text()


@everywhere
def test_a_child_of_the_import_holds_neither_sockets_nor_the_channel_to_workers(tmp_path, master):
    application = "if os.fork() == 0:\n    blocking_gate('child')\n    os._exit(0)\n"
    with served(tmp_path, application, master=master) as (server, gates):
        child = gates.at("child")
        stops(server)
        assert is_alive(child.pid)
        child.open()


LIBRARIES = """
import concurrent.futures, math, multiprocessing, signal, subprocess, threading

def view_process(environ, start_response):
    context = multiprocessing.get_context(environ["QUERY_STRING"])
    with context.Pool(2) as pool:
        found = pool.map(math.factorial, [3, 4])
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        found.append(pool.submit(math.factorial, 5).result())
    process = context.Process(target=signal.pause)
    process.start()
    process.terminate()
    process.join()
    return text(start_response, *found, process.exitcode)

def view_thread(environ, start_response):
    "Not in a thread of a pool: there multiprocessing itself fails, since its child would join its own thread."
    codes = []
    thread = threading.Thread(target=lambda: codes.append(code_of_a_process(7)))
    thread.start()
    corelet.to_thread(thread.join)
    return text(start_response, *codes)

def code_of_a_process(code):
    process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(code,))
    process.start()
    process.join()
    return process.exitcode

def view_program(environ, start_response):
    done = subprocess.run(["echo", "said"], stdout=subprocess.PIPE, preexec_fn=os.getpid)
    return text(start_response, done.returncode, done.stdout.decode().strip())
"""


@loops
@everywhere
def test_the_libraries_that_make_processes_work_as_ever(tmp_path, master, loop):
    with served(tmp_path, LIBRARIES, "--loop", loop, master=master) as (server, _gates):
        pid = server.get_pid()
        assert server.get("/process?fork").body == b"6 24 120 -15"
        assert server.get("/process?spawn").body == b"6 24 120 -15"
        assert server.get("/thread").body == b"7"
        assert server.get("/program").body == b"0 said"
        assert {server.get_pid() for _ in range(10)} == {pid}
        stops(server)


BESIDE = """
import uwsgi

def handler(number):
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    say("the child of a handler ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def after_request():
    pid = os.fork()
    if pid == 0:
        raise RuntimeError("so it ends")
    say("the child of a hook ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

uwsgi.register_signal(1, "worker", handler)
uwsgi.after_req_hook = after_request

def view_signal(environ, start_response):
    uwsgi.signal(1)
    return text(start_response, os.getpid())
"""


@everywhere
def test_handlers_of_signals_and_hooks_may_fork_too(tmp_path, master):
    with served(tmp_path, BESIDE, master=master) as (server, _gates):
        pid = server.get_pid()
        assert int(server.get("/signal").body) == pid
        server.wait("the child of a handler ended with 7")
        server.wait("the child of a hook ended with 1")
        assert {server.get_pid() for _ in range(10)} == {pid}
        stops(server)
