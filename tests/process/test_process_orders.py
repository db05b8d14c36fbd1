"""Signals and the letters of the fifo: each does what the table says, and the log can be moved away."""

from __future__ import annotations

import os
import re
import signal

import pytest
from gates import GATES, Gates
from harness import PATIENCE_SECONDS
from masters import HELLO, Master, Tail, children_of, corelet, gated, is_alive, mastered, until
from stage import begin, finish


def lines_after(server, start, count):
    """So many lines of the log from `start` on."""
    until(lambda: len(server.log.lines) >= start + count, f"{count} lines")
    return [line.partition("] info ")[2] for line in server.log.lines[start : start + count]]


# ---- what is going on -----------------------------------------------------------------------------------------------


def test_sigusr1_writes_statistics_and_sigusr2_the_state_of_each_worker(tmp_path):
    with gated(tmp_path, "", "-L") as (server, gates):
        one, two = server.ready()[1], server.ready()[2]
        answered = [server.get_pid() for _ in range(3)]
        running = begin(server, "/gate?running")
        busy = gates.at("running").pid
        for order in (lambda: server.signal(signal.SIGUSR1), lambda: server.order("s")):
            lines = [""]
            while "statistics: 3 requests" not in lines[0]:  # workers tell what they have done every half second
                start = server.mark()
                order()
                lines = lines_after(server, start, 3)
                assert re.fullmatch(r"statistics: [0-3] requests in \d+ s, 2 workers.*", lines[0]), lines
            for line, worker, pid in ((lines[1], 1, one), (lines[2], 2, two)):
                assert line.startswith(f"worker {worker} (pid {pid}): {answered.count(pid)} requests, 0 exceptions, ")
                assert line.endswith(" MB resident")
        for order in (lambda: server.signal(signal.SIGUSR2), lambda: server.order("d")):
            start = server.mark()
            order()
            lines = lines_after(server, start, 3)
            assert lines[0] == "workers: 2 wanted, generation 1 serves"
            for line, worker, pid in ((lines[1], 1, one), (lines[2], 2, two)):
                assert line.startswith(f"worker {worker} (pid {pid}): ready, generation 1, ")
                assert (f"{1 if pid == busy else 0} of 100 cores in use") in line
        gates.close()
        assert finish(running).status == 200


# ---- pause ----------------------------------------------------------------------------------------------------------


def waits(server):
    """A request that nobody answers for a while; None if it was answered."""
    sock = begin(server, "/pid")
    sock.settimeout(0.25)
    try:
        assert sock.recv(1000)
        sock.close()
        return None
    except TimeoutError:
        sock.settimeout(PATIENCE_SECONDS)
        return sock


@pytest.mark.parametrize("order", ["SIGTSTP", "p"])
def test_paused_workers_let_connections_wait_and_finish_what_they_have(tmp_path, order):
    def pause():
        if order == "p":
            server.order("p")
        else:
            server.signal(signal.SIGTSTP)

    with gated(tmp_path, "") as (server, gates):
        old = server.ready()
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        pause()
        server.wait("paused: nothing is accepted")
        waiting = []
        while len(waiting) < 3:
            waiting += [sock for sock in [waits(server)] if sock]
        gate.open()
        assert finish(running).body.decode() == str(gate.pid)
        start = server.mark()
        pause()
        server.wait("accepting again", start)
        assert all(int(finish(sock).body) in old.values() for sock in waiting)
        assert server.get("/pid").status == 200
        assert server.ready() == old


def test_a_worker_that_comes_during_a_pause_waits_too(tmp_path):
    with gated(tmp_path, "", "--processes", "1") as (server, _):
        server.order("p")
        server.wait("paused: nothing is accepted")
        start = server.mark()
        os.kill(server.ready()[1], signal.SIGKILL)
        server.wait("died: killed by SIGKILL", start)
        server.wait_for_worker("is ready", start, worker=1)
        sock = waits(server)
        assert sock is not None
        server.order("p")
        assert int(finish(sock).body) == server.ready()[1]


def test_a_paused_server_can_be_stopped(tmp_path):
    with mastered(tmp_path, HELLO) as server:
        server.signal(signal.SIGTSTP)
        server.wait("paused")
        assert server.stop() == 0


# ---- more and fewer -------------------------------------------------------------------------------------------------


def test_a_worker_more_and_a_worker_fewer(tmp_path):
    with gated(tmp_path, "") as (server, gates):
        server.signal(signal.SIGTTIN)
        server.wait("3 workers instead of 2 (SIGTTIN)")
        server.wait_until_workers(3)
        server.order("++")
        server.wait_until_workers(5)
        running = [begin(server, f"/gate?{number}") for number in range(20)]
        at = [gates.at(str(number)) for number in range(20)]
        server.signal(signal.SIGTTOU)
        server.wait("4 workers instead of 5 (SIGTTOU)")
        server.order("-----")  # one is left whatever happens
        server.wait("1 workers instead of 2 (master-fifo fewer)")
        server.wait_until_workers(1)
        assert server.ready().keys() == {1}
        for gate, sock in zip(at, running, strict=True):
            gate.open()
            assert finish(sock).body.decode() == str(gate.pid)
        server.renew()
        assert server.ready().keys() == {1}  # what was ordered stays
        assert server.get_pid() == server.ready()[1]


# ---- letters --------------------------------------------------------------------------------------------------------


def test_letters_that_reload(tmp_path):
    with mastered(tmp_path, HELLO) as server:
        for generation, (letter, says) in enumerate(
            [
                ("r", "info reload (master-fifo reload)"),
                ("R", "info reload (master-fifo brutal-reload)"),
                ("w", "info reload (master-fifo workers-reload)"),
                ("W", "info reload (master-fifo brutal-workers-reload)"),
                ("c", "info chain reload (master-fifo chain-reload)"),
            ],
            2,
        ):
            old, start = server.ready(), server.mark()
            server.order(letter)
            server.wait(f"{says}: starting generation {generation}", start)
            assert server.wait_for_generation(start) == generation
            for pid in old.values():
                server.wait(f"(pid {pid}) ended", start)
            assert server.get("/").body == b"hello"


@pytest.mark.parametrize(
    ("letter", "says"), [("q", "stopping (master-fifo stop)"), ("Q", "stopping at once (master-fifo quit)")]
)
def test_letters_that_stop(tmp_path, letter, says):
    with mastered(tmp_path, HELLO) as server:
        server.order(letter)
        server.wait(says)
        assert server.exit_code() == 0


def test_letters_that_mean_nothing_here_do_nothing(tmp_path):
    with mastered(tmp_path, HELLO) as server:
        old = server.ready()
        server.order("0123456789BESzZ!\n é")
        server.order("d")
        server.wait("workers: 2 wanted")
        assert server.ready() == old
        assert server.get("/").body == b"hello"


def test_a_fifo_and_pid_files_that_were_removed_are_made_again(tmp_path):
    arguments = ("--pidfile2", "two.pid", "--master-fifo", "second")
    with mastered(tmp_path, HELLO, *arguments) as server:
        (tmp_path / "two.pid").unlink()
        server.order("P")
        until((tmp_path / "two.pid").exists, "the pid file")
        until(lambda: (tmp_path / "two.pid").read_text().strip() == str(server.pid), "the pid file")
        server.fifo.unlink()
        (tmp_path / "second").write_text("f")
        until(server.fifo.exists, "the fifo")
        server.order("d")
        server.wait("workers: 2 wanted")
        assert server.stop() == 0
        assert not any((tmp_path / name).exists() for name in ("fifo", "second", "two.pid"))


def test_several_letters_at_once_are_several_orders(tmp_path):
    with mastered(tmp_path, HELLO) as server:
        server.order("+sd")
        server.wait("3 workers instead of 2")
        server.wait("statistics: ")
        server.wait("workers: 3 wanted")


# ---- logs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["l", "L"])
def test_a_log_that_was_moved_away_is_opened_again_by_all(tmp_path, letter):
    application = GATES + "def view_say(e, s):\n    print(e['QUERY_STRING'], flush=True)\n    return text(s, 'said')\n"
    gates = Gates(tmp_path)
    log, moved = Tail(tmp_path / "server.log"), Tail(tmp_path / "server.log.1")
    server = Master(tmp_path, application, "--logto", "server.log")
    try:
        log.wait("generation 1 is ready: 2 workers")
        assert server.get("/say?before").status == 200
        log.wait("/say?before")
        running = begin(server, "/gate?running")
        gate = gates.at("running")
        log.path.rename(moved.path)
        assert server.get("/say?between").status == 200
        moved.wait("/say?between")
        server.order(letter)
        log.wait("log opened again")
        gate.open()
        assert finish(running).status == 200
        log.wait("/gate?running")  # an access line, of a worker
        names = [f"after{number}" for number in range(20)]
        for name in names:
            assert server.get(f"/say?{name}").status == 200
            log.wait(f"\n{name}\n")  # what the application prints
        server.signal(signal.SIGUSR2)
        log.wait("workers: 2 wanted")
        server.signal(signal.SIGHUP)
        log.wait("generation 2 is ready: 2 workers")
        assert server.get("/say?last").status == 200
        log.wait("\nlast\n")
        assert not any(name in moved.text() for name in [*names, "last", "/gate?running"])
        assert "before" in moved.text()
        assert server.stop() == 0
        log.wait("stopped after ")
        assert server.log.text() == ""  # nothing went to where the server was started
    finally:
        gates.close()
        server.end()


# ---- orders from another process ------------------------------------------------------------------------------------


def test_a_running_server_obeys_the_command_line_of_another_process(tmp_path):
    with mastered(tmp_path, HELLO, "--pidfile", "server.pid") as server:
        assert corelet(tmp_path, "--reload", "server.pid")[0] == 0
        server.wait("reload (SIGHUP): starting generation 2")
        server.wait("generation 2 is ready: 2 workers")
        assert corelet(tmp_path, "control", "fifo", "more")[0] == 0
        server.wait_until_workers(3)
        assert corelet(tmp_path, "control", "server.pid", "stats")[0] == 0
        server.wait("statistics: ")
        code, text = corelet(tmp_path, "control", "fifo", "mor")
        assert code == 1 and "did you mean more?" in text
        assert corelet(tmp_path, "--stop", "server.pid")[0] == 0
        assert server.exit_code() == 0
        code, text = corelet(tmp_path, "--stop", "server.pid")
        assert code == 1 and "Traceback" not in text


# ---- a server that has no master -------------------------------------------------------------------------------------


def alone(tmp_path, application="", *arguments):
    return gated(tmp_path, application, "--pidfile", "server.pid", *arguments, master=(), fifo=False, workers=False)


def test_without_a_master_it_says_how_it_is_and_can_be_paused(tmp_path):
    with alone(tmp_path) as (server, gates):
        assert server.get("/pid").status == 200
        running = begin(server, "/gate?running")
        gates.at("running")
        assert corelet(tmp_path, "control", "server.pid", "stats")[0] == 0
        server.wait("statistics: 1 requests in ")
        line = server.wait(f"worker 1 (pid {server.pid}): 1 requests, 0 exceptions, ")
        assert float(re.search(r"busy ([\d.]+) % of its life", line)[1]) <= 100
        assert corelet(tmp_path, "control", "server.pid", "workers")[0] == 0
        server.wait("workers: 1 wanted, generation 1 serves")
        server.wait("1 of 100 cores in use")
        assert corelet(tmp_path, "control", "server.pid", "pause")[0] == 0
        server.wait("paused: nothing is accepted (SIGTSTP)")
        start = server.mark()
        server.signal(signal.SIGUSR2)
        server.wait("generation 1 serves; paused, nothing is accepted", start)
        waiting = waits(server)
        assert waiting is not None
        server.signal(signal.SIGTSTP)
        server.wait("accepting again (SIGTSTP)")
        assert finish(waiting).status == 200
        gates.close()
        assert finish(running).status == 200
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGTTOU])
def test_without_a_master_the_number_of_workers_stays(tmp_path, number):
    with alone(tmp_path) as (server, _):
        server.signal(number)
        server.wait(f"{number.name}: the number of workers is a master's; start with --master")
        assert server.get("/pid").status == 200


@pytest.mark.parametrize(
    "words",
    [
        ("--reload", "server.pid"),
        ("control", "server.pid", "reload"),
        ("control", "server.pid", "more"),
        ("control", "server.pid", "fewer"),
    ],
)
def test_an_order_that_needs_a_master_is_refused_where_there_is_none(tmp_path, words):
    """SIGHUP would stop it, and the command would have said that it was told to reload."""
    with alone(tmp_path) as (server, _):
        code, text = corelet(tmp_path, *words)
        assert code == 1
        assert f"server.pid: process {server.pid} serves without a master" in text
        assert "start it with --master; nothing was ordered" in text
        assert server.get("/pid").status == 200
        assert corelet(tmp_path, "--stop", "server.pid")[0] == 0
        assert server.exit_code() == 0


# ---- orders that come at a bad moment --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [True, False])
def test_a_stop_during_a_pause_serves_what_waits(tmp_path, workers):
    """There will be nobody to go on, and a closed socket resets what its backlog holds."""
    how = {} if workers else {"master": (), "fifo": False, "workers": False}
    with mastered(tmp_path, HELLO, **how) as server:
        server.signal(signal.SIGTSTP)
        server.wait("paused: nothing is accepted")
        waiting = []
        while len(waiting) < 3:
            waiting += [sock for sock in [waits(server)] if sock]
        server.signal(signal.SIGTERM)
        assert [finish(sock).body for sock in waiting] == [b"hello"] * 3
        assert server.exit_code() == 0


def test_the_state_of_the_workers_says_that_they_are_paused(tmp_path):
    with mastered(tmp_path, HELLO) as server:
        server.order("p")
        server.wait("paused: nothing is accepted")
        server.order("d")
        server.wait("workers: 2 wanted, generation 1 serves; paused, nothing is accepted")


def test_the_least_and_the_most_workers_are_said(tmp_path):
    with mastered(tmp_path, HELLO, master=("--master",)) as server:
        server.order("-")
        server.wait("1 worker is left, which is the least (master-fifo fewer)")
        server.order("++++")
        server.wait("4 workers are the most that processes = 1 allows (master-fifo more)")


def test_a_log_that_cannot_be_opened_again_is_not_said_to_be(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    server = Master(tmp_path, HELLO, "--logto", "logs/server.log")
    try:
        log = Tail(folder / "server.log")
        log.wait("generation 1 is ready")
        folder.rename(tmp_path / "moved")
        log = Tail(tmp_path / "moved" / "server.log")
        server.order("l")
        log.wait("still writing to the file that was open")
        server.order("d")
        log.wait("workers: 2 wanted")
        assert "log opened again" not in log.text()
    finally:
        server.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_a_hook_of_the_master_that_hangs(tmp_path, number):
    server = Master(tmp_path, HELLO, "--hook-master-start", "exec:sleep 600")
    try:
        server.wait("hook-master-start: exec:sleep 600")
        until(lambda: children_of(server.pid), "the command runs")
        (sleep,) = children_of(server.pid)
        server.signal(number)
        assert server.exit_code() == 0
        assert not is_alive(sleep)
        assert server.log.count("is ready") == 0
    finally:
        server.end()


# ---- a system that has no process left -------------------------------------------------------------------------------


def test_workers_that_cannot_be_started_are_one_line_and_signals_are_heard(tmp_path):
    """So few descriptors that the first dozen can be had."""
    prefix = ("sh", "-c", 'ulimit -n 60; exec "$@"', "sh")
    server = Master(tmp_path, HELLO, master=("--master", "--processes", "200"), prefix=prefix)
    try:
        line = server.wait("others cannot be started: Too many open files")
        assert "ulimit -n, LimitNOFILE=" in line
        server.wait("others cannot be started", server.log.lines.index(line) + 1)
        server.signal(signal.SIGUSR2)
        server.wait("workers: 200 wanted")
        assert server.log.count("cannot be started") < 10
        assert server.stop() == 0
    finally:
        server.end()


def test_a_number_of_processes_that_nobody_means_is_refused(tmp_path):
    code, text = corelet(tmp_path, "--http-socket", ":0", "--wsgi-file", "app.py", "--processes", "1001")
    assert code == 1
    assert "from 1 to 1000" in text
