"""The options about websockets: one declaration each, with the reason of its default. Part of the option table."""

from __future__ import annotations

from dataclasses import dataclass

from corelet.base.option import Kind, option


@dataclass(frozen=True, kw_only=True)
class WebsocketOptions:
    """Websockets."""

    # uWSGI's defaults, all three.
    websockets_ping_freq: float = option(
        kind=Kind.SECONDS,
        default=30.0,
        metavar="SECONDS",
        help="ask a websocket's peer so often whether it is there, while messages are waited for; 0 = never",
    )

    websockets_pong_tolerance: float = option(
        kind=Kind.SECONDS, default=3.0, metavar="SECONDS", help="how long it may take to answer"
    )

    websockets_max_size: int = option(
        kind=Kind.INTEGER,
        default=1024,
        minimum=1,
        metavar="KB",
        help="longest message of a websocket, all its fragments together; a longer one closes it with 1009",
    )
