"""`make micro`: microseconds of the parts of a request, each by itself, in one process.

    python bench/micro.py [--number N] [--repeats R] [PART …]

For work on the server: what a change to one part costs or saves, within seconds. It says nothing about requests per
second, since the kernel, the loop and nginx are not in it; for that there is run.py. Each part runs N times in a row, R
times over, and the smallest CPU time counts: everything that disturbs a measurement only ever adds to it.

The packet is what nginx makes of the headers in cases.py; the application answers `hello world`. PART chooses rows
whose name holds one of the words.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import platform
import sys
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_INET
from time import process_time, time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.cases import BROWSER_HEADERS, CASES, request_bytes
from corelet.base.accesslog import compile_format
from corelet.base.config import Config
from corelet.base.limits import Limits
from corelet.base.loading import Applications
from corelet.base.outcome import Outcome
from corelet.serving import connection as connection_module
from corelet.serving import uwsgi as uwsgi_module
from corelet.serving.cores import Core
from corelet.serving.uwsgi import UwsgiConnection
from corelet.serving.worker import Worker, make_loop
from corelet.wire.http1 import HeadParser
from corelet.wire.uwsgi import read_request
from corelet.wsgi.environ import url_scheme
from corelet.wsgi.gateway import run
from corelet.wsgi.response import Response
from uwsgiproto import HEADER_BYTES, decode_vars
from uwsgiproto.client import build_request, request_variables

BODY = b"hello world\n\n"
HEADERS = [("Content-Type", "text/plain")]
ADDRESS = ("127.0.0.1", 40000)
ORDERS = 9  # of the same variables: more than decode_vars can remember

Part = tuple[str, str, Callable[[], object]]
"""One row: its name, what it is, and the call to be measured."""


def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """What is served."""
    start_response("200 OK", HEADERS)
    return [BODY]


class Wire:
    """Stands where the connection's modules have `os`: the kernel has the packet ready and takes every byte."""

    def __init__(self, packet: bytes) -> None:
        self._packet = packet

    def read(self, _descriptor: int, _max_bytes: int) -> bytes:
        return self._packet

    def write(self, _descriptor: int, data: bytes) -> int:
        return len(data)

    def close(self, _descriptor: int) -> None:
        pass


class Nothing(UwsgiConnection):
    """What a core runs when only the core is measured."""

    waits = False  # True: it is suspended once

    def serve(self, core: Core) -> None:
        if self.waits:
            self.worker.hub.wait(core)

    def suspended(self, core: Core) -> None:
        pass


def bytes_parts(variables: dict[str, str], packet: bytes) -> Iterator[Part]:
    """From bytes to a Request, in both protocols."""
    end = len(packet)
    pairs = list(variables.items())
    orders = itertools.cycle([build_request(pairs[at:] + pairs[:at]) for at in range(ORDERS)])
    head = request_bytes(CASES[0], "localhost")
    names = ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "REQUEST_SCHEME")
    parser = HeadParser(Limits(), dict.fromkeys(names, "of the connection"))
    yield "decode_vars", "keys in the order of the packet before", lambda: decode_vars(packet, HEADER_BYTES, end)
    yield "decode_vars, other order", "never twice the same", lambda: decode_vars(next(orders), HEADER_BYTES, end)
    yield "read_request", "variables -> Request, and a copy", lambda: read_request(variables.copy(), packet, end)
    yield "HTTP head", "bytes -> Request", lambda: parser.parse(head)


def reply_parts(variables: dict[str, str], worker: Worker) -> Iterator[Part]:
    """From variables to a reply and its line in the log."""
    connection = UwsgiConnection(worker, -1, ADDRESS, AF_INET)
    server_keys = worker.hub.cores[0].environ

    def environ() -> None:
        made: dict[str, Any] = variables.copy()
        made.update(server_keys)
        made["wsgi.url_scheme"] = url_scheme(made)

    def reply() -> None:
        response = Response(connection)
        response.start_response("200 OK", HEADERS)
        response.whole(BODY)

    def outcome() -> Outcome:
        size, count = len(BODY), len(variables)
        return Outcome(variables, 200, size, 80, 1, 120, 0, 1, count, 800, 1, 1, time() - 0.001, HEADERS, 1, 0, 0)

    done = outcome()
    line = compile_format(None)
    yield "environ", "a copy, the server's keys, the scheme", environ
    yield "reply", "start_response and the whole body", reply
    yield "gateway", "application and reply", lambda: run(application, variables, Response(connection))
    yield "outcome", "the value for the log", outcome
    yield "access line", "uWSGI's default line", lambda: line(done)


def core_parts(worker: Worker) -> Iterator[Part]:
    """Greenlets, as a callback of the loop uses them: the running loop is hidden once for all."""
    hub = worker.hub
    short, long = (Nothing(worker, -1, ADDRESS, AF_INET) for _ in range(2))
    long.waits = True

    def suspended_once() -> None:
        core = hub.take()
        hub.start(core, long)
        hub.resume(core)

    yield "core", "taken, run, back in the pool", lambda: hub.start(hub.take(), short)
    yield "core, suspended once", "the same, with one wait and its end", suspended_once


def whole_part(worker: Worker, title: str) -> Part:
    """All of Python's part of a request on a uwsgi socket over TCP."""

    def request() -> None:
        worker.connections += 1  # as the listener does
        UwsgiConnection(worker, -1, ADDRESS, AF_INET).begin()

    return title, "from the accepted connection to its close, without the kernel", request


def report(loop: asyncio.AbstractEventLoop, options: argparse.Namespace) -> None:
    """Measure and print."""
    variables = request_variables("GET", CASES[0].path, BROWSER_HEADERS)
    packet = build_request(variables)
    line = compile_format(None)

    def log(outcome: Outcome) -> None:
        line(outcome)

    quiet, talking = Worker(Config(), loop), Worker(Config(), loop, access_log=log)
    for worker in (quiet, talking):
        worker.serve(Applications(application), [])
    parts: list[Part] = [("nothing", "an empty call: every row contains one", lambda: None)]
    parts += bytes_parts(variables, packet)
    parts += reply_parts(variables, quiet)
    parts += core_parts(quiet)
    parts += [whole_part(quiet, "request"), whole_part(talking, "request, with its line")]
    for module in (connection_module, uwsgi_module):
        module.__dict__["os"] = Wire(packet)
    print(f"{len(packet)} bytes, {len(variables)} variables, CPython {platform.python_version()}\n")
    print("| part | µs | |\n|---|---:|---|")
    for name, what, call in parts:
        if options.parts and not any(word in name for word in options.parts):
            continue
        for worker in (quiet, talking):
            worker.hub.hide()
        seconds = min(timeit.repeat(call, number=options.number, repeat=options.repeats, timer=process_time))
        for worker in (quiet, talking):
            worker.hub.show()
        print(f"| {name} | {seconds / options.number * 1e6:.2f} | {what} |", flush=True)


def main() -> None:
    """Read the options and measure in a running loop, as cores are run."""
    parser = argparse.ArgumentParser(description="Microseconds of the parts of a request.")
    parser.add_argument("parts", nargs="*", metavar="PART", help="only the rows whose name holds one of these words")
    parser.add_argument("--number", type=int, default=2000, help="calls in a row (%(default)s)")
    parser.add_argument("--repeats", type=int, default=40, help="times over, of which the best counts (%(default)s)")
    options = parser.parse_args()
    loop = make_loop(Config())

    async def in_the_loop() -> None:
        report(loop, options)

    loop.run_until_complete(in_the_loop())
    loop.close()


if __name__ == "__main__":
    main()
