"""Ini files, read as uWSGI's users write them: keys repeat, a key alone is a flag, %(key) stands for a value.

    [uwsgi]                       or [corelet], or the section that FILE.ini:SECTION names
    base = /srv/app               a key of one's own is allowed if a placeholder uses it
    chdir = %(base)               a key that was set before (the first, if it repeats: uWSGI's core/config.c)
    http-socket = :$(PORT)        a variable of the environment
    %%                            a percent sign
    ; or #                        a comment, alone in its line or after a blank

Not configparser: it refuses repeated keys and keys without a value, and gives no line numbers. What uWSGI knows beyond
this (its one-letter placeholders, arithmetic, conditions, loops, files that name files) is refused, never passed on as
if it were plain text. A reader reports all mistakes of a file at once; it knows only a text and the option table.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from corelet.base.config import OPTIONS, Mention
from corelet.base.errors import ConfigError
from corelet.base.option import Option

SECTIONS = ("uwsgi", "corelet")
"""The sections that are read when none is named: the first of them that the file has."""

MAX_FILE_BYTES = 1_000_000  # the largest of 249 public files has 8 KB: more is no configuration

_OF_FLOW = frozenset(["for", "end", "endfor", "end-for", "endif", "end-if", "else", "print", "exit"])
_OF_FILES = frozenset(["ini", "include", "inherit", "yaml", "yml", "json", "xml", "toml"])
_OF_NAMES = frozenset(["set", "set-ph", "set-placeholder", "declare-option", "declare-option2"])

# The letters are uWSGI's magic table; any other character after a percent sign is text, there as here.
_PLACEHOLDER = re.compile(
    r"(?P<percent>%%)|%\((?P<key>[^()]*)\)|\$\((?P<variable>\w+)\)"
    r"|(?P<content>@\([^()]*\))|(?P<letter>%[vVhoOpPsSdDeEnNcCtTuUgGiIjJrRkxX0-9])"
)
_PLAIN_KEY = re.compile(r"[\w.-]+")


class IniText(NamedTuple):
    """What a file says: the options it mentions in their order, its mistakes, and what its reader should tell of it."""

    mentions: list[Mention]
    problems: list[str]
    notes: list[str]
    own: list[tuple[str, str | None]]  # keys of its own, which are no options


class _Line(NamedTuple):
    """One line `key = value` of the section; `value` is None where there is no equals sign."""

    number: int
    key: str
    value: str | None


def load(
    written: str, *, folder: str = "", environ: Mapping[str, str] = os.environ, table: Iterable[Option] = OPTIONS
) -> IniText:
    """Read `FILE` or `FILE:SECTION`, below `folder` if it is relative. Raises ConfigError if it cannot be read."""
    path, section = split_section(written)
    return read_ini(_content(path, folder), path, table, environ, section=section)


def split_section(written: str) -> tuple[str, str]:
    """'app.ini:production' as ('app.ini', 'production'); the section is '' if none is named."""
    path, _, section = written.rpartition(":")
    return (path, section) if path and "/" not in section else (written, "")


def _content(path: str, folder: str) -> str:
    try:
        with open(os.path.join(folder, path), "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        where = "" if os.path.isabs(path) else f"; it is looked for in {folder or os.curdir}"
        raise ConfigError(f"{path}: {error.strerror}{where}; name a file in the form of .ini") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: expected a configuration; got more than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: expected UTF-8; got the byte 0x{data[error.start]:02x}; save the file as UTF-8"
        ) from error


def read_ini(
    text: str, name: str, table: Iterable[Option], environ: Mapping[str, str], *, section: str = ""
) -> IniText:
    """The options that the text of a file mentions, and all its mistakes; `name` is what messages call the file."""
    reader = _Reader(name, table, environ)
    reader.run(text, section)
    return IniText(reader.mentions, reader.problems, reader.notes, reader.own)


class _Reader:
    """One pass over one text. `values` is what `%(key)` stands for so far."""

    def __init__(self, name: str, table: Iterable[Option], environ: Mapping[str, str]) -> None:
        self.name = name
        self.environ = environ
        self.by_name = {known: row for row in table for known in row.names}
        self.values: dict[str, str] = {}
        self.mentions: list[Mention] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.own: list[tuple[str, str | None]] = []

    def run(self, text: str, section: str) -> None:
        lines = text.split("\n")  # not splitlines(): it knows ten more ends of a line, and would count them
        wanted = self._choose(_headers(lines), section)
        if wanted is None:  # a header that is broken may be why
            for number, line in enumerate(map(str.strip, lines), 1):
                if line.startswith("[") and _header(line) is None:
                    self._broken_header(number, line)
            return
        own = list(self._lines_of(lines, wanted))
        used = {match["key"] for line in own for match in _PLACEHOLDER.finditer(line.value or "") if match["key"]}
        for each in own:
            self._take(each, used)

    def _choose(self, headers: list[str], section: str) -> str | None:
        """The section to read; None, with a problem, if there is none."""
        found = [header for header in SECTIONS if header in headers]
        if section in headers or (found and not section):
            if len(found) > 1 and not section:
                self.notes.append(f"{self.name}: [{found[0]}] is read; {self.name}:{found[1]} would read [{found[1]}]")
            return section or found[0]
        expected = f"[{section}]" if section else " or ".join(f"[{header}]" for header in SECTIONS)
        have = ", ".join(f"[{header}]" for header in dict.fromkeys(headers)) or "no section"
        name_one = f"; {self.name}:{headers[0]} reads one" if headers else ""
        self.problems.append(f"{self.name}: expected a section {expected}; the file has {have}{name_one}")
        return None

    def _broken_header(self, number: int, line: str) -> None:
        self.problems.append(f"{self.name}:{number}: expected [section]; got {line!r}")

    def _lines_of(self, lines: list[str], wanted: str) -> Iterator[_Line]:
        """The lines of one section, which may stand in several pieces."""
        current: str | None = None
        for number, line in enumerate(map(str.strip, lines), 1):
            if not line or line[0] in ";#":
                continue
            if line[0] == "[":
                current = _header(line)
                if current is None:
                    self._broken_header(number, line)
            elif current is None:
                self.problems.append(f"{self.name}:{number}: {line!r} stands in no section; write [{wanted}] above it")
            elif current == wanted:
                text, comment = split_comment(line)
                if comment:
                    self.notes.append(
                        f"{self.name}:{number}: {comment!r} is read as a comment; uWSGI takes it into the value"
                    )
                key, equals, value = text.partition("=")
                yield _Line(number, key.strip(), value.strip() if equals else None)

    def _take(self, line: _Line, used: set[str]) -> None:
        where = f"{self.name}:{line.number}"
        row = self.by_name.get(line.key.replace("_", "-"))
        text, problems = self._filled_in(
            line.value or "", keeps_variables=row is not None and row.field == "log_format"
        )
        refusal = self._refusal(line.key, row, is_used=line.key in used)
        self.problems += [f"{where}: {problem}" for problem in ([refusal] if refusal else problems)]
        self.values.setdefault(line.key, "true" if line.value is None else text)
        if row is not None and not problems and not refusal:
            self.mentions.append(Mention(row, text or None, f"{where}: {line.key}"))
        elif row is None and not refusal:
            self.own.append((line.key, None if line.value is None else text))

    def _refusal(self, key: str, row: Option | None, *, is_used: bool) -> str:
        """Why a key cannot stand here, or ''."""
        name = key.replace("_", "-")
        if name in _OF_FLOW or name.startswith(("if-", "for-")):
            return f"{key}: this version has no conditions and loops in files; write the lines that hold here"
        if name in _OF_FILES:
            return f"{key}: this version reads no file that a file names; name both on the command line"
        if name in _OF_NAMES:
            return f"{key}: this version does not know it; a key of one's own is set by key = value"
        if row is not None or is_used:
            return ""
        first = name.split(maxsplit=1)[0] if name else ""
        if first != name and first in self.by_name:
            return f"{key!r} is no option of corelet; did you mean {first} = …?"
        close = difflib.get_close_matches(name, self.by_name, n=1, cutoff=0.6)
        advice = f"did you mean {close[0]}?" if close else "corelet --help lists them"
        return f"{key if _PLAIN_KEY.fullmatch(key) else repr(key)} is no option of corelet; {advice}"

    def _filled_in(self, value: str, *, keeps_variables: bool) -> tuple[str, list[str]]:
        """The value with its placeholders filled in, and what is wrong with them.

        `keeps_variables`: a %(name) that no key has set is left, since the access line has variables of that form.
        """
        problems: list[str] = []

        def fill(match: re.Match[str]) -> str:
            key, variable = match["key"], match["variable"]
            if match["percent"]:
                return "%"
            if key is not None and key in self.values:
                return self.values[key]
            if variable is not None and variable in self.environ:
                return self.environ[variable]
            if key is None or not keeps_variables:
                problems.append(f"{match[0]}: {_advice(match)}")
            return match[0]

        return _PLACEHOLDER.sub(fill, value), problems


def _advice(match: re.Match[str]) -> str:
    """Why a placeholder cannot be filled in, and what to write."""
    if match["letter"]:
        return f"this version fills in %(key) and $(VARIABLE) only; write the value, or %{match[0]} for the text"
    if match["content"]:
        return "this version puts no file's content into a value; write the value"
    if match["variable"] is not None:
        return "the environment has no such variable; set it, or write the value"
    if _PLAIN_KEY.fullmatch(match["key"]):
        return f"no line before this one sets {match['key']}"
    return "this version does not calculate; write the value"


def _headers(lines: list[str]) -> list[str]:
    """The names of all sections, in their order."""
    names = (_header(line.strip()) for line in lines if line.lstrip().startswith("["))
    return [name for name in names if name is not None]


def _header(line: str) -> str | None:
    text, _ = split_comment(line)
    return text[1:-1].strip() if text.endswith("]") else None


def split_comment(line: str) -> tuple[str, str]:
    """A line and the comment behind it: what a `;` or `#` begins that follows a blank and stands in no quotes.

    A quote opens only where a word begins and only if it is closed later: the apostrophe of `isn't` protects nothing.
    """
    quote = ""
    before = " "
    for at, character in enumerate(line):
        if quote:
            if character == quote and before != "\\":
                quote = ""
        elif character in "'\"" and not before.isalnum() and character in line[at + 1 :]:
            quote = character
        elif character in ";#" and before in " \t":
            return line[:at].rstrip(), line[at:]
        before = character
    return line, ""
