"""The option table, and what options mean for each other."""

import dataclasses

import pytest

from corelet.base.argv import configure
from corelet.base.config import OPTIONS, Config, Mention, resolve
from corelet.base.errors import ConfigError
from corelet.base.limits import Limits
from corelet.base.option import Kind, Verdict


def configured(line):
    return configure(line.split())


def test_no_name_and_no_letter_is_taken_twice():
    names = [name for row in OPTIONS for name in row.names]
    letters = [row.short for row in OPTIONS if row.short]
    assert len(names) == len(set(names))
    assert len(letters) == len(set(letters))


def test_every_option_says_what_it_does_and_belongs_to_a_group():
    for row in OPTIONS:
        assert row.help, row
        assert row.group, row
        assert "_" not in "".join(row.names), row


def test_every_accepted_option_says_why_it_has_no_effect():
    assert {row.name for row in OPTIONS if row.verdict is Verdict.ACCEPTED} == {
        "greenlet", "lazy-apps", "single-interpreter", "threads", "enable-threads", "thunder-lock", "plugins",
        "die-on-term", "strict", "no-orphans", "py-call-osafterfork", "exit-on-reload",
            "cache-report-freed-items", "cache-use-last-modified",
    }  # fmt: skip
    assert all(row.why for row in OPTIONS if row.verdict is Verdict.ACCEPTED)


def test_every_default_is_a_value_of_its_option():
    for row in OPTIONS:
        if row.default is None or row.kind is Kind.LIST:
            continue
        text = f"{row.default:o}" if row.kind is Kind.MODE else str(row.default)
        assert row.parse(text) == row.default, row


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().listen = 5  # type: ignore[misc]


def test_a_config_made_by_hand_has_the_defaults():
    config = Config(socket=("127.0.0.1:0",))
    assert config.socket == ("127.0.0.1:0",)
    assert config == dataclasses.replace(resolve([]).config, socket=("127.0.0.1:0",))


def test_without_asyncio_or_async_there_are_a_hundred_cores_and_asyncio_goes_before_async():
    assert Config().cores == 100
    assert Config(async_=3).cores == 3
    assert Config(async_=3, asyncio=5).cores == 5


def test_the_default_limits_are_those_of_the_wire():
    assert Config().limits == Limits()


def test_limits_follow_their_options():
    config = configured(
        "--limit-post 1 --max-vars 2 --http-max-request-line 3 --http-max-headers 4 --http-max-head 5 "
        "--http-max-chunk-line 6 --http-max-trailer 7 --buffer-size 8"
    ).config
    assert config.limits == Limits(
        max_body_bytes=1,
        max_vars=2,
        max_request_line_bytes=3,
        max_header_count=4,
        max_head_bytes=5,
        max_chunk_line_bytes=6,
        max_trailer_bytes=7,
        max_block_bytes=8,
    )


def test_a_buffer_size_beyond_what_a_packet_can_say_is_lowered_with_a_note():
    resolved = configure(["--buffer-size", "131072"])
    assert resolved.config.buffer_size == 65535
    assert resolved.config.limits.max_block_bytes == 65535
    assert resolved.notes == ("buffer-size 131072 is more than a uwsgi packet can say; 65535 holds",)


def test_asyncio_raises_a_socket_timeout_that_stands_before_it():
    resolved = configured("--socket-timeout 4 --asyncio 10")
    assert resolved.config.socket_timeout == 30
    assert resolved.origins["socket_timeout"] == "raised by --asyncio"
    assert resolved.notes == ("asyncio raises socket-timeout from 4 to 30 s; a socket-timeout after it is kept",)


def test_asyncio_keeps_a_socket_timeout_that_is_longer_off_or_stands_after_it():
    assert configured("--socket-timeout 60 --asyncio 10").config.socket_timeout == 60
    assert configured("--socket-timeout 0 --asyncio 10").config.socket_timeout == 0
    assert configured("--asyncio 10 --socket-timeout 4").config.socket_timeout == 4


def test_http_keepalive_is_a_time_a_bare_flag_or_uwsgis_one():
    assert Config().http_keepalive == 75
    assert configure(["--http-keepalive"]).config.http_keepalive == 75
    assert configure(["--http-keepalive=1"]).config.http_keepalive == 75
    assert configure(["--http-keepalive", "5"]).config.http_keepalive == 5
    assert configure(["--http-keepalive=0"]).config.http_keepalive == 0


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("--threads 2", "threads 2: requests run on cores; asyncio N sets how many at once"),
        ("--loop gevent", "loop gevent: corelet runs on asyncio or uvloop; asyncio is used"),
        (
            "--module a --wsgi-file b.py",
            "module and wsgi-file are both given: module is served, wsgi-file is not loaded, as in uWSGI",
        ),
    ],
)
def test_what_differs_from_uwsgi_is_noted(line, note):
    assert configured(line).notes == (note,)


def test_uvloop_is_a_loop():
    resolved = configure(["--loop", "uvloop"])
    assert (resolved.config.loop, resolved.notes) == ("uvloop", ())


def test_logging_to_a_network_address_is_refused_and_a_path_with_a_colon_is_not():
    with pytest.raises(ConfigError, match=r"^--logto: logging to a network address is not in this version"):
        configure(["--logto", "10.0.0.1:514"])
    assert configure(["--logto", "/var/log/a:b.log"]).config.logto == "/var/log/a:b.log"


def test_addresses_come_with_their_protocols():
    config = Config(socket=(":1",), uwsgi_socket=(":2",), http_socket=(":3", "@x"), protocol="http")
    assert [(a.label, a.protocol) for a in config.addresses] == [
        (":1", "http"),
        (":2", "uwsgi"),
        (":3", "http"),
        ("@x", "http"),
    ]


def test_every_value_has_an_origin():
    resolved = configure(["-p", "1", "--greenlet"])
    assert resolved.origins["processes"] == "-p"
    assert resolved.origins["greenlet"] == "--greenlet"
    assert resolved.origins["listen"] == "default"
    assert set(resolved.origins) == {row.field for row in OPTIONS}


def test_mistakes_of_a_reader_and_mistakes_of_values_are_reported_together():
    (row,) = [row for row in OPTIONS if row.name == "listen"]
    with pytest.raises(ConfigError) as caught:
        resolve([Mention(row, "x", "app.ini:3")], ["app.ini:2: foo is no option"])
    assert str(caught.value).splitlines() == [
        "app.ini:2: foo is no option",
        "app.ini:3: expected a whole number, 1 or more; got 'x'",
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["--socket", ":3031", "--http-socket", "0.0.0.0:3031"],
            "0.0.0.0:3031 is named already by --socket",
        ),
        (
            ["--socket", "/run/a", "--socket", "/run/a"],
            "/run/a is named already by --socket; remove one",
        ),
        (["-w", ":app"], "-w: expected package.module or package.module:callable; got ':app'; name the module"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_bound(words, problem):
    with pytest.raises(ConfigError) as caught:
        configure(words)
    assert problem in str(caught.value)


def test_port_0_and_reuse_port_may_name_an_address_twice():
    configure(["--socket", ":0", "--socket", ":0"])
    configure(["--socket", ":3031", "--socket", ":3031", "--reuse-port"])
