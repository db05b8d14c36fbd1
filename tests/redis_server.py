"""A real Redis for the tests: on a port of its own and a unix socket, its data nowhere, ended by its process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness import PATIENCE_SECONDS, Log, free_port


class RedisServer:
    """A running redis-server; `stop` and `start` again, on the same port."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.arguments = arguments
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def url(self, database: int = 0, password: str = "") -> str:
        """The address, as cache2's key `backend` takes it."""
        return f"redis://{':' + password + '@' if password else ''}127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = shutil.which("redis-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/bin")
        assert program, "redis-server is not installed; tests/need.sh installs it"
        self.process = subprocess.Popen(
            [
                program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                "--dir", str(self.folder), "--daemonize", "no", *self.arguments,
            ],
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.log = Log(self.process.stdout)
        self.log.wait_for("Ready to accept connections")

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE_SECONDS)
            self.log.join()
            self.process = None


@contextlib.contextmanager
def redis_running(folder: Path, *arguments: str) -> Iterator[RedisServer]:
    """A Redis for the length of a with block."""
    server = RedisServer(folder, *arguments)
    try:
        yield server
    finally:
        server.stop()
