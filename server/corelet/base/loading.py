"""Finding and loading the applications that the configuration names, and choosing among them for a request.

What is prepared first is the process: the folder, the environment variables, the virtual environment, the module path.
Then each application is imported, once, in this one interpreter. Where uWSGI's behaviour is visible to an application
it is copied (tried on 2.0.31): a file is a module whose name begins `uwsgi_file_`, the current folder is on the module
path, a later `pythonpath` goes before an earlier one, the first mount serves what no mount matches.

An operator's mistake and an application's own failure look different: a LoadError says in one line what was looked
for and what there is instead; if it was the application's code that raised, `detail` is its traceback, beginning at
its own frames.
"""

from __future__ import annotations

import glob
import logging
import os
import site
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corelet.base.config import Config
from corelet.base.errors import ConfigError, LoadError
from corelet.base.target import load_target

WSGIApplication = Callable[..., Any]

log = logging.getLogger("corelet")


@dataclass(frozen=True, slots=True)
class Applications:
    """The loaded applications. `mounts` are (prefix, callable), longest first; a prefix has no `/` at its end.

    `only` is the one callable there is if nothing has to be chosen: serving may then skip `resolve`.
    """

    default: WSGIApplication | None = None
    mounts: tuple[tuple[str, WSGIApplication], ...] = ()
    manage_script_name: bool = False

    @property
    def only(self) -> WSGIApplication | None:
        """The default application if there are no mounts; else None."""
        return None if self.mounts else self.default

    def resolve(self, variables: dict[str, str]) -> WSGIApplication | None:
        """The application for a request, or None; may change SCRIPT_NAME and PATH_INFO in `variables`.

        As uWSGI: with manage-script-name the longest matching mount replaces SCRIPT_NAME and is cut from PATH_INFO;
        then UWSGI_APPID, or else SCRIPT_NAME, names the mount exactly; anything else goes to the default.
        """
        if not self.mounts:
            return self.default
        if self.manage_script_name:
            self._move_prefix(variables)
        wanted = (variables.get("UWSGI_APPID") or variables.get("SCRIPT_NAME", "")).rstrip("/")
        for prefix, application in self.mounts:
            if wanted == prefix:
                return application
        return self.default

    def _move_prefix(self, variables: dict[str, str]) -> None:
        path = variables.get("PATH_INFO", "")
        for prefix, _ in self.mounts:
            # Whole segments: /app matches /app and /app/x, and /apple belongs to somebody else.
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
                variables["SCRIPT_NAME"] = prefix
                variables["PATH_INFO"] = path[len(prefix) :]
                return


def load_applications(config: Config) -> Applications:
    """Prepare the process and load every application that the configuration names.

    Raises ConfigError for a folder, variable or virtual environment that cannot be used, LoadError for an application
    that cannot be loaded, and, with need-app, for none at all. Without need-app what fails is logged and left out.
    """
    prepare_process(config)
    mounts = _read_mounts(config.mount)
    default = _load(config, config.module, is_file=False) or (
        None if config.module else _load(config, config.wsgi_file, is_file=True)
    )
    loaded = [(prefix, app) for prefix, what in mounts if (app := _load(config, what, _is_file(what))) is not None]
    rooted = [app for prefix, app in loaded if not prefix]
    if default is None:
        default = rooted[0] if rooted else loaded[0][1] if loaded and not config.no_default_app else None
    if default is None and not loaded:
        if config.need_app:
            raise LoadError("no application is named: give --wsgi-file app.py or --module package.module:callable")
        log.warning("no application is loaded: every request is answered with an error until one is named")
    ordered = sorted(((prefix, app) for prefix, app in loaded if prefix), key=lambda pair: -len(pair[0]))
    return Applications(default, tuple(ordered), config.manage_script_name)


def _load(config: Config, what: str | None, is_file: bool) -> WSGIApplication | None:
    if what is None:
        return None
    try:
        return load_target(what, is_file, config.callable)
    except LoadError as error:
        if config.need_app:
            raise
        log.error("%s", error, extra={"detail": error.detail})
        return None


def _is_file(what: str) -> bool:
    """Whether a mount's target is a file: uWSGI looks at its end; a slash cannot stand in a module's name either."""
    return what.endswith((".py", ".wsgi")) or "/" in what


def _read_mounts(written: tuple[str, ...]) -> list[tuple[str, str]]:
    """('/prefix=target', …) as (prefix without its last slash, target). Raises ConfigError."""
    mounts: dict[str, str] = {}
    for text in written:
        prefix, equals, target = (part.strip() for part in text.partition("="))
        if not equals or not target or not prefix.startswith("/"):
            raise ConfigError(f"mount {text}: expected /prefix=module:callable or /prefix=file.py")
        prefix = prefix.rstrip("/")
        if prefix in mounts:
            raise ConfigError(f"mount {text}: {prefix or '/'} is mounted already, on {mounts[prefix]}")
        mounts[prefix] = target
    return list(mounts.items())


# ---- the process around the application ----


def prepare_process(config: Config) -> None:
    """Go to chdir, set the variables of env, put the virtual environment, the folder and pythonpath on sys.path."""
    if config.chdir is not None:
        try:
            os.chdir(config.chdir)
        except OSError as error:
            raise ConfigError(
                f"chdir {config.chdir}: {error.strerror}; name a folder that is there and that our user may enter"
            ) from error
    for text in config.env:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ConfigError(f"env {text}: expected NAME=VALUE")
        os.environ[name] = value
    if config.virtualenv is not None:
        _use_virtualenv(Path(config.virtualenv))
    _put_first(str(Path.cwd()))
    for pattern in config.pythonpath:
        # A pattern without a match is kept as it is: the folder may be made later, and uWSGI takes it too.
        for folder in sorted(glob.glob(pattern)) or [pattern]:
            _put_first(str(Path(folder).absolute()))


def _put_first(folder: str) -> None:
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)


def _use_virtualenv(folder: Path) -> None:
    """Put a virtual environment's packages before those that corelet itself was installed with.

    They go where site-packages stand, after the standard library: an old backport in the environment must not replace
    a module of the library. `addsitedir` reads .pth files, which is how editable installs work.
    """
    if not folder.is_dir():
        raise ConfigError(f"virtualenv {folder}: there is no such folder")
    if folder.resolve() == Path(sys.prefix).resolve():
        return
    running = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = (folder / "lib" / running / "site-packages").absolute()
    if not packages.is_dir():
        others = sorted(path.name for path in (folder / "lib").glob("python*"))
        raise ConfigError(
            f"virtualenv {folder}: "
            + (f"it is of {', '.join(others)}, corelet runs on {running}" if others else "it is no virtual environment")
            + f"; make it with {running} -m venv, best with corelet installed in it"
        )
    before = list(sys.path)
    site.addsitedir(str(packages))
    added = [entry for entry in sys.path if entry not in before]
    at = next((i for i, entry in enumerate(before) if entry.endswith(("site-packages", "dist-packages"))), len(before))
    sys.path[:] = [*before[:at], *added, *before[at:]]
