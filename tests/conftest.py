"""Fixtures: real servers that end with their test."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import Nginx, Server
from stage import close_what_was_begun


@pytest.fixture(autouse=True)
def _nothing_left_open():
    """Connections that a failed test left open would hold cores of a server that the next test shares."""
    yield
    close_what_was_begun()


@pytest.fixture
def serve(tmp_path):
    """serve(application_source, *arguments) -> Server: a real process, stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(application: str, *arguments: str) -> Server:
            server = Server(tmp_path / f"server{start.count}", application, arguments)
            start.count += 1
            stack.callback(lambda: server.process.poll() is None and server.stop())
            return server

        start.count = 0
        yield start


@pytest.fixture
def nginx(tmp_path):
    """nginx(locations, http="") -> Nginx: a real nginx, stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(locations: str, http: str = "") -> Nginx:
            server = Nginx(tmp_path / f"nginx{start.count}", locations, http)
            start.count += 1
            stack.callback(server.stop)
            return server

        start.count = 0
        yield start
