"""attach-daemon: started, started again with growing pauses, stopped with all their children, kept through an exec."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys

import pytest
from harness import PATIENCE_SECONDS, ROOT

from corelet.base.errors import ConfigError, OperatorError
from corelet.process.attached import AttachedDaemons, pause_seconds

EXIT_1 = 1 << 8  # as os.waitpid says it


class Starter:
    """What commands.start does, without processes: gives process ids from 100 on, or fails as often as it is told."""

    def __init__(self):
        self.started = []
        self.failures = 0

    def __call__(self, words):
        self.started.append(" ".join(words))
        if self.failures:
            self.failures -= 1
            raise OperatorError(f"cannot run {words[0]}: no such file")
        return 99 + len(self.started)


@pytest.fixture
def starter():
    return Starter()


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO", "corelet")
    return caplog


# ---- what is started when ----


def test_all_are_started_at_the_beginning(starter, said):
    daemons = AttachedDaemons(["a --x", "b 'c d'"], starter)
    assert daemons.running == []
    daemons.begin(0)
    assert starter.started == ["a --x", "b c d"]
    assert daemons.running == [100, 101]
    assert said.messages == ["attached daemon a --x: started (pid 100)", "attached daemon b 'c d': started (pid 101)"]


def test_mistakes_are_reported_all_at_once():
    with pytest.raises(ConfigError) as caught:
        AttachedDaemons(["a | b", "fine", ""])
    assert [line[:17] for line in str(caught.value).splitlines()] == ["--attach-daemon: "] * 2


def test_the_pauses_grow_from_none_to_half_a_minute():
    assert [pause_seconds(deaths) for deaths in range(10)] == [0, 0, 1, 2, 4, 8, 16, 30, 30, 30]
    assert pause_seconds(10**6) == 30


def deaths(daemons, starter, start, lived_seconds, count):
    """Let the only daemon die so often; the pause before each next start."""
    now, pauses = start, []
    for _ in range(count):
        now += lived_seconds
        assert daemons.reaped(daemons.running[0], EXIT_1, now)
        assert daemons.running == []
        begun = len(starter.started)
        for tenths in range(400):
            daemons.tick(now + tenths / 10)
            if len(starter.started) > begun:
                pauses.append(tenths / 10)
                now += tenths / 10
                break
    return pauses


def test_one_that_dies_quickly_again_and_again_is_given_growing_pauses(starter):
    daemons = AttachedDaemons(["a"], starter)
    daemons.begin(0)
    assert deaths(daemons, starter, 0, 9.9, 9) == [0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_one_that_has_lived_for_a_while_is_started_again_at_once(starter):
    daemons = AttachedDaemons(["a"], starter)
    daemons.begin(0)
    assert deaths(daemons, starter, 0, 0, 4) == [0, 1, 2, 4]
    assert deaths(daemons, starter, 7, 10, 2) == [0, 0]
    assert deaths(daemons, starter, 27, 1, 3) == [0, 1, 2]


def test_a_death_is_one_line_that_says_when_it_is_started_again(starter, said):
    daemons = AttachedDaemons(["a"], starter)
    daemons.begin(0)
    said.clear()
    assert daemons.reaped(100, EXIT_1, 1)
    daemons.tick(1)
    assert daemons.reaped(101, signal.SIGKILL, 2)
    assert said.messages == [
        "attached daemon a (pid 100) died: exit code 1; started again at once",
        "attached daemon a: started (pid 101)",
        "attached daemon a (pid 101) died: killed by SIGKILL; started again in 1 s",
    ]


def test_success_is_an_end_too(starter):
    daemons = AttachedDaemons(["a"], starter)
    daemons.begin(0)
    assert daemons.reaped(100, 0, 100)
    daemons.tick(100)
    assert daemons.running == [101]


def test_the_end_of_another_process_is_not_ours(starter):
    daemons = AttachedDaemons(["a"], starter)
    daemons.begin(0)
    assert not daemons.reaped(99, 0, 1)
    assert daemons.running == [100]


def test_what_cannot_be_started_is_tried_again_and_hinders_no_other(starter, said):
    starter.failures = 1
    daemons = AttachedDaemons(["a", "b"], starter)
    daemons.begin(0)
    assert daemons.running == [101]
    assert said.messages[0] == "attached daemon: cannot run a: no such file; tried again at once"
    starter.failures = 1
    daemons.tick(0)
    assert said.messages[-1] == "attached daemon: cannot run a: no such file; tried again in 1 s"
    daemons.tick(0.9)
    assert daemons.running == [101]
    daemons.tick(1)
    assert sorted(daemons.running) == [101, 103]


def test_beginning_again_starts_nothing_twice(starter):
    daemons = AttachedDaemons(["a", "b"], starter)
    daemons.begin(0)
    daemons.reaped(100, EXIT_1, 0)
    daemons.begin(0)
    assert starter.started == ["a", "b"]


# ---- a new master ----


def handed_over(before, *texts, starter):
    after = AttachedDaemons(texts, starter)
    after.adopt(json.loads(json.dumps(before.handover())))
    return after


def test_a_new_master_supervises_what_runs_and_starts_only_what_is_new(starter):
    before = AttachedDaemons(["a", "a", "b"], starter)
    before.begin(0)
    before.reaped(102, EXIT_1, 1)
    before.tick(1)
    before.reaped(103, EXIT_1, 2)  # to be started again at 3
    after = handed_over(before, "b", "a", "new", "a", starter=starter)
    assert sorted(after.running) == [100, 101]
    after.begin(2.5)
    assert starter.started[4:] == ["new"]
    after.tick(2.9)
    assert starter.started[5:] == []
    after.tick(3)
    assert starter.started[5:] == ["b"]
    assert after.reaped(100, EXIT_1, 5)
    after.tick(5)
    assert starter.started[6:] == ["a"]


def test_a_new_master_goes_on_with_the_count_of_quick_deaths(starter):
    before = AttachedDaemons(["a"], starter)
    before.begin(0)
    assert deaths(before, starter, 0, 0, 3) == [0, 1, 2]
    assert deaths(handed_over(before, "a", starter=starter), starter, 3, 1, 2) == [4, 8]


# ---- real processes ----


@pytest.fixture
def alive():
    """(reader, writer) of a pipe that every child inherits: its end says that none of them is left."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    yield reader, writer
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def attach():
    """attach(command, …) -> AttachedDaemons that run; whatever is left of them ends with the test."""
    made = []

    def attach(*texts):
        made.append(AttachedDaemons(texts))
        made[-1].begin(0)
        return made[-1]

    yield attach
    for daemons in made:
        daemons.kill()
        for pid in daemons.running:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def read_line(reader):
    """What a process has written, waited for."""
    assert select.select([reader], [], [], PATIENCE_SECONDS)[0]
    return os.read(reader, 1000).decode()


def test_stop_reaches_the_children_of_a_daemon_and_starts_nothing_again(alive, attach, said):
    reader, writer = alive
    command = f"sh -c 'sleep 1000 & echo up > /proc/self/fd/{writer}; wait'"
    daemons = attach(command)
    os.close(writer)
    assert read_line(reader) == "up\n"
    said.clear()
    daemons.stop(1)
    assert read_line(reader) == ""  # the end of file: the sleep is gone too
    pid, status = os.waitpid(daemons.running[0], 0)
    assert daemons.reaped(pid, status, 2)
    daemons.tick(100)
    daemons.begin(100)
    assert daemons.running == []
    assert said.messages == [
        f"attached daemon {command} (pid {pid}) is told to stop: SIGTERM",
        f"attached daemon {command} (pid {pid}) ended: killed by SIGTERM",
    ]


def test_kill_ends_one_that_does_not_stop(alive, attach):
    reader, writer = alive
    daemons = attach(f"sh -c 'trap \"\" TERM; echo up > /proc/self/fd/{writer}; exec sleep 1000'")
    os.close(writer)
    assert read_line(reader) == "up\n"
    daemons.stop(1)
    (pid,) = daemons.running
    daemons.kill()
    status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL  # and not SIGTERM
    assert daemons.reaped(pid, status, 2)
    assert daemons.running == []
    assert read_line(reader) == ""


def test_stopping_what_has_ended_already_and_is_not_reaped_is_no_error(attach):
    daemons = attach("true")
    (pid,) = daemons.running
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    daemons.stop(1)
    daemons.kill()
    assert daemons.reaped(*os.waitpid(pid, 0), 2)
    daemons.stop(3)
    daemons.kill()


def test_a_daemon_that_is_not_in_the_configuration_any_more_is_stopped_and_not_forgotten(alive, attach):
    reader, writer = alive
    before = attach(f"sh -c 'echo up > /proc/self/fd/{writer}; exec sleep 1000'")
    os.close(writer)
    assert read_line(reader) == "up\n"
    after = handed_over(before, starter=None)
    (pid,) = after.running
    status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert after.reaped(pid, status, 1)
    after.tick(2)
    assert after.running == []


MASTER = """
import json, os, sys, time
from corelet.process.attached import AttachedDaemons

daemons = AttachedDaemons(["sleep 1000"])
if len(sys.argv) == 1:
    daemons.begin(time.monotonic())
    print(*daemons.running, flush=True)
    os.execv(sys.executable, [sys.executable, sys.argv[0], json.dumps(daemons.handover())])
daemons.adopt(json.loads(sys.argv[1]))
daemons.begin(time.monotonic())
print(*daemons.running, flush=True)
pid, status = os.waitpid(-1, 0)  # somebody kills it
print(daemons.reaped(pid, status, time.monotonic()), flush=True)
daemons.tick(time.monotonic())
print(*daemons.running, flush=True)
daemons.stop(time.monotonic())
print(daemons.reaped(*os.waitpid(-1, 0), time.monotonic()), *daemons.running, flush=True)
"""


def test_a_daemon_outlives_the_exec_of_its_master_and_is_supervised_by_the_new_one(tmp_path):
    (tmp_path / "master.py").write_text(MASTER)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "server")]))
    with subprocess.Popen(
        [sys.executable, "master.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as master:
        before, after = (int(master.stdout.readline()) for _ in range(2))
        assert before == after
        os.kill(before, signal.SIGKILL)
        assert master.stdout.readline() == "True\n"
        assert int(master.stdout.readline()) != before
        assert master.stdout.readline() == "True\n"
        assert master.wait(PATIENCE_SECONDS) == 0
