"""The server's own part of the environ."""

import sys

import pytest

from corelet.wsgi.environ import server_keys, url_scheme
from corelet.wsgi.file_wrapper import FileWrapper


@pytest.mark.parametrize(
    ("variables", "scheme"),
    [
        ({}, "http"),
        ({"HTTPS": "on"}, "https"),
        ({"HTTPS": "1"}, "https"),
        ({"HTTPS": "off"}, "http"),
        ({"HTTPS": "0"}, "http"),
        ({"HTTPS": ""}, "http"),
        ({"UWSGI_SCHEME": "https"}, "https"),
        ({"REQUEST_SCHEME": "https"}, "https"),
        ({"UWSGI_SCHEME": "", "REQUEST_SCHEME": "https"}, "https"),
        ({"UWSGI_SCHEME": "https", "REQUEST_SCHEME": "http"}, "https"),
        ({"HTTPS": "off", "REQUEST_SCHEME": "https"}, "https"),
        ({"HTTPS": "on", "REQUEST_SCHEME": "http"}, "https"),
        ({"UWSGI_SCHEME": "java,script"}, "http"),
        ({"REQUEST_SCHEME": "https\r\n"}, "http"),
        ({"HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_SSL": "on", "HTTP_HTTPS": "on"}, "http"),
    ],
)
def test_the_scheme_is_http_or_https_by_https_then_uwsgi_scheme_then_request_scheme(variables, scheme):
    assert url_scheme(variables) == scheme


def test_the_server_s_own_keys():
    keys = server_keys(core=3, node="host", version="corelet 1", multithread=True, multiprocess=False)
    assert keys == {
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
        "uwsgi.version": b"corelet 1",
        "uwsgi.node": b"host",
        "uwsgi.core": 3,
    }
