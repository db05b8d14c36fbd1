"""How much memory a waiting request takes: thousands of them suspended at once in one worker.

    python bench/suspended.py [--requests 2000] [--seconds 3] [--only corelet,uwsgi-asyncio]

The view (bench/apps/suspended_app.py) is ten Python frames deep and waits by a raw switch to the loop's greenlet. It is
asked over a plain HTTP socket, with a browser's headers, by raw sockets of one asyncio loop: one connection for each
request, all open together. The application itself counts how many waited at the same moment, so a run in which some
came too late is seen. The server's memory is read from outside before the requests and while they wait.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.apps.suspended_app import WARM_UP_PATH
from bench.cases import Case, request_bytes
from bench.cpu import Memory, tree_memory
from bench.figures import Suspended
from bench.launch import NotStarted, Running, end_orderly_on_sigterm, find_program, free_ports, start, stop
from bench.options import add_peers_option, peers_folders
from bench.report import suspended_table
from bench.verdicts import suspended_verdict

APP = Path(__file__).with_name("apps") / "suspended_app.py"
SERVERS = {"corelet": "corelet", "uwsgi-asyncio": "uwsgi"}  # contestant -> program
REQUESTS = 2000
WAIT_SECONDS = 3.0
CONNECTING_AT_ONCE = 64  # under every server's default backlog (uWSGI: 100)
SAMPLE_SECONDS = 0.05
SPARE_DESCRIPTORS = 500


@dataclass(frozen=True)
class Waited:
    """What the client and the sampler saw together."""

    answered: int
    together: int
    peak: Memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench/suspended.py", description="Memory of suspended requests.")
    parser.add_argument("--requests", type=int, default=REQUESTS, metavar="N")
    parser.add_argument("--seconds", type=float, default=WAIT_SECONDS, metavar="S", help="how long each request waits")
    parser.add_argument("--only", default="", metavar="NAME,…", help=f"of: {', '.join(SERVERS)}")
    add_peers_option(parser)
    options = parser.parse_args(arguments)
    end_orderly_on_sigterm()
    wanted = [name for name in options.only.split(",") if name] or list(SERVERS)
    if unknown := [name for name in wanted if name not in SERVERS]:
        parser.error(f"unknown: {', '.join(unknown)}; expected some of: {', '.join(SERVERS)}")
    rows, problems = measure_all(wanted, peers_folders(options), requests=options.requests, seconds=options.seconds)
    print(suspended_table(rows))
    for name, why in problems.items():
        print(f"- missing: {name}: {why}")
    print(f"- {suspended_verdict(rows)}")
    return 0 if rows else 1


def measure_all(
    names: Sequence[str], peers: Sequence[Path], *, requests: int = REQUESTS, seconds: float = WAIT_SECONDS
) -> tuple[tuple[Suspended, ...], dict[str, str]]:
    """Measure each server in a fresh process. Returns the rows and, for those that are missing, why."""
    rows, problems = [], {}
    allow_descriptors(requests + SPARE_DESCRIPTORS)
    for name in names:
        try:
            with (
                tempfile.TemporaryDirectory(prefix="corelet-bench-") as folder,
                served(name, peers, folder, requests) as (
                    running,
                    port,
                ),
            ):
                rows.append(measure(name, running, port, requests, seconds))
        except (NotStarted, OSError) as error:
            problems[f"suspended {name}"] = str(error)
    return tuple(rows), problems


def allow_descriptors(count: int) -> None:
    """Raise our limit of open files, which the servers inherit: each request is a descriptor here and one there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count * 2, hard), hard))


@contextlib.contextmanager
def served(name: str, peers: Sequence[Path], folder: str, requests: int) -> Iterator[tuple[Running, int]]:
    """Run one server on a plain HTTP socket with a core for every request. Raises NotStarted."""
    program, home = find_program(SERVERS[name], peers)
    port = free_ports(1)[0]
    command = [*program, "--http-socket", f"127.0.0.1:{port}", "--asyncio", str(requests + 100), "--greenlet"]
    command += ["--wsgi-file", str(APP), "--disable-logging"]
    if name == "corelet":
        command += ["--max-connections", str(requests * 2)]
    else:
        command += ["--home", str(home), "--need-app", "--die-on-term"]
    running = start(command, f"127.0.0.1:{port}", Path(folder) / f"{name}.log")
    try:
        yield running, port
    finally:
        stop(running)


def measure(name: str, running: Running, port: int, requests: int, seconds: float) -> Suspended:
    """One server."""
    return memory_of_waiting(name, running.pid, port, requests, WARM_UP_PATH, f"/?seconds={seconds:g}")


def memory_of_waiting(name: str, pid: int, port: int, requests: int, warm_up: str, path: str) -> Suspended:
    """Warm up with one path, read the server's memory, let the requests for the other wait, read it again."""
    asyncio.run(ask_all(port, 50, warm_up))
    before = tree_memory(pid)
    waited = asyncio.run(ask_and_watch(pid, port, requests, path))
    after = tree_memory(pid)
    return Suspended(
        contestant=name,
        requests=requests,
        answered=waited.answered,
        together=waited.together,
        rss_before_bytes=before.rss_bytes,
        rss_peak_bytes=waited.peak.rss_bytes,
        rss_after_bytes=after.rss_bytes,
        pss_before_bytes=before.pss_bytes,
        pss_peak_bytes=waited.peak.pss_bytes,
    )


async def ask_and_watch(pid: int, port: int, requests: int, path: str) -> Waited:
    """Ask all at once and take the highest memory seen until the last is answered, with how many waited together."""
    asking = asyncio.create_task(ask_all(port, requests, path))
    peak = tree_memory(pid)
    while not asking.done():
        await asyncio.wait([asking], timeout=SAMPLE_SECONDS)
        now = tree_memory(pid)
        peak = Memory(max(peak.rss_bytes, now.rss_bytes), max(peak.pss_bytes, now.pss_bytes))
    bodies = [body for body in asking.result() if body is not None]
    return Waited(answered=len(bodies), together=max(map(int, bodies), default=0), peak=peak)


async def ask_all(port: int, requests: int, path: str) -> list[bytes | None]:
    """The reply bodies of that many requests, each on its own connection; None for one that was not answered."""
    connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
    message = request_bytes(Case("suspended", "", "GET", path, b"", b""), f"127.0.0.1:{port}")
    deadline = time.monotonic() + 60.0
    return await asyncio.gather(*(ask(port, message, connecting, deadline) for _ in range(requests)))


async def ask(port: int, message: bytes, connecting: asyncio.Semaphore, deadline: float) -> bytes | None:
    """One request over one raw socket; its reply's body, or None."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                async with connecting:
                    await loop.sock_connect(connection, ("127.0.0.1", port))
                    await loop.sock_sendall(connection, message)
                return await body_of_reply(loop, connection)
        except (OSError, TimeoutError):
            return None


async def body_of_reply(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes | None:
    """Read up to Content-Length, for a server may keep the connection; None unless the reply is a whole 200."""
    received = b""
    while data := await loop.sock_recv(connection, 4096):
        received += data
        head, separator, body = received.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if separator and lengths and len(body) >= int(lengths[0]):
            return body if head.split(b" ", 2)[1] == b"200" else None
    return None


if __name__ == "__main__":
    sys.exit(main())
