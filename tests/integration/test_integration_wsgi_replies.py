"""What an application may give to the server, and what the client then sees: start_response, write, bodies, lengths.

PEP 3333, "The start_response() Callable", "Handling the Content-Length Header",
"Buffering and Streaming"; RFC 9110 6.4.
"""

import pytest
from harness import read_until, running
from wsgi_site import DIRECT, read_end, request_bytes

APPLICATION = r"""
import sys

TEXT = [("Content-Type", "text/plain")]

BAD_STATUS = {
    "status-bytes": b"200 OK", "status-int": 200, "status-none": None, "status-empty": "", "status-word": "OK",
    "status-two-digits": "20 OK", "status-four-digits": "2000 OK", "status-no-blank": "200OK",
    "status-fullwidth": "\uff12\uff10\uff10 OK", "status-crlf": "200 OK\r\nX-Injected: yes",
    "status-lf": "200 OK\nX-Injected: yes",
    "status-nul": "200 O\0K", "status-not-latin": "200 \u0416", "status-interim": "100 Continue", "status-big": "999 X",
}
BAD_HEADERS = {
    "headers-none": None, "headers-str": "X-Injected: yes", "headers-dict": {"AB": "c"}, "headers-strings": ["AB"],
    "header-one": [("A",)], "header-three": [("A", "b", "c")], "header-int": [("A", 1)], "header-none": [("A", None)],
    "header-bytes": [(b"A", b"b")], "header-name-empty": [("", "x")], "header-name-blank": [("A b", "x")],
    "header-name-colon": [("A:", "x")], "header-name-crlf": [("A\r\nX-Injected", "yes")],
    "header-name-latin": [("\xc4", "x")],
    "header-crlf": [("A", "b\r\nX-Injected: yes")], "header-lf": [("A", "b\nX-Injected: yes")],
    "header-cr": [("A", "b\rX-Injected: yes")], "header-nul": [("A", "b\0c")], "header-not-latin": [("A", "\u0416")],
    "header-fold": [("A", "b\r\n c")], "header-two-crlf": [("A", "b\r\n\r\n<script>")],
    "length-word": [("Content-Length", "abc")], "length-negative": [("Content-Length", "-1")],
    "length-plus": [("Content-Length", "+1")], "length-underscore": [("Content-Length", "1_0")],
    "length-arabic": [("Content-Length", "\u0665")], "length-empty": [("Content-Length", "")],
    "length-list": [("Content-Length", "1, 1")], "length-blank": [("Content-Length", " 1")],
    "length-two": [("Content-Length", "1"), ("content-length", "2")],
}
BAD_BODY = {
    "body-str": "text", "body-bytearray": bytearray(b"text"), "body-memoryview": memoryview(b"text"),
    "body-none": None, "body-int": 7,
    "body-list-str": ["text"], "body-list-bytearray": [bytearray(b"text")], "body-list-none": [None],
    "body-list-int": [7],
    "body-tuple-str": ("text", "text"), "body-list-mixed": ["text", b"text"], "body-dict": {"a": 1},
    "body-generator-str": "generator",
}
GOOD_BODY = {
    "bytes": lambda: b"onetwo", "list-one": lambda: [b"onetwo"], "list-two": lambda: [b"one", b"two"],
    "tuple-two": lambda: (b"one", b"two"),
    "tuple-one": lambda: (b"onetwo",), "list-empties": lambda: [b"", b"one", b"", b"two", b""],
    "iterator": lambda: iter([b"one", b"two"]),
    "generator": lambda: (piece for piece in (b"one", b"two")), "generator-empties": lambda: (piece for piece in (b"",
    b"one", b"", b"two", b"")),
    "map": lambda: map(str.encode, ["one", "two"]), "set-one": lambda: {b"onetwo"},
    "bytes-subclass": lambda: [type("B", (bytes,), {})(b"onetwo")],
    "list-subclass": lambda: type("L", (list,), {})([b"one", b"two"]),
}
EMPTY_BODY = {"none-at-all": lambda: [], "empty": lambda: [b""], "empties": lambda: [b"", b""],
    "bytes-empty": lambda: b"",
              "generator-nothing": lambda: (x for x in ()), "generator-empty": lambda: (x for x in (b"", b""))}

def application(environ, start_response):
    name = environ["PATH_INFO"][1:]
    if name in BAD_STATUS:
        start_response(BAD_STATUS[name], TEXT)
        return [b"never"]
    if name in BAD_HEADERS:
        start_response("200 OK", BAD_HEADERS[name])
        return [b"never"]
    if name in BAD_BODY:
        start_response("200 OK", TEXT)
        if name == "body-generator-str":
            return (piece for piece in ["text"])
        return BAD_BODY[name]
    if name in GOOD_BODY:
        start_response("200 OK", TEXT)
        return GOOD_BODY[name]()
    if name in EMPTY_BODY:
        start_response("200 OK", TEXT)
        return EMPTY_BODY[name]()
    return globals()[name.replace("-", "_")](environ, start_response)

def hello(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"hello"]

def twice(environ, start_response):
    start_response("200 OK", TEXT)
    start_response("200 OK", TEXT)
    return [b"never"]

def twice_caught(environ, start_response):
    start_response("200 OK", [("X-Which", "first")])
    try:
        start_response("201 Created", [("X-Which", "second")])
    except AssertionError:
        return [b"AssertionError"]
    return [b"accepted"]

def replaced(environ, start_response):
    start_response("200 OK", [("X-First", "1"), ("Content-Length", "1000"), ("Connection", "close")])
    try:
        raise ValueError("before the headers")
    except ValueError:
        start_response("503 Oops", [("X-Second", "2")], sys.exc_info())
    return [b"replaced"]

def replaced_from_204(environ, start_response):
    start_response("204 No Content", [])
    try:
        raise ValueError("before the headers")
    except ValueError:
        start_response("503 Oops", TEXT, sys.exc_info())
    return [b"replaced"]

def replaced_in_generator(environ, start_response):
    start_response("304 Not Modified", [])
    def generate():
        try:
            raise ValueError("before the headers")
        except ValueError:
            start_response("503 Oops", TEXT, sys.exc_info())
        yield b"replaced"
    return generate()

def exc_info_alone(environ, start_response):
    try:
        raise ValueError("nothing was started")
    except ValueError:
        start_response("503 Oops", TEXT, sys.exc_info())
    return [b"first call"]

def reraised(environ, start_response):
    start_response("200 OK", TEXT)
    def generate():
        yield b"first"
        try:
            raise ValueError("after the headers")
        except ValueError:
            try:
                start_response("503 Oops", TEXT, sys.exc_info())
            except ValueError as error:
                print("re-raised:", error, flush=True)
                raise
        yield b"never"
    return generate()

def failed_204(environ, start_response):
    start_response("204 No Content", [])
    raise ValueError("after a 204 was started")

def failed_304(environ, start_response):
    start_response("304 Not Modified", [("Connection", "close"), ("Content-Length", "5")])
    def generate():
        raise ValueError("after a 304 was started")
        yield b""
    return generate()

def failed_length(environ, start_response):
    start_response("200 OK", [("Content-Length", "5000"), ("Set-Cookie", "secret=1")])
    raise ValueError("after a length was promised")

def no_start(environ, start_response):
    return [b"never"]

def no_start_generator(environ, start_response):
    yield b"never"

def no_start_empty(environ, start_response):
    return []

def late_start(environ, start_response):
    def generate():
        start_response("202 Accepted", [("X-Late", "yes")])
        yield b"late"
    return generate()

def generator_application(environ, start_response):
    start_response("202 Accepted", [("X-Late", "yes")])
    yield b"late"

def written(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"one")
    write(b"")
    write(b"two")
    return [b"three"]

def written_alone(environ, start_response):
    write = start_response("200 OK", TEXT + [("Content-Length", "6")])
    write(b"one")
    write(b"two")
    return []

def written_str(environ, start_response):
    write = start_response("200 OK", TEXT)
    write("text")
    return []

def text_after_bytes(environ, start_response):
    start_response("200 OK", TEXT)
    def generate():
        yield b"bytes"
        yield "text"
    return generate()

def repeated(environ, start_response):
    start_response("200 OK", [("Set-Cookie", "a=1"), ("X-Latin", "caf\xe9"), ("set-cookie", "b=2"), ("X-Empty", "")])
    return [b""]

def hop_by_hop(environ, start_response):
    start_response("200 OK", [("Transfer-Encoding", "chunked"), ("Keep-Alive", "timeout=5"), ("Upgrade", "h2c"),
        ("Trailer", "X"), ("X-Kept", "yes")])
    return [b"plain"]

def no_content(environ, start_response):
    start_response("204 No Content", [("X-Kept", "yes")])
    return [b"a body that must not be sent"]

def no_content_length(environ, start_response):
    start_response("204 No Content", [("Content-Length", "4")])
    return [b"body"]

def not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"')])
    return (piece for piece in (b"a body ", b"that must not be sent"))

def too_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"12345HTTP/1.1 200 OK\r\n\r\nsmuggled"]

def too_long_list(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"123", b"45HTTP/1.1", b" 200 OK"]

def too_long_generator(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return (piece for piece in [b"123", b"45HTTP/1.1", b" 200 OK"])

def too_long_written(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "5")])
    write(b"123")
    write(b"45HTTP/1.1")
    write(b" 200 OK")
    return [b"more"]

def too_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "100")])
    return [b"short"]

def too_short_generator(environ, start_response):
    start_response("200 OK", [("Content-Length", "100")])
    return (piece for piece in [b"sho", b"rt"])

def too_short_empty(environ, start_response):
    start_response("200 OK", [("Content-Length", "100")])
    return []

def exact(environ, start_response):
    start_response("200 OK", [("content-LENGTH", "5")])
    return (piece for piece in [b"12", b"345"])

def zero(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []

kept = []

def keep_write(environ, start_response):
    kept.append(start_response("200 OK", [("Content-Length", "5")]))
    return [b"hello"]

def keep_write_of_chunks(environ, start_response):
    kept.append(start_response("200 OK", TEXT))
    return (piece for piece in [b"hello"])

def use_write(environ, start_response):
    try:
        kept[-1](b"INJECTED")
    except BaseException as error:
        start_response("200 OK", TEXT)
        return [b"refused"]
    start_response("200 OK", TEXT)
    return [b"written"]

def keep_start(environ, start_response):
    kept.append(start_response)
    start_response("200 OK", TEXT)
    return [b"hello"]

def use_start(environ, start_response):
    try:
        kept[-1]("200 OK", TEXT, (ValueError, ValueError("kept"), None))(b"INJECTED")
    except BaseException as error:
        start_response("200 OK", TEXT)
        return [b"refused"]
    start_response("200 OK", TEXT)
    return [b"written"]

def large(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"x" * 3_000_000]

def large_chunks(environ, start_response):
    start_response("200 OK", TEXT)
    return (b"x" * 100_000 for _ in range(30))
"""

BAD = [
    "status-bytes", "status-int", "status-none", "status-empty", "status-word", "status-two-digits",
    "status-four-digits",
    "status-no-blank", "status-fullwidth", "status-crlf", "status-lf", "status-nul", "status-not-latin",
    "status-interim", "status-big",
    "headers-none", "headers-str", "headers-dict", "headers-strings", "header-one", "header-three", "header-int",
    "header-none",
    "header-bytes", "header-name-empty", "header-name-blank", "header-name-colon", "header-name-crlf",
    "header-name-latin",
    "header-crlf", "header-lf", "header-cr", "header-nul", "header-not-latin", "header-fold", "header-two-crlf",
    "length-word", "length-negative", "length-plus", "length-underscore", "length-arabic", "length-empty",
    "length-list",
    "length-blank", "length-two",
    "body-str", "body-bytearray", "body-memoryview", "body-none", "body-int", "body-list-str", "body-list-bytearray",
    "body-list-none",
    "body-list-int", "body-tuple-str", "body-list-mixed", "body-dict", "body-generator-str",
    "twice", "no-start", "no-start-generator", "no-start-empty", "written-str", "failed-204", "failed-304",
    "failed-length",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("replies"), APPLICATION, "--disable-logging") as server:
        yield server


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize("name", BAD)
def test_what_the_application_may_not_do_is_a_500_and_a_line_in_the_log(server, kind, name):
    start = len(server.log.lines)
    reply = server.get("/" + name, kind)
    assert (reply.status, reply.reason) == (500, "Internal Server Error")
    assert reply.body != b""
    assert b"Traceback" not in reply.body
    assert b"never" not in reply.body
    assert reply.header("Content-Length") == str(len(reply.body))
    assert reply.header("Transfer-Encoding") is None
    assert [reply.header(n) for n in ("X-Injected", "Set-Cookie")] == [None, None]
    line = server.log.wait_for(f"GET '/{name}'", start=start)
    assert " error " in line


@pytest.mark.parametrize("name", BAD)
def test_a_500_leaves_the_connection_clean(server, name):
    with server.connect() as sock:
        sock.sendall(
            f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            + b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        data, end = read_end(sock)
    head, _, rest = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
    behind = rest[int(length[16:]) :]
    if b"\r\nConnection: close" in head:
        assert behind == b""
    else:
        assert behind.startswith(b"HTTP/1.1 200 OK\r\n")
        assert behind.endswith(b"\r\n\r\nhello")
    assert end == "end of file"


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize(
    "name",
    ["bytes", "list-one", "list-two", "tuple-two", "tuple-one", "list-empties", "iterator", "generator",
        "generator-empties",
     "map", "set-one", "bytes-subclass", "list-subclass"],
)  # fmt: skip
def test_every_iterable_of_bytes_is_served(server, kind, name):
    reply = server.get("/" + name, kind)
    body = dechunked(reply)
    assert (reply.status, reply.header("Content-Type"), body) == (200, "text/plain", b"onetwo")


def dechunked(reply):
    """The body, decoded where the reply is chunked; the last chunk must be there."""
    if reply.header("Transfer-Encoding") != "chunked":
        return reply.body
    body, rest = b"", reply.body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if size == b"0":
            assert rest == b"\r\n"
            return body
        body += rest[: int(size, 16)]
        assert rest[int(size, 16) : int(size, 16) + 2] == b"\r\n"
        rest = rest[int(size, 16) + 2 :]


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize("name", ["bytes", "list-one", "list-two", "tuple-two", "list-empties"])
def test_a_body_that_is_all_there_gets_a_content_length(server, kind, name):
    # PEP 3333, "Handling the Content-Length Header": the server can know it.
    reply = server.get("/" + name, kind)
    assert (reply.header("Content-Length"), reply.header("Transfer-Encoding")) == ("6", None)


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize(
    "name", ["none-at-all", "empty", "empties", "bytes-empty", "generator-nothing", "generator-empty"]
)
def test_an_empty_body_is_a_complete_reply_of_no_bytes(server, kind, name):
    reply = server.get("/" + name, kind)
    assert (reply.status, reply.header("Content-Type"), reply.body) == (200, "text/plain", b"")
    assert reply.header("Content-Length") == "0"


@pytest.mark.parametrize("kind", DIRECT)
def test_a_second_start_response_is_an_assertion_error_in_the_application(server, kind):
    reply = server.get("/twice-caught", kind)
    assert (reply.status, reply.header("X-Which"), reply.body) == (200, "first", b"AssertionError")


@pytest.mark.parametrize("kind", DIRECT)
def test_exc_info_before_the_headers_replaces_all_of_them(server, kind):
    reply = server.get("/replaced", kind)
    assert (reply.status, reply.reason, reply.body) == (503, "Oops", b"replaced")
    assert (reply.header("X-First"), reply.header("X-Second")) == (None, "2")
    assert reply.header("Content-Length") == "8"


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize("name", ["replaced-from-204", "replaced-in-generator"])
def test_exc_info_replaces_a_status_without_a_body_by_one_with_a_body(server, kind, name):
    reply = server.get("/" + name, kind)
    assert (reply.status, reply.reason, dechunked(reply)) == (503, "Oops", b"replaced")


@pytest.mark.parametrize("kind", DIRECT)
def test_exc_info_in_the_first_call_is_a_first_call(server, kind):
    reply = server.get("/exc-info-alone", kind)
    assert (reply.status, reply.body) == (503, b"first call")


@pytest.mark.parametrize("kind", DIRECT)
def test_exc_info_after_the_headers_is_raised_again_and_the_reply_is_cut(server, kind):
    start = len(server.log.lines)
    with server.connect(kind) as sock:
        sock.sendall(request(kind, "/reraised"))
        data, end = read_end(sock)
    assert end == "reset"
    assert b"503" not in data
    assert b"0\r\n\r\n" not in data
    assert server.log.wait_for("re-raised:", start=start) == "re-raised: after the headers"


def request(kind, target, method="GET"):
    return request_bytes(kind, target, method, b"")


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize("name", ["late-start", "generator-application"])
def test_start_response_may_be_called_as_late_as_before_the_first_chunk(server, kind, name):
    reply = server.get("/" + name, kind)
    assert (reply.status, reply.header("X-Late"), dechunked(reply)) == (202, "yes", b"late")


@pytest.mark.parametrize("kind", DIRECT)
def test_the_write_callable_comes_before_the_iterable(server, kind):
    assert dechunked(server.get("/written", kind)) == b"onetwothree"


@pytest.mark.parametrize("kind", DIRECT)
def test_the_write_callable_alone_makes_a_reply(server, kind):
    reply = server.get("/written-alone", kind)
    assert (reply.header("Content-Length"), reply.body) == ("6", b"onetwo")


@pytest.mark.parametrize("kind", DIRECT)
def test_a_str_after_bytes_cuts_the_reply(server, kind):
    with server.connect(kind) as sock:
        sock.sendall(request(kind, "/text-after-bytes"))
        data, end = read_end(sock)
    assert end == "reset"
    assert b"text" not in data.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("kind", DIRECT)
def test_repeated_and_empty_and_latin_1_headers_arrive_in_order(server, kind):
    reply = server.get("/repeated", kind)
    own = [(n, v) for n, v in reply.headers if n.lower() in ("set-cookie", "x-latin", "x-empty")]
    assert own == [("Set-Cookie", "a=1"), ("X-Latin", "caf\xe9"), ("set-cookie", "b=2"), ("X-Empty", "")]


@pytest.mark.parametrize("kind", DIRECT)
def test_hop_by_hop_headers_of_the_application_do_not_leave(server, kind):
    reply = server.get("/hop-by-hop", kind)
    assert [reply.header(n) for n in ("Transfer-Encoding", "Keep-Alive", "Upgrade", "Trailer")] == [
        None,
        None,
        None,
        None,
    ]
    assert (reply.header("X-Kept"), reply.body) == ("yes", b"plain")


@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
def test_over_uwsgi_the_reply_says_nothing_that_is_nginx_business(server, kind):
    reply = server.get("/list-one", kind)
    assert [reply.header(n) for n in ("Date", "Server", "Connection", "Transfer-Encoding")] == [None, None, None, None]
    assert server.get("/generator", kind).header("Transfer-Encoding") is None


def test_over_http_the_reply_has_date_and_server(server):
    reply = server.get("/list-one", "http")
    assert reply.header("Server") is not None
    assert reply.header("Date").endswith(" GMT")


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize("name", ["no-content", "not-modified"])
def test_204_and_304_have_no_body_and_no_framing(server, kind, name):
    with server.connect(kind) as sock:
        sock.sendall(request(kind, "/" + name))
        data, end = read_end(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    assert (body, end) == (b"", "end of file")
    assert b"transfer-encoding" not in head.lower()
    assert b"content-length" not in head.lower()


@pytest.mark.parametrize("kind", DIRECT)
def test_a_content_length_of_the_application_does_not_leave_with_a_204(server, kind):
    # RFC 9110 8.6: "A server MUST NOT send a Content-Length header field in any response with a status code of 204".
    reply = server.get("/no-content-length", kind)
    assert (reply.status, reply.header("Content-Length"), reply.body) == (204, None, b"")


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize(
    "name",
    ["hello", "bytes", "list-two", "generator", "generator-empties", "written", "large", "large-chunks", "exact",
        "too-short",
     "late-start"],
)  # fmt: skip
def test_a_head_gets_the_headers_and_no_body(server, kind, name):
    with server.connect(kind) as sock:
        sock.sendall(request(kind, "/" + name, "HEAD"))
        data, end = read_end(sock)
    assert data.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 202 Accepted\r\n"))
    assert data.endswith(b"\r\n\r\n")
    assert data.count(b"\r\n\r\n") == 1
    assert end == "end of file"


def test_the_application_s_own_length_stays_in_the_reply_to_a_head(server):
    assert server.get("/exact", "http", "HEAD").header("content-length") == "5"


def test_a_head_leaves_the_connection_usable(server):
    data = server.raw(
        b"HEAD /generator HTTP/1.1\r\nHost: x\r\n\r\nHEAD /exact HTTP/1.1\r\nHost: x\r\n\r\n"
        b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    heads = data.split(b"\r\n\r\n")
    assert [head[:15] for head in heads[:3]] == [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"]
    assert heads[3:] == [b"hello"]


def test_a_204_leaves_the_connection_usable(server):
    data = server.raw(
        b"GET /no-content HTTP/1.1\r\nHost: x\r\n\r\nGET /not-modified HTTP/1.1\r\nHost: x\r\n\r\n"
        b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    heads = data.split(b"\r\n\r\n")
    assert [head[:12] for head in heads[:3]] == [b"HTTP/1.1 204", b"HTTP/1.1 304", b"HTTP/1.1 200"]
    assert heads[3:] == [b"hello"]


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize("name", ["too-long", "too-long-list", "too-long-generator", "too-long-written"])
def test_more_than_content_length_is_not_sent_and_is_logged(server, kind, name):
    start = len(server.log.lines)
    with server.connect(kind) as sock:
        sock.sendall(request(kind, "/" + name))
        data, end = read_end(sock)
    assert data.partition(b"\r\n\r\n")[2] == b"12345"
    assert end == "end of file"
    assert "Content-Length" in server.log.wait_for(f"'/{name}'", start=start)


@pytest.mark.parametrize("name", ["too-long", "too-long-list", "too-long-generator", "too-long-written"])
def test_a_surplus_never_becomes_the_next_reply(server, name):
    data = server.raw(
        f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    assert b"smuggled" not in data
    assert data.count(b"HTTP/1.1 ") == 2
    assert b"\r\n\r\n12345HTTP/1.1 200 OK\r\n" in data
    assert data.endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize("name", ["too-short", "too-short-generator"])
def test_less_than_content_length_cuts_the_connection_and_is_logged(server, kind, name):
    start = len(server.log.lines)
    with server.connect(kind) as sock:
        sock.sendall(request(kind, "/" + name))
        data, end = read_end(sock)
    assert end == "reset"
    assert len(data.partition(b"\r\n\r\n")[2]) <= 5
    line = server.log.wait_for(f"'/{name}'", start=start)
    assert "100" in line
    assert "5 bytes" in line


@pytest.mark.parametrize("kind", DIRECT)
def test_a_promised_length_and_no_body_at_all_is_no_complete_reply(server, kind):
    start = len(server.log.lines)
    with server.connect(kind) as sock:
        sock.sendall(request(kind, "/too-short-empty"))
        data, end = read_end(sock)
    if not data.startswith(b"HTTP/1.1 500 "):  # nothing had been sent: a real 500 would be better still
        assert end == "reset"
    server.log.wait_for("'/too-short-empty'", start=start)


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize(("name", "body"), [("exact", b"12345"), ("zero", b"")])
def test_the_application_s_own_length_is_sent_once(server, kind, name, body):
    reply = server.get("/" + name, kind)
    lengths = [(n, v) for n, v in reply.headers if n.lower() == "content-length"]
    assert [v for _, v in lengths] == [str(len(body))]
    assert (reply.header("Transfer-Encoding"), reply.body) == (None, body)


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize("name", ["large", "large-chunks"])
def test_a_large_body_arrives_whole(server, kind, name):
    reply = server.get("/" + name, kind)
    assert dechunked(reply) == b"x" * 3_000_000


def test_http_10_gets_a_body_that_ends_with_the_connection(server):
    data = server.raw(b"GET /generator HTTP/1.0\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"onetwo"


def test_http_11_gets_chunks_where_no_length_is_known(server):
    data = server.raw(b"GET /generator HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("keep", "use"), [("keep-write", "use-write"), ("keep-write-of-chunks", "use-write"), ("keep-start", "use-start")]
)
def test_what_start_response_gave_is_useless_after_its_request(server, keep, use):
    # On a kept connection a late write would be the beginning of the next reply, which may be somebody else's.
    with server.connect() as sock:
        sock.sendall(f"GET /{keep} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        first = read_until(sock, b"hello\r\n0\r\n\r\n" if "chunks" in keep else b"hello")
        assert server.get(f"/{use}", "http").body == b"refused"
        sock.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        second, end = read_end(sock)
    assert b"INJECTED" not in first + second
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")
    assert second.endswith(b"\r\n\r\nhello")
    assert end == "end of file"


@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
def test_a_write_after_a_uwsgi_request_is_refused_and_harmless(server, kind):
    assert server.get("/keep-write", kind).body == b"hello"
    assert server.get("/use-write", kind).body == b"refused"
    assert server.get("/hello", kind).body == b"hello"
