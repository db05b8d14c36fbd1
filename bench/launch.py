"""Processes of a measurement: finding the programs, starting servers and the nginx before them, ending them.

Everything listens on loopback, on free ports or in the run's own folder, writes its output there, and is ended by its
process id when the run ends, however it ends. A program that is not there, or a server that does not come up, is a
value with a reason: a table must say that a row is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cpu import tree_cpu_us, tree_pids
from bench.servers import Contestant, Place

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_SECONDS = 20.0
STOP_TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.02
REST_TIMEOUT_SECONDS = 2.0
RESTING_US = 1_000  # used within one poll: 5 % of a core


class NotStarted(Exception):
    """A contestant cannot take part. The text says why, in a few words or with the last lines of its output."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The root of the server's process tree."""
        return self.process.pid

    def empty_log(self) -> None:
        """Give back the disk an access log has taken; it was opened for appending, so the server writes on."""
        os.truncate(self.log, 0)


def end_orderly_on_sigterm() -> None:
    """Make SIGTERM unwind like Ctrl-C does, so that the servers are ended too."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def find_program(name: str, peers: Sequence[Path]) -> tuple[tuple[str, ...], Path]:
    """The command for a peer and the root of the environment it was found in. Raises NotStarted.

    corelet itself is taken from this tree with the running interpreter when no environment has it installed.
    """
    for folder in peers:
        if os.access(folder / name, os.X_OK):
            return (str(folder / name),), folder.parent
    if name == "corelet":
        return (sys.executable, "-m", "corelet"), Path(sys.prefix)
    raise NotStarted(f"{name} is in none of: {', '.join(map(str, peers))} (bench/peers.sh installs it)")


def free_ports(count: int) -> list[int]:
    """Different TCP ports of loopback that nobody listened on a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start_contestant(contestant: Contestant, address: str, folder: Path, peers: Sequence[Path]) -> Running:
    """Start one row of the table and wait until it accepts. Raises NotStarted."""
    program, home = find_program(contestant.program, peers)
    command = contestant.command(Place(program, home, address))
    return start(command, address, folder / f"{contestant.name}.log")


def start(command: Sequence[str], address: str, log: Path) -> Running:
    """Start a server with its output in `log` and wait until `address` accepts. Raises NotStarted."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "UWSGI_"))}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT / "bench" / "apps", ROOT / "server", ROOT)))
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent, env=environment
        )
    running = Running(process, log)
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not accepts(address):
        if process.poll() is not None or time.monotonic() > deadline:
            state = "did not accept in time" if process.poll() is None else f"ended with code {process.returncode}"
            stop(running)
            raise NotStarted(f"{state}; its last words: {last_words(log)}")
        time.sleep(POLL_SECONDS)
    return running


def accepts(address: str) -> bool:
    """Whether somebody listens on 127.0.0.1:port or on the unix socket."""
    host, separator, port = address.rpartition(":")
    family = socket.AF_INET if separator else socket.AF_UNIX
    with socket.socket(family) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect((host, int(port)) if separator else address)
        except OSError:
            return False
        return True


def wait_for_rest(running: Running) -> None:
    """Wait until a server has done what was still asked of it when the load ended.

    Requests that wrk leaves behind, up to one for each connection, would else be answered during the next slice, beside
    another server: with 2 ms of computing for each that is a tenth of a second.
    """
    deadline = time.monotonic() + REST_TIMEOUT_SECONDS
    used, before = tree_cpu_us(running.pid), 0.0
    while used - before > RESTING_US and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        before, used = used, tree_cpu_us(running.pid)


def wait_for_lines(running: Running, text: str, count: int) -> None:
    """Wait until `text` stands so often in a server's output. Raises NotStarted."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while running.log.read_text(encoding="utf-8", errors="replace").count(text) < count:
        if running.process.poll() is not None or time.monotonic() > deadline:
            raise NotStarted(f"expected {count} × {text!r} in its output; its last words: {last_words(running.log)}")
        time.sleep(POLL_SECONDS)


def last_words(log: Path, count: int = 3) -> str:
    """The last lines of a server's output, in one line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-count:]) or "none"


def stop(running: Running) -> None:
    """End a server's tree by process id: asked first, then made to."""
    pids = tree_pids(running.pid)
    if running.process.poll() is None:
        running.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(STOP_TIMEOUT_SECONDS)
    if running.process.poll() is None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        running.process.wait()


def start_nginx(routes: Sequence[tuple[int, str]], folder: Path) -> Running:
    """One nginx, one worker, a server on every route's port that passes to its uwsgi address. Raises NotStarted."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/nginx/sbin")
    if program is None:
        raise NotStarted("nginx is not installed")
    (folder / "nginx.conf").write_text(nginx_configuration(routes), encoding="utf-8")
    command = [program, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return start(command, f"127.0.0.1:{routes[0][0]}", folder / "nginx.log")


def nginx_configuration(routes: Sequence[tuple[int, str]]) -> str:
    """The measuring nginx: everything off that would measure the disk or nginx itself, the rest as users have it."""
    servers = "\n".join(
        f"    server {{ listen 127.0.0.1:{port}; location / {{ uwsgi_pass {address}; }} }}" for port, address in routes
    )
    return f"""{"user root;" if os.geteuid() == 0 else "# runs as the invoking user"}
daemon off;
pid nginx.pid;
worker_processes 1;
error_log stderr error;
events {{ worker_connections 10000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;    # the default of 1000 would measure connections
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_body_buffer_size 32k;      # a 16 KB POST stays in memory
    uwsgi_buffers 32 8k;              # and so does a 100 KB reply
    uwsgi_max_temp_file_size 0;
    uwsgi_next_upstream off;          # a failure shows, and is not asked again
    include {ROOT / "nginx" / "uwsgi_params"};
{servers}
}}
"""
