"""Which packages are made cooperative when the application imports them: the option `cooperate`.

Most applications import none of them, so a hook's own module is imported with the package that needs it.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from typing import Any

from corelet.api.imports import Hook, Hooks


def _asgiref(module: Any) -> None:
    from corelet.api import asgiref_hook

    asgiref_hook.install(module)


def _psycopg2(module: Any) -> None:
    from corelet.api import psycopg_hooks

    psycopg_hooks.install_psycopg2(module)


def _psycopg2_pool(module: Any) -> None:
    """A pool connects while it holds its lock."""
    from corelet.api.locks import CoreLock

    original = module.ThreadedConnectionPool.__init__

    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._lock = CoreLock()

    module.ThreadedConnectionPool.__init__ = initialise


def _psycopg(module: Any) -> None:
    from corelet.api import psycopg_hooks

    psycopg_hooks.install_psycopg(module)


def _psycopg_connection(module: Any) -> None:
    from corelet.api import psycopg_hooks

    psycopg_hooks.install_psycopg_connection(module)


def _psycopg_locks(module: Any) -> None:
    """The lock of each connection, and what the clients of a pool wait at."""
    from corelet.api.locks import CoreCondition, CoreLock, CoreRLock

    module.Lock = CoreRLock if module.__name__.startswith("psycopg_pool") else CoreLock
    if hasattr(module, "Condition"):
        module.Condition = CoreCondition


def _sqlalchemy_locks(module: Any) -> None:
    """The lock around an engine's first connection, and what is waited at for a connection of a pool that is empty."""
    from corelet.api.locks import Threading

    if hasattr(module, "threading"):
        module.threading = Threading()


# The word of the option -> the modules to wait for, and what is done with them.
HOOKS: dict[str, dict[str, Hook]] = {
    "asgiref": {"asgiref.sync": _asgiref},
    "psycopg2": {"psycopg2.extensions": _psycopg2, "psycopg2.pool": _psycopg2_pool},
    "psycopg": {
        "psycopg._acompat": _psycopg_locks,
        "psycopg.waiting": _psycopg,
        "psycopg.connection": _psycopg_connection,
        "psycopg_pool._acompat": _psycopg_locks,
    },
    "sqlalchemy": {
        "sqlalchemy.event.attr": _sqlalchemy_locks,
        "sqlalchemy.pool.impl": _sqlalchemy_locks,
        "sqlalchemy.util.queue": _sqlalchemy_locks,
    },
}

_installed: list[Hooks] = []


def install(names: frozenset[str]) -> None:
    """Before the application is imported. A second time, in a worker whose master has preloaded, it does nothing."""
    if _installed or not names:
        return
    hooks = Hooks({module: hook for name in sorted(names) for module, hook in HOOKS[name].items()})
    _installed.append(hooks)
    hooks.install()
