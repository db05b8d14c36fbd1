"""The options about logs and processes: one declaration each, with the reason of its default.

Part of the option table (config.py joins the parts, option.py says what a declaration is).
"""

from __future__ import annotations

from dataclasses import dataclass

from corelet.base.option import Kind, option


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """Logs."""

    disable_logging: bool = option(kind=Kind.FLAG, short="L", help="no access log; events and errors are still logged")

    logto: str | None = option(
        kind=Kind.TEXT, metavar="FILE", help="append all logs, and what the application prints, to this file"
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
        metavar="N",
        help="worker processes",
        accepted="one worker is started in this version; its cores serve many requests at once",
    )

    master: bool = option(
        kind=Kind.FLAG,
        short="M",
        help="a master process over the workers",
        accepted="with one worker there is nothing to be master of",
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
        accepted="a listening socket is watched only while a core is free: there is no herd to hold back",
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

    strict: bool = option(
        kind=Kind.FLAG, default=True, help="refuse unknown options", accepted="an unknown option is always an error"
    )


@dataclass(frozen=True, kw_only=True)
class AboutOptions:
    """About."""

    show_config: bool = option(
        kind=Kind.FLAG, help="print every option with its value and where it came from, then start if a socket is named"
    )

    version: bool = option(kind=Kind.FLAG, help="print the version and exit")

    help: bool = option(kind=Kind.FLAG, short="h", help="print this and exit")
