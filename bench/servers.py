"""The table of contestants: who takes part, in which group, and the command that starts each.

A row is a frozen value and a command is a pure function of a Place, so what is compared can be read (and printed) here
without running anything. Each contestant serves the same application file with one worker process, no access log
unless its name says otherwise, and its own defaults for everything else; where a default had to go, the reason stands
beside it. Requests over uwsgi packets come through one nginx, so the peers that cannot speak uwsgi are a group of their
own, over kept-alive HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

APP = Path(__file__).with_name("apps") / "bench_app.py"
CORES = 100  # concurrent requests of the asyncio engines: more than wrk's connections, so that none waits for a core

# Groups. A figure is compared within its group only.
NGINX = "behind nginx, uwsgi over TCP"
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


def corelet(place: Place, *options: str, socket: str = "--socket") -> list[str]:
    """corelet with as many cores as uWSGI's asyncio engine is given."""
    return [*place.program, socket, place.address, "--asyncio", str(CORES), "--wsgi-file", str(APP), *options]


def uwsgi(place: Place, *options: str) -> list[str]:
    """uWSGI without a master. need-app and die-on-term: an error at load ends it, and so does SIGTERM."""
    command = [*place.program, "--socket", place.address, "--home", str(place.home), "--wsgi-file", str(APP)]
    return [*command, "--need-app", "--die-on-term", "--disable-logging", *options]


def uwsgi_asyncio(place: Place) -> list[str]:
    """uWSGI's asyncio loop engine with greenlet, as its documentation starts it."""
    return uwsgi(place, "--asyncio", str(CORES), "--greenlet")


def gunicorn(place: Place, *options: str) -> list[str]:
    """gunicorn, one worker, whose access log is off by default."""
    command = [*place.program, "--bind", place.address, "--workers", "1", "--chdir", str(APP.parent)]
    return [*command, "--log-level", "critical", "--no-control-socket", *options, "bench_app:application"]


def gunicorn_uwsgi(place: Place) -> list[str]:
    """gunicorn's uwsgi mode with its sync worker, the cheaper of its kinds there."""
    return gunicorn(place, "--protocol", "uwsgi", "--worker-class", "sync")


def gunicorn_threads(place: Place) -> list[str]:
    """gunicorn's threaded worker: its sync worker has no keep-alive. Four threads, as waitress has by default."""
    return gunicorn(place, "--worker-class", "gthread", "--threads", "4")


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


CONTESTANTS = (
    Contestant("corelet", "corelet", NGINX, "corelet", lambda p: corelet(p, "--disable-logging")),
    Contestant("corelet-log", "corelet, access log on", NGINX, "corelet", corelet),
    Contestant("uwsgi-asyncio", "uWSGI, asyncio engine", NGINX, "uwsgi", uwsgi_asyncio),
    Contestant("uwsgi-sync", "uWSGI, sync (C)", NGINX, "uwsgi", uwsgi),
    Contestant("gunicorn-uwsgi", "gunicorn, uwsgi mode, sync", NGINX, "gunicorn", gunicorn_uwsgi),
    Contestant("corelet-unix", "corelet", NGINX_UNIX, "corelet", lambda p: corelet(p, "--disable-logging")),
    Contestant("uwsgi-sync-unix", "uWSGI, sync (C)", NGINX_UNIX, "uwsgi", uwsgi),
    Contestant(
        "corelet-http", "corelet", HTTP, "corelet", lambda p: corelet(p, "--disable-logging", socket="--http-socket")
    ),
    Contestant("granian-http", "granian", HTTP, "granian", granian),
    Contestant("waitress-http", "waitress", HTTP, "waitress-serve", waitress),
    Contestant("gunicorn-http", "gunicorn, gthread", HTTP, "gunicorn", gunicorn_threads),
)

# The names a group's figures are put in proportion to; the first is the one for requests/s and p99.
BASELINES = {
    NGINX: ("uwsgi-asyncio", "uwsgi-sync"),
    NGINX_UNIX: ("uwsgi-sync-unix",),
    HTTP: ("granian-http",),
}


@dataclass(frozen=True)
class Goal:
    """A promise: the contestant's CPU per request is at most `limit` times the baseline's, in every case."""

    contestant: str
    baseline: str
    limit: float


GOALS = (
    Goal("corelet", "uwsgi-asyncio", 0.45),
    Goal("corelet", "uwsgi-sync", 1.30),
    Goal("corelet-http", "granian-http", 1.00),
    Goal("corelet-log", "corelet", 1.15),
)
MAX_SUSPENDED_BYTES = 15_000  # memory of one suspended request, view ten frames deep
