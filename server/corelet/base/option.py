"""What one option is: its names, its kind, its default, and how a written value becomes a Python value.

This is the mechanism under the option table; the table itself is the fields of `Config` (config.py and the
`*_options.py` beside it). An option is declared exactly once, as a dataclass field made by `option(...)`, and
everything that needs to know about options reads that one declaration: the command line, the help, the printed
configuration, later the configuration files and the documentation. Declaring an option in three places (a parser, a
settings class, a manual) is how they drift apart: 6 of 93 public uwsgi.ini files carry a key that no program reads.

It knows nothing of command lines or files: a reader of either hands over the text it found, or None for an option
that was written without a value.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any, TypeVar

from corelet.base.errors import ConfigError

TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")

_METADATA_KEY = "corelet-option"

_Number = TypeVar("_Number", int, float)


class Kind(enum.Enum):
    """How the text of an option is read. The value is the word that the help shows for it."""

    FLAG = ""
    INTEGER = "N"
    SECONDS = "SECONDS"
    TEXT = "TEXT"
    CHOICE = "WORD"
    LIST = "TEXT (repeatable)"
    MODE = "MODE"


class Verdict(enum.Enum):
    """What corelet does with an option. Accepted options have no effect, and say why none is needed."""

    WORKS = "works"
    ACCEPTED = "accepted"


@dataclasses.dataclass(frozen=True)
class Option:
    """One row of the option table.

    `field` is the attribute of Config, `names` the long names without dashes (the first is the one to show), `short`
    a letter or "". `bare` is the value of an option of another kind than FLAG that is written without a value; None
    means that a value is required. `why` explains an accepted option.
    """

    field: str
    names: tuple[str, ...]
    short: str
    kind: Kind
    default: Any
    help: str
    group: str = ""
    verdict: Verdict = Verdict.WORKS
    why: str = ""
    bare: Any = None
    choices: tuple[str, ...] = ()
    minimum: float = 0
    maximum: float | None = None
    metavar: str = ""

    @property
    def name(self) -> str:
        """The name to show in messages."""
        return self.names[0]

    @property
    def takes_value(self) -> bool:
        """Whether a value must follow."""
        return self.kind is not Kind.FLAG and self.bare is None

    def parse(self, text: str | None) -> Any:
        """The Python value of the written text (None = written without a value), not yet joined with other mentions.

        Raises ConfigError that says what was expected and what came; the caller adds where it stood.
        """
        if text is None:
            if self.kind is Kind.FLAG:
                return True
            if self.bare is None:
                raise ConfigError(f"needs a value ({self.expected()}); none came")
            return self.bare
        return _PARSERS[self.kind](self, text.strip() if self.kind is not Kind.LIST else text)

    def accepts(self, text: str) -> bool:
        """Whether the text is a value of this option; tells `--chmod-socket 660 --master` from `--chmod-socket`."""
        try:
            self.parse(text)
        except ConfigError:
            return False
        return True

    def expected(self) -> str:
        """What a value of this option looks like, in words."""
        if self.kind is Kind.CHOICE:
            return "one of " + ", ".join(self.choices)
        if self.kind is Kind.INTEGER:
            return f"a whole number{self._range()}"
        if self.kind is Kind.SECONDS:
            return f"a number of seconds{self._range()}"
        if self.kind is Kind.MODE:
            return "an octal mode such as 660"
        if self.kind is Kind.FLAG:
            return "true or false, or no value at all"
        return self.metavar or "a text"

    def _range(self) -> str:
        if self.maximum is not None:
            return f" from {self.minimum:g} to {self.maximum:g}"
        return f", {self.minimum:g} or more"


def option(
    *names: str,
    kind: Kind,
    help: str,
    default: Any = None,
    short: str = "",
    accepted: str = "",
    bare: Any = None,
    choices: Iterable[str] = (),
    minimum: float = 0,
    maximum: float | None = None,
    metavar: str = "",
) -> Any:
    """A dataclass field that declares one option. Without names the field's name is used, with dashes.

    `accepted` is the reason why an option has no effect, and makes its verdict ACCEPTED.
    The value is Any because `dataclasses.field` is typed so: the annotation beside it is what mypy holds to.
    """
    if kind is Kind.LIST and default is None:
        default = ()
    if kind is Kind.FLAG and default is None:
        default = False
    row = Option(
        field="",
        names=names,
        short=short,
        kind=kind,
        default=default,
        help=help,
        verdict=Verdict.ACCEPTED if accepted else Verdict.WORKS,
        why=accepted,
        bare=bare,
        choices=tuple(choices),
        minimum=minimum,
        maximum=maximum,
        metavar=metavar,
    )
    return dataclasses.field(default=default, metadata={_METADATA_KEY: row})


def options_of(owner: type[Any]) -> tuple[Option, ...]:
    """The table of a dataclass whose fields were made by `option`, in the order of declaration.

    The group of an option is the first line of the docstring of the class that declares it.
    """
    rows = []
    for field in dataclasses.fields(owner):
        if _METADATA_KEY not in field.metadata:
            continue  # not an option
        row: Option = field.metadata[_METADATA_KEY]
        group = next(c for c in reversed(owner.__mro__) if field.name in getattr(c, "__dataclass_fields__", {}))
        rows.append(
            dataclasses.replace(
                row,
                field=field.name,
                names=row.names or (field.name.rstrip("_").replace("_", "-"),),
                group=(group.__doc__ or "").strip().partition("\n")[0].rstrip("."),
            )
        )
    return tuple(rows)


# ---- one reader per kind ----


def _parse_flag(row: Option, text: str) -> bool:
    word = text.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ConfigError(f"expected {row.expected()}; got {text!r}")


def _parse_integer(row: Option, text: str) -> int:
    # int() also takes '1_000', ' 5' and digits of other scripts; isdecimal+isascii leaves what strtol and people mean.
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):
        raise ConfigError(f"expected {row.expected()}; got {text!r}")
    return _check_range(row, int(text), text)


def _parse_seconds(row: Option, text: str) -> float:
    whole, _, fraction = text.removeprefix("-").partition(".")
    if not (text.isascii() and (whole + fraction).isdecimal()):
        raise ConfigError(f"expected {row.expected()}; got {text!r}")
    return _check_range(row, float(text), text)


def _check_range(row: Option, number: _Number, text: str) -> _Number:
    if number < row.minimum or (row.maximum is not None and number > row.maximum):
        raise ConfigError(f"expected {row.expected()}; got {text}")
    return number


def _parse_text(row: Option, text: str) -> str:
    if not text:
        raise ConfigError(f"expected {row.expected()}; got an empty value")
    return text


def _parse_list(row: Option, text: str) -> tuple[str, ...]:
    return (_parse_text(row, text),)


def _parse_choice(row: Option, text: str) -> str:
    word = text.lower()
    if word not in row.choices:
        raise ConfigError(f"expected {row.expected()}; got {text!r}")
    return word


def _parse_mode(row: Option, text: str) -> int:
    # 0o7777 are all the bits that chmod knows; '666' and '0666' are what configurations hold.
    if not text or len(text) > 5 or any(digit not in "01234567" for digit in text) or int(text, 8) > 0o7777:
        raise ConfigError(f"expected {row.expected()}; got {text!r}")
    return int(text, 8)


_PARSERS = {
    Kind.FLAG: _parse_flag,
    Kind.INTEGER: _parse_integer,
    Kind.SECONDS: _parse_seconds,
    Kind.TEXT: _parse_text,
    Kind.LIST: _parse_list,
    Kind.CHOICE: _parse_choice,
    Kind.MODE: _parse_mode,
}
