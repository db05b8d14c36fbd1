"""Pid files: whole at every moment, checked where that is asked for, removed only while they are ours."""

import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from harness import PATIENCE_SECONDS, ROOT

from corelet.base.config import Config
from corelet.base.errors import OperatorError
from corelet.process.pidfile import PidFiles, read_pid, signal_by_file

OURS = f"{os.getpid()}\n"
NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def neighbour():
    """A process that waits until it is killed; its program is called sleep."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def ended_pid():
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


@pytest.fixture
def open_folder():
    """A folder that other users may look into; those of tmp_path are closed to them."""
    with tempfile.TemporaryDirectory(prefix="corelet-") as name:
        os.chmod(name, 0o755)
        yield Path(name)
        os.chmod(name, 0o755)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- writing ----


def test_the_early_and_the_late_files_are_written_when_it_is_their_turn(folder):
    files = PidFiles(Config(pidfile="a", safe_pidfile="b", pidfile2="c", safe_pidfile2="d"))
    files.write_early()
    assert sorted(os.listdir()) == ["a", "b"]
    files.write_late()
    assert sorted(os.listdir()) == ["a", "b", "c", "d"]
    assert {(folder / name).read_text() for name in "abcd"} == {OURS}


def test_relative_paths_are_those_of_the_folder_at_construction(folder):
    files = PidFiles(Config(pidfile="app.pid"))
    (folder / "elsewhere").mkdir()
    os.chdir("elsewhere")
    files.write_early()
    assert (folder / "app.pid").read_text() == OURS
    files.retire(vacuum=True)
    assert not (folder / "app.pid").exists()


def test_everybody_may_read_the_file_and_only_its_owner_write_it_whatever_the_umask(folder):
    before = os.umask(0)
    try:
        PidFiles(Config(pidfile="app.pid")).write_early()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("app.pid").st_mode) == 0o644


@pytest.mark.parametrize("old", ["", "\n", "999999999\n", "\0\0\0\0\0\0"])
def test_a_stale_file_is_replaced_in_one_step_and_nothing_else_is_left(folder, old):
    (folder / "app.pid").write_text(old)
    with open("app.pid", encoding="ascii") as reader:  # one that opened it just before
        PidFiles(Config(pidfile="app.pid")).write_early()
        assert reader.read() == old
    assert os.listdir() == ["app.pid"]
    assert (folder / "app.pid").read_text() == OURS


# A process without the right to write to the folder: another user, if we are root.
IN_A_CLOSED_FOLDER = """
import os, sys
from corelet.base.config import Config
from corelet.base.errors import OperatorError
from corelet.process.pidfile import PidFiles
import logging
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(message)s")
early = PidFiles(Config(pidfile="early.pid", pidfile2="late.pid"))
early.write_early()
os.chmod(".", 0o555)
if os.geteuid() == 0:
    os.setuid(int(sys.argv[1]))
try:
    early.write_late()
    print(open("late.pid").read() == f"{os.getpid()}\\n")
except OperatorError as error:
    print(error)
early.retire(vacuum=True)
early.retire(vacuum=True)
print(sorted(os.listdir()))
"""


def as_nobody(source, folder, *arguments):
    """Run this Python text in the folder; it becomes nobody by itself, if we are root. Returns the printed lines."""
    done = subprocess.run(
        [sys.executable, "-c", source, str(NOBODY), *arguments], cwd=folder, check=False, capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "server"]))}, text=True,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.splitlines()


def run_in_closed_folder(folder):
    late = folder / "late.pid"
    if late.exists() and os.geteuid() == 0:
        os.chown(late, NOBODY, -1)
    return as_nobody(IN_A_CLOSED_FOLDER, folder)


def test_a_file_that_is_ours_in_a_folder_that_is_not_is_written_in_place(open_folder):
    (open_folder / "late.pid").write_text("1999999999 \n")  # longer than what comes
    inode = (open_folder / "late.pid").stat().st_ino
    lines = run_in_closed_folder(open_folder)
    assert lines[0] == "True"
    assert (open_folder / "late.pid").stat().st_ino == inode


def test_a_file_that_cannot_be_removed_after_the_drop_stays_and_is_mentioned_once(open_folder):
    (open_folder / "late.pid").touch()
    lines = run_in_closed_folder(open_folder)
    assert lines == [
        "True",
        *(
            f"INFO {option} {open_folder}/{name} stays behind: Permission denied; nothing is wrong, the next start "
            "replaces it"
            for option, name in (("pidfile", "early.pid"), ("pidfile2", "late.pid"))
        ),
        "['early.pid', 'late.pid']",
    ]


def test_a_file_that_cannot_be_made_is_an_error_that_says_where_it_could(open_folder):
    assert run_in_closed_folder(open_folder)[0] == (
        f"pidfile2 {open_folder}/late.pid: cannot be written: Permission denied; name a file in a folder that we may "
        "write to (systemd: RuntimeDirectory=)"
    )
    with pytest.raises(OperatorError, match="cannot be written: No such file or directory; name a file in a folder"):
        PidFiles(Config(pidfile=str(open_folder / "run" / "app.pid"))).write_early()


IN_A_STICKY_FOLDER = """
import os, sys
from corelet.base.config import Config
from corelet.process.pidfile import PidFiles
if os.geteuid() == 0:
    os.setuid(int(sys.argv[1]))
PidFiles(Config(pidfile="app.pid")).write_early()
print(open("app.pid").read() == f"{os.getpid()}\\n", os.listdir())
"""


def test_a_file_that_may_be_written_but_not_replaced_leaves_no_temporary_one_behind(open_folder):
    """As in /tmp: there, files of others are not to be renamed over."""
    (open_folder / "app.pid").write_text("1\n")
    os.chmod(open_folder / "app.pid", 0o666)
    os.chmod(open_folder, 0o1777)
    assert as_nobody(IN_A_STICKY_FOLDER, open_folder) == ["True ['app.pid']"]


def test_what_is_no_pid_file_is_not_overwritten(folder):
    (folder / "app.py").write_text("import os\n")
    with pytest.raises(OperatorError, match=r"^pidfile .*app\.py: expected a process id; got 'import os', so it"):
        PidFiles(Config(pidfile="app.py")).write_early()
    assert (folder / "app.py").read_text() == "import os\n"


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "fifo"])
def test_what_is_no_regular_file_is_not_replaced(folder, kind):
    (folder / "target").write_text("1\n")
    make = {
        "link": lambda: os.symlink("target", "app.pid"),
        "dangling": lambda: os.symlink("nothing", "app.pid"),
        "folder": lambda: os.mkdir("app.pid"),
        "fifo": lambda: os.mkfifo("app.pid"),
    }
    make[kind]()
    files = PidFiles(Config(safe_pidfile="app.pid"))
    for act in (files.check, files.write_early):
        with pytest.raises(OperatorError, match=r"^safe-pidfile .*/app\.pid: that is no regular file; remove it, or"):
            act()
    assert (folder / "target").read_text() == "1\n"


# ---- the end ----


def test_at_the_end_files_go_with_vacuum_and_stay_without(folder):
    for vacuum in (False, True):
        files = PidFiles(Config(pidfile="a", pidfile2="b"))
        files.write_early()
        files.write_late()
        files.retire(vacuum)
        assert os.listdir() == [] if vacuum else sorted(os.listdir()) == ["a", "b"]


def test_one_file_may_be_named_twice(folder):
    files = PidFiles(Config(pidfile="app.pid", safe_pidfile2="app.pid"))
    files.check()
    files.write_early()
    files.write_late()
    files.retire(vacuum=True)
    assert os.listdir() == []


def test_a_file_that_holds_another_number_by_then_stays(folder):
    files = PidFiles(Config(pidfile="app.pid"))
    files.write_early()
    (folder / "app.pid").write_text("1\n")  # in place: the inode is the same
    files.retire(vacuum=True)
    assert (folder / "app.pid").read_text() == "1\n"


@pytest.mark.parametrize("text", [pytest.param(OURS, id="ours"), "", "no number"])
def test_a_file_that_somebody_has_replaced_stays(folder, text):
    files = PidFiles(Config(pidfile="app.pid"))
    files.write_early()
    os.rename("app.pid", "moved.pid")
    (folder / "app.pid").write_text(text)
    files.retire(vacuum=True)
    assert (folder / "app.pid").read_text() == text


def test_a_file_that_is_gone_already_is_no_error(folder, caplog):
    files = PidFiles(Config(pidfile="app.pid"))
    files.write_early()
    os.unlink("app.pid")
    caplog.set_level("INFO", "corelet.process")
    files.retire(vacuum=True)
    assert caplog.messages == []


def test_a_program_that_took_over_this_process_keeps_the_file_and_removes_it(folder):
    before = PidFiles(Config(safe_pidfile="app.pid"))
    before.write_early()
    inode = os.stat("app.pid").st_ino
    after = PidFiles(Config(safe_pidfile="app.pid"))
    after.check()
    after.write_early()
    assert os.stat("app.pid").st_ino == inode
    after.retire(vacuum=True)
    assert os.listdir() == []


# ---- the safe ones ----


@pytest.mark.parametrize("option", ["safe_pidfile", "safe_pidfile2"])
def test_a_safe_file_of_a_living_process_forbids_the_start_and_names_it(folder, neighbour, option):
    (folder / "app.pid").write_text(f"{neighbour.pid}\n")
    with pytest.raises(OperatorError) as caught:
        PidFiles(Config(**{option: "app.pid"})).check()
    path = folder / "app.pid"
    assert str(caught.value) == (
        f"{option.replace('_', '-')} {path}: process {neighbour.pid} (sleep) is running; stop it first "
        f"(corelet --stop {path}), or remove the file if that is another program"
    )


@pytest.mark.parametrize("option", ["pidfile", "pidfile2"])
def test_the_other_files_are_not_checked(folder, neighbour, option):
    (folder / "app.pid").write_text(f"{neighbour.pid}\n")
    PidFiles(Config(**{option: "app.pid"})).check()


@pytest.mark.parametrize("text", [pytest.param(OURS, id="ours"), "", None], ids=["ours", "empty", "none"])
def test_a_safe_file_of_nobody_or_of_ours_is_no_obstacle(folder, text):
    if text is not None:
        (folder / "app.pid").write_text(text)
    PidFiles(Config(safe_pidfile="app.pid")).check()


def test_a_safe_file_of_a_process_that_has_ended_is_replaced(folder):
    (folder / "app.pid").write_text(f"{ended_pid()}\n")
    files = PidFiles(Config(safe_pidfile="app.pid"))
    files.check()
    files.write_early()
    assert (folder / "app.pid").read_text() == OURS


def test_a_process_that_only_waits_to_be_reaped_is_not_alive(folder, neighbour):
    (folder / "app.pid").write_text(f"{neighbour.pid}\n")
    neighbour.kill()
    os.waitid(os.P_PID, neighbour.pid, os.WEXITED | os.WNOWAIT)
    os.kill(neighbour.pid, 0)  # for the system it exists still
    PidFiles(Config(safe_pidfile="app.pid")).check()


def test_a_safe_file_that_holds_something_else_is_an_error_before_anything_is_bound(folder):
    (folder / "app.pid").write_text("precious")
    with pytest.raises(OperatorError, match="expected a process id; got 'precious', so it is not ours to overwrite"):
        PidFiles(Config(safe_pidfile="app.pid")).check()


# ---- using them ----


def test_a_signal_goes_to_the_process_that_the_file_names(folder, neighbour):
    (folder / "app.pid").write_text(f"{neighbour.pid}\n")
    assert signal_by_file("app.pid", signal.SIGTERM) == neighbour.pid
    assert neighbour.wait(PATIENCE_SECONDS) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"^app\.pid: there is no such file; is the server running, and is this its pidfile\?$"),
        ("", r"^app\.pid: expected a process id; the file is empty; name the pidfile of the server$"),
        ("-1\n", r"^app\.pid: expected a process id; got '-1'; name the pidfile of the server$"),
        ("0\n", r"^app\.pid: expected a process id; got '0'; name"),
        ("12 13\n", r"got '12 13'"),
        ("2147483648", r"got '2147483648'"),
        ("٣".encode(), r"got '\\\\xd9\\\\xa3'"),
        (b"\x7fELF" + b"\x02" * 100, r"got '\\x7fELF\\x02"),
    ],
)
def test_a_file_that_names_no_process_is_an_error(folder, text, message):
    if text is not None:
        (folder / "app.pid").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OperatorError, match=message):
        signal_by_file("app.pid", 0)  # which nobody would feel: 0 and -1 mean many processes to kill(2)


def test_a_process_that_has_ended_is_an_error(folder):
    pid = ended_pid()
    (folder / "app.pid").write_text(str(pid))
    with pytest.raises(OperatorError, match=rf"^app\.pid: there is no process {pid}: the server has ended; remove"):
        signal_by_file("app.pid", signal.SIGTERM)


def test_a_folder_or_a_fifo_is_an_error_and_no_wait(folder):
    os.mkdir("folder")
    os.mkfifo("fifo")
    with pytest.raises(OperatorError, match=r"^folder: cannot be read: Is a directory; name the pidfile"):
        signal_by_file("folder", signal.SIGTERM)
    with pytest.raises(OperatorError, match=r"^fifo: expected a process id; the file is empty"):
        signal_by_file("fifo", signal.SIGTERM)


SIGNAL_ANOTHER_USER = """
import os, sys
from corelet.base.errors import OperatorError
from corelet.process.pidfile import signal_by_file
if os.geteuid() == 0:
    os.setuid(int(sys.argv[1]))
try:
    print("sent to", signal_by_file("app.pid", 0))
except OperatorError as error:
    print(error)
"""


def test_a_process_of_another_user_is_an_error_that_says_who_may(open_folder):
    pid = os.getpid() if os.geteuid() == 0 else 1
    (open_folder / "app.pid").write_text(str(pid))
    assert as_nobody(SIGNAL_ANOTHER_USER, open_folder) == [
        f"app.pid: process {pid} is another user's; run this as root, or as that user"
    ]


def test_a_reader_sees_none_for_empty_and_the_number_otherwise(folder):
    (folder / "a").write_text("")
    (folder / "b").write_text(" 17\r\n")
    assert (read_pid("a"), read_pid("b")) == (None, 17)
