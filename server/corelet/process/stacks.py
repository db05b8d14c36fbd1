"""What a process that cannot answer is doing: its Python stacks, written by faulthandler into memory we share.

faulthandler writes from the C signal handler, so it works while Python code loops, a C function holds the interpreter's
lock, or a system call sleeps. It works for nobody who is stopped (SIGSTOP).
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import sysconfig

from corelet.process.signals import DUMP_SIGNAL
from corelet.serving.where import is_own

MAX_DUMP_BYTES = 100_000
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$')
_LIBRARY = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})


class Stacks:
    """A file in memory that one worker's faulthandler writes to."""

    def __init__(self, descriptor: int | None = None) -> None:
        """A new file, or the one behind the descriptor."""
        self.descriptor = os.memfd_create("corelet-stacks", os.MFD_CLOEXEC) if descriptor is None else descriptor

    def offer(self) -> None:
        """In the worker: write all stacks when the master asks for them."""
        faulthandler.register(DUMP_SIGNAL, file=self.descriptor, all_threads=True)

    def ask(self, pid: int) -> None:
        """In the master: have the worker write. `read` has it a moment later."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            os.lseek(self.descriptor, 0, os.SEEK_SET)  # the worker's offset too: it is the same open file
            os.kill(pid, DUMP_SIGNAL)

    def read(self) -> str:
        """What was written, or nothing if the worker did not come to it."""
        return os.pread(self.descriptor, MAX_DUMP_BYTES, 0).decode("utf-8", "replace").rstrip()

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.descriptor)


def application_line(dump: str) -> str:
    """'file:line in function' of the innermost frame of the application's, in the thread that the signal met.

    The innermost frame outside the server, the standard library and installed packages; if there is none, the innermost
    outside the server. Empty when the dump says nothing.
    """
    frames = _current(dump)
    foreign = [frame for frame in frames if not is_own(frame[0])]
    theirs = [frame for frame in foreign if not _is_library(frame[0])]
    for file, line, function in theirs or foreign or frames:
        return f"{file}:{line} in {function}"
    return ""


def _is_library(file: str) -> bool:
    return file.startswith((*_LIBRARY, "<frozen ")) or "-packages/" in file


def _current(dump: str) -> list[tuple[str, str, str]]:
    """The frames of the thread that is marked as current, innermost first; of the last thread if none is."""
    _before, marked, rest = dump.partition("Current thread")
    part = rest if marked else dump.rpartition("\nThread ")[2]
    frames = []
    for line in part.splitlines()[1:]:
        match = _FRAME.match(line)
        if match is not None:
            frames.append((match["file"], match["line"], match["function"]))
        elif not line.startswith("  "):  # a remark such as "Garbage-collecting" stands among the frames
            break  # the next thread's heading
    return frames
