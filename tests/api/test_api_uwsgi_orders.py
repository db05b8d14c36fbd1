"""What the `uwsgi` module tells of the server, and has it do: with a master, and without."""

from __future__ import annotations

import ast
import os

from harness import running
from masters import gated, until

VIEWS = """
import uwsgi

def view_reload(environ, start_response):
    return text(start_response, uwsgi.reload())

def view_stop(environ, start_response):
    return text(start_response, uwsgi.stop())

def view_workers(environ, start_response):
    return text(start_response, [(w["id"], w["pid"], w["requests"], w["status"]) for w in uwsgi.workers()])

def view_is_a_reload(environ, start_response):
    return text(start_response, uwsgi.is_a_reload, uwsgi.masterpid(), os.getppid())

def view_name(environ, start_response):
    uwsgi.setprocname(environ["QUERY_STRING"])
    return text(start_response, os.getpid())

def view_opt(environ, start_response):
    return text(start_response, uwsgi.opt["mine"], uwsgi.opt[b"mine"], b"mine" in uwsgi.opt, uwsgi.opt.get(b"no", 1),
                uwsgi.opt["env"], uwsgi.opt["workers"], uwsgi.pidfile)
"""

ALONE = (
    "import os, uwsgi\ndef text(s, *w):\n    s('200 OK', [])\n    return [' '.join(map(str, w)).encode()]\n"
    + VIEWS
    + """
def application(environ, start_response):
    return globals()["view_" + environ["PATH_INFO"].strip("/")](environ, start_response)
"""
)


def test_reload_makes_a_new_generation_and_its_workers_know_it(tmp_path):
    with gated(tmp_path / "reload", VIEWS) as (server, _gates):
        assert server.get("/is_a_reload").body == f"False {server.pid} {server.pid}".encode()
        start = server.mark()
        assert server.get("/reload").body == b"True"
        assert server.wait_for_generation(start) == 2
        server.wait("reload (uwsgi.reload() in worker ")
        until(lambda: server.get("/is_a_reload").body.startswith(b"True"), "a worker of the second generation answers")


def test_stop_ends_the_server_in_order(tmp_path):
    with gated(tmp_path / "stop", VIEWS) as (server, _gates):
        assert server.get("/stop").body == b"True"
        assert server.exit_code() == 0
        assert "stopping (uwsgi.stop() in worker " in server.log.text()


def test_without_a_master_stop_ends_in_order_and_reload_says_what_it_needs(tmp_path):
    with running(tmp_path / "alone", ALONE) as server:
        assert server.get("/is_a_reload").body.startswith(b"False 0 ")
        assert server.get("/reload").status == 500
        server.log.wait_for("uwsgi.reload() needs a master, which starts the new workers: give --master")
        assert server.get("/stop").body == b"True"
        assert server.process.wait(20) == 0


def test_workers_shows_all_of_them(tmp_path):
    with gated(tmp_path / "workers", VIEWS) as (server, _gates):
        for _ in range(10):
            server.get("/pid")
        ready = server.ready()

        def counted():
            rows = ast.literal_eval(server.get("/workers").body.decode())
            assert [(worker, pid) for worker, pid, _, _ in rows] == sorted(ready.items())
            assert {status for *_, status in rows} <= {b"busy", b"idle"}
            return sum(requests for _, _, requests, _ in rows) >= 10

        until(counted, "the master has seen what all workers have served")


def test_a_worker_that_died_is_shown_as_its_successor(tmp_path):
    with gated(tmp_path / "died", VIEWS) as (server, _gates):
        before = server.ready()
        start = server.mark()
        os.kill(before[1], 9)
        server.wait_for_worker("is ready", start, worker=1)
        server.wait_until_workers(2)

        def shown():
            rows = ast.literal_eval(server.get("/workers").body.decode())
            return [(worker, pid) for worker, pid, _, _ in rows] == sorted(server.ready().items())

        until(shown, "the new process has the seat")


def test_setprocname_names_the_process(tmp_path):
    with running(tmp_path / "name", ALONE) as server:
        pid = server.get("/name?a_name_of_its_own").body.decode()
        with open(f"/proc/{pid}/comm") as file:
            assert file.read() == "a_name_of_its_o\n"


def test_opt_has_what_was_written_and_keys_of_ones_own(tmp_path):
    folder = tmp_path / "opt"
    folder.mkdir()
    (folder / "app.ini").write_text("[uwsgi]\nmine = yx\nenv = A=%(mine)\nenv = B=2\nworkers = 2\n")
    words = ("--ini", "app.ini", "--pidfile", "pid", "--wsgi-file=app.py")
    with gated(folder, VIEWS, *words, master=("--master",)) as (server, _gates):
        body = server.get("/opt").body.decode()
        assert body == "b'yx' b'yx' True 1 [b'A=yx', b'B=2'] b'2' b'pid'"
