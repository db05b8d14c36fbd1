"""A reply that failed midway is never passed on by nginx as a complete one, and nginx's error log names it.

To nginx a plain close is a complete 200 where no Content-Length was given. So over TCP the server resets, and over a
unix socket it closes with a byte unread.
"""

import socket

import pytest
from harness import read_until
from wsgi_site import DIRECT, NGINX, UNBUFFERED, read_end, site

APPLICATION = """
import corelet

def application(environ, start_response):
    return globals()[environ["PATH_INFO"][1:]](environ, start_response, *environ["QUERY_STRING"].split("&")[:2])

def fail(environ, start_response, size, length):
    if environ.get("HTTP_X_READ"):
        environ["wsgi.input"].read(int(environ["HTTP_X_READ"]))
    start_response("200 OK", [("Content-Type", "text/plain")] + ([("Content-Length",
        "300000")] if length == "length" else []))
    yield b"x" * int(size)
    if environ.get("HTTP_X_PAUSE"):
        corelet.sleep(0.05)
    raise ValueError("midway")

def fail_file(environ, start_response, size, length):
    with open("file", "wb") as file:
        file.write(b"x" * int(size))
    start_response("200 OK", [("Content-Length", "300000")])
    return environ["wsgi.file_wrapper"](open("file", "rb"))

def short_list(environ, start_response, size, length):
    start_response("200 OK", [("Content-Length", "300000")])
    return [b"x" * int(size)]

def exit_midway(environ, start_response, size, length):
    start_response("200 OK", [])
    yield b"x" * int(size)
    raise SystemExit(0)

def text_midway(environ, start_response, size, length):
    start_response("200 OK", [])
    yield b"x" * int(size)
    yield "text"

def swallowed(environ, start_response, size, length):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"x" * int(size)
    environ["wsgi.input"].read()
    yield b"complete"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with site(tmp_path_factory.mktemp("cut"), APPLICATION, "--disable-logging") as place:
        yield place


def is_complete(data):
    """Whether a client would take this for a whole reply."""
    head, blank_line, body = data.partition(b"\r\n\r\n")
    if not blank_line:
        return False
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return len(body) >= int(line[15:])
    return True


def check_cut(place, way, target, method="GET", body=b"", headers=(), length=None):
    """nginx may not have passed anything on yet: then its own 502 is as good a cut as a broken 200."""
    start = len(place.front.error_log)
    with place.open(way, target, method, body, headers, length=length) as sock:
        data, _ = read_end(sock)
    assert data.startswith(b"HTTP/1.1 502 ") or not is_complete(data), data[:300] + b"..." + data[-100:]
    line = place.front.wait_for_error("[error]", "upstream", target, start=start)
    assert '"uwsgi://' in line
    return data


@pytest.mark.parametrize("way", NGINX)
@pytest.mark.parametrize("length", ["length", "none"])
@pytest.mark.parametrize("size", [1, 200_000])
@pytest.mark.parametrize("pause", [(), [("X-Pause", "yes")]])
def test_a_generator_that_fails_midway_is_seen_as_cut(place, way, length, size, pause):
    check_cut(place, way, f"/fail?{size}&{length}&{way}{len(pause)}", headers=pause)


@pytest.mark.parametrize("way", UNBUFFERED)
@pytest.mark.parametrize("length", ["length", "none"])
@pytest.mark.parametrize("size", [1, 200_000])
def test_what_was_sent_before_the_failure_arrives_where_nginx_does_not_buffer(place, way, length, size):
    target = f"/fail?{size}&{length}&arrives-{way}"
    data = check_cut(place, way, target, headers=[("X-Pause", "yes")])
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x" * min(size, 1000) in data


@pytest.mark.parametrize("way", NGINX)
@pytest.mark.parametrize("read", ["", "0", "5", "100000", "200000"])
@pytest.mark.parametrize("length", ["length", "none"])
def test_a_post_that_fails_midway_is_seen_as_cut_however_much_was_read(place, way, read, length):
    headers = [("X-Pause", "yes"), *([("X-Read", read)] if read else [])]
    check_cut(place, way, f"/fail?1000&{length}&read{read}-{way}", "POST", b"b" * 200_000, headers)


@pytest.mark.parametrize("way", NGINX)
@pytest.mark.parametrize("read", ["", "5", "10"])
def test_a_small_post_that_fails_midway_is_seen_as_cut(place, way, read):
    headers = [("X-Pause", "yes"), *([("X-Read", read)] if read else [])]
    check_cut(place, way, f"/fail?1000&none&small{read}-{way}", "POST", b"0123456789", headers)


@pytest.mark.parametrize("way", UNBUFFERED)
@pytest.mark.parametrize("read", ["", "4", "5"])
def test_a_failure_while_the_client_still_sends_is_seen_as_cut(place, way, read):
    # The server has read all that has come: over a unix socket nothing is left unread to make the close a reset.
    headers = [("X-Pause", "yes"), *([("X-Read", read)] if read else [])]
    check_cut(place, way, f"/fail?1000&none&sending{read}-{way}", "POST", b"01234", headers, length=1000)


@pytest.mark.parametrize("way", UNBUFFERED)
def test_a_failure_after_all_that_has_come_of_a_large_body_was_read_is_seen_as_cut(place, way):
    check_cut(
        place, way, f"/fail?1000&none&large-{way}", "POST", b"b" * 200_000, [("X-Read", "200000")], length=400_000
    )


@pytest.mark.parametrize("way", NGINX)
@pytest.mark.parametrize("target", ["fail_file", "short_list", "exit_midway", "text_midway"])
@pytest.mark.parametrize("size", [1, 200_000])
def test_every_other_reason_to_cut_is_seen_too(place, way, target, size):
    check_cut(place, way, f"/{target}?{size}&none&{way}")


# ---- the same without nginx: what the server's socket says -----------------------------------------------------------


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize("length", ["length", "none"])
@pytest.mark.parametrize("size", [1, 200_000])
def test_the_connection_of_a_cut_reply_ends_with_a_reset(place, way, length, size):
    with place.open(way, f"/fail?{size}&{length}") as sock:
        data, end = read_end(sock)
    assert end == "reset"
    assert not data.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("way", DIRECT)
@pytest.mark.parametrize(("body", "length", "read"), [
    (b"0123456789", 10, "10"), (b"0123456789", 10, "9"), (b"0123456789", 10, ""), (b"01234", 10, "5"), (b"01234", 10,
    "4"),
    (b"01234", 10, ""), (b"b" * 200_000, 200_000, "200000"), (b"b" * 200_000, 200_001, "200000"), (b"b" * 200_000,
    200_000, "199999"),
])  # fmt: skip
def test_the_connection_of_a_cut_post_ends_with_a_reset(place, way, body, length, read):
    headers = [("X-Read", read)] if read else []
    with place.open(way, "/fail?1000&none", "POST", body, headers, length=length) as sock:
        _, end = read_end(sock)
    assert end == "reset"


@pytest.mark.parametrize("way", DIRECT)
def test_a_body_that_comes_after_the_headers_were_sent_and_then_a_failure_ends_with_a_reset(place, way):
    with place.open(way, "/fail?1000&none", "POST", b"", [("X-Pause", "yes")], length=10) as sock:
        data = read_until(sock, b"x" * 1000)
        sock.sendall(b"0123456789")
        _, end = read_end(sock)
    assert end == "reset"
    assert not is_complete(data) or way != "http"


@pytest.mark.parametrize("way", ["nginx-tcp-unbuffered", "nginx-unix-unbuffered"])
def test_a_client_that_stops_in_its_body_after_the_reply_has_begun_gets_no_complete_reply(place, way):
    with place.open(way, "/swallowed?1000&none", "POST", b"01234", length=10) as sock:
        data = read_until(sock, b"x" * 1000)
        sock.shutdown(socket.SHUT_WR)
        rest, _ = read_end(sock)
    assert b"complete" not in data + rest
    assert not is_complete(data + rest)
