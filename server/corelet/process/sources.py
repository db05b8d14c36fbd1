"""The source files of a process, for py-autoreload: which they are, which have changed, and which can be compiled.

Watched is the source of every imported module, but for those of the standard library and those in a zip file; and every
.py file beside one that somebody works on (that was not installed), imported or not: the file whose syntax error kept a
new worker from starting is seen when it is mended. A file that has gone is no change: editors save by moving a new file
to the old one's place, and without its file a new worker could not start anyway.

A file that was written while the application was loaded may have been read before that; so the first scan reports it.

It knows no loop: a scan is a generator of small steps, and autoreload.py says when the next one is due.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import importlib.util
import os
import struct
import sysconfig
import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from types import ModuleType

PACKAGE_FOLDERS = ("site-packages", "dist-packages")
PYTHON_ENDINGS = (".py", ".pyw", ".wsgi")
CLOCK_NS = 10_000_000  # by so much a file's time may lag behind the clock: the kernel stamps by its ticks
MAX_IN_A_ROW = 3  # reloads that each follow a load during which a file was written

_COMPILED_ENDINGS = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_LIBRARY_FOLDERS = tuple(
    os.path.join(folder, "")
    for folder in (os.path.dirname(os.__file__), sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
)

Signature = tuple[int, int, int]
"""How a file looks: when it was changed, in ns, how long it is, and which inode it is (a save by rename changes it)."""


def signature_of(path: str) -> Signature | None:
    """How the file looks now; None if it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def is_packaged(path: str) -> bool:
    """Whether the file was installed, and is not part of what somebody works on."""
    return any(folder in PACKAGE_FOLDERS for folder in path.split(os.sep))


def source_of(module: object) -> str | None:
    """The absolute path of the source that a module was made from; None for one of the standard library or without any.

    Reads the module's dictionary, past its own attribute access: a lazy module would import something.
    """
    if not isinstance(module, ModuleType):
        return None
    path = object.__getattribute__(module, "__dict__").get("__file__")
    if not isinstance(path, str) or path.endswith(_COMPILED_ENDINGS):
        return None
    path = os.path.abspath(path)
    if path.endswith(".pyc"):
        try:
            path = importlib.util.source_from_cache(path)
        except ValueError:  # not in a __pycache__: compiled beside its source
            path = path[:-1]
    return None if path.startswith(_LIBRARY_FOLDERS) and not is_packaged(path) else path


class SourceFiles:
    """The files of the modules, and the .py files beside them, with what was last seen of each."""

    def __init__(self, modules: Mapping[str, object], loading_began_ns: int | None = None) -> None:
        """`loading_began_ns`: before the first of them was read, as time.time_ns() says it; None: all are as read."""
        self._modules = modules
        self._loading_began = loading_began_ns
        self._loaded = time.time_ns()
        self.written_while_loading: set[str] = set()
        self._seen: dict[str, Signature] = {}
        self._listed: set[str] = set()
        self._sources: dict[int, tuple[object, str | None]] = {}
        self._folders: set[str] = set()
        self.folders: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._seen)

    def __contains__(self, path: object) -> bool:
        return path in self._seen

    def look(self) -> Generator[str | None, None, None]:
        """One scan: yields the path of each file that has changed, and None after every other small step.

        What is seen for the first time is no change, but a .py file that is new in a folder which was listed before,
        and in the first scan an imported file that was written since the loading began.
        """
        began, self._loading_began = self._loading_began, None
        imported: dict[str, None] = {}
        own: dict[str, None] = {}
        for module in tuple(self._modules.values()):
            path = self._source_of(module)
            if path is not None:
                imported[path] = None
            yield None
        for path in imported:
            is_news = began is not None and _written_between(path, began, time.time_ns())
            if is_news and _written_between(path, 0, self._loaded):
                self.written_while_loading.add(path)
            yield self.changed(path, is_news=is_news)
            if path in self._seen and not is_packaged(path):
                own[os.path.dirname(path)] = None
        for folder in own:
            for path in _python_files(folder):
                if path is None:
                    yield None
                else:
                    yield self.changed(path, is_news=folder in self._listed and path not in imported)
        self._listed.update(own)
        if len(self._folders) != len(self.folders):
            self.folders = frozenset(self._folders)

    def changed(self, path: str, *, is_news: bool = False) -> str | None:
        """The path, if the file does not look as it did; `is_news` is whether a file seen for the first time counts."""
        now = signature_of(path)
        if now is None:
            return None
        before = self._seen.get(path)
        self._seen[path] = now
        if before is None:
            self._folders.add(os.path.dirname(path))
        elif before != now:
            self.written_while_loading.discard(path)
        return path if before != now and (before is not None or is_news) else None

    def _source_of(self, module: object) -> str | None:
        """As source_of, which is asked once for each module. The module is kept, so that its id stays its own."""
        known = self._sources.get(id(module))
        if known is None:
            known = self._sources[id(module)] = (module, source_of(module))
        return known[1]


def _written_between(path: str, began_ns: int, ended_ns: int) -> bool:
    """Whether it was written then. A time that is yet to come is another machine's, and says nothing."""
    signature = signature_of(path)
    return signature is not None and began_ns - CLOCK_NS <= signature[0] <= ended_ns


class Rewritten:
    """For the master: whether a file that a worker has found written while it loaded is a reason for a reload.

    An application may write it itself, at each load, and each load would be followed by the next.
    """

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}
        self._in_a_row = 0

    def edited(self) -> None:
        """A file was edited while nothing was loaded: that is a person."""
        self._in_a_row = 0

    def is_reason(self, path: str) -> bool:
        """Whether it holds something else than at the last such report, and there were few of them in a row."""
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except OSError:
            return False
        if self._digests.get(path) == digest or self._in_a_row >= MAX_IN_A_ROW:
            return False
        self._digests[path] = digest
        self._in_a_row += 1
        return True


def _python_files(folder: str) -> Iterator[str | None]:
    """The .py files of a folder, but for the hidden ones (an editor's locks and copies); None for everything else."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_python = entry.name.endswith(".py") and not entry.name.startswith(".") and entry.is_file()
                yield entry.path if is_python else None
    except OSError:  # the folder has gone, or may no longer be read
        return


def syntax_problem(path: str) -> str:
    """Where and why a Python file cannot be compiled; empty if it can, or is not Python, or cannot be read."""
    if not path.endswith(PYTHON_ENDINGS):
        return ""
    try:
        with open(path, "rb") as file:
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        text = f": {error.text.strip()}" if error.text and error.text.strip() else ""
        return f"{_shown(path)}:{error.lineno or 1}: {type(error).__name__}: {error.msg}{text}"
    except ValueError as error:  # a null byte, before CPython 3.12
        return f"{_shown(path)}:1: {error}"
    except Exception:  # noqa: BLE001 - it has gone, or is too much for the compiler: a new worker will say so
        return ""
    return ""


def forget_compiled(path: str) -> None:
    """Remove the compiled form of a source if Python would still take it for the source's own.

    Python tells two versions of a file apart by the whole second of their time and by their length. Of two saves within
    a second, `one` and `two`, a new worker would import the first.
    """
    with contextlib.suppress(OSError, NotImplementedError):  # there is none, or it is not ours to remove
        cached = importlib.util.cache_from_source(path)
        with open(cached, "rb") as file:
            header = file.read(16)
        status = os.stat(path)
        # PEP 552: magic, flags (0: told apart by time), and the time and length of the source.
        expected = struct.pack("<III", 0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
        if header[4:] == expected:
            os.unlink(cached)


def _shown(path: str) -> str:
    """The path as one would write it here."""
    with contextlib.suppress(OSError):  # the current folder may have gone
        return path.removeprefix(os.path.join(os.getcwd(), ""))
    return path
