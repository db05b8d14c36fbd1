"""A new master in the same process: it picks up new code of corelet itself, and keeps sockets, workers and requests."""

from __future__ import annotations

import os
import shutil

import pytest
from harness import ROOT
from masters import HELLO, accepts, gated, is_alive, mastered
from stage import Peer, begin, finish


@pytest.fixture
def copied(tmp_path):
    """The folders of a copy of corelet, whose code a test may change."""
    for name in ("server", "uwsgiproto"):
        shutil.copytree(ROOT / name, tmp_path / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "code", tmp_path / "code" / "server"


def change(copied, name, old, new):
    path = copied[1] / "corelet" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def listening_inodes(pid):
    """The sockets of a process that listen on TCP."""
    with open("/proc/net/tcp") as file:
        listening = {line.split()[9] for line in list(file)[1:] if line.split()[3] == "0A"}
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        link = os.readlink(f"/proc/{pid}/fd/{name}")
        if link.startswith("socket:["):
            found.add(link[8:-1])
    return found & listening


def test_new_code_of_corelet_is_picked_up_and_nothing_is_lost(tmp_path, copied):
    with gated(tmp_path, "", code=copied, sockets=("http", "uwsgi", "unix")) as (server, gates):
        old = server.ready()
        sockets = listening_inodes(server.pid)
        assert len(sockets) == 2
        inode = os.stat(server.unix).st_ino
        running = [begin(server, f"/gate?{kind}", kind) for kind in ("http", "uwsgi", "unix")]
        at = [gates.at(kind) for kind in ("http", "uwsgi", "unix")]
        kept = Peer(server)
        assert kept.get("/pid").status == 200
        change(copied, "__init__.py", '__version__ = "', '__version__ = "9.')
        start = server.mark()
        server.order("x")
        server.wait("new master: exec of", start)
        server.wait("info corelet 9.", start)
        assert server.wait_for_generation(start) == 2
        assert server.process.poll() is None
        assert f"pid {server.pid}, master of 2 workers" in server.wait("info corelet 9.", start)
        assert listening_inodes(server.pid) == sockets
        assert os.stat(server.unix).st_ino == inode
        for kind in ("http", "uwsgi", "unix"):
            assert server.get("/pid", kind).status == 200
        while (reply := kept.get("/pid")).header("Connection") is None:
            assert reply.status == 200
        assert kept.ended()
        for gate, sock in zip(at, running, strict=True):
            gate.open()
            assert finish(sock).body.decode() == str(gate.pid)
        for pid in old.values():
            server.wait(f"(pid {pid}) ended")
        assert server.stop() == 0
        assert not os.path.exists(server.unix)
        assert not server.fifo.exists()
        assert not accepts(server.http)


@pytest.mark.parametrize("name", ["cli.py", "serving/worker.py"])
def test_a_new_program_that_does_not_start_leaves_the_old_master_serving(tmp_path, copied, name):
    with gated(tmp_path, "", code=copied) as (server, gates):
        old = server.ready()
        good = (copied[1] / "corelet" / name).read_text()
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        (copied[1] / "corelet" / name).write_text("no Python\n" + good)
        server.sound = False
        start = server.mark()
        server.order("x")
        assert "generation 1 goes on serving" in server.wait("a new master does not start: ", start)
        assert "SyntaxError" in server.log.text()
        assert server.ready() == old
        assert server.get_pid() in old.values()
        (copied[1] / "corelet" / name).write_text(good)
        server.order("x")
        server.wait("new master: exec of", start)
        server.wait("generation 2 is ready: 2 workers", start)
        gate.open()
        assert finish(running).body.decode() == str(gate.pid)
        assert server.stop() == 0


def test_an_application_that_the_new_master_cannot_load_leaves_the_old_workers_serving(tmp_path):
    with gated(tmp_path, "") as (server, _):
        old = server.ready()
        good = (tmp_path / "app.py").read_text()
        (tmp_path / "app.py").write_text("no Python\n")
        start = server.mark()
        server.order("x")
        server.wait("generation 2 failed: worker", start)
        assert server.ready().items() >= old.items() or set(server.ready().values()) == set(old.values())
        assert server.get_pid() in old.values()
        (tmp_path / "app.py").write_text(good)
        server.renew()
        assert server.get_pid() not in old.values()
        assert server.stop() == 0


def test_a_configuration_that_has_become_wrong_keeps_the_old_master(tmp_path):
    """The words of a command line stay what they were, but files may have gone."""
    (tmp_path / "conf.ini").write_text("[corelet]\nmaster = true\nprocesses = 2\n")
    with gated(tmp_path, "", "--ini", "conf.ini", "--wsgi-file", "app.py", master=()) as (server, _):
        (tmp_path / "conf.ini").write_text("[corelet]\nprozesses = 2\n")
        start = server.mark()
        server.order("x")
        server.wait("a new master does not start: ", start)
        server.wait("conf.ini:2", start)
        assert server.get("/pid").status == 200


def test_reload_exec_makes_of_each_reload_a_new_master(tmp_path, copied):
    with gated(tmp_path, "", "--reload", "exec", code=copied) as (server, _):
        change(copied, "__init__.py", '__version__ = "', '__version__ = "9.')
        assert server.reload() == 2
        server.wait("info corelet 9.")


def test_a_worker_that_dies_during_the_exec_is_replaced(tmp_path):
    """Its end must be seen although no master of then is left to be told."""
    with gated(tmp_path, "if os.path.exists('slow'): blocking_gate('import')\n") as (server, gates):
        (tmp_path / "slow").touch()
        start = server.mark()
        old = server.ready()
        server.order("x")
        coming = [gates.at("import"), gates.at("import")]
        os.kill(old[2], 9)
        server.wait(f"worker 2 (pid {old[2]}) died: killed by SIGKILL", start)
        assert server.get_pid() == old[1]
        for gate in coming:
            gate.open()
        server.wait("generation 2 is ready: 2 workers", start)
        assert len(server.ready()) == 2


def test_requests_of_earlier_masters_are_counted(tmp_path):
    with mastered(tmp_path, "def application(e, s):\n    s('200 OK', [])\n    return [b'x']\n") as server:
        for number in range(2):
            for _ in range(5):
                assert server.get("/").status == 200
            start = server.mark()
            server.order("x")
            server.wait("new master", start)
            assert server.wait_for_generation(start) == number + 2
        assert server.stop() == 0
        assert "stopped after 10 requests" in server.log.text()


def test_a_second_order_during_the_first_does_no_harm(tmp_path):
    with gated(tmp_path, "") as (server, gates):
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        server.order("xxrx")
        server.wait("new master")
        start = server.mark()
        server.signal(1)
        server.wait("reload (SIGHUP)", start)
        server.wait_for_generation(server.mark() - 1)
        gate.open()
        assert finish(running).status == 200
        assert server.get("/pid").status == 200
        assert server.stop() == 0


def test_a_stop_during_the_try_out_stops(tmp_path):
    with gated(tmp_path, "") as (server, _):
        pid = server.get_pid()
        server.order("x")
        server.wait("trying out a new master")
        assert server.stop() == 0
        assert "stopped after 1 requests" in server.log.text()
        assert not is_alive(pid)


PRELOADED = """
import os, time
LOADED_BY = os.getpid()
VERSION = 1

def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{VERSION} {LOADED_BY} {os.getpid()}".encode()]
"""


def test_a_reload_of_a_preloaded_application_is_a_new_master_that_loads_it_again(tmp_path):
    with mastered(tmp_path, PRELOADED, "--preload") as server:
        version, loaded_by, pid = server.get("/").body.decode().split()
        assert (version, int(loaded_by)) == ("1", server.pid)
        assert int(pid) in server.ready().values()
        (tmp_path / "app.py").write_text(PRELOADED.replace("VERSION = 1", "VERSION = 2"))
        server.renew()
        assert server.get("/").body.decode().split()[:2] == ["2", str(server.pid)]
        old = server.ready()
        (tmp_path / "app.py").write_text("no Python\n")
        start = server.mark()
        server.signal(1)
        server.wait("preload failed: ", start)
        server.wait("SyntaxError", start)
        assert server.get("/").body.decode().split()[0] == "2"
        assert is_alive(old[1]) and is_alive(old[2])
        (tmp_path / "app.py").write_text(PRELOADED.replace("VERSION = 1", "VERSION = 3"))
        start = server.mark()
        server.signal(1)
        server.wait_for_generation(start)
        for pid in old.values():
            server.wait(f"(pid {pid}) ended", start)
        assert server.get("/").body.decode().split()[0] == "3"
        assert server.stop() == 0


# ---- what a new master cannot have -----------------------------------------------------------------------------------

INI = "[uwsgi]\nmaster = true\nprocesses = 2\npidfile = app.pid\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("master-fifo = /nope/f", "cannot make master-fifo /nope/f: No such file or directory"),
        ("master-fifo = /tmp", "something that is no fifo is there"),
        ("pidfile = /nope/x.pid", "pidfile /nope/x.pid: cannot be written: No such file or directory"),
        ("pidfile2 = /nope/x.pid", "pidfile2 /nope/x.pid: cannot be written"),
        ("safe-pidfile = words", "expected a process id; got 'words'"),
        ("safe-pidfile = one", "is running; stop it first"),
    ],
)
def test_a_file_that_a_new_master_could_not_make_is_found_before_the_exec(tmp_path, line, reason):
    (tmp_path / "words").write_text("words\n")
    (tmp_path / "one").write_text("1\n")
    (tmp_path / "app.ini").write_text(INI)
    with mastered(tmp_path, HELLO, "--ini", "app.ini", "--wsgi-file", "app.py", master=()) as server:
        old = server.ready()
        (tmp_path / "app.ini").write_text(f"{INI}{line}\n")
        start = server.mark()
        server.order("x")
        assert "generation 1 goes on serving" in server.wait("a new master does not start: ", start)
        assert reason in server.log.text()
        assert server.ready() == old
        assert server.get("/").body == b"hello"
        (tmp_path / "app.ini").write_text(INI)
        start = server.mark()
        server.order("x")
        server.wait("generation 2 is ready", start)
        assert server.stop() == 0
        assert not (tmp_path / "app.pid").exists()


@pytest.mark.parametrize("hook", ["exec:false", "chdir:/nope", "exit:3"])
def test_a_hook_that_fails_in_a_new_master_ends_nothing(tmp_path, hook):
    """It cannot be tried out: it is done once. The server that would end has requests to serve."""
    (tmp_path / "app.ini").write_text(INI)
    with mastered(tmp_path, HELLO, "--ini", "app.ini", "--wsgi-file", "app.py", master=()) as server:
        (tmp_path / "app.ini").write_text(f"{INI}hook-master-start = {hook}\n")
        start = server.mark()
        server.order("x")
        server.wait("the new master goes on without it", start)
        server.wait("generation 2 is ready", start)
        assert server.get("/").body == b"hello"
        assert server.stop() == 0


def test_files_that_became_impossible_after_the_try_out_end_nothing(tmp_path, copied):
    """The application takes the folder away that the try-out has seen, as another process could."""
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "app.ini").write_text(INI)
    with mastered(tmp_path, HELLO, "--ini", "app.ini", "--wsgi-file", "app.py", master=(), code=copied) as server:
        (tmp_path / "app.ini").write_text(f"{INI}master-fifo = run/f\npidfile2 = run/p\n")
        # Run by the new master alone: the try-out does not serve.
        first = "    handed = Handover.from_environment()\n"
        change(copied, "process/start.py", first, f"    os.rmdir({str(folder)!r})\n{first}")
        start = server.mark()
        server.order("x")
        server.wait("cannot be written: No such file or directory", start)
        server.wait("cannot make master-fifo", start)
        server.wait("generation 2 is ready", start)
        assert server.get("/").body == b"hello"
        assert server.stop() == 0


def test_a_configuration_without_a_master_is_no_new_master(tmp_path):
    (tmp_path / "app.ini").write_text("[uwsgi]\nmaster = true\nmaster-fifo = other\n")
    with mastered(tmp_path, HELLO, "--ini", "app.ini", "--wsgi-file", "app.py", master=(), fifo=False) as server:
        (tmp_path / "app.ini").write_text("[uwsgi]\nreload = exec\n")
        start = server.mark()
        with open(tmp_path / "other", "w") as fifo:
            fifo.write("x")
        server.wait("a server without a master cannot take over the workers of one", start)
        assert server.get("/").body == b"hello"
        assert server.stop() == 0
