"""The environ of a request: the variables as they came, and the server's own keys on top.

Over uwsgi the variables *are* the environ: every one that nginx sent, custom ones too, minus three (wire/uwsgi.py).
What the server owns is written last, so that nothing a peer sends can stand in its place.
"""

from __future__ import annotations

import sys
from typing import Any

from corelet.wsgi.file_wrapper import FileWrapper

SCHEMES = {"http": "http", "https": "https", "HTTP": "http", "HTTPS": "https"}
_ON = frozenset(("on", "1", "ON", "On", "true", "yes"))


def server_keys(*, core: int, node: str, version: str, multithread: bool, multiprocess: bool) -> dict[str, Any]:
    """Return the keys that are the same for every request on one core.

    `multithread` is to be True with more than one core: the application may be called again while another call waits
    (PEP 3333: "may be simultaneously invoked"), as under uWSGI with threads.
    """
    return {
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,  # a read never waits beyond the body's end
        "uwsgi.version": version.encode(),  # bytes, as in uWSGI on Python 3
        "uwsgi.node": node.encode(),
        "uwsgi.core": core,
    }


def url_scheme(variables: dict[str, str]) -> str:
    """HTTPS, then UWSGI_SCHEME, then REQUEST_SCHEME; X-Forwarded-Proto is what any client can write, so never.

    uWSGI takes UWSGI_SCHEME unchecked ("java,script" was accepted) and overlooks REQUEST_SCHEME, which nginx sends.
    """
    if "HTTPS" in variables and variables["HTTPS"] in _ON:
        return "https"
    named = variables.get("UWSGI_SCHEME") or variables.get("REQUEST_SCHEME")
    return SCHEMES.get(named, "http") if named else "http"
