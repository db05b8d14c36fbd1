"""The line between a master and a worker: whole words, an end that is noticed, and nobody who waits."""

from __future__ import annotations

import os
import resource
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


def fill(channel: Channel, text: str) -> int:
    """Send until the socket takes no more; how many it took."""
    count = 0
    while select.select([], [channel], [], 0)[1]:
        channel.send("recycle", f"{count} {text}")
        count += 1
        assert count < 100_000
    return count


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
    master, worker = ends
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


@pytest.mark.parametrize("text", ["", "x" * 50_000], ids=["short", "long"])
def test_a_full_line_never_blocks_and_keeps_what_it_took(ends, text):
    master, worker = ends
    taken = fill(worker, text)
    worker.send("ready")  # comes back, and is lost
    found = master.receive()
    assert found == [("recycle", f"{number} {text}".strip()) for number in range(len(found))]
    assert len(found) in (taken, taken - 1)  # the last that fill() sent may have been too much already
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


def test_a_line_is_not_inherited_unless_it_is_told_so(ends):
    master, worker = ends
    assert not os.get_inheritable(master.fileno())
    assert not os.get_inheritable(worker.fileno())
    assert master.inherit() == master.fileno()
    assert os.get_inheritable(master.fileno())
    assert not os.get_inheritable(worker.fileno())


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


def test_a_line_survives_an_exec(ends):
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
        [sys.executable, "-c", program, str(master.inherit())],
        check=True,
        close_fds=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert worker.receive() == [("drain", "[('ready', '')]")]
    assert not worker.ended  # the test has the other end open still


def test_a_line_needs_two_descriptors_and_gives_them_back():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for _ in range(soft // 2 + 1 if soft < 5000 else 100):
        for end in pair():
            end.close()
