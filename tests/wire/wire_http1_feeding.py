"""How the HTTP tests feed bytes to a parser: whole, and as a caller does whose buffer grows; and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corelet.base.errors import RequestRefused
from corelet.base.limits import Limits
from corelet.wire.http1 import HeadParser
from corelet.wire.request import Request

LIMITS = Limits()
PEER = {"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "40000", "SERVER_NAME": "srv", "SERVER_PORT": "80"}
SECOND = b"GET /second HTTP/1.1\r\nHost: second\r\n\r\n"


@dataclass(frozen=True)
class Verdict:
    """`status` of a refusal, or 0; `request` as comparable values, or None when more bytes are wanted."""

    status: int = 0
    reason: str = ""
    request: tuple[object, ...] | None = None
    consumed: int = 0


def values(request: Request) -> tuple[object, ...]:
    return (
        request.variables,
        request.body_length,
        request.keep_alive,
        request.expects_continue,
        request.http_10,
    )


def step(parser: HeadParser, buffer: bytes) -> Verdict:
    try:
        answer = parser.parse(buffer)
    except RequestRefused as refusal:
        return Verdict(refusal.status, refusal.reason)
    if answer is None:
        return Verdict()
    request, consumed = answer
    return Verdict(request=values(request), consumed=consumed)


def feed(buffers: Iterable[bytes], limits: Limits = LIMITS) -> Verdict:
    """The first verdict over growing buffers, or "more bytes are wanted"."""
    parser = HeadParser(limits, PEER)
    verdict = Verdict()
    for buffer in buffers:
        verdict = step(parser, buffer)
        if verdict != Verdict():
            break
    return verdict


def whole(data: bytes, limits: Limits = LIMITS) -> Verdict:
    return feed([data], limits)


def bytewise(data: bytes, limits: Limits = LIMITS) -> Verdict:
    return feed((data[:size] for size in range(1, len(data) + 1)), limits)


def request_of(data: bytes, limits: Limits = LIMITS) -> Request:
    answer = HeadParser(limits, PEER).parse(data)
    assert answer is not None
    return answer[0]
