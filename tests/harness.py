"""Real processes for the tests: a corelet server, an nginx in front of it, and raw sockets to talk to them.

Everything listens on loopback, on ports that the kernel chose or in a temporary folder, and is ended by its own process
id. Nothing sleeps: a server is ready when it says so in its log or accepts, and a log line is waited for.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from uwsgiproto.client import Reply, build_request, parse_reply, request_variables

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 20.0  # for anything that will happen on a slow machine; a test that passes never waits so long


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on.

    Below the range that the kernel takes the ports of clients from: one of those could be gone again by the time the
    server wants it.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Log:
    """What a process writes, line by line, to be waited for."""

    def __init__(self, stream) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, text: str, seconds: float = PATIENCE_SECONDS, start: int = 0) -> str:
        """The first line from number `start` on that holds `text`; fails with the whole log otherwise."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                for line in self.lines[start:]:
                    if text in line:
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    raise AssertionError(f"no line with {text!r} in:\n" + "\n".join(self.lines))
                self._changed.wait(left)

    def count(self, text: str) -> int:
        """How many lines hold `text` so far."""
        with self._changed:
            return sum(text in line for line in self.lines)

    def text(self) -> str:
        """All of it so far."""
        with self._changed:
            return "\n".join(self.lines)

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join(PATIENCE_SECONDS)


class Server:
    """A running corelet. `http` and `uwsgi` are (host, port); `unix` is a path, made when asked for."""

    def __init__(
        self, folder: Path, application: str, arguments: tuple[str, ...], *, python: str = sys.executable
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "app.py").write_text(application)
        self.http = ("127.0.0.1", free_port())
        self.uwsgi = ("127.0.0.1", free_port())
        self.unix = str(folder / "app.sock")
        command = [
            python, "-X", "dev", "-W", "ignore::ResourceWarning", "-m", "corelet",
            "--http-socket", f"127.0.0.1:{self.http[1]}",
            "--socket", f"127.0.0.1:{self.uwsgi[1]}",
            "--uwsgi-socket", self.unix,
            "--chmod-socket=666",
        ]  # fmt: skip
        if not any(
            word.startswith(("--wsgi-file", "--module", "-w", "--mount", "--file", "--wsgi")) for word in arguments
        ):
            command += ["--wsgi-file", "app.py"]
        environment = dict(
            os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "server")]), PYTHONUNBUFFERED="1"
        )
        self.process = subprocess.Popen(
            [*command, *arguments], cwd=folder, env=environment, text=True, errors="backslashreplace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.log = Log(self.process.stdout)
        try:
            self.log.wait_for(f"listening on 127.0.0.1:{self.http[1]}")
        except AssertionError:
            self.stop(signal.SIGKILL)
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self.log.join()
        return code

    # -- talking to it ---------------------------------------------------------------------------------------------

    def connect(self, kind: str = "http") -> socket.socket:
        """A connected socket of kind http, uwsgi or unix, with a patient time-out."""
        if kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE_SECONDS)
            sock.connect(self.unix)
            return sock
        return socket.create_connection(self.http if kind == "http" else self.uwsgi, PATIENCE_SECONDS)

    def raw(self, data: bytes, kind: str = "http") -> bytes:
        """Send these bytes and return everything up to the end of file. The sending side stays open."""
        with self.connect(kind) as sock:
            sock.sendall(data)
            return read_all(sock)

    def get(self, target: str = "/", kind: str = "http", method: str = "GET", body: bytes = b"", headers=()) -> Reply:
        """One request, over HTTP (Connection: close) or as a uwsgi packet (kind uwsgi or unix)."""
        if kind == "http":
            lines = [f"{method} {target} HTTP/1.1", "Host: test", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in headers]
            if body or method == "POST":
                lines.append(f"Content-Length: {len(body)}")
            data = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        else:
            variables = request_variables(method, target, [("Host", "test"), *headers], body_bytes=len(body) or None)
            data = build_request(variables, body)
        return parse_reply(self.raw(data, kind), to_head=method == "HEAD")


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of file."""
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def read_until(sock: socket.socket, mark: bytes, already: bytes = b"") -> bytes:
    """Read until `mark` has come; returns all bytes so far."""
    data = already
    while mark not in data:
        piece = sock.recv(65536)
        if not piece:
            raise AssertionError(f"end of file before {mark!r}; so far {data!r}")
        data += piece
    return data


class Nginx:
    """A real nginx on loopback, in the foreground, with everything it writes below one folder.

    `locations` is the text inside one server block; `port` is where it listens; `error_log` holds its error log.
    """

    def __init__(self, folder: Path, locations: str, http: str = "") -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise RuntimeError(
                "these tests need a real nginx: run `make test`, or install it (Debian: apt-get install nginx-light)"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.log_path = folder / "error.log"
        temporary = "\n".join(
            f"{module}_temp_path {folder}/{module};" for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"""
            {user}
            daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
            error_log {self.log_path} info;
            events {{ worker_connections 4096; }}
            http {{
                access_log off; {temporary}
                include {ROOT}/nginx/uwsgi_params;
                {http}
                server {{ listen 127.0.0.1:{self.port}; server_name localhost; {locations} }}
            }}
            """
        )
        self.process = subprocess.Popen(
            [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(self.log_path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"nginx did not start:\n{self.error_log}") from None
                select_pause()

    @property
    def error_log(self) -> str:
        """Its error log so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_for_error(self, *texts: str, start: int = 0) -> str:
        """The first line of the error log, from character `start` on, that holds all of `texts`; fails with the log."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            log = self.error_log[start:]
            for line in log.splitlines():
                if all(text in line for text in texts):
                    return line
            if time.monotonic() > deadline:
                raise AssertionError(f"no line with {texts!r} in nginx's error log:\n{log}")
            select_pause()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)

    def raw(self, data: bytes) -> bytes:
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)


def select_pause() -> None:
    """Give a starting process a moment between two attempts to connect to it."""
    threading.Event().wait(0.02)


@contextlib.contextmanager
def running(folder: Path, application: str, *arguments: str) -> Iterator[Server]:
    """A server for the length of a with block; ended whatever happens."""
    server = Server(folder, application, arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


@contextlib.contextmanager
def fronting(folder: Path, locations: str, http: str = "") -> Iterator[Nginx]:
    """An nginx for the length of a with block."""
    front = Nginx(folder, locations, http)
    try:
        yield front
    finally:
        front.stop()
