"""The master-fifo: a pipe that never ends, and letters that are orders."""

import os
import select
import socket
import stat

import pytest

from corelet.base.errors import OperatorError
from corelet.process.fifo import LETTERS, SIGNALS, MasterFifo
from corelet.process.signals import MASTER_SIGNALS

# uwsgi_fifo_table of uWSGI 2.0.31 (core/fifo.c)
LETTERS_OF_UWSGI = "0123456789-+BcCEflLpPqQrRsSwW"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fifo"


@pytest.fixture
def fifo(path):
    fifo = MasterFifo(str(path))
    yield fifo
    fifo.retire()


def write(path, text):
    """As echo does it: open, write, close."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(descriptor, text.encode("latin-1"))
    os.close(descriptor)


# ---- the pipe ----


def test_a_fifo_is_made_for_its_owner_alone(path, fifo):
    status = os.stat(path)
    assert stat.S_ISFIFO(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert fifo.made


def test_its_descriptor_neither_blocks_nor_survives_an_exec(fifo):
    assert not os.get_blocking(fifo.reader)
    assert not os.get_inheritable(fifo.reader)
    assert fifo.read() == []


def test_it_does_not_end_with_its_writers(path, fifo):
    poll = select.poll()
    poll.register(fifo.reader, select.POLLIN)
    for letter, order in (("r", "reload"), ("w", "workers-reload")):
        write(path, letter)
        assert poll.poll(0) == [(fifo.reader, select.POLLIN)]
        assert fifo.read() == [order]
        assert poll.poll(0) == []
        assert fifo.read() == []


def test_letters_that_came_before_are_read_in_order(path, fifo):
    write(path, "++s\n")
    write(path, "q\n")
    assert fifo.read() == ["more", "more", "stats", "stop"]


def test_a_fifo_that_is_there_is_used_with_its_permissions_and_left_there(path):
    os.mkfifo(path)
    path.chmod(0o620)
    fifo = MasterFifo(str(path))
    write(path, "r")
    assert fifo.read() == ["reload"]
    assert not fifo.made
    fifo.retire()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o620


@pytest.mark.parametrize("kind", ["file", "folder", "socket", "null"])
def test_anything_else_at_its_place_is_refused_and_left_alone(path, kind):
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "null":
        path.symlink_to("/dev/null")
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    with pytest.raises(OperatorError, match=f"^master-fifo {path}: something that is no fifo is there; remove it"):
        MasterFifo(str(path))
    assert os.path.lexists(path)
    assert kind != "file" or path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_explained(path):
    with pytest.raises(OperatorError, match=r"cannot make master-fifo .*: No such file or directory; is there such"):
        MasterFifo(str(path / "below"))


def test_a_link_to_nothing_is_explained(path):
    path.symlink_to(path.with_name("nothing"))
    with pytest.raises(OperatorError, match=r"cannot open master-fifo .*: No such file or directory"):
        MasterFifo(str(path))


def test_at_the_end_the_fifo_that_was_made_is_removed(path):
    fifo = MasterFifo(str(path))
    reader = fifo.reader
    fifo.retire()
    assert not path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)


def test_at_the_end_the_fifo_of_somebody_else_is_left(path):
    fifo = MasterFifo(str(path))
    path.unlink()
    os.mkfifo(path)
    fifo.retire()
    assert path.exists()


def test_a_worker_that_closes_its_end_takes_the_fifo_from_nobody(path):
    fifo = MasterFifo(str(path))
    MasterFifo(str(path)).close()
    fifo.close()
    assert path.exists()


def test_the_program_that_replaces_the_one_that_made_it_removes_it(path):
    before = MasterFifo(str(path))
    after = MasterFifo(str(path), ours=before.made)
    before.close()
    after.retire()
    assert not path.exists()


def test_a_relative_path_stays_the_same_fifo_after_a_change_of_folder(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    fifo = MasterFifo(path.name)
    monkeypatch.chdir("/")
    fifo.retire()
    assert not path.exists()


def test_reopening_makes_a_fifo_that_was_removed_and_keeps_the_descriptors_number(path, fifo):
    reader = fifo.reader
    path.unlink()
    fifo.reopen()
    assert fifo.reader == reader
    assert not os.get_inheritable(reader)
    write(path, "r")
    assert fifo.read() == ["reload"]


def test_what_cannot_be_opened_again_leaves_the_old_one_open(path, fifo):
    writer = os.open(path, os.O_WRONLY)
    path.unlink()
    path.write_text("")
    with pytest.raises(OperatorError, match="something that is no fifo is there"):
        fifo.reopen()
    os.write(writer, b"r")
    os.close(writer)
    assert fifo.read() == ["reload"]
    path.unlink()


# ---- letters ----


def test_every_letter_of_uwsgi_is_known_and_two_are_ours():
    assert set(LETTERS) == {*LETTERS_OF_UWSGI, "d", "x"}


@pytest.mark.parametrize(
    ("letters", "orders"),
    [
        ("rRwWc", ["reload", "brutal-reload", "workers-reload", "brutal-workers-reload", "chain-reload"]),
        ("qQ", ["stop", "quit"]),
        ("lL", ["reopen-log", "reopen-log"]),
        ("pPsd", ["pause", "pidfiles", "stats", "workers"]),
        ("+-C", ["more", "fewer", "cheap"]),
        ("fx", ["reopen-fifo", "exec"]),
        ("0123456789BES", []),
        (" \t\r\n", []),
    ],
)
def test_letters_are_orders(path, fifo, letters, orders):
    write(path, letters)
    assert fifo.read() == orders


def test_a_letter_that_does_nothing_here_is_explained_once(path, fifo, caplog):
    caplog.set_level("INFO", "corelet")
    write(path, "EE1\n")
    assert fifo.read() == []
    assert caplog.messages == [
        "master-fifo E: nothing: there is no Emperor",
        "master-fifo 1: nothing: every fifo of master-fifo is read all the time",
    ]


def test_letters_that_nobody_knows_are_one_warning_and_hinder_no_order(path, fifo, caplog):
    write(path, "z\0\xffr y" * 100)
    assert fifo.read() == ["reload"] * 100
    assert caplog.messages == [f"master-fifo {path}: 'z' is no order; the letters are rRwWcqQlLpPsd+-Cxf0123456789BES"]


def test_more_than_a_read_takes_is_left_for_the_next(path, fifo):
    orders = []
    for _ in range(3):
        write(path, "+" * 60000)
        orders += fifo.read()
    assert orders == ["more"] * 180000


# ---- signals ----


def test_every_signal_of_the_master_has_an_order_that_a_letter_has_too():
    assert {*SIGNALS} == {number for number in MASTER_SIGNALS if number.name != "SIGCHLD"}
    assert {number.name: order.name for number, order in SIGNALS.items()} == {
        "SIGHUP": "reload",
        "SIGTERM": "stop",
        "SIGINT": "stop",
        "SIGQUIT": "quit",
        "SIGUSR1": "stats",
        "SIGUSR2": "workers",
        "SIGTSTP": "pause",
        "SIGTTIN": "more",
        "SIGTTOU": "fewer",
    }
    for order in SIGNALS.values():
        assert LETTERS[order.letter].name == order.name
