"""The part of `uwsgi` about websockets: handshake, receive, send.

As in uWSGI a message is bytes, whether text or binary came; `str` is sent as UTF-8; every failure is an OSError; and
pings are sent while messages are waited for, or looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from corelet.api.scope import scope_of
from corelet.api.server import Server
from corelet.api.uwsgi.context import core_of
from corelet.base.errors import WebsocketClosed
from corelet.serving.websocket import UNHEARD, UNSENT, Websocket
from corelet.wire.websocket import ABNORMAL, accept

LIVE: dict[str, Callable[[], Any]] = {}
PART = "websocket"


def names(_server: Server) -> dict[str, Any]:
    """The plain attributes."""
    return {
        "websocket_handshake": websocket_handshake,
        "websocket_recv": websocket_recv,
        "websocket_recv_nb": websocket_recv_nb,
        "websocket_send": websocket_send,
        "websocket_send_binary": websocket_send_binary,
    }


def websocket_handshake(key: str | bytes = "", origin: str | bytes = "", proto: str | bytes = "") -> None:
    """Make the request a websocket. What is not given is taken from the request's headers.

    Raises HandshakeRefused (an OSError) for a request that cannot become one; not caught, it is a 400, 405 or 426.
    """
    core = core_of("websocket_handshake")
    scope = scope_of(core)
    if PART in scope.parts:
        raise WebsocketClosed("unable to complete websocket handshake: it has been made already", ABNORMAL)
    connection: Any = core.job
    head = accept(core.current or {}, _text(key), _text(origin), _text(proto))
    websocket = scope.parts[PART] = Websocket(connection, core, head)
    scope.at_end.append(websocket.end)


def websocket_recv(request_context: Any = None) -> bytes:
    """Wait for the next message. Raises WebsocketClosed (an OSError) at the websocket's end."""
    message = _websocket(request_context, UNHEARD).receive()
    return b"" if message is None else message.data


def websocket_recv_nb(request_context: Any = None) -> bytes:
    """The next message if it has come, else b"". Raises WebsocketClosed (an OSError) at the websocket's end."""
    message = _websocket(request_context, UNHEARD).receive_now()
    return b"" if message is None else message.data


def websocket_send(message: str | bytes, request_context: Any = None) -> None:
    """Send a text message; bytes are to be UTF-8. Raises WebsocketClosed (an OSError) if nobody is left."""
    data = message.encode() if isinstance(message, str) else bytes(message)
    _websocket(request_context, UNSENT).send(data, is_text=True)


def websocket_send_binary(message: bytes, request_context: Any = None) -> None:
    """Send a binary message. Raises WebsocketClosed (an OSError) if nobody is left."""
    data = message.encode() if isinstance(message, str) else bytes(message)
    _websocket(request_context, UNSENT).send(data, is_text=False)


def _websocket(context: Any, failure: str) -> Websocket:
    core = core_of("websocket_recv", context)
    found: Websocket | None = core.scope.parts.get(PART) if core.scope is not None else None
    if found is None:
        raise WebsocketClosed(f"{failure}: call uwsgi.websocket_handshake() first", ABNORMAL)
    return found


def _text(value: str | bytes | None) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value or ""
