"""The caches of one machine: shared, private, bounded; they outlive workers, and whatever is done to their file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cache_site import APPLICATION, ask
from gates import GATES
from harness import PATIENCE_SECONDS, running
from masters import await_end, gated, mastered, until

CACHE = ("--cache2", "name=shared,items=2000")

# Somebody else who writes to the same file, as a worker does, and is stopped in the middle.
WRITER = """
import signal, os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin immediate")
connection.execute("update items set value = x'00'")
os.kill(os.getpid(), signal.SIGSTOP)
"""

READER = """
import signal, os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin")
connection.execute("select * from items").fetchone()
os.kill(os.getpid(), signal.SIGSTOP)
"""


def folder_of(server) -> Path:
    """Where the server's caches are."""
    return Path(re.search(r"the caches are in (\S+) ", server.log.wait_for("the caches are in"))[1])


def file_of(server, cache="shared") -> Path:
    return folder_of(server) / (hashlib.sha256(cache.encode()).hexdigest()[:16] + ".db")


def stopped(program, path):
    """A process that runs this program, and has stopped itself."""
    process = subprocess.Popen([sys.executable, "-c", program, str(path)])
    _pid, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    return process


def end(process):
    process.kill()
    process.wait(PATIENCE_SECONDS)


def test_all_workers_see_one_cache_and_so_do_those_after_a_reload(tmp_path):
    with mastered(tmp_path, APPLICATION, "--processes", "2", *CACHE) as server:
        assert ask(server.http, "uwsgi.cache_set('a', 'before')") == ["True"]
        seen = set()
        while len(seen) < 2:
            value, worker = ask(server.http, "uwsgi.cache_get('a')", "uwsgi.worker_id()")
            assert value == "b'before'"
            seen.add(worker)
        server.renew()
        assert ask(server.http, "uwsgi.cache_get('a')") == ["b'before'"]
        folder = folder_of(server)
        assert folder.is_dir()
    assert not folder.exists()


def test_a_cache_survives_a_new_master_in_the_same_process(tmp_path):
    with mastered(tmp_path, APPLICATION, *CACHE) as server:
        assert ask(server.http, "uwsgi.cache_set('a', 'before')") == ["True"]
        folder = folder_of(server)
        for _ in range(2):
            start = server.mark()
            old = server.ready()
            server.order("x")
            server.wait("new master: exec of", start)
            server.wait_for_generation(start)
            for pid in old.values():
                await_end(pid)
            assert ask(server.http, "uwsgi.cache_get('a')") == ["b'before'"]
        assert server.log.count("the caches are in") == 1
    assert not folder.exists()


def test_a_preloaded_application_may_fill_the_cache_for_its_workers(tmp_path):
    source = APPLICATION + "uwsgi.cache_update('loaded', 'in the master')\n"
    with mastered(tmp_path, source, "--preload", *CACHE) as server:
        assert ask(server.http, "uwsgi.cache_get('loaded')", "uwsgi.cache_inc('n')") == ["b'in the master'", "True"]


def test_a_cache_that_a_reload_brings_is_there_afterwards(tmp_path):
    tmp_path.joinpath("app.ini").write_text("[uwsgi]\nwsgi-file = app.py\n")
    with mastered(tmp_path, APPLICATION, "--ini", "app.ini") as server:
        assert ask(server.http, "uwsgi.cache_set('a', '1')") == ["None"]
        server.wait("an application uses a cache, and none is configured; add cache2 = name=default,items=N")
        tmp_path.joinpath("app.ini").write_text("[uwsgi]\nwsgi-file = app.py\ncache2 = name=new,items=5\n")
        server.renew()
        assert ask(server.http, "uwsgi.cache_set('a', '1')") == ["True"]
        assert ask(server.http, "uwsgi.cache_get('a')") == ["b'1'"]


def test_the_folder_is_the_workers_users_alone(tmp_path):
    with running(tmp_path, APPLICATION, *CACHE) as server:
        ask(server.http, "uwsgi.cache_set('a', '1')")
        folder = folder_of(server)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in (folder, *folder.iterdir()):
            assert path.stat().st_uid == os.geteuid()
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_what_a_killed_server_has_left_is_removed_by_the_next_and_what_lives_is_not(tmp_path):
    with running(tmp_path / "living", APPLICATION, *CACHE) as living:
        ask(living.http, "uwsgi.cache_set('a', 'mine')")
        with running(tmp_path / "killed", APPLICATION, *CACHE) as killed:
            ask(killed.http, "uwsgi.cache_set('a', '1')")
            left = folder_of(killed)
            killed.process.kill()
            killed.process.wait()
        with running(tmp_path / "next", APPLICATION, *CACHE) as server:
            assert not left.exists()  # removed by this one, or by another test's that has started meanwhile
            assert folder_of(server).is_dir()
            assert folder_of(living).is_dir()
            assert ask(living.http, "uwsgi.cache_get('a')") == ["b'mine'"]


def test_a_folder_whose_workers_still_serve_is_not_removed_though_their_master_was_killed(tmp_path):
    with gated(tmp_path / "one", APPLICATION.replace("def application", "def calls") + GATES, *CACHE) as (
        server,
        gates,
    ):
        server.sound = False
        with socket.create_connection(server.http, PATIENCE_SECONDS) as sock:
            sock.sendall(b"GET /gate?held HTTP/1.1\r\nHost: test\r\n\r\n")
            held = gates.at("held")
            folder = folder_of(server)
            server.process.kill()
            server.process.wait()
            with running(tmp_path / "two", APPLICATION, *CACHE):
                assert folder.is_dir()
            held.open()
            await_end(held.pid)
        with running(tmp_path / "three", APPLICATION, *CACHE):
            until(lambda: not folder.exists(), "the folder is removed")


def test_a_stopped_writer_stops_no_reader_and_no_loop_and_a_killed_one_leaves_all_as_it_was(tmp_path):
    with running(tmp_path, APPLICATION, *CACHE) as server:
        assert ask(server.http, "uwsgi.cache_set('a', 'whole')") == ["True"]
        writer = stopped(WRITER, file_of(server))
        try:
            body = json.dumps(["uwsgi.cache_set('b', '1')"]).encode()
            with server.connect() as waiting:
                waiting.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                for _ in range(5):
                    assert ask(server.http, "uwsgi.cache_get('a')") == ["b'whole'"]
                assert not select.select([waiting], [], [], 0)[0], "it has not waited at all"
                assert b"None" in waiting.recv(1000)
            server.log.wait_for("cache shared: another process keeps it")
        finally:
            end(writer)
        assert ask(server.http, "uwsgi.cache_get('a')", "uwsgi.cache_set('b', '1')") == ["b'whole'", "True"]


def test_a_stopped_reader_lets_the_store_grow_to_a_bound_only(tmp_path):
    with running(tmp_path, APPLICATION, *CACHE) as server:
        fill = "[uwsgi.cache_update('k', chr(97 + i % 26) * 65536) for i in range(1500)].count(True)"
        assert ask(server.http, fill) == ["1500"]
        reader = stopped(READER, file_of(server))
        try:
            assert int(ask(server.http, fill)[0]) < 1500
            server.log.wait_for("cache shared: a process that reads it was stopped")
            assert Path(f"{file_of(server)}-wal").stat().st_size < 100 * 2**20
            assert ask(server.http, "len(uwsgi.cache_get('k'))", "uwsgi.cache_set('l', '1')") == ["65536", "None"]
        finally:
            end(reader)
        assert ask(server.http, "uwsgi.cache_set('l', '1')", fill) == ["True", "1500"]
        assert Path(f"{file_of(server)}-wal").stat().st_size < 10 * 2**20


def test_workers_killed_in_the_middle_of_writing_leave_it_usable(tmp_path):
    source = GATES + (
        "import uwsgi\n"
        "def view_write(environ, start_response):\n"
        "    blocking_gate('writing')\n"
        "    while True:\n"
        "        for letter in 'abcdefgh':\n"
        "            uwsgi.cache_update('k', letter * 60000)\n"
        "def view_read(environ, start_response):\n"
        "    value = uwsgi.cache_get('k')\n"
        "    return text(start_response, len(value), len(set(value)), uwsgi.cache_update('k', value))\n"
    )
    with gated(tmp_path, source, *CACHE) as (server, gates):
        for _ in range(5):
            server.wait_until_workers(2)
            with socket.create_connection(server.http, PATIENCE_SECONDS) as sock:
                sock.sendall(b"GET /write HTTP/1.1\r\nHost: test\r\n\r\n")
                writing = gates.at("writing")
                writing.open()
                until(lambda: file_of(server).exists(), "something is written")
                select.select([], [], [], 0.05)
                start = server.mark()
                os.kill(writing.pid, signal.SIGKILL)
                server.wait(f"(pid {writing.pid}) died", start)
                server.wait("is ready", start)
            assert server.get("/read").body == b"60000 1 True"


def test_a_broken_file_is_one_line_and_an_empty_cache_that_is_full(tmp_path):
    with running(tmp_path, APPLICATION, *CACHE) as server:
        ask(server.http, "os.waitpid(os.fork() or os._exit(0), 0)")  # whoever forks has let go of the file
        file_of(server).write_bytes(b"this is no database at all" * 1000)
        for _ in range(20):
            assert ask(
                server.http,
                "uwsgi.cache_set('a', '1')",
                "uwsgi.cache_get('a')",
                "uwsgi.cache_keys()",
                "uwsgi.cache_num('a')",
            ) == ["None", "None", "[]", "0"]
        assert server.log.count("calls answer as for an empty cache that is full") == 1
        assert "Traceback" not in server.log.text()


def test_a_full_disk_is_one_line_and_it_goes_on_when_there_is_room(tmp_path):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, ({}, resource.RLIM_INFINITY))"
    with running(tmp_path, APPLICATION, *CACHE) as server:
        assert ask(server.http, "uwsgi.cache_set('a', '1')", limit.format(2**17)) == ["True", "None"]
        fill = "[uwsgi.cache_set(f'k{i}', 'x' * 60000) for i in range(20)]"
        assert ask(server.http, fill)[0].endswith("None]")
        assert server.log.count("cache shared: ") == 1
        assert ask(server.http, limit.format("resource.RLIM_INFINITY")) == ["None"]
        until(lambda: ask(server.http, "uwsgi.cache_update('z', '1')") == ["True"], "there is room again")
        assert ask(server.http, "uwsgi.cache_get('a')") == ["b'1'"]
        assert "Traceback" not in server.log.text()


def test_expired_items_give_their_room_back(tmp_path):
    with running(tmp_path, APPLICATION, "--cache2", "name=shared,items=3") as server:
        assert ask(
            server.http,
            "[uwsgi.cache_set(f'k{i}', 'v', 0.05) for i in range(4)]",
            "time.sleep(0.06)",
            "[uwsgi.cache_set(f'n{i}', 'v') for i in range(4)]",
        ) == ["[True, True, True, None]", "None", "[True, True, True, None]"]
        server.log.wait_for("cache shared: it is full (3 items, 3 blocks of 65536 bytes): give it more, or purge_lru=1")


def test_who_writes_sweeps_now_and_then(tmp_path):
    with running(tmp_path, APPLICATION, "--cache-expire-freq", "0.1", *CACHE) as server:
        ask(server.http, "[uwsgi.cache_set(f'k{i}', 'v', 0.01) for i in range(50)]", "time.sleep(0.15)")
        ask(server.http, "uwsgi.cache_set('last', 'v')")
        with sqlite3.connect(file_of(server)) as connection:
            assert connection.execute("select items, (select count(*) from items) from total").fetchone() == (1, 1)
        connection.close()


def test_a_process_that_a_view_has_forked_uses_the_same_cache(tmp_path):
    source = APPLICATION + (
        "def forked():\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        os._exit(0 if uwsgi.cache_get('a') == b'1' and uwsgi.cache_set('child', '2') else 1)\n"
        "    return os.waitpid(pid, 0)[1]\n"
    )
    with running(tmp_path, source, *CACHE) as server:
        assert ask(server.http, "uwsgi.cache_set('a', '1')", "forked()", "uwsgi.cache_get('child')") == [
            "True",
            "0",
            "b'2'",
        ]


@pytest.mark.parametrize("key", ["clear_on_full=1", "no_expire=1"])
def test_the_other_keys_do_what_they_say(key, tmp_path):
    with running(tmp_path, APPLICATION, "--cache2", f"name=shared,items=3,{key}") as server:
        results = ask(
            server.http,
            "[uwsgi.cache_set(f'k{i}', 'v', 0.01) for i in range(3)]",
            "time.sleep(0.02)",
            "len(uwsgi.cache_keys())",
            "[uwsgi.cache_set(f'n{i}', 'v') for i in range(4)]",
            "sorted(uwsgi.cache_keys())",
        )
        if key == "clear_on_full=1":
            assert results[2:] == ["0", "[True, True, True, True]", "[b'n3']"]
        else:
            assert results[2:] == ["3", "[None, None, None, None]", "[b'k0', b'k1', b'k2']"]


def test_the_old_option_makes_the_cache_called_default(tmp_path):
    with running(tmp_path, APPLICATION, "--cache", "3", "--cache-blocksize", "100") as server:
        assert ask(
            server.http,
            "uwsgi.cache_set('a', 'x' * 100, 0, 'default')",
            "uwsgi.cache_set('b', 'x' * 101)",
            "uwsgi.cache_get('a') == b'x' * 100",
        ) == ["True", "None", "True"]


def test_clearing_a_large_cache_lets_other_requests_run(tmp_path):
    source = APPLICATION + (
        "import corelet\n"
        "turns = []\n"
        "async def tick():\n"
        "    while True:\n"
        "        turns.append(1)\n"
        "        await asyncio.sleep(0)\n"
        "import asyncio\n"
        "def cleared():\n"
        "    task = corelet.spawn(tick())\n"
        "    result = uwsgi.cache_clear()\n"
        "    task.cancel()\n"
        "    return result, len(turns) > 5\n"
    )
    with running(tmp_path, source, *CACHE) as server:
        assert ask(server.http, "all([uwsgi.cache_set(f'k{i}', 'x' * 60000) for i in range(1000)])") == ["True"]
        assert ask(server.http, "cleared()", "uwsgi.cache_keys()") == ["(True, True)", "[]"]
        assert ask(server.http, "all([uwsgi.cache_set(f'k{i}', 'x' * 60000) for i in range(1000)])") == ["True"]
