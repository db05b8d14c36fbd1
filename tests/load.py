"""Constant load for the tests: client processes that count what succeeded and what failed, and how.

Run as a program it is one client process: a few connections, one thread each, that ask as fast as `RATE` allows until
"stop" comes on standard input, and then a report in JSON. Nothing is asked twice: what an ordinary client would hide by
trying again is a failure here. Only a connection that the server has closed before the request is sent is made anew,
as every client of HTTP/1.1 has to; whether it was closed or reset is counted.

Each request has a number of its own, which the application of `RECORDING` writes down with its process id when it
begins and when it ends, so that a test can tell which requests were inside a worker that was killed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

RATE = 40  # requests of one connection in a second, at most
TIMEOUT_SECONDS = 20.0

RECORDING = """
import os
import corelet

PID = os.getpid()
RECORD = os.open("requests", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

def application(environ, start_response):
    number = environ["QUERY_STRING"]
    os.write(RECORD, f"B {number} {PID}\\n".encode())
    try:
        if environ["PATH_INFO"] == "/sleep":
            corelet.sleep(0.1 + hash(number) % 20 / 100)
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{number} {len(body)} {sum(body)} {PID}".encode()]
    finally:
        os.write(RECORD, f"E {number} {PID}\\n".encode())
"""


class Client:
    """One connection of a client process."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.random = random.Random(name)
        self.connection = self._connection()
        self.ok = 0
        self.statuses: dict[str, int] = {}
        self.closed = 0
        self.resets = 0
        self.pid = 0  # of the worker that this connection leads to, if it leads to one
        self.failed: list[tuple[str, str, float, float, int]] = []

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)

    def run(self, stop: threading.Event) -> None:
        count = 0
        while not stop.is_set():
            begin = time.monotonic()
            count += 1
            self._look()
            self._ask(f"{self.name}.{count}", begin)
            stop.wait(max(0.0, begin + 1 / RATE - time.monotonic()))
        self.connection.close()

    def _look(self) -> None:
        """Take a connection that the server has closed since the last reply for what it is."""
        sock = self.connection.sock
        if sock is None or not select.select([sock], [], [], 0)[0]:
            return
        self.closed += 1
        try:
            assert sock.recv(1) == b"", "bytes that nobody asked for"
        except ConnectionResetError:
            self.resets += 1
        self._close()

    def _close(self) -> None:
        self.pid = 0
        self.connection.close()

    def _ask(self, number: str, begin: float) -> None:
        body = self.random.randbytes(self.random.randrange(1, 20_000)) if self.random.random() < 0.15 else b""
        path = "/sleep" if self.random.random() < 0.1 else "/"
        try:
            self.connection.request("POST" if body else "GET", f"{path}?{number}", body or None)
            reply = self.connection.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._failed(number, type(error).__name__, begin)
            self._close()
            return
        self.statuses[str(reply.status)] = self.statuses.get(str(reply.status), 0) + 1
        words, _, pid = data.decode("latin-1").rpartition(" ")
        if reply.status != 200:
            self._failed(number, str(reply.status), begin)
        elif words != f"{number} {len(body)} {sum(body)}":
            self._failed(number, f"another reply: {data[:100]!r}", begin)
        else:
            self.ok += 1
            self.pid = int(pid) if self.connection.sock is not None and reply.getheader("Server") == "corelet" else 0

    def _failed(self, number: str, how: str, begin: float) -> None:
        self.failed.append((number, how, begin, time.monotonic(), self.pid))


def main(words: list[str]) -> None:
    """One client process: its name, then the port of each of its connections."""
    name, *ports = words
    clients = [Client(f"{name}.{number}", int(port)) for number, port in enumerate(ports)]
    stop = threading.Event()
    threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
    for thread in threads:
        thread.start()
    sys.stdin.readline()
    stop.set()
    for thread in threads:
        thread.join()
    statuses: dict[str, int] = {}
    for client in clients:
        for status, count in client.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    print(
        json.dumps(
            {
                "ok": sum(client.ok for client in clients),
                "statuses": statuses,
                "closed": sum(client.closed for client in clients),
                "resets": sum(client.resets for client in clients),
                "failed": [failure for client in clients for failure in client.failed],
            }
        )
    )


@dataclass(frozen=True)
class Failure:
    """A request that was not answered as it should have been.

    Times are of the monotonic clock, which all processes share; `pid` is the worker that its connection led to, or 0 if
    the connection was new, or led to nginx.
    """

    number: str
    how: str
    begin: float
    end: float
    pid: int


@dataclass
class Report:
    """What all client processes have seen."""

    ok: int = 0
    closed: int = 0
    resets: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    failed: list[Failure] = field(default_factory=list)

    def add(self, text: str) -> None:
        found = json.loads(text)
        self.ok += found["ok"]
        self.closed += found["closed"]
        self.resets += found["resets"]
        self.failed += [Failure(*words) for words in found["failed"]]
        for status, count in found["statuses"].items():
            self.statuses[status] = self.statuses.get(status, 0) + count


class Load:
    """Client processes at work."""

    def __init__(self, ports: list[list[int]]) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, __file__, str(number), *map(str, its)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for number, its in enumerate(ports)
        ]  # fmt: skip

    def stop(self) -> Report:
        """End what has been asked, ask nothing more, and count."""
        report = Report()
        for process in self.processes:
            process.stdin.write("stop\n")
            process.stdin.flush()
        for process in self.processes:
            out, _ = process.communicate(timeout=2 * TIMEOUT_SECONDS)
            assert process.returncode == 0
            report.add(out)
        return report


@contextlib.contextmanager
def loading(ports: list[list[int]]) -> Iterator[Load]:
    """Load for the length of a with block; `ports` are those of the connections of each client process."""
    load = Load(ports)
    try:
        yield load
    finally:
        for process in load.processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


@dataclass(frozen=True)
class Record:
    """What the application of RECORDING has written down: the process of each request that began, and which ended."""

    began: dict[str, int]
    ended: set[str]

    @classmethod
    def read(cls, folder: Path) -> Record:
        words = [line.split() for line in (folder / "requests").read_text().splitlines()]
        return cls(
            {number: int(pid) for letter, number, pid in words if letter == "B"},
            {number for letter, number, _ in words if letter == "E"},
        )

    @property
    def cut(self) -> dict[str, int]:
        """The requests that began and did not end, with the process that they were in."""
        return {number: pid for number, pid in self.began.items() if number not in self.ended}


def wait_for_requests(folder: Path, count: int, seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until the application has begun so many more requests than now."""
    path = folder / "requests"
    start = path.stat().st_size if path.exists() else 0
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(FileNotFoundError), open(path) as file:
            file.seek(start)
            if file.read().count("B ") >= count:
                return
        assert time.monotonic() < deadline, f"no {count} requests within {seconds:g} s"
        time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1:])
