"""Thousands of requests in flight in one worker, each waiting for an upstream: how many a second, and what each holds.

    python bench/inflight.py [--rounds 10] [--seconds 3] [--connections 2000] [--wait-ms 100] [--only NAME,…]

The view (bench/apps/inflight_app.py) asks an upstream that answers after 100 ms, over a pool of kept connections. wrk
keeps 2,000 connections and asks again as soon as it is answered, so the waiting alone would allow 20,000 requests a
second: the rest is what the servers, and the processors of this machine, make of it. All servers run all the time, one
is asked at a time, in an order that turns with every round; the upstream is a process of its own and the same for all.

Memory is measured apart, in fresh processes: as many requests, each on its own connection, wait for seconds together,
and the rise of the server's resident memory is divided by their number.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.apps.upstream import PORT_VARIABLE
from bench.cases import Case
from bench.cpu import children_cpu_us, machine_busy_us, tree_cpu_us
from bench.figures import InFlight, InFlightSlice, Suspended
from bench.launch import (
    NotStarted,
    Running,
    end_orderly_on_sigterm,
    find_program,
    free_ports,
    start,
    start_nginx,
    stop,
    wait_for_rest,
)
from bench.load import SCRIPT, WrongReply, ask_once
from bench.options import add_peers_option, peers_folders
from bench.report import inflight_table
from bench.servers import Place
from bench.suspended import SPARE_DESCRIPTORS, allow_descriptors, memory_of_waiting
from bench.verdicts import inflight_verdicts

APP = Path(__file__).with_name("apps") / "inflight_app.py"
UPSTREAM = Path(__file__).with_name("apps") / "upstream.py"
CONNECTIONS = 2000
WAIT_MS = 100
SECONDS = 3
ROUNDS = 10
BACKLOG = "4096"  # all connect at once, and uWSGI's, which does not keep them, again and again
MEMORY_WAIT_MS = 3000
REPLY_TIMEOUT_SECONDS = 10  # what is slower has failed
WRK_GRACE_SECONDS = 30


@dataclass(frozen=True)
class Contestant:
    """A server, how its view waits, and whether nginx stands in front of it."""

    name: str
    program: str
    way: str  # of inflight_app.py
    command: Callable[[Place, int], list[str]]
    nginx: bool = False

    def path(self, wait_ms: int) -> str:
        """What is asked."""
        return f"/{self.way}/{wait_ms}"


def engine(place: Place, cores: int, socket: str) -> list[str]:
    """What corelet and uWSGI's asyncio engine have in common."""
    command = [*place.program, socket, place.address, "--asyncio", str(cores), "--greenlet", "--listen", BACKLOG]
    return [*command, "--wsgi-file", str(APP), "--disable-logging"]


def corelet(place: Place, cores: int, socket: str = "--http-socket") -> list[str]:
    """corelet with a core for every request."""
    return [*engine(place, cores, socket), "--max-connections", str(cores * 2)]


def uwsgi(place: Place, cores: int, socket: str = "--http-socket") -> list[str]:
    """uWSGI's asyncio engine. It keeps no HTTP connections and does not say so: then wrk would count errors."""
    command = [*engine(place, cores, socket), "--home", str(place.home), "--need-app", "--die-on-term"]
    return [*command, "--add-header", "Connection: close"] if socket == "--http-socket" else command


def gunicorn(place: Place, cores: int) -> list[str]:
    """gunicorn with its gevent worker, which makes blocking sockets cooperative."""
    command = [*place.program, "--bind", place.address, "--workers", "1", "--worker-class", "gevent"]
    command += ["--worker-connections", str(cores), "--backlog", BACKLOG, "--log-level", "critical"]
    return [*command, "--no-control-socket", "bench.apps.inflight_app:application"]


CONTESTANTS = (
    Contestant("corelet", "corelet", "await_", corelet),
    Contestant("corelet-switch", "corelet", "switch", corelet),
    Contestant("uwsgi-asyncio", "uwsgi", "switch", uwsgi),
    Contestant("gunicorn-gevent", "gunicorn", "sockets", gunicorn),
    Contestant("corelet-nginx", "corelet", "await_", lambda p, n: corelet(p, n, "--socket"), nginx=True),
    Contestant("uwsgi-asyncio-nginx", "uwsgi", "switch", lambda p, n: uwsgi(p, n, "--socket"), nginx=True),
)
NAMES = tuple(one.name for one in CONTESTANTS)


@dataclass(frozen=True)
class Ready:
    """A contestant that answers."""

    contestant: Contestant
    running: Running
    port: int  # where the load goes: its own, or nginx's


@dataclass(frozen=True)
class Load:
    """How much is asked."""

    connections: int = CONNECTIONS
    wait_ms: int = WAIT_MS
    seconds: int = SECONDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench/inflight.py", description="Thousands of requests in flight.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="default %(default)s")
    parser.add_argument("--seconds", type=int, default=SECONDS, metavar="S", help="of a slice, default %(default)s")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, metavar="N", help="default %(default)s")
    parser.add_argument("--wait-ms", type=int, default=WAIT_MS, metavar="MS", help="default %(default)s")
    parser.add_argument("--only", default="", metavar="NAME,…", help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory of those that wait")
    parser.add_argument("--json", type=Path, metavar="FILE")
    add_peers_option(parser)
    options = parser.parse_args(arguments)
    end_orderly_on_sigterm()
    wanted = [name for name in options.only.split(",") if name] or list(NAMES)
    if unknown := [name for name in wanted if name not in NAMES]:
        parser.error(f"unknown: {', '.join(unknown)}; expected some of: {', '.join(NAMES)}")
    load = Load(options.connections, options.wait_ms, options.seconds)
    rows, problems = measure_all(wanted, peers_folders(options), options.rounds, load, memory=not options.no_memory)
    if rows:
        print(inflight_table(rows))
    for name, why in problems.items():
        print(f"- missing: {name}: {why}")
    print(*(f"- {line}" for line in inflight_verdicts(rows)), sep="\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0 if rows else 1


def measure_all(
    names: Sequence[str], peers: Sequence[Path], rounds: int, load: Load | None = None, *, memory: bool = True
) -> tuple[tuple[InFlight, ...], dict[str, str]]:
    """The rounds, then the memory. Returns the rows and, for those that are missing, why."""
    load = load or Load()
    wanted = [one for one in CONTESTANTS if one.name in names]
    problems: dict[str, str] = {}
    allow_descriptors(2 * load.connections + SPARE_DESCRIPTORS)  # of a server: a client's and the upstream's for each
    slices: dict[str, list[InFlightSlice]] = {one.name: [] for one in wanted}
    with arena(wanted, peers, load, problems) as (ready, ours):
        for number in range(-1, rounds):  # round -1 opens the connections to the upstream and is not kept
            for one in turned(ready, number):
                sample = measure(one, ours, load, number)
                if number >= 0:
                    slices[one.contestant.name].append(sample)
            note("warmed up" if number < 0 else f"in flight: round {number + 1} of {rounds} done")
    waiting = {one.name: memory_of(one, peers, load, problems) for one in wanted if memory}
    rows = [
        InFlight(one.name, load.connections, load.wait_ms, tuple(slices[one.name]), waiting.get(one.name))
        for one in wanted
        if slices[one.name]
    ]
    return tuple(rows), problems


def turned(ready: Sequence[Ready], number: int) -> list[Ready]:
    """The order of a round: another in each, and reversed in every other."""
    start_at = number % len(ready) if ready else 0
    order = [*ready[start_at:], *ready[:start_at]]
    return order[::-1] if number % 2 else order


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[Running]:
    """The upstream in a process of its own; its port is in our environment, which the servers inherit."""
    port = free_ports(1)[0]
    os.environ[PORT_VARIABLE] = str(port)
    running = start([sys.executable, str(UPSTREAM), str(port)], f"127.0.0.1:{port}", folder / "upstream.log")
    try:
        yield running
    finally:
        stop(running)


@contextlib.contextmanager
def arena(
    contestants: Sequence[Contestant], peers: Sequence[Path], load: Load, problems: dict[str, str]
) -> Iterator[tuple[list[Ready], list[Running]]]:
    """Everything that runs during the rounds: those that answer rightly, and the upstream and nginx."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corelet-bench-")))
        ours = [stack.enter_context(upstream(folder))]
        started, routes = [], []
        for one in contestants:
            own, front = free_ports(2)
            try:
                running = start_one(one, own, folder, peers, load)
            except NotStarted as error:
                problems[f"in flight {one.name}"] = str(error)
                continue
            stack.callback(stop, running)
            if one.nginx:
                routes.append((front, f"127.0.0.1:{own}"))
            started.append(Ready(one, running, front if one.nginx else own))
        if routes:
            ours.append(start_nginx(routes, folder))
            stack.callback(stop, ours[-1])
        yield [one for one in started if answers(one, problems)], ours


def start_one(one: Contestant, port: int, folder: Path, peers: Sequence[Path], load: Load) -> Running:
    """Start a server with cores to spare. Raises NotStarted."""
    program, home = find_program(one.program, peers)
    address = f"127.0.0.1:{port}"
    return start(
        one.command(Place(program, home, address), load.connections + 100), address, folder / f"{one.name}.log"
    )


def answers(one: Ready, problems: dict[str, str]) -> bool:
    """Whether a single request is answered rightly."""
    try:
        _, body = ask_once(one.port, Case("in flight", "", "GET", one.contestant.path(1), b"", b""))
    except WrongReply as error:
        problems[f"in flight {one.contestant.name}"] = str(error)
        return False
    return body.strip().isdigit()


def measure(one: Ready, ours: Sequence[Running], load: Load, number: int) -> InFlightSlice:
    """One slice of load."""
    began, busy, mine, partners = time.monotonic(), machine_busy_us(), children_cpu_us(), total_cpu_us(ours)
    used = tree_cpu_us(one.running.pid)
    result = run_wrk(one.port, one.contestant.path(load.wait_ms), load)
    used = tree_cpu_us(one.running.pid) - used
    mine = children_cpu_us() - mine + used + total_cpu_us(ours) - partners
    others = (machine_busy_us() - busy - mine) / ((time.monotonic() - began) * 1_000_000 * (os.cpu_count() or 1))
    wait_for_rest(one.running)
    return InFlightSlice(
        round=number,
        requests_per_second=result["requests"] / (result["duration_us"] / 1_000_000),
        cpu_us=used / max(1, result["requests"]),
        p50_ms=result["p50_us"] / 1000,
        p99_ms=result["p99_us"] / 1000,
        failed=sum(result[key] for key in ("connect_errors", "write_errors", "status_errors", "timeouts")),
        others_share=max(0.0, others),
    )


def total_cpu_us(processes: Sequence[Running]) -> float:
    """CPU microseconds of all of them."""
    return sum(tree_cpu_us(one.pid) for one in processes)


def run_wrk(port: int, path: str, load: Load) -> dict[str, int]:
    """wrk's own counts."""
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--latency", "-s", str(SCRIPT)]
    command += ["--timeout", f"{REPLY_TIMEOUT_SECONDS}s", f"http://127.0.0.1:{port}{path}", "--", "GET", "-"]
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=load.seconds + WRK_GRACE_SECONDS, check=True
    )
    result: dict[str, int] = next(
        json.loads(line[7:]) for line in finished.stdout.splitlines() if line.startswith("RESULT ")
    )
    return result


def memory_of(one: Contestant, peers: Sequence[Path], load: Load, problems: dict[str, str]) -> Suspended | None:
    """The memory of those that wait, in a fresh process; None, and the reason in `problems`."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corelet-bench-")))
        stack.enter_context(upstream(folder))
        port = free_ports(1)[0]
        try:
            running = start_one(one, port, folder, peers, load)
        except NotStarted as error:
            problems[f"in flight {one.name}, memory"] = str(error)
            return None
        stack.callback(stop, running)
        if one.nginx:
            front = free_ports(1)[0]
            stack.callback(stop, start_nginx([(front, f"127.0.0.1:{port}")], folder))
            port = front
        return memory_of_waiting(one.name, running.pid, port, load.connections, one.path(1), one.path(MEMORY_WAIT_MS))


def note(text: str) -> None:
    """Say what happens, apart from the report."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
