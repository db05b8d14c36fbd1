"""The server side of PEP 3333: call the application, send what it returns, call close().

Pure: it takes the application, an environ and a Response, and raises whatever the application raises; who calls it
decides what an exception becomes (a 500, a cut reply, an unwound core).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from corelet.base.errors import ResponseError
from corelet.wsgi.file_wrapper import FileWrapper
from corelet.wsgi.response import Response

Application = Callable[[dict[str, Any], Callable[..., Any]], Any]


def run(application: Application, environ: dict[str, Any], response: Response) -> None:
    """Run one request to the end of its reply.

    Raises what the application raises, ResponseError where it breaks PEP 3333, and what the writer raises. The
    iterable's close() is called in every case, after the last byte.
    """
    result = application(environ, response.start_response)
    kind = type(result)
    if kind is list and len(result) == 1:
        response.whole(result[0])
        return
    if kind is bytes:
        response.whole(result)  # uWSGI serves it as one chunk (python_plugin, uwsgi_python_send_body)
        return
    try:
        if kind is list or kind is tuple:
            _send_list(result, response)
        elif kind is FileWrapper and response.file(result):
            pass
        else:
            _send_iterable(result, response)
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()


def _send_list(chunks: Any, response: Response) -> None:
    """All chunks exist already, so they are one reply: one send, and a Content-Length that the application left out."""
    for chunk in chunks:
        if type(chunk) is not bytes:
            _send_iterable(chunks, response)
            return
    response.whole(b"".join(chunks))


def _send_iterable(result: Any, response: Response) -> None:
    """Each chunk goes out before the next is asked for (PEP 3333, "Buffering and Streaming")."""
    if isinstance(result, (str, bytearray, memoryview)) or not hasattr(result, "__iter__"):
        raise ResponseError(f"the application is to return an iterable of bytes, a {type(result).__name__} came")
    for chunk in result:
        if not response.chunk(chunk):
            break
        if response.between_chunks is not None:
            response.between_chunks()
    response.end()
