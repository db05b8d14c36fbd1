"""Which application answers: callable, mounts, manage-script-name, need-app."""

import os
import subprocess
import sys

import pytest
from harness import PATIENCE_SECONDS, ROOT, free_port, running
from wsgi_site import BUFFERED, DIRECT, site

from uwsgiproto.client import build_request, parse_reply

APPLICATION = """
def make(name):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return ["|".join([name, environ["SCRIPT_NAME"], environ["PATH_INFO"]]).encode("latin-1")]
    return application

application = make("application")
other = make("other")
one = make("one")
two = make("two")
deep = make("deep")

def factory():
    return make("made")
"""

MOUNTS = ("--mount", "/one=app:one", "--mount", "/two=app:two", "--mount", "/one/deep=app:deep")


@pytest.fixture(scope="module")
def managed(tmp_path_factory):
    with site(
        tmp_path_factory.mktemp("managed"), APPLICATION, *MOUNTS, "--manage-script-name", "--no-default-app"
    ) as place:
        yield place


@pytest.mark.parametrize("way", DIRECT + BUFFERED)
@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("/one", b"one|/one|"),
        ("/one/", b"one|/one|/"),
        ("/one/a/b?c", b"one|/one|/a/b"),
        ("/two/a", b"two|/two|/a"),
        ("/one/deep/x", b"deep|/one/deep|/x"),
        ("/one/deeper", b"one|/one|/deeper"),
        ("/one/caf%C3%A9", b"one|/one|/caf\xc3\xa9"),
    ],
)
def test_the_longest_mount_serves_and_its_prefix_becomes_script_name(managed, way, target, answer):
    reply = managed.ask(way, target)
    assert (reply.status, reply.body) == (200, answer)


@pytest.mark.parametrize("way", DIRECT + BUFFERED)
@pytest.mark.parametrize("target", ["/", "/onestep", "/three", "/two2/"])
def test_outside_the_mounts_there_is_a_404(managed, way, target):
    reply = managed.ask(way, target)
    assert (reply.status, reply.header("Content-Length")) == (404, str(len(reply.body)))


@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
@pytest.mark.parametrize(
    ("variables", "answer"),
    [
        ({"UWSGI_APPID": "/two", "PATH_INFO": "/a"}, b"two||/a"),
        ({"SCRIPT_NAME": "/two", "PATH_INFO": "/a"}, b"two|/two|/a"),
        ({"PATH_INFO": "/a"}, b"one||/a"),  # as uWSGI: the first mount serves what none matches
    ],
)
def test_appid_or_script_name_names_the_mount(tmp_path, kind, variables, answer):
    with running(tmp_path, APPLICATION, *MOUNTS) as server:
        packet = build_request({"REQUEST_METHOD": "GET", **variables})
        assert parse_reply(server.raw(packet, kind)).body == answer


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ((), b"application||/"),
        (("--callable", "other"), b"other||/"),
        (("-w", "app"), b"application||/"),
        (("-w", "app:other"), b"other||/"),
        (("--module=app:factory()",), b"made||/"),
        (("--wsgi-file", "app.py", "--callable", "two"), b"two||/"),
    ],
)
def test_the_callable_is_the_one_that_was_named(serve, arguments, answer):
    server = serve(APPLICATION, *arguments)
    assert server.get("/", "http").body == answer
    assert server.get("/", "uwsgi").body == answer


@pytest.mark.parametrize("modifier1", [0, 30])
def test_modifier_30_cuts_script_name_from_path_info(managed, modifier1):
    packet = build_request({"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/two", "PATH_INFO": "/two/a"}, modifier1=modifier1)
    assert parse_reply(managed.server.raw(packet, "uwsgi")).body == b"two|/two|/a"


@pytest.mark.parametrize("script_name", ["x", "two", "http://x/"])
def test_a_script_name_without_its_slash_is_refused(managed, script_name):
    packet = build_request({"REQUEST_METHOD": "GET", "SCRIPT_NAME": script_name, "PATH_INFO": "/a"})
    assert parse_reply(managed.server.raw(packet, "uwsgi")).status == 400


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--wsgi-file", "missing.py"), "missing.py"),
        (("-w", "missing:application"), "missing"),
        (("-w", "app:nothing"), "nothing"),
        (("--mount", "/x=missing.py"), "missing.py"),
        ((), "--wsgi-file"),
    ],
)
def test_without_an_application_it_does_not_start_and_says_what_is_missing(tmp_path, arguments, said):
    (tmp_path / "app.py").write_text(APPLICATION)
    ended = subprocess.run(
        [sys.executable, "-m", "corelet", "--http-socket", f"127.0.0.1:{free_port()}", *arguments],
        cwd=tmp_path, env=dict(os.environ, PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'server'}"), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 22
    assert said in ended.stdout
    assert "Traceback" not in ended.stdout


def test_without_need_app_every_request_is_an_error(serve):
    server = serve(APPLICATION, "--wsgi-file", "missing.py", "--need-app=false")
    assert "missing.py" in server.log.text()
    assert server.get("/", "http").status in (404, 500, 503)
    assert server.get("/", "uwsgi").status in (404, 500, 503)
