"""Good heads: the variables they become, how their bodies are framed, and what the connection may do afterwards."""

from __future__ import annotations

import pytest
from wire_http1_feeding import LIMITS, PEER, SECOND, Verdict, bytewise, request_of, step, whole

from corelet.base.limits import Limits
from corelet.wire import http1
from corelet.wire.http1 import HeadParser, cgi_key
from corelet.wire.http1_rules import METHODS
from corelet.wire.request import CHUNKED, Request

BROWSER = (
    b"GET /path/to/page?x=1&y=%20 HTTP/1.1\r\n"
    b"Host: www.example.com:8080\r\n"
    b"Connection: keep-alive\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"Accept: text/html,*/*;q=0.8\r\n"
    b"Cookie: a=1; b=2\r\n\r\n"
)


def get(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a\r\n") -> bytes:
    return line + b"\r\n" + host + b"".join(text + b"\r\n" for text in lines) + b"\r\n"


GOOD = [
    BROWSER,
    get(),
    get(line=b"GET / HTTP/1.0", host=b""),
    get(b"X-Empty:", b"X-Blank: \t ", b"X-Last:"),
    get(b"X: a", b"x: b"),
    get(b"X_y: a", b"Proxy: b"),
    get(b"Content-Length: 5", line=b"POST / HTTP/1.1"),
    get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1"),
    get(b"Connection: close"),
    get(b"Proxy-Connection: close"),
    get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"),
    get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    get(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 3", line=b"POST / HTTP/1.1"),
    get(line=b"OPTIONS * HTTP/1.1"),
    get(line=b"GET http://b/ HTTP/1.1"),
    b"\r\n" + get(),
    b"\r\n\r\n" + get(),
]


@pytest.mark.parametrize("data", GOOD, ids=lambda data: ascii(data)[2:60])
def test_a_head_ends_where_it_ends_however_it_arrives(data: bytes) -> None:
    verdict = whole(data)
    assert verdict.status == 0, verdict
    assert verdict.consumed == len(data)
    assert bytewise(data) == verdict
    assert bytewise(data + SECOND) == verdict
    assert whole(data + SECOND) == verdict
    for size in range(len(data)):
        assert whole(data[:size]) == Verdict()


@pytest.mark.parametrize("data", GOOD, ids=lambda data: ascii(data)[2:60])
def test_the_next_head_on_the_connection_is_read_as_if_it_were_the_first(data: bytes) -> None:
    parser = HeadParser(LIMITS, PEER)
    for _ in range(3):
        assert step(parser, data) == whole(data)
        assert step(parser, SECOND + data) == whole(SECOND)


def test_a_browsers_request_becomes_cgi_variables() -> None:
    request = request_of(BROWSER)
    assert request.variables == {
        **PEER,
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/path/to/page?x=1&y=%20",
        "PATH_INFO": "/path/to/page",
        "QUERY_STRING": "x=1&y=%20",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "",
        "HTTP_HOST": "www.example.com:8080",
        "HTTP_CONNECTION": "keep-alive",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64)",
        "HTTP_ACCEPT": "text/html,*/*;q=0.8",
        "HTTP_COOKIE": "a=1; b=2",
    }
    assert (request.body_length, request.keep_alive, request.expects_continue, request.http_10) == (
        0,
        True,
        False,
        False,
    )


def test_each_request_has_variables_of_its_own() -> None:
    peer = dict(PEER)
    parser = HeadParser(LIMITS, peer)
    first, second = parser.parse(BROWSER), parser.parse(SECOND)
    assert first is not None
    assert second is not None
    first[0].variables["REMOTE_ADDR"] = "changed"
    assert second[0].variables["REMOTE_ADDR"] == "192.0.2.1"
    assert peer == PEER
    assert "HTTP_COOKIE" not in second[0].variables


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/?", "/", ""),
        (b"/?a?b", "/", "a?b"),
        (b"/a%20b", "/a b", ""),
        (b"/a%2520b", "/a%20b", ""),
        (b"/%c3%A9", "/\xc3\xa9", ""),
        (b"/a%2fb", "/a/b", ""),
        (b"/a%3Fb?c%3Fd", "/a?b", "c%3Fd"),
        (b"/%zz%4%", "/%zz%4%", ""),
        (b"/?%00", "/", "%00"),
        (b"/a/../b//c/./d", "/a/../b//c/./d", ""),
        (b"//a", "//a", ""),
        (b"/%2e%2e/", "/../", ""),
        (b"/a+b;c=d", "/a+b;c=d", ""),
        (b'/"<>\\^`{|}', '/"<>\\^`{|}', ""),
        (b"/%0d%0a", "/\r\n", ""),
    ],
)
def test_the_path_is_decoded_once_and_never_normalised(target: bytes, path: str, query: str) -> None:
    variables = request_of(get(line=b"GET %b HTTP/1.1" % target)).variables
    assert variables["PATH_INFO"] == path
    assert variables["QUERY_STRING"] == query
    assert variables["REQUEST_URI"] == target.decode()


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"http://b", "b", "/", ""),
        (b"http://b/", "b", "/", ""),
        (b"http://b?c", "b", "/", "c"),
        (b"http://b:81/c?d/e", "b:81", "/c", "d/e"),
        (b"HTTPS://[::1]:443/c%20d", "[::1]:443", "/c d", ""),
        (b"http://b//c", "b", "//c", ""),
    ],
)
def test_the_host_of_an_absolute_target_wins_over_the_header(target: bytes, host: str, path: str, query: str) -> None:
    variables = request_of(get(line=b"GET %b HTTP/1.1" % target)).variables
    assert variables["HTTP_HOST"] == host
    assert variables["PATH_INFO"] == path
    assert variables["QUERY_STRING"] == query
    assert variables["REQUEST_URI"] == target.decode()


def test_an_absolute_target_does_not_change_the_host_of_the_next_request() -> None:
    parser = HeadParser(LIMITS, PEER)
    for target, host in ((b"/", "a"), (b"http://b/", "b"), (b"/", "a"), (b"http://a/", "a")):
        answer = parser.parse(get(line=b"GET %b HTTP/1.1" % target))
        assert answer is not None
        assert answer[0].variables["HTTP_HOST"] == host


def test_every_request_is_asked_for_its_host() -> None:
    parser = HeadParser(LIMITS, PEER)
    assert step(parser, get()).status == 0
    assert step(parser, get(line=b"GET / HTTP/1.0", host=b"")).status == 0
    assert step(parser, get(host=b"")).status == 400


def test_an_asterisk_target_has_no_path() -> None:
    variables = request_of(get(line=b"OPTIONS * HTTP/1.1")).variables
    assert (variables["PATH_INFO"], variables["REQUEST_URI"], variables["QUERY_STRING"]) == ("", "*", "")


@pytest.mark.parametrize(
    "host",
    [
        "a",
        "example.com",
        "EXAMPLE.com.",
        "a:80",
        "a:",
        "192.0.2.1:8080",
        "[::1]",
        "[::1]:80",
        "[v1.a:b]",
        "a_b",
        "%C3%A9",
        "xn--a",
    ],
)
def test_a_valid_host_is_passed_on_as_it_is(host: str) -> None:
    assert request_of(get(host=b"Host: %b\r\n" % host.encode())).variables["HTTP_HOST"] == host


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_of_the_table_is_served(method: str) -> None:
    assert request_of(get(line=method.encode() + b" / HTTP/1.1")).variables["REQUEST_METHOD"] == method


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"X:y", "y"),
        (b"X: y", "y"),
        (b"X: \t y \t ", "y"),
        (b"X:", ""),
        (b"X: \t", ""),
        (b"X: y\tz  w", "y\tz  w"),
        (b"X: \xe9\xff\x80", "\xe9\xff\x80"),
        (b"X: \x85y\xa0", "\x85y\xa0"),  # blanks to str.strip(), not to HTTP
        (b"X: a:b: c", "a:b: c"),
        (b"X: :", ":"),
    ],
)
def test_a_value_is_latin_1_without_blanks_around_it(raw: bytes, value: str) -> None:
    assert request_of(get(raw)).variables["HTTP_X"] == value
    assert request_of(get(raw, b"Y: 1", b"Y: 2")).variables["HTTP_X"] == value


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        ((b"X: a", b"X: b"), "HTTP_X", "a, b"),
        ((b"X: a", b"Y: c", b"X: b", b"x: d "), "HTTP_X", "a, b, d"),
        ((b"X: a", b"X: a"), "HTTP_X", "a, a"),
        ((b"X:", b"X: b", b"X:"), "HTTP_X", ", b, "),
        ((b"Cookie: a=1", b"cookie: b=2", b"Cookie: c=3"), "HTTP_COOKIE", "a=1; b=2; c=3"),
        (
            (b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-For: 192.0.2.2"),
            "HTTP_X_FORWARDED_FOR",
            "192.0.2.1, 192.0.2.2",
        ),
    ],
)
def test_repeated_headers_are_joined_and_none_is_lost(lines: tuple[bytes, ...], key: str, value: str) -> None:
    assert request_of(get(*lines)).variables[key] == value
    assert bytewise(get(*lines)) == whole(get(*lines))


def test_names_with_an_underscore_are_dropped() -> None:
    # CVE-2015-0219: X-Auth_User taken for X-Auth-User
    variables = request_of(
        get(b"X_Auth_User: root", b"X-Auth_User: root", b"X-Auth-User: me", b"Content_Length: 5")
    ).variables
    assert variables["HTTP_X_AUTH_USER"] == "me"
    assert "CONTENT_LENGTH" not in variables
    assert "" not in variables


def test_an_underscored_framing_header_frames_nothing() -> None:
    request = request_of(
        get(b"Content_Length: 5", b"Transfer_Encoding: chunked", b"Expect_: x", line=b"POST / HTTP/1.1")
    )
    assert request.body_length == 0
    assert not any(key.startswith(("CONTENT", "HTTP_TRANSFER", "HTTP_EXPECT")) for key in request.variables)


def test_a_proxy_header_is_dropped() -> None:
    # httpoxy, CVE-2016-1000110
    for name in (b"Proxy", b"PROXY", b"proxy"):
        assert "HTTP_PROXY" not in request_of(get(name + b": http://evil/")).variables


def test_content_headers_are_not_repeated_as_http_variables() -> None:
    variables = request_of(get(b"Content-Type: text/plain", b"content-length: 0", line=b"POST / HTTP/1.1")).variables
    assert variables["CONTENT_TYPE"] == "text/plain"
    assert variables["CONTENT_LENGTH"] == "0"
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & set(variables)


def test_content_variables_are_absent_when_not_sent() -> None:
    assert not {"CONTENT_TYPE", "CONTENT_LENGTH"} & set(request_of(get()).variables)


@pytest.mark.parametrize(
    "name",
    ["Script-Name", "SCRIPT-NAME", "Remote-User", "HTTPS", "Server-Name", "Server-Port", "Remote-Addr", "Path-Info"],
)
def test_no_header_sets_a_variable_of_the_server(name: str) -> None:
    plain = request_of(get()).variables
    variables = request_of(get(name.encode() + b": forged")).variables
    assert variables == {**plain, "HTTP_" + name.upper().replace("-", "_"): "forged"}


def test_forwarded_headers_change_nothing_but_their_own_variables() -> None:
    lines = [b"X-Forwarded-Proto: https", b"X-Forwarded-For: 198.51.100.1", b"X-Forwarded-SSL: on", b"Forwarded: for=x"]
    variables = request_of(get(*lines)).variables
    assert {key: value for key, value in variables.items() if key in PEER} == PEER
    assert "HTTPS" not in variables


def test_names_keep_their_other_token_characters() -> None:
    assert request_of(get(b"X.y!z: 1")).variables["HTTP_X.Y!Z"] == "1"


@pytest.mark.parametrize(
    ("line", "connection", "keep_alive"),
    [
        (b"HTTP/1.1", None, True),
        (b"HTTP/1.1", b"keep-alive", True),
        (b"HTTP/1.1", b"close", False),
        (b"HTTP/1.1", b"Close", False),
        (b"HTTP/1.1", b"foo, CLOSE ,bar", False),
        (b"HTTP/1.1", b"keep-alive, close", False),
        (b"HTTP/1.1", b"closed", True),
        (b"HTTP/1.1", b"", True),
        (b"HTTP/1.1", b"Upgrade", True),
        (b"HTTP/1.0", None, False),
        (b"HTTP/1.0", b"keep-alive", True),
        (b"HTTP/1.0", b"x,\tKeep-Alive", True),
        (b"HTTP/1.0", b"Keep-Alive, close", False),
        (b"HTTP/1.0", b"close", False),
        (b"HTTP/1.0", b"Upgrade", False),
    ],
)
def test_the_connection_is_kept_as_version_and_connection_say(
    line: bytes, connection: bytes | None, keep_alive: bool
) -> None:
    lines = [] if connection is None else [b"Connection: " + connection]
    request = request_of(get(*lines, line=b"GET / " + line))
    assert request.keep_alive is keep_alive
    assert request.http_10 is (line == b"HTTP/1.0")


def test_close_in_a_second_connection_header_counts() -> None:
    assert not request_of(get(b"Connection: keep-alive", b"Connection: close")).keep_alive


@pytest.mark.parametrize(
    ("lines", "body_length"),
    [
        ([], 0),
        ([b"Content-Length: 0"], 0),
        ([b"Content-Length: 5"], 5),
        ([b"Content-Length: 0005"], 5),
        ([b"Content-Length: \t5 \t"], 5),
        ([b"Content-Length: 999999999999999999"], 999999999999999999),
        ([b"Transfer-Encoding: chunked"], CHUNKED),
        ([b"transfer-encoding:CHUNKED "], CHUNKED),
        ([b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 7"], 7),
        ([b"Connection: Upgrade", b"Upgrade: h2c", b"Transfer-Encoding: chunked"], CHUNKED),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS", b"QUERY"])
def test_the_body_is_framed_by_its_headers_whatever_the_method(
    lines: list[bytes], body_length: int, method: bytes
) -> None:
    request = request_of(get(*lines, line=method + b" / HTTP/1.1"))
    assert request.body_length == body_length


def test_a_body_is_left_in_the_buffer() -> None:
    head = get(b"Content-Length: 12", line=b"POST / HTTP/1.1")
    body = b"\r\n\r\n\x00\x16\xff\r\n\r\n\n"
    assert whole(head + body).consumed == len(head)
    assert bytewise(head + body).consumed == len(head)


def test_a_body_length_within_the_limit_is_accepted() -> None:
    limits = Limits(max_body_bytes=10)
    assert whole(get(b"Content-Length: 10"), limits).status == 0
    assert whole(get(b"Content-Length: 11"), limits).status == 413
    assert whole(get(b"Transfer-Encoding: chunked"), limits).status == 0  # ChunkedDecoder counts those


@pytest.mark.parametrize(
    ("version", "lines", "expects"),
    [
        (b"1.1", [b"Content-Length: 5", b"Expect: 100-continue"], True),
        (b"1.1", [b"Content-Length: 5", b"Expect: 100-Continue "], True),
        (b"1.1", [b"Transfer-Encoding: chunked", b"Expect: 100-continue"], True),
        (b"1.1", [b"Content-Length: 0", b"Expect: 100-continue"], False),
        (b"1.1", [b"Expect: 100-continue"], False),
        (b"1.1", [b"Content-Length: 5"], False),
        (b"1.0", [b"Content-Length: 5", b"Expect: 100-continue"], False),
        (b"1.0", [b"Content-Length: 5", b"Expect: something"], False),
    ],
)
def test_a_continue_is_expected_only_where_http_1_1_has_a_body(
    version: bytes, lines: list[bytes], expects: bool
) -> None:
    assert request_of(get(*lines, line=b"POST / HTTP/" + version)).expects_continue is expects


def test_an_offer_to_upgrade_is_an_ordinary_request() -> None:
    head = get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ")
    request = request_of(head + SECOND)
    assert request.variables["HTTP_UPGRADE"] == "h2c"
    assert request.variables["HTTP_CONNECTION"] == "Upgrade, HTTP2-Settings"
    assert request.keep_alive


def test_the_name_cache_is_bounded_in_entries_and_bytes() -> None:
    assert b"X" * 500 not in http1.CGI_KEYS
    for number in range(0, 3000, 50):
        request_of(get(*(b"X-Invented-%d: y" % (number + offset) for offset in range(50))))
    assert len(http1.CGI_KEYS) <= http1.MAX_CACHED_NAMES
    assert request_of(get(b"X-Never-Seen: y")).variables["HTTP_X_NEVER_SEEN"] == "y"
    long = request_of(get(b"X" * 500 + b": y"))
    assert long.variables["HTTP_" + "X" * 500] == "y"
    assert b"X" * 500 not in http1.CGI_KEYS
    assert http1.CGI_KEYS[b"Accept"] == "HTTP_ACCEPT"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"Accept-Language", "HTTP_ACCEPT_LANGUAGE"),
        (b"content-type", "CONTENT_TYPE"),
        (b"CONTENT-LENGTH", "CONTENT_LENGTH"),
        (b"proxy", ""),
        (b"a_b", ""),
        (b"s", "HTTP_S"),
        (b"Proxy-Connection", "HTTP_PROXY_CONNECTION"),
    ],
)
def test_a_header_name_has_one_cgi_key(name: bytes, key: str) -> None:
    assert cgi_key(name) == key


def test_a_request_shows_what_it_is() -> None:
    request = Request({"REQUEST_METHOD": "GET", "REQUEST_URI": "/\n"}, CHUNKED, keep_alive=True)
    assert repr(request) == "<Request GET '/\\n' body_length=-1 keep_alive=True>"
    assert not hasattr(request, "__dict__")
