"""Post-import hooks: a function is called when the application imports a module, and never before.

Nothing is imported that the application does not import, so a hook for a package that is not installed costs nothing.
A finder stands first in `sys.meta_path`; for a module that has a hook it asks the other finders, and puts a loader
around theirs that calls the hook when the module has been executed. It must not know what the hooks do.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Hook = Callable[[Any], None]

logger = logging.getLogger("corelet.api")


class Hooks(MetaPathFinder):
    """The finder. `hooks` is module name -> function(module)."""

    def __init__(self, hooks: dict[str, Hook]) -> None:
        self._hooks = dict(hooks)
        self._finding: set[str] = set()

    def install(self) -> None:
        """Stand first among the finders. Hooks of modules that are imported already are called now."""
        sys.meta_path.insert(0, self)
        for name in list(self._hooks):
            module = sys.modules.get(name)
            if module is not None:
                self.call(name, module)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders have, with our loader around theirs."""
        if name not in self._hooks or name in self._finding:
            return None
        self._finding.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._finding.discard(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Calling(spec.loader, self)
        return spec

    def call(self, name: str, module: ModuleType) -> None:
        """The module has been executed: call its hook, once."""
        hook = self._hooks.pop(name, None)
        if hook is None:
            return
        try:
            hook(module)
        except Exception:  # the border around packages whose inside has changed: the application works without us
            logger.exception(
                "%s could not be made cooperative: its waits will block the worker (cooperate)", name.partition(".")[0]
            )


class _Calling(Loader):
    """Another's loader, and a hook after it."""

    def __init__(self, loader: Any, hooks: Hooks) -> None:
        self._loader = loader
        self._hooks = hooks

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """As the loader does, which is the module's loader again from here on."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
            module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._hooks.call(module.__name__, module)
