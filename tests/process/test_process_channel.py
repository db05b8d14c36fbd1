"""The line between a master and a worker: whole words, an end that is noticed, and nobody who waits."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import textwrap

import pytest

from corelet.process.channel import MAX_PACKET_BYTES, Channel, pair


@pytest.fixture
def ends():
    """The master's end, the worker's end."""
    master, worker = pair()
    yield master, worker
    master.close()
    worker.close()


def fill(channel: Channel, packet: bytes) -> int:
    """Send until the socket takes no more of them; how many it took."""
    with socket.socket(fileno=os.dup(channel.fileno())) as raw:
        for count in range(100_000):
            try:
                raw.send(packet, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return count
    raise AssertionError("this socket is never full")


# ---- words ----


def test_a_word_and_its_text_arrive(ends):
    master, worker = ends
    master.send("drain", "25.000")
    assert worker.receive() == [("drain", "25.000")]
    worker.send("failed", "22 no module named x\0Traceback\n  File x")
    assert master.receive() == [("failed", "22 no module named x\0Traceback\n  File x")]


def test_a_word_may_stand_alone(ends):
    master, worker = ends
    worker.send("ready")
    assert master.receive() == [("ready", "")]


def test_nothing_has_come_is_an_empty_list(ends):
    master, _ = ends
    assert master.receive() == []
    assert not master.ended


def test_packets_keep_their_borders_and_their_order(ends):
    master, worker = ends
    for word, text in (("pause", ""), ("drain", "1.000"), ("hurry", "")):
        master.send(word, text)
    assert worker.receive() == [("pause", ""), ("drain", "1.000"), ("hurry", "")]
    assert worker.receive() == []


def test_only_the_first_blank_separates(ends):
    master, worker = ends
    worker.send("changed", "/srv/my app/views file.py")
    assert master.receive() == [("changed", "/srv/my app/views file.py")]


@pytest.mark.parametrize("text", ["Grüße, 世界", "a\nb\tc", "\0detail", "x\0"])
def test_any_text_arrives_as_it_was(ends, text):
    master, worker = ends
    worker.send("recycle", text)
    assert master.receive() == [("recycle", text)]


def test_a_file_name_that_is_no_utf_8_is_shown_escaped(ends):
    master, worker = ends
    worker.send("changed", os.fsdecode(b"/srv/caf\xe9.py"))
    assert master.receive() == [("changed", "/srv/caf\\udce9.py")]


def test_bytes_that_are_no_utf_8_do_not_raise(ends):
    master, worker = ends
    with socket.socket(fileno=os.dup(worker.fileno())) as raw:
        raw.send(b"recycle \xff\xfe")
    assert master.receive() == [("recycle", "\ufffd\ufffd")]


# ---- too long, too much ----


def test_a_text_that_is_too_long_is_cut(ends):
    master, worker = ends
    worker.send("failed", "22 " + "x" * 1_000_000)
    worker.send("ready")
    (word, text), after = master.receive()
    assert (word, text) == ("failed", "22 " + "x" * (MAX_PACKET_BYTES - len("failed 22 ")))
    assert after == ("ready", "")


def test_a_cut_through_a_letter_spoils_only_that_letter(ends):
    master, worker = ends
    worker.send("failed", "世" * MAX_PACKET_BYTES)
    ((word, text),) = master.receive()
    assert word == "failed"
    assert text.rstrip("\ufffd") == "世" * ((MAX_PACKET_BYTES - len("failed ")) // 3)


def test_the_longest_text_passes_whole(ends):
    master, worker = ends
    text = "x" * (MAX_PACKET_BYTES - len("failed "))
    worker.send("failed", text)
    assert master.receive() == [("failed", text)]


@pytest.mark.parametrize("size", [10, 50_000])
def test_a_full_line_never_blocks_and_loses_only_what_is_new(ends, size):
    master, worker = ends
    packet = b"recycle ".ljust(size, b"x")
    taken = fill(worker, packet)
    assert taken > 0
    worker.send("recycle", "y" * (size - len("recycle ")))  # comes back, and is lost
    assert master.receive() == [("recycle", "x" * (size - len("recycle ")))] * taken
    worker.send("ready")
    assert master.receive() == [("ready", "")]


def test_reading_never_blocks_on_a_socket_that_came_blocking(ends):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(True)
    channel = Channel(ours)
    assert channel.receive() == []
    channel.close()
    theirs.close()


# ---- the end ----


def test_the_end_of_the_line_is_noticed(ends):
    master, worker = ends
    worker.close()
    assert master.receive() == []
    assert master.ended


def test_what_was_said_before_the_end_is_heard(ends):
    master, worker = ends
    worker.send("failed", "22 no such module")
    worker.send("leaving", "SIGTERM")
    worker.close()
    assert master.receive() == [("failed", "22 no such module"), ("leaving", "SIGTERM")]
    assert master.ended
    assert master.receive() == []


def test_the_end_wakes_who_waits(ends):
    master, worker = ends
    assert select.select([master], [], [], 0)[0] == []
    worker.close()
    assert select.select([master], [], [], 10)[0] == [master]


def test_sending_to_nobody_does_not_raise(ends):
    master, worker = ends
    worker.close()
    master.send("drain", "25.000")
    master.close()
    master.send("drain", "25.000")


def test_a_line_that_was_closed_here_has_ended(ends):
    master, _ = ends
    master.close()
    assert master.receive() == []
    assert master.ended


# ---- descriptors ----


def test_a_line_survives_an_exec_only_if_it_is_told_so(ends):
    master, worker = ends
    assert not os.get_inheritable(master.fileno())
    assert not os.get_inheritable(worker.fileno())
    assert master.survive_exec() == master.fileno()
    assert os.get_inheritable(master.fileno())
    assert not os.get_inheritable(worker.fileno())
    assert master.survive_exec(False) == master.fileno()
    assert not os.get_inheritable(master.fileno())


def test_an_adopted_line_is_not_inherited_by_children(ends):
    master, _ = ends
    descriptor = os.dup(master.fileno())
    os.set_inheritable(descriptor, True)  # as it comes out of an exec
    adopted = Channel.adopted(descriptor)
    assert not os.get_inheritable(descriptor)
    adopted.close()


def test_an_adopted_descriptor_is_a_line_as_any_other(ends):
    master, worker = ends
    worker.send("recycle", "max-requests")
    adopted = Channel.adopted(os.dup(master.fileno()))
    master.close()
    assert adopted.receive() == [("recycle", "max-requests")]
    assert adopted.receive() == []  # and it does not wait
    adopted.send("drain", "3.000")
    assert worker.receive() == [("drain", "3.000")]
    adopted.close()
    assert worker.receive() == []
    assert worker.ended


def test_another_program_goes_on_with_the_line(ends):
    """As in a re-exec of the master: another program finds it by its number."""
    master, worker = ends
    worker.send("ready")
    program = textwrap.dedent("""
        import sys
        from corelet.process.channel import Channel
        channel = Channel.adopted(int(sys.argv[1]))
        channel.send("drain", repr(channel.receive()))
    """)
    subprocess.run(
        [sys.executable, "-c", program, str(master.survive_exec())],
        check=True,
        close_fds=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert worker.receive() == [("drain", "[('ready', '')]")]
    assert not worker.ended  # the test has the other end open still
