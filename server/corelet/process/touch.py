"""touch-reload and its kin: files that somebody touches to give an order. Looked at, and never watched.

One os.stat for each file and tick costs two microseconds and works on every file system, also on those mounted over a
network, where inotify sees nothing. What counts is the modification time, the inode and the size: `touch` changes the
first, an editor or a deployment that puts a new file in place the second.

A file that is not there yet is waited for. A file that goes away is no order: deployments remove before they write, and
the order comes with the new file. A file that cannot be looked at for another reason (permissions, a network that is
down) is taken to be as it was, since its coming back says nothing.
"""

from __future__ import annotations

import logging
import os

from corelet.base.config import Config

logger = logging.getLogger("corelet.process")

OPTIONS = ("touch-reload", "touch-chain-reload", "touch-workers-reload")

_Look = tuple[int, int, int]  # (mtime_ns, inode, size)


class TouchFiles:
    """The files of the touch options, as they looked last. Paths are made absolute: `chdir` comes later."""

    def __init__(self, config: Config, before: TouchFiles | None = None) -> None:
        """`before`: those of the configuration until now. A touch since its last look is not to be lost."""
        self.paths: tuple[tuple[str, str], ...] = tuple(
            (option, os.path.abspath(path)) for option in OPTIONS for path in getattr(config, option.replace("-", "_"))
        )
        self._unseen: set[str] = set()
        self._looks: dict[tuple[str, str], _Look | None] = {}
        for option, path in self.paths:
            known = before._looks if before is not None else {}
            key = (option, path)
            self._looks[key] = known[key] if key in known else self._look(option, path, None)

    def changed(self) -> list[tuple[str, str]]:
        """(option name, path) of what was touched since the last call."""
        touched = []
        for option, path in self._looks:
            before = self._looks[option, path]
            now = self._looks[option, path] = self._look(option, path, before)
            if now is not None and now != before:
                touched.append((option, path))
        return touched

    def _look(self, option: str, path: str, before: _Look | None) -> _Look | None:
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            self._unseen.discard(path)
            return None
        except OSError as error:
            if path not in self._unseen:
                self._unseen.add(path)
                logger.warning(
                    "%s %s: cannot be looked at: %s; no touch is seen until it can", option, path, error.strerror
                )
            return before
        self._unseen.discard(path)
        return (status.st_mtime_ns, status.st_ino, status.st_size)
