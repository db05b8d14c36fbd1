"""`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").

An iterable over a file that the gateway may recognise and hand to the kernel (sendfile). It only describes; who sends
it decides whether the file has a usable descriptor.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from typing import Any

BLOCK_BYTES = 65536


class FileWrapper:
    """Iterate over `filelike` in blocks of `block_size` bytes; close() closes it when it can be closed."""

    def __init__(self, filelike: Any, block_size: int = BLOCK_BYTES) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        while block := self.filelike.read(self.block_size):
            yield block

    def close(self) -> None:
        """Close the wrapped file, as PEP 3333 asks for."""
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()

    def extent(self) -> tuple[int, int, int] | None:
        """Return (descriptor, offset in bytes, count in bytes) of a regular file, else None.

        The offset is where the file object stands now: an application may have read a part of it.
        """
        # Exactly these: a gzip.GzipFile has a fileno() too, and its descriptor does not hold what its read() gives.
        if type(self.filelike) not in (io.BufferedReader, io.BufferedRandom, io.FileIO):
            return None
        try:
            descriptor = self.filelike.fileno()
            status = os.fstat(descriptor)
            offset = self.filelike.tell()
        except (OSError, ValueError):  # a pipe, a closed file: iterate instead
            return None
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return None  # a size of 0 may be a file of /proc, which has content all the same
        return descriptor, offset, max(0, status.st_size - offset)
