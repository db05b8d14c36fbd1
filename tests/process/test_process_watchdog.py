"""What the master knows of its workers: blocked or not, too old, too large, and where a blocked one stands."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from corelet.base.config import Config
from corelet.base.scoreboard import Glimpse
from corelet.process.fleet import Fleet, Member
from corelet.process.life import State
from corelet.process.recycling import MEBIBYTE, Memory, memory_of, reason, requests_at_most
from corelet.process.report import Look, name_of, statistics, workers
from corelet.process.stacks import application_line
from corelet.process.watchdog import LEAST_BLOCK_SECONDS, Limits, Seen, Verdict, judge

NOW = 1000.0
LIMITS = Limits(warning=1.0, harakiri=30.0, grace=5.0)
SMALL = Memory(100 * MEBIBYTE, 50 * MEBIBYTE)


def glimpse(since: float, *, core: int | None = 3, began: float = 0.0, **counters) -> Glimpse:
    """A page that says: this turn of the loop began then, and this core's request then (with the turn if not said)."""
    values = {
        "busy_seconds": 0.0, "title": "GET /path", "requests": 0, "exceptions": 0, "harakiris": 0, "in_use": 1,
        "connections": 1, "queued": 0, **counters,
    }  # fmt: skip
    return Glimpse(since=since, core=core, began=began or since, **values)


def judged(page: Glimpse, limits: Limits, *times: float) -> list[Verdict]:
    """The verdicts on a page that stays as it is."""
    seen, verdicts = Seen(), []
    for now in times:
        seen, verdict = judge(page, seen, limits, now)
        verdicts.append(verdict)
    return verdicts


# ---- blocked-warning ----


def test_a_loop_that_waits_for_events_is_not_blocked():
    assert judged(glimpse(0.0, core=None), LIMITS, NOW, NOW + 1e6) == [Verdict.NOTHING] * 2


def test_a_loop_that_has_not_come_round_for_blocked_warning_is_warned_of():
    assert judged(glimpse(NOW), LIMITS, NOW + 0.9, NOW + 1.0) == [Verdict.NOTHING, Verdict.WARN]


def test_one_turn_is_warned_of_once():
    assert judged(glimpse(NOW), LIMITS, NOW + 1, NOW + 2, NOW + 20) == [Verdict.WARN, Verdict.NOTHING, Verdict.NOTHING]


def test_each_turn_is_warned_of():
    seen, first = judge(glimpse(NOW), Seen(), LIMITS, NOW + 1)
    seen, between = judge(glimpse(NOW + 2), seen, LIMITS, NOW + 2.5)
    seen, second = judge(glimpse(NOW + 2), seen, LIMITS, NOW + 3)
    assert (first, between, second) == (Verdict.WARN, Verdict.NOTHING, Verdict.WARN)


def test_a_callback_of_the_loop_is_warned_of_too():
    assert judged(glimpse(NOW, core=None), LIMITS, NOW + 1) == [Verdict.WARN]


def test_warnings_may_be_off():
    off = replace(LIMITS, warning=0.0)
    assert judged(glimpse(NOW), off, NOW + 29, NOW + 30) == [Verdict.NOTHING, Verdict.HARAKIRI]


# ---- harakiri ----


def test_a_request_that_blocks_beyond_its_deadline_is_harakiri():
    assert judged(glimpse(NOW), LIMITS, NOW + 29.9, NOW + 30) == [Verdict.WARN, Verdict.HARAKIRI]


def test_the_deadline_is_the_requests_not_the_turns():
    """It has waited for 29 s, in order, and blocks since then."""
    page = glimpse(NOW, began=NOW - 29)
    assert judged(page, replace(LIMITS, warning=0.0), NOW + 0.9, NOW + 1) == [Verdict.NOTHING, Verdict.HARAKIRI]


def test_a_request_that_began_late_in_a_long_turn_has_its_own_time():
    page = glimpse(NOW, began=NOW + 20)
    assert judged(page, LIMITS, NOW + 30, NOW + 49.9, NOW + 50) == [Verdict.WARN, Verdict.NOTHING, Verdict.HARAKIRI]


def test_a_worker_that_comes_round_often_unwinds_its_late_requests_by_itself():
    late = glimpse(NOW, began=NOW - 100)
    assert judged(late, LIMITS, NOW + LEAST_BLOCK_SECONDS - 0.01) == [Verdict.NOTHING]


def test_a_deadline_below_a_second_holds():
    limits = Limits(warning=0.0, harakiri=0.25, grace=5.0)
    assert judged(glimpse(NOW), limits, NOW + 0.2, NOW + 0.25) == [Verdict.NOTHING, Verdict.HARAKIRI]


def test_a_callback_of_the_loop_has_the_turns_time():
    page = glimpse(NOW, core=None, began=NOW - 500)  # `began` is of a request that is over
    assert judged(page, LIMITS, NOW + 29.9, NOW + 30) == [Verdict.WARN, Verdict.HARAKIRI]


def test_harakiri_comes_without_a_warning_after_it():
    assert judged(glimpse(NOW), LIMITS, NOW + 30, NOW + 31) == [Verdict.HARAKIRI, Verdict.NOTHING]


def test_without_harakiri_nobody_is_killed():
    off = replace(LIMITS, harakiri=0.0)
    assert judged(glimpse(NOW), off, NOW + 1, NOW + 1e5, NOW + 1e6) == [Verdict.WARN, Verdict.NOTHING, Verdict.NOTHING]


# ---- harakiri-graceful-timeout ----


def test_who_still_stands_there_after_the_grace_is_killed():
    assert judged(glimpse(NOW), LIMITS, NOW + 30.4, NOW + 35.3, NOW + 35.4) == [
        Verdict.HARAKIRI,
        Verdict.NOTHING,
        Verdict.KILL,
    ]


def test_the_grace_is_counted_from_the_harakiri_and_not_from_the_deadline():
    """The master itself was busy."""
    assert judged(glimpse(NOW), LIMITS, NOW + 50, NOW + 54.9) == [Verdict.HARAKIRI, Verdict.NOTHING]


def test_no_grace_is_none_and_not_for_ever():
    assert judged(glimpse(NOW), replace(LIMITS, grace=0.0), NOW + 30, NOW + 30.5) == [Verdict.HARAKIRI, Verdict.KILL]


def test_many_views_that_compute_one_after_the_other_are_no_request_that_stands_still():
    limits = Limits(warning=0.0, harakiri=4.0, grace=1.0)
    seen, verdicts = Seen(), []
    for tick in range(24):  # sixty views of 0.2 s in one turn of 12 s, which all began long before
        now = NOW + tick / 2
        page = glimpse(NOW, core=tick, began=NOW - 10 + tick / 100)
        seen, verdict = judge(page, seen, limits, now)
        verdicts.append(verdict)
    assert set(verdicts) == {Verdict.NOTHING}
    for tick in range(5):  # the last of them does stand still
        seen, verdict = judge(page, seen, limits, now + tick / 2)
        verdicts.append(verdict)
    assert verdicts[-3:] == [Verdict.HARAKIRI, Verdict.NOTHING, Verdict.KILL]


@pytest.mark.parametrize("between", [0.0, NOW + 31], ids=["it waited for events", "it is in another turn"])
def test_nothing_is_held_against_a_worker_that_came_round(between):
    seen, verdict = judge(glimpse(NOW), Seen(), LIMITS, NOW + 30)
    assert verdict is Verdict.HARAKIRI
    seen, verdict = judge(glimpse(between), seen, LIMITS, NOW + 31.5)
    assert (seen.since, seen.warned, seen.harakiri_at, verdict) == (between, False, 0.0, Verdict.NOTHING)
    page = glimpse(NOW + 34.5, began=NOW)  # the same request, in another turn: its deadline is over
    seen, verdict = judge(page, seen, LIMITS, NOW + 35.4)
    assert verdict is Verdict.NOTHING
    assert judge(page, seen, LIMITS, NOW + 35.5)[1] is Verdict.HARAKIRI


def test_limits_are_those_of_the_configuration():
    config = Config(blocked_warning=0.5, harakiri=20.0, harakiri_graceful_timeout=3.0)
    assert Limits.of(config) == Limits(0.5, 20.0, 3.0)


def test_nobody_is_killed_who_was_not_told_of_and_given_the_grace_in_the_same_turn():
    chance = random.Random(4)
    kills = 0
    for _ in range(300):
        now, seen, page, harakiri = NOW, Seen(), glimpse(0.0), None
        for _ in range(40):
            now += chance.choice((0.5, 0.5, 3.0, 10.0))
            if chance.random() < 0.2:
                page = glimpse(chance.choice((0.0, now)), began=now - chance.choice((0.0, 29.0)))
                harakiri = None
            seen, verdict = judge(page, seen, LIMITS, now)
            if verdict is Verdict.HARAKIRI:
                assert harakiri is None, "twice in one turn"
                harakiri = now
            elif verdict is Verdict.KILL:
                assert harakiri is not None
                assert now - harakiri >= LIMITS.grace
                kills += 1
    assert kills > 100


# ---- recycling ----


def aged(seconds: float, worker: int = 1) -> Member:
    return Member(4711, worker, 1, State.READY, NOW - seconds)


def test_by_default_nobody_is_too_old_or_too_large():
    assert reason(Config(), aged(1e9), Memory(1 << 50, 1 << 50), NOW) == ""


def test_a_worker_is_replaced_at_max_worker_lifetime():
    config = Config(max_worker_lifetime=3600.0)
    assert reason(config, aged(3599.9), SMALL, NOW) == ""
    assert reason(config, aged(3600), SMALL, NOW) == "it is 3600 s old (max-worker-lifetime)"


def test_a_delta_keeps_workers_from_being_replaced_together():
    config = Config(max_worker_lifetime=3600.0, max_worker_lifetime_delta=60.0)
    assert [bool(reason(config, aged(3720, worker), SMALL, NOW)) for worker in (1, 2, 3)] == [True, True, False]


def test_a_delta_alone_is_no_limit():
    assert reason(Config(max_worker_lifetime_delta=60.0), aged(1e9), SMALL, NOW) == ""


def test_a_worker_is_replaced_at_reload_on_rss():
    config = Config(reload_on_rss=200)
    assert reason(config, aged(100), Memory(1 << 50, 200 * MEBIBYTE - 1), NOW) == ""
    large = Memory(0, 200 * MEBIBYTE)
    assert reason(config, aged(100), large, NOW) == "it has 200 MB of resident memory (reload-on-rss)"


def test_a_worker_is_replaced_at_reload_on_as():
    config = Config(reload_on_as=200)
    assert reason(config, aged(100), Memory(200 * MEBIBYTE - 1, 1 << 50), NOW) == ""
    large = Memory(200 * MEBIBYTE, 0)
    assert reason(config, aged(100), large, NOW) == "it has 200 MB of address space (reload-on-as)"


def test_memory_is_read_from_the_kernel():
    memory = memory_of(os.getpid())
    status = dict(re.findall(r"^(\w+):\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE))
    assert memory.address_space / 1024 == pytest.approx(int(status["VmSize"]), rel=0.05)
    assert memory.resident / 1024 == pytest.approx(int(status["VmRSS"]), rel=0.05)


def test_a_process_that_has_gone_has_no_memory():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert memory_of(process.pid) == Memory(0, 0)


def test_a_process_that_has_ended_and_was_not_waited_for_has_no_memory():
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert memory_of(pid) == Memory(0, 0)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 0), ({"max_requests": 100}, 100), ({"max_requests": 100, "max_requests_delta": 7}, 114),
     ({"max_requests_delta": 7}, 0)],
)  # fmt: skip
def test_max_requests_of_worker_2(options, expected):
    assert requests_at_most(Config(**options), 2) == expected


# ---- what is said when it is asked ----


def look(worker: int, page: Glimpse | None, *, state: State = State.READY, generation: int = 2) -> Look:
    return Look(Member(4700 + worker, worker, generation, state, NOW - 200.0), page, SMALL)


def test_a_worker_is_named_by_its_seat_and_its_process():
    assert name_of(aged(1, worker=3)) == "worker 3 (pid 4711)"


def test_statistics_sum_up_those_before_and_those_now():
    first = glimpse(0.0, requests=7, exceptions=2, harakiris=1, connections=5, busy_seconds=30.0)
    lines = list(statistics([look(1, first), look(2, glimpse(0.0, requests=3))], 1000, 3600.4, NOW))
    assert lines == [
        "statistics: 1010 requests in 3600 s, 2 workers",
        "worker 1 (pid 4701): 7 requests, 2 exceptions, 1 harakiris, 5 connections, busy 15.0 % of its life, "
        "50 MB resident",
        "worker 2 (pid 4702): 3 requests, 0 exceptions, 0 harakiris, 1 connections, busy 0.0 % of its life, "
        "50 MB resident",
    ]


def test_statistics_of_a_worker_of_the_master_before_are_its_memory():
    lines = list(statistics([look(1, None)], 12, 1.0, NOW))
    assert lines == [
        "statistics: 12 requests in 1 s, 1 workers",
        "worker 1 (pid 4701): of the master before; 50 MB resident",
    ]


def test_statistics_of_a_worker_that_was_born_just_now():
    newborn = Look(Member(4701, 1, 1, State.READY, NOW), glimpse(0.0), SMALL)
    assert "busy 0.0 % of its life" in list(statistics([newborn], 0, 0.0, NOW))[1]


def test_workers_are_told_with_what_they_do():
    fleet = Fleet(wanted=3, worker_mercy=25.0, stop_mercy=25.0, generation=2, coming=3)
    idle = glimpse(0.0, core=None, in_use=0)
    busy = glimpse(NOW - 1.0, core=7, began=NOW - 2.5, in_use=9, queued=4)
    looks = [look(1, idle), look(2, busy), look(3, None, state=State.DRAINING, generation=1)]
    assert list(workers(fleet, looks, Config(asyncio=10), NOW)) == [
        "workers: 3 wanted, generation 2 serves, generation 3 is being started",
        "worker 1 (pid 4701): ready, generation 2, 200 s old, 0 of 10 cores in use",
        "worker 2 (pid 4702): ready, generation 2, 200 s old, 9 of 10 cores in use, 4 requests wait for one; "
        "core 7 runs GET /path for 2.5 s",
        "worker 3 (pid 4703): draining, generation 1, 200 s old, of the master before",
    ]


def test_a_core_is_not_told_of_while_the_loop_waits():
    fleet = Fleet(wanted=1, worker_mercy=25.0, stop_mercy=25.0, generation=1, coming=0)
    lines = list(workers(fleet, [look(1, glimpse(0.0, core=7))], Config(), NOW))
    assert lines[0] == "workers: 1 wanted, generation 1 serves"
    assert "runs" not in lines[1]


# ---- where a worker stands ----


@pytest.fixture
def dump_of(tmp_path):
    """dump_of(source, path="app.py") -> (what a script has dumped to its stdout, "FILE:" + the line marked HERE)."""

    def run(source: str, path: str = "app.py") -> tuple[str, str]:
        script = tmp_path / path
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(textwrap.dedent(source))
        done = subprocess.run(
            [sys.executable, script],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        marked = [number for number, line in enumerate(script.read_text().splitlines(), 1) if "# HERE" in line]
        return done.stdout, f"{script}:{marked[0]}" if marked else ""

    return run


PLAIN = """
    import faulthandler, sys

    def view():
        faulthandler.dump_traceback(sys.stdout)  # HERE

    def outer():
        view()

    outer()
"""

# The dump is made by a C function that the standard library calls: no frame of the application's is on top.
IN_LIBRARY = """
    import contextlib, faulthandler, sys

    def view():
        with contextlib.ExitStack() as stack:  # HERE
            stack.callback(faulthandler.dump_traceback, sys.stdout)

    view()
"""

THREADS = """
    import faulthandler, sys, threading

    inside, go_on = threading.Event(), threading.Event()

    def other():
        inside.set()
        go_on.wait()

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait()

    def view():
        faulthandler.dump_traceback(sys.stdout)  # HERE

    view()
    go_on.set()
    thread.join()
"""


def test_the_line_is_the_innermost_frame(dump_of):
    dump, here = dump_of(PLAIN)
    assert application_line(dump) == f"{here} in view"


def test_the_standard_library_on_top_is_skipped(dump_of):
    dump, here = dump_of(IN_LIBRARY)
    assert "contextlib.py" in dump.splitlines()[1]
    assert application_line(dump) == f"{here} in view"


def test_an_installed_package_on_top_is_skipped(dump_of, tmp_path):
    driver = tmp_path / "venv" / "site-packages" / "driver.py"
    driver.parent.mkdir(parents=True)
    driver.write_text("import faulthandler, sys\ndef query():\n    faulthandler.dump_traceback(sys.stdout)\n")
    dump, here = dump_of(f"""
        import sys
        sys.path.insert(0, {str(driver.parent)!r})
        import driver

        def view():
            driver.query()  # HERE

        view()
    """)
    assert "in query" in dump.splitlines()[1]
    assert application_line(dump) == f"{here} in view"


def test_the_server_on_top_is_skipped(dump_of):
    """The application has called into the server; the dump goes the way that a worker's goes."""
    dump, here = dump_of("""
        import os
        from corelet.process.stacks import Stacks

        stacks = Stacks()
        stacks.offer()

        def view():
            stacks.ask(os.getpid())  # HERE

        view()
        print(stacks.read())
        stacks.ask(os.getpid())
        assert stacks.read().count("app.py") == 1, "nothing is left of the dump before"
    """)
    assert "stacks.py" in dump.splitlines()[1]
    assert application_line(dump) == f"{here} in view"


def test_the_server_below_is_skipped(dump_of):
    dump, here = dump_of("""
        import faulthandler, sys
        from corelet.process.forking import _run_and_leave

        _run_and_leave(lambda: faulthandler.dump_traceback(sys.stdout) or 0)  # HERE
    """)
    assert "forking.py" in dump
    assert application_line(dump) == f"{here} in <lambda>"


def test_of_many_threads_the_one_that_the_signal_met_counts(dump_of):
    dump, here = dump_of(THREADS)
    assert "in other" in dump
    assert application_line(dump) == f"{here} in view"


def test_a_thread_that_stands_first_counts_only_if_it_is_the_current_one(dump_of):
    """The newest thread is dumped first; here it is the one that dumps, and the main thread waits for it."""
    dump, here = dump_of("""
        import faulthandler, sys, threading

        def view():
            faulthandler.dump_traceback(sys.stdout)  # HERE

        def main():
            thread = threading.Thread(target=view)
            thread.start()
            thread.join()

        main()
    """)
    assert "in main" in dump.rpartition("\n\n")[2]
    assert application_line(dump) == f"{here} in view"


def test_without_a_mark_the_last_thread_counts_which_is_the_main_one(dump_of):
    """faulthandler marks none when the thread that the signal met is none of Python's."""
    dump, here = dump_of(THREADS)
    assert application_line(dump.replace("Current thread", "Thread")) == f"{here} in view"


def test_a_dump_of_one_thread_alone_has_no_mark(dump_of):
    dump, here = dump_of(PLAIN.replace("sys.stdout", "sys.stdout, all_threads=False"))
    assert dump.startswith("Stack (most recent call first)")
    assert application_line(dump) == f"{here} in view"


def test_without_any_frame_of_the_application_it_is_the_innermost_of_a_library(dump_of):
    dump, _ = dump_of("""
        import faulthandler, sys, threading

        thread = threading.Thread(target=faulthandler.dump_traceback, args=(sys.stdout,))
        thread.start()
        thread.join()
    """)
    assert re.fullmatch(r".*/threading\.py:\d+ in run", application_line(dump))


def test_an_installed_package_is_better_than_nothing(dump_of):
    dump, here = dump_of(PLAIN, "venv/lib/python3/dist-packages/tool.py")
    assert application_line(dump) == f"{here} in view"


def test_the_server_is_nobodys_application(dump_of):
    source = """
        import os
        from corelet.process.stacks import Stacks

        stacks = Stacks()
        stacks.offer()
        stacks.ask(os.getpid())  # HERE
        print(stacks.read())
    """
    dump, here = dump_of(source, "venv/site-packages/tool.py")
    assert "stacks.py" in dump.splitlines()[1]
    assert application_line(dump) == f"{here} in <module>"


def test_an_application_that_lies_deeper_than_a_dump_reaches(dump_of):
    """faulthandler writes a hundred frames."""
    dump, _ = dump_of("""
        import contextlib, faulthandler, sys

        stack = contextlib.ExitStack()
        stack.callback(faulthandler.dump_traceback, sys.stdout)
        for _ in range(60):
            inner, stack = stack, contextlib.ExitStack()
            stack.callback(inner.close)
        stack.close()
    """)
    assert "app.py" not in dump
    assert re.fullmatch(r".*/contextlib\.py:\d+ in \w+", application_line(dump))


@pytest.mark.parametrize("name", ["my app.py", 'a", line 7 in b.py', "in.py"])
def test_odd_file_names_are_shown_whole(dump_of, name):
    dump, here = dump_of(PLAIN, name)
    assert application_line(dump) == f"{here} in view"


def test_a_finalizer_that_blocks_a_collection_is_found(dump_of):
    dump, here = dump_of("""
        import faulthandler, gc, sys

        class Connection:
            def __init__(self):
                self.me = self

            def __del__(self):
                faulthandler.dump_traceback(sys.stdout)  # HERE

        Connection()
        gc.collect()
    """)
    assert "Garbage-collecting" in dump
    assert application_line(dump) == f"{here} in __del__"


def test_who_waits_in_an_import_is_found_where_it_imports(dump_of):
    dump, here = dump_of("""
        import faulthandler, functools, importlib.util, operator, sys, types

        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                return importlib.util.spec_from_loader(name, Loader) if name == "slow" else None

        class Loader:
            exec_module = operator.methodcaller("block")

            @staticmethod
            def create_module(spec):
                module = types.ModuleType("slow")
                module.block = functools.partial(faulthandler.dump_traceback, sys.stdout)
                return module

        sys.meta_path.insert(0, Finder)

        def view():
            import slow  # HERE

        view()
    """)
    assert "<frozen importlib" in dump.splitlines()[1]
    assert application_line(dump) == f"{here} in view"


def test_a_dump_that_says_nothing_has_no_line():
    for dump in ("", "\n", "Current thread 0x00007f0000000000 (most recent call first):\n", "Segmentation fault"):
        assert application_line(dump) == ""


@pytest.mark.parametrize("source", [PLAIN, IN_LIBRARY, THREADS], ids=["plain", "library", "threads"])
def test_a_dump_that_was_cut_gives_a_line_of_it_or_none(dump_of, source):
    """It is read a moment after it was asked for, written or not."""
    dump, here = dump_of(source)
    whole = application_line(dump)
    needed = dump.index(" in view\n") + len(" in view")
    frames = [f"{file}:{line} in {name}" for file, line, name in re.findall(r'"(.*)", line (\d+) in (.*)', dump)]
    assert whole == f"{here} in view"
    for length in range(len(dump)):
        line = application_line(dump[:length])
        assert line == whole if length >= needed else not line or any(frame.startswith(line) for frame in frames)


# ---- beside the requests ----


def test_a_handler_that_has_waited_for_long_and_blocks_is_warned_about_and_has_no_deadline_of_a_request():
    page = glimpse(NOW, core=-2, began=NOW - 1000)
    limits = Limits(warning=1.0, harakiri=5.0, grace=1.0)
    times = [NOW + 0.5, NOW + 1, NOW + 3, NOW + 5]
    assert judged(page, limits, *times) == [Verdict.NOTHING, Verdict.WARN, Verdict.NOTHING, Verdict.HARAKIRI]
