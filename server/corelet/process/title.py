"""procname: what `ps` shows for the master and its workers.

The options are uWSGI's, and so is what they mean together: procname-master before procname before the automatic names,
and each of them switches the automatic names on for the processes that it does not name itself. The work is done by the
package setproctitle, which is imported only if one of the options is given: it moves the process's environment to
another place in memory as soon as it sets a title, which nobody should have who did not ask for it.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable

from corelet.base.config import Config

logger = logging.getLogger("corelet.process")

OPTIONS = (
    "procname",
    "procname-master",
    "procname-prefix",
    "procname-prefix-spaced",
    "procname-append",
    "auto-procname",
)


class ProcessTitle:
    """Gives a process its title, or does nothing: without the options, and without the package."""

    def __init__(self, config: Config) -> None:
        """Look at the options; warn if they need a package that is not installed."""
        self._config = config
        given = [option for option in OPTIONS if getattr(config, option.replace("-", "_"))]
        self._set = _setter(given) if given else None

    def master(self) -> None:
        """Name this process, which is the master."""
        self._give(self._config.procname_master or self._config.procname or "corelet master")

    def worker(self, number: int) -> None:
        """Name this process, which is the worker of that number."""
        self._give(self._config.procname or f"corelet worker {number}")

    def _give(self, name: str) -> None:
        if self._set is not None:
            self._set(titled(self._config, name))


def titled(config: Config, name: str) -> str:
    """The name with what stands before and after it. procname-prefix-spaced is procname-prefix and a blank."""
    spaced = config.procname_prefix_spaced
    prefix = f"{spaced} " if spaced is not None else config.procname_prefix or ""
    return f"{prefix}{name}{config.procname_append or ''}"


def _setter(given: list[str]) -> Callable[[str], None] | None:
    try:
        setproctitle: Callable[[str], None] = importlib.import_module("setproctitle").setproctitle
    except ImportError:
        logger.warning(
            "%s: processes keep their names, since the package setproctitle is not installed; "
            'pip install "corelet[procname]", or remove the option',
            ", ".join(given),
        )
        return None
    return setproctitle
