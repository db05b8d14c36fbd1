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
from dataclasses import dataclass, field

import pytest
from harness import fronting
from load import RECORDING, Load, Record, Report, loading, wait_for_requests
from masters import Master, mastered, until

LOCATIONS = """
    keepalive_requests 100000;
    location / { uwsgi_pass %s; uwsgi_next_upstream off; }
"""


@dataclass
class Site:
    """A server under load, and the kills that it has suffered: (pid, before, after) in the clock of the clients."""

    server: Master
    load: Load
    kills: list[tuple[int, float, float]] = field(default_factory=list)

    def some_requests(self, count: int = 20) -> None:
        wait_for_requests(self.server.folder, count)

    def kill_one(self, chosen: random.Random) -> None:
        """SIGKILL to a worker that serves; waits until its master has seen its end."""
        pid = chosen.choice(list(self.server.ready().values()))
        before = time.monotonic()
        start = self.server.mark()
        os.kill(pid, signal.SIGKILL)
        # "died", or "ended" for one that a reload had told to end in the same moment.
        ends = (f"(pid {pid}) died: killed by SIGKILL", f"(pid {pid}) ended")
        until(lambda: any(end in line for end in ends for line in self.server.log.lines[start:]), f"the end of {pid}")
        self.kills.append((pid, before, time.monotonic()))

    def ends(self) -> tuple[Report, Record]:
        """End the load, then the server: what the clients say, and what the application wrote down."""
        report = self.load.stop()
        assert self.server.stop() == 0
        assert self.server.ready() == {}
        return report, Record.read(self.server.folder)

    def lost_nothing(self) -> None:
        report, record = self.ends()
        assert report.failed == []
        assert report.resets == 0
        assert record.cut == {}
        assert report.ok == len(record.began)
        assert f"stopped after {report.ok} requests" in self.server.log.text()


@contextlib.contextmanager
def site(folder, *arguments, **how):
    """A master with an nginx on each of its uwsgi sockets and four client processes at work."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            mastered(folder, RECORDING, "-L", *arguments, sockets=("http", "uwsgi", "unix"), **how)
        )
        tcp = stack.enter_context(fronting(folder / "tcp", LOCATIONS % f"127.0.0.1:{server.uwsgi[1]}"))
        unix = stack.enter_context(fronting(folder / "unix", LOCATIONS % f"unix:{server.unix}"))
        http = server.http[1]
        ports = [[tcp.port, tcp.port, http], [unix.port, unix.port, http], [tcp.port, unix.port, http], [http] * 3]
        load = stack.enter_context(loading(ports))
        wait_for_requests(folder, 50)
        yield Site(server, load)


@pytest.mark.parametrize(
    ("count", "arguments", "says"),
    [
        (20, (), "master of 2 workers"),
        (6, ("--loop", "uvloop"), "loop uvloop"),
        (6, ("--processes", "1"), "master of 1 worker"),
    ],
    ids=["two_workers", "uvloop", "one_worker"],
)
def test_reloads_lose_no_request(tmp_path, count, arguments, says):
    with site(tmp_path, *arguments) as here:
        assert says in here.server.log.text()
        for number in range(count):
            assert here.server.reload() == 2 + number
            here.some_requests()
        here.lost_nothing()


def test_of_a_killed_worker_only_the_requests_inside_it_fail(tmp_path):
    chosen = random.Random(3)
    with site(tmp_path) as here:
        for number in range(20):
            if number % 2:  # in the midst of a reload, which also forgives the seats their dead
                here.server.signal(signal.SIGHUP)
            start = here.server.mark()
            here.kill_one(chosen)
            if number % 2:
                here.server.wait_for_generation(start)
            here.some_requests()
        report, record = here.ends()
    killed = {pid for pid, _, _ in here.kills}
    assert len(killed) == 20
    assert set(record.cut.values()) <= killed
    failed = {failure.number: failure for failure in report.failed}
    assert set(record.cut) <= set(failed)  # nobody can have been answered for them
    for number, failure in failed.items():
        pids = {pid for pid, before, after in here.kills if failure.begin <= after and failure.end >= before}
        assert pids, f"{failure} was under way at no kill"
        # What the worker has not read yet is lost as well; on a kept connection one knows whose it was.
        assert {record.began.get(number, 0), failure.pid} <= {0, *pids}, f"{failure} was in a worker that nobody killed"
    assert report.ok + len(failed) >= len(record.began)


def test_ten_starts_of_a_new_master_lose_no_request(tmp_path):
    with site(tmp_path) as here:
        for number in range(10):
            start = here.server.mark()
            here.server.order("x")
            here.server.wait("new master: exec of", start)
            assert here.server.wait_for_generation(start) == 2 + number
            here.some_requests()
        here.lost_nothing()


def test_resizing_recycling_chain_reloads_and_pauses_lose_no_request(tmp_path):
    with site(tmp_path, "--max-requests", "150", "--min-worker-lifetime", "0") as here:
        for _ in range(2):
            for wanted in (3, 4, 5):
                start = here.server.mark()
                here.server.signal(signal.SIGTTIN)
                here.server.wait_for_worker("is ready", start, worker=wanted)
            here.some_requests()
            for wanted in (4, 3, 2, 1):
                start = here.server.mark()
                here.server.signal(signal.SIGTTOU)
                here.server.wait(f"{wanted} workers instead of", start)
            here.some_requests()
            start = here.server.mark()
            here.server.order("+c")
            here.server.wait_for_generation(start)
            here.some_requests(200)
            start = here.server.mark()
            here.server.signal(signal.SIGTSTP)
            here.server.wait("paused: nothing is accepted", start)
            here.server.signal(signal.SIGTSTP)
            here.server.wait("accepting again", start)
            here.some_requests()
            told = here.server.ready()[1]
            with contextlib.suppress(ProcessLookupError):  # it may have been recycled just now
                os.kill(told, signal.SIGTERM)  # by somebody else than its master
            here.server.wait(f"(pid {told}) ended", start)
            here.some_requests()
        assert here.server.log.count("max-requests") > 0
        here.lost_nothing()


def test_a_stop_under_load_finishes_what_has_begun(tmp_path):
    with site(tmp_path) as here:
        before = time.monotonic()
        here.server.signal(signal.SIGTERM)
        assert here.server.exit_code() == 0
        report = here.load.stop()
    record = Record.read(tmp_path)
    assert record.cut == {}
    assert report.resets == 0
    assert report.ok == len(record.began)  # so nobody who failed had begun
    assert {failure.how for failure in report.failed} <= {"502", "ConnectionRefusedError"}
    assert min(failure.end for failure in report.failed) > before
    assert f"stopped after {report.ok} requests" in here.server.log.text()
