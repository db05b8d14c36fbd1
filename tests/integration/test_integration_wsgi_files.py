"""wsgi.file_wrapper: whatever file it is given, the client gets what reading it would have given (PEP 3333)."""

import hashlib

import pytest
from wsgi_site import DIRECT, NGINX, read_end, site

APPLICATION = """
import gzip
import hashlib
import io
import os
import tempfile
import zipfile

PATTERN = bytes(range(251))

def fill(name, size):
    with open(name, "wb") as file:
        file.write((PATTERN * (size // 251 + 1))[:size])

fill("empty", 0)
fill("small", 1000)
fill("block", 16384)
fill("above", 16385)
fill("big", 5_000_000)
with gzip.open("packed.gz", "wb") as packed:
    packed.write(b"unpacked " * 5000)
with zipfile.ZipFile("archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("member", b"member " * 5000)

kept = {}

def application(environ, start_response):
    name = environ["PATH_INFO"][1:]
    wrapper = environ["wsgi.file_wrapper"]
    if hasattr(io, name) or name in globals():
        return globals()[name](environ, start_response, wrapper)
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return wrapper(open(name, "rb"))

def sized(environ, start_response, wrapper):
    start_response("200 OK", [("Content-Length", "5000000")])
    return wrapper(open("big", "rb"), 4096)

def partly_read(environ, start_response, wrapper):
    file = open("big", "rb")
    file.read(100)
    start_response("200 OK", [])
    return wrapper(file)

def sought(environ, start_response, wrapper):
    file = open("small", "rb")
    file.seek(-10, 2)
    start_response("200 OK", [])
    return wrapper(file)

def at_the_end(environ, start_response, wrapper):
    file = open("small", "rb")
    file.read()
    start_response("200 OK", [])
    return wrapper(file)

def unbuffered(environ, start_response, wrapper):
    file = open("big", "rb", buffering=0)
    file.read(7)
    start_response("200 OK", [])
    return wrapper(file)

def memory(environ, start_response, wrapper):
    start_response("200 OK", [])
    return wrapper(io.BytesIO(PATTERN * 1000))

def memory_partly(environ, start_response, wrapper):
    file = io.BytesIO(b"0123456789")
    file.read(3)
    start_response("200 OK", [])
    return wrapper(file, 2)

def only_read(environ, start_response, wrapper):
    class Reader:
        pieces = [b"one", b"two", b""]
        def read(self, size):
            return self.pieces.pop(0)
    start_response("200 OK", [])
    return wrapper(Reader())

def pipe(environ, start_response, wrapper):
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe")
    os.close(writing)
    start_response("200 OK", [])
    return wrapper(os.fdopen(reading, "rb"))

def temporary(environ, start_response, wrapper):
    file = tempfile.NamedTemporaryFile()
    file.write(b"temporary")
    file.seek(0)
    start_response("200 OK", [])
    return wrapper(file)

def spooled(environ, start_response, wrapper):
    file = tempfile.SpooledTemporaryFile(max_size=10)
    file.write(b"rolled over to the disk")
    file.seek(7)
    start_response("200 OK", [])
    return wrapper(file)

def unpacked(environ, start_response, wrapper):
    start_response("200 OK", [])
    return wrapper(gzip.open("packed.gz"))

def member(environ, start_response, wrapper):
    start_response("200 OK", [])
    return wrapper(zipfile.ZipFile("archive.zip").open("member"))

def shorter(environ, start_response, wrapper):
    start_response("200 OK", [("Content-Length", "100")])
    return wrapper(open("big", "rb"))

def shorter_large(environ, start_response, wrapper):
    start_response("200 OK", [("Content-Length", "100000")])
    return wrapper(open("big", "rb"))

def shorter_memory(environ, start_response, wrapper):
    start_response("200 OK", [("Content-Length", "100")])
    return wrapper(io.BytesIO(PATTERN * 100))

def longer(environ, start_response, wrapper):
    start_response("200 OK", [("Content-Length", "2000")])
    return wrapper(open("small", "rb"))

def longer_large(environ, start_response, wrapper):
    start_response("200 OK", [("Content-Length", "5000001")])
    return wrapper(open("big", "rb"))

def written_before(environ, start_response, wrapper):
    write = start_response("200 OK", [])
    write(b"before ")
    return wrapper(io.open("small", "rb"))

def no_start(environ, start_response, wrapper):
    return wrapper(open("small", "rb"))

def keep(environ, start_response, wrapper):
    kept["file"] = open("big", "rb")
    start_response("200 OK", [])
    return wrapper(kept["file"])

def kept_is_closed(environ, start_response, wrapper):
    start_response("200 OK", [])
    return [str(kept["file"].closed).encode()]

def no_content(environ, start_response, wrapper):
    kept["file"] = open("big", "rb")
    start_response("204 No Content", [])
    return wrapper(kept["file"])

def inside(environ, start_response, wrapper):
    start_response("200 OK", [])
    return iter(wrapper(open("small", "rb")))
"""

PATTERN = bytes(range(251))


def pattern(size, start=0):
    return (PATTERN * ((start + size) // 251 + 1))[start : start + size]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with site(tmp_path_factory.mktemp("files"), APPLICATION, "--disable-logging") as place:
        yield place


def body_of(place, way, target):
    """The body, by a client that decodes chunks."""
    reply = place.ask(way, "/" + target)
    assert reply.status == 200
    if way in ("uwsgi", "unix"):
        assert reply.header("Transfer-Encoding") is None
    return reply.body


WHOLE = {
    "empty": 0,
    "small": 1000,
    "block": 16384,
    "above": 16385,
    "big": 5_000_000,
    "sized": 5_000_000,
    "inside": 1000,
}


@pytest.mark.parametrize("way", DIRECT + NGINX)
@pytest.mark.parametrize("target", list(WHOLE))
def test_a_file_arrives_whole(place, way, target):
    assert body_of(place, way, target) == pattern(WHOLE[target])


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize(
    ("target", "length"), [("small", "1000"), ("above", "16385"), ("big", "5000000"), ("empty", "0")]
)
def test_a_file_s_length_is_told(place, way, target, length):
    assert place.ask(way, "/" + target).header("Content-Length") == length


OTHERS = {
    "partly_read": pattern(4_999_900, 100),
    "sought": pattern(10, 990),
    "at_the_end": b"",
    "unbuffered": pattern(4_999_993, 7),
    "memory": PATTERN * 1000,
    "memory_partly": b"3456789",
    "only_read": b"onetwo",
    "pipe": b"through a pipe",
    "temporary": b"temporary",
    "spooled": b"over to the disk",
    "shorter": pattern(100),
    "shorter_large": pattern(100_000),
    "shorter_memory": pattern(100),
    "written_before": b"before " + pattern(1000),
}


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("target", list(OTHERS))
def test_it_gives_what_reading_from_where_the_file_stands_gives(place, way, target):
    assert body_of(place, way, target) == OTHERS[target]


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize(("target", "body"), [("unpacked", b"unpacked " * 5000), ("member", b"member " * 5000)])
def test_a_file_whose_descriptor_is_not_its_content_is_read(place, way, target, body):
    # GzipFile has fileno() and tell(), of the packed file and in the unpacked one.
    assert body_of(place, way, target) == body


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("target", ["longer", "longer_large"])
def test_a_file_that_is_shorter_than_the_promise_is_cut(place, way, target):
    with place.open(way, "/" + target) as sock:
        _data, end = read_end(sock)
    assert end == "reset"


@pytest.mark.parametrize("way", DIRECT + NGINX)
@pytest.mark.parametrize(("target", "length"), [("small", "1000"), ("big", "5000000"), ("sized", "5000000")])
def test_a_head_sends_the_length_and_not_the_file(place, way, target, length):
    with place.open(way, "/" + target, "HEAD") as sock:
        data, end = read_end(sock)
    assert data.endswith(b"\r\n\r\n")
    assert data.count(b"\r\n\r\n") == 1
    assert end == "end of file"
    if target == "sized":  # PEP 3333 leaves it to the server whether it finds the length of other files
        assert f"\r\nContent-Length: {length}\r\n".encode() in data


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize(("method", "target"), [("GET", "keep"), ("HEAD", "keep"), ("GET", "no_content")])
def test_the_file_is_closed_at_the_end(place, way, method, target):
    place.ask(way, "/" + target, method)
    assert place.ask(way, "/kept_is_closed").body == b"True"


@pytest.mark.parametrize("way", DIRECT)
def test_a_file_of_a_client_that_went_is_closed(place, way):
    with place.open(way, "/keep") as sock:
        sock.recv(10)
    while place.ask(way, "/kept_is_closed").body != b"True":
        pass


@pytest.mark.parametrize("way", DIRECT)
def test_a_file_without_start_response_is_a_500(place, way):
    assert place.ask(way, "/no_start").status == 500


def test_files_one_after_the_other_on_one_connection(place):
    request = b"GET /%s HTTP/1.1\r\nHost: x\r\n%s\r\n"
    data = place.server.raw(
        request % (b"small", b"") + request % (b"above", b"") + request % (b"sized", b"")
        + request % (b"shorter", b"Connection: close\r\n")
    )  # fmt: skip
    bodies = []
    for _ in range(4):
        head, _, data = data.partition(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
        bodies.append(data[:length])
        data = data[length:]
    assert data == b""
    assert [hashlib.md5(body).hexdigest() for body in bodies] == [
        hashlib.md5(pattern(size)).hexdigest() for size in (1000, 16385, 5_000_000, 100)
    ]
