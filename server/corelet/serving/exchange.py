"""One request on one core, whichever protocol it came by: environ, application, reply, outcome.

What an application may do to a server is decided here: an exception becomes a 500 while nothing has been sent and a cut
reply afterwards, sys.exit() is an error of its request, an unwound request is answered 504 or not at all.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from corelet.base import forks
from corelet.base.errors import BodyError, HandshakeRefused, HarakiriError, ResponseError, Unwind, WebsocketClosed
from corelet.base.outcome import Outcome
from corelet.base.scoreboard import OTHERS
from corelet.serving.connection import Discarded
from corelet.serving.cores import Core
from corelet.serving.where import application_part
from corelet.wire.reply import reason_phrase
from corelet.wsgi.environ import url_scheme
from corelet.wsgi.gateway import run
from corelet.wsgi.input import EMPTY_INPUT, Input
from corelet.wsgi.response import Response, Writer

if TYPE_CHECKING:
    from corelet.serving.worker import Worker

logger = logging.getLogger("corelet.request")


class Channel(Writer, Protocol):
    """The connection, as a request sees it."""

    worker: Worker
    gone: bool
    partial: bool
    read_errors: int
    write_errors: int

    def title(self) -> str:
        """Return the request in two words, for the log."""

    def last_reply(self) -> None:
        """The reply that follows is the connection's last one."""


def exchange(channel: Channel, core: Core, environ: dict[str, Any], body: Input, sizes: tuple[int, int]) -> bool:
    """Run the request. True when the reply is complete, False when the connection has to be cut. Never raises.

    `sizes` are the count of variables and their bytes on the wire, for the log.
    """
    worker = channel.worker
    log = worker.access_log
    board = worker.board
    began = core.began = time.monotonic()
    environ.update(core.environ)
    environ["wsgi.url_scheme"] = url_scheme(environ)
    environ["wsgi.input"] = body
    method = environ["REQUEST_METHOD"]
    response = Response(channel, method == "HEAD")
    core.current = environ
    core.response = response
    if board is not None:
        board.running(core.number, f"{method} {environ.get('REQUEST_URI') or environ['PATH_INFO']}", began)
    try:
        application = worker.application
        if application is None:
            application = worker.applications.resolve(environ) or worker.no_application
        run(application, environ, response)
    except BaseException as error:  # noqa: BLE001 - the border around the application
        _failed(channel, core, response, error)
    if worker.after_request is not None:
        worker.after_request()
    scope = core.scope
    if scope is not None:
        scope.end()  # the descriptor is still open: what the application has registered for it is taken out
        log = log or scope.access_log
        core.scope = None
    core.current = core.response = None
    response.detach()
    if body is not EMPTY_INPUT:
        body.detach()
    if response.surplus:
        logger.warning(
            "core %d %s: the application gave more than its Content-Length: %s; the surplus was dropped",
            core.number,
            channel.title(),
            response.length,
        )
    worker.requests += 1
    if board is not None:
        board.left()
    if log is not None:
        elapsed = int((time.monotonic() - began) * 1_000_000)
        log(_outcome(channel, core, environ, response, sizes, elapsed))
    return response.complete


def _failed(channel: Channel, core: Core, response: Response, error: BaseException) -> None:
    """Decide what an exception becomes. Leaves `response.complete` True when the peer has a whole reply."""
    if forks.is_fork():  # the application has made this process, and it is to end as any other Python program does
        forks.leave(error, application_part(error.__traceback__))
    worker = channel.worker
    worker.exceptions += 1
    if isinstance(core.unwinding, HarakiriError) or isinstance(error, HarakiriError):
        core.unwinding = None  # the 504 itself is to be sent
        worker.harakiris += 1
        if not response.head_sent or (isinstance(error, Discarded) and not response.went_out and not channel.partial):
            channel.last_reply()
            _answer(response, 504, "the application did not answer in time")
    elif core.unwinding is not None or isinstance(error, Unwind):
        response.complete = False
    else:
        _report(channel, core, response, error)
        if response.complete:
            return  # close() failed after the last byte: the peer has its reply
        if not response.head_sent:
            status, text = 500, "the application failed; the server's log says how"
            if isinstance(error, BodyError | HandshakeRefused):
                status, text = error.status, str(error)
            channel.last_reply()
            _answer(response, status, text)


def _answer(response: Response, status: int, text: str) -> None:
    phrase = reason_phrase(status)
    try:
        response.replace(f"{status} {phrase}", f"{status} {phrase}: {text}\n".encode())
    except Unwind:
        response.complete = False


def _report(channel: Channel, core: Core, response: Response, error: BaseException) -> None:
    """One record: what failed, in which request, what the client got, and the application's part of the traceback."""
    if response.complete:
        fate = "after its complete reply"
    elif response.head_sent:
        fate = f"after {response.body_bytes} bytes of its reply, which is cut"
    else:
        fate = "before its reply"
    if isinstance(error, BodyError | HandshakeRefused | WebsocketClosed):
        logger.warning("core %d %s: %s", core.number, channel.title(), error)
        return
    if isinstance(error, ResponseError):
        logger.error("core %d %s: the application broke PEP 3333 %s: %s", core.number, channel.title(), fate, error)
        return
    trace = (type(error), error, application_part(error.__traceback__))
    logger.error("core %d %s: the application failed %s", core.number, channel.title(), fate, exc_info=trace)


def _outcome(
    channel: Channel, core: Core, environ: dict[str, Any], response: Response, sizes: tuple[int, int], elapsed_us: int
) -> Outcome:
    worker = channel.worker
    # By position, in the order of the class: seventeen keywords cost 0.3 µs.
    return Outcome(
        environ,
        504 if core.lost else response.status,
        response.body_bytes,
        response.head_bytes,
        response.header_count,
        elapsed_us,
        core.number,
        core.switches,
        sizes[0],
        sizes[1],
        worker.requests,
        worker.requests + (0 if worker.board is None else int(worker.board.cells[OTHERS])),
        time.time() - elapsed_us / 1_000_000,
        response.headers,
        worker.worker_id,
        channel.read_errors,
        channel.write_errors,
    )
