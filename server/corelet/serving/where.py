"""Where a suspended core stands: the innermost line of the application's, not of the server's."""

from __future__ import annotations

from pathlib import Path
from types import FrameType, TracebackType

_OWN = str(Path(__file__).resolve().parent.parent) + "/"


def is_own(file_name: str) -> bool:
    """True for a file of the server's own package."""
    return file_name.startswith(_OWN)


def suspended_at(frame: FrameType | None) -> str:
    """Return 'file:line in function' of the innermost frame outside the server."""
    while frame is not None:
        code = frame.f_code
        if not is_own(code.co_filename):
            return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"
        frame = frame.f_back
    return "its very beginning"


def application_part(traceback: TracebackType | None) -> TracebackType | None:
    """Drop the server's own frames at the outer end: a reader of the log looks for theirs."""
    inner = traceback
    while inner is not None and is_own(inner.tb_frame.f_code.co_filename):
        inner = inner.tb_next
    return inner or traceback
