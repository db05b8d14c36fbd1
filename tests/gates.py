"""Gates that lead from any process of a server to the test.

An application with `GATES` in front of it can stop at a gate: a connection to the test's own socket `gates`, by which
the test learns that somebody has come there, and lets them go on. A gate in a view suspends one request; a blocking one
stops a whole worker, or keeps it from loading, for exactly as long as the test wants. Unlike the stage of stage.py it
works from several workers at once, and from those that are not ready yet.
"""

from __future__ import annotations

import socket
from pathlib import Path

from harness import PATIENCE_SECONDS, read_until

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

    def fileno(self) -> int:
        """Readable when somebody has come whom `at` has not met yet."""
        return self._listener.fileno()

    def close(self) -> None:
        """Let everybody go on who still waits."""
        self._listener.close()
        for gate in self._all:
            gate.sock.close()
