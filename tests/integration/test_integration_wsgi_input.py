"""wsgi.input over real sockets: every read at every size, streaming, the end, and bodies that the client cuts short."""

import contextlib
import hashlib
import io
import json
import socket
import struct

import pytest
from harness import read_until
from wsgi_site import DIRECT, NGINX, UNBUFFERED, read_end, request_bytes, site

APPLICATION = """
import hashlib
import json

kept = []

def application(environ, start_response):
    return globals()[environ["PATH_INFO"][1:]](environ, start_response)

def hello(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]

def do(file, operation):
    name, _, argument = operation.partition(":")
    if name == "iterate":
        return [[len(line) for line in file]]
    result = getattr(file, name)(*([None if argument == "None" else int(argument)] if argument else []))
    if isinstance(result, list):
        return [[len(line) for line in result]]
    return [len(result), hashlib.md5(result).hexdigest()]

def operations(environ, start_response):
    results = [do(environ["wsgi.input"], operation) for operation in environ["QUERY_STRING"].split(",")]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(results).encode()]

def literally(environ, start_response):
    file = environ["wsgi.input"]
    results = [str(file.read(5)), str(file.readline(3)), str(file.readline()), str(file.readlines(1)), str(next(file)),
               str(file.read(0)), str(file.readline(0)), str(file.read()), str(file.read()), str(file.readline()),
               str(file.readlines()), str(list(file)), str(environ["wsgi.input_terminated"])]
    start_response("200 OK", [])
    return ["|".join(results).encode()]

def chat(environ, start_response):
    # Each read is answered before the client sends what the next one needs.
    start_response("200 OK", [("X-Accel-Buffering", "no")])
    file = environ["wsgi.input"]
    yield b"<read %s>" % file.read(5)
    yield b"<line %s>" % file.readline().strip()
    yield b"<rest %s>" % file.read()

def first(environ, start_response):
    start_response("200 OK", [])
    return [environ["wsgi.input"].read(3)]

def cut_short(environ, start_response):
    try:
        body = environ["wsgi.input"].read()
    except Exception as error:
        name = environ["QUERY_STRING"]
        print("short", name, isinstance(error, OSError), type(error).__name__, repr(str(error)), flush=True)
        raise
    print("complete", environ["QUERY_STRING"], len(body), flush=True)
    start_response("200 OK", [])
    return [b"complete"]

def cut_short_streaming(environ, start_response):
    start_response("200 OK", [])
    yield b"begun"
    try:
        environ["wsgi.input"].read()
    except BaseException as error:  # the read fails, or the core is unwound
        print("short", environ["QUERY_STRING"], type(error).__name__, flush=True)
        raise
    print("complete", environ["QUERY_STRING"], flush=True)

def cut_short_uncaught(environ, start_response):
    for line in environ["wsgi.input"]:
        pass
    print("complete", environ["QUERY_STRING"], flush=True)
    start_response("200 OK", [])
    return [b"complete"]

def keep(environ, start_response):
    kept.append(environ["wsgi.input"])
    start_response("200 OK", [])
    return [b"kept"]

def steal(environ, start_response):
    found = []
    for read in (lambda f: f.read(), lambda f: f.read(1), lambda f: f.readline(), lambda f: f.readlines(),
        lambda f: list(f), lambda f: f.read(0)):
        try:
            found.append(repr(read(kept[-1])))
        except OSError as error:
            found.append("OSError")
    own = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [" ".join(found).encode(), b" ", own]
"""

LINES = b"".join(b"line %d %s\n" % (number, b"." * (number % 97)) for number in range(20000))


def body_of(size):
    return (LINES * (size // len(LINES) + 1))[:size]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with site(tmp_path_factory.mktemp("input"), APPLICATION, "--disable-logging") as place:
        yield place


def oracle(body, operations):
    """What io.BytesIO, an ordinary file, does."""
    file, results = io.BytesIO(body), []
    for operation in operations.split(","):
        name, _, argument = operation.partition(":")
        if name == "iterate":
            results.append([[len(line) for line in file]])
            continue
        result = getattr(file, name)(*([None if argument == "None" else int(argument)] if argument else []))
        if isinstance(result, list):
            results.append([[len(line) for line in result]])
        else:
            results.append([len(result), hashlib.md5(result).hexdigest()])
    return results


SIZES = [0, 1, 65535, 65536, 65537, 1_000_000]
OPERATIONS = [
    "read,read,read:1",
    "read:-1,read:-1",
    "read:None,readline",
    "read:5,read:-1,readline",
    "read:1,read:65535,read:65536,read:10000000,read:1",
    "read:10000000,iterate",
    "readline,readline:3,readline:0,readline:1000000,readline:-1,readline:None,read",
    "readline:3,readline:3,read:7,readline,readlines,read",
    "readlines,readlines",
    "readlines:1,readlines:1000,readlines:0,read",
    "readlines:None,read",
    "iterate,read",
    "read:100,iterate,readline",
    "read:0,read:70000,readline:70000,iterate",
]


@pytest.mark.parametrize("way", DIRECT + NGINX)
@pytest.mark.parametrize("size", SIZES)
def test_every_mixture_of_reads_gives_what_a_file_gives(place, way, size):
    body = body_of(size)
    for operations in OPERATIONS:
        reply = place.ask(way, f"/operations?{operations}", "POST", body)
        assert (operations, json.loads(reply.body)) == (operations, oracle(body, operations))


@pytest.mark.parametrize("size", SIZES)
def test_every_mixture_of_reads_of_a_chunked_body(place, size):
    body = body_of(size)
    chunks = b""
    for at in range(0, size, 10007):
        chunks += b"%x\r\n%s\r\n" % (len(body[at : at + 10007]), body[at : at + 10007])
    for operations in OPERATIONS:
        with place.open(
            "http", f"/operations?{operations}", "POST", chunks + b"0\r\n\r\n", [("Transfer-Encoding", "chunked")]
        ) as sock:
            data, _ = read_end(sock)
        assert (operations, json.loads(data.partition(b"\r\n\r\n")[2])) == (operations, oracle(body, operations))


@pytest.mark.parametrize("way", DIRECT + NGINX)
def test_reads_of_a_small_body_literally(place, way):
    body = b"12345line one\nline two\nline three\nline four\nthe rest\nend"
    assert place.ask(way, "/literally", "POST", body).body == (
        b"b'12345'|b'lin'|b'e one\\n'|[b'line two\\n']|b'line three\\n'|"
        b"b''|b''|b'line four\\nthe rest\\nend'|b''|b''|[]|[]|True"
    )


@pytest.mark.parametrize("way", [*DIRECT, *UNBUFFERED])
def test_the_body_streams_from_the_socket(place, way):
    with place.open(way, "/chat", "POST", b"12345", length=18) as sock:
        data = read_until(sock, b"<read 12345>")
        sock.sendall(b"a line\n")
        data = read_until(sock, b"<line a line>", data)
        sock.sendall(b"end")
        sock.sendall(b"ing")
        data = read_until(sock, b"<rest ending>", data)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_chunked_body_streams_from_the_socket(place):
    with place.open("http", "/chat", "POST", b"5\r\n12345\r\n", [("Transfer-Encoding", "chunked")]) as sock:
        data = read_until(sock, b"<read 12345>")
        sock.sendall(b"3\r\na l\r\n4\r\nine\n\r\n")
        data = read_until(sock, b"<line a line>", data)
        sock.sendall(b"6\r\nending\r\n0\r\nX-Trailer: x\r\n\r\n")
        rest, end = read_end(sock)
    assert (data + rest).endswith(b"d\r\n<rest ending>\r\n0\r\n\r\n")
    assert end == "end of file"


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("cut", [1, 2, 3, 40, 300])
def test_a_packet_in_two_pieces_cut_anywhere_is_the_same_request(place, way, cut):
    body = b"the body of one hundred bytes" + b"." * 71
    data = request_bytes(way, "/operations?read", "POST", body, length=100)
    with place.connect(way) as sock:
        if way != "unix":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), cut):
            sock.sendall(data[at : at + cut])
        reply, end = read_end(sock)
    assert json.loads(reply.partition(b"\r\n\r\n")[2]) == [[100, hashlib.md5(body).hexdigest()]]
    assert end == "end of file"


@pytest.mark.parametrize("way", ["uwsgi", "unix"])
@pytest.mark.parametrize("extra", [1, 1000, 200_000])
def test_bytes_beyond_content_length_are_no_body_and_do_no_harm(place, way, extra):
    with place.open(way, "/operations?read,read", "POST", b"0123456789" + b"x" * extra, length=10) as sock:
        data, end = read_end(sock)
    assert json.loads(data.partition(b"\r\n\r\n")[2]) == [
        [10, "781e5e245d69b566979b86e28d23f2c7"],
        [0, "d41d8cd98f00b204e9800998ecf8427e"],
    ]
    assert end == "end of file"


# ---- a body that the client cuts short ------------------------------------------------------------------------------

SHORT = [
    ("none", b"", 10),
    ("half", b"12345", 10),
    ("one-missing", b"123456789", 10),
    ("large", b"x" * 100_000, 100_001),
    ("larger", b"x" * 500_000, 1_000_000),
]


def leave(sock, how):
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how == "half":
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            read_end(sock)


@pytest.mark.parametrize("how", ["close", "half", "reset"])
@pytest.mark.parametrize("way", DIRECT)
def test_a_body_cut_short_is_an_oserror_and_never_complete(place, way, how):
    for name, body, length in SHORT:
        query = f"{name}-{way}-{how}"
        start = len(place.server.log.lines)
        with place.open(way, f"/cut_short?{query}", "POST", body, length=length) as sock:
            leave(sock, how)
        line = place.server.log.wait_for(query, start=start)
        # The request's own line in the log may come first, if the body was cut before the application was called.
        if not line.startswith("short"):
            line = place.server.log.wait_for(f"short {query}", start=start)
        assert line.startswith(f"short {query} True ")
        assert place.server.log.count(f"complete {query}") == 0


@pytest.mark.parametrize(
    "chunks",
    [b"", b"5", b"5\r\n", b"5\r\n123", b"5\r\n12345", b"5\r\n12345\r\n", b"5\r\n12345\r\n0", b"5\r\n12345\r\n0\r\n",
        b"1\r\n1\r\n0\r\nX: y\r\n"],
)  # fmt: skip
def test_a_chunked_body_without_its_end_is_an_oserror(place, chunks):
    query = f"chunked-{len(chunks)}"
    start = len(place.server.log.lines)
    with place.open("http", f"/cut_short?{query}", "POST", chunks, [("Transfer-Encoding", "chunked")]) as sock:
        sock.shutdown(socket.SHUT_WR)
        data, _ = read_end(sock)
    assert place.server.log.wait_for(f"short {query}", start=start).startswith(f"short {query} True ")
    assert b"complete" not in data


@pytest.mark.parametrize("chunks", [b"x\r\n", b"5\r\n12345XX0\r\n\r\n", b"-1\r\n", b"5;\n12345\r\n0\r\n\r\n"])
def test_a_malformed_chunked_body_is_an_oserror_and_a_400(place, chunks):
    query = f"malformed-{chunks.hex()}"
    start = len(place.server.log.lines)
    with place.open("http", f"/cut_short?{query}", "POST", chunks, [("Transfer-Encoding", "chunked")]) as sock:
        data, _ = read_end(sock)
    assert place.server.log.wait_for(f"short {query}", start=start).startswith(f"short {query} True ")
    assert data.startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("way", DIRECT)
def test_an_error_of_the_client_s_body_is_one_line_without_a_traceback(place, way):
    start = len(place.server.log.lines)
    with place.open(way, f"/cut_short_uncaught?line-{way}", "POST", b"12345", length=10) as sock:
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            read_end(sock)
    place.server.log.wait_for(f"line-{way}", start=start)
    assert place.ask(way, "/hello").body == b"hello"
    assert [
        line for line in place.server.log.lines[start:] if "Traceback" in line or f"complete line-{way}" in line
    ] == []


@pytest.mark.parametrize("way", UNBUFFERED)
def test_a_body_cut_short_by_nginx_client_is_never_complete(place, way):
    query = f"through-{way}"
    with place.open(way, f"/cut_short_streaming?{query}", "POST", b"12345", length=10) as sock:
        read_until(sock, b"begun")
    place.server.log.wait_for(f"short {query}")
    assert place.server.log.count(f"complete {query}") == 0


# ---- wsgi.input after its request -----------------------------------------------------------------------------------

STOLEN = b"OSError OSError OSError OSError OSError"


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("size", [10, 200_000])
def test_an_input_kept_after_its_request_is_an_error(place, way, size):
    assert place.ask(way, "/keep", "POST", b"k" * size).body == b"kept"
    found = place.ask(way, "/steal", "POST", b"own").body
    assert found.startswith(STOLEN)
    assert found.endswith(b" own")


def test_an_input_kept_never_reads_the_next_request_of_its_connection(place):
    keep = b"POST /keep HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nkkkkkkkkkk"
    with place.connect("http") as sock:
        sock.sendall(keep)
        read_until(sock, b"kept")
        sock.sendall(b"POST /steal HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nOWN")
        data, _ = read_end(sock)
    found = data.partition(b"\r\n\r\n")[2]
    assert found.startswith(STOLEN)
    assert found.endswith(b" OWN")


def test_an_unread_small_body_is_not_the_next_request(place):
    data = place.server.raw(
        b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 36\r\n\r\nGET /keep HTTP/1.1\r\nHost: smug\r\n\r\n.."
        b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert b"kept" not in data
    assert data.count(b"HTTP/1.1 200 OK\r\n") == 2


@pytest.mark.parametrize("way", [*DIRECT, *NGINX])
@pytest.mark.parametrize("size", [4, 10, 65536, 200_000, 2_000_000])
def test_a_partly_read_body_does_not_disturb_the_reply(place, way, size):
    for _ in range(3):
        reply = place.ask(way, "/first", "POST", b"abc" + b"x" * (size - 3))
        assert (reply.status, reply.body) == (200, b"abc")


@pytest.mark.parametrize("way", [*DIRECT, *NGINX])
@pytest.mark.parametrize("size", [1, 10, 65536, 200_000, 2_000_000])
def test_an_unread_body_does_not_disturb_the_reply(place, way, size):
    for _ in range(3):
        assert place.ask(way, "/hello", "POST", b"x" * size).body == b"hello"
