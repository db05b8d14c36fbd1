"""A uwsgi packet's variables -> Request: what a server may believe of them.

uwsgiproto says whether the bytes are a packet; this module says what the variables may mean. It makes the same Request
as the HTTP parser, so that everything behind it is written once. Knows no socket.

Over uwsgi the variables are the environ. Three never reach the application: HTTP_PROXY (httpoxy, CVE-2016-5385) and
HTTP_CONTENT_LENGTH / HTTP_CONTENT_TYPE, which nginx sends beside the real ones and PEP 3333 forbids. Variables with
which uWSGI loads code, opens files or changes the process (uwsgi#2336: who reaches the port owns the process) stay
strings without any effect.
"""

from __future__ import annotations

from corelet.base.errors import RequestRefused
from corelet.wire.request import Request

POWERLESS = frozenset(
    "UWSGI_" + name
    for name in [
        "FILE",
        "SCRIPT",
        "MODULE",
        "CALLABLE",
        "PYHOME",
        "HOME",
        "CHDIR",
        "SETENV",
        "POSTFILE",
        "TOUCH_RELOAD",
        "CACHE_GET",
    ]
)
"""What uWSGI obeys (core/protocol.c:270-600) and corelet does not."""

_EXPECTED = frozenset(("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "SERVER_NAME", "SERVER_PORT"))
_MAX_LENGTH_DIGITS = 18  # an exabyte, and far from int()'s own limit


def read_request(
    variables: dict[str, str], data: bytes, end: int, modifier1: int = 0
) -> tuple[Request, frozenset[str] | None]:
    """Return the request, and the powerless variables that it carried (None for none).

    `data` up to `end` is the packet as received; it is only searched, to spare the usual packet a look at its keys.
    Raises RequestRefused (400).
    """
    powerless = POWERLESS.intersection(variables) or None if data.find(b"UWSGI_", 0, end) >= 0 else None
    # CONTENT_LENGTH rules on a uwsgi socket: nginx has de-chunked the body and still sends HTTP_TRANSFER_ENCODING.
    length = variables.get("CONTENT_LENGTH")
    variables.pop("HTTP_CONTENT_LENGTH", None)
    variables.pop("HTTP_CONTENT_TYPE", None)
    variables.pop("HTTP_PROXY", None)
    if "SCRIPT_NAME" not in variables and variables.keys() >= _EXPECTED:
        variables["SCRIPT_NAME"] = ""  # nginx: all is there but this
        if not variables["SERVER_NAME"]:
            variables["SERVER_NAME"] = _server_name(variables)
    else:
        _complete(variables, modifier1)
    return Request(variables, _body_length(length) if length else 0), powerless


def _body_length(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_LENGTH_DIGITS:
        raise RequestRefused(400, f"CONTENT_LENGTH is to be digits or empty, {text[:40]!a} came")
    return int(text)


def _complete(variables: dict[str, str], modifier1: int) -> None:
    """Add what PEP 3333 requires and a front end may leave out."""
    if "REQUEST_METHOD" not in variables:
        raise RequestRefused(400, "the packet has no REQUEST_METHOD; does the front end include uwsgi_params?")
    script = variables.setdefault("SCRIPT_NAME", "")
    if script:
        _check_script_name(variables, script, modifier1)
    variables.setdefault("PATH_INFO", "")
    variables.setdefault("QUERY_STRING", "")
    variables.setdefault("SERVER_PROTOCOL", "HTTP/1.0")
    if not variables.get("SERVER_NAME"):
        variables["SERVER_NAME"] = _server_name(variables)
    if not variables.get("SERVER_PORT"):
        variables["SERVER_PORT"] = "443" if variables.get("HTTPS") else "80"


def _server_name(variables: dict[str, str]) -> str:
    """PEP 3333: never empty. nginx sends it empty where a server block has no server_name."""
    host = variables.get("HTTP_HOST", "")
    name = host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return name or "localhost"


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
