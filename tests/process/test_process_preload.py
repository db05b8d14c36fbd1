"""preload: the application is loaded once, in the master, and everything else is as without it."""

from __future__ import annotations

import os

import pytest
from gates import GATES
from masters import gated, mastered
from stage import begin, finish

LOCAL = """
from threading import local

values = local()

def view_local(environ, start_response):
    values.name = environ["QUERY_STRING"]
    gate(environ["QUERY_STRING"])
    return text(start_response, values.name)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_threading_local_is_one_per_core(tmp_path, loop):
    with gated(tmp_path, LOCAL, "--preload", "--processes", "1", "--loop", loop) as (server, gates):
        first = begin(server, "/local?first")
        gate = gates.at("first")
        second = begin(server, "/local?second")
        gates.at("second").open()
        assert finish(second).body == b"second"
        gate.open()
        assert finish(first).body == b"first"


def test_a_loop_that_is_taken_while_it_loads_is_warned_about(tmp_path):
    application = """
import asyncio, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of CPython 3.12: no loop is there, and one is made
    loop = asyncio.get_event_loop_policy().get_event_loop()
"""
    with mastered(tmp_path, GATES + application, "--preload") as server:
        server.wait("the application took an event loop while it was preloaded")
    with mastered(tmp_path / "without", GATES, "--preload") as server:
        assert "took an event loop" not in server.log.text()


def test_paths_are_those_of_the_folder_of_the_start_whatever_chdir_says(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mod.py").write_text(GATES)
    (tmp_path / "touched").write_text("")
    (tmp_path / "conf.ini").write_text("[uwsgi]\nchdir = sub\nmodule = mod\ntouch-reload = touched\n")
    with mastered(tmp_path, None, "--ini", "conf.ini", "--preload") as server:
        assert (tmp_path / "fifo").exists()
        before = server.get_pid()
        start = server.mark()
        os.utime(tmp_path / "touched", (1, 1))
        server.wait_for_generation(start)
        server.wait(f"(pid {before}) ended", start)
        assert server.get_pid() != before
        start = server.mark()
        server.order("r")
        server.wait_for_generation(start)
