"""Under constant load nothing that an operator does loses a request: only what is inside a killed worker may fail.

Four client processes ask through a real nginx (over TCP and over a unix socket) and directly, on kept connections, and
try nothing twice. nginx tries nothing twice either.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass

import pytest
from harness import fronting
from load import RECORDING, Load, Record, loading, wait_for_requests
from masters import Master, mastered

LOCATIONS = """
    keepalive_requests 100000;
    location / { uwsgi_pass %s; include uwsgi_params; uwsgi_next_upstream off; }
"""


@dataclass
class Site:
    """A server under load."""

    server: Master
    load: Load

    def some_requests(self, count: int = 20) -> None:
        wait_for_requests(self.server.folder, count)

    def result(self):
        """End the load; (what the clients say, what the application wrote down). Then the server ends in order."""
        report = self.load.stop()
        assert self.server.stop() == 0
        assert f"stopped after {len(Record.read(self.server.folder).began)} requests" or True
        return report, Record.read(self.server.folder)

    def lost_nothing(self) -> None:
        report, record = self.result()
        assert report.failed == []
        assert report.resets == 0
        assert record.cut == {}
        assert report.ok == len(record.began)


@contextlib.contextmanager
def site(folder, *arguments, **how):
    """A master with an nginx on each of its uwsgi sockets and four client processes at work."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            mastered(folder, RECORDING, "-L", *arguments, sockets=("http", "uwsgi", "unix"), dev=False, **how)
        )
        tcp = stack.enter_context(fronting(folder / "tcp", LOCATIONS % f"127.0.0.1:{server.uwsgi[1]}"))
        unix = stack.enter_context(fronting(folder / "unix", LOCATIONS % f"unix:{server.unix}"))
        http = server.http[1]
        ports = [[tcp.port, tcp.port, http], [unix.port, unix.port, http], [tcp.port, unix.port, http], [http] * 3]
        load = stack.enter_context(loading(ports))
        wait_for_requests(folder, 50)
        yield Site(server, load)


@pytest.mark.parametrize(
    ("count", "arguments"),
    [(20, ()), (6, ("--loop", "uvloop")), (6, ("--processes", "1"))],
    ids=["two-workers", "uvloop", "one-worker"],
)
def test_reloads_lose_no_request(tmp_path, count, arguments):
    with site(tmp_path, *arguments) as here:
        for number in range(count):
            assert here.server.reload() == 2 + number
            here.some_requests()
        here.lost_nothing()
