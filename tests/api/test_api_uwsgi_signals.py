"""uWSGI's signals in real processes: what fires where, how often, and what a reload, a death and a drain do to it."""

import os
import re
import signal
import threading

import pytest
from gates import GATES
from harness import PATIENCE_SECONDS, running
from masters import await_end, gated, mastered

SIGNALS = GATES + (
    """
import uwsgi
VERSION = "1"

def handler(number):
    where = f"in worker {uwsgi.worker_id()} of version {VERSION}"
    say(f"handler {number} {where} at {time.monotonic():.6f} pid {os.getpid()}.")

def view_signal(environ, start_response):
    return text(start_response, uwsgi.signal(int(environ["QUERY_STRING"])))

def view_worker(environ, start_response):
    return text(start_response, uwsgi.worker_id())

def view_call(environ, start_response):
    import urllib.parse
    try:
        return text(start_response, repr(eval(urllib.parse.unquote(environ["QUERY_STRING"]))))
    except Exception as error:
        return text(start_response, f"{type(error).__name__}: {error}")
"""
)


def times(server, count: int, number: int = 1, start: int = 0) -> list[float]:
    """When the first `count` firings of a signal were, from line `start` on; waits for them."""
    found: list[float] = []
    while len(found) < count:
        line = server.log.wait_for(f"handler {number} ", start=start)
        start = server.log.lines.index(line, start) + 1
        found.append(float(re.search(r"at ([0-9.]+)", line)[1]))
    return found


def call(server, expression: str) -> str:
    return server.get("/call?" + expression.replace(" ", "%20")).body.decode()


def in_worker(server, worker: int, expression: str) -> str:
    """Evaluate in this worker: ask until it is the one that answers."""
    while True:
        answer = call(server, f"(uwsgi.worker_id(), {expression})")
        if answer.startswith(f"({worker}, "):
            return answer


# -- what is given and what comes back ------------------------------------------------------------------------------

# expression -> what uWSGI 2.0.31 returned for it (plain --master --processes 2, where its timers fire)
RETURNED = [
    ("uwsgi.register_signal(30, '', handler)", "None"),
    ("uwsgi.register_signal(31, 'worker', handler)", "None"),
    ("uwsgi.register_signal(32, 'workers', handler)", "None"),
    ("uwsgi.register_signal(33, 'worker2', handler)", "None"),
    ("uwsgi.register_signal(34, 'worker0', handler)", "None"),
    ("uwsgi.register_signal(35, 'active-workers', handler)", "None"),
    ("uwsgi.signal_registered(30)", "True"),
    ("uwsgi.signal_registered(100)", "None"),
    ("uwsgi.add_timer(30, 1000)", "None"),
    ("uwsgi.add_rb_timer(31, 1000, 2)", "None"),
    ("uwsgi.add_rb_timer(31, 1000)", "None"),
    ("uwsgi.add_cron(32, 0, 0, 1, 1, 1)", "True"),
    ("uwsgi.add_file_monitor(33, '/nonexistent/x')", "None"),
    ("uwsgi.signal(30)", "None"),
    ("uwsgi.signal_received()", "0"),
    ("[hasattr(uwsgi, name) for name in ('post_fork_hook', 'after_req_hook', 'atexit')]", "[False, False, False]"),
]


@pytest.fixture(scope="module", params=["master", "single", "uvloop"])
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    if request.param == "master":
        with mastered(folder, SIGNALS, "--disable-logging", master=("--master", "--processes", "1")) as server:
            yield server
    else:
        loop = "uvloop" if request.param == "uvloop" else "asyncio"
        with running(folder, SIGNALS, "--disable-logging", "--loop", loop) as server:
            yield server


def test_what_every_call_returns_is_what_uwsgi_returns(server):
    assert [(expression, call(server, expression)) for expression, _ in RETURNED] == RETURNED


@pytest.mark.parametrize(
    "expression, error",
    [
        ("uwsgi.register_signal(1, 'mule', handler)", "ValueError: target 'mule': there are no mules here"),
        ("uwsgi.register_signal(1, 'spooler', handler)", "ValueError: target 'spooler': there is no spooler here"),
        ("uwsgi.register_signal(256, '', handler)", "ValueError: a signal is a number from 0 to 255, not 256"),
        ("uwsgi.register_signal(1, '', None)", "TypeError: the handler of a signal is to be callable"),
        ("uwsgi.add_timer(1, 0)", "ValueError: the seconds of a timer are to be at least"),
        ("uwsgi.add_cron(1, 77, -1, -1, -1, -1)", "ValueError: the minute of a cron is to be from 0 to 59"),
        ("uwsgi.signal(1, 'host:1')", "ValueError: signals to other nodes are not sent here"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(server, expression, error):
    assert call(server, expression).startswith(error)


def test_a_timer_registered_in_a_view_fires_again_and_again_in_fractions_of_a_second(server):
    start = len(server.log.lines)
    call(server, "(uwsgi.register_signal(40, '', handler), uwsgi.add_timer(40, 0.05))")
    found = times(server, 6, 40, start)
    assert found[-1] - found[0] > 0.2
    call(server, "uwsgi.add_timer(40, 10000)")


def test_milliseconds_and_iterations(server):
    start = len(server.log.lines)
    call(server, "(uwsgi.register_signal(41, '', handler), uwsgi.add_rb_timer(41, 0.02, 2))")
    times(server, 2, 41, start)
    call(server, "(uwsgi.register_signal(42, '', handler), uwsgi.add_ms_timer(42, 30))")
    times(server, 4, 42, start)
    assert server.log.count("handler 41 ") == 2
    call(server, "uwsgi.add_rb_timer(41, 0.02, 2)")  # it has ended, so that it begins anew
    times(server, 4, 41, start)
    call(server, "uwsgi.add_timer(42, 10000)")


def test_a_file_monitor_fires_when_the_file_comes_and_when_it_changes(server):
    start = len(server.log.lines)
    path = server.folder / "watched"
    call(server, f"(uwsgi.register_signal(43, '', handler), uwsgi.add_file_monitor(43, '{path}'), uwsgi.signal(43))")
    times(server, 1, 43, start)  # so that the monitor is known by now
    path.write_text("1")
    times(server, 2, 43, start)
    path.write_text("12")
    times(server, 3, 43, start)


def test_a_cron_that_is_due_fires(server):
    start = len(server.log.lines)
    call(server, "(uwsgi.register_signal(44, '', handler), uwsgi.add_cron(44, -1, -1, -1, -1, -1))")
    # Where a minute has been looked at already, the next one is what it waits for.
    server.log.wait_for("handler 44 ", 70 if start else PATIENCE_SECONDS, start)


def test_a_handler_may_wait_and_the_same_signal_comes_after_it(server):
    start = len(server.log.lines)
    code = "lambda n: (say('begin.'), corelet.sleep(0.05), say('end.'))"
    call(server, f"(uwsgi.register_signal(45, '', {code}), [uwsgi.signal(45) for _ in range(4)])")
    end = start
    for _ in range(4):
        end = server.log.lines.index(server.log.wait_for("end.", start=end), end) + 1
    said = [line for line in server.log.lines[start:] if line in ("begin.", "end.")]
    assert said == ["begin.", "end."] * 4


def test_different_signals_are_handled_beside_one_another(server):
    start = len(server.log.lines)
    one = "lambda n: (corelet.await_(EVENT.wait()), say('one.'))"
    two = "lambda n: (say('two.'), EVENT.set())"
    call(server, "globals().update(EVENT=asyncio.Event())")
    call(server, f"(uwsgi.register_signal(46, '', {one}), uwsgi.register_signal(47, '', {two}))")
    call(server, "(uwsgi.signal(46), uwsgi.signal(47))")
    server.log.wait_for("one.", start=start)


def test_a_handler_that_raises_is_logged_and_nothing_else_happens(server):
    start = len(server.log.lines)
    call(server, "(uwsgi.register_signal(48, '', lambda n: 1 / 0), uwsgi.signal(48))")
    server.log.wait_for("ZeroDivisionError", start=start)
    line = server.log.wait_for("signal 48 handler", start=start)
    assert "failed" in line
    call(server, "(uwsgi.register_signal(48, '', handler), uwsgi.signal(48))")
    times(server, 1, 48, start)


def test_what_comes_faster_than_its_handler_is_dropped_beyond_a_hundred(server):
    start = len(server.log.lines)
    code = "lambda n: (corelet.await_(EVENT.wait()), COUNT.append(n))"
    call(server, "globals().update(EVENT=asyncio.Event(), COUNT=[])")
    call(server, f"(uwsgi.register_signal(49, '', {code}), [uwsgi.signal(49) for _ in range(150)])")
    server.log.wait_for("signal 49 comes faster than handler", start=start)
    call(server, "(uwsgi.register_signal(50, '', lambda n: say('last.')), EVENT.set())")
    while int(call(server, "len(COUNT)")) < 101:
        pass
    call(server, "uwsgi.signal(50)")
    server.log.wait_for("last.", start=start)
    assert call(server, "len(COUNT)") == "101"


def test_signal_wait_suspends_the_core_until_the_signal_has_been_handled(server):
    start = len(server.log.lines)
    call(server, "uwsgi.register_signal(51, '', handler)")
    answers = []

    def ask():
        answers.append(call(server, "(uwsgi.signal_received(), say('waits.'), uwsgi.signal_wait(51), "
                                    "uwsgi.signal_received(), say('woken.'))"))  # fmt: skip

    thread = threading.Thread(target=ask)
    thread.start()
    server.log.wait_for("waits.", start=start)
    call(server, "(uwsgi.register_signal(52, '', handler), uwsgi.signal(52))")  # another one wakes nobody
    times(server, 1, 52, start)
    assert not answers
    call(server, "uwsgi.signal(51)")
    thread.join(PATIENCE_SECONDS)
    assert answers == ["(0, None, b'', 51, None)"]
    server.log.wait_for("woken.", start=start)
    said = [line.split(" at ")[0] for line in server.log.lines[start:] if "handler 51" in line or line == "woken."]
    assert len(said) == 2
    assert said[0].startswith("handler 51")


@pytest.mark.parametrize("expression, number", [("uwsgi.signal_wait()", 53), ("uwsgi.signal_wait(54)", 54)])
def test_signal_wait_takes_any_signal_and_one_that_nobody_handles(server, expression, number):
    start = len(server.log.lines)
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(call(server, f"(say('waits.'), {expression}, uwsgi.signal_received())"))
    )
    thread.start()
    server.log.wait_for("waits.", start=start)
    call(server, f"uwsgi.signal({number})")
    thread.join(PATIENCE_SECONDS)
    assert answers == [f"(None, b'', {number})"]


def test_signal_wait_outside_of_a_core_says_where_to_call_it(server):
    answer = call(server, "corelet.to_thread(uwsgi.signal_wait)")
    assert answer.startswith("NotInCore: uwsgi.signal_wait()")


def test_a_signal_may_be_raised_in_a_thread(server):
    start = len(server.log.lines)
    call(server, "(uwsgi.register_signal(55, '', handler), corelet.to_thread(uwsgi.signal, 55))")
    times(server, 1, 55, start)


# -- where it fires -------------------------------------------------------------------------------------------------

TARGETS = (
    SIGNALS
    + """
uwsgi.register_signal(1, "", handler)
uwsgi.register_signal(2, "workers", handler)
uwsgi.register_signal(3, "worker3", handler)
uwsgi.register_signal(4, "active-workers", handler)
uwsgi.register_signal(5, f"worker{uwsgi.worker_id()}", handler)
"""
)


@pytest.mark.parametrize("option", [(), ("--preload",), ("--loop", "uvloop")])
def test_a_target_is_one_worker_all_of_them_or_a_seat(tmp_path, option):
    application = TARGETS.replace('f"worker{uwsgi.worker_id()}"', '"workers"') if option == ("--preload",) else TARGETS
    with mastered(tmp_path, application, *option, master=("--master", "--processes", "3")) as server:
        for number in (1, 2, 3, 4, 5, 200):
            server.get(f"/signal?{number}")
        server.wait("signal 200: no worker that could handle it is there; dropped")
        server.wait("handler 1 in worker ")  # which one depends on who had a slow start
        expected = {2: {1, 2, 3}, 3: {3}, 4: {1, 2, 3}, 5: {1, 2, 3}}
        for number, workers in expected.items():
            for worker in workers:
                server.wait(f"handler {number} in worker {worker} ")
        for number, workers in expected.items():
            assert server.log.count(f"handler {number} in worker") == len(workers)
        assert server.log.count("handler 1 in worker") == 1


TIMER = (
    SIGNALS
    + """
uwsgi.register_signal(1, "", handler)
uwsgi.add_timer(1, 0.1)
"""
)


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_a_timer_that_four_workers_register_fires_once_and_not_four_times(tmp_path, preload):
    with mastered(tmp_path, TIMER, *preload, master=("--master", "--processes", "4")) as server:
        found = times(server, 11)
        assert found[-1] - found[0] > 0.8


def test_a_timer_fires_while_a_view_blocks_another_worker(tmp_path):
    with gated(tmp_path, TIMER, master=("--master", "--processes", "2")) as (server, gates):
        times(server, 1)
        with server.connect() as blocked:
            blocked.sendall(b"GET /block?b HTTP/1.0\r\nHost: t\r\n\r\n")
            at = gates.at("b")
            other = 3 - {pid: worker for worker, pid in server.ready().items()}[at.pid]
            start = server.mark()
            server.wait(f"handler 1 in worker {other} ", start)
            start = server.mark()
            assert len(times(server, 5, start=start)) == 5
            fired = [line for line in server.log.lines[start:] if line.startswith("handler 1 ")]
            assert all(f"worker {other} " in line for line in fired)
            at.open()


def test_timers_go_on_under_load(tmp_path):
    with mastered(tmp_path, TIMER, master=("--master", "--processes", "2")) as server:
        stop = threading.Event()

        def load():
            while not stop.is_set():
                assert server.get("/pid").status == 200

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            found = times(server, 11)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert 0.8 < found[-1] - found[0] < PATIENCE_SECONDS


def test_the_successor_of_a_killed_worker_takes_over_and_a_one_shot_timer_is_not_repeated(tmp_path):
    application = TIMER + "uwsgi.register_signal(2, '', handler)\nuwsgi.add_rb_timer(2, 0.05, 1)\n"
    with mastered(tmp_path, application, master=("--master", "--processes", "1")) as server:
        times(server, 1, 2)
        old = server.ready()[1]
        start = server.mark()
        os.kill(old, signal.SIGKILL)
        new = server.wait_for_worker("is ready", start)
        assert f"pid {new}." in server.wait("handler 1 in worker 1 ", start)
        times(server, 3, start=start)
        assert server.log.count("handler 2 ") == 1


def test_what_is_raised_while_no_worker_is_there_waits_for_the_next_one(tmp_path):
    application = (
        SIGNALS
        + """
if os.path.exists("again"):  # the test makes it
    blocking_gate("loading")
uwsgi.register_signal(1, "worker2", handler)
uwsgi.register_signal(2, "", handler)
"""
    )
    with gated(tmp_path, application) as (server, gates):
        server.wait_until_workers(2)
        start = server.mark()
        (tmp_path / "again").touch()
        os.kill(server.ready()[2], signal.SIGKILL)
        at = gates.at("loading")
        for _ in range(3):
            server.get("/signal?1")
        server.wait("signal 1: no worker that could handle it is there; it waits for one", start)
        server.get("/signal?2")
        server.wait("handler 2 in worker 1 ", start)
        at.open()
        assert f"pid {at.pid}." in server.wait("handler 1 in worker 2 ", start)
        server.get("/signal?2")
        assert server.log.count("handler 1 ") == 1


def test_a_reload_replaces_what_was_registered(tmp_path):
    with mastered(tmp_path, TIMER) as server:
        times(server, 1)
        other = (
            TIMER.replace('VERSION = "1"', 'VERSION = "2"')
            .replace("signal(1, ", "signal(9, ")
            .replace("timer(1, ", "timer(9, ")
        )
        (tmp_path / "app.py").write_text(other)
        server.renew()
        start = server.mark()
        found = times(server, 5, 9, start)
        assert found[-1] - found[0] > 0.3
        assert all("of version 2" in line for line in server.log.lines[start:] if line.startswith("handler "))
        assert not any(line.startswith("handler 1 ") for line in server.log.lines[start:])


def test_until_a_generation_is_in_power_the_one_before_goes_on_and_a_failed_one_changes_nothing(tmp_path):
    with gated(tmp_path, TIMER) as (server, gates):
        (tmp_path / "app.py").write_text(GATES + "blocking_gate('loading')\nraise RuntimeError('broken')\n")
        server.signal(signal.SIGHUP)
        first, second = gates.at("loading"), gates.at("loading")
        start = server.mark()
        times(server, 3, start=start)
        first.open()
        server.wait("goes on serving")
        start = server.mark()
        times(server, 3, start=start)
        assert second.left()


def test_a_reexec_of_the_master_goes_on_with_the_timers_of_the_workers_that_stay(tmp_path):
    with gated(tmp_path, TIMER) as (server, gates):
        times(server, 1)
        application = TIMER.replace('VERSION = "1"', 'VERSION = "2"') + "blocking_gate('loading')\n"
        (tmp_path / "app.py").write_text(application)
        start = server.mark()
        server.order("x")
        first, second = gates.at("loading"), gates.at("loading")  # the new master is there, its workers are not
        assert server.log.text().count("new master") >= 1
        start = server.mark()
        times(server, 3, start=start)
        assert "of version 1" in server.wait("handler 1 ", start)
        first.open()
        second.open()
        server.wait("of version 2", start)


def test_a_worker_that_drains_gets_no_more_signals_and_its_handler_may_finish(tmp_path):
    application = (
        SIGNALS
        + """
def slow(number):
    say(f"slow begins {VERSION}.")
    gate("slow")
    say(f"slow ends {VERSION}.")
uwsgi.register_signal(1, "", slow)
"""
    )
    with gated(tmp_path, application, master=("--master", "--processes", "1")) as (server, gates):
        old = server.ready()[1]
        server.get("/signal?1")
        at = gates.at("slow")
        server.get("/signal?1")  # waits behind it, and is given back when the worker drains
        (tmp_path / "app.py").write_text(GATES + application.replace('VERSION = "1"', 'VERSION = "2"'))
        server.reload()
        server.wait_until_draining(old)
        start = server.mark()
        server.get("/signal?1")
        gates.at("slow").open()
        server.wait("slow ends 2.", start)
        at.open()
        server.wait("slow ends 1.", start)
        gates.at("slow").open()  # the one that was given back
        await_end(old)
        server.wait(f"(pid {old}) ended")
        assert server.log.count("slow begins 1.") == 1


def test_a_blocked_handler_is_named_by_the_watchdog(tmp_path):
    application = SIGNALS + "def stuck(number):\n    blocking_gate('stuck')\nuwsgi.register_signal(3, '', stuck)\n"
    with gated(tmp_path, application, "--blocked-warning", "0.5", "--harakiri", "1") as (server, gates):
        server.get("/signal?3")
        at = gates.at("stuck")
        line = server.wait("is blocked for")
        assert "signal 3 handler stuck" in line
        assert "app.py:" in line
        at.open()


def test_a_blocked_handler_is_named_in_a_process_without_a_master_too(tmp_path):
    application = SIGNALS + "def stuck(number):\n    time.sleep(1)\nuwsgi.register_signal(3, '', stuck)\n"
    with running(tmp_path, application, "--blocked-warning", "0.2") as server:
        server.get("/signal?3")
        assert "signal 3 handler stuck" in server.log.wait_for("blocked for")


def test_a_signal_that_is_raised_before_there_is_a_worker_is_an_error_in_a_master_that_preloads(tmp_path):
    application = SIGNALS + "try:\n    uwsgi.signal(1)\nexcept RuntimeError as error:\n    say(error)\n"
    with mastered(tmp_path, application, "--preload") as server:
        server.wait("there is no worker yet")


def test_a_signal_that_is_raised_while_the_application_is_loaded_comes_when_it_serves(tmp_path):
    with running(tmp_path, SIGNALS + "uwsgi.register_signal(1, '', handler)\nuwsgi.signal(1)\n") as server:
        times(server, 1)


def test_stopping_ends_the_timers(tmp_path):
    with gated(tmp_path, TIMER) as (server, gates):
        times(server, 1)
        with server.connect() as sock:
            sock.sendall(b"GET /gate?g HTTP/1.0\r\nHost: t\r\n\r\n")
            at = gates.at("g")
            server.signal(signal.SIGTERM)
            server.wait_until_draining(at.pid)
            start = server.mark()
            at.open()
            assert server.exit_code() == 0
        assert not any(line.startswith("handler 1 ") for line in server.log.lines[start:])


def test_more_signals_than_anybody_takes_are_dropped_with_a_word_and_the_server_goes_on(tmp_path):
    with mastered(tmp_path, SIGNALS + "uwsgi.register_signal(1, '', handler)\n", "--disable-logging") as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            server.get("/call?" + "[uwsgi.signal(1) for _ in range(2000)]".replace(" ", "%20"))
            server.wait("signal 1 was dropped: the master has not taken those before it")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        server.wait("comes faster than handler")
        assert server.get("/pid").status == 200
