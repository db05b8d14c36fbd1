"""Peers of a uwsgi socket that are no front end: an answer and one clear line in the log each, for a probe none."""

import socket

import pytest
from harness import PATIENCE_SECONDS, read_all, running

from uwsgiproto.client import build_request, parse_reply

APPLICATION = """
count = 0

def application(environ, start_response):
    if environ["PATH_INFO"] == "/settle":
        global count
        count += 1
        print("settled", count, flush=True)
        environ["wsgi.errors"].flush()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["wsgi.input"].read() or b"hello"]
"""

KINDS = ["uwsgi", "unix"]
GOOD = b"\x00\x28\x00\x00\x0e\x00REQUEST_METHOD\x03\x00GET\x09\x00PATH_INFO\x06\x00/small"
SETTLE = b"\x00\x29\x00\x00\x0e\x00REQUEST_METHOD\x03\x00GET\x09\x00PATH_INFO\x07\x00/settle"


@pytest.fixture(scope="module", params=KINDS)
def served(request, tmp_path_factory):
    """(server, kind): one server for each kind, since the same complaint is logged once an interval."""
    folder = tmp_path_factory.mktemp("peers")
    with running(folder, APPLICATION, "--disable-logging", "--buffer-size=4096") as server:
        yield server, request.param


def settled(served):
    """The number of log lines when all that was to be said about the peers before has been said."""
    server, kind = served
    start = len(server.log.lines)
    assert server.raw(SETTLE, kind).endswith(b"\r\n\r\nhello")
    server.log.wait_for("settled ", start=start)
    return len(server.log.lines)


def exchange(served, data):
    """Send it, keep the sending side open, and return (reply, new lines of the log)."""
    server, kind = served
    start = settled(served)
    reply = server.raw(data, kind)
    if reply.startswith(b"HTTP/"):
        parsed = parse_reply(reply)
        assert parsed.header("Content-Length") == str(len(parsed.body))
    end = settled(served)
    return reply, server.log.lines[start : end - 1]


@pytest.mark.parametrize("method", [b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC"])
def test_http_on_a_uwsgi_socket_is_answered_from_its_first_four_bytes(served, method):
    # "ET" is 21573: with buffers of 64 KiB a legal size, so the server must not wait for the rest.
    reply, _ = exchange(served, method)
    assert reply.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"http-socket" in reply


def test_a_whole_http_request_on_a_uwsgi_socket_is_told_which_option_to_use(tmp_path):
    with running(tmp_path, APPLICATION, "--disable-logging") as server:
        for kind in KINDS:
            reply = server.raw(b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n", kind)
            assert reply.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"http-socket" in reply
            assert b"uwsgi_pass" in reply
        assert " warning " in server.log.wait_for("http-socket")
        settled((server, "uwsgi"))
        assert server.log.count("http-socket") == 1  # the same complaint once an interval


def test_a_large_post_by_http_reads_its_answer_in_peace(served):
    reply, _ = exchange(served, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)
    assert reply.startswith(b"HTTP/1.1 400 Bad Request\r\n")


REFUSED = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x5a" * 500,
    "ssh": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "text": b"hello there\r\n",
    "high": b"\xff" * 64,
    "oversize": b"\x00\x01\x10\x00" + b"\x0e\x00REQUEST_METHOD\x03\x00GET",
    "key-beyond": b"\x00\x04\x00\x00\xff\x00AB",
    "value-beyond": b"\x00\x06\x00\x00\x01\x00A\xff\x00B",
    "empty-key": b"\x00\x05\x00\x00\x00\x00\x01\x00B",
    "trailing-byte": b"\x00\x29\x00\x00" + GOOD[4:] + b"\x00",
    "no-method": b"\x00\x0f\x00\x00\x09\x00PATH_INFO\x02\x00/x",
    "length-negative": build_request({"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "-1"}),
    "length-plus": build_request({"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "+5"}, b"12345"),
    "length-word": build_request({"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "5_0"}, b"12345"),
    "length-arabic": b"\x00\x2a\x00\x00\x0e\x00REQUEST_METHOD\x04\x00POST\x0e\x00CONTENT_LENGTH\x02\x00\xd9\xa5",
    "two-methods": build_request([("REQUEST_METHOD", "GET"), ("PATH_INFO", "/"), ("REQUEST_METHOD", "POST")]),
    "two-paths": build_request([("REQUEST_METHOD", "GET"), ("PATH_INFO", "/"), ("PATH_INFO", "/x")]),
    "two-lengths": build_request(
        [("REQUEST_METHOD", "POST"), ("PATH_INFO", "/"), ("CONTENT_LENGTH", "1"), ("CONTENT_LENGTH", "2")], b"12"
    ),
    **{
        f"modifier-{number}": build_request({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, modifier1=number)
        for number in (1, 3, 5, 6, 7, 9, 10, 17, 18, 22, 31, 101, 110, 111, 123, 173, 224, 254)
    },
}


# Mistakes of one kind share one line an interval, whatever the peer puts into them; each of these has one before it in
# the table.
SAME_KIND = {"length-plus", "length-word", "length-arabic"}


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in SAME_KIND])
def test_what_is_no_request_gets_a_reply_and_at_most_one_clear_line(served, name):
    reply, lines = exchange(served, REFUSED[name])
    assert reply.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert len(lines) == 1, lines
    assert " warning " in lines[0]
    assert "Traceback" not in lines[0]
    assert lines[0].isprintable()


@pytest.mark.parametrize("name", sorted(SAME_KIND))
def test_a_mistake_of_a_kind_that_was_told_already_is_refused_without_another_line(served, name):
    server, _ = served
    exchange(served, REFUSED["length-negative"])
    server.log.wait_for("CONTENT_LENGTH is to be digits")
    reply, lines = exchange(served, REFUSED[name])
    assert reply.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert lines == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_line_about_an_oversize_packet_says_both_numbers(serve, kind):
    server = serve(APPLICATION, "--buffer-size", "4096")
    server.raw(b"\x00\x02\x10\x00" + b"x" * 100, kind)
    line = server.log.wait_for(" 4098 ")
    assert "4096" in line
    assert "buffer-size" in line


def test_a_packet_of_exactly_the_limit_is_served(served):
    server, kind = served
    variables = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "FILLER": ""}
    size = len(build_request(variables)) - 4
    variables["FILLER"] = "x" * (4096 - size)
    assert len(build_request(variables)) == 4100
    assert server.raw(build_request(variables), kind).endswith(b"hello")


def test_a_ping_is_answered_and_leaves_no_line(served):
    assert exchange(served, b"\x64\x00\x00\x00") == (b"\x64\x00\x00\x01", [])


def test_an_empty_packet_is_closed_quietly(served):
    assert exchange(served, b"\x00\x00\x00\x00") == (b"", [])


@pytest.mark.parametrize("how", ["close", "half", "one byte and close"])
def test_a_probe_leaves_no_line_at_all(served, how):
    server, kind = served
    start = settled(served)
    for _ in range(5):
        with server.connect(kind) as sock:
            if how == "half":
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock) == b""
            elif how == "one byte and close":
                sock.sendall(b"\x00")
    lines = server.log.lines[start : settled(served) - 1]
    if how == "one byte and close":  # that one began a packet: a line is allowed, more than one is not
        assert len(lines) <= 1
    else:
        assert lines == []


@pytest.mark.parametrize("modifier2", [0, 1, 255])
def test_modifier2_is_ignored(served, modifier2):
    server, kind = served
    packet = build_request({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, modifier2=modifier2)
    assert server.raw(packet, kind).endswith(b"\r\n\r\nhello")


def test_modifier_30_is_served_as_0(served):
    server, kind = served
    packet = build_request({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, modifier1=30)
    assert server.raw(packet, kind).endswith(b"\r\n\r\nhello")


def test_server_protocol_of_a_packet_never_becomes_the_status_line(served):
    server, kind = served
    packet = build_request({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "EVIL/9\r\nX: y"})
    assert server.raw(packet, kind).startswith(b"HTTP/1.1 ")


def test_a_packet_that_never_ends_is_answered_after_the_head_timeout_and_holds_no_core(serve):
    server = serve(APPLICATION, "--disable-logging", "--head-timeout=1", "--asyncio=1")
    with server.connect("uwsgi") as slow, server.connect("unix") as silent:
        slow.sendall(GOOD[:-1])
        silent.sendall(b"\x00")
        assert server.raw(GOOD, "uwsgi").endswith(b"hello")
        slow.settimeout(PATIENCE_SECONDS)
        assert read_all(slow).startswith(b"HTTP/1.1 408 ")
        assert read_all(silent)[:13] in (b"", b"HTTP/1.1 408 ")
