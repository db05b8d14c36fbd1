"""Which packages are made cooperative when the application imports them: the option `cooperate`."""

from __future__ import annotations

from typing import Any

from corelet.api.imports import Hook, Hooks


def _asgiref(module: Any) -> None:
    from corelet.api import asgiref_hook  # noqa: PLC0415 - most applications need none of this

    asgiref_hook.install(module)


def _psycopg2(module: Any) -> None:
    from corelet.api import psycopg_hooks  # noqa: PLC0415

    psycopg_hooks.install_psycopg2(module)


def _psycopg(module: Any) -> None:
    from corelet.api import psycopg_hooks  # noqa: PLC0415

    psycopg_hooks.install_psycopg(module)


def _psycopg_connection(module: Any) -> None:
    from corelet.api import psycopg_hooks  # noqa: PLC0415

    psycopg_hooks.install_psycopg_connection(module)


# The word of the option -> the modules to wait for, and what is done with them.
HOOKS: dict[str, dict[str, Hook]] = {
    "asgiref": {"asgiref.sync": _asgiref},
    "psycopg2": {"psycopg2.extensions": _psycopg2},
    "psycopg": {"psycopg.waiting": _psycopg, "psycopg.connection": _psycopg_connection},
}

_installed: list[Hooks] = []


def install(names: frozenset[str]) -> None:
    """Before the application is imported. A second time, in a worker whose master has preloaded, it does nothing."""
    if _installed or not names:
        return
    hooks = Hooks({module: hook for name in sorted(names) for module, hook in HOOKS[name].items()})
    _installed.append(hooks)
    hooks.install()
