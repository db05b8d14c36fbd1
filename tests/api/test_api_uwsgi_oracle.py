"""The `uwsgi` module against uWSGI itself: the same application under both, view by view.

Where a uwsgi is found ($CORELET_UWSGI, or .venv-bench/bin/uwsgi as bench/peers.sh makes it) it is asked as well, with
`--async 10 --greenlet`; its answers are recorded here (2.0.31 on CPython 3.11), so that the test says the same without
it. DIFFERS is where corelet answers otherwise, and why.
"""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from harness import PATIENCE_SECONDS, ROOT, Log, free_port, read_all, read_until, select_pause
from masters import Master, mastered

VIEWS = Path(__file__).with_name("uwsgi_views.py")
FILE_TEXT = "('a file',)"
OPTIONS = (
    "--async", "10", "--greenlet", "--wsgi-file", "app.py", "--locks", "2", "--pidfile", "pid",
    "--log-format", "line %(uri) %(mine) %(other) %(var.ADDED)",
)  # fmt: skip

WORKER_KEYS = [
    "apps", "avg_rt", "delta_requests", "exceptions", "id", "last_spawn", "pid", "requests", "respawn_count", "rss",
    "running_time", "signals", "status", "tx", "vsz",
]  # fmt: skip
APP_KEYS = [
    "callable", "chdir", "exceptions", "id", "interpreter", "modifier1", "mountpoint", "requests", "startup_time",
]  # fmt: skip

ANSWERS: dict[str, tuple[object, ...]] = {
    "async_sleep": (b"", True, None, True, True, True, True, True, True, -1),
    "a_chunk_is_sent_before_the_wait": (True,),
    "wait_fd_read": (-1, b"", True, True, True, -1, None, "absent", True, True, True, True, True, b""),
    "wait_fd_write": (b"", True, True, True, -1),
    "any_of_several": (True, b"x", -1, True, True, b"x", -1, True, -1, True),
    "generator": (True, True, None, True, None, True, b"x", True, True, True, None, True),
    "wrong_descriptors": ("OSError",) * 3 + ("TypeError",) * 5,
    "one_descriptor_twice": (b"", "OSError", False),
    "async_connect": (
        "int", True, True, None, True, b"hi", 4096, 100, True, None, None, True, None, False, "OSError",
    ),
    "async_connect_to_a_path": ("int", True, True, b"hi"),
    "connect": ("int", True, b"hello", True, b"x", None, None),
    "what_fails_answers": (-1, -1, -1, -1, None, None, None, False, False),
    "connection_fd": ("int", 12, True),
    "chunked_read_without_chunks": ("OSError",),
    "cl": (0,),
    "env": ("y", True, True),
    "environ_keys": ("bytes", "int", "bytes", "NoneType", True, True),
    "logvar": (None, None, b"42", None, b"43", None, b"x y"),
    "add_var": (True, True, None),
    "locks": (False, None, True, True, False, None, False, None, None, True, None) + ("ValueError",) * 4,
    "sendfile": ("a file",),
    "sendfile_open": ("a file",),
    "set_user_harakiri": (None, None),
    "requests": ("int", 0, 0),
    "facts": (
        1, True, 0, 1, 10, 1, False, None, None, b"2.0.31", (2, 0, 31, 0), "bytes", True, "int", True, "int", ["int"],
        True, None, 0, 0, "ValueError", 0, None, b"pid",
    ),
    "measures": (["int", "int"], True, True),
    "opt": (True, b"10", True, b"1", b"2", b"line %(uri) %(mine) %(other) %(var.ADDED)", True),
    "workers": ("tuple", 1, WORKER_KEYS, APP_KEYS, 1, True, b"busy", 0, ["bytes", "int", "tuple"]),
    "magic_table": (
        [b"%", b"(", b"G", b"T", b"U", b"V", b"[", b"g", b"h", b"k", b"t", b"u", b"v"],
        str(os.getuid()).encode(), True, b"2.0.31",
    ),
    "log": (True, None),
    "setprocname": (None,),
}  # fmt: skip

DIFFERS: dict[str, tuple[tuple[object, ...], str]] = {
    "one_descriptor_twice": ((b"", b"", True), "both directions of one descriptor can be waited for"),
    "chunked_read_without_chunks": ((b"",), "it reads any body, chunked or not; here there is none"),
    "add_var": ((True, True, "b"), "the variable stands in the environ, not only in the server's own copy"),
    "facts": (
        (*ANSWERS["facts"][:-2], b"asyncio", b"pid"),
        "uWSGI has a name here under --asyncio only, which is the loop that corelet is",
    ),
}

FIRST, SECOND = b"5\r\nhello\r\n", b"6\r\nworld!\r\n0\r\n\r\n"


class Uwsgi:
    """A running uWSGI with the views."""

    def __init__(self, program: str, folder: Path) -> None:
        self.address = ("127.0.0.1", free_port())
        self.process = subprocess.Popen(
            [program, "--master", "--workers", "1", "--http-socket", f"127.0.0.1:{self.address[1]}", *OPTIONS],
            cwd=folder, text=True, errors="backslashreplace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.log = Log(self.process.stdout)
        self.log.wait_for("spawned uWSGI worker 1")

    def connect(self) -> socket.socket:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(self.address, PATIENCE_SECONDS)
            select_pause()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.join()


def program() -> str | None:
    """The uwsgi to compare with, if there is one."""
    named = os.environ.get("CORELET_UWSGI")
    if named:
        assert os.access(named, os.X_OK), f"CORELET_UWSGI={named} is no program"
        return named
    found = ROOT / ".venv-bench" / "bin" / "uwsgi"
    return str(found) if os.access(found, os.X_OK) else None


def prepared(folder: Path) -> Path:
    folder.mkdir()
    (folder / "app.py").write_text(VIEWS.read_text())
    (folder / "file.txt").write_text(FILE_TEXT)
    return folder


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """(corelet, uWSGI or None)"""
    folder = tmp_path_factory.mktemp("oracle")
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(
            mastered(prepared(folder / "corelet"), None, *OPTIONS, "--workers", "1", master=("--master",))
        )
        theirs = None
        if (found := program()) is not None:
            theirs = Uwsgi(found, prepared(folder / "uwsgi"))
            stack.callback(theirs.stop)
        yield ours, theirs


def ask(server: Master | Uwsgi, name: str) -> tuple[object, ...]:
    return read_answer(server, f"GET /{name} HTTP/1.0\r\nHost: test\r\n\r\n".encode())


def read_answer(server: Master | Uwsgi, request: bytes) -> tuple[object, ...]:
    with server.connect() as sock:
        sock.sendall(request)
        body = read_all(sock).partition(b"\r\n\r\n")[2].decode()
    found = ast.literal_eval(body)
    assert isinstance(found, tuple), body
    return found


def both(servers, name: str) -> tuple[object, ...]:
    """What uWSGI answers: asked now if it is there, and as it was recorded."""
    theirs = servers[1]
    if theirs is not None:
        assert ask(theirs, name) == ANSWERS[name], "uWSGI itself answers otherwise than is recorded"
    return ANSWERS[name]


@pytest.mark.parametrize("name", sorted(set(ANSWERS) - {"requests"} - set(DIFFERS)))
def test_a_name_of_the_module_answers_as_uwsgis(servers, name):
    assert ask(servers[0], name) == both(servers, name)


@pytest.mark.parametrize("name", sorted(DIFFERS))
def test_a_name_answers_otherwise_only_where_the_table_says_why(servers, name):
    expected, why = DIFFERS[name]
    assert ask(servers[0], name) == expected, why
    assert both(servers, name) != expected, "corelet answers as uWSGI does: take it out of the table"


def test_request_id_and_total_requests_count_what_has_ended(tmp_path):
    with mastered(prepared(tmp_path / "counting"), None, *OPTIONS, "--workers", "1", master=("--master",)) as server:
        assert ask(server, "requests") == ANSWERS["requests"]
        assert ask(server, "requests") == ("int", 1, 1)


def test_the_access_line_has_the_applications_own_variables(servers):
    ours, theirs = servers
    lines = []
    for server in filter(None, (ours, theirs)):
        ask(server, "logvar")
        lines.append(server.log.wait_for("line /logvar"))
        ask(server, "cl")
        lines.append(server.log.wait_for("line /cl"))
    assert lines in (["line /logvar 43 x y -", "line /cl - - -"], ["line /logvar 43 x y -", "line /cl - - -"] * 2)


def post(target: str, *more: bytes) -> list[bytes]:
    head = f"POST /{target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head.encode(), *more]


def in_pieces(server: Master | Uwsgi, target: str) -> tuple[object, ...]:
    """The second chunk is sent when the server has had time to take the first for itself."""
    with server.connect() as sock:
        for piece in post(target, FIRST):
            sock.sendall(piece)
        for _ in range(15):
            select_pause()
        sock.sendall(SECOND)
        return ast.literal_eval(read_all(sock).partition(b"\r\n\r\n")[2].decode())


def test_chunks_are_read_as_they_come(servers):
    for server in filter(None, servers):
        assert in_pieces(server, "chunked_read") == (b"hello", b"world!", b"", b"")


def test_chunked_read_nb_answers_none_until_there_is_something(servers):
    for server in filter(None, servers):
        with server.connect() as sock:
            sock.sendall(post("chunked_read_nb")[0])
            read_until(sock, b"None,")
            sock.sendall(FIRST)
            read_until(sock, b"b'hello',")
            sock.sendall(SECOND)
            rest = read_all(sock)
        assert 0 <= rest.find(b"b'world!',") < rest.find(b"b'',")


def test_a_chunk_that_does_not_come_in_time_is_an_os_error(servers):
    for server in filter(None, servers):
        with server.connect() as sock:
            for piece in post("chunked_read_limit", FIRST):
                sock.sendall(piece)
            answer = read_until(sock, b")").partition(b"\r\n\r\n")[2]
        assert ast.literal_eval(answer.decode()) == (b"hello", True, "OSError", True)


def test_disconnect_ends_the_reply_and_not_the_request(servers):
    for server in filter(None, servers):
        with server.connect() as sock:
            sock.sendall(b"GET /disconnect HTTP/1.0\r\nHost: test\r\n\r\n")
            assert read_all(sock).endswith(b"\r\n\r\n('one', ")


def test_a_lock_that_a_request_leaves_locked_is_given_back_with_a_warning(servers):
    """uWSGI keeps it: whoever locks it next waits for ever."""
    ours, theirs = servers
    assert ask(ours, "left_locked") == (True,)
    assert ask(ours, "is_locked_1") == (False,)
    ours.log.wait_for("a request ended without unlocking: uwsgi.unlock(1) was done for it")
    if theirs is not None:
        assert ask(theirs, "left_locked") == (True,)
        assert ask(theirs, "is_locked_1") == (True,)
