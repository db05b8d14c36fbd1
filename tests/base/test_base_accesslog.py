"""The access line: uWSGI's to the byte by default, an operator's by log-format; never more than one line a request."""

import calendar
import os
import re
import time

import pytest

from corelet.base.accesslog import compile_format
from corelet.base.outcome import Outcome

STARTED = calendar.timegm((2026, 11, 22, 12, 39, 16)) + 0.687287


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def outcome(environ, **changes):
    values = {
        "status": 200, "body_bytes": 5, "head_bytes": 53, "header_count": 2, "elapsed_us": 284, "core": 9,
        "switches": 2, "var_count": 13, "var_bytes": 292, "worker_requests": 1, "total_requests": 1, "started": STARTED,
    }  # fmt: skip
    return Outcome(environ=environ, **(values | changes))


def line(environ, format=None, forwarded=False, **changes):
    return compile_format(format, forwarded)(outcome(environ, **changes))


# The lines below are what uWSGI 2.0.31 (--asyncio 10 --greenlet) wrote for these requests, with its pid replaced.


def test_the_default_line_is_uwsgis_for_a_request_over_http():
    environ = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/a%20b?x=1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_FORWARDED_FOR": "9.9.9.9",
    }
    assert line(environ) == (
        f"[pid: {os.getpid()}|app: 0|req: 1/1] 127.0.0.1 () {{26 vars in 292 bytes}} [Sun Nov 22 12:39:16 2026] "
        "GET /a%20b?x=1 => generated 5 bytes in 0 msecs (HTTP/1.1 200) 2 headers in 53 bytes (2 switches on core 9)"
    )


def test_the_default_line_is_uwsgis_for_a_packet_with_a_user():
    environ = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/x",
        "REMOTE_USER": "bob",
        "REMOTE_ADDR": "1.2.3.4",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_X_FORWARDED_FOR": "7.7.7.7",
    }
    changes = {"var_count": 6, "var_bytes": 136, "worker_requests": 4, "total_requests": 4}
    assert line(environ, **changes) == (
        f"[pid: {os.getpid()}|app: 0|req: 4/4] 1.2.3.4 (bob) {{12 vars in 136 bytes}} [Sun Nov 22 12:39:16 2026] "
        "GET /x => generated 5 bytes in 0 msecs (HTTP/1.1 200) 2 headers in 53 bytes (2 switches on core 9)"
    )


def test_the_default_line_is_uwsgis_for_a_packet_with_almost_nothing_in_it():
    changes = {"var_count": 1, "var_bytes": 15, "worker_requests": 3, "total_requests": 3}
    assert line({"PATH_INFO": "/x"}, **changes) == (
        f"[pid: {os.getpid()}|app: 0|req: 3/3]  () {{2 vars in 15 bytes}} [Sun Nov 22 12:39:16 2026] "
        "  => generated 5 bytes in 0 msecs ( 200) 2 headers in 53 bytes (2 switches on core 9)"
    )


UWSGI_VARIABLES = (
    "X %(uri)|%(method)|%(user)|%(addr)|%(host)|%(proto)|%(uagent)|%(referer)|%(status)|%(micros)|%(msecs)|%(secs)|"
    "%(time)|%(ctime)|%(size)|%(ltime)|%(ftime)|%(hsize)|%(rsize)|%(cl)|%(wid)|%(switches)|%(vars)|"
    "%(headers)|%(core)|%(pktsize)|%(modifier1)|%(modifier2)|%(rerr)|%(werr)|%(ioerr)|%(tmsecs)|%(tmicros)|"
    "%(var.PATH_INFO)|%(var.NOPE)|%(nope)|%%|100%|%(|%()"
)


def test_every_variable_of_uwsgi_prints_what_uwsgi_printed():
    environ = {
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/x",
        "PATH_INFO": "/x",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1:18231",
        "HTTP_USER_AGENT": "curl/7.88.1",
        "CONTENT_LENGTH": "3",
    }
    changes = {
        "head_bytes": 19, "body_bytes": 12, "header_count": 0, "core": 0, "switches": 0, "var_count": 14,
        "var_bytes": 317, "elapsed_us": 164,
    }  # fmt: skip
    assert line(environ, UWSGI_VARIABLES, **changes) == (
        "X /x|POST|-|127.0.0.1|127.0.0.1:18231|HTTP/1.1|curl/7.88.1|-|200|164|0|0.000164|"
        "1795351156|Sun Nov 22 12:39:16 2026|31|22/Nov/2026:12:39:16 +0000|22/Nov/2026:12:39:16 +0000|19|12|3|1|0|28|"
        "0|0|317|0|0|0|0|0|1795351156687|1795351156687287|/x|-|-|%%|100%|-"
    )


def test_the_apache_combined_format_of_uwsgis_manual():
    environ = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "REMOTE_ADDR": "10.0.0.9",
        "REMOTE_USER": "amy",
        "HTTP_REFERER": "http://a/",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11)",
    }
    combined = '%(addr) - %(user) [%(ltime)] "%(method) %(uri) %(proto)" %(status) %(size) "%(referer)" "%(uagent)"'
    assert line(environ, combined) == (
        '10.0.0.9 - amy [22/Nov/2026:12:39:16 +0000] "GET / HTTP/1.0" 200 58 "http://a/" "Mozilla/5.0 (X11)"'
    )


def test_the_memory_the_pid_and_the_clock_are_numbers_of_this_process():
    vsz, rss, vsz_megabytes, rss_megabytes, pid, epoch = line(
        {}, "%(vsz) %(rss) %(vszM) %(rssM) %(pid) %(epoch)"
    ).split()
    assert int(vsz) > int(rss) > 1000000
    assert (int(vsz_megabytes), int(rss_megabytes)) == (int(vsz) >> 20, int(rss) >> 20)
    assert int(pid) == os.getpid()
    assert abs(int(epoch) - time.time()) < 60


def test_errors_of_reading_and_writing_are_counted_apart_and_together():
    assert line({}, "%(rerr) %(werr) %(ioerr)", read_errors=1, write_errors=2) == "1 2 3"


def test_unknown_variables_are_shown_as_a_dash_and_named_once(caplog):
    make = compile_format("%(metric.x) %(status) %(frob) %(frob)")
    assert make(outcome({})) == make(outcome({})) == "- 200 - -"
    assert caplog.messages == [
        "log-format: no variable is named frob, metric.x; shown as - unless uwsgi.set_logvar sets it"
    ]


def test_a_known_format_says_nothing(caplog):
    compile_format(UWSGI_VARIABLES.replace("%(nope)", "").replace("%(|%()", ""))
    assert caplog.messages == []


def test_the_forwarded_address_is_shown_only_when_asked_for():
    environ = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "1.1.1.1, 2.2.2.2"}
    assert line(environ, "%(addr)") == "10.0.0.1"
    assert line(environ, "%(addr)", forwarded=True) == "1.1.1.1, 2.2.2.2"
    assert "] 1.1.1.1, 2.2.2.2 ()" in line(environ, forwarded=True)
    assert line({"REMOTE_ADDR": "10.0.0.1"}, "%(addr)", forwarded=True) == "10.0.0.1"


ALL_CONTROLS = "".join(map(chr, (*range(0x20), 0x7F)))


@pytest.mark.parametrize("key", ["REQUEST_METHOD", "REQUEST_URI", "REMOTE_ADDR", "REMOTE_USER", "SERVER_PROTOCOL"])
def test_no_field_of_a_peer_can_break_the_default_line(key):
    made = line({key: f"a{ALL_CONTROLS}b\r\n[pid: 1|app: 0|req: 1/1] forged"})
    assert not re.search(r"[\x00-\x1f\x7f]", made)
    assert "a\\x00\\x01" in made
    assert "\\x7fb\\x0d\\x0a[pid: 1|" in made


@pytest.mark.parametrize(
    "variable", ["uri", "method", "user", "addr", "host", "proto", "uagent", "referer", "var.X", "cl"]
)
def test_no_field_of_a_peer_can_break_a_formatted_line_or_leave_its_quotes(variable):
    evil = f'a"b\\c{ALL_CONTROLS}'
    keys = (
        "REQUEST_URI", "REQUEST_METHOD", "REMOTE_USER", "REMOTE_ADDR", "HTTP_HOST", "SERVER_PROTOCOL",
        "HTTP_USER_AGENT", "HTTP_REFERER", "X", "CONTENT_LENGTH",
    )  # fmt: skip
    made = line(dict.fromkeys(keys, evil), f'"%({variable})"')
    assert made.startswith('"a\\x22b\\x5cc\\x00')
    assert made.count('"') == 2
    assert not re.search(r"[\x00-\x1f\x7f]", made)


def test_bytes_beyond_ascii_stay_as_they_are():
    assert " GET /caf\xc3\xa9 =>" in line({"REQUEST_METHOD": "GET", "REQUEST_URI": "/caf\xc3\xa9"})
    assert line({"HTTP_USER_AGENT": "\x9b\xe9"}, "%(uagent)") == "\x9b\xe9"


def test_text_of_the_format_is_written_as_utf8_beside_the_bytes_of_the_peer():
    assert line({"REQUEST_URI": "/\xe9"}, "→ %(uri)").encode("latin-1") == b"\xe2\x86\x92 /\xe9"


def test_a_percent_sign_in_a_value_or_in_the_text_is_only_itself():
    assert line({"REQUEST_URI": "/%s%(x)"}, "50% %s %(uri)") == "50% %s /%s%(x)"


def test_the_time_changes_with_the_request():
    make = compile_format(None)
    assert "12:39:16" in make(outcome({}))
    assert "12:39:17" in make(outcome({}, started=STARTED + 1))
    assert "12:39:16" in make(outcome({}))
