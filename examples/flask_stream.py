"""Flask, streaming one line each half second, without a thread for each listener.

Nothing here knows of corelet except the one sleep. Under another server `corelet.sleep` raises an error that says so;
`time.sleep` would work anywhere, and stop the whole worker while it sleeps. pip install flask.
"""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask, Response

import corelet

LINES = 5
PAUSE_SECONDS = 0.5

application = Flask(__name__)


@application.get("/")
def stream() -> Response:
    """Server-sent events, which a browser's EventSource reads as they come."""
    return Response(events(), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})


def events() -> Iterator[str]:
    """One event at a time; the core is suspended in between."""
    for number in range(1, LINES + 1):
        yield f"data: event {number} of {LINES}\n\n"
        corelet.sleep(PAUSE_SECONDS)
