"""Hooks: what the operator has done at fixed points of the server's life. uWSGI's names, without its shell.

A hook is an action and its argument (`exec:COMMAND`); an `exec-POINT` option is a command alone, and comes after the
hooks of its point, as in uWSGI (core/hooks.c). All of them are read when the configuration is read, so a mistake in the
hook of the last point stops the start and not the end. A hook that fails ends what it is part of: a server whose
preparation went wrong does not serve. Only at the end there is nothing left to stop, and a warning is all.

`unix_signal` does nothing at its point. It says which order a signal gives to the master, as the line
`unix_signal:15 gracefully_kill_them_all` does that half of all uwsgi.ini files with a hook consist of; the master asks
`orders` for it.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from corelet.base.config import Config
from corelet.base.errors import ConfigError, OperatorError
from corelet.process import commands
from corelet.process.signals import MASTER_SIGNALS

logger = logging.getLogger("corelet.process")

POINTS = (
    "asap",
    "as-root",
    "as-user",
    "as-user-atexit",
    "master-start",
    "post-fork",
    "pre-app",
    "post-app",
    "accepting",
)

AT_EXIT = "as-user-atexit"

ORDER_OF_FUNCTION: Mapping[str, str] = {
    "gracefully_kill_them_all": "stop",
    "kill_them_all": "quit",
    "grace_them_all": "reload",
    "reap_them_all": "brutal-reload",
}
"""uWSGI's functions that a signal may be given to, and what they are called here (the tables of process/fifo.py)."""

SIGNALS_TO_CHOOSE = tuple(sorted(number for number in MASTER_SIGNALS if number != signal.SIGCHLD))


class HookExit(OperatorError):
    """A hook `exit:CODE` ends the start with that code, which may be 0."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


@dataclass(frozen=True)
class Action:
    """One hook: how it was written, and what does it. `do` raises OperatorError."""

    text: str
    do: Callable[[], None]

    @property
    def speaks_itself(self) -> bool:
        """Whether it writes a line of its own, so that none need announce it."""
        return self.text.startswith(("print:", "log:"))


@dataclass(frozen=True)
class Hooks:
    """The actions of each point, and the signals that were given another meaning.

    `signals` has uWSGI's function by the signal's number, as it was written; `orders` has the order that it stands for.
    """

    actions: Mapping[str, tuple[Action, ...]]
    signals: Mapping[int, str]

    @classmethod
    def from_config(cls, config: Config) -> Hooks:
        """Read every hook and exec option. Raises ConfigError with all mistakes, one in a line."""
        actions: dict[str, tuple[Action, ...]] = {}
        signals: dict[int, str] = {}
        problems: list[str] = []
        for point in POINTS:
            found: list[Action] = []
            for option, text in _written(config, point):
                try:
                    if option.startswith("hook-") and text.startswith("unix_signal:"):
                        signals.update([_signal(point, text)])
                    else:
                        found.append(_action(point, text if option.startswith("hook-") else f"exec:{text}"))
                except ConfigError as error:
                    problems.append(f"--{option}: {error}")
            actions[point] = tuple(found)
        if problems:
            raise ConfigError("\n".join(problems))
        return cls(actions, signals)

    @property
    def orders(self) -> dict[int, str]:
        """The order that each of `signals` gives."""
        return {number: ORDER_OF_FUNCTION[function] for number, function in self.signals.items()}

    def run(self, point: str) -> None:
        """Do what stands for this point, in order. Raises OperatorError at the first failure; at the end only warns."""
        for action in self.actions[point]:
            if not action.speaks_itself:
                logger.info("hook-%s: %s", point, action.text)
            try:
                action.do()
            except HookExit as error:
                raise HookExit(f"hook-{point}: {error}", error.exit_code) from None
            except OperatorError as error:
                if point != AT_EXIT:
                    raise OperatorError(f"hook-{point}: {error}") from error
                logger.warning("hook-%s: %s", point, error)


def _written(config: Config, point: str) -> list[tuple[str, str]]:
    """(option name, value) of everything for this point, in the order of doing it."""
    field = point.replace("-", "_")
    return [(f"{kind}-{point}", text) for kind in ("hook", "exec") for text in getattr(config, f"{kind}_{field}", ())]


# ---- what hooks do ----


def _run_command(words: list[str], command: str) -> None:
    code = commands.run(words)
    if code:
        raise OperatorError(f"{command} failed: {commands.ending(code)}; see what it wrote, or remove the hook")


def _end(code: int) -> None:
    raise HookExit(f"exit:{code} ends the server here, as it is told to", code)


def _on_path(name: str, call: Callable[[str], None], path: str) -> None:
    try:
        call(path)
    except OSError as error:
        raise OperatorError(f"{name}:{path} failed: {error.strerror}; correct or remove the hook") from error


# ---- reading ----


def _exec(command: str) -> Callable[[], None]:
    return partial(_run_command, commands.words_of(command), command)


def _print(text: str) -> Callable[[], None]:
    return partial(logger.info, "%s", text)


def _exit(text: str) -> Callable[[], None]:
    code = text.strip() or "0"
    if not (code.isascii() and code.isdecimal() and int(code) <= 255):
        raise ConfigError(f"expected exit:CODE, with a whole number from 0 to 255; got {text!r}")
    return partial(_end, int(code))


def _unlink(path: str) -> Callable[[], None]:
    return partial(_on_path, "unlink", os.unlink, _named("unlink:FILE", path))


def _chdir(path: str) -> Callable[[], None]:
    return partial(_on_path, "chdir", os.chdir, _named("chdir:FOLDER", path))


def _named(form: str, path: str) -> str:
    if not path:
        raise ConfigError(f"expected {form}; no name came")
    return path


# `cd` and `log` are uWSGI's second names for chdir and print.
ACTIONS: Mapping[str, Callable[[str], Callable[[], None]]] = {
    "exec": _exec,
    "print": _print,
    "log": _print,
    "exit": _exit,
    "unlink": _unlink,
    "chdir": _chdir,
    "cd": _chdir,
}


def _action(point: str, text: str) -> Action:
    name, colon, argument = text.partition(":")
    if not colon or name not in ACTIONS:
        raise ConfigError(
            f"expected one of {', '.join(f'{known}:…' for known in ACTIONS)} (and unix_signal:… in hook-master-start); "
            f"got {text!r}; what is none of these can be a command: exec:…"
        )
    if name == "exit" and point == AT_EXIT:
        raise ConfigError(f"expected something to do at the end; got {text!r}; the server is ending already, remove it")
    return Action(text, ACTIONS[name](argument))


def _signal(point: str, text: str) -> tuple[int, str]:
    """The number and the function of `unix_signal:NUMBER FUNCTION`."""
    if point != "master-start":
        raise ConfigError(f"{text}: signals are the master's; write it as hook-master-start")
    number, _, function = text.removeprefix("unix_signal:").strip().partition(" ")
    function = function.strip()
    if not (number.isascii() and number.isdecimal()) or int(number) not in SIGNALS_TO_CHOOSE:
        known = ", ".join(f"{known.value} ({known.name})" for known in map(signal.Signals, SIGNALS_TO_CHOOSE))
        raise ConfigError(f"expected unix_signal:NUMBER FUNCTION, with a number of {known}; got {text!r}")
    if function not in ORDER_OF_FUNCTION:
        raise ConfigError(
            f"expected unix_signal:NUMBER FUNCTION, with a function of {', '.join(ORDER_OF_FUNCTION)}; got {text!r}"
        )
    return int(number), function
