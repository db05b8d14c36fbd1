"""The server as a service of its system: background, systemd, users, hooks, daemons beside it; edits in development."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from gates import GATES, Gates
from harness import PATIENCE_SECONDS, ROOT, Server, free_port
from masters import HELLO, Master, Tail, accepts, await_end, corelet, gated, is_alive, mastered
from stage import begin, finish

# ---- background -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def daemonized(folder, application, *arguments):
    """Start a server in the background; (exit code of the launcher, its output, a Server to ask, its log)."""
    (folder / "app.py").write_text(application)
    server = object.__new__(Server)
    server.http = ("127.0.0.1", free_port())
    words = ("--master", "--processes", "2", "--http-socket", f"127.0.0.1:{server.http[1]}", "--wsgi-file", "app.py")
    pidfile = folder / "server.pid"
    try:
        code, text = corelet(folder, *words, "--daemonize", "server.log", "--pidfile", "server.pid", *arguments)
        yield code, text, server, Tail(folder / "server.log")
    finally:
        if pidfile.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pidfile.read_text()), signal.SIGKILL)


def test_daemonize_returns_0_when_the_workers_are_ready(tmp_path):
    with daemonized(tmp_path, HELLO, "--master-fifo", "fifo") as (code, text, server, log):
        assert code == 0, text
        assert "generation 1 is ready: 2 workers" in log.text()  # already
        assert server.get("/").body == b"hello"
        pid = int((tmp_path / "server.pid").read_text())
        assert os.getsid(pid) != os.getsid(0)
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        assert os.readlink(f"/proc/{pid}/fd/1") == os.readlink(f"/proc/{pid}/fd/2") == str(tmp_path / "server.log")
        assert corelet(tmp_path, "--reload", "server.pid")[0] == 0
        log.wait("generation 2 is ready: 2 workers")
        assert corelet(tmp_path, "control", "fifo", "exec")[0] == 0
        log.wait("generation 3 is ready: 2 workers")
        assert int((tmp_path / "server.pid").read_text()) == pid
        assert server.get("/").body == b"hello"
        assert corelet(tmp_path, "--stop", "server.pid")[0] == 0
        await_end(pid)
        assert "stopped after 2 requests" in log.text()
        assert not (tmp_path / "server.pid").exists()


def test_daemonize_says_why_an_application_cannot_be_loaded(tmp_path):
    with daemonized(tmp_path, "import gone\n") as (code, text, server, _):
        assert code == 22
        assert "No module named 'gone'" in text
        assert not accepts(server.http)
        assert not (tmp_path / "server.pid").exists()


def test_a_safe_pidfile_keeps_a_second_server_from_starting(tmp_path):
    with mastered(tmp_path, HELLO, "--safe-pidfile", "server.pid") as server:
        words = ("--http-socket", f"127.0.0.1:{free_port()}", "--wsgi-file", "app.py", "--safe-pidfile", "server.pid")
        code, text = corelet(tmp_path, *words)
        assert code == 1
        assert str(server.pid) in text
        assert server.get("/").body == b"hello"
        assert int((tmp_path / "server.pid").read_text()) == server.pid
        server.order("x")
        server.wait("generation 2 is ready: 2 workers")  # itself it does not keep out
        assert int((tmp_path / "server.pid").read_text()) == server.pid


# ---- systemd --------------------------------------------------------------------------------------------------------

ACTIVATE = (
    sys.executable, "-c",
    "import os, sys\n"
    "os.dup2(int(sys.argv[1]), 3)\n"
    "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n",
)  # fmt: skip


def test_a_socket_of_systemd_is_served_and_stays_open_over_reloads(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        prefix = (*ACTIVATE, str(listener.fileno()))
        how = {"prefix": prefix, "pass_fds": (listener.fileno(),), "sockets": ()}
        with mastered(tmp_path, HELLO, "--protocol", "http", **how) as server:
            server.http = listener.getsockname()
            assert server.get("/").body == b"hello"
            server.renew()
            assert server.get("/").body == b"hello"
            server.order("x")
            server.wait("generation 3 is ready: 2 workers")
            assert server.get("/").body == b"hello"
            assert server.stop() == 0
        with socket.create_connection(listener.getsockname()):  # it is systemd's: the next server finds it
            pass


def test_systemd_is_told_what_goes_on(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(PATIENCE_SECONDS)
        heard = []

        def hear(word):
            while True:
                heard.append(notified.recv(10_000).decode().splitlines())
                if word in heard[-1]:
                    return heard[-1]

        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        application = "def view_names(e, s): return text(s, *sorted(os.environ))\n"
        (tmp_path / "app.ini").write_text("[uwsgi]\nprocesses = 2\n")
        words = ("--ini", "app.ini", "--wsgi-file", "app.py")
        with gated(tmp_path, application, *words, environment=environment) as (server, _):
            hear("READY=1")
            hear("WATCHDOG=1")
            names = server.get("/names").body.decode().split()
            assert "PATH" in names
            assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(names)  # a worker is not the service
            server.signal(signal.SIGHUP)
            assert any(line.startswith("MONOTONIC_USEC=") for line in hear("RELOADING=1"))
            hear("READY=1")
            server.wait("generation 2 is ready")
            (tmp_path / "app.py").rename(tmp_path / "gone.py")
            server.signal(signal.SIGHUP)
            hear("RELOADING=1")
            hear("READY=1")  # as it was
            (tmp_path / "gone.py").rename(tmp_path / "app.py")
            good = (tmp_path / "app.ini").read_text()
            (tmp_path / "app.ini").write_text("[uwsgi]\nprozesses = 2\n")
            server.order("x")
            hear("RELOADING=1")
            assert "STATUS=serving; the last reload failed" in hear("READY=1")
            (tmp_path / "app.ini").write_text(good)
            server.order("x")
            hear("RELOADING=1")
            server.wait("new master: exec of")
            hear("WATCHDOG_USEC=600000000")  # the new program feeds nobody while it preloads
            hear("WATCHDOG_USEC=1000000")
            hear("READY=1")
            hear("WATCHDOG=1")
            server.signal(signal.SIGTERM)
            hear("STOPPING=1")
            assert server.exit_code() == 0
        order = [word for lines in heard for word in lines if word in ("READY=1", "RELOADING=1", "STOPPING=1")]
        assert order == ["READY=1", *["RELOADING=1", "READY=1"] * 4, "STOPPING=1"]


# ---- users ----------------------------------------------------------------------------------------------------------

WHO = """
import os
def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{os.getuid()} {os.geteuid()} {os.getgid()} {os.getegid()} {sorted(os.getgroups())}".encode()]
"""


# Root as it comes from a login: in groups that nobody must not keep.
IN_GROUPS = (
    sys.executable, "-c", "import os, sys; os.setgroups([0, 4, 6]); os.execvp(sys.argv[1], sys.argv[1:])"
)  # fmt: skip


@pytest.fixture
def as_nobody(monkeypatch):
    """A folder of nobody's, with an interpreter and packages that nobody can read."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    nobody = pwd.getpwnam("nobody")
    packages = [path for path in site.getsitepackages() if os.path.isdir(path)]
    path = os.pathsep.join(map(str, [ROOT, ROOT / "server", *packages]))
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        with contextlib.suppress(OSError):
            done = subprocess.run(
                [python, "-c", "import asyncio, json, corelet.cli, greenlet, httptools, construct, uwsgiproto"],
                check=False, capture_output=True, cwd="/", user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[],
                env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}, timeout=PATIENCE_SECONDS,
            )  # fmt: skip
            if done.returncode == 0:
                break
    else:
        pytest.skip("nobody may read this Python")
    monkeypatch.setattr(sys, "executable", python)
    folder = Path(tempfile.mkdtemp(prefix="corelet-"))
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    yield folder, (ROOT, ROOT / "server", *map(Path, packages))
    shutil.rmtree(folder)


def ids_of(pid):
    """({uids}, {gids}, [groups]) of a process, as the kernel has them."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return set(map(int, lines["Uid"].split())), set(map(int, lines["Gid"].split())), lines["Groups"].split()


def test_master_and_workers_become_the_user_that_is_named(as_nobody):
    folder, code = as_nobody
    uid, gid = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid
    arguments = ("--uid", "nobody", "--gid", "nogroup", "--pidfile", "server.pid", "--chown-socket", "nobody")
    with mastered(folder, WHO, *arguments, sockets=("http", "unix"), code=code, prefix=IN_GROUPS) as server:
        for pid in (server.pid, *server.ready().values()):
            uids, gids, groups = ids_of(pid)
            assert (uids, gids) == ({uid}, {gid})
            assert set(groups) <= {str(gid)}
        for kind in ("http", "unix"):
            assert server.get("/", kind).body.decode().startswith(f"{uid} {uid} {gid} {gid} ")
        server.renew()
        os.kill(server.ready()[1], signal.SIGKILL)
        server.wait("died: killed by SIGKILL")
        server.wait_until_workers(2)
        assert server.get("/", "unix").status == 200
        start = server.mark()
        server.order("x")
        server.wait("new master", start)
        server.wait("generation 3 is ready: 2 workers", start)
        assert server.get("/", "unix").body.decode().startswith(f"{uid} ")
        assert server.stop() == 0
        assert not os.path.exists(server.unix)
        assert not accepts(server.http)


def test_master_as_root_has_workers_of_another_user(as_nobody):
    folder, code = as_nobody
    uid = pwd.getpwnam("nobody").pw_uid
    with mastered(folder, WHO, "--uid", "nobody", "--master-as-root", code=code, prefix=IN_GROUPS) as server:
        assert ids_of(server.pid)[0] == {0}
        for pid in server.ready().values():
            assert ids_of(pid)[0] == {uid}
            assert not {"0", "4", "6"} & set(ids_of(pid)[2])
        server.renew()
        assert server.get("/").body.decode().startswith(f"{uid} {uid} ")


def test_chroot_is_refused_with_what_to_use_instead(tmp_path):
    (tmp_path / "app.py").write_text(HELLO)
    words = ("--master", "--http-socket", f"127.0.0.1:{free_port()}", "--wsgi-file", "app.py", "--chroot", "/srv")
    code, text = corelet(tmp_path, *words)
    assert code == 1
    assert "chroot /srv: not supported" in text
    assert "Traceback" not in text


# ---- hooks, daemons -------------------------------------------------------------------------------------------------


def test_hooks_run_at_their_points(tmp_path):
    hooks = [
        word
        for point in ("asap", "as-root", "as-user", "master-start", "post-fork", "pre-app", "post-app", "accepting")
        for word in (f"--hook-{point}", f"print:at {point}.")
    ]
    ends = ("--hook-as-user-atexit", "exec:touch ended", "--exec-asap", "touch begun")
    with mastered(tmp_path, HELLO, *hooks, *ends, "--processes", "1") as server:
        assert (tmp_path / "begun").exists()
        said = [line.partition("at ")[2] for line in server.log.lines if " at " in line and line.endswith(".")]
        assert said == [
            "asap.", "as-root.", "as-user.", "master-start.", "post-fork.", "pre-app.", "post-app.", "accepting."
        ]  # fmt: skip
        assert not (tmp_path / "ended").exists()
        assert server.stop() == 0
        assert (tmp_path / "ended").exists()


def test_a_hook_gives_a_signal_another_order(tmp_path):
    with mastered(tmp_path, HELLO, "--hook-master-start", "unix_signal:15 grace_them_all") as server:
        start = server.mark()
        server.signal(signal.SIGTERM)
        server.wait("reload (SIGTERM): starting generation 2", start)
        server.wait("generation 2 is ready: 2 workers")
        assert server.stop(signal.SIGINT) == 0


DAEMON = GATES + "blocking_gate('daemon')\n"


def test_an_attached_daemon_is_kept_alive_and_ends_with_the_server(tmp_path):
    gates = Gates(tmp_path)
    (tmp_path / "daemon.py").write_text(DAEMON.replace("import corelet\n", ""))
    with mastered(tmp_path, HELLO, "--attach-daemon", f"{sys.executable} daemon.py") as server:
        try:
            first = gates.at("daemon").pid
            os.kill(first, signal.SIGKILL)
            second = gates.at("daemon").pid
            assert second != first
            server.wait(f"(pid {first}) died: killed by SIGKILL; started again at once")
            server.renew()
            start = server.mark()
            server.order("x")
            server.wait("new master", start)
            server.wait("generation 3 is ready: 2 workers", start)
            assert is_alive(second)
            assert server.log.count("started (pid") == 2  # it lives through reloads and a new master
            assert server.stop() == 0
            await_end(second)
        finally:
            gates.close()


# ---- development ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["watchfiles", "polling"])
def test_an_edit_reloads_and_a_syntax_error_keeps_the_old_worker(tmp_path, how):
    code = [ROOT, ROOT / "server"]
    if how == "polling":
        (tmp_path / "stub").mkdir()
        (tmp_path / "stub" / "watchfiles.py").write_text('raise ImportError("No module named watchfiles")\n')
        code.insert(0, tmp_path / "stub")
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "part.py").write_text("TEXT = 'one'\n")
    application = HELLO.replace("b'hello'", "part.TEXT.encode()")
    with mastered(folder, "import part\n" + application, "--py-autoreload", "1", code=tuple(code)) as server:
        assert server.get("/").body == b"one"
        server.wait("files are watched")
        old = server.ready()
        (folder / "part.py").write_text("TEXT = 'twice'\n")
        server.wait("reload (py-autoreload ")
        server.wait("generation 2 is ready: 2 workers")
        for pid in old.values():
            server.wait(f"(pid {pid}) ended")
        assert server.get("/").body == b"twice"
        old = server.ready()
        start = server.mark()
        while server.log.count("files are watched") < 2:
            server.wait("files are watched", start)
        (folder / "app.py").write_text("import part\nno Python\n")
        server.wait("the running workers go on", start)
        server.wait("app.py", start)
        assert server.get("/").body == b"twice"
        assert server.ready() == old
        (folder / "app.py").write_text("import part\n" + application.replace("part.TEXT", "'three'"))
        server.wait("generation 3 is ready: 2 workers", start)
        for pid in old.values():
            server.wait(f"(pid {pid}) ended")
        assert server.get("/").body == b"three"


def test_an_edit_while_the_application_is_loaded_is_not_lost(tmp_path):
    """Nobody else watches yet, and the new worker sees the file for the first time when it serves."""
    application = "import part\nif part.WAIT: blocking_gate('load')\ndef view_part(e, s): return text(s, part.TEXT)\n"
    (tmp_path / "part.py").write_text("WAIT = 1\nTEXT = 'first'\n")
    gates = Gates(tmp_path)
    server = Master(tmp_path, GATES + application, "--py-autoreload", "1", master=("--master",))
    try:
        gate = gates.at("load")
        (tmp_path / "part.py").write_text("WAIT = 0\nTEXT = 'second'\n")
        gate.open()
        server.wait("part.py, written while it was loaded): starting generation 2")
        server.wait("generation 2 is ready: 1 workers")
        server.wait(f"(pid {gate.pid}) ended")
        assert server.get("/part").body == b"second"
    finally:
        gates.close()
        server.end()


def test_an_application_that_writes_what_it_imports_is_loaded_twice_and_not_for_ever(tmp_path):
    (tmp_path / "made.py").write_text("X = 0\n")
    application = "import made\nopen('made.py', 'w').write('X = 1\\n')\n" + HELLO
    with mastered(tmp_path, application, "--py-autoreload", "1", master=("--master",)) as server:
        server.wait("made.py, written while it was loaded): starting generation 2")
        server.wait("generation 2 is ready: 1 workers")
        server.wait("made.py was written while it was loaded, again: no reload for that")
        assert server.get("/").body == b"hello"
        assert server.log.count("starting generation") == 1


def test_a_request_that_has_begun_finishes_over_an_edit(tmp_path):
    with gated(tmp_path, "", "--py-autoreload", "1") as (server, gates):
        server.wait("files are watched")
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        (tmp_path / "app.py").write_text((tmp_path / "app.py").read_text() + "\nX = 1\n")
        server.wait("generation 2 is ready: 2 workers")
        gate.open()
        assert finish(running).body.decode() == str(gate.pid)


def test_a_name_in_ps_is_what_was_asked_for(tmp_path):
    server = Master(tmp_path, HELLO, "--auto-procname", "--procname-prefix-spaced", "shop")
    try:
        server.wait_for_generation()
        titles = {Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode() for pid in server.ready().values()}
        assert titles == {"shop corelet worker 1", "shop corelet worker 2"}
        assert Path(f"/proc/{server.pid}/cmdline").read_bytes().rstrip(b"\0") == b"shop corelet master"
        server.order("x")  # the words of the command line are another thing
        server.wait("new master")
        server.wait("generation 2 is ready: 2 workers")
    finally:
        server.end()
