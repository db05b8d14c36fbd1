"""A uwsgi packet's variables -> Request: what a server may believe of them.

uwsgiproto says whether the bytes are a packet; this module says what the variables may mean. It makes the same Request
as the HTTP parser, so that everything behind it is written once. Knows no socket.

Over uwsgi the variables are the environ. Three never reach the application: HTTP_PROXY (httpoxy, CVE-2016-5385) and
HTTP_CONTENT_LENGTH / HTTP_CONTENT_TYPE, which nginx sends beside the real ones and PEP 3333 forbids. Variables with which
uWSGI loads code, opens files or changes the process (uwsgi#2336: who reaches the port owns the process) stay strings
without any effect.
"""

from __future__ import annotations

from corelet.base.errors import RequestRefused
from corelet.wire.request import Request

POWERLESS = frozenset(
    "UWSGI_" + name
    for name in "FILE SCRIPT MODULE CALLABLE PYHOME HOME CHDIR SETENV POSTFILE TOUCH_RELOAD CACHE_GET".split()
)
"""What uWSGI obeys (core/protocol.c:270-600) and corelet does not."""

_MAX_LENGTH_DIGITS = 18


def read_request(variables: dict[str, str], block: bytes, modifier1: int = 0) -> tuple[Request, frozenset[str] | None]:
    """Return the request, and the powerless variables that it carried (None for none).

    `block` is the packet as received; it is only searched, to spare the usual packet a look at each of its keys.
    Raises RequestRefused (400).
    """
    ignored = None
    if b"UWSGI_" in block:
        ignored = POWERLESS.intersection(variables) or None
    # CONTENT_LENGTH rules on a uwsgi socket: nginx has de-chunked the body and still sends HTTP_TRANSFER_ENCODING.
    length = variables.get("CONTENT_LENGTH")
    if length:
        if not (length.isascii() and length.isdigit()) or len(length) > _MAX_LENGTH_DIGITS:
            raise RequestRefused(400, f"CONTENT_LENGTH is to be digits or empty, {length[:40]!a} came")
        body_length = int(length)
    else:
        body_length = 0
    if "HTTP_PROXY" in variables:
        del variables["HTTP_PROXY"]
    if "HTTP_CONTENT_TYPE" in variables:
        del variables["HTTP_CONTENT_TYPE"]
    if "HTTP_CONTENT_LENGTH" in variables:
        del variables["HTTP_CONTENT_LENGTH"]
    if "REQUEST_METHOD" not in variables:
        raise RequestRefused(400, "the packet has no REQUEST_METHOD; does the front end include uwsgi_params?")
    _complete(variables, modifier1)
    return Request(variables, body_length), ignored


def _complete(variables: dict[str, str], modifier1: int) -> None:
    """Add what PEP 3333 requires and a front end may leave out: nginx sends no SCRIPT_NAME and perhaps no SERVER_NAME."""
    script = variables.get("SCRIPT_NAME")
    if not script:
        variables["SCRIPT_NAME"] = ""
    else:
        _check_script_name(variables, script, modifier1)
    if not variables.get("SERVER_NAME"):
        variables["SERVER_NAME"] = (
            variables.get("HTTP_HOST", "").rpartition(":")[0] or variables.get("HTTP_HOST") or "localhost"
        )
    if "PATH_INFO" not in variables:
        variables["PATH_INFO"] = ""
    if "QUERY_STRING" not in variables:
        variables["QUERY_STRING"] = ""
    if not variables.get("SERVER_PORT"):
        variables["SERVER_PORT"] = "443" if variables.get("HTTPS") else "80"
    if "SERVER_PROTOCOL" not in variables:
        variables["SERVER_PROTOCOL"] = "HTTP/1.0"


def _check_script_name(variables: dict[str, str], script: str, modifier1: int) -> None:
    if script == "/":
        variables["SCRIPT_NAME"] = script = ""
    elif script[0] != "/":
        raise RequestRefused(400, f"SCRIPT_NAME is to be empty or to begin with a slash, {script[:80]!a} came")
    if modifier1 == 30:
        # uwsgi_modifier1 30: the server strips SCRIPT_NAME from PATH_INFO. uWSGI itself forgets to on Python 3.
        path = variables.get("PATH_INFO", "")
        if script and (path == script or path.startswith(script + "/")):
            variables["PATH_INFO"] = path[len(script) :]

