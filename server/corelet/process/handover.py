"""What a master leaves to the program that it becomes: its sockets, its workers, its daemons.

A re-exec keeps the process id, the children and every descriptor that is marked inheritable; all else is gone. What
they are is written as JSON into one variable of the environment, which the new program takes out at once. It is
believed only if it names our own process id: a child of the old program could have inherited it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from corelet import __version__
from corelet.base.errors import OperatorError
from corelet.process.listening import ListeningSocket

logger = logging.getLogger("corelet.process")

VARIABLE = "CORELET_HANDOVER"
VERSION = 1


@dataclass(frozen=True)
class HandedWorker:
    """A worker of the program before."""

    pid: int
    worker: int
    generation: int
    channel: int
    board: int | None  # descriptors, too
    stacks: int | None
    seconds: float | None  # that it has left if it was told to end


@dataclass(frozen=True)
class Handover:
    """All that is left."""

    sockets: list[ListeningSocket]
    workers: tuple[HandedWorker, ...]
    generation: int
    requests: int
    rest: dict[str, Any]  # daemons, crons, fifos: as their own modules wrote it

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Handover | None:
        """What was left to this process, or None. Raises OperatorError for what cannot be understood."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            found = json.loads(text)
            if found["pid"] != os.getpid():
                return None
            return cls._read(found)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise OperatorError(f"{VARIABLE} in the environment cannot be understood ({error!r}); unset it") from error

    @classmethod
    def of_our_parent(cls, environ: MutableMapping[str, str] = os.environ) -> Handover | None:
        """What a master would leave to this program, which it is trying out. Raises OperatorError if that cannot be."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            return cls._read(json.loads(text))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise OperatorError(
                f"corelet {__version__} does not understand what the running master would leave to it ({error!r}); "
                "stop the server and start it again"
            ) from error

    @classmethod
    def _read(cls, found: dict[str, Any]) -> Handover:
        if found["version"] != VERSION:
            raise ValueError(f"version {found['version']}, not {VERSION}")
        return cls(
            sockets=[ListeningSocket.from_handover(each) for each in found["sockets"]],
            workers=tuple(HandedWorker(**each) for each in found["workers"]),
            generation=int(found["generation"]),
            requests=int(found["requests"]),
            rest=dict(found["rest"]),
        )


def write(
    sockets: list[ListeningSocket],
    workers: tuple[HandedWorker, ...],
    generation: int,
    requests: int,
    rest: dict[str, Any],
) -> dict[str, str]:
    """The variable, for the environment of the new program; the sockets are made inheritable."""
    for sock in sockets:
        sock.set_inheritable(True)
    found = {
        "version": VERSION,
        "pid": os.getpid(),
        "sockets": [sock.handover() for sock in sockets],
        "workers": [each.__dict__ for each in workers],
        "generation": generation,
        "requests": requests,
        "rest": rest,
    }
    return {VARIABLE: json.dumps(found)}


@contextlib.contextmanager
def failures_only_said(handed: Handover | None) -> Iterator[None]:
    """What fails in here stops a start. A program that was handed workers says it and goes on.

    The try-out has found what can be found beforehand; for the rest nobody's requests end.
    """
    try:
        yield
    except OperatorError as error:
        if handed is None:
            raise
        logger.error("%s; the new master goes on without it", error)
