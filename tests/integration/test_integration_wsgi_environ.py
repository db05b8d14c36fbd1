"""The environ over uwsgi: every variable that the front end sent, minus three, plus the server's own; none obeyed."""

import json

import pytest
from harness import ROOT, read_all, running
from wsgi_site import BUFFERED, site

from uwsgiproto.client import build_request, parse_reply

APPLICATION = """
import json
import os
import sys
from wsgiref.validate import validator

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    shown = {key: value for key, value in environ.items() if type(value) is str}
    others = {key: [type(value).__name__, repr(value)] for key, value in environ.items() if type(value) is not str}
    process = [os.getcwd(), os.environ.get("INJECTED"), "evil" in sys.modules, sorted(os.listdir("."))]
    return [json.dumps([shown, others, process]).encode()]

application = validator(application)
"""

PARAMETERS = f"""
include {ROOT}/nginx/uwsgi_params;
uwsgi_param CUSTOM "a value";
uwsgi_param EMPTY "";
uwsgi_param lower.case "kept";
uwsgi_param SSL_CLIENT_S_DN "CN=somebody, O=Company";
uwsgi_param REMOTE_USER "somebody";
uwsgi_param HTTP_X_SET "by nginx";
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with site(tmp_path_factory.mktemp("environ"), APPLICATION, "--disable-logging", parameters=PARAMETERS) as place:
        yield place
        assert "AssertionError" not in place.server.log.text()


def through_nginx(place, way, request):
    with place.connect(way) as sock:
        sock.sendall(request)
        reply = parse_reply(read_all(sock))
    assert reply.status == 200
    body = reply.body
    if reply.header("Transfer-Encoding") == "chunked":
        body = body.partition(b"\r\n")[2].partition(b"\r\n0\r\n")[0]
    return json.loads(body)


def by_packet(server, variables, kind="uwsgi", body=b""):
    reply = parse_reply(server.raw(build_request(variables, body), kind))
    assert reply.status == 200
    return json.loads(reply.body)


@pytest.mark.parametrize("way", BUFFERED)
def test_every_variable_of_nginx_arrives_and_nothing_else(place, way):
    shown, _, _ = through_nginx(
        place,
        way,
        b"GET /a%20b?c=d HTTP/1.1\r\nHost: example.org:8080\r\nConnection: close\r\n"
        b"X-Header: v\r\nAccept: */*\r\nTE: trailers\r\n\r\n",
    )
    assert shown.pop("REMOTE_PORT").isdigit()
    assert shown.pop("SERVER_PORT") == str(place.ports[way])
    assert shown.pop("DOCUMENT_ROOT").startswith("/")
    assert shown == {
        "QUERY_STRING": "c=d",
        "REQUEST_METHOD": "GET",
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "",
        "REQUEST_URI": "/a%20b?c=d",
        "PATH_INFO": "/a b",
        "SCRIPT_NAME": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": "localhost",
        "CUSTOM": "a value",
        "EMPTY": "",
        "lower.case": "kept",
        "SSL_CLIENT_S_DN": "CN=somebody, O=Company",
        "REMOTE_USER": "somebody",
        "HTTP_X_SET": "by nginx",
        "HTTP_HOST": "example.org:8080",
        "HTTP_CONNECTION": "close",
        "HTTP_X_HEADER": "v",
        "HTTP_ACCEPT": "*/*",
        "HTTP_TE": "trailers",
        "wsgi.url_scheme": "http",
    }


@pytest.mark.parametrize("way", BUFFERED)
def test_repeated_headers_are_joined(place, way):
    shown, _, _ = through_nginx(
        place,
        way,
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"X-Dup: one\r\nCookie: a=1\r\nX-Dup: two\r\nCookie: b=2\r\nX-Dup: three\r\n\r\n",
    )
    assert shown["HTTP_X_DUP"] == "one, two, three"
    assert shown["HTTP_COOKIE"] == "a=1; b=2"


@pytest.mark.parametrize("way", BUFFERED)
def test_three_variables_do_not_arrive(place, way):
    shown, _, _ = through_nginx(
        place,
        way,
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Proxy: http://evil\r\nContent-Type: text/x\r\nContent-Length: 2\r\n\r\nhi",
    )
    assert [name for name in ("HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH") if name in shown] == []
    assert (shown["CONTENT_TYPE"], shown["CONTENT_LENGTH"]) == ("text/x", "2")


@pytest.mark.parametrize("way", BUFFERED)
def test_a_chunked_upload_arrives_with_its_length(place, way):
    shown, _, _ = through_nginx(
        place,
        way,
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    )
    assert shown["CONTENT_LENGTH"] == "3"


@pytest.mark.parametrize("way", BUFFERED)
def test_a_path_of_utf8_arrives_as_its_bytes_in_latin_1(place, way):
    shown, _, _ = through_nginx(
        place,
        way,
        b"GET /\xc3\xa9%E2%82%AC%ff?\xc3\xa9=%C3%A9 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"X-Utf: \xe2\x82\xac\r\n\r\n",
    )
    assert shown["PATH_INFO"] == "/\xc3\xa9\xe2\x82\xac\xff"
    assert shown["REQUEST_URI"] == "/\xc3\xa9%E2%82%AC%ff?\xc3\xa9=%C3%A9"
    assert shown["QUERY_STRING"] == "\xc3\xa9=%C3%A9"
    assert shown["HTTP_X_UTF"] == "\xe2\x82\xac"


@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
def test_the_server_adds_what_pep_3333_asks_for(place, kind):
    shown, others, _ = by_packet(place.server, {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": ""}, kind)
    assert shown == {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": shown["SERVER_NAME"],
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "wsgi.url_scheme": "http",
    }
    assert shown["SERVER_NAME"] != ""
    assert others["wsgi.version"] == ["tuple", "(1, 0)"]
    assert others["wsgi.multithread"] == ["bool", "True"]
    assert others["wsgi.multiprocess"] == ["bool", "False"]
    assert others["wsgi.run_once"] == ["bool", "False"]
    assert others["wsgi.input_terminated"] == ["bool", "True"]
    assert others["uwsgi.core"][0] == "int"
    assert others["uwsgi.version"][0] == "bytes"
    assert others["uwsgi.node"][0] == "bytes"
    assert set(others) == {
        "wsgi.version", "wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "wsgi.input_terminated", "wsgi.input",
        "wsgi.errors", "wsgi.file_wrapper", "uwsgi.core", "uwsgi.version", "uwsgi.node", "x-wsgiorg.fdevent.readable",
        "x-wsgiorg.fdevent.writable", "x-wsgiorg.fdevent.timeout",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "scheme"),
    [
        ({}, "http"),
        ({"HTTPS": "on"}, "https"),
        ({"HTTPS": "1"}, "https"),
        ({"HTTPS": "off"}, "http"),
        ({"HTTPS": ""}, "http"),
        ({"REQUEST_SCHEME": "https"}, "https"),
        ({"REQUEST_SCHEME": "http"}, "http"),
        ({"UWSGI_SCHEME": "https"}, "https"),
        ({"UWSGI_SCHEME": "https", "REQUEST_SCHEME": "http"}, "https"),
        ({"HTTPS": "on", "UWSGI_SCHEME": "http", "REQUEST_SCHEME": "http"}, "https"),
        ({"UWSGI_SCHEME": "java,script"}, "http"),
        ({"REQUEST_SCHEME": "javascript"}, "http"),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, "http"),
        ({"HTTP_X_FORWARDED_SSL": "on"}, "http"),
        ({"HTTPS": "on", "HTTP_X_FORWARDED_PROTO": "http"}, "https"),
    ],
)
def test_the_scheme_is_what_the_front_end_says_and_never_a_client(place, variables, scheme):
    shown, _, _ = by_packet(place.server, {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **variables})
    assert shown["wsgi.url_scheme"] == scheme
    assert {key: shown[key] for key in variables} == variables


@pytest.mark.parametrize(
    "name", ["wsgi.url_scheme", "wsgi.input", "wsgi.errors", "wsgi.version", "wsgi.file_wrapper", "uwsgi.core",
    "uwsgi.node", "wsgi.foo",
             "uwsgi.foo", "x-wsgiorg.fdevent.readable"]
)  # fmt: skip
def test_a_key_of_the_server_s_own_never_comes_from_the_wire(place, name):
    reply = parse_reply(
        place.server.raw(build_request({"REQUEST_METHOD": "GET", "PATH_INFO": "/", name: "evil"}), "uwsgi")
    )
    if reply.status == 200:
        shown, others, _ = json.loads(reply.body)
        assert shown.get(name) != "evil"
        assert others.get(name, ["str"])[0] != "evil"
    else:
        assert reply.status == 400


POWERLESS = {
    "UWSGI_FILE": "evil.py", "UWSGI_SCRIPT": "evil", "UWSGI_MODULE": "evil", "UWSGI_CALLABLE": "application",
    "UWSGI_PYHOME": "/tmp",
    "UWSGI_HOME": "/tmp", "UWSGI_CHDIR": "/", "UWSGI_SETENV": "INJECTED=yes", "UWSGI_POSTFILE": "app.py",
    "UWSGI_TOUCH_RELOAD": "app.py", "UWSGI_CACHE_GET": "key",
}  # fmt: skip


def test_what_uwsgi_would_obey_is_ignored_and_named_once(tmp_path):
    with running(tmp_path, APPLICATION, "--disable-logging") as server:
        (tmp_path / "evil.py").write_text('open("executed", "w").close()\nimport sys\nsys.modules["evil"] = sys\n')
        before = by_packet(server, {"REQUEST_METHOD": "GET", "PATH_INFO": "/"})[2]
        assert before[:3] == [str(tmp_path), None, False]
        for kind in ("uwsgi", "unix", "uwsgi"):
            packet = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "2", **POWERLESS}
            assert by_packet(server, packet, kind, b"hi")[2] == before
        for name in POWERLESS:
            assert by_packet(server, {"REQUEST_METHOD": "GET", "PATH_INFO": "/", name: POWERLESS[name]})[2] == before
        assert {name: server.log.count(f"{name} ") for name in POWERLESS} == dict.fromkeys(POWERLESS, 1)
        assert not (tmp_path / "executed").exists()
