"""The part of `uwsgi` that acts for one request: its connection, its body, its deadline, its line in the log.

`uwsgi.env` and `uwsgi.start_response` are those of the core that asks. Functions that do not wait take
`request_context=`, so that a callback of the loop or a child greenlet can act for a request (context.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import IO, Any

from corelet.api.scope import scope_of
from corelet.api.server import Server
from corelet.api.uwsgi.context import RequestContext, connection_of, core_of, request_context
from corelet.api.uwsgi.waits import wait_for
from corelet.base.accesslog import LOG_VARIABLES
from corelet.base.errors import BodyError, ResponseError
from corelet.serving.cores import Core
from corelet.serving.overdue import NEVER
from corelet.serving.poller import IN, PEER_CLOSED
from corelet.wsgi.file_wrapper import FileWrapper

PIECE_BYTES = 65536


def names(server: Server) -> dict[str, Any]:
    """The plain attributes."""
    return {
        "add_var": add_var,
        "chunked_read": chunked_read,
        "chunked_read_nb": chunked_read_nb,
        "cl": cl,
        "connection_fd": connection_fd,
        "disconnect": disconnect,
        "get_logvar": get_logvar,
        "log_this_request": log_this_request,
        "request_context": request_context,
        "sendfile": sendfile,
        "set_logvar": set_logvar,
        "set_user_harakiri": set_user_harakiri,
    }


def _env() -> dict[str, Any]:
    """The environ of the caller's request."""
    return _current("env").current or {}


def _start_response() -> Any:
    """The start_response of the caller's request."""
    return _current("start_response").response.start_response


LIVE: dict[str, Callable[[], Any]] = {"env": _env, "start_response": _start_response}


def _current(name: str) -> Core:
    try:
        return core_of(name)
    except RuntimeError as error:  # an attribute that is not there: hasattr() and getattr() with a default ask for it
        raise AttributeError(f"uwsgi.{name} is there while a request runs, in its own greenlet: {error}") from None


# ---- the connection ----


def connection_fd(*, request_context: RequestContext | None = None) -> int:
    """The descriptor of the request's connection, in non-blocking mode; it is not the application's to close.

    What the application registers for it in the loop is taken out at the request's end.
    """
    core = core_of("connection_fd", request_context)
    fd: int = connection_of(core).fd
    scope = scope_of(core)
    if "connection_fd" not in scope.parts:
        connection_of(core).shown()
        scope.parts["connection_fd"] = fd
        scope.at_end.append(lambda: _take_out(core, fd))
    return fd


def _take_out(core: Core, fd: int) -> None:
    loop = core.hub.loop
    for remove in (loop.remove_reader, loop.remove_writer):
        with contextlib.suppress(
            RuntimeError, ValueError, OSError
        ):  # the application may have closed it, or wrapped it
            remove(fd)


def disconnect(*, request_context: RequestContext | None = None) -> None:
    """Close the connection towards the client now; the request goes on, and nobody hears what it still says."""
    connection_of(core_of("disconnect", request_context)).disconnect()


# ---- the body ----


def cl(*, request_context: RequestContext | None = None) -> int:
    """The content length of the request; 0 where it has none."""
    text = (core_of("cl", request_context).current or {}).get("CONTENT_LENGTH") or "0"
    return int(text) if str(text).isdecimal() else 0


def chunked_read(timeout: float | None = None, /) -> bytes:
    """The next piece of the body, waited for; b"" at its end. Raises OSError when it does not come in time.

    It reads any body, chunked or not: framing is the server's business. Without `timeout` the server's own limits hold.
    """
    core = core_of("chunked_read")
    body = (core.current or {})["wsgi.input"]
    if not timeout or timeout < 0:
        piece: bytes = body.read1(PIECE_BYTES)
        return piece
    until = core.hub.loop.time() + timeout
    while (found := _read_now(core)) is None:
        left = until - core.hub.loop.time()
        if left <= 0 or not wait_for(core, connection_of(core).fd, IN | PEER_CLOSED, left):
            raise BodyError(f"uwsgi.chunked_read: no part of the body came within {timeout:g} s", status=408)
    return found


def chunked_read_nb(*, request_context: RequestContext | None = None) -> bytes | None:
    """The next piece of the body if it is here, None if it is not; b"" at its end."""
    return _read_now(core_of("chunked_read_nb", request_context))


def _read_now(core: Core) -> bytes | None:
    connection = connection_of(core)
    connection.impatient = True
    try:
        piece: bytes = (core.current or {})["wsgi.input"].read1(PIECE_BYTES)
    except BlockingIOError:
        return None
    finally:
        connection.impatient = False
    return piece


# ---- the reply ----


def sendfile(file: str | bytes | IO[bytes] | int, chunk: int = 0, offset: int = 0, size: int = 0, /) -> bytes:
    """Send a file, named or open, as the reply's body, after start_response. The result may be returned or yielded.

    `offset` and `size` (0: to its end) are in bytes; `chunk` is taken and has no meaning here.
    """
    core = core_of("sendfile")
    response = core.response
    if not response.started:
        raise ResponseError("uwsgi.sendfile() came before start_response(status, headers)")
    named = isinstance(file, (str, bytes, int))
    opened: Any = open(file, "rb", closefd=not isinstance(file, int)) if named else file  # type: ignore[arg-type]  # noqa: SIM115 - closed below
    try:
        if offset:
            opened.seek(offset)
        if size or not response.file(FileWrapper(opened)):
            left = size or NEVER
            while left > 0 and (piece := opened.read(int(min(left, PIECE_BYTES)))):
                left -= len(piece)
                response.chunk(piece)
    finally:
        if named:
            opened.close()
    return b""


# ---- the deadline ----


def set_user_harakiri(seconds: float, /, *, request_context: RequestContext | None = None) -> None:
    """Give the request so many seconds from now on, as by harakiri; 0 takes this limit away, and leaves harakiri's."""
    core = core_of("set_user_harakiri", request_context)
    scope = scope_of(core)
    if "harakiri" not in scope.parts:
        scope.parts["harakiri"] = core.harakiri_at
        scope.at_end.append(lambda: _forget_harakiri(core))
    core.user_harakiri = 0.0
    core.harakiri_at = scope.parts["harakiri"]
    due = core.hub.loop.time() + seconds
    if seconds > 0 and due < core.harakiri_at:
        core.user_harakiri = float(seconds)
        core.harakiri_at = due


def _forget_harakiri(core: Core) -> None:
    core.user_harakiri = 0.0
    core.harakiri_at = NEVER


# ---- the log ----


def log_this_request(*, request_context: RequestContext | None = None) -> None:
    """Write an access line for this request though disable-logging is given."""
    core = core_of("log_this_request", request_context)
    scope_of(core).access_log = connection_of(core).worker.log_anyway


def set_logvar(name: str | bytes, value: str | bytes, /, *, request_context: RequestContext | None = None) -> None:
    """Give the request's access line a variable: %(name) in log-format."""
    environ = core_of("set_logvar", request_context).current or {}
    environ.setdefault(LOG_VARIABLES, {})[_text(name)] = _text(value)


def get_logvar(name: str | bytes, /, *, request_context: RequestContext | None = None) -> bytes | None:
    """What set_logvar has set, or None."""
    environ = core_of("get_logvar", request_context).current or {}
    value = environ.get(LOG_VARIABLES, {}).get(_text(name))
    return None if value is None else value.encode("latin-1", "replace")


def add_var(name: str | bytes, value: str | bytes, /, *, request_context: RequestContext | None = None) -> bool:
    """Add a variable to the request: it stands in the environ, and in the access line as %(var.NAME)."""
    environ = core_of("add_var", request_context).current or {}
    environ[_text(name)] = _text(value)
    return True


def _text(value: str | bytes) -> str:
    """As in an environ: bytes in the clothes of latin-1, which the log takes off again."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    if isinstance(value, bytes):
        return value.decode("latin-1")
    raise TypeError(f"expected str or bytes, a {type(value).__name__} came")
