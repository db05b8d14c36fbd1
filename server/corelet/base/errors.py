"""Every error that corelet raises, and whose fault it is.

    CoreletError (Exception)
    ├── OperatorError            the command line, the configuration or the machine; ends the start with a message
    │   ├── ConfigError          an option or a value that cannot be used
    │   ├── LoadError            the application could not be loaded
    │   └── BindError            a socket could not be made
    ├── RequestRefused           the peer: what it sent breaks the protocol; knows the HTTP status to answer
    ├── ResponseError            the application: what it gave to the server breaks PEP 3333
    ├── BodyError                the peer stopped in the middle of a body (OSError too: what frameworks expect)
    ├── HandshakeRefused         the peer asked for a websocket in a way that is none (OSError too, as in uWSGI)
    ├── WebsocketClosed          the other side has ended the websocket (OSError too, as in uWSGI)
    └── NotInCore                the caller: a call that needs a core came from elsewhere (RuntimeError too)
    Unwind (BaseException)       thrown into a suspended core to make its `finally` blocks run
    ├── ClientDisconnected       nobody is left to read the reply
    └── HarakiriError            the request's deadline has passed
    StopOrdered (KeyboardInterrupt)  thrown into the application's import: an order to end has come meanwhile

The Unwind branch derives from BaseException because frameworks turn every Exception into an error page of their own:
Flask answered 500 to a client that had gone (measured), and the core went on working for nobody.
"""

from __future__ import annotations


class CoreletError(Exception):
    """Root of the errors that are values to be handled, not bugs."""


class OperatorError(CoreletError):
    """The server cannot start, or cannot go on, as it was told to. The message ends with what to do."""

    exit_code = 1


class ConfigError(OperatorError):
    """An option, or its value, cannot be used."""


class LoadError(OperatorError):
    """The application could not be loaded. `detail` is the application's own traceback, as text, or empty."""

    exit_code = 22  # uWSGI's code for "no app loaded. GAME OVER" with need-app (core/uwsgi.c, UWSGI_FAILED_APP_CODE)

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class BindError(OperatorError):
    """A listening socket could not be made."""


class RequestRefused(CoreletError):
    """A request that breaks its protocol.

    `status` is the HTTP status code to answer, `reason` one sentence for the log and the reply's body: what was
    expected and what came. Never holds bytes of the peer unescaped.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


class ResponseError(CoreletError):
    """The application broke PEP 3333: a status line, header or chunk that cannot be sent."""


class BodyError(CoreletError, OSError):
    """The request's body ended before its announced length, was malformed, or did not arrive in time.

    It is an OSError since that is what frameworks catch around a read of `wsgi.input`.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class HandshakeRefused(CoreletError, OSError):
    """A request that is no websocket handshake was to become one. `status` is what to answer if nobody else does."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(f"unable to complete websocket handshake: {reason}")
        self.status = status


class WebsocketClosed(CoreletError, OSError):
    """No message comes or goes any more. `code` and `reason` are the peer's (RFC 6455 7.4); 1006: it left without one.

    An OSError with uWSGI's words, since that is what applications written for uWSGI wait for.
    """

    def __init__(self, message: str, code: int, reason: str = "") -> None:
        super().__init__(f"{message}: closed with {code}{f' ({reason})' if reason else ''}")
        self.code = code
        self.reason = reason


class NotInCore(CoreletError, RuntimeError):
    """A call that suspends the current core was made outside a core."""


class Unwind(BaseException):
    """Thrown into a suspended core; the application's `finally` blocks run on its way out."""


class ClientDisconnected(Unwind):
    """The client has gone: whatever is still computed, nobody will read."""


class StopOrdered(KeyboardInterrupt):
    """An order to end came while the application was loaded. `number` is the signal's.

    Libraries know to let a KeyboardInterrupt pass: asyncio.run(), at the import of a module, would log any other.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"told to end by signal {number}")
        self.number = number


class HarakiriError(Unwind):
    """The request has run into its deadline; what the application answers from now on is discarded."""
