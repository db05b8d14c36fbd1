"""The access line: from an Outcome to one line of text, in uWSGI's format or in the operator's.

The default line is uWSGI's, to the byte (core/logging.c, uwsgi_logit_simple; compared with 2.0.31), because log
parsers, dashboards and fail2ban rules read it. It is written by hand as one f-string: it is built for every request.
A `log-format` is compiled once into a template and one small function per variable.

One request is one line: control characters of what the peer sent are shown as \\xNN, so a request cannot forge a line
(uWSGI writes them raw). In an operator's format, where fields stand in quotes, `"` and `\\` are shown so too, as nginx
does. Text is latin-1 as in the environ: `LogWriter` (logs.py) writes the peer's bytes back as they came.

It writes nothing: see logs.py.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import time
from collections.abc import Callable

from corelet.base.outcome import Outcome

LOG_VARIABLES = "corelet.log_variables"
"""Key of the environ: a dict of what the application has set for its access line (uwsgi.set_logvar)."""

LineMaker = Callable[[Outcome], str]
Getter = Callable[[Outcome], str]

log = logging.getLogger("corelet")

# C0 controls and DEL. Bytes from 0x80 on are left alone: in a UTF-8 log they are parts of letters.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}
_QUOTABLE = _CONTROLS | {ord('"'): "\\x22", ord("\\"): "\\x5c"}

_VARIABLE = re.compile(r"%\(([^)]+)\)")


def compile_format(format: str | None, x_forwarded_for: bool = False) -> LineMaker:
    """A function that makes one line, without its newline, of one Outcome. None asks for uWSGI's default line.

    With `x_forwarded_for` (the option log-x-forwarded-for) the address shown is the X-Forwarded-For that came, if one
    did. The pid is taken now: compile in the process that serves. Unknown variables are those that the application
    sets (uwsgi.set_logvar), and print "-" where it did not, as in uWSGI; they are named once in the log.
    """
    address = _forwarded_or_peer if x_forwarded_for else _peer
    return _default_line(address) if format is None else _compile(format, address)


def _peer(outcome: Outcome) -> str:
    return str(outcome.environ.get("REMOTE_ADDR", ""))


def _forwarded_or_peer(outcome: Outcome) -> str:
    return str(outcome.environ.get("HTTP_X_FORWARDED_FOR") or outcome.environ.get("REMOTE_ADDR", ""))


# ---- uWSGI's line ----


def _default_line(address: Getter) -> LineMaker:
    pid = os.getpid()
    direct = address is _peer
    second = -1
    when = ""

    def make(outcome: Outcome) -> str:
        nonlocal second, when
        (
            environ,
            status,
            body_bytes,
            head_bytes,
            header_count,
            elapsed_us,
            core,
            switches,
            var_count,
            var_bytes,
            worker_requests,
            total_requests,
            began,
            *_,
        ) = outcome  # one unpacking instead of a dozen look-ups
        started = int(began)
        if started != second:
            second, when = started, time.ctime(started)
        get = environ.get
        peer = get("REMOTE_ADDR", "") if direct else address(outcome)
        user = get("REMOTE_USER", "")
        method = get("REQUEST_METHOD", "")
        uri = get("REQUEST_URI", "")
        proto = get("SERVER_PROTOCOL", "")
        # `app: 0` is uWSGI's number of the application; "vars" counts keys and values there, so twice our number.
        line = (
            f"[pid: {pid}|app: 0|req: {worker_requests}/{total_requests}] {peer} ({user}) "
            f"{{{var_count * 2} vars in {var_bytes} bytes}} [{when}] {method} {uri} => "
            f"generated {body_bytes} bytes in {elapsed_us // 1000} msecs ({proto} {status}) "
            f"{header_count} headers in {head_bytes} bytes "
            f"({switches} switches on core {core})"
        )
        # Only the fields of the peer can need the escape; a look at them costs a third of a look at the line.
        if f"{uri}{method}{peer}{user}{proto}".isprintable():
            return line
        return line.translate(_CONTROLS)

    return make


# ---- the operator's format ----


def _compile(format: str, address: Getter) -> LineMaker:
    pieces = _VARIABLE.split(format)
    # A line of the log is bytes; text of the configuration is UTF-8 there, whatever the rest of the line holds.
    literals = [piece.encode("utf-8", "surrogateescape").decode("latin-1") for piece in pieces[::2]]
    names = pieces[1::2]
    unknown = sorted({name for name in names if _getter(name, address) is None})
    if unknown:
        log.warning(
            "log-format: no variable is named %s; shown as - unless uwsgi.set_logvar sets it", ", ".join(unknown)
        )
    getters = [_getter(name, address) or _set_by_application(name) for name in names]
    template = "%s".join(literal.replace("%", "%%") for literal in literals)

    def make(outcome: Outcome) -> str:
        return template % tuple([_shown(getter(outcome)) for getter in getters])

    return make


def _shown(value: str) -> str:
    """A field as it may stand in a line: never empty, never able to end the line or a quoted field."""
    if not value:
        return "-"
    if value.isprintable() and '"' not in value and "\\" not in value:
        return value
    return value.translate(_QUOTABLE)


def _set_by_application(name: str) -> Getter:
    def get(outcome: Outcome) -> str:
        variables = outcome.environ.get(LOG_VARIABLES)
        return "-" if variables is None else variables.get(name, "-")

    return get


def _getter(name: str, address: Getter) -> Getter | None:
    """The function behind one variable's name; None if there is no such variable."""
    if name == "addr":
        return address
    if name.startswith("var."):
        return _variable(name.removeprefix("var."))
    if name in _ENVIRON_KEYS:
        return _variable(_ENVIRON_KEYS[name])
    return _FUNCTIONS.get(name)


def _variable(key: str) -> Getter:
    def get(outcome: Outcome) -> str:
        return str(outcome.environ.get(key, ""))

    return get


_ENVIRON_KEYS = {
    "uri": "REQUEST_URI",
    "method": "REQUEST_METHOD",
    "user": "REMOTE_USER",
    "host": "HTTP_HOST",
    "proto": "SERVER_PROTOCOL",
    "uagent": "HTTP_USER_AGENT",
    "referer": "HTTP_REFERER",
}


@functools.lru_cache(maxsize=1)
def _local_time(second: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(second))


@functools.lru_cache(maxsize=1)
def _ctime(second: int) -> str:
    return time.ctime(second)


@functools.lru_cache(maxsize=1)
def _memory_bytes(second: int) -> tuple[int, int]:
    """(address space, resident) of this process, read once a second (proc(5), statm: pages)."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        total, resident = statm.read().split()[:2]
    page = os.sysconf("SC_PAGE_SIZE")
    return int(total) * page, int(resident) * page


# What uWSGI registers in core/logging.c, by its names. `ftime` is `ltime` there too unless log-date gives a format.
_FUNCTIONS: dict[str, Getter] = {
    "status": lambda outcome: str(outcome.status),
    "rsize": lambda outcome: str(outcome.body_bytes),
    "hsize": lambda outcome: str(outcome.head_bytes),
    "size": lambda outcome: str(outcome.head_bytes + outcome.body_bytes),
    "cl": lambda outcome: str(outcome.environ.get("CONTENT_LENGTH") or 0),
    "epoch": lambda outcome: str(int(time.time())),
    "time": lambda outcome: str(int(outcome.started)),
    "ctime": lambda outcome: _ctime(int(outcome.started)),
    "ltime": lambda outcome: _local_time(int(outcome.started)),
    "ftime": lambda outcome: _local_time(int(outcome.started)),
    "tmsecs": lambda outcome: str(int(outcome.started * 1000)),
    "tmicros": lambda outcome: str(int(outcome.started * 1000000)),
    "micros": lambda outcome: str(outcome.elapsed_us),
    "msecs": lambda outcome: str(outcome.elapsed_us // 1000),
    "secs": lambda outcome: f"{outcome.elapsed_us / 1000000:f}",
    "pid": lambda outcome: str(os.getpid()),
    "wid": lambda outcome: str(outcome.worker_id),
    "core": lambda outcome: str(outcome.core),
    "switches": lambda outcome: str(outcome.switches),
    "vars": lambda outcome: str(outcome.var_count * 2),
    "pktsize": lambda outcome: str(outcome.var_bytes),
    "headers": lambda outcome: str(outcome.header_count),
    "modifier1": lambda outcome: "0",  # the only one that is served
    "modifier2": lambda outcome: "0",
    "vsz": lambda outcome: str(_memory_bytes(int(outcome.started))[0]),
    "rss": lambda outcome: str(_memory_bytes(int(outcome.started))[1]),
    "vszM": lambda outcome: str(_memory_bytes(int(outcome.started))[0] >> 20),
    "rssM": lambda outcome: str(_memory_bytes(int(outcome.started))[1] >> 20),
    "rerr": lambda outcome: str(outcome.read_errors),
    "werr": lambda outcome: str(outcome.write_errors),
    "ioerr": lambda outcome: str(outcome.read_errors + outcome.write_errors),
}
