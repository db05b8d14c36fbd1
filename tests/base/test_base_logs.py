"""Where lines go, and what happens when they cannot go there."""

import errno
import logging
import os
import subprocess
import sys

import pytest

from corelet.base.errors import ConfigError
from corelet.base.logs import MAX_GATHERED_BYTES, LogFile, LogWriter, RateLimited, setup


@pytest.fixture
def logger():
    """The logger `corelet`, as it was before afterwards."""
    logger = logging.getLogger("corelet")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield logger
    logger.handlers[:], logger.level, logger.propagate = before
    logger.setLevel(before[1])


@pytest.fixture
def file(tmp_path):
    file = LogFile(str(tmp_path / "log"))
    yield file
    file.close()


def text(file):
    with open(file.path, encoding="latin-1", newline="") as stream:
        return stream.read()


# ---- the file ----


def test_without_a_path_the_log_goes_to_stderr():
    assert LogFile().descriptor == 2
    LogFile().reopen()


def test_a_file_is_appended_to_and_not_readable_by_everybody(tmp_path):
    path = tmp_path / "log"
    path.write_text("before\n")
    file = LogFile(str(path))
    os.write(file.descriptor, b"after\n")
    file.close()
    assert path.read_text() == "before\nafter\n"
    LogFile(str(tmp_path / "new")).close()
    assert (tmp_path / "new").stat().st_mode & 0o007 == 0


def test_a_file_that_cannot_be_opened_is_the_operators_mistake(tmp_path):
    with pytest.raises(ConfigError, match=r"^logto .*/no/log: No such file or directory; is there such a folder"):
        LogFile(str(tmp_path / "no" / "log"))


def test_reopening_follows_a_rotation_under_the_same_descriptor(tmp_path, file, monkeypatch):
    number = file.descriptor
    os.write(number, b"old\n")
    os.rename(tmp_path / "log", tmp_path / "log.1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file.reopen()
    os.write(number, b"new\n")
    assert ((tmp_path / "log.1").read_text(), (tmp_path / "log").read_text()) == ("old\n", "new\n")


def test_when_reopening_fails_the_old_file_is_kept(tmp_path, file, caplog):
    os.rename(tmp_path / "log", tmp_path / "log.1")
    (tmp_path / "log").mkdir()
    file.reopen()
    os.write(file.descriptor, b"still\n")
    assert (tmp_path / "log.1").read_text() == "still\n"
    assert "still writing to the file that was open" in caplog.text


def test_prints_of_the_application_follow_logto_line_by_line(tmp_path):
    script = (
        "import os, sys\n"
        "from corelet.base.logs import LogFile\n"
        "print('early')\n"
        "file = LogFile('log')\n"
        "file.redirect_standard_streams()\n"
        "print('printed'); os.write(file.descriptor, b'event\\n'); print('error', file=sys.stderr)\n"
        "os.rename('log', 'log.1'); file.reopen(); print('rotated', file=sys.stderr)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("early\n", "")
    assert (tmp_path / "log.1").read_text() == "printed\nevent\nerror\n"
    assert (tmp_path / "log").read_text() == "rotated\n"


# ---- events ----


def test_an_event_is_one_line_with_time_pid_and_level(file, logger):
    setup(file)
    logger.warning("peer %s sent rubbish", "1.2.3.4")
    assert text(file).endswith(f" [{os.getpid()}] warning peer 1.2.3.4 sent rubbish\n")
    assert text(file).count("\n") == 1


def test_what_a_peer_sent_cannot_make_a_second_event(file, logger):
    setup(file)
    logger.warning("peer said %s", "a\r\n2026-01-01 00:00:00,000 [1] error forged\x1b[2J")
    assert text(file).count("\n") == 1
    assert "a\\x0d\\x0a2026-01-01" in text(file)
    assert "forged\\x1b[2J" in text(file)


def test_a_traceback_and_a_detail_follow_on_lines_of_their_own(file, logger):
    setup(file)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger.exception("it failed")
    logger.error("it failed too", extra={"detail": "Traceback:\n  line"})
    lines = text(file).splitlines()
    assert lines[0].endswith("error it failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert "ZeroDivisionError: division by zero" in lines
    assert lines[-2:] == ["Traceback:", "  line"]


def test_setting_up_again_replaces_what_was_set_up(file, logger):
    setup(file)
    setup(file, logging.ERROR)
    logger.warning("quiet")
    logger.error("once")
    assert text(file).count("\n") == 1


def test_a_log_that_cannot_be_written_costs_the_caller_nothing(logger):
    full = LogFile("/dev/full")
    setup(full)
    logger.error("lost")
    full.close()


# ---- at most one line per key and interval ----


@pytest.fixture
def spoken(caplog):
    caplog.set_level(logging.INFO, "corelet")
    return caplog


def test_the_same_key_speaks_once_per_interval_and_says_how_many_were_left_out(spoken):
    limited = RateLimited(logging.getLogger("corelet"), interval_seconds=10)
    assert limited.log(0.0, "a", logging.WARNING, "bad packet from %s", "a") is True
    assert [limited.log(t, "a", logging.WARNING, "bad packet from %s", "a") for t in (1.0, 5.0, 9.9)] == [False] * 3
    assert limited.log(10.0, "a", logging.WARNING, "bad packet from %s", "a") is True
    assert spoken.messages == ["bad packet from a", "bad packet from a (and 3 more like it before)"]


def test_keys_do_not_silence_each_other(spoken):
    limited = RateLimited(logging.getLogger("corelet"))
    assert limited.log(0.0, "a", logging.INFO, "one")
    assert limited.log(0.0, ("b", 2), logging.INFO, "two")
    assert spoken.messages == ["one", "two"]


def test_what_was_left_out_is_told_when_the_interval_ends_without_another(spoken):
    limited = RateLimited(logging.getLogger("corelet"), interval_seconds=10)
    for second in range(4):
        limited.log(float(second), "10.0.0.1", logging.WARNING, "bad")
    limited.log(5.0, "10.0.0.2", logging.WARNING, "bad")
    limited.expire(9.0)
    limited.expire(10.0)
    limited.expire(20.0)
    assert spoken.messages == ["bad", "bad", "10.0.0.1: 3 more like it in the last 10 s"]
    assert limited.log(20.0, "10.0.0.1", logging.WARNING, "again") is True


def test_the_number_of_keys_is_bounded_and_the_oldest_goes_first(spoken):
    limited = RateLimited(logging.getLogger("corelet"), interval_seconds=10, max_keys=2)
    for key in ("a", "b", "c"):
        limited.log(0.0, key, logging.INFO, "%s", key)
    assert limited.log(1.0, "b", logging.INFO, "b") is False
    assert limited.log(1.0, "a", logging.INFO, "a again") is True
    assert limited.log(1.0, "c", logging.INFO, "c") is False


def test_a_key_that_spoke_again_is_no_longer_the_oldest(spoken):
    limited = RateLimited(logging.getLogger("corelet"), interval_seconds=1, max_keys=2)
    limited.log(0.0, "a", logging.INFO, "a")
    limited.log(0.0, "b", logging.INFO, "b")
    limited.log(2.0, "a", logging.INFO, "a")
    limited.log(2.0, "c", logging.INFO, "c")
    assert limited.log(2.1, "a", logging.INFO, "a") is False


# ---- access lines ----


class Sink:
    """os.write's contract with a script: each call takes at most the next number of bytes, or raises it."""

    def __init__(self, *script):
        self.script = list(script)
        self.data = b""
        self.calls = 0

    def __call__(self, descriptor, data):
        self.calls += 1
        step = self.script.pop(0) if self.script else len(data)
        if isinstance(step, OSError):
            raise step
        taken = data[:step]
        self.data += taken
        return len(taken)


AGAIN = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
FULL = OSError(errno.ENOSPC, "No space left on device")


def writer(*script):
    sink = Sink(*script)
    return LogWriter(LogFile(), sink), sink


def test_lines_are_gathered_and_written_in_one_call():
    log, sink = writer()
    log.flush()
    assert sink.calls == 0
    for line in ("one", "two", "three"):
        log.write(line)
    assert sink.calls == 0
    log.flush()
    assert (sink.calls, sink.data) == (1, b"one\ntwo\nthree\n")
    log.flush()
    assert sink.calls == 1


def test_a_burst_is_written_before_it_grows_without_bound():
    log, sink = writer()
    for _ in range(MAX_GATHERED_BYTES // 100):
        log.write("x" * 99)
    assert sink.calls == 0
    log.write("x" * 99)
    assert sink.calls == 1


def test_the_bytes_of_the_peer_are_written_back_and_other_text_is_escaped():
    log, sink = writer()
    log.write("/caf\xe9")
    log.write("user →")
    log.flush()
    assert sink.data == b"/caf\xe9\nuser \\u2192\n"


@pytest.mark.parametrize("error", [AGAIN, FULL, BrokenPipeError(errno.EPIPE, "Broken pipe")])
def test_lines_that_cannot_be_written_are_dropped_counted_and_told(error):
    log, sink = writer(error, error)
    log.write("one")
    log.flush()
    log.write("two")
    log.write("three")
    log.flush()
    assert log.dropped == 3
    log.write("four")
    log.flush()
    assert sink.data == b"corelet: 3 access lines were dropped: the log could not be written\nfour\n"
    assert log.dropped == 0
    log.write("five")
    log.flush()
    assert sink.data.endswith(b"\nfour\nfive\n")


def test_a_short_write_is_continued():
    log, sink = writer(4)
    log.write("one")
    log.write("two")
    log.flush()
    assert sink.data == b"one\ntwo\n"
    assert log.dropped == 0


def test_a_line_that_was_cut_is_completed_before_anything_else():
    log, sink = writer(5, AGAIN)
    for line in ("one", "two", "three", "four"):
        log.write(line)
    log.flush()
    assert (sink.data, log.dropped) == (b"one\nt", 2)
    log.write("five")
    log.flush()
    assert sink.data == (b"one\ntwo\ncorelet: 2 access lines were dropped: the log could not be written\nfive\n")


def test_while_a_cut_line_cannot_be_completed_new_lines_are_dropped():
    log, sink = writer(2, AGAIN, AGAIN, 1)
    log.write("one")
    log.flush()
    log.write("two")
    log.flush()
    assert (sink.data, log.dropped) == (b"on", 1)
    log.flush()
    assert sink.data == b"one"
    log.write("three")
    log.flush()
    assert sink.data == b"one\ncorelet: 1 access lines were dropped: the log could not be written\nthree\n"


def test_a_cut_between_two_lines_leaves_nothing_to_complete():
    log, sink = writer(4, FULL)
    log.write("one")
    log.write("two")
    log.flush()
    assert (sink.data, log.dropped) == (b"one\n", 1)


def test_a_note_that_was_cut_is_not_lost():
    log, sink = writer(FULL, 3, AGAIN)
    log.write("one")
    log.flush()
    log.write("two")
    log.flush()
    assert log.dropped == 1
    log.flush()
    assert sink.data == b"corelet: 1 access lines were dropped: the log could not be written\n"


@pytest.mark.parametrize("blocking", [False, True])
def test_a_pipe_that_nobody_reads_never_blocks(blocking):
    reader, end = os.pipe()
    os.set_blocking(end, blocking)
    file = LogFile()
    file.descriptor = end
    log = LogWriter(file)
    for number in range(3000):
        log.write(f"{number:099d}")
    log.flush()
    assert log.dropped > 0
    data = os.read(reader, 1 << 20)
    assert all(len(line) == 99 for line in data.split(b"\n")[:-1])
    os.close(reader)
    os.close(end)
