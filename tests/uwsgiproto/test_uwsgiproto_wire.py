"""The wire, row by row: what comes, as literal bytes, and what becomes of it however the bytes are cut."""

from collections.abc import Iterable

import pytest

from uwsgiproto import (
    BadBlock,
    BlockTooLarge,
    Event,
    HttpOnUwsgiSocket,
    PacketReceived,
    ProtocolError,
    Reader,
    RepeatedVariable,
    ReservedVariable,
    TlsOnUwsgiSocket,
    TooManyVariables,
    UnsupportedModifier,
)

# name: bytes, the variables they give
GOOD: dict[str, tuple[bytes, dict[str, str]]] = {
    "one variable": (b"\x00\x06\x00\x00\x01\x00A\x01\x00B", {"A": "B"}),
    "an empty value": (b"\x00\x0b\x00\x00\x01\x00A\x00\x00\x01\x00B\x01\x00C", {"A": "", "B": "C"}),
    "an empty value at the end": (b"\x00\x0b\x00\x00\x01\x00B\x01\x00C\x01\x00A\x00\x00", {"B": "C", "A": ""}),
    "exactly 4096 bytes": (b"\x00\x00\x10\x00\x01\x00A\xfb\x0f" + b"x" * 4091, {"A": "x" * 4091}),
    "exactly 65535 bytes": (b"\x00\xff\xff\x00\x01\x00A\xfa\xff" + b"x" * 65530, {"A": "x" * 65530}),
    "a key of 256 bytes": (b"\x00\x04\x01\x00\x00\x01" + b"K" * 256 + b"\x00\x00", {"K" * 256: ""}),
    "129 variables": (
        b"\x00\x08\x04\x00" + b"".join(b"\x04\x00V%03d\x00\x00" % n for n in range(129)),
        {f"V{n:03d}": "" for n in range(129)},
    ),
    "1000 variables": (
        b"\x00\x40\x1f\x00" + b"".join(b"\x04\x00V%03d\x00\x00" % n for n in range(1000)),
        {f"V{n:03d}": "" for n in range(1000)},
    ),
    "non-ASCII bytes": (
        b"\x00\x12\x00\x00\x09\x00PATH_INFO\x05\x00/\xc3\xa9\xff\x80",
        {"PATH_INFO": "/\xc3\xa9\xff\x80"},
    ),
    "a repeated header": (
        b"\x00\x1e\x00\x00\x0a\x00HTTP_X_DUP\x01\x001\x0a\x00HTTP_X_DUP\x01\x002",
        {"HTTP_X_DUP": "1, 2"},
    ),
    "repeated cookies": (
        b"\x00\x24\x00\x00\x0b\x00HTTP_COOKIE\x03\x00a=1\x0b\x00HTTP_COOKIE\x03\x00b=2",
        {"HTTP_COOKIE": "a=1; b=2"},
    ),
    "another repeated variable": (b"\x00\x0c\x00\x00\x01\x00A\x01\x00B\x01\x00A\x01\x00C", {"A": "C"}),
    "modifier1 30": (b"\x1e\x06\x00\x00\x01\x00A\x01\x00B", {"A": "B"}),
    "some modifier2": (b"\x00\x06\x00\x07\x01\x00A\x01\x00B", {"A": "B"}),
    "a key and a value that resemble reserved ones": (
        b"\x00\x13\x00\x00\x05\x00wsgix\x0a\x00wsgi.input",
        {"wsgix": "wsgi.input"},
    ),
}

# name: bytes, the error, words that its reason holds
REFUSED: dict[str, tuple[bytes, type[ProtocolError], str]] = {
    "an empty key": (b"\x00\x05\x00\x00\x00\x00\x01\x00B", BadBlock, "the key of variable 1 is empty"),
    "an empty key later on": (
        b"\x00\x0a\x00\x00\x01\x00A\x00\x00\x00\x00\x01\x00B",
        BadBlock,
        "the key of variable 2 is empty",
    ),
    "a key beyond the end": (b"\x00\x06\x00\x00\x09\x00A\x01\x00B", BadBlock, "ends at byte 11 of a block of 6 bytes"),
    "a key up to the very end": (b"\x00\x06\x00\x00\x04\x00ABCD", BadBlock, "before the length of the value"),
    "a value beyond the end": (b"\x00\x06\x00\x00\x01\x00A\x02\x00B", BadBlock, "ends at byte 7 of a block of 6 bytes"),
    "a value length of 65535": (b"\x00\x06\x00\x00\x01\x00A\xff\xffB", BadBlock, "the value of variable 1"),
    "one trailing byte": (b"\x00\x07\x00\x00\x01\x00A\x01\x00B\x00", BadBlock, "before the length of the key"),
    "two trailing bytes": (b"\x00\x08\x00\x00\x01\x00A\x01\x00B\x00\x00", BadBlock, "the key of variable 2 is empty"),
    "two trailing bytes, no zeros": (b"\x00\x08\x00\x00\x01\x00A\x01\x00B\x01\x00", BadBlock, "ends at byte 9"),
    "half a value length": (b"\x00\x04\x00\x00\x01\x00A\x01", BadBlock, "before the length of the value"),
    "a block of one byte": (b"\x00\x01\x00\x00\x01", BadBlock, "block of 1 bytes"),
    "1001 variables": (
        b"\x00\x48\x1f\x00" + b"".join(b"\x04\x00%04d\x00\x00" % n for n in range(1001)),
        TooManyVariables,
        "more than the 1000 allowed",
    ),
    "1001 times the same variable": (b"\x00\x8d\x13\x00" + b"\x01\x00A\x00\x00" * 1001, TooManyVariables, "1000"),
    "REQUEST_METHOD twice": (
        b"\x00\x2a\x00\x00\x0e\x00REQUEST_METHOD\x03\x00GET\x0e\x00REQUEST_METHOD\x03\x00PUT",
        RepeatedVariable,
        "REQUEST_METHOD came more than once",
    ),
    "PATH_INFO twice": (
        b"\x00\x1c\x00\x00\x09\x00PATH_INFO\x01\x00/\x09\x00PATH_INFO\x01\x00/",
        RepeatedVariable,
        "PATH_INFO",
    ),
    "CONTENT_LENGTH twice": (
        b"\x00\x26\x00\x00\x0e\x00CONTENT_LENGTH\x01\x005\x0e\x00CONTENT_LENGTH\x01\x006",
        RepeatedVariable,
        "CONTENT_LENGTH",
    ),
    "wsgi.input": (b"\x00\x0f\x00\x00\x0a\x00wsgi.input\x01\x00B", ReservedVariable, "'wsgi.input'"),
    "an unknown wsgi.foo": (b"\x00\x0d\x00\x00\x08\x00wsgi.foo\x01\x00B", ReservedVariable, "'wsgi.foo'"),
    "uwsgi.core": (b"\x00\x0f\x00\x00\x0a\x00uwsgi.core\x01\x00B", ReservedVariable, "'uwsgi.core'"),
    "x-wsgiorg.fdevent": (b"\x00\x10\x00\x00\x0b\x00x-wsgiorg.f\x01\x00B", ReservedVariable, "'x-wsgiorg.f'"),
    "a reserved key with control bytes": (
        b"\x00\x0b\x00\x00\x06\x00wsgi.\n\x01\x00B",
        ReservedVariable,
        r"'wsgi.\n'",
    ),
    "PSGI": (b"\x05\x06\x00\x00\x01\x00A\x01\x00B", UnsupportedModifier, "modifier1 5 (PSGI request (Perl))"),
    "spooler": (b"\x11\x06\x00\x00\x01\x00A\x01\x00B", UnsupportedModifier, "modifier1 17 (spooler request)"),
    "symcall": (b"\x12\x06\x00\x00\x01\x00A\x01\x00B", UnsupportedModifier, "modifier1 18"),
    "eval": (b"\x16\x08\x00\x00print(1)", UnsupportedModifier, "modifier1 22 (raw code evaluation)"),
    "signal": (b"\x6e\x00\x00\x01", UnsupportedModifier, "modifier1 110 (signal)"),
    "cache": (b"\x6f\x00\x00\x00", UnsupportedModifier, "modifier1 111 (cache operation)"),
    "RPC": (b"\xad\x04\x00\x00\x02\x00hi", UnsupportedModifier, "modifier1 173 (RPC call)"),
    "subscription": (b"\xe0\x06\x00\x00\x01\x00A\x01\x00B", UnsupportedModifier, "modifier1 224 (subscription)"),
    "a modifier without a name": (
        b"\x01\x00\x00\x00",
        UnsupportedModifier,
        "modifier1 1 (a modifier that uWSGI does not",
    ),
    "a pong": (b"\x64\x00\x00\x01", UnsupportedModifier, "modifier2 of a ping is 0, this one has 1"),
    "a ping with variables": (b"\x64\x06\x00\x00\x01\x00A\x01\x00B", BadBlock, "announces 6 bytes"),
    "garbage": (b"\xde\xad\xbe\xef\x00\x01\x02", UnsupportedModifier, "modifier1 222"),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", TlsOnUwsgiSocket, "speaks uwsgi"),
    "HTTP GET": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", HttpOnUwsgiSocket, "http-socket"),
    "HTTP HEAD": (b"HEAD / HTTP/1.1\r\n\r\n", HttpOnUwsgiSocket, "uwsgi_pass"),
    "HTTP POST": (b"POST / HTTP/1.1\r\n\r\n", HttpOnUwsgiSocket, "uwsgi_pass"),
    "HTTP PUT": (b"PUT / HTTP/1.1\r\n\r\n", HttpOnUwsgiSocket, "uwsgi_pass"),
    "HTTP DELETE": (b"DELETE / HTTP/1.1\r\n\r\n", HttpOnUwsgiSocket, "uwsgi_pass"),
    "HTTP OPTIONS": (b"OPTIONS * HTTP/1.1\r\n\r\n", HttpOnUwsgiSocket, "uwsgi_pass"),
    "HTTP PATCH": (b"PATCH / HTTP/1.1\r\n\r\n", HttpOnUwsgiSocket, "uwsgi_pass"),
    "HTTP TRACE": (b"TRACE / HTTP/1.1\r\n\r\n", HttpOnUwsgiSocket, "uwsgi_pass"),
    "HTTP CONNECT": (b"CONNECT a:1 HTTP/1.1\r\n\r\n", HttpOnUwsgiSocket, "uwsgi_pass"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HttpOnUwsgiSocket, "uwsgi_pass"),
    "WebDAV": (b"PROPFIND / HTTP/1.1\r\n\r\n", HttpOnUwsgiSocket, "uwsgi_pass"),
}

SIGNALS: dict[str, tuple[bytes, Event]] = {
    "no variables": (b"\x00\x00\x00\x00", Event.EMPTY),
    "no variables, modifier1 30": (b"\x1e\x00\x00\x00", Event.EMPTY),
    "ping": (b"\x64\x00\x00\x00", Event.PING),
}


def outcome(pieces: Iterable[bytes], **limits: int) -> tuple[Event | PacketReceived | ProtocolError, bytes]:
    """What the reader comes to, asked after each piece, and the bytes it leaves over."""
    reader = Reader(**limits)
    event: Event | PacketReceived | ProtocolError = Event.NEED_MORE
    for piece in pieces:
        reader.feed(piece)
        now: Event | PacketReceived | ProtocolError
        try:
            now = reader.next_event()
        except ProtocolError as error:
            now = error
        if event is not Event.NEED_MORE:
            assert now == event  # what was said once stays said
        event = now
    return event, reader.unused


def bytewise(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


@pytest.mark.parametrize(("data", "variables"), GOOD.values(), ids=GOOD)
def test_a_good_packet_is_read_however_it_is_cut(data: bytes, variables: dict[str, str]) -> None:
    expected = PacketReceived(data[0], data[3], variables, len(data) - 4)
    whole, _ = outcome([data])
    assert isinstance(whole, PacketReceived)
    assert list(whole.variables) == list(variables)
    assert outcome([data]) == (expected, b"")
    assert outcome(bytewise(data)) == (expected, b"")
    assert outcome([data + b"body=1"]) == (expected, b"body=1")
    assert outcome([data, b"body", b"=1"]) == (expected, b"body=1")


@pytest.mark.parametrize(("data", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_a_bad_packet_is_refused_however_it_is_cut(data: bytes, error: type[ProtocolError], words: str) -> None:
    for pieces in ([data], bytewise(data), [data + b"\x00\x01\x00A\x01\x00B"], [data, b"GET / HTTP/1.1"]):
        refusal, _ = outcome(pieces)
        assert type(refusal) is error
        assert refusal.status == 400
        assert words in refusal.reason
        assert refusal.reason.isprintable()


@pytest.mark.parametrize(("data", "event"), SIGNALS.values(), ids=SIGNALS)
def test_a_packet_without_variables_is_told_apart(data: bytes, event: Event) -> None:
    assert outcome([data]) == (event, b"")
    assert outcome(bytewise(data)) == (event, b"")
    assert outcome([data + b"\x00\x06"]) == (event, b"\x00\x06")


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x00\x06\x00", b"\x00\x06\x00\x00", b"\x00\x06\x00\x00\x01\x00A\x01\x00"]
)
def test_a_packet_cut_short_needs_more(data: bytes) -> None:
    assert outcome([data]) == (Event.NEED_MORE, b"")
    assert outcome(bytewise(data)) == (Event.NEED_MORE, b"")


@pytest.mark.parametrize(
    "data", [data[:4] for data, error, _ in REFUSED.values() if error is not BadBlock and data[0] > 30]
)
def test_what_four_bytes_tell_is_not_waited_for(data: bytes) -> None:
    assert outcome([data[:3]]) == (Event.NEED_MORE, b"")
    assert isinstance(outcome([data])[0], ProtocolError)


def test_a_block_above_the_limit_is_refused_at_its_header() -> None:
    assert isinstance(outcome([b"\x00\x00\x10\x00"], max_block_bytes=4096)[0], Event)
    refusal, _ = outcome([b"\x00\x01\x10\x00"], max_block_bytes=4096)
    assert isinstance(refusal, BlockTooLarge)
    assert refusal.reason == "the packet announces 4097 bytes of variables, the limit is 4096 (buffer-size)"


def test_the_limit_of_variables_is_the_readers() -> None:
    two = b"\x00\x0b\x00\x00\x01\x00A\x00\x00\x01\x00B\x01\x00C"
    assert isinstance(outcome([two], max_vars=2)[0], PacketReceived)
    assert isinstance(outcome([two], max_vars=1)[0], TooManyVariables)
    assert isinstance(outcome([two], max_vars=0)[0], TooManyVariables)


def test_an_http_request_is_told_which_option_to_use() -> None:
    refusal, _ = outcome([b"GET "])
    assert isinstance(refusal, HttpOnUwsgiSocket)
    assert refusal.reason == (
        "this socket speaks uwsgi, and an HTTP request came: "
        "use uwsgi_pass instead of proxy_pass in nginx, or serve HTTP with http-socket (or protocol = http)"
    )
