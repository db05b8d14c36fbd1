"""The options about logs and about workers: one declaration each, with the reason of its default.

Part of the option table (config.py joins the parts, option.py says what a declaration is).
"""

from __future__ import annotations

from dataclasses import dataclass

from corelet.base.option import Kind, option

# A mistyped zero is refused here. The master has three descriptors for each worker, and twice as many in a reload, so
# these are 6,000; and what it plans takes time by the square of them, 0.04 s for a thousand.
MAX_PROCESSES = 1000


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """Logs."""

    disable_logging: bool = option(kind=Kind.FLAG, short="L", help="no access log; events and errors are still logged")

    logto: str | None = option(
        kind=Kind.TEXT,
        metavar="FILE",
        help="append all logs, and what the application prints, to this file; to open it again after it was moved "
        "away, uid must be allowed to write to its folder",
    )

    log_format: str | None = option(
        "log-format",
        "logformat",
        kind=Kind.TEXT,
        metavar="FORMAT",
        help="the access line, with uWSGI's variables: %(addr) %(method) %(uri) %(proto) %(status) %(msecs) …",
    )

    log_x_forwarded_for: bool = option(
        kind=Kind.FLAG, help="show X-Forwarded-For in place of the peer's address in the access line"
    )


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Processes."""

    processes: int = option(
        "processes",
        "workers",
        kind=Kind.INTEGER,
        short="p",
        default=1,
        minimum=1,
        maximum=MAX_PROCESSES,
        metavar="N",
        help="worker processes; more than one have a master. SIGTTIN adds to them, up to four times as many",
    )

    master: bool = option(
        kind=Kind.FLAG, short="M", help="a master process, which starts, watches, reloads and replaces the workers"
    )

    # Off, since what an application makes while it is imported (connections, threads, loops) does not survive a fork.
    preload: bool = option(
        "preload",
        "no-lazy-apps",
        kind=Kind.FLAG,
        help="load the application once, in the master: workers share its memory; a reload is then a re-exec",
    )

    master_fifo: tuple[str, ...] = option(
        kind=Kind.LIST, metavar="FILE", help="make this fifo, and obey the letters written to it, as in uWSGI"
    )

    threads: int = option(
        kind=Kind.INTEGER,
        default=1,
        minimum=1,
        metavar="N",
        help="threads per worker",
        accepted="requests run on cores (asyncio N), all in one thread",
    )

    enable_threads: bool = option(
        kind=Kind.FLAG,
        short="T",
        default=True,
        help="let the application use threads",
        accepted="Python's threads always work here",
    )

    thunder_lock: bool = option(
        kind=Kind.FLAG,
        help="serialise accept() between workers",
        accepted="the kernel wakes one worker for a connection (EPOLLEXCLUSIVE): there is no herd to hold back",
    )

    plugins: tuple[str, ...] = option(
        "plugins",
        "plugin",
        kind=Kind.LIST,
        metavar="NAME",
        help="uWSGI plugins to load",
        accepted="what corelet can do is built in",
    )

    die_on_term: bool = option(
        kind=Kind.FLAG,
        default=True,
        help="stop on SIGTERM",
        accepted="SIGTERM always stops, and lets running requests end first",
    )

    no_orphans: bool = option(
        kind=Kind.FLAG,
        default=True,
        help="end the workers when their master has died",
        accepted="workers always end, in order, when their master is gone",
    )

    py_call_osafterfork: bool = option(
        kind=Kind.FLAG,
        default=True,
        help="call os.register_at_fork handlers in workers",
        accepted="workers are made by os.fork(), which calls them",
    )

    # 0 to N are to be had, as in uWSGI: it always has lock 0.
    locks: int = option(
        kind=Kind.INTEGER,
        default=0,
        maximum=10_000,
        metavar="N",
        help="give uwsgi.lock() the numbers 1 to N beside 0",
    )

    strict: bool = option(
        kind=Kind.FLAG, default=True, help="refuse unknown options", accepted="an unknown option is always an error"
    )


@dataclass(frozen=True, kw_only=True)
class ReloadOptions:
    """Reload and replacement of workers."""

    # The first meaning is ours, the second uWSGI's; a pid file called `exec` would have to be written ./exec.
    reload: str | None = option(
        kind=Kind.TEXT,
        metavar="exec or PIDFILE",
        help="exec: a reload starts the whole master anew (new corelet, new interpreter) and keeps its sockets and its "
        "workers until the new ones are ready; a pid file: tell the server that wrote it to reload, and exit",
    )

    stop: str | None = option(
        kind=Kind.TEXT, metavar="PIDFILE", help="tell the server that wrote this pid file to stop, and exit"
    )

    # uWSGI's 60. 25 for the reason of reload-mercy: the two ways of ending a worker should not differ unasked.
    worker_reload_mercy: float = option(
        kind=Kind.SECONDS,
        default=25.0,
        help="time for running requests to end in a worker that is replaced; then they are unwound",
    )

    touch_reload: tuple[str, ...] = option(kind=Kind.LIST, metavar="FILE", help="reload when this file is touched")

    touch_workers_reload: tuple[str, ...] = option(
        kind=Kind.LIST,
        metavar="FILE",
        help="start new workers, with the configuration as it is, when this file is touched",
    )

    touch_chain_reload: tuple[str, ...] = option(
        kind=Kind.LIST, metavar="FILE", help="replace the workers one after the other when this file is touched"
    )

    py_autoreload: float = option(
        "py-autoreload",
        "py-auto-reload",
        "python-autoreload",
        "python-auto-reload",
        kind=Kind.SECONDS,
        default=0.0,
        bare=1.0,
        help="for development: look at the files of imported modules so often (at once with corelet[reload]), and "
        "reload when one has changed; 0 = off",
    )

    exit_on_reload: bool = option(
        kind=Kind.FLAG,
        help="exit instead of reloading",
        accepted="who restarts an exited server has SIGTERM for that; a reload here loses no request",
    )

    max_requests: int = option(
        kind=Kind.INTEGER,
        short="R",
        default=0,
        metavar="N",
        help="replace a worker after so many requests; 0 = never",
    )

    max_requests_delta: int = option(
        kind=Kind.INTEGER, default=0, metavar="N", help="add N times the worker's number to max-requests"
    )

    max_worker_lifetime: float = option(kind=Kind.SECONDS, default=0.0, help="replace a worker at this age; 0 = never")

    max_worker_lifetime_delta: float = option(
        kind=Kind.SECONDS, default=0.0, help="add so much times the worker's number to max-worker-lifetime"
    )

    # uWSGI's 60: a limit that is reached at once must not become a loop of restarts.
    min_worker_lifetime: float = option(
        kind=Kind.SECONDS, default=60.0, help="no worker is recycled (max-requests, reload-on-rss) before this age"
    )

    reload_on_rss: int = option(
        kind=Kind.INTEGER, default=0, metavar="MB", help="replace a worker that has so much resident memory; 0 = never"
    )

    reload_on_as: int = option(
        kind=Kind.INTEGER, default=0, metavar="MB", help="replace a worker with so much address space; 0 = never"
    )


@dataclass(frozen=True, kw_only=True)
class CheaperOptions:
    """Fewer workers when there is little to do."""

    # uWSGI's defaults throughout (plugins/cheaper_busyness).
    cheaper: int = option(
        kind=Kind.INTEGER,
        default=0,
        metavar="N",
        help="keep N workers at least, and up to processes when they are busy",
    )

    cheaper_initial: int = option(
        kind=Kind.INTEGER, default=0, metavar="N", help="workers to start with; 0 = as many as cheaper"
    )

    cheaper_step: int = option(
        kind=Kind.INTEGER, default=1, minimum=1, metavar="N", help="workers to add at a time when they are busy"
    )

    cheaper_algo: str = option(
        kind=Kind.TEXT, default="busyness", metavar="NAME", help="how load is judged: by busyness, whatever is named"
    )

    cheaper_overload: float = option(
        kind=Kind.SECONDS, default=3.0, minimum=0.1, help="how often the number of workers is judged"
    )

    cheaper_busyness_max: int = option(
        kind=Kind.INTEGER,
        default=50,
        minimum=1,
        maximum=100,
        metavar="PERCENT",
        help="add workers when their average busyness is above this: the share of time their loop works, or of cores "
        "in use, whichever is more",
    )

    cheaper_busyness_min: int = option(
        kind=Kind.INTEGER,
        default=25,
        maximum=100,
        metavar="PERCENT",
        help="take one away when it has been below this for cheaper-busyness-multiplier judgements",
    )

    cheaper_busyness_multiplier: int = option(
        kind=Kind.INTEGER, default=10, minimum=1, metavar="N", help="judgements before a worker is taken away"
    )

    cheaper_busyness_verbose: bool = option(kind=Kind.FLAG, help="log every judgement")


@dataclass(frozen=True, kw_only=True)
class AboutOptions:
    """About."""

    ini: tuple[str, ...] = option(
        kind=Kind.LIST,
        metavar="FILE[:SECTION]",
        help="read options from this file, section uwsgi or corelet if none is named, as if they stood here; `corelet "
        "app.ini` is the same. A reload reads it again",
    )

    show_config: bool = option(
        kind=Kind.FLAG, help="print every option with its value and where it came from, then start if a socket is named"
    )

    version: bool = option(kind=Kind.FLAG, help="print the version and exit")

    help: bool = option(kind=Kind.FLAG, short="h", help="print this and exit")
