"""The application of `make run`: a page with a link for each thing to see.

It is one plain WSGI callable and a table of views, to show that nothing but PEP 3333 is needed. It also runs under any
other WSGI server; the two pages that wait use corelet's bridge where there is one and say so where there is none.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

try:
    import corelet
except ImportError:  # another server, in an environment without corelet
    corelet = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MAX_FORM_BYTES = 64 * 1024
STREAM_LINES = 10
STREAM_PAUSE_SECONDS = 0.5
FILE_BLOCK_BYTES = 64 * 1024

STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #2f6f8f; }
body { max-width: 46rem; margin: 3rem auto; padding: 0 1rem; font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h1 + p { margin-top: 0; opacity: .75 }
a { color: var(--accent) } code, pre { font-family: ui-monospace, monospace; font-size: .9em }
ul { padding: 0; list-style: none } li { border-top: 1px solid var(--line); padding: .6rem 0 }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
td { border-top: 1px solid var(--line); padding: .3rem .5rem .3rem 0; vertical-align: top; overflow-wrap: anywhere }
textarea, input, button { font: inherit; width: 100%; box-sizing: border-box; margin-bottom: .6rem; padding: .4rem }
button { width: auto; padding: .4rem 1.2rem }
@media (prefers-color-scheme: dark) { :root { --accent: #7fc1e0 } }
"""

INDEX = """
<h1>It works</h1>
<p>This page came over {path}, on core {core}.</p>
<ul>
<li><a href="{root}/hello">Hello</a><br>thirteen bytes of plain text</li>
<li><a href="{root}/await">A view that awaits</a><br>a plain function that waits a second on the event loop;
 open it in several tabs, they wait together</li>
<li><a href="{root}/stream">A stream</a><br>one line each half second, sent as it is made</li>
<li><a href="{root}/environ">The environ</a><br>every variable this request brought along</li>
<li><a href="{root}/form">A form</a><br>what you post comes back</li>
<li><a href="{root}/download">A file</a><br>this application's source, sent by the kernel from the file itself</li>
</ul>
"""

FORM = """
<h1>A form</h1>
<p>The fields come back, in the order they were sent.</p>
<form method="post" action="{root}/form">
<label>Name <input name="name" value="Ada"></label>
<label>Message <textarea name="message" rows="4">Hello, &amp; welcome</textarea></label>
<button>Send</button>
</form>
"""

NO_CORE = """
<h1>Not under corelet</h1>
<p>This page waits with <code>corelet.await_</code>, which suspends the core that a request runs on. Another server runs
this application here, so there is no core. Start it with <code>corelet --wsgi-file examples/demo.py</code>.</p>
"""

View = Callable[["WSGIEnvironment", "StartResponse"], Iterable[bytes]]


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Find the view for the path; 404 and 405 have a page as well."""
    view, methods = VIEWS.get(environ.get("PATH_INFO") or "/", (not_found, ()))
    if methods and environ["REQUEST_METHOD"] not in methods:
        return page(
            environ, start_response, "<h1>Not this method</h1>", "405 Method Not Allowed", Allow=", ".join(methods)
        )
    return view(environ, start_response)


def page(
    environ: WSGIEnvironment, start_response: StartResponse, content: str, status: str = "200 OK", **headers: str
) -> list[bytes]:
    """A whole HTML page around `content`, which is HTML already."""
    root = html.escape(environ.get("SCRIPT_NAME", "")) or "/"
    back = "" if content.startswith("\n<h1>It works") else f'<p><a href="{root}">Back</a></p>'
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>corelet demo</title><style>{STYLE}</style><body>{content}{back}</body></html>"
    )
    body = text.encode()
    fields = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body))), *headers.items()]
    start_response(status, fields)
    return [body]


def plain(start_response: StartResponse, body: bytes, status: str = "200 OK") -> list[bytes]:
    """A reply in plain text."""
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


def on_a_core() -> bool:
    """Whether corelet runs this request, so that it can wait on the loop."""
    return corelet is not None and corelet.in_core()


def index(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The links."""
    root = html.escape(environ.get("SCRIPT_NAME", ""))
    # nginx sends DOCUMENT_ROOT and REQUEST_SCHEME with every uwsgi packet; an HTTP socket knows neither.
    path = "nginx and uwsgi packets" if "DOCUMENT_ROOT" in environ else "an HTTP socket"
    core = html.escape(str(environ.get("uwsgi.core", "unknown")))
    return page(environ, start_response, INDEX.format(root=root, path=path, core=core))


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The shortest reply."""
    return plain(start_response, b"Hello, World!")


def awaiting(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Wait a second on the loop. The core is suspended, the worker is not."""
    if not on_a_core():
        return page(environ, start_response, NO_CORE, "501 Not Implemented")
    began = time.monotonic()
    corelet.await_(asyncio.sleep(1))
    waited = f"<h1>Awaited</h1><p>The view was away for {time.monotonic() - began:.3f} seconds.</p>"
    code = html.escape("corelet.await_(asyncio.sleep(1))")
    return page(environ, start_response, f"{waited}<p>It is a plain function with the line <code>{code}</code>.</p>")


def stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """A generator. X-Accel-Buffering tells nginx not to collect the reply; nosniff tells the browser not to, either."""
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("X-Accel-Buffering", "no")]
    start_response("200 OK", [*headers, ("X-Content-Type-Options", "nosniff")])
    began = time.monotonic()
    for number in range(1, STREAM_LINES + 1):
        yield f"line {number:2} of {STREAM_LINES}, {time.monotonic() - began:4.1f} s\n".encode()
        if on_a_core():
            corelet.await_(asyncio.sleep(STREAM_PAUSE_SECONDS))
        else:
            time.sleep(STREAM_PAUSE_SECONDS)


def environ_table(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """All variables, escaped: most of them are the client's words."""
    rows = "".join(row(key, value if isinstance(value, str) else repr(value)) for key, value in sorted(environ.items()))
    return page(environ, start_response, f"<h1>The environ</h1><table>{rows}</table>")


def row(key: str, value: str) -> str:
    """One line of a table."""
    return f"<tr><td><code>{html.escape(key)}</code></td><td>{html.escape(value)}</td></tr>"


def form(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Show the form, or what was posted with it."""
    if environ["REQUEST_METHOD"] != "POST":
        return page(environ, start_response, FORM.format(root=html.escape(environ.get("SCRIPT_NAME", ""))))
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > MAX_FORM_BYTES:
        return page(environ, start_response, "<h1>Too large</h1>", "413 Content Too Large")
    posted = environ["wsgi.input"].read(length).decode("utf-8", "replace")
    rows = "".join(row(key, value) for key, value in parse_qsl(posted, keep_blank_values=True))
    return page(environ, start_response, f"<h1>Posted</h1><table>{rows}</table>")


def download(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """This file. With wsgi.file_wrapper the server may hand it to the kernel (sendfile) without reading it."""
    file = Path(__file__)
    headers = [("Content-Type", "text/x-python; charset=utf-8"), ("Content-Length", str(file.stat().st_size))]
    start_response("200 OK", [*headers, ("Content-Disposition", f'attachment; filename="{file.name}"')])
    wrapper: Any = environ.get("wsgi.file_wrapper")
    if wrapper is None:
        return [file.read_bytes()]
    blocks: Iterable[bytes] = wrapper(file.open("rb"), FILE_BLOCK_BYTES)  # closed by the server, with the reply
    return blocks


def not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Every other path."""
    wanted = html.escape(environ.get("PATH_INFO", ""))
    return page(
        environ, start_response, f"<h1>Nothing here</h1><p>There is no page <code>{wanted}</code>.</p>", "404 Not Found"
    )


READ = ("GET", "HEAD")
VIEWS: dict[str, tuple[View, tuple[str, ...]]] = {
    "/": (index, READ),
    "/hello": (hello, READ),
    "/await": (awaiting, READ),
    "/stream": (stream, READ),
    "/environ": (environ_table, READ),
    "/form": (form, (*READ, "POST")),
    "/download": (download, READ),
}
