"""One application, asked in every way that a request can take: HTTP, uwsgi over TCP and unix, and four real nginx.

A Site is a corelet and an nginx with one port per way: uwsgi_pass over TCP and over the unix socket, with nginx's
buffering of requests and replies on (its default) and off.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

from harness import PATIENCE_SECONDS, Nginx, Server, free_port, fronting, running

from uwsgiproto.client import Reply, build_request, request_variables

DIRECT = ("http", "uwsgi", "unix")
BUFFERED = ("nginx-tcp", "nginx-unix")
UNBUFFERED = ("nginx-tcp-unbuffered", "nginx-unix-unbuffered")
NGINX = BUFFERED + UNBUFFERED

PARAMETERS = "client_max_body_size 64m; client_body_buffer_size 4m; uwsgi_max_temp_file_size 0;"


class Site:
    """A server and the nginx in front of it."""

    def __init__(self, server: Server, front: Nginx, ports: dict[str, int]) -> None:
        self.server = server
        self.front = front
        self.ports = ports

    def address(self, way: str) -> tuple[str, int]:
        return self.server.http if way == "http" else ("127.0.0.1", self.ports[way])

    def connect(self, way: str) -> socket.socket:
        if way in DIRECT:
            return self.server.connect(way)
        return socket.create_connection(self.address(way), PATIENCE_SECONDS)

    def ask(self, way: str, target: str = "/", method: str = "GET", body: bytes = b"", headers=()) -> Reply:
        """One complete request and its complete reply; a reply that was cut raises."""
        if way in ("uwsgi", "unix"):
            return self.server.get(target, way, method, body, headers)
        return ask_http(self.address(way), target, method, body, headers)

    def open(
        self, way: str, target: str = "/", method: str = "GET", body: bytes = b"", headers=(), length=None
    ) -> socket.socket:
        """Send a request and return the socket. `length` announces another length of the body than what is sent."""
        sock = self.connect(way)
        announced = len(body) if length is None else length
        sock.sendall(request_bytes(way, target, method, body, headers, announced))
        return sock


def request_bytes(way: str, target: str, method: str, body: bytes, headers=(), length: int = 0) -> bytes:
    """A whole request in the protocol of `way`; nginx is asked for over HTTP."""
    if way in ("uwsgi", "unix"):
        variables = request_variables(method, target, [("Host", "test"), *headers], body_bytes=length or None)
        return build_request(variables, body)
    lines = [f"{method} {target} HTTP/1.1", "Host: test", "Connection: close", *(f"{n}: {v}" for n, v in headers)]
    if (length or method == "POST") and not any(name.lower() == "transfer-encoding" for name, _ in headers):
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def ask_http(address: tuple[str, int], target: str, method: str, body: bytes, headers) -> Reply:
    """By the standard library's client, which raises IncompleteRead for a reply that was cut."""
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        connection.putrequest(method, target, skip_accept_encoding=True)
        connection.putheader("Connection", "close")
        if body or method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders(body or None)
        reply = connection.getresponse()
        return Reply(reply.status, reply.reason, tuple(reply.getheaders()), reply.read())


def read_end(sock: socket.socket) -> tuple[bytes, str]:
    """Everything until the connection ends, and how it ended: "end of file" or "reset"."""
    pieces = []
    while True:
        try:
            piece = sock.recv(65536)
        except ConnectionError:
            return b"".join(pieces), "reset"
        if not piece:
            return b"".join(pieces), "end of file"
        pieces.append(piece)


@contextlib.contextmanager
def site(folder: Path, application: str, *arguments: str, parameters: str = PARAMETERS) -> Iterator[Site]:
    """A server with this application and the four nginx in front of it, for the length of a with block."""
    with running(folder / "server", application, *arguments) as server:
        ports = {way: free_port() for way in NGINX}
        blocks = []
        for way, port in ports.items():
            where = f"unix:{server.unix}" if "unix" in way else f"127.0.0.1:{server.uwsgi[1]}"
            off = "uwsgi_buffering off; uwsgi_request_buffering off;" if way in UNBUFFERED else ""
            blocks.append(
                f"server {{ listen 127.0.0.1:{port}; server_name localhost; {parameters} {off}"
                f" location / {{ uwsgi_pass {where}; }} }}"
            )
        with fronting(folder / "nginx", "", "\n".join(blocks)) as front:
            yield Site(server, front, ports)
