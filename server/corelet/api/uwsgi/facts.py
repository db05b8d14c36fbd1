"""The part of `uwsgi` that tells about the server and its workers.

Texts are bytes, as in uWSGI on Python 3. `version` and `version_info` name the release of uWSGI whose API this is, as
applications compare them (`version_info >= (2, 0)`); corelet's own version is the last field of `version_info`.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from corelet import __version__
from corelet.api.server import Server, current
from corelet.api.uwsgi.given import Options
from corelet.base.config import Config
from corelet.base.roster import Row
from corelet.base.scoreboard import OTHERS

UWSGI_VERSION = (2, 0, 31, 0)
MICRO = 1_000_000

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_UNACKED_OFFSET = 24  # of struct tcp_info: eight bytes, then rto, ato, snd_mss, rcv_mss, unacked (linux/tcp.h)


def _sockets() -> list[int]:
    """The descriptors of the listening sockets."""
    worker = current().worker
    return [] if worker is None else [listener.fileno() for listener in worker.listeners]


LIVE: dict[str, Callable[[], Any]] = {"sockets": _sockets}


def names(server: Server) -> dict[str, Any]:
    """The plain attributes."""
    config = server.config
    hostname = socket.gethostname().encode()
    found = {
        "applications": None,  # the module's own dict of applications, from before there was WSGI in it: never set
        "buffer_size": config.buffer_size,
        "cores": config.cores,
        "has_threads": 1,
        "hostname": hostname,
        "is_a_reload": server.is_a_reload,
        "loop": config.loop.encode(),
        "magic_table": _magic_table(server, hostname),
        "numproc": config.processes,
        "opt": Options(config.written),
        "started_on": int(server.started_on),
        "unbit": None,
        "version": ".".join(map(str, UWSGI_VERSION[:3])).encode(),
        "version_info": (*UWSGI_VERSION, f"corelet {__version__}".encode()),
        **{function.__name__: function for function in _FUNCTIONS},
    }
    pidfile = _pidfile(config)
    if pidfile is not None:
        found["pidfile"] = pidfile.encode()
    return found


def _pidfile(config: Config) -> str | None:
    return config.pidfile or config.safe_pidfile or config.pidfile2 or config.safe_pidfile2


def worker_id() -> int:
    """The number of this worker, from 1; 0 in a master that loads the application."""
    return current().worker_id


def masterpid() -> int:
    """The process id of the master; 0 without one."""
    return current().master_pid


def mule_id() -> int:
    """0: there are no mules here."""
    return 0


def request_id() -> int:
    """How many requests this worker has finished."""
    worker = current().worker
    return 0 if worker is None else worker.requests


def total_requests() -> int:
    """How many requests all workers have finished; those of the others as the master saw them half a second ago."""
    worker = current().worker
    if worker is None:
        return 0
    return worker.requests + (0 if worker.board is None else int(worker.board.cells[OTHERS]))


def ready() -> bool:
    """Whether this worker serves."""
    return current().worker is not None


def accepting() -> None:
    """Tell the server that this worker accepts. It knows: nothing happens."""


def micros() -> int:
    """The time, in microseconds since the epoch."""
    return time.time_ns() // 1000


def mem() -> tuple[int, int]:
    """Memory of this process, in bytes: resident, address space."""
    return _memory(os.getpid())


def listen_queue(number: int = 0, /) -> int:
    """How many connections wait to be accepted on the listening socket of this number; 0 on unix sockets."""
    worker = current().serving()
    if not 0 <= number < len(worker.listeners):
        raise ValueError(f"unable to find socket {number}: there are {len(worker.listeners)}")
    with socket.socket(fileno=os.dup(worker.listeners[number].fileno())) as sock:
        if sock.family == socket.AF_UNIX:
            return 0
        information = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED_OFFSET + 4)
    (waiting,) = struct.unpack_from("=I", information, _UNACKED_OFFSET)
    return int(waiting)


def logsize() -> int:
    """Bytes in the file that logto or daemonize names; 0 where the log is no file."""
    config = current().config
    return os.fstat(2).st_size if config.logto or config.daemonize else 0


def workers() -> tuple[dict[str, Any], ...]:
    """Every worker, with uWSGI's keys. The others' counters are those that the master saw last, half a second ago.

    `signals`, `tx` and `avg_rt` are not counted here, and 0.
    """
    server = current()
    rows = {} if server.roster is None else {row.worker: row for row in server.roster.rows()}
    if server.worker is not None:
        rows[server.worker_id] = _own_row(server, rows.get(server.worker_id))
    return tuple(_worker(row) for _worker_id, row in sorted(rows.items()))


def _own_row(server: Server, row: Row | None) -> Row:
    worker = server.serving()
    mine = row is not None and row.pid == os.getpid()
    return Row(
        worker=server.worker_id,
        pid=os.getpid(),
        requests=worker.requests,
        requests_before=row.requests_before if row is not None else 0,
        exceptions=worker.exceptions,
        harakiris=worker.harakiris,
        in_use=len(worker.hub.cores) - len(worker.hub.idle),
        busy_seconds=row.busy_seconds if row is not None and mine else 0.0,
        born=server.started_on,
        spawns=row.spawns if row is not None else 1,
    )


def _worker(row: Row) -> dict[str, Any]:
    resident, address_space = _memory(row.pid) if row.pid else (0, 0)
    requests = row.requests + row.requests_before
    application = {
        "id": 0,
        "modifier1": 0,
        "mountpoint": b"",
        "startup_time": 0,
        "interpreter": 0,
        "callable": 0,
        "requests": requests,
        "exceptions": row.exceptions,
        "chdir": b"",
    }
    return {
        "id": row.worker,
        "pid": row.pid,
        "requests": requests,
        "delta_requests": row.requests,
        "signals": 0,
        "exceptions": row.exceptions,
        "status": b"cheap" if not row.pid else b"busy" if row.in_use else b"idle",
        "rss": resident,
        "vsz": address_space,
        "running_time": int(row.busy_seconds * MICRO),
        "last_spawn": int(row.born),
        "respawn_count": max(0, row.spawns - 1),
        "tx": 0,
        "avg_rt": 0,
        "apps": (application,),
    }


def _memory(pid: int) -> tuple[int, int]:
    """(resident, address space) of a process in bytes; zeros for one that has gone (proc(5), statm)."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            size, resident = file.read().split()[:2]
    except (OSError, ValueError):
        return 0, 0
    return int(resident) * _PAGE_BYTES, int(size) * _PAGE_BYTES


def _magic_table(server: Server, hostname: bytes) -> dict[bytes, bytes]:
    """What uWSGI's one-letter placeholders stand for."""
    uid, gid = os.getuid(), os.getgid()
    return {
        b"%": b"%",
        b"(": b"%(",
        b"[": b"\x1b",
        b"G": _name(lambda: grp.getgrgid(gid).gr_name, gid),
        b"T": str(int(server.started_on * MICRO)).encode(),
        b"U": _name(lambda: pwd.getpwuid(uid).pw_name, uid),
        b"V": ".".join(map(str, UWSGI_VERSION[:3])).encode(),
        b"g": str(gid).encode(),
        b"h": hostname,
        b"k": str(len(os.sched_getaffinity(0))).encode(),
        b"t": str(int(server.started_on)).encode(),
        b"u": str(uid).encode(),
        b"v": os.fsencode(os.getcwd()),
    }


def _name(look_up: Callable[[], str], number: int) -> bytes:
    try:
        return look_up().encode()
    except KeyError:  # a user of a container who has no name
        return str(number).encode()


_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    accepting,
    listen_queue,
    logsize,
    masterpid,
    mem,
    micros,
    mule_id,
    ready,
    request_id,
    total_requests,
    worker_id,
    workers,
)
