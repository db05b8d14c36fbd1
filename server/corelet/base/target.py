"""One application's target, from its text to the callable: `pkg.mod`, `pkg.mod:app`, `pkg.mod:make("x")`, `file.py`.

The part after the colon is a dotted name, or a call of one with literal arguments (gunicorn's rule too): anything more
would be a program in an option. It is read by `ast`, never evaluated.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from corelet.base import forks
from corelet.base.errors import LoadError, StopOrdered

DEFAULT_NAMES = ("application", "app")
"""uWSGI knows the first; Flask's own documentation uses the second."""

MAX_NAMES_SHOWN = 8

log = logging.getLogger("corelet")


def load_target(text: str, is_file: bool, name: str | None = None) -> Callable[..., Any]:
    """The WSGI callable that the text names; `name` is the `callable` option. Raises LoadError."""
    if is_file:
        where, expression = text, name
        module = _import_file(Path(text))
    else:
        where, _, written = text.partition(":")
        expression = written.strip() or name
        module = _import_module(where.strip())
    found = _evaluate(module, expression, where) if expression else _default(module, where)
    return _checked(found, f"{where}:{expression or 'application'}")


def module_name_of_file(path: str) -> str:
    """The name uWSGI gives to the module of a wsgi-file: `sub/my-app.py` is `uwsgi_file_sub_my-app` (tried)."""
    return "uwsgi_file_" + path.replace(".", "_").replace("/", "_").removesuffix("_py")


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise LoadError(f"cannot load {path}: {what} (looked for as {path.absolute()}; is chdir right?)")
    name = module_name_of_file(str(path))
    loader = importlib.machinery.SourceFileLoader(name, str(path.absolute()))
    spec = importlib.util.spec_from_loader(name, loader)
    if spec is None:
        raise LoadError(f"cannot load {path}: Python finds no way to import it")
    module = importlib.util.module_from_spec(spec)
    # Before it runs, as an import does: pickling, dataclasses and Flask look their module up while it is loaded.
    sys.modules[name] = module
    try:
        _run(lambda: loader.exec_module(module), str(path))
    except LoadError:
        sys.modules.pop(name, None)
        raise
    return module


def _import_module(name: str) -> ModuleType:
    try:
        module: ModuleType = _run(lambda: importlib.import_module(name), name)
    except LoadError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError) and missing.name and f"{name}.".startswith(f"{missing.name}."):
            message = f"cannot load {name}: there is no module {missing.name} in {', '.join(sys.path[:3])}, …"
            hint = "; a file is given with --wsgi-file" if name.endswith(".py") or "/" in name else ""
            raise LoadError(f"{message} (is chdir or pythonpath missing?){hint}") from error
        raise
    return module


def _run(action: Callable[[], Any], what: str) -> Any:
    """Run the application's own code. What it raises becomes a LoadError with its traceback."""
    try:
        return action()
    except StopOrdered:
        raise
    except BaseException as error:  # the border around the application: whatever its code raises ends here
        if forks.is_fork():  # it belongs to a process that the application has forked meanwhile, and ends that one
            forks.leave(error, _begin(error))
        if isinstance(error, SystemExit):
            said = f"called sys.exit({error.code!r})"
        else:
            said = f"raised {type(error).__name__}: {_text(error)}"
        raise LoadError(f"cannot load {what}: it {said}", _traceback(error)) from error


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as unspeakable:  # noqa: BLE001 - the application's own __str__
        return f"(its text cannot be had: {type(unspeakable).__name__} in __str__)"


def _begin(error: BaseException) -> TracebackType | None:
    """Where the application's part of the traceback begins: below this file and the import machinery."""
    start: TracebackType | None = error.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename.startswith(
        ("<frozen importlib", __file__, _IMPORTLIB)
    ):
        start = start.tb_next
    return start


def _traceback(error: BaseException) -> str:
    """The application's part of the traceback as text."""
    return "".join(traceback.TracebackException(type(error), error, _begin(error)).format()).rstrip("\n")


_IMPORTLIB = str(Path(importlib.__file__).parent)


# ---- from the module to the callable ----


def _default(module: ModuleType, where: str) -> Any:
    for name in DEFAULT_NAMES:
        if hasattr(module, name):
            if name != DEFAULT_NAMES[0]:
                log.info("%s has no %s; its %s is served", where, DEFAULT_NAMES[0], name)
            return getattr(module, name)
    raise LoadError(f"{where} has no callable named application{_what_there_is(module)}")


def _evaluate(module: ModuleType, expression: str, where: str) -> Any:
    """The object that a dotted name, or a call of one with literal arguments, means in the module."""
    names, arguments, keywords = _read_expression(expression, where)
    found: Any = module
    for name in names:
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise LoadError(f"{where} has no {'.'.join(names)}{_what_there_is(module)}") from error
    if arguments is None:
        return found
    if not callable(found):
        raise LoadError(f"{where}:{'.'.join(names)} is {_describe(found)}; it cannot be called")
    return _run(lambda: found(*arguments, **keywords), f"{where}:{expression}")


def _read_expression(expression: str, where: str) -> tuple[list[str], list[Any] | None, dict[str, Any]]:
    """(names of the dotted path, arguments or None if it is no call, keyword arguments)."""
    refusal = f'{where}:{expression}: expected a name, a.dotted.name or a call such as make_app() or make_app("x")'
    try:
        node = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise LoadError(refusal) from error
    arguments: list[Any] | None = None
    keywords: dict[str, Any] = {}
    if isinstance(node, ast.Call):
        try:
            arguments = [ast.literal_eval(argument) for argument in node.args]
            keywords = {str(pair.arg): ast.literal_eval(pair.value) for pair in node.keywords if pair.arg is not None}
        except ValueError as error:
            raise LoadError(f"{refusal}; its arguments must be literals") from error
        node = node.func
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise LoadError(refusal)
    return [node.id, *names], arguments, keywords


def _checked(found: Any, where: str) -> Callable[..., Any]:
    """The object itself, if it can be a WSGI application."""
    if not callable(found):
        raise LoadError(f"{where} is {_describe(found)}, not a callable")
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(getattr(found, "__call__", None)):  # noqa: B004
        raise LoadError(
            f"{where} is an asynchronous (ASGI) application; corelet serves WSGI: a plain callable(environ, "
            "start_response), which may use coroutines through corelet.await_"
        )
    application: Callable[..., Any] = found
    return application


def _describe(found: Any) -> str:
    return "None" if found is None else f"an object of type {type(found).__name__}"


def _what_there_is(module: ModuleType) -> str:
    """What could have been meant: the module's own functions, and objects that can be called."""
    names = []
    for name, value in vars(module).items():
        if name.startswith("_") or not callable(value) or isinstance(value, type):
            continue
        if inspect.isfunction(value) and value.__module__ == module.__name__:
            names.append(name if len(inspect.signature(value).parameters) > 1 else f"{name}()")
        elif not inspect.isroutine(value):
            names.append(name)
    if not names:
        return "; nothing in it can be called"
    more = ", …" if len(names) > MAX_NAMES_SHOWN else ""
    return f"; callable in it: {', '.join(names[:MAX_NAMES_SHOWN])}{more} (--callable names one)"
