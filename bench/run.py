"""`make bench`: the contestants against each other, in turn, on this machine.

    python bench/run.py [--rounds N] [--seconds S] [--only NAME,…] [--case NAME,…] [--quick]
                        [--json FILE] [--plot FILE] [--peers BIN[:BIN…]]

All servers run from beginning to end, and only one is asked at a time. A round gives each of them one short slice of
load for each case; the order is another in every round, so that neither the machine's warmth nor the neighbour before
favours anybody. The report goes to standard output as Markdown, what happens meanwhile to standard error. A peer that
is not installed, does not start or answers wrongly is named in the report with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import cache, idle, inflight, suspended
from bench.apps.bench_app import ITERATIONS_VARIABLE
from bench.cases import CASES, ECHO, Case, compute_case
from bench.compute import calibrated_iterations, two_against_one
from bench.cpu import busiest_share, children_cpu_us, cpu_us_by_pid, machine_busy_us, tree_cpu_us
from bench.figures import Results, Sample
from bench.launch import (
    NotStarted,
    Running,
    end_orderly_on_sigterm,
    free_ports,
    start_contestant,
    start_nginx,
    stop,
    wait_for_rest,
)
from bench.load import WrongReply, reply_size_bytes, run_slice
from bench.machine import machine
from bench.options import add_peers_option, peers_folders
from bench.plot import draw
from bench.report import as_json, markdown
from bench.servers import COMPUTE, CONTESTANTS, HTTP, NGINX_UNIX, Contestant

WARM_UP_SECONDS = 1
Row = TypeVar("Row", Case, Contestant)


@dataclass(frozen=True)
class Ready:
    """A contestant that runs, answers rightly, and knows how large its replies are."""

    contestant: Contestant
    running: Running
    port: int  # where the load goes: the server's own port, or nginx's for it
    reply_bytes: dict[str, int]  # case -> size of a right reply with its head; without the cases it fails


@dataclass(frozen=True)
class Arena:
    """Everything that runs during the measurement."""

    ready: tuple[Ready, ...]
    nginx: Running | None
    body_files: dict[str, Path]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report. Returns 0 when something was measured and no reply was wrong."""
    options = parse(arguments)
    end_orderly_on_sigterm()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; on Debian or Ubuntu: apt-get install wrk")
    results = measure_everything(options, peers_folders(options))
    print(markdown(results), end="")
    if options.json:
        options.json.write_text(json.dumps(as_json(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.plot:
        draw(results, options.plot)
    wrong = any("/" in name for name in results.problems)
    return 0 if results.samples and not wrong else 1


def measure_everything(options: argparse.Namespace, peers: Sequence[Path]) -> Results:
    """The whole run: the rounds, then the suspended requests, the idle servers, the many in flight."""
    about, cases = machine(peers), chosen(CASES, options.case)
    settings = {"rounds": options.rounds, "seconds": options.seconds, "connections": options.connections}
    if any(case.name == COMPUTE for case in cases):
        cases = calibrated(cases, about, settings)
    names = {case.name for case in cases}
    contestants = [one for one in chosen(CONTESTANTS, options.only) if names.intersection(one.cases)]
    problems: dict[str, str] = {}
    with arena(contestants, cases, peers, problems) as place:
        samples = measure_rounds(place, cases, options, problems)
    waited, missing = ((), {}) if options.no_suspended else suspended.measure_all(list(suspended.SERVERS), peers)
    idled, absent = ((), {}) if options.no_idle else idle.measure_all(list(idle.SERVERS), peers, options.idle_seconds)
    costs, without = ((), {}) if options.no_cache else cache.measure_all(cache.SERVERS, peers, options.cache_repeats)
    flown, lacking = ((), {}) if options.no_inflight else inflight.measure_all(inflight.NAMES, peers, options.rounds)
    return Results(
        machine=about,
        settings=settings,
        cases=tuple(case.name for case in cases),
        samples=tuple(samples),
        suspended=waited,
        problems={**problems, **missing, **absent, **without, **lacking},
        idle=idled,
        caches=costs,
        inflight=flown,
    )


def calibrated(cases: Sequence[Case], about: dict[str, str], settings: dict[str, int]) -> tuple[Case, ...]:
    """Decide how much the computation computes and tell it to every server, which inherits our environment.

    Adds the count to `settings`, and what a second core is worth to `about`.
    """
    iterations = calibrated_iterations()
    os.environ[ITERATIONS_VARIABLE] = str(iterations)
    settings["compute_iterations"] = iterations
    about["two bare processes that compute"] = f"{two_against_one(iterations):.2f} times one"
    return tuple(compute_case(iterations) if case.name == COMPUTE else case for case in cases)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, its lists checked against what there is."""
    parser = argparse.ArgumentParser(prog="bench/run.py", description="corelet and its peers, side by side.")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="default %(default)s")
    parser.add_argument("--seconds", type=int, default=1, metavar="S", help="length of a slice, default %(default)s")
    parser.add_argument(
        "--connections", type=int, default=50, metavar="N", help="kept alive by wrk, default %(default)s"
    )
    parser.add_argument(
        "--only", default="", metavar="NAME,…", help=f"of: {', '.join(one.name for one in CONTESTANTS)}"
    )
    parser.add_argument("--case", default="", metavar="NAME,…", help=f"of: {', '.join(one.name for one in CASES)}")
    parser.add_argument("--quick", action="store_true", help="three rounds: a look, not a figure to quote")
    parser.add_argument("--no-suspended", action="store_true", help="leave out the memory of suspended requests")
    parser.add_argument("--no-idle", action="store_true", help="leave out the idle cost of a master and its workers")
    parser.add_argument("--no-cache", action="store_true", help="leave out what a call of a cache costs")
    parser.add_argument("--no-inflight", action="store_true", help="leave out the thousands of requests in flight")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="svg or png; needs matplotlib")
    add_peers_option(parser)
    options = parser.parse_args(arguments)
    for given, table in ((options.only, CONTESTANTS), (options.case, CASES)):
        names = [one.name for one in table]
        if unknown := [name for name in given.split(",") if name and name not in names]:
            parser.error(f"unknown: {', '.join(unknown)}; expected some of: {', '.join(names)}")
    options.idle_seconds, options.cache_repeats = idle.SECONDS, cache.REPEATS
    if options.quick:
        options.rounds, options.idle_seconds = 3, idle.QUICK_SECONDS
        options.cache_repeats = cache.QUICK_REPEATS
    return options


def chosen(table: tuple[Row, ...], names: str) -> tuple[Row, ...]:
    """The rows named, in the table's order; all when none is named."""
    wanted = set(filter(None, names.split(",")))
    return tuple(row for row in table if not wanted or row.name in wanted)


@contextlib.contextmanager
def arena(
    contestants: Sequence[Contestant], cases: Sequence[Case], peers: Sequence[Path], problems: dict[str, str]
) -> Iterator[Arena]:
    """Start every contestant and nginx, check every reply, and end them all afterwards. Adds to `problems`."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corelet-bench-")))
        started, routes = start_all(contestants, peers, folder, stack, problems)
        nginx = None
        if routes:
            nginx = start_nginx(routes, folder)
            stack.callback(stop, nginx)
        body_files = {case.name: folder / f"{case.name}.body" for case in cases}
        for case in cases:
            body_files[case.name].write_bytes(case.request_body)
        checked = [(one, running, port, checked_replies(one, port, cases, problems)) for one, running, port in started]
        yield Arena(tuple(Ready(*row) for row in checked if row[3]), nginx, body_files)


def start_all(
    contestants: Sequence[Contestant],
    peers: Sequence[Path],
    folder: Path,
    stack: contextlib.ExitStack,
    problems: dict[str, str],
) -> tuple[list[tuple[Contestant, Running, int]], list[tuple[int, str]]]:
    """Start what can be started. Returns each with the port to load, and nginx's routes (port, uwsgi address)."""
    ports = iter(free_ports(2 * len(contestants)))
    started, routes = [], []
    for one in contestants:
        own_port, load_port = next(ports), next(ports)
        address = str(folder / f"{one.name}.sock") if one.group == NGINX_UNIX else f"127.0.0.1:{own_port}"
        try:
            running = start_contestant(one, address, folder, peers)
        except NotStarted as error:
            problems[one.name] = str(error)
            note(f"{one.name} is missing: {error}")
            continue
        stack.callback(stop, running)
        if one.group == HTTP:
            load_port = own_port
        else:
            routes.append((load_port, f"unix:{address}" if one.group == NGINX_UNIX else address))
        started.append((one, running, load_port))
    return started, routes


def checked_replies(one: Contestant, port: int, cases: Sequence[Case], problems: dict[str, str]) -> dict[str, int]:
    """Ask each case by hand; the sizes of the right replies. A wrong one is a problem and is not measured."""
    sizes = {}
    for case in (*(case for case in cases if case.name in one.cases), ECHO):
        try:
            sizes[case.name] = reply_size_bytes(port, case)
        except WrongReply as error:
            problems[f"{one.name}/{case.name}"] = str(error)
            note(f"{one.name} answers wrongly: {error}")
    if sizes.pop(ECHO.name, None) is None:
        sizes.pop("post", None)  # the count of bytes may be right while the bytes are not
    return sizes


def measure_rounds(
    place: Arena, cases: Sequence[Case], options: argparse.Namespace, problems: dict[str, str]
) -> list[Sample]:
    """All rounds: each case, each contestant, in an order that turns with the round and is reversed in every other."""
    samples: list[Sample] = []
    wrong: set[tuple[str, str]] = set()
    for number in range(-1, options.rounds):  # round -1 warms up and is not kept
        seconds = options.seconds if number >= 0 else WARM_UP_SECONDS
        for case in cases:
            for one in turned(place.ready, number):
                name = one.contestant.name
                if case.name not in one.reply_bytes or (name, case.name) in wrong:
                    continue
                try:
                    sample = measure(place, one, case, number, seconds=seconds, connections=options.connections)
                except WrongReply as error:
                    problems[f"{name}/{case.name}"] = str(error)
                    note(f"{name} answers wrongly: {error}")
                    wrong.add((name, case.name))
                    continue
                if number >= 0:
                    samples.append(sample)
        note("warmed up" if number < 0 else f"round {number + 1} of {options.rounds} done")
    return [sample for sample in samples if (sample.contestant, sample.case) not in wrong]


def turned(ready: tuple[Ready, ...], number: int) -> tuple[Ready, ...]:
    """The order of a round."""
    start = number % len(ready) if ready else 0
    order = (*ready[start:], *ready[:start])
    return order[::-1] if number % 2 else order


def measure(place: Arena, one: Ready, case: Case, number: int, *, seconds: int, connections: int) -> Sample:
    """One slice of load, with the CPU of the server's tree and of nginx read before and after."""
    nginx = place.nginx if one.contestant.group != HTTP else None
    pid = one.running.pid
    began, busy, ours = time.monotonic(), machine_busy_us(), children_cpu_us()
    before, nginx_before = cpu_us_by_pid(pid), tree_cpu_us(nginx.pid) if nginx else 0.0
    result = run_slice(
        one.port,
        case,
        seconds=seconds,
        connections=connections,
        reply_bytes=one.reply_bytes[case.name],
        body_file=place.body_files[case.name],
    )
    after, nginx_used = cpu_us_by_pid(pid), (tree_cpu_us(nginx.pid) if nginx else 0.0) - nginx_before
    used = sum(after.values()) - sum(before.values())
    ours = children_cpu_us() - ours + used + nginx_used
    others = (machine_busy_us() - busy - ours) / ((time.monotonic() - began) * 1_000_000 * (os.cpu_count() or 1))
    one.running.empty_log()
    wait_for_rest(one.running)
    return Sample(
        contestant=one.contestant.name,
        case=case.name,
        round=number,
        requests=result.requests,
        cpu_us=used / result.requests,
        nginx_cpu_us=nginx_used / result.requests if nginx else None,
        requests_per_second=result.requests_per_second,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        others_share=max(0.0, others),
        busiest_share=busiest_share(before, after),
    )


def note(text: str) -> None:
    """Say what happens, apart from the report."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
