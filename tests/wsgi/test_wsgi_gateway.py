"""The gateway and the reply with a fake writer: what PEP 3333 asks of a server, byte by byte and in order."""

import gzip
import io
import os
import sys

import pytest
from wsgi_fakes import FakeWriter, environ

from corelet.base.errors import ResponseError
from corelet.wsgi.file_wrapper import FileWrapper
from corelet.wsgi.gateway import run
from corelet.wsgi.response import Response


def answer(result, status="200 OK", headers=(), method="GET", chunked=False):
    """Run an application that returns `result`; gives the writer and the response."""
    writer = FakeWriter(chunked)
    response = Response(writer, method == "HEAD")

    def application(_environ, start_response):
        start_response(status, list(headers))
        return result

    run(application, environ(method), response)
    return writer, response


@pytest.mark.parametrize(
    "result", [[b"hello"], (b"hello",), b"hello", [b"he", b"llo"], [b"", b"hello", b""], (b"hel", b"lo")]
)
def test_a_body_that_is_all_there_leaves_in_one_send_with_its_length(result):
    writer, response = answer(result, headers=[("X-A", "b")])
    assert writer.events == [b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello"]
    assert response.complete is True
    assert (response.status, response.body_bytes, response.head_bytes) == (200, 5, 46)


@pytest.mark.parametrize("result", [[], [b""], (), b"", [b"", b""]])
def test_an_empty_body_has_length_0(result):
    writer, response = answer(result)
    assert writer.data == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert response.complete is True


def test_each_chunk_of_an_iterator_leaves_before_the_next_is_made():
    writer = FakeWriter()
    response = Response(writer)

    def application(_environ, start_response):
        start_response("200 OK", [])
        for number in (b"1", b"2"):
            writer.events.append(f"making {number.decode()}")
            yield b"chunk " + number
        writer.events.append("done")

    run(application, environ(), response)
    assert writer.events == ["making 1", b"HTTP/1.1 200 OK\r\n\r\nchunk 1", "making 2", b"chunk 2", "done"]


def test_chunks_are_framed_where_the_protocol_asks_for_it():
    writer, _ = answer(iter([b"one", b"", b"x" * 20]), chunked=True)
    assert writer.data == (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n14\r\nxxxxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n"
    )


def test_a_large_chunk_is_framed_too():
    writer, _ = answer(iter([b"x" * 100_000]), chunked=True)
    assert (
        writer.data
        == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n"
    )


@pytest.mark.parametrize("size", [16383, 16384, 16385, 1_000_000])
def test_a_body_of_any_size_arrives(size):
    writer, response = answer([b"x" * size])
    assert writer.data == b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    assert response.body_bytes == size


def test_an_empty_chunk_sends_no_headers():
    writer = FakeWriter()
    response = Response(writer)

    def application(_environ, start_response):
        start_response("200 OK", [("X-Which", "first")])
        yield b""
        assert writer.events == []
        start_response("201 Created", [("X-Which", "second")], (ValueError, ValueError(), None))
        yield b"x"

    run(application, environ(), response)
    assert writer.data == b"HTTP/1.1 201 Created\r\nX-Which: second\r\n\r\nx"


@pytest.mark.parametrize("result", [[b"x"], (b"x", b"y"), b"x", [], iter([b"x"]), iter([])])
def test_without_start_response_there_is_no_reply(result):
    writer = FakeWriter()
    with pytest.raises(ResponseError, match="start_response"):
        run(lambda _environ, _start: result, environ(), Response(writer))
    assert writer.events == []


@pytest.mark.parametrize(
    "result",
    [
        "text",
        bytearray(b"x"),
        memoryview(b"x"),
        None,
        5,
        ["text"],
        [bytearray(b"x")],
        [None],
        [b"x", "y"],
        ("x",),
        {"a": 1},
    ],
)
def test_what_is_no_iterable_of_bytes_is_an_error_and_nothing_is_sent(result):
    writer = FakeWriter()

    def application(_environ, start_response):
        start_response("200 OK", [])
        return result

    response = Response(writer)
    try:
        with pytest.raises((ResponseError, TypeError)):
            run(application, environ(), response)
    finally:
        assert response.complete is False
    assert writer.data in (b"", b"HTTP/1.1 200 OK\r\n\r\nx")  # the first chunk of a list may have left


def test_an_error_message_about_a_str_says_what_to_do():
    with pytest.raises(ResponseError, match="encode"):
        answer(["text"])


class Closing:
    def __init__(self, chunks, events):
        self.chunks, self.events = chunks, events

    def __iter__(self):
        for chunk in self.chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    def close(self):
        self.events.append("closed")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("chunks", [[], [b"x"], [b"x", b"y"], [b""]])
def test_close_is_called_after_the_last_byte(method, status, chunks):
    writer = FakeWriter()

    def application(_environ, start_response):
        start_response(status, [])
        return Closing(chunks, writer.events)

    run(application, environ(method), Response(writer, method == "HEAD"))
    assert writer.events.count("closed") == 1
    assert writer.events[-1] == "closed"


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("before", [[], [b"x"]])
def test_close_is_called_after_an_error(error, before):
    writer = FakeWriter()

    def application(_environ, start_response):
        start_response("200 OK", [])
        return Closing([*before, error], writer.events)

    with pytest.raises(type(error)):
        run(application, environ(), Response(writer))
    assert writer.events[-1] == "closed"


def test_close_is_called_when_the_peer_has_gone():
    writer = FakeWriter()
    writer.failure = ConnectionResetError()

    def application(_environ, start_response):
        start_response("200 OK", [])
        return Closing([b"x"], writer.events)

    with pytest.raises(ConnectionResetError):
        run(application, environ(), Response(writer))
    assert writer.events == ["closed"]


def test_close_is_called_where_start_response_was_not():
    events = []
    with pytest.raises(ResponseError):
        run(lambda _environ, _start: Closing([b"x"], events), environ(), Response(FakeWriter()))
    assert events == ["closed"]


@pytest.mark.parametrize("result", [[b"hello"], [b"he", b"llo"], b"hello", []])
@pytest.mark.parametrize(
    ("status", "method"), [("200 OK", "HEAD"), ("204 No Content", "GET"), ("304 Not Modified", "GET")]
)
def test_a_reply_without_a_body_has_none(result, status, method):
    writer, response = answer(result, status=status, method=method, chunked=True)
    assert writer.data.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert writer.data.endswith(b"\r\n\r\n")
    assert writer.data.count(b"\r\n\r\n") == 1
    assert (response.complete, response.body_bytes) == (True, 0)


@pytest.mark.parametrize(
    ("status", "method"), [("200 OK", "HEAD"), ("204 No Content", "GET"), ("304 Not Modified", "GET")]
)
def test_a_generator_s_body_is_not_sent_where_there_is_none(status, method):
    writer, response = answer(iter([b"one", b"two"]), status=status, method=method, chunked=True)
    assert writer.data == f"HTTP/1.1 {status}\r\n\r\n".encode()
    assert response.complete is True


@pytest.mark.parametrize("result", [[b"12345678"], [b"123", b"45678"], b"12345678"])
def test_more_than_content_length_is_dropped(result):
    writer, response = answer(result, headers=[("Content-Length", "5")])
    assert writer.data == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345"
    assert (response.surplus, response.complete) == (True, True)


def test_more_than_content_length_of_a_generator_is_dropped_and_no_more_is_made():
    made = []

    def generate():
        for chunk in (b"123", b"456", b"789", b"0"):
            made.append(chunk)
            yield chunk

    writer, response = answer(generate(), headers=[("Content-Length", "5")])
    assert writer.data == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345"
    assert (response.surplus, response.complete, made) == (True, True, [b"123", b"456"])


@pytest.mark.parametrize("result", [[b"123"], [b"1", b"23"], [], b"123", iter([b"1", b"23"]), iter([])])
def test_less_than_content_length_is_an_error_and_not_complete(result):
    writer = FakeWriter()
    response = Response(writer)

    def application(_environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return result

    with pytest.raises(ResponseError, match="5"):
        run(application, environ(), response)
    assert response.complete is False


def test_the_write_callable_sends_at_once():
    writer = FakeWriter()

    def application(_environ, start_response):
        write = start_response("200 OK", [])
        write(b"one")
        assert writer.events == [b"HTTP/1.1 200 OK\r\n\r\none"]
        write(b"")
        write(b"two")
        assert len(writer.events) == 2
        return [b"three"]

    response = Response(writer)
    run(application, environ(), response)
    assert writer.data == b"HTTP/1.1 200 OK\r\n\r\nonetwothree"
    assert (response.complete, response.body_bytes) == (True, 11)


def test_the_write_callable_after_the_end_is_an_error():
    writer = FakeWriter(chunked=True)
    kept = []

    def application(_environ, start_response):
        kept.append(start_response("200 OK", []))
        return iter([b"x"])

    run(application, environ(), Response(writer))
    before = writer.data
    with pytest.raises(Exception):  # noqa: B017 - whichever, as long as nothing is sent
        kept[0](b"late")
    assert writer.data == before


def test_start_response_twice_is_an_assertion_error_and_keeps_the_first():
    writer = FakeWriter()

    def application(_environ, start_response):
        start_response("200 OK", [("X", "1")])
        with pytest.raises(AssertionError):
            start_response("201 Created", [("X", "2")])
        return [b"x"]

    run(application, environ(), Response(writer))
    assert writer.data == b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 1\r\n\r\nx"


@pytest.mark.parametrize("first", [
    ("200 OK", [("Content-Length", "99"), ("Connection", "close"), ("Date", "x"), ("Server", "x")]),
    ("204 No Content", []), ("304 Not Modified", [])
])  # fmt: skip
def test_exc_info_before_the_headers_replaces_them_entirely(first):
    writer = FakeWriter()

    def application(_environ, start_response):
        start_response(*first)
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oops", [("X", "2")], sys.exc_info())
        return [b"sorry"]

    response = Response(writer)
    run(application, environ(), response)
    assert writer.data == b"HTTP/1.1 500 Oops\r\nX: 2\r\nContent-Length: 5\r\n\r\nsorry"
    assert (response.said_close, response.said_date, response.said_server) == (False, False, False)


def test_exc_info_after_the_headers_raises_its_own_exception():
    error = ValueError("midway")
    writer = FakeWriter()

    def application(_environ, start_response):
        start_response("200 OK", [])
        yield b"x"
        start_response("500 Oops", [], (ValueError, error, None))

    response = Response(writer)
    with pytest.raises(ValueError, match="midway") as caught:
        run(application, environ(), response)
    assert caught.value is error
    assert response.complete is False
    assert writer.data == b"HTTP/1.1 200 OK\r\n\r\nx"


BAD = [
    (b"200 OK", []), (200, []), (None, []), ("", []), ("OK", []), ("20 OK", []), ("2000 OK", []), ("200OK", []),
    ("\uff12\uff10\uff10 OK", []),
    ("200 OK\r\nX: y", []), ("200 OK\r\n", []), ("200 OK\n", []), ("200 O\0K", []), ("100 Continue", []),
    ("101 Switching", []), ("999 No", []),
    ("200 OK", None), ("200 OK", 5), ("200 OK", "ab"), ("200 OK", {"AB": "c"}), ("200 OK", ["AB"]), ("200 OK",
    [("A",)]), ("200 OK", [("A", "b", "c")]),
    ("200 OK", [("A", 1)]), ("200 OK", [("A", None)]), ("200 OK", [("A", b"b")]), ("200 OK", [(b"A", "b")]),
    ("200 OK", [("", "b")]),
    ("200 OK", [("A b", "c")]), ("200 OK", [("A:", "c")]), ("200 OK", [("A\r\nB", "c")]), ("200 OK", [("A\0", "c")]),
    ("200 OK", [("\xc4", "c")]),
    ("200 OK", [("A", "b\r\nC: d")]), ("200 OK", [("A", "b\n")]), ("200 OK", [("A", "\rb")]), ("200 OK", [("A",
    "b\0")]),
    ("200 OK", [("Content-Length", "x")]), ("200 OK", [("Content-Length", "-1")]), ("200 OK", [("Content-Length",
    "+1")]),
    ("200 OK", [("Content-Length", "1_0")]), ("200 OK", [("Content-Length", "\u0665")]), ("200 OK",
    [("Content-Length", "")]),
    ("200 OK", [("Content-Length", "1"), ("Content-Length", "2")]),
]  # fmt: skip


@pytest.mark.parametrize(("status", "headers"), BAD)
def test_what_cannot_be_sent_is_refused_in_start_response_and_nothing_is_sent(status, headers):
    writer = FakeWriter()
    for _ in range(2):  # nothing wrong is remembered as right
        with pytest.raises(ResponseError):
            Response(writer).start_response(status, headers)
    assert writer.events == []


@pytest.mark.parametrize(
    ("status", "headers"), [("200 \u0416", []), ("200 OK", [("A", "\u0416")]), ("200 OK", [("A", "\ud800")])]
)
def test_what_is_not_latin_1_is_an_error_before_anything_is_sent(status, headers):
    writer = FakeWriter()

    def application(_environ, start_response):
        start_response(status, headers)
        return [b"x"]

    with pytest.raises(ResponseError, match="latin-1"):
        run(application, environ(), Response(writer))
    assert writer.events == []


@pytest.mark.parametrize(
    "name", ["Transfer-Encoding", "transfer-encoding", "TE", "Keep-Alive", "Upgrade", "Trailer", "Proxy-Connection"]
)
def test_hop_by_hop_headers_do_not_leave(name):
    writer, _ = answer([b"x"], headers=[(name, "chunked"), ("A", "b")])
    assert writer.data == b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 1\r\n\r\nx"


def test_an_error_reply_replaces_whatever_was_started():
    for status in ("200 OK", "204 No Content", "304 Not Modified"):
        writer = FakeWriter()
        response = Response(writer)
        response.start_response(status, [("Content-Length", "99"), ("Set-Cookie", "secret"), ("Connection", "close")])
        response.replace("500 Internal Server Error", b"sorry")
        head, _, body = writer.data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert b"secret" not in head
        assert head.endswith(b"\r\nContent-Length: 5")
        assert (body, response.complete, response.status) == (b"sorry", True, 500)


# ---- wsgi.file_wrapper ----------------------------------------------------------------------------------------------


def test_a_regular_file_goes_by_descriptor_from_where_it_stands(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with open(tmp_path / "file", "rb") as file:
        file.read(3)
        writer, response = answer(FileWrapper(file))
        assert writer.events == [b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", ("file", 3, 7)]
        assert file.closed is True
    assert (response.complete, response.body_bytes) == (True, 7)


@pytest.mark.parametrize(("promised", "count"), [("5", 5), ("10", 10)])
def test_no_more_of_a_file_than_content_length(tmp_path, promised, count):
    (tmp_path / "file").write_bytes(b"0123456789")
    with open(tmp_path / "file", "rb") as file:
        writer, _ = answer(FileWrapper(file), headers=[("Content-Length", promised)])
    assert writer.events == [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count, ("file", 0, count)]


def test_a_file_shorter_than_content_length_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with open(tmp_path / "file", "rb") as file, pytest.raises(ResponseError):
        answer(FileWrapper(file), headers=[("Content-Length", "11")])


def test_a_head_sends_no_file_and_closes_it(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with open(tmp_path / "file", "rb") as file:
        writer, _ = answer(FileWrapper(file), method="HEAD")
        assert file.closed is True
    assert all(isinstance(event, bytes) for event in writer.events)
    assert writer.data.endswith(b"\r\n\r\n")


def test_a_file_in_memory_is_iterated_over():
    file = io.BytesIO(b"0123456789")
    file.read(1)
    writer, _ = answer(FileWrapper(file, 4))
    assert writer.events == [b"HTTP/1.1 200 OK\r\n\r\n1234", b"5678", b"9"]
    assert file.closed is True


def test_a_wrapper_without_close_needs_none():
    class Reader:
        def __init__(self):
            self.pieces = [b"one", b"two", b""]

        def read(self, _size):
            return self.pieces.pop(0)

    writer, _ = answer(FileWrapper(Reader()))
    assert writer.data == b"HTTP/1.1 200 OK\r\n\r\nonetwo"


def test_a_packed_file_is_iterated_over(tmp_path):
    with gzip.open(tmp_path / "file.gz", "wb") as packed:
        packed.write(b"unpacked")
    with gzip.open(tmp_path / "file.gz") as packed:
        writer, _ = answer(FileWrapper(packed))
    assert writer.events == [b"HTTP/1.1 200 OK\r\n\r\nunpacked"]


def test_a_pipe_is_iterated_over():
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe")
    os.close(writing)
    writer, _ = answer(FileWrapper(os.fdopen(reading, "rb")))
    assert writer.data == b"HTTP/1.1 200 OK\r\n\r\nthrough a pipe"
