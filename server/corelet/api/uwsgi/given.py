"""`uwsgi.opt`: the options that were given, and the keys of one's own in a file, under the names they were written by.

As in uWSGI on Python 3: keys are str, values bytes, True for an option without a value, a list for one that was given
several times. A key may be asked for as bytes too, since applications of both times do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Options(dict[str, Any]):
    """A dict that takes bytes for its keys."""

    def __init__(self, written: Iterable[tuple[str, str | None]]) -> None:
        super().__init__()
        for name, text in written:
            value: Any = True if text is None else text.encode("utf-8", "surrogateescape")
            if name in self:
                before = self[name]
                value = [*before, value] if isinstance(before, list) else [before, value]
            self[name] = value

    def __missing__(self, key: object) -> Any:
        if isinstance(key, bytes):
            return self[key.decode("utf-8", "surrogateescape")]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(_text(key))

    def get(self, key: Any, default: Any = None, /) -> Any:
        """As a dict's, for both kinds of key."""
        return super().get(_text(key), default)


def _text(key: Any) -> Any:
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else key
