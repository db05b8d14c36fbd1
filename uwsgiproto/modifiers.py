"""The first byte of a packet: which part of uWSGI it is meant for, and what becomes of it here.

A table and nothing else: numbers and names as in uWSGI's "The uwsgi Protocol" and the plugins of its source. Only what
a WSGI application can be asked is served. The rest is code execution (22, 173, 18), other people's data (111, 17, 110)
or other languages, and a port that takes such packets belongs to whoever reaches it (uWSGI issue 2336). They are named
so that a refusal can say what came.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


class Verdict(enum.Enum):
    """What becomes of a packet with this modifier."""

    REQUEST = "a request for the WSGI application"
    REQUEST_MOUNTED = "the same, SCRIPT_NAME still to be taken off PATH_INFO"
    PING = "answered with a pong"
    REFUSED = "refused with a reply"


@dataclass(frozen=True, slots=True)
class Modifier:
    """One row: the number on the wire, uWSGI's name for it, the verdict."""

    number: int
    name: str
    verdict: Verdict = Verdict.REFUSED


WSGI: Final = 0
WSGI_MOUNTED: Final = 30  # `uwsgi_modifier1 30` in nginx configurations from before uWSGI had manage-script-name
PING: Final = 100

PING_PACKET: Final = b"d\x00\x00\x00"
PONG_PACKET: Final = b"d\x00\x00\x01"

_ROWS: Final = (
    Modifier(WSGI, "WSGI request", Verdict.REQUEST),
    Modifier(5, "PSGI request (Perl)"),
    Modifier(6, "WSAPI request (Lua)"),
    Modifier(7, "Rack request (Ruby)"),
    Modifier(8, "JWSGI or Ring request (JVM)"),
    Modifier(9, "CGI request"),
    Modifier(10, "management request"),
    Modifier(14, "PHP request"),
    Modifier(15, "Mono request"),
    Modifier(17, "spooler request"),
    Modifier(18, "call of a C symbol"),
    Modifier(22, "raw code evaluation"),
    Modifier(23, "XSLT request"),
    Modifier(24, "V8 request"),
    Modifier(25, "GridFS request"),
    Modifier(26, "GlusterFS request"),
    Modifier(27, "fast function call"),
    Modifier(WSGI_MOUNTED, "WSGI request below a SCRIPT_NAME", Verdict.REQUEST_MOUNTED),
    Modifier(31, "generic message"),
    Modifier(32, "message of bytes"),
    Modifier(33, "marshalled object"),
    Modifier(48, "SNMP packet"),
    Modifier(72, "HTTP response"),
    Modifier(73, "announcement"),
    Modifier(74, "multicast message"),
    Modifier(95, "cluster membership"),
    Modifier(96, "remote log message"),
    Modifier(97, "brutal reload request"),
    Modifier(98, "graceful reload request"),
    Modifier(99, "configuration request"),
    Modifier(PING, "ping", Verdict.PING),
    Modifier(101, "echo request"),
    Modifier(109, "legion message"),
    Modifier(110, "signal"),
    Modifier(111, "cache operation"),
    Modifier(123, "core router message"),
    Modifier(173, "RPC call"),
    Modifier(200, "end of a persistent connection"),
    Modifier(224, "subscription"),
    Modifier(255, "generic response"),
)

MODIFIERS: Final[Mapping[int, Modifier]] = MappingProxyType({row.number: row for row in _ROWS})


def modifier(number: int) -> Modifier:
    """The row for `number`; a number without one is refused like the rest."""
    return MODIFIERS.get(number) or Modifier(number, "a modifier that uWSGI does not assign")
