"""What a core may run that is no request: a handler of a signal or a timer, and nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable

from corelet.base import forks
from corelet.base.errors import Unwind
from corelet.serving.cores import Core

logger = logging.getLogger("corelet.cores")


class Beside:
    """A job that is no request: a handler of a signal, a function of a timer."""

    def __init__(self, function: Callable[[], object], title: str) -> None:
        self._function = function
        self._title = title

    def serve(self, core: Core) -> None:
        try:
            self._function()
        except Unwind as error:
            logger.warning("%s was unwound: %s", self._title, error)
        except BaseException as error:  # the border around the application's handlers, whatever they raise
            if forks.is_fork():
                forks.leave(error)
            logger.exception("%s failed", self._title)
        if core.scope is not None:
            core.scope.end()
            core.scope = None

    def suspended(self, core: Core) -> None: ...

    def released(self) -> None: ...

    def abandon(self) -> None: ...

    def title(self) -> str:
        return self._title


class Nothing:
    """A job that does nothing: it brings a core to the state between two requests."""

    def serve(self, core: Core) -> None: ...

    def suspended(self, core: Core) -> None: ...

    def released(self) -> None: ...

    def abandon(self) -> None: ...

    def title(self) -> str:
        return "nothing"
