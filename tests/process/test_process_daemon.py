"""Going to the background: what the launching process learns, and what the server in the background has."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from harness import PATIENCE_SECONDS, ROOT, Log

from corelet.process.daemon import MAX_TEXT_BYTES, Outcome, Report

LAUNCHER = """
import os, signal, sys
from corelet.process import forking
from corelet.process.daemon import detach

def say(*words):
    "One line in one piece: two processes write here, and a signal may come in the middle of a print."
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def gate():
    "Wait until the test opens it, or has ended."
    os.read({gate}, 1)

def run(report):
{body}

outcome = detach(run)
say("outcome", outcome.code, repr(outcome.text))
"""


class Launch:
    """A launching process; `log` has what it and its server print, `open_gate` lets the server go on."""

    def __init__(self, body, prelude=""):
        reader, self._writer = os.pipe()
        indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-c", prelude + LAUNCHER.format(gate=reader, body=indented)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "server"]))},
            pass_fds=[reader], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.process.stdin.close()
        os.close(reader)
        self.log = Log(self.process.stdout)

    def open_gate(self):
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def outcome(self):
        """(code, text) that the launching process was told."""
        _, code, text = self.log.wait_for("outcome ").split(" ", 2)
        assert self.process.wait(PATIENCE_SECONDS) == 0
        return int(code), eval(text)

    def pid(self):
        return int(self.log.wait_for("server ").split()[1])


@pytest.fixture
def launch():
    with contextlib.ExitStack() as stack:

        def begin(body, prelude=""):
            launched = Launch(body, prelude)
            stack.callback(launched.log.join)
            stack.callback(launched.process.wait, PATIENCE_SECONDS)
            stack.callback(launched.open_gate)
            return launched

        yield begin


def test_the_launching_process_ends_well_when_the_server_is_ready_and_the_server_goes_on(launch):
    launched = launch("report.ready(); gate(); say('served'); return 0")
    assert launched.outcome() == (0, "")
    assert launched.log.count("served") == 0
    launched.open_gate()
    launched.log.wait_for("served")


def test_the_launching_process_waits_as_long_as_the_server_loads(launch):
    launched = launch("say('loading'); gate(); report.ready(); return 0")
    launched.log.wait_for("loading")
    assert launched.process.poll() is None
    assert launched.log.count("outcome") == 0
    launched.open_gate()
    assert launched.outcome() == (0, "")


def test_a_failure_is_told_with_its_code_and_all_its_lines(launch):
    launched = launch("report.failed(22, 'no application\\n\"app.py\" is missing: ü'); gate(); return 22")
    assert launched.outcome() == (22, 'no application\n"app.py" is missing: ü')


def test_of_a_very_long_text_the_end_is_told(launch):
    launched = launch("report.failed(22, 'ü' * 1_000_000 + 'NameError'); return 22")
    code, text = launched.outcome()
    assert (code, text[-12:]) == (22, "üüüNameError")
    assert MAX_TEXT_BYTES - 4 <= len(text.encode()) <= MAX_TEXT_BYTES + 4


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "return 0", "raise SystemExit(3)", "1 / 0"]
)
def test_a_server_that_ends_without_a_word_is_a_failure(launch, end):
    launched = launch(f"say('server', os.getpid())\n{end}")
    assert launched.outcome() == (
        1,
        f"the server (process {launched.pid()}) ended before it was ready; its log says why",
    )


def test_a_server_that_died_is_noticed_though_its_worker_lives(launch):
    launched = launch(
        "forking.fork(lambda: (gate(), say('worker goes too')) and 0)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    assert launched.outcome()[0] == 1
    assert launched.log.count("worker goes too") == 0
    launched.open_gate()
    launched.log.wait_for("worker goes too")


def test_a_worker_cannot_report_in_the_name_of_the_server(launch):
    launched = launch("forking.fork(lambda: report.ready() or 0)\nos.wait()\nreport.failed(5, 'so it is')\nreturn 5")
    assert launched.outcome() == (5, "so it is")


def test_the_first_word_counts(launch):
    assert launch("report.ready(); report.failed(1, 'late'); report.ready(); return 0").outcome() == (0, "")


def test_the_server_has_a_session_of_its_own_no_terminal_and_reads_nothing(launch):
    launched = launch(
        "say('session', os.getsid(0) not in (os.getpid(), launcher_session))\n"
        "say('parent', os.getppid() != launcher)\n"
        "say('stdin', repr(os.read(0, 10)), os.path.samestat(os.fstat(0), os.stat(os.devnull)))\n"
        "try:\n"
        "    os.open('/dev/tty', os.O_RDWR)\n"
        "except OSError as error:\n"
        "    say('terminal', error.strerror)\n"
        "report.ready()\n"
        "return 0",
        "import os\nlauncher, launcher_session = os.getpid(), os.getsid(0)\n",
    )
    assert launched.outcome() == (0, "")
    for line in ("session True", "parent True", "stdin b'' True", "terminal No such device or address"):
        launched.log.wait_for(line)


def test_the_folder_and_the_output_stay_what_they_were(launch):
    launched = launch("say(os.getcwd(), os.fstat(1).st_ino == stdout); report.ready(); return 0",
                      "import os\nstdout = os.fstat(1).st_ino\n")  # fmt: skip
    launched.log.wait_for(f"{os.getcwd()} True")


def test_no_descriptor_of_the_launch_is_left_in_the_server(launch):
    launched = launch(
        "report.ready()\nsay('left', sorted(set(os.listdir('/proc/self/fd')) - before))\nreturn 0",
        "import os\nbefore = set(os.listdir('/proc/self/fd'))\n",
    )
    launched.log.wait_for("left []")


# ---- orders while it starts ----


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_order_to_stop_is_passed_on_and_the_servers_end_is_waited_for(launch, number, code):
    launched = launch(
        "def stop(number, frame):\n"
        "    say('stops for', number); gate(); os._exit(0)\n"
        "signal.signal(signal.SIGINT, stop); signal.signal(signal.SIGTERM, stop)\n"
        "say('server', os.getpid())\n"
        "while True: signal.pause()"
    )
    pid = launched.pid()
    launched.process.send_signal(number)
    launched.log.wait_for(f"stops for {number}")
    assert launched.log.count("outcome") == 0
    launched.open_gate()
    assert launched.outcome() == (code, f"interrupted; the server (process {pid}) was told to stop")


def test_after_a_second_order_the_launching_process_waits_no_longer(launch):
    launched = launch(
        "signal.signal(signal.SIGINT, lambda *_: say('deaf'))\n"
        "say('server', os.getpid())\n"
        "gate()\n"
        "say('went on')\n"
        "return 0"
    )
    pid = launched.pid()
    launched.process.send_signal(signal.SIGINT)
    launched.log.wait_for("deaf")
    launched.process.send_signal(signal.SIGINT)
    assert launched.outcome() == (130, f"interrupted; the server (process {pid}) was told to stop")
    launched.open_gate()
    launched.log.wait_for("went on")


def test_a_server_whose_launching_process_has_gone_reports_to_nobody_and_goes_on(launch):
    launched = launch("say('loading'); gate(); report.ready(); say('went on'); return 0")
    launched.log.wait_for("loading")
    launched.process.kill()
    launched.process.wait()
    launched.open_gate()
    launched.log.wait_for("went on")


# ---- the edges ----


def test_a_system_without_processes_is_told():
    """The limit is of a user without other processes; root has none, so for others only the way there is run."""
    source = (
        "import os, resource\n"
        "from corelet.process.daemon import detach\n"
        "if os.geteuid() == 0:\n"
        "    os.setuid(54321)\n"
        "    resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))\n"
        "def run(report):\n"
        "    report.failed(1, 'the system has none left')\n"
        "    return 1\n"
        "print(detach(run))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "server"]))},
    )  # fmt: skip
    assert done.stdout.startswith("Outcome(code=1, text=") and "the system has none left" in done.stdout, done.stderr
    if os.geteuid() == 0:
        assert "cannot start a process for the server" in done.stdout


def test_a_report_closes_its_pipe_and_an_outcome_is_a_value():
    reader, writer = os.pipe()
    report = Report(writer)
    report.ready()
    report.ready()
    assert os.read(reader, 100) == b"0\n"
    assert os.read(reader, 100) == b""
    os.close(reader)
    assert Outcome(0) == Outcome(0, "")
