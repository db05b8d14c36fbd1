"""What a server costs while nobody speaks to it: a master and its workers, watched from outside.

    python bench/idle.py [--seconds 10] [--processes 4] [--only corelet,uwsgi,gunicorn]

Each server listens on a TCP port (HTTP) and on a unix socket, answers one request, and is then left alone: two seconds
to come to rest, and as long as asked for to be measured. Three accounts are read for each process: the ticks of 10 ms
that top and ps show, the scheduler's nanoseconds (a process that runs for 50 µs twice a second never meets a tick), and
the number of times it was woken, which is what keeps a laptop's processor from sleeping.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.cases import PAGES
from bench.cpu import STIME, UTIME, scheduled_ns, stat_fields, tree_pids, voluntary_switches
from bench.figures import Idle, IdleProcess
from bench.launch import (
    NotStarted,
    Running,
    end_orderly_on_sigterm,
    find_program,
    free_ports,
    start,
    stop,
    wait_for_lines,
)
from bench.load import WrongReply, reply_size_bytes
from bench.options import add_peers_option, peers_folders
from bench.report import idle_table
from bench.servers import APP
from bench.verdicts import idle_verdict

SECONDS = 10.0
QUICK_SECONDS = 3.0
SETTLE_SECONDS = 2.0
PROCESSES = 4


@dataclass(frozen=True)
class Place:
    """Where an idle server runs and listens, and how many workers it has."""

    program: tuple[str, ...]
    home: Path
    tcp: str
    unix: str
    processes: int


@dataclass(frozen=True)
class Server:
    """A server's command, and what its output says of its workers' readiness: `line`, once or once for each worker."""

    program: str
    command: Callable[[Place], list[str]]
    line: str
    for_each_worker: bool = True


@dataclass(frozen=True)
class Account:
    """A process' accounts at one moment."""

    ticks: int
    scheduled_ns: int
    wakeups: int


def master(place: Place, *options: str) -> list[str]:
    """corelet and uWSGI, whose options have the same names."""
    command = [*place.program, "--master", "--processes", str(place.processes)]
    command += ["--http-socket", place.tcp, "--socket", place.unix, "--wsgi-file", str(APP)]
    return [*command, "--disable-logging", *options]


def uwsgi(place: Place) -> list[str]:
    """uWSGI, sync. need-app and die-on-term: an error at load ends it, and so does SIGTERM."""
    return master(place, "--home", str(place.home), "--need-app", "--die-on-term")


def gunicorn(place: Place) -> list[str]:
    """gunicorn with its sync worker; it always has a master."""
    command = [*place.program, "--workers", str(place.processes), "--bind", place.tcp, "--bind", f"unix:{place.unix}"]
    return [*command, "--chdir", str(APP.parent), "--no-control-socket", "bench_app:application"]


SERVERS = {
    "corelet": Server("corelet", master, "is ready: ", for_each_worker=False),
    "uwsgi": Server("uwsgi", uwsgi, "spawned uWSGI worker "),
    "gunicorn": Server("gunicorn", gunicorn, "Booting worker with pid"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench/idle.py", description="The cost of a master with idle workers.")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help="default %(default)g")
    parser.add_argument("--processes", type=int, default=PROCESSES, metavar="N", help="workers, default %(default)s")
    parser.add_argument("--only", default="", metavar="NAME,…", help=f"of: {', '.join(SERVERS)}")
    add_peers_option(parser)
    options = parser.parse_args(arguments)
    end_orderly_on_sigterm()
    wanted = [name for name in options.only.split(",") if name] or list(SERVERS)
    if unknown := [name for name in wanted if name not in SERVERS]:
        parser.error(f"unknown: {', '.join(unknown)}; expected some of: {', '.join(SERVERS)}")
    rows, problems = measure_all(wanted, peers_folders(options), options.seconds, processes=options.processes)
    if rows:
        print(idle_table(rows) + "\n")
    for name, why in problems.items():
        print(f"- missing: {name}: {why}")
    print(f"- {idle_verdict(rows)}")
    return 0 if rows else 1


def measure_all(
    names: Sequence[str], peers: Sequence[Path], seconds: float = SECONDS, *, processes: int = PROCESSES
) -> tuple[tuple[Idle, ...], dict[str, str]]:
    """Measure one server after the other. Returns the rows and, for those that are missing, why."""
    rows, problems = [], {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="corelet-bench-") as folder:
            try:
                rows.append(measure(name, peers, Path(folder), seconds, processes))
            except (NotStarted, WrongReply) as error:
                problems[f"idle {name}"] = str(error)
    return tuple(rows), problems


def measure(name: str, peers: Sequence[Path], folder: Path, seconds: float, processes: int) -> Idle:
    """Start one server, see that it works, leave it alone and watch it. Raises NotStarted, WrongReply."""
    server = SERVERS[name]
    program, home = find_program(server.program, peers)
    port = free_ports(1)[0]
    place = Place(program, home, f"127.0.0.1:{port}", str(folder / "idle.sock"), processes)
    running = start(server.command(place), place.tcp, folder / f"{name}.log")
    try:
        wait_for_lines(running, server.line, processes if server.for_each_worker else 1)
        reply_size_bytes(port, PAGES[0])
        time.sleep(SETTLE_SECONDS)
        return watched(name, running, seconds, processes)
    finally:
        stop(running)


def watched(name: str, running: Running, seconds: float, workers: int) -> Idle:
    """What each process uses within `seconds`."""
    before = accounts(running.pid)
    time.sleep(seconds)
    after = accounts(running.pid)
    roles = {pid: f"worker {number}" if number else "master" for number, pid in enumerate(after)}
    used = tuple(difference(roles[pid], before[pid], after[pid]) for pid in after if pid in before)
    steady = before.keys() == after.keys() and len(after) == workers + 1
    return Idle(contestant=name, workers=workers, seconds=seconds, processes=used, steady=steady)


def accounts(root_pid: int) -> dict[int, Account]:
    """Each living process of the tree, the master first."""
    found = {}
    for pid in tree_pids(root_pid):
        if fields := stat_fields(pid):
            ticks = int(fields[UTIME]) + int(fields[STIME])
            found[pid] = Account(ticks, scheduled_ns(pid), voluntary_switches(pid))
    return found


def difference(role: str, before: Account, after: Account) -> IdleProcess:
    """What lies between two moments of one process."""
    return IdleProcess(
        role=role,
        ticks=after.ticks - before.ticks,
        cpu_ms=(after.scheduled_ns - before.scheduled_ns) / 1_000_000,
        wakeups=after.wakeups - before.wakeups,
    )


if __name__ == "__main__":
    sys.exit(main())
