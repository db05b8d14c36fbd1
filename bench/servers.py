"""The table of contestants: who takes part, in which group, and the command that starts each.

A row is a frozen value and a command is a pure function of a Place, so what is compared can be read (and printed) here
without running anything. Each contestant serves the same application file with one worker process (two, and a master,
where its name ends in -2), no access log unless its name says otherwise, and its own defaults for everything else;
where a default had to go, the reason stands beside it. Requests over uwsgi packets come through one nginx, so the peers
that cannot speak uwsgi are a group of their own, over kept-alive HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.cases import PAGES

APP = Path(__file__).with_name("apps") / "bench_app.py"
CORES = 100  # concurrent requests of the asyncio engines: more than wrk's connections, so that none waits for a core

PAGE_CASES = tuple(case.name for case in PAGES)
COMPUTE = "compute"

# Groups. A figure is compared within its group only, and that of two workers also with the same server's single one.
NGINX = "behind nginx, uwsgi over TCP"
NGINX_2 = "behind nginx, uwsgi over TCP, two workers"
NGINX_UNIX = "behind nginx, uwsgi over a unix socket"
HTTP = "HTTP keep-alive, direct"


@dataclass(frozen=True)
class Place:
    """Where a contestant runs: what it is started with and where it listens."""

    program: tuple[str, ...]  # the command, found in the peers' environment
    home: Path  # the root of that environment
    address: str  # 127.0.0.1:port, or the path of a unix socket

    @property
    def port(self) -> str:
        """The TCP port; only for an address that has one."""
        return self.address.rpartition(":")[2]


@dataclass(frozen=True)
class Contestant:
    """One server in one configuration."""

    name: str
    title: str
    group: str
    program: str
    command: Callable[[Place], list[str]]
    cases: tuple[str, ...] = PAGE_CASES  # what it is asked
    one_worker: str = ""  # of a contestant with two: the same server with one


def corelet(place: Place, *options: str, socket: str = "--socket") -> list[str]:
    """corelet with as many cores as uWSGI's asyncio engine is given."""
    return [*place.program, socket, place.address, "--asyncio", str(CORES), "--wsgi-file", str(APP), *options]


def uwsgi(place: Place, *options: str) -> list[str]:
    """uWSGI, its master only by option. need-app, die-on-term: an error at load ends it, and so does SIGTERM."""
    command = [*place.program, "--socket", place.address, "--home", str(place.home), "--wsgi-file", str(APP)]
    return [*command, "--need-app", "--die-on-term", "--disable-logging", *options]


def uwsgi_asyncio(place: Place, *options: str) -> list[str]:
    """uWSGI's asyncio loop engine with greenlet, as its documentation starts it."""
    return uwsgi(place, "--asyncio", str(CORES), "--greenlet", *options)


def gunicorn(place: Place, *options: str, workers: int = 1) -> list[str]:
    """gunicorn, whose access log is off by default; it always has a master."""
    command = [*place.program, "--bind", place.address, "--workers", str(workers), "--chdir", str(APP.parent)]
    return [*command, "--log-level", "critical", "--no-control-socket", *options, "bench_app:application"]


def gunicorn_uwsgi(place: Place, workers: int = 1) -> list[str]:
    """gunicorn's uwsgi mode with its sync worker, the cheaper of its kinds there."""
    return gunicorn(place, "--protocol", "uwsgi", "--worker-class", "sync", workers=workers)


def gunicorn_threads(place: Place, workers: int = 1) -> list[str]:
    """gunicorn's threaded worker: its sync worker has no keep-alive. Four threads, as waitress has by default."""
    return gunicorn(place, "--worker-class", "gthread", "--threads", "4", workers=workers)


def granian(place: Place) -> list[str]:
    """granian with one worker; HTTP/1 only, as the others of the group."""
    command = [*place.program, "--interface", "wsgi", "--workers", "1", "--http", "1", "--no-ws", "--no-log"]
    return [
        *command,
        "--host",
        "127.0.0.1",
        "--port",
        place.port,
        "--working-dir",
        str(APP.parent),
        "bench_app:application",
    ]


def waitress(place: Place) -> list[str]:
    """waitress through its own runner, without its warning about every queued request (it has no option for that)."""
    quiet = "import logging; logging.getLogger('waitress').setLevel('ERROR'); from waitress.runner import run; run()"
    python = str(place.home / "bin" / "python")
    return [python, "-c", quiet, f"--listen={place.address}", "--ident=", "bench_app:application"]


TWO = ("--master", "--processes", "2")  # corelet and uWSGI have the same names for them
PAGES_AND_COMPUTE = (*PAGE_CASES, COMPUTE)


def corelet_quiet(place: Place) -> list[str]:
    """corelet without an access log."""
    return corelet(place, "--disable-logging")


def corelet_2(place: Place) -> list[str]:
    """corelet with a master and two workers."""
    return corelet(place, *TWO, "--disable-logging")


def corelet_http(place: Place, *options: str) -> list[str]:
    """corelet on an HTTP socket."""
    return corelet(place, "--disable-logging", *options, socket="--http-socket")


def uwsgi_asyncio_2(place: Place) -> list[str]:
    """The asyncio engine twice. lazy-apps: each worker loads the application, whose loop must not be a forked one."""
    return uwsgi_asyncio(place, *TWO, "--lazy-apps")


CONTESTANTS = (
    Contestant("corelet", "corelet", NGINX, "corelet", corelet_quiet),
    Contestant("corelet-log", "corelet, access log on", NGINX, "corelet", corelet),
    Contestant("uwsgi-asyncio", "uWSGI, asyncio engine", NGINX, "uwsgi", uwsgi_asyncio),
    Contestant("uwsgi-sync", "uWSGI, sync (C)", NGINX, "uwsgi", uwsgi),
    Contestant("gunicorn-uwsgi", "gunicorn, uwsgi mode, sync", NGINX, "gunicorn", gunicorn_uwsgi),
    Contestant("corelet-2", "corelet", NGINX_2, "corelet", corelet_2, one_worker="corelet"),
    Contestant(
        "uwsgi-asyncio-2", "uWSGI, asyncio engine", NGINX_2, "uwsgi", uwsgi_asyncio_2, one_worker="uwsgi-asyncio"
    ),
    Contestant("uwsgi-2", "uWSGI, sync (C)", NGINX_2, "uwsgi", lambda p: uwsgi(p, *TWO), one_worker="uwsgi-sync"),
    Contestant(
        "gunicorn-2",
        "gunicorn, uwsgi mode, sync",
        NGINX_2,
        "gunicorn",
        lambda p: gunicorn_uwsgi(p, workers=2),
        one_worker="gunicorn-uwsgi",
    ),
    Contestant("corelet-unix", "corelet", NGINX_UNIX, "corelet", corelet_quiet),
    Contestant("uwsgi-sync-unix", "uWSGI, sync (C)", NGINX_UNIX, "uwsgi", uwsgi),
    Contestant("corelet-http", "corelet", HTTP, "corelet", corelet_http, cases=PAGES_AND_COMPUTE),
    Contestant("granian-http", "granian", HTTP, "granian", granian),
    Contestant("waitress-http", "waitress", HTTP, "waitress-serve", waitress),
    Contestant("gunicorn-http", "gunicorn, gthread", HTTP, "gunicorn", gunicorn_threads, cases=PAGES_AND_COMPUTE),
    Contestant(
        "corelet-http-2",
        "corelet, two workers",
        HTTP,
        "corelet",
        lambda p: corelet_http(p, *TWO),
        cases=(COMPUTE,),
        one_worker="corelet-http",
    ),
    Contestant(
        "gunicorn-http-2",
        "gunicorn, gthread, two workers",
        HTTP,
        "gunicorn",
        lambda p: gunicorn_threads(p, workers=2),
        cases=(COMPUTE,),
        one_worker="gunicorn-http",
    ),
)

# The names a group's figures are put in proportion to; the first is the one for requests/s and p99.
BASELINES = {
    NGINX: ("uwsgi-asyncio", "uwsgi-sync"),
    NGINX_2: ("uwsgi-asyncio-2", "uwsgi-2", "gunicorn-2"),
    NGINX_UNIX: ("uwsgi-sync-unix",),
    HTTP: ("granian-http",),
}


def baselines(one: Contestant, case: str) -> tuple[str, ...]:
    """What a contestant's figures are put in proportion to: the group's baselines and its own single worker."""
    of_group = () if case == COMPUTE else BASELINES[one.group]
    return (*of_group, one.one_worker) if one.one_worker else of_group


@dataclass(frozen=True)
class Goal:
    """A promise about a contestant's ratio to a baseline, in each of the cases.

    Of CPU per request, at most `limit`; of requests per second (`throughput`), at least.
    """

    contestant: str
    baseline: str
    limit: float
    cases: tuple[str, ...] = PAGE_CASES
    throughput: bool = False


GOALS = (
    Goal("corelet", "uwsgi-asyncio", 0.45),
    Goal("corelet", "uwsgi-sync", 1.30),
    Goal("corelet-http", "granian-http", 1.00),
    Goal("corelet-log", "corelet", 1.15),
    Goal("corelet-2", "corelet", 1.10),
    Goal("corelet-http-2", "corelet-http", 1.80, cases=(COMPUTE,), throughput=True),
)
MAX_SUSPENDED_BYTES = 15_000  # memory of one suspended request, view ten frames deep
# CPU of a master and four idle workers: one tick of 10 ms in 10 s, 0.1 % of a core, which top rounds to nothing.
MAX_IDLE_MS_PER_SECOND = 1.0
# 2,000 requests in flight: corelet's requests per second as a multiple of those of uWSGI's asyncio engine, or as a
# share of what the waiting allows, whichever is less; and its memory for each that waits, as a share of the engine's.
MIN_INFLIGHT_TIMES = 3.0
MIN_INFLIGHT_SHARE = 0.95
MAX_INFLIGHT_MEMORY = 0.5
