"""Addresses as uWSGI's users write them."""

import socket

import pytest

from corelet.base.address import Address, parse
from corelet.base.errors import ConfigError


def no_look_up(host):
    raise AssertionError(f"{host} must not be looked up")


@pytest.mark.parametrize(
    ("text", "kind", "host", "port"),
    [
        ("127.0.0.1:3031", "tcp4", "127.0.0.1", 3031),
        (":9090", "tcp4", "0.0.0.0", 9090),
        (": 5000", "tcp4", "0.0.0.0", 5000),
        ("  127.0.0.1 : 80 ", "tcp4", "127.0.0.1", 80),
        ("0.0.0.0:0", "tcp4", "0.0.0.0", 0),
        ("[::]:80", "tcp6", "::", 80),
        ("[::1]:9090", "tcp6", "::1", 9090),
        ("[ ::1 ] : 9090", "tcp6", "::1", 9090),
    ],
)
def test_a_tcp_address_is_read(text, kind, host, port):
    address = parse(text, "http", no_look_up)
    assert address == Address(kind, host=host, port=port, protocol="http", label=text.strip())


@pytest.mark.parametrize("text", ["/run/app.sock", "app.sock", "./9090", "./a:b", "/a:1"])
def test_a_path_is_a_unix_socket(text):
    assert parse(text, "uwsgi", no_look_up) == Address("unix", path=text, protocol="uwsgi", label=text)


@pytest.mark.parametrize(("text", "name"), [("@app", "app"), ("\\0app", "app"), ("@a:1", "a:1")])
def test_an_abstract_socket_has_a_name(text, name):
    assert parse(text) == Address("abstract", path=name, protocol="uwsgi", label=text)


@pytest.mark.parametrize(("text", "number"), [("fd://3", 3), (" fd://0", 0), ("fd://2147483647", 2147483647)])
def test_an_open_descriptor_has_a_number(text, number):
    address = parse(text, "http", no_look_up)
    assert address == Address("fd", protocol="http", label=text.strip(), descriptor=number)
    assert (address.is_tcp, address.is_exposed) == (False, False)


def test_a_host_name_is_looked_up_once_and_the_first_answer_holds():
    assert parse("app.test:80", look_up=lambda host: {"app.test": ["10.0.0.7", "::1"]}[host]).host == "10.0.0.7"
    assert parse("six.test:80", look_up=lambda host: ["fd00::1"]).kind == "tcp6"


def test_localhost_is_the_loopback_of_ipv4_as_in_uwsgi():
    assert parse("localhost:8080").host == "127.0.0.1"


def test_a_name_that_cannot_be_resolved_is_named():
    def fail(host):
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(
        ConfigError, match=r"^web:80: the host web cannot be resolved \(.*not known\); write its number"
    ):
        parse("web:80", look_up=fail)
    with pytest.raises(ConfigError, match="the host web has no address"):
        parse("web:80", look_up=lambda host: [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an address is expected"),
        ("   ", "an address is expected"),
        ("9090", "9090 has no colon: write :9090 for the port, or ./9090 for a unix socket"),
        ("127.0.0.1", "127.0.0.1 has no port: write 127.0.0.1:3031"),
        ("localhost", "localhost has no port"),
        ("127.0.0.1:", "a port is a number from 0 to 65535; got nothing"),
        ("127.0.0.1:65536", "a port is a number from 0 to 65535; got 65536"),
        ("127.0.0.1:-1", "a port is a number from 0 to 65535; got -1"),
        (":8443,cert.pem,key.pem", "a port is a number from 0 to 65535; got 8443,cert.pem,key.pem"),
        ("::1:9090", r"an IPv6 address needs brackets: \[::1\]:9090"),
        ("[::1]", r"an IPv6 address is written \[::1\]:9090"),
        ("[::1:80", r"an IPv6 address is written"),
        ("[::zz]:80", "::zz is no IPv6 address"),
        ("[]:80", "nothing is no IPv6 address"),
        ("192.168.*:80", "patterns of addresses are not read; write :80"),
        ("tcp://127.0.0.1:80", "a URL is no address; write host:port, a path, or fd://3 for an open descriptor"),
        ("http://:80", "a URL is no address"),
        ("fd://", "a descriptor is a number, such as fd://3; got nothing"),
        ("fd://-1", "a descriptor is a number, such as fd://3; got -1"),
        ("fd://٣", "a descriptor is a number"),
        ("fd://2147483648", "a descriptor is a number"),
        ("fd://" + "9" * 5000, "a descriptor is a number"),
        ("@", "an abstract socket needs a name"),
        ("/a\nb", "holds a control character"),
        ("/" + "x" * 107, "a unix socket's path has at most 107 bytes, this one 108"),
        ("@" + "x" * 108, "longer than the 107 bytes"),
    ],
)
def test_what_is_no_address_is_refused_with_what_would_be_one(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text, look_up=no_look_up)


def test_the_longest_path_is_accepted_and_counted_in_bytes():
    assert parse("/" + "x" * 106).kind == "unix"
    with pytest.raises(ConfigError, match="this one 119"):
        parse("/" + "é" * 59)


@pytest.mark.parametrize(
    ("text", "exposed"),
    [
        (":80", True),
        ("[::]:80", True),
        ("8.8.8.8:80", True),
        ("127.0.0.1:80", False),
        ("127.9.9.9:80", False),
        ("[::1]:80", False),
        ("10.1.2.3:80", False),
        ("192.168.0.1:80", False),
        ("[fd00::1]:80", False),
        ("[fe80::1%1]:80", False),
        ("/run/app.sock", False),
        ("@app", False),
    ],
)
def test_an_address_that_the_world_may_reach_is_exposed(text, exposed):
    assert parse(text).is_exposed is exposed
