"""Asking a server: once by hand to see that it answers rightly, then many times with wrk to see what that costs.

The order matters. A server that answers 502 or an empty page is fast, so no figure is taken from one whose reply was
not first compared byte for byte, and every slice's byte count is checked against the size that reply had: wrk reports
statuses other than 2xx and 3xx, but not a body cut short.
"""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.cases import Case, request_bytes, request_headers

SCRIPT = Path(__file__).with_name("wrk.lua")
REPLY_TIMEOUT_SECONDS = 10.0
WRK_GRACE_SECONDS = 30  # on top of a slice; wrk itself stops when the slice is over


class WrongReply(Exception):
    """A server answered, but not with what the case asks for. The text says what was expected and what came."""


@dataclass(frozen=True)
class Slice:
    """One run of wrk against one server."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def reply_size_bytes(port: int, case: Case) -> int:
    """Ask once, compare the reply byte for byte, and return its size with head. Raises WrongReply."""
    head, body = ask_once(port, case)
    if body != case.reply_body:
        raise WrongReply(
            f"{case.name}: expected a body of {len(case.reply_body)} bytes, came {len(body)} or other bytes"
        )
    return len(head) + len(body)


def ask_once(port: int, case: Case) -> tuple[bytes, bytes]:
    """Ask by hand; the head and body of a reply with status 200. Raises WrongReply."""
    host = f"127.0.0.1:{port}"
    try:
        with socket.create_connection(("127.0.0.1", port), REPLY_TIMEOUT_SECONDS) as connection:
            connection.sendall(request_bytes(case, host))
            head, body = read_reply(connection)
    except OSError as error:
        raise WrongReply(f"{case.name}: no whole reply: {error}") from error
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if status.split(" ")[1:2] != ["200"]:
        raise WrongReply(f"{case.name}: expected status 200, came {status!r}")
    return head, body


def read_reply(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read one reply with a Content-Length: its head with the empty line, and its body. Raises WrongReply, OSError."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += receive(connection)
    head, separator, body = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    if len(lengths) != 1:
        raise WrongReply(f"expected one Content-Length, came {len(lengths)}: {head!r}")
    while len(body) < int(lengths[0]):
        body += receive(connection)
    return head + separator, body


def receive(connection: socket.socket) -> bytes:
    """At least one byte, or WrongReply at the end of the stream."""
    data = connection.recv(65536)
    if not data:
        raise WrongReply("the connection ended before the reply was complete")
    return data


def run_slice(port: int, case: Case, *, seconds: int, connections: int, reply_bytes: int, body_file: Path) -> Slice:
    """Load one server for `seconds` over `connections` kept-alive connections. Raises WrongReply.

    `reply_bytes` is the size of a right reply, `body_file` the file that holds the case's request body.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(SCRIPT)]
    for name, value in request_headers(case):
        command += ["-H", f"{name}: {value}"]
    command += [f"http://127.0.0.1:{port}{case.path}", "--", case.method, str(body_file) if case.request_body else "-"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=seconds + WRK_GRACE_SECONDS, check=True)
    result = next(json.loads(line[7:]) for line in finished.stdout.splitlines() if line.startswith("RESULT "))
    return judged(result, case, connections=connections, reply_bytes=reply_bytes)


def judged(result: dict[str, int], case: Case, *, connections: int, reply_bytes: int) -> Slice:
    """Turn wrk's counts into a Slice, or raise WrongReply for any error and any reply of another size."""
    errors = {key: number for key, number in result.items() if (key.endswith("errors") or key == "timeouts") and number}
    # A peer may close a kept connection after some thousand requests, which wrk counts as a read error and mends.
    errors.pop("read_errors", None)
    if errors:
        raise WrongReply(f"{case.name}: under load {errors}")
    requests, received = result["requests"], result["bytes"]
    if not requests:
        raise WrongReply(f"{case.name}: no reply under load")
    # Replies still under way when wrk stopped are in `bytes` and not in `requests`: at most one for each connection.
    if not requests * reply_bytes <= received <= (requests + connections) * reply_bytes:
        raise WrongReply(f"{case.name}: {requests} replies of {reply_bytes} bytes expected, {received} bytes came")
    return Slice(
        requests=requests,
        requests_per_second=requests / (result["duration_us"] / 1_000_000),
        p50_ms=result["p50_us"] / 1000,
        p99_ms=result["p99_us"] / 1000,
    )
