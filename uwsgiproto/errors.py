"""What can be wrong with the bytes on a uwsgi socket.

    ProtocolError
    ├── BadBlock                 the pairs do not fill the block, or a key is empty
    │   ├── TooManyVariables     more pairs than the reader was told to take
    │   ├── RepeatedVariable     REQUEST_METHOD, PATH_INFO or CONTENT_LENGTH came twice
    │   └── ReservedVariable     a key that only the server may set: wsgi.*, uwsgi.*, x-wsgiorg.*
    ├── BlockTooLarge            the header announces more than the reader was told to take
    ├── UnsupportedModifier      a packet for another part of uWSGI: spooler, RPC, cache, ...
    ├── HttpOnUwsgiSocket        an HTTP request where a packet belongs
    └── TlsOnUwsgiSocket         a TLS handshake where a packet belongs
    BadReply                     the client's side: what a server sent back is no complete reply

A ProtocolError knows what to answer and why; it knows nothing of sockets or logs. The status is 400 in every case,
since the fault is always the peer's and a more exact code would only be read as something else (nginx hands any of them
to its client). It stands here so that nobody has to decide it a second time.
"""

from typing import ClassVar


class ProtocolError(Exception):
    """The bytes are not a packet that is served here.

    `status` is the HTTP status code to answer. `reason` is one sentence for the log line and the reply: what was
    expected, what came, and the number; it holds no byte of the peer unescaped.
    """

    status: ClassVar[int] = 400

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadBlock(ProtocolError):
    """The pairs do not fill the block exactly, or a key is empty."""


class TooManyVariables(BadBlock):
    """The block holds more pairs than allowed."""


class RepeatedVariable(BadBlock):
    """A variable that must be unambiguous came more than once."""


class ReservedVariable(BadBlock):
    """A key from the wire that would stand among the server's own in the environ."""


class BlockTooLarge(ProtocolError):
    """The header announces a block above the limit."""


class UnsupportedModifier(ProtocolError):
    """The packet is addressed to something other than a WSGI application."""


class HttpOnUwsgiSocket(ProtocolError):
    """An HTTP request came to a socket that speaks uwsgi."""


class TlsOnUwsgiSocket(ProtocolError):
    """A TLS handshake came to a socket that speaks uwsgi."""


class BadReply(Exception):
    """What a server sent back is not a complete reply; the message says where it breaks off or goes wrong."""
