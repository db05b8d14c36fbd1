"""What a get and a set of uwsgi.cache_* cost: in corelet's own store, in Redis, and in uWSGI's cache.

    python bench/cache.py [--calls 5000] [--repeats 5] [--only corelet,corelet-redis,uwsgi]

One worker each, asked by nobody else; a view makes the calls in a loop (apps/cache_app.py), so no request is in the
figures. The smallest of the repeats counts: whatever disturbs a measurement only adds to it.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import CacheCost
from bench.launch import ROOT, NotStarted, end_orderly_on_sigterm, find_program, free_ports, start, stop
from bench.options import add_peers_option, peers_folders
from bench.report import cache_table

CALLS = 5000
REPEATS = 5
QUICK_REPEATS = 2
SIZES = (100, 10_000)
SERVERS = ("corelet", "corelet-redis", "uwsgi")
APP = ROOT / "bench" / "apps" / "cache_app.py"
CACHE = "name=bench,items=1000"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench/cache.py", description="What a get and a set of a cache cost.")
    parser.add_argument("--calls", type=int, default=CALLS, metavar="N", help="in one loop, default %(default)s")
    parser.add_argument("--repeats", type=int, default=REPEATS, metavar="N", help="default %(default)s")
    parser.add_argument("--only", default="", metavar="NAME,…", help=f"of: {', '.join(SERVERS)}")
    add_peers_option(parser)
    options = parser.parse_args(arguments)
    end_orderly_on_sigterm()
    wanted = [name for name in options.only.split(",") if name] or list(SERVERS)
    if unknown := [name for name in wanted if name not in SERVERS]:
        parser.error(f"unknown: {', '.join(unknown)}; expected some of: {', '.join(SERVERS)}")
    rows, problems = measure_all(wanted, peers_folders(options), options.repeats, calls=options.calls)
    if rows:
        print(cache_table(rows) + "\n")
    for name, why in problems.items():
        print(f"- missing: {name}: {why}")
    return 0 if rows else 1


def measure_all(
    names: Sequence[str], peers: Sequence[Path], repeats: int = REPEATS, *, calls: int = CALLS
) -> tuple[tuple[CacheCost, ...], dict[str, str]]:
    """Measure one server after the other. Returns the rows and, for those that are missing, why."""
    rows: list[CacheCost] = []
    problems = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="corelet-bench-") as folder:
            try:
                with serving(name, peers, Path(folder)) as port:
                    rows += [cost(name, port, size, repeats, calls) for size in SIZES]
            except (NotStarted, OSError) as error:
                problems[f"cache {name}"] = str(error)
    return tuple(rows), problems


@contextlib.contextmanager
def serving(name: str, peers: Sequence[Path], folder: Path) -> Iterator[int]:
    """The HTTP port of a server with this cache. Raises NotStarted."""
    with contextlib.ExitStack() as stack:
        program, home = find_program(name.partition("-")[0], peers)
        port, redis_port = free_ports(2)
        command = [*program, "--http-socket", f"127.0.0.1:{port}", "--wsgi-file", str(APP), "--disable-logging"]
        cache = CACHE
        if name == "uwsgi":
            command += ["--home", str(home), "--need-app", "--die-on-term"]
        if name == "corelet-redis":
            redis = shutil.which("redis-server")
            if redis is None:
                raise NotStarted("redis-server is not installed")
            words = [redis, "--bind", "127.0.0.1", "--port", str(redis_port), "--save", "", "--dir", str(folder)]
            stack.callback(stop, start(words, f"127.0.0.1:{redis_port}", folder / "redis.log"))
            cache += f",backend=redis://127.0.0.1:{redis_port}/0"
        stack.callback(stop, start([*command, "--cache2", cache], f"127.0.0.1:{port}", folder / f"{name}.log"))
        yield port


def cost(name: str, port: int, size_bytes: int, repeats: int, calls: int) -> CacheCost:
    """The fastest of the repeats. Raises NotStarted if a call did not do what it should."""
    best = {}
    for what in ("get", "set"):
        found = []
        for _ in range(repeats):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}/{size_bytes}/{calls}", timeout=60) as reply:
                us, cpu_us, wrong = map(float, reply.read().split())
            if wrong:
                raise NotStarted(f"{wrong:g} calls with {size_bytes} bytes failed")
            found.append((us, cpu_us))
        best[what] = tuple(min(column) for column in zip(*found, strict=True))
    return CacheCost(name, size_bytes, *best["get"], *best["set"])


if __name__ == "__main__":
    sys.exit(main())
