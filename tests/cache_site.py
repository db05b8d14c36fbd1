"""An application whose views call uwsgi.cache_*, for corelet and for uWSGI; and a uWSGI to run it, where one is found.

A request's body is a list of Python expressions in JSON, the reply the list of their results: `repr`, or `!` and the
name of the exception.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness import PATIENCE_SECONDS, ROOT, Log, free_port

APPLICATION = """
import json, os, resource, threading, time
import uwsgi

def outcome(expression):
    try:
        return repr(eval(expression, globals()))
    except Exception as error:
        return "!" + type(error).__name__

def application(environ, start_response):
    expressions = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"[]")
    body = json.dumps([outcome(each) for each in expressions]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


def ask(address: tuple[str, int], *expressions: str) -> list[str]:
    """The results of these expressions, in one request."""
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE_SECONDS)
    try:
        connection.request("POST", "/", json.dumps(expressions), {"Connection": "close"})
        reply = connection.getresponse()
        body = reply.read()
        assert reply.status == 200, body
        return json.loads(body)
    finally:
        connection.close()


def uwsgi_program() -> str | None:
    """uWSGI, where the variable CORELET_UWSGI or the environment of the benchmarks has one."""
    for path in (os.environ.get("CORELET_UWSGI"), str(ROOT / ".venv-bench/bin/uwsgi")):
        if path and os.access(path, os.X_OK):
            return path
    return None


@contextlib.contextmanager
def uwsgi_running(program: str, folder: Path, *arguments: str) -> Iterator[tuple[str, int]]:
    """The application in a real uWSGI; its HTTP address."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(APPLICATION)
    address = ("127.0.0.1", free_port())
    process = subprocess.Popen(
        [
            program, "--master", "--need-app", "--die-on-term", "--wsgi-file", "app.py",
            "--http-socket", f"{address[0]}:{address[1]}", *arguments,
        ],
        cwd=folder, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    log = Log(process.stdout)
    try:
        log.wait_for("spawned uWSGI worker 1")
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        log.join()
