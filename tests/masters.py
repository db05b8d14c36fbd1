"""A server with a master and workers for the tests, told apart by what the master logs of them.

`Master` is a `Server` that knows who is ready and who has ended; `mastered` and `gated` run one for the length of a
with block, the second with the gates of gates.py in front of the application.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from gates import GATES, Gates
from harness import PATIENCE_SECONDS, ROOT, Log, Server, free_port

HELLO = "def application(e, s):\n    s('200 OK', [])\n    return [b'hello']\n"

WORKER = re.compile(r"worker (\d+) \(pid (\d+)\) (.*)")


class Master(Server):
    """A running master, by default with two workers, an HTTP socket and a fifo.

    With `master=()` there is none, and one process serves. `code` are the folders that corelet comes from; `dev` is
    Python's development mode, which says more and starts in twice the time.
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
        fifo: bool = True,
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
        command += [
            "-m",
            "corelet",
            *master,
            *(("--master-fifo", "fifo") if fifo and (master or "--ini" in arguments) else ()),
        ]
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


def until_refused(port: int) -> None:
    """Wait until nobody listens there any more; a failure names who does."""
    try:
        until(lambda: not accepts(("127.0.0.1", port)), f"port {port} refuses")
    except AssertionError as error:
        raise AssertionError(f"{error}; those who listen: {listeners(port)}") from None


def listeners(port: int) -> list[str]:
    """The processes that have a socket listening on this port of 127.0.0.1: pid and command."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if sockets.intersection(os.readlink(entry) for entry in (process / "fd").iterdir()):
                found.append(f"{process.name} {(process / 'cmdline').read_bytes().decode().replace(chr(0), ' ')}")
    return found


@contextlib.contextmanager
def mastered(folder: Path, application: str | None, *arguments: str, workers: bool = True, **how) -> Iterator[Master]:
    """A master for the length of a with block, ready; ended whatever happens. Without `workers` it has none."""
    server = Master(folder, application, *arguments, **how)
    try:
        if workers:
            server.wait_for_generation()
        else:
            server.wait("listening on ")
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


def moment(line: str) -> datetime.datetime:
    """When a line was logged."""
    return datetime.datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")


class Tail:
    """A log file, to be waited for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def text(self) -> str:
        """All of it so far."""
        return self.path.read_text() if self.path.exists() else ""

    def wait(self, text: str) -> None:
        """Wait until it holds this."""
        until(lambda: text in self.text(), f"{text!r} in {self.path.name}")


def corelet(folder: Path, *words: str) -> tuple[int, str]:
    """Run the command, which ends by itself: its exit code, and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "corelet", *words], cwd=folder, check=False, text=True, timeout=PATIENCE_SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "server"]))},
    )  # fmt: skip
    return done.returncode, done.stdout
