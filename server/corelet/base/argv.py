"""The command line, read as uWSGI's users know it: getopt_long's rules, over the option table.

    --option value   --option=value   --flag   --flag=false   --wsgi-fil app.py (a unique prefix)   --enable_threads
    -s :3031   -s:3031   -p4   -ML (a cluster of flags)   -MLp4
    --chmod-socket   --chmod-socket=660   --chmod-socket 660 (an optional value)
    --ini app.ini    app.ini   app.ini:production (the options of a file, in the place where it is named)

Not argparse: it cannot take `--chmod-socket 660` and `--chmod-socket` alone without also eating a following word, it
stops at the first mistake, and its prefix rule differs. All mistakes of a line are reported at once.

`read` is a pure function of the words: the values themselves are read later, by `config.resolve`. `configure` does all
of it, with the files that the words name, and is called again for a reload.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence

from corelet.base import ini
from corelet.base.config import OPTIONS, Mention, Resolved, resolve
from corelet.base.errors import ConfigError
from corelet.base.option import FALSE_WORDS, TRUE_WORDS, Kind, Option

_OTHER_FILE_ENDINGS = (".yml", ".yaml", ".json", ".xml", ".toml")


def configure(words: Sequence[str], *, folder: str = "", environ: Mapping[str, str] = os.environ) -> Resolved:
    """What a command line, without the program's name, and the files that it names ask for.

    The files are read at each call, so a reload calls this again; by then the process may have gone to another folder
    (chdir) and the application may have changed os.environ: `folder` is where relative names begin, `environ` what
    `$(NAME)` in a file means. Raises ConfigError with all mistakes of the words and of the files.
    """
    mentions, problems = read(words)
    everything: list[Mention] = []
    notes: list[str] = []
    own: list[tuple[str, str | None]] = []
    for mention in mentions:
        everything.append(mention)
        if mention.option.field != "ini" or not mention.text:
            continue
        try:
            found = ini.load(mention.text, folder=folder, environ=environ)
        except ConfigError as error:
            problems.append(str(error))
            continue
        everything += found.mentions
        problems += found.problems
        notes += found.notes
        own += found.own
    resolved = resolve(everything, problems)
    config = dataclasses.replace(resolved.config, written=(*resolved.config.written, *own))
    return dataclasses.replace(resolved, config=config, notes=(*notes, *resolved.notes))


def read(words: Sequence[str], table: Iterable[Option] = OPTIONS) -> tuple[list[Mention], list[str]]:
    """The options a command line mentions, in their order, and its mistakes, one sentence each."""
    reader = _Reader(words, table)
    reader.run()
    return reader.mentions, reader.problems


class _Reader:
    """One pass over the words; `at` is the index of the next one."""

    def __init__(self, words: Sequence[str], table: Iterable[Option]) -> None:
        self.words = words
        self.at = 0
        self.mentions: list[Mention] = []
        self.problems: list[str] = []
        self.by_name: dict[str, Option] = {}
        self.by_letter: dict[str, Option] = {}
        for row in table:
            self.by_name.update(dict.fromkeys(row.names, row))
            if row.short:
                self.by_letter[row.short] = row

    def run(self) -> None:
        while self.at < len(self.words):
            word = self.words[self.at]
            self.at += 1
            if word == "--":
                for rest in self.words[self.at :]:
                    self._positional(rest)
                return
            if word.startswith("--"):
                self._long(word[2:])
            elif word.startswith("-") and len(word) > 1:
                self._letters(word[1:])
            else:
                self._positional(word)

    def _long(self, word: str) -> None:
        written, has_value, value = word.partition("=")
        row = self._by_prefix(written)
        if row is not None:
            self._mention(row, f"--{written}", value if has_value else None)

    def _by_prefix(self, written: str) -> Option | None:
        """The option a long name means: by its whole name, or by a beginning that only this option's names have."""
        name = written.replace("_", "-")
        if name in self.by_name:
            return self.by_name[name]
        starting = [known for known in self.by_name if name and known.startswith(name)]
        rows = {self.by_name[known].field: self.by_name[known] for known in starting}
        if len(rows) == 1:
            return next(iter(rows.values()))
        if rows:
            self.problems.append(
                f"--{written} could be any of " + ", ".join(f"--{known}" for known in sorted(starting))
            )
        else:
            self.problems.append(f"--{written} is no option of corelet{self._nearest(name)}")
        self._skip_value_of_unknown()
        return None

    def _nearest(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.by_name, n=1, cutoff=0.6)
        return f"; did you mean --{close[0]}?" if close else "; --help lists them"

    def _skip_value_of_unknown(self) -> None:
        """The word after an unknown option is most likely its value: calling it a mistake too would only be noise."""
        if self.at < len(self.words) and "=" not in self.words[self.at - 1] and not self.words[self.at].startswith("-"):
            self.at += 1

    def _letters(self, letters: str) -> None:
        """A cluster: flags until the first option that takes a value, which takes the rest of the word."""
        for index, letter in enumerate(letters):
            row = self.by_letter.get(letter)
            if row is None:
                self.problems.append(f"-{letter} is no option of corelet; --help lists them")
                self._skip_value_of_unknown()
                return
            if row.kind is not Kind.FLAG:
                joined = letters[index + 1 :].removeprefix("=")
                self._mention(row, f"-{letter}", joined or None)
                return
            self.mentions.append(Mention(row, None, f"-{letter}"))

    def _mention(self, row: Option, origin: str, text: str | None) -> None:
        if text is None and row.kind is not Kind.FLAG:
            text = self._next_word(row)
        self.mentions.append(Mention(row, text, origin))

    def _next_word(self, row: Option) -> str | None:
        """The next word, if it is the value: always for a required value, if it reads as one for an optional value.

        An option in the place of a required value is a value forgotten, not a value: getopt would take `--socket
        --master` as a socket named --master.
        """
        if self.at == len(self.words):
            return None
        word = self.words[self.at]
        if not (row.takes_value and not self._is_option(word)) and (row.takes_value or not row.accepts(word)):
            return None
        self.at += 1
        return word

    def _is_option(self, word: str) -> bool:
        if word.startswith("--"):
            return word == "--" or word[2:].partition("=")[0].replace("_", "-") in self.by_name
        return len(word) == 2 and word[0] == "-" and word[1] in self.by_letter

    def _positional(self, word: str) -> None:
        before = self.mentions[-1] if self.mentions else None
        if before is not None and before.option.kind is Kind.FLAG and word.lower() in TRUE_WORDS + FALSE_WORDS:
            self.problems.append(f"{word!r} stands alone; write {before.origin}={word} as one word")
        elif "ini" in self.by_name and ini.split_section(word)[0].lower().endswith(".ini"):
            self.mentions.append(Mention(self.by_name["ini"], word, word))
        elif word.partition(":")[0].lower().endswith(_OTHER_FILE_ENDINGS):
            self.problems.append(
                f"{word}: this version reads configuration files in the form of .ini only; write it as one, or give "
                "its options here as --key=value"
            )
        elif word.lower().endswith((".py", ".wsgi")):
            self.problems.append(f"{word!r} stands alone; write --wsgi-file {word}")
        elif ":" in word and not word.startswith(":") and not word.rpartition(":")[2].isdecimal():
            self.problems.append(f"{word!r} stands alone; write --module {word}")
        elif ":" in word:
            self.problems.append(f"{word!r} stands alone; write --socket {word} or --http-socket {word}")
        else:
            self.problems.append(f"{word!r} stands alone: corelet takes options only; --help lists them")
