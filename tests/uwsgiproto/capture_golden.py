"""Capture the golden packets from the nginx of this machine, from the project's folder:

    PYTHONPATH=. python tests/uwsgiproto/capture_golden.py [folder]

Starts nginx on random loopback ports with a prefix of its own, sends it the requests below and keeps what arrives at
the uwsgi side, byte for byte, packet and body. The files in golden/ come from nginx 1.22.1; a later nginx joins
repeated headers itself, so capture into another folder to compare.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from uwsgiproto.reader import PacketReceived, Reader

# Written out rather than included, so that a capture does not depend on the file of the distribution.
UWSGI_PARAMS = """
    uwsgi_param QUERY_STRING $query_string;
    uwsgi_param REQUEST_METHOD $request_method;
    uwsgi_param CONTENT_TYPE $content_type;
    uwsgi_param CONTENT_LENGTH $content_length;
    uwsgi_param REQUEST_URI $request_uri;
    uwsgi_param PATH_INFO $document_uri;
    uwsgi_param DOCUMENT_ROOT $document_root;
    uwsgi_param SERVER_PROTOCOL $server_protocol;
    uwsgi_param REQUEST_SCHEME $scheme;
    uwsgi_param HTTPS $https if_not_empty;
    uwsgi_param REMOTE_ADDR $remote_addr;
    uwsgi_param REMOTE_PORT $remote_port;
    uwsgi_param SERVER_PORT $server_port;
    uwsgi_param SERVER_NAME $server_name;
"""

NGINX_CONF = """
daemon off;
master_process off;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log info;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    uwsgi_temp_path {prefix}/uwsgi;
    fastcgi_temp_path {prefix}/fastcgi;
    scgi_temp_path {prefix}/scgi;
    large_client_header_buffers 4 64k;
    root /srv/www;
    {params}
    server {{
        listen 127.0.0.1:{named};
        server_name example.test;
        location / {{ uwsgi_pass 127.0.0.1:{backend}; }}
        location /custom {{
            {params}
            uwsgi_param APP_SETTING "blue green";
            uwsgi_param SCRIPT_NAME /custom;
            uwsgi_modifier1 30;
            uwsgi_pass 127.0.0.1:{backend};
        }}
    }}
    server {{
        listen 127.0.0.1:{nameless};
        location / {{ uwsgi_pass 127.0.0.1:{backend}; }}
    }}
}}
"""

BROWSER = (
    b"Host: example.test\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\n"
    b"Cookie: sessionid=0123456789abcdef\r\n"
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-Site: none\r\n"
    b"Sec-Fetch-User: ?1\r\n"
)

HOST = b"Host: example.test\r\n"

# name of the file: which server of the configuration, and the request
SHAPES: dict[str, tuple[str, bytes]] = {
    "get_browser": ("named", b"GET /shop/items/4711 HTTP/1.1\r\n" + BROWSER + b"\r\n"),
    "get_query_utf8": ("named", b"GET /caf%C3%A9/x/../a%2520b//y?q=%C3%A9&r=1 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "post_form": (
        "named",
        b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 19\r\n\r\nuser=ann&pass=s3cr3",
    ),
    "post_chunked": (
        "named",
        b"POST /upload HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    ),
    "repeated_headers": (
        "named",
        b"GET /dup HTTP/1.1\r\n"
        + HOST
        + b"Cookie: a=1\r\nX-Dup: one\r\nCookie: b=2\r\nX-Dup: two\r\nX-Dup: three\r\n\r\n",
    ),
    "websocket_upgrade": (
        "named",
        b"GET /chat HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: http://example.test\r\n\r\n",
    ),
    "large_cookie": (
        "named",
        b"GET / HTTP/1.1\r\n" + HOST + b"Cookie: big=" + b"0123456789abcdef" * 1000 + b"\r\n\r\n",
    ),
    "head": ("named", b"HEAD /robots.txt HTTP/1.0\r\n" + HOST + b"\r\n"),
    "custom_params": (
        "named",
        b"GET /custom/page HTTP/1.1\r\n" + HOST + b"Proxy: http://evil.test\r\nX_Under: no\r\n\r\n",
    ),
    "empty_server_name": ("nameless", b"GET / HTTP/1.1\r\n" + HOST + b"X-Latin: \xe9\xff\r\n\r\n"),
}


def receive(listener: socket.socket) -> bytes:
    """All the bytes of one request at the uwsgi side; answered, so that nginx is content."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(10)
        captured, reader = b"", Reader()
        while True:
            data = connection.recv(65536)
            captured += data
            reader.feed(data)
            event = reader.next_event()
            if isinstance(event, PacketReceived):
                if len(reader.unused) >= int(event.variables["CONTENT_LENGTH"] or 0):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    return captured
            elif not data:
                raise RuntimeError(f"nginx closed the connection after {len(captured)} bytes")


def ask(port: int, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        status_line = client.recv(65536).partition(b"\r\n")[0]
    if b" 200 " not in status_line:
        raise RuntimeError(f"nginx answered {status_line!r}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_nginx(backend_port: int) -> Iterator[dict[str, int]]:
    """The ports of the two servers of an nginx that hands on to `backend_port`."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise RuntimeError("nginx is not installed: apt-get install nginx-light")
    ports = {"named": free_port(), "nameless": free_port()}
    with tempfile.TemporaryDirectory() as prefix:
        conf = Path(prefix, "nginx.conf")
        conf.write_text(NGINX_CONF.format(prefix=prefix, backend=backend_port, params=UWSGI_PARAMS, **ports))
        errors = str(Path(prefix, "start.log"))
        nginx = subprocess.Popen([program, "-p", prefix, "-c", str(conf), "-e", errors])
        try:
            while True:  # nginx tells nobody that it listens
                if nginx.poll() is not None:
                    raise RuntimeError(f"nginx ended with {nginx.returncode}: {Path(errors).read_text()}")
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", ports["nameless"]), timeout=10).close()
                    break
            yield ports
        finally:
            nginx.terminate()
            nginx.wait(10)


def capture(folder: Path) -> None:
    """Write one file for each of SHAPES into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        with running_nginx(listener.getsockname()[1]) as ports:
            for name, (server, request) in SHAPES.items():
                client = threading.Thread(target=ask, args=(ports[server], request))
                client.start()
                (folder / f"{name}.bin").write_bytes(receive(listener))
                client.join()


if __name__ == "__main__":
    capture(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("golden"))
