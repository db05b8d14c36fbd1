"""The limits that the wire keeps, as one frozen value.

Every number that bounds what a peer may make the server hold is here, with its precedent, so that a reader finds them
in one place and a test can shrink them. The option table maps the operator's options onto these fields; the parsers of
both protocols take a `Limits` and know no options.

A limit says how much is *accepted*: a request line of exactly `max_request_line_bytes` is fine, one byte more is not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one message, in bytes or counts. `max_body_bytes` 0 means unlimited."""

    max_request_line_bytes: int = 8190
    """Without its CRLF. Apache's LimitRequestLine default; RFC 9112 3 asks for at least 8000. Over it: 414."""

    max_header_count: int = 100
    """Header lines of one head, repeated and dropped ones included. Apache's LimitRequestFields. Over it: 431."""

    max_head_bytes: int = 65536
    """Request line, header lines and the empty line. As the uwsgi block: both sockets take the same. Over it: 431."""

    max_body_bytes: int = 0
    """Of a body, after de-chunking. Unlimited, since nginx's client_max_body_size is the usual bound. Over it: 413."""

    max_chunk_line_bytes: int = 1024
    """A chunk's size with its extensions, without CRLF. Extensions are discarded, so they are an attacker's only."""

    max_trailer_bytes: int = 8192
    """All trailer lines after the last chunk, their CRLFs included. Discarded, never merged into the environ."""

    max_block_bytes: int = 65535
    """The pair block of a uwsgi packet: its length field is a u16, so this is all that the format allows."""

    max_vars: int = 1000
    """Variables in one uwsgi packet."""
