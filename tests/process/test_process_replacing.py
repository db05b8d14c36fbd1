"""Workers are replaced when their time has come, and follow the load: never too few, never losing a request."""

from __future__ import annotations

import collections
import os
import re

from masters import gated, mastered, moment
from stage import begin, finish

AT_ONCE = ("--min-worker-lifetime", "0")

PID = """
import os

KEPT = []

def application(environ, start_response):
    if environ["PATH_INFO"] == "/grow":
        KEPT.append(b"x" * 50_000_000)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


def fewest_ready(server):
    """The smallest number of workers that were ready and not told to end, since the first generation was complete."""
    ready, numbers, complete = set(), [], False
    for line in server.log.lines:
        match = re.search(r"worker \d+ \(pid (\d+)\) (is ready|retires|ended|died|is killed)", line)
        if match:
            (ready.add if match[2] == "is ready" else ready.discard)(match[1])
        complete = complete or "generation 1 is ready" in line
        if "stopping (" in line:
            break
        if complete:
            numbers.append(len(ready))
    return min(numbers)


def test_max_requests_counts_each_worker_on_and_replaces_it_before_it_goes(tmp_path):
    arguments = ("--max-requests", "20", "--max-requests-delta", "10", *AT_ONCE)
    with mastered(tmp_path, PID, *arguments) as server:
        answered = collections.Counter()
        workers = {}
        replaced = set()
        while len(replaced) < 3:
            workers |= {pid: worker for worker, pid in server.ready().items()}
            pid = int(server.get("/").body)
            answered[pid] += 1
            if answered[pid] == 20 + 10 * workers[pid]:
                line = server.wait(f"worker {workers[pid]} (pid {pid}) retires: ")
                assert "max-requests" in line
                server.wait(f"worker {workers[pid]} (pid {pid}) ended")
                replaced.add(pid)
        assert server.log.count("retires") == 3  # nobody earlier than that
        assert fewest_ready(server) == 2
        assert server.stop() == 0
        assert f"stopped after {sum(answered.values())} requests" in server.log.text()


def test_no_worker_is_recycled_before_its_least_age(tmp_path):
    arguments = ("--processes", "1", "--max-requests", "3", "--min-worker-lifetime", "1")
    with mastered(tmp_path, PID, *arguments) as server:
        pid = server.ready()[1]
        assert {server.get("/").body for _ in range(10)} == {str(pid).encode()}
        ready = server.wait(f"(pid {pid}) is ready")
        retired = server.wait(f"(pid {pid}) retires: ")
        age = (moment(retired) - moment(ready)).total_seconds()
        assert age >= 0.9  # its age begins at its fork, a moment before
        assert fewest_ready(server) == 1


def test_a_worker_is_replaced_at_the_end_of_its_life(tmp_path):
    with gated(tmp_path, "", "--max-worker-lifetime", "0.6") as (server, gates):
        old = server.ready()
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        for worker, pid in old.items():
            assert "lifetime" in server.wait(f"worker {worker} (pid {pid}) retires: ")
        assert server.get("/pid").status == 200
        gate.open()
        assert finish(running).body.decode() == str(gate.pid)
        for pid in old.values():
            server.wait(f"(pid {pid}) ended")
        assert fewest_ready(server) == 2


def test_a_worker_that_max_requests_has_marked_still_ends_at_the_end_of_its_life(tmp_path):
    arguments = ("--max-requests", "1", "--min-worker-lifetime", "1000", "--max-worker-lifetime", "1")
    with mastered(tmp_path, PID, "--processes", "1", *arguments) as server:
        before = server.get_pid()
        server.wait("(max-requests)")
        server.wait(f"(pid {before}) ended")


def test_a_worker_that_has_grown_is_replaced(tmp_path):
    with mastered(tmp_path, PID, "--reload-on-rss", "60", *AT_ONCE) as server:
        pid = int(server.get("/grow").body)
        line = server.wait(f"(pid {pid}) retires: ")
        assert "reload-on-rss" in line
        server.wait(f"(pid {pid}) ended")
        assert server.log.count("retires") == 1
        assert fewest_ready(server) == 2


def test_a_worker_with_too_much_address_space_is_replaced(tmp_path):
    with mastered(tmp_path, PID, "--reload-on-as", "1", "--min-worker-lifetime", "60") as server:
        assert server.get("/").status == 200
        assert server.get("/").status == 200
        assert "retires" not in server.log.text()  # not before its least age


def test_a_successor_that_cannot_load_leaves_the_worker_that_is_to_be_replaced(tmp_path):
    with mastered(tmp_path, PID, "--processes", "1", "--max-requests", "3", *AT_ONCE) as server:
        pid = server.ready()[1]
        (tmp_path / "app.py").write_text("no Python\n")
        for _ in range(10):
            assert server.get("/").body == str(pid).encode()
        server.wait("it is tried again later")
        assert server.get("/").body == str(pid).encode()
        (tmp_path / "app.py").write_text(PID)
        server.wait(f"(pid {pid}) retires: ")
        assert fewest_ready(server) == 1


# ---- cheaper --------------------------------------------------------------------------------------------------------

CHEAPER = (
    "--processes", "3", "--cheaper", "1", "--cheaper-overload", "0.2", "--cheaper-busyness-multiplier", "1",
    "--cheaper-busyness-max", "30", "--asyncio", "2",
)  # fmt: skip


def test_the_number_of_workers_follows_the_load_and_no_request_is_lost(tmp_path):
    with gated(tmp_path, "", *CHEAPER) as (server, gates):
        assert len(server.ready()) == 1
        running = [begin(server, f"/gate?{number}") for number in range(2)]
        at = [gates.at(str(number)) for number in range(2)]  # all cores of one worker: 100 %, then 50, then 33
        for wanted in (2, 3):
            server.wait(f"{wanted} workers instead of {wanted - 1}")
            server.wait_until_workers(wanted)
        start = server.mark()
        for gate in at:
            gate.open()
        assert [finish(sock).status for sock in running] == [200, 200]
        running = [begin(server, f"/gate?{number}") for number in range(2, 8)]  # while it shrinks again
        for number, sock in enumerate(running, 2):
            gates.at(str(number)).open()
            assert finish(sock).status == 200
        server.wait("2 workers instead of 3", start)
        server.wait("1 workers instead of 2", start)
        server.wait_until_workers(1)
        assert server.get("/pid").status == 200
        assert "is killed" not in server.log.text()
        assert server.stop() == 0


def test_cheaper_begins_with_as_many_as_it_is_told_and_goes_down_by_order(tmp_path):
    arguments = ("--processes", "4", "--cheaper", "1", "--cheaper-initial", "3", "--cheaper-overload", "60")
    with mastered(tmp_path, PID, *arguments) as server:
        assert len(server.ready()) == 3
        server.order("C")
        server.wait_until_workers(1)
        os.stat(server.fifo)
        assert server.get("/").status == 200
