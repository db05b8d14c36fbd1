"""SIGHUP reads the configuration again: what is good serves, what is not changes nothing and says where it is wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

import pytest
from gates import GATES, Gates
from harness import PATIENCE_SECONDS, free_port
from masters import mastered, until, until_refused
from stage import Peer, begin, finish, packet

SHOWS = """
import os
def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{os.environ.get('NAME')} {os.getpid()}".encode()]
"""


class Ini:
    """A configuration file, and what it says."""

    def __init__(self, folder):
        self.path = folder / "conf.ini"
        self.says = {"master": "true", "processes": "2", "wsgi-file": "app.py", "env": "NAME=one"}
        folder.mkdir(exist_ok=True)

    def write(self, **changes):
        self.says |= {name.replace("_", "-"): str(value) for name, value in changes.items()}
        lines = [f"{name} = {value}" for name, value in self.says.items()]
        self.path.write_text("\n".join(["[uwsgi]", *lines, ""]))


@pytest.fixture
def ini(tmp_path):
    return Ini(tmp_path)


def configured(folder, *arguments, application=SHOWS):
    return mastered(folder, application, "--ini", "conf.ini", *arguments, sockets=(), master=())


def move(server, port):
    server.http = ("127.0.0.1", port)


def test_sighup_reads_the_configuration_again(tmp_path, ini):
    old, new = free_port(), free_port()
    ini.write(http_socket=f"127.0.0.1:{old}")
    with configured(tmp_path) as server:
        move(server, old)
        assert server.get("/").body.startswith(b"one ")
        ini.write(http_socket=f"127.0.0.1:{new}", processes=3, env="NAME=two")
        start = server.mark()
        server.renew()
        server.wait("generation 2 is ready: 3 workers", start)
        move(server, new)
        assert server.get("/").body.startswith(b"two ")
        until_refused(old)
        assert len(server.ready()) == 3
        assert server.stop() == 0


def test_requests_on_a_socket_that_goes_are_finished(tmp_path, ini):
    old, new = free_port(), free_port()
    ini.write(http_socket=f"127.0.0.1:{old}")
    ini.write(socket="one.sock")
    with configured(tmp_path) as server:
        move(server, old)
        server.unix = str(tmp_path / "one.sock")
        http, unix = Peer(server), server.connect("unix")
        unix.sendall(packet("/")[:-3])
        assert http.get("/").status == 200
        ini.write(http_socket=f"127.0.0.1:{new}", socket="two.sock")
        server.reload()
        assert http.get("/").body.startswith(b"one ")
        unix.sendall(packet("/")[-3:])
        assert b"one " in finish(unix).body
        until(lambda: not (tmp_path / "one.sock").exists(), "the old unix socket is removed")
        server.unix = str(tmp_path / "two.sock")
        assert server.get("/", "unix").status == 200
        http.sock.close()


def test_workers_reload_and_replacement_take_the_configuration_as_it_is(tmp_path, ini):
    ini.write(http_socket=f"127.0.0.1:{(port := free_port())}")
    with configured(tmp_path) as server:
        move(server, port)
        ini.write(env="NAME=two")
        start = server.mark()
        old = server.ready()
        server.order("w")
        assert server.wait_for_generation(start) == 2
        os.kill(server.ready()[1], signal.SIGKILL)
        server.wait_for_worker("is ready", server.log.lines.index(server.wait("died: killed", start)), worker=1)
        assert old.keys() == server.ready().keys()
        assert server.get("/").body.startswith(b"one ")


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("[uwsgi]\nprocesses = two\nhttp-socket = :1\n", "conf.ini:2"),
        ("[uwsgi]\nmaster = true\nprozesses = 2\nhttp-socket = :1\n", "conf.ini:3"),
        (None, "conf.ini"),
    ],
    ids=["value", "name", "missing"],
)
def test_a_broken_configuration_changes_nothing_and_says_where(tmp_path, ini, broken, says):
    ini.write(http_socket=f"127.0.0.1:{(port := free_port())}")
    with configured(tmp_path) as server:
        move(server, port)
        old = server.ready()
        if broken is None:
            ini.path.unlink()
        else:
            ini.path.write_text(broken)
        start = server.mark()
        server.signal(signal.SIGHUP)
        line = server.wait("everything stays as it was", start)
        server.wait(says, start)
        assert "SIGHUP" in line
        assert server.get("/").body.startswith(b"one ")
        assert server.ready() == old
        ini.write(env="NAME=two")
        server.renew()
        assert server.get("/").body.startswith(b"two ")


def test_a_port_that_is_taken_changes_nothing(tmp_path, ini):
    ini.write(http_socket=f"127.0.0.1:{(port := free_port())}")
    with configured(tmp_path) as server, socket.create_server(("127.0.0.1", 0)) as other:
        move(server, port)
        old = server.ready()
        ini.write(http_socket=f"127.0.0.1:{other.getsockname()[1]}")
        start = server.mark()
        server.signal(signal.SIGHUP)
        server.wait("everything stays as it was", start)
        assert server.ready() == old
        assert server.get("/").body.startswith(b"one ")


def test_a_generation_that_fails_gives_the_old_configuration_back(tmp_path, ini):
    old, new = free_port(), free_port()
    ini.write(http_socket=f"127.0.0.1:{old}")
    with configured(tmp_path) as server:
        move(server, old)
        (tmp_path / "bad.py").write_text("no Python\n")
        ini.write(http_socket=f"127.0.0.1:{new}", wsgi_file="bad.py", processes=3, env="NAME=two")
        server.signal(signal.SIGHUP)
        server.wait("generation 2 failed")
        until_refused(new)
        server.order("d")
        server.wait("workers: 2 wanted, generation 1 serves")
        os.kill(server.ready()[1], signal.SIGKILL)  # its successor is as it was
        server.wait("died: killed by SIGKILL")
        server.wait_until_workers(2)
        bodies = {server.get("/").body.split()[0] for _ in range(20)}
        assert bodies == {b"one"}


def test_a_generation_that_fails_leaves_the_mercies_as_they_were(tmp_path, ini):
    ini.write(http_socket=f"127.0.0.1:{(port := free_port())}", processes=1)
    gates = Gates(tmp_path)
    with configured(tmp_path, application=GATES) as server:
        move(server, port)
        (tmp_path / "bad.py").write_text("no Python\n")
        ini.write(wsgi_file="bad.py", reload_mercy="0.1")
        server.signal(signal.SIGHUP)
        server.wait("generation 2 failed")
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        server.signal(signal.SIGTERM)
        server.wait_until_draining(gate.pid)
        running.settimeout(1)
        with contextlib.suppress(TimeoutError):
            assert not running.recv(1000), "it was unwound"
        running.settimeout(PATIENCE_SECONDS)
        gate.open()
        assert finish(running).body.decode() == str(gate.pid)
        assert server.exit_code() == 0
    gates.close()
