"""A server with a master and workers for the tests, and gates that lead from any of its processes to the test.

`Master` is a `Server` whose workers are told apart by what the master logs of them: who is ready, who has ended. Its
application may have the gates of `GATES` in front of it: a gate is a connection to the test's own socket `gates`, by
which the test learns that somebody has come there, and lets them go on. A gate in a view suspends one request; a
blocking one stops a whole worker, or keeps it from loading, for exactly as long as the test wants.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness import PATIENCE_SECONDS, ROOT, Log, Server, free_port, read_until

GATES = """
import asyncio, os, socket, sys, time
import corelet

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def blocking_gate(name):
    "Stop this process until the test lets it go on, or closes its socket."
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("gates")
        sock.sendall(f"{name} {os.getpid()}\\n".encode())
        return sock.recv(100).decode()

async def waiting_gate(name):
    reader, writer = await asyncio.open_unix_connection("gates")
    try:
        writer.write(f"{name} {os.getpid()}\\n".encode())
        return (await reader.read(100)).decode()
    finally:
        writer.close()

def gate(name):
    "Suspend this request until the test lets it go on."
    return corelet.await_(waiting_gate(name))

def text(start_response, *words):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(map(str, words)).encode()]

def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/") or "pid"
    return globals()["view_" + name](environ, start_response)

def view_pid(environ, start_response):
    return text(start_response, os.getpid())

def view_gate(environ, start_response):
    gate(environ["QUERY_STRING"])
    return text(start_response, os.getpid())

def view_block(environ, start_response):
    blocking_gate(environ["QUERY_STRING"])
    return text(start_response, os.getpid())

"""

WORKER = re.compile(r"worker (\d+) \(pid (\d+)\) (.*)")


class Gate:
    """Somebody of the server who waits; `pid` is the process."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE_SECONDS)
        self.name, _, pid = read_until(sock, b"\n").decode().strip().rpartition(" ")
        self.pid = int(pid)

    def open(self) -> None:
        """Let them go on."""
        with self.sock:
            self.sock.sendall(b"opened")

    def left(self) -> bool:
        """Whether they are gone without having been let go on; waits for it."""
        with self.sock:
            return self.sock.recv(1) == b""


class Gates:
    """The test's end of all gates of a server."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(PATIENCE_SECONDS)
        self._listener.bind(str(folder / "gates"))
        (folder / "gates").chmod(0o666)
        self._listener.listen(100)
        self._waiting: list[Gate] = []
        self._all: list[Gate] = []

    def at(self, name: str) -> Gate:
        """Wait until somebody has come to the gate of this name."""
        while True:
            for gate in self._waiting:
                if gate.name == name:
                    self._waiting.remove(gate)
                    return gate
            self._waiting.append(Gate(self._listener.accept()[0]))
            self._all.append(self._waiting[-1])

    def close(self) -> None:
        """Let everybody go on who still waits."""
        self._listener.close()
        for gate in self._all:
            gate.sock.close()


class Master(Server):
    """A running master, by default with two workers, an HTTP socket and a fifo.

    `code` are the folders that corelet comes from; `dev` is Python's development mode, which says more and
    starts in twice the time.
    """

    def __init__(
        self,
        folder: Path,
        application: str | None,
        *arguments: str,
        sockets: tuple[str, ...] = ("http",),
        master: tuple[str, ...] = ("--master", "--processes", "2"),
        environment: Mapping[str, str] | None = None,
        code: tuple[Path, ...] = (ROOT, ROOT / "server"),
        dev: bool = False,
        prefix: tuple[str, ...] = (),
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.folder = folder
        self.sound = True  # until a test breaks corelet itself
        folder.mkdir(parents=True, exist_ok=True)
        if application is not None:
            (folder / "app.py").write_text(application)
        self.fifo = folder / "fifo"
        self.http = ("127.0.0.1", free_port())
        self.uwsgi = ("127.0.0.1", free_port())
        self.unix = str(folder / "app.sock")
        listening = {
            "http": ("--http-socket", f"127.0.0.1:{self.http[1]}"),
            "uwsgi": ("--socket", f"127.0.0.1:{self.uwsgi[1]}"),
            "unix": ("--uwsgi-socket", self.unix, "--chmod-socket=666"),
        }
        command = [*prefix, sys.executable, *(("-X", "dev", "-W", "ignore::ResourceWarning") if dev else ())]
        command += ["-m", "corelet", *master, "--master-fifo", "fifo"]
        command += [word for kind in sockets for word in listening[kind]]
        if not any(word.startswith(("--wsgi-file", "--module", "--ini")) for word in arguments):
            command += ["--wsgi-file", "app.py"]
        self.process = subprocess.Popen(
            [*command, *arguments], cwd=folder, text=True, errors="backslashreplace", pass_fds=pass_fds,
            env={
                **os.environ, "PYTHONPATH": os.pathsep.join(map(str, code)), "PYTHONUNBUFFERED": "1",
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.log = Log(self.process.stdout)

    # -- what it says ----------------------------------------------------------------------------------------------

    def mark(self) -> int:
        """How many lines the log has: where to wait from."""
        return len(self.log.lines)

    def wait(self, text: str, start: int = 0, seconds: float = PATIENCE_SECONDS) -> str:
        """A line of the log, waited for."""
        return self.log.wait_for(text, seconds, start)

    def worker_lines(self, start: int = 0) -> list[tuple[int, int, str]]:
        """(worker, pid, what the master says of it), in order."""
        matches = [WORKER.search(line) for line in self.log.lines[start:] if f"[{self.pid}]" in line]
        return [(int(match[1]), int(match[2]), match[3]) for match in matches if match]

    def ready(self) -> dict[int, int]:
        """The pids of the workers that are ready and were not told to end, by their numbers."""
        found: dict[int, int] = {}
        for worker, pid, text in self.worker_lines():
            if text == "is ready":
                found[worker] = pid
            elif text.startswith(("retires", "ended", "died", "is killed")) and found.get(worker) == pid:
                del found[worker]
        return found

    def wait_for_worker(self, text: str, start: int = 0, *, worker: int | None = None) -> int:
        """The pid of the first worker of which the master says this from line `start` on."""
        line = self.wait(f"{text}", start) if worker is None else ""
        while worker is not None:
            line = self.wait(f"worker {worker} (pid ", start)
            if text in line:
                break
            start = self.log.lines.index(line, start) + 1
        match = WORKER.search(line)
        assert match, line
        return int(match[2])

    def wait_until_workers(self, count: int) -> None:
        """Wait until so many are ready."""
        start = 0
        while len(self.ready()) != count:
            start = self.log.lines.index(self.wait("worker ", start), start) + 1

    def wait_for_generation(self, start: int = 0) -> int:
        """Wait until a generation is ready; its number."""
        match = re.search(r"generation (\d+) is ready: \d+ workers", self.wait(" workers", self._generation(start)))
        assert match
        return int(match[1])

    def _generation(self, start: int) -> int:
        line = self.wait(" is ready: ", start)
        return self.log.lines.index(line, start)

    # -- orders ----------------------------------------------------------------------------------------------------

    def order(self, letters: str) -> None:
        """Write letters to the master's fifo."""
        with open(self.fifo, "w") as fifo:
            fifo.write(letters)

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        self.process.send_signal(number)

    def reload(self) -> int:
        """SIGHUP, and wait until the new generation is ready; its number."""
        start = self.mark()
        self.signal(signal.SIGHUP)
        return self.wait_for_generation(start)

    def renew(self) -> None:
        """The same, and wait until the workers before have ended, so that only new ones answer."""
        old = self.ready()
        self.reload()
        for pid in old.values():
            self.wait(f"(pid {pid}) ended")

    def wait_until_draining(self, pid: int) -> None:
        """Wait until this worker, which has a request running, accepts no more."""
        start = 0
        while f"[{pid}]" not in (line := self.wait(" running requests", start)):
            start = self.log.lines.index(line, start) + 1

    def exit_code(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the end; the log is complete then."""
        code = self.process.wait(seconds)
        self.log.join()
        return code

    def get_pid(self) -> int:
        """The process that answers a request."""
        return int(self.get("/pid").body)

    def end(self) -> None:
        """Whatever has happened: nothing of it is left."""
        if self.process.poll() is None:
            children = children_of(self.pid)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                for pid in (self.pid, *children, *children_of(self.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.wait()
        self.log.join()


def children_of(pid: int) -> list[int]:
    """The processes that this one has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def await_end(pid: int) -> None:
    """Wait until a process that is no child of ours has ended (or is a zombie of somebody else's)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        import select

        assert select.select([descriptor], [], [], PATIENCE_SECONDS)[0], f"process {pid} does not end"
    finally:
        os.close(descriptor)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def accepts(address: tuple[str, int]) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(address, PATIENCE_SECONDS).close()
    except ConnectionRefusedError:
        return False
    return True


def until(condition, what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for what no descriptor tells: a file that is written, a port that is closed."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def mastered(folder: Path, application: str | None, *arguments: str, **how) -> Iterator[Master]:
    """A master for the length of a with block, ready; ended whatever happens."""
    server = Master(folder, application, *arguments, **how)
    try:
        server.wait_for_generation()
        yield server
        assert not server.sound or "the server itself failed" not in server.log.text()
    finally:
        server.end()


@contextlib.contextmanager
def gated(folder: Path, application: str, *arguments: str, **how) -> Iterator[tuple[Master, Gates]]:
    """The same with gates, whose prelude is put before the application."""
    gates = Gates(folder)
    try:
        with mastered(folder, GATES + application, *arguments, **how) as server:
            try:
                yield server, gates
            finally:
                gates.close()
    finally:
        gates.close()
