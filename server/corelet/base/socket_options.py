"""The options about sockets and about how long a peer may take: one declaration each, with the reason of its default.

Part of the option table (config.py joins the parts, option.py says what a declaration is). A socket's own rules (how
an address is read, how it is bound) are in address.py and in the process package; here stand names and numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass

from corelet.base.option import Kind, option

DEFAULT_KEEPALIVE_SECONDS = 75.0
DEFAULT_SOCKET_MODE = 0o666


@dataclass(frozen=True, kw_only=True)
class SocketOptions:
    """Sockets."""

    socket: tuple[str, ...] = option(
        kind=Kind.LIST,
        short="s",
        metavar="ADDRESS",
        help="listen here for nginx's uwsgi_pass: host:port, :port, [::1]:port, /path/app.sock, @abstract or fd://3",
    )

    uwsgi_socket: tuple[str, ...] = option(
        kind=Kind.LIST, metavar="ADDRESS", help="as socket, and always the uwsgi protocol, whatever protocol says"
    )

    http_socket: tuple[str, ...] = option(
        kind=Kind.LIST, metavar="ADDRESS", help="listen here for plain HTTP/1.1: same forms of address"
    )

    protocol: str = option(
        "protocol",
        "socket-protocol",
        kind=Kind.CHOICE,
        default="uwsgi",
        choices=("uwsgi", "http"),
        help="what a `socket` speaks",
    )

    # No default: the socket file is then made under a umask that leaves at most 0660. A bare `chmod-socket` is 666,
    # as uWSGI's "fchmod() socket to 666 for lazy and brave users" (core/socket.c).
    chmod_socket: int | None = option(
        kind=Kind.MODE,
        short="C",
        bare=DEFAULT_SOCKET_MODE,
        metavar="MODE",
        help="permissions of unix sockets, octal; without a value 666; without the option 660 or stricter",
    )

    chown_socket: str | None = option(
        kind=Kind.TEXT, metavar="USER[:GROUP]", help="owner of unix sockets, by name or number"
    )

    # 100 as uWSGI has it. The kernel holds waiting connections while every core is busy, so this is the first queue
    # of an overload; the kernel cuts it silently at net.core.somaxconn.
    listen: int = option(
        "listen",
        "backlog",
        kind=Kind.INTEGER,
        short="l",
        default=100,
        minimum=1,
        metavar="N",
        help="connections that the kernel keeps waiting for us",
    )

    # uWSGI's 4096 refuses a request with one 5 KB cookie; the length field of a packet allows 65535, and nothing is
    # allocated in advance here, so there is no reason to refuse what nginx may send.
    buffer_size: int = option(
        kind=Kind.INTEGER,
        short="b",
        default=65535,
        minimum=1,
        metavar="BYTES",
        help="longest block of variables in a uwsgi packet; more than 65535 does not exist",
    )

    vacuum: bool = option(
        kind=Kind.FLAG,
        default=True,
        help="remove our unix sockets and pid files at the end (only while the file is still ours)",
    )

    # Off as in uWSGI: with it two servers that share a port by mistake take each other's connections in silence.
    reuse_port: bool = option(kind=Kind.FLAG, help="SO_REUSEPORT: let several servers bind the same port")

    so_keepalive: bool = option(
        kind=Kind.FLAG, help="SO_KEEPALIVE on TCP connections: the kernel notices peers that have vanished"
    )

    tcp_nodelay: bool = option(
        kind=Kind.FLAG, default=True, help="TCP_NODELAY: send small pieces of a reply without waiting"
    )

    no_defer_accept: bool = option(
        kind=Kind.FLAG, help="let the kernel show TCP connections before their first byte (no TCP_DEFER_ACCEPT)"
    )


@dataclass(frozen=True, kw_only=True)
class TimeoutOptions:
    """Time-outs, in seconds; 0 switches one off, except for http-keepalive and reload-mercy."""

    # uWSGI's 4 s cuts a mobile client's upload at the first pause; its asyncio engine raises it to 30 for that reason
    # (asyncio.c:27-37), and a slow peer holds no more than its own core here. So 30 from the start.
    socket_timeout: float = option(
        kind=Kind.SECONDS,
        short="z",
        default=30.0,
        help="longest silence of a peer while we read a body from it or write to it; an `asyncio` after it raises it "
        "to 30 at least, as in uWSGI",
    )

    # uWSGI's default for its HTTP front. Longer than socket-timeout since browsers and phones stand at this end.
    http_timeout: float = option(
        kind=Kind.SECONDS, default=60.0, help="as socket-timeout, for connections of an HTTP socket"
    )

    # Longer than the 60 s after which nginx's upstreams and cloud load balancers drop an idle connection: the side
    # that sends the next request must be the one that closes, or it races with our close and answers 502. nginx's own
    # keepalive_timeout is 75. An idle connection holds a descriptor and no core.
    http_keepalive: float = option(
        kind=Kind.SECONDS,
        default=DEFAULT_KEEPALIVE_SECONDS,
        bare=DEFAULT_KEEPALIVE_SECONDS,
        help="how long an idle HTTP connection is kept; without a value, or with 1 as in uWSGI, 75; 0 closes after "
        "each reply",
    )

    # Absolute, from the first byte (or the accept) to the last of the head: a time-out that is started again by every
    # byte is what slowloris lives on (CVE-2007-6750). Apache's RequestReadTimeout allows 20, heads fit one packet.
    head_timeout: float = option(
        kind=Kind.SECONDS, default=10.0, help="time for a whole request head or packet, from its first byte"
    )

    harakiri: float = option(
        kind=Kind.SECONDS,
        short="t",
        default=0.0,
        help="longest time of one request; then its core is unwound, 504. A worker that is blocked is killed by its "
        "master after harakiri-graceful-timeout more; without a master code that blocks is not interrupted",
    )

    # Long enough to write all stacks and for `finally` blocks that wait a moment.
    harakiri_graceful_timeout: float = option(
        kind=Kind.SECONDS,
        default=5.0,
        help="time that a worker has, after a request's harakiri, to become responsive or to give the core back; then "
        "its master kills or replaces it",
    )

    # A second is a thousand times what one turn of the loop should take, and no computation worth doing in a view is
    # that long.
    blocked_warning: float = option(
        kind=Kind.SECONDS, default=1.0, help="warn when a worker's loop has stood still for so long, and say where"
    )

    # A raw `parent.switch()` whose wake-up got lost would hold its core for good. 300 s is longer than any sensible
    # reply and short enough that ten lost wake-ups a day do not eat a hundred cores.
    suspend_timeout: float = option(
        kind=Kind.SECONDS,
        default=300.0,
        help="longest time of one raw suspension (`parent.switch()`); then its core is unwound, 504",
    )

    # nginx gives up on us after 60 s (uwsgi_read_timeout); a request that waited half of that is better answered 503
    # while somebody still listens.
    queue_timeout: float = option(
        kind=Kind.SECONDS, default=30.0, help="longest wait of a complete request for a free core; then 503"
    )

    # uWSGI's 60 outlasts the 30 s that Kubernetes waits before SIGKILL; 25 leaves time to unwind what is still
    # suspended, so that `finally` blocks run. systemd waits 90.
    reload_mercy: float = option(
        kind=Kind.SECONDS,
        default=25.0,
        help="time for running requests to end when we are told to stop; then they are unwound, and the worker killed",
    )


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """Limits on one request.

    The defaults are those of limits.py, which has the precedent of each.
    """

    limit_post: int = option(
        kind=Kind.INTEGER, default=0, metavar="BYTES", help="longest request body, then 413; 0 = unlimited"
    )

    max_vars: int = option(
        kind=Kind.INTEGER, short="v", default=1000, minimum=1, metavar="N", help="most variables in a uwsgi packet"
    )

    http_max_request_line: int = option(
        kind=Kind.INTEGER, default=8190, minimum=1, metavar="BYTES", help="longest HTTP request line, then 414"
    )

    http_max_headers: int = option(
        kind=Kind.INTEGER, default=100, minimum=1, metavar="N", help="most HTTP request headers, then 431"
    )

    http_max_head: int = option(
        kind=Kind.INTEGER, default=65536, minimum=1, metavar="BYTES", help="longest HTTP request head, then 431"
    )

    http_max_chunk_line: int = option(
        kind=Kind.INTEGER, default=1024, minimum=1, metavar="BYTES", help="longest line before a chunk, then 400"
    )

    http_max_trailer: int = option(
        kind=Kind.INTEGER, default=8192, minimum=2, metavar="BYTES", help="longest trailer of a chunked body, then 400"
    )
