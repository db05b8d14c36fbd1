"""py-autoreload: what is watched, what counts as a change, and when it is said.

Scans are driven by a clock of our own (`Clockwork`), so nothing waits; what is promised of real loops, of the thread
and of real editors is tried on real ones.
"""

import asyncio
import contextlib
import importlib.machinery
import json
import logging
import os
import py_compile
import sys
import threading
import time
import types
import zipfile

import pytest

from corelet.process import autoreload
from corelet.process.autoreload import PAUSE_SECONDS, SETTLE_SECONDS, SLICE_SECONDS, Watch, watch
from corelet.process.sources import Rewritten, SourceFiles, source_of, syntax_problem

PATIENCE_SECONDS = 20.0


class Clockwork(asyncio.AbstractEventLoop):
    """A loop whose time passes only in `run`: the part of the interface that a watch uses."""

    def __init__(self):
        self.now = 0.0
        self._due = []
        self._number = 0

    def time(self):
        return self.now

    def get_debug(self):
        return False

    def call_soon(self, callback, *arguments, context=None):
        return self.call_later(0, callback, *arguments)

    def call_later(self, delay, callback, *arguments, context=None):
        handle = asyncio.TimerHandle(self.now + delay, callback, arguments, self)
        self._number += 1
        self._due.append((handle.when(), self._number, handle))
        return handle

    def _timer_handle_cancelled(self, handle):
        """What a cancelled handle tells its loop."""

    def run(self, seconds):
        """Let so much time pass; do what falls due, in its order."""
        until = self.now + seconds
        while self._due and min(self._due)[0] <= until:
            first = min(self._due)
            self._due.remove(first)
            self.now = max(self.now, first[0])
            if not first[2].cancelled():
                first[2]._run()
        self.now = until


def make_module(path, name="m"):
    module = types.ModuleType(name)
    module.__file__ = str(path)
    return module


@pytest.fixture
def lines():
    """The log lines of the process layer."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(f"{record.levelname.lower()} {record.getMessage()}")
    logger = logging.getLogger("corelet.process")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before)


class Site:
    """A folder of modules, watched on a Clockwork every 0.5 s; `reported` is what `changed` was called with."""

    def __init__(self, folder):
        self.folder = folder
        self.loop = Clockwork()
        self.modules = {}
        self.reported = []
        self.watch = None

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def module(self, name, text="x = 1\n"):
        path = self.write(name, text)
        self.modules[name] = make_module(path)
        return path

    def begin(self):
        self.watch = watch(self.loop, 1.0, self.reported.append, polling=True, modules=self.modules)
        self.loop.run(0.3)

    def changes(self):
        """What is reported from now on, two scans long."""
        self.reported.clear()
        self.loop.run(1.5)
        return list(self.reported)


@pytest.fixture
def site(tmp_path, lines):
    return Site(tmp_path)


# ---- which files ----


def test_the_source_of_a_module_is_its_file(tmp_path):
    assert source_of(make_module(tmp_path / "a.py")) == str(tmp_path / "a.py")
    assert source_of(make_module(tmp_path / "site.wsgi")) == str(tmp_path / "site.wsgi")
    assert source_of(make_module("b.py")) == os.path.abspath("b.py")
    assert source_of(make_module(tmp_path / "x" / ".." / "a.py")) == str(tmp_path / "a.py")


def test_the_source_of_compiled_python_is_the_file_it_was_compiled_from(tmp_path):
    assert source_of(make_module(tmp_path / "__pycache__" / "a.cpython-311.pyc")) == str(tmp_path / "a.py")
    assert source_of(make_module(tmp_path / "a.pyc")) == str(tmp_path / "a.py")


@pytest.mark.parametrize("module", [json, os, threading, sys, None, "text", types.ModuleType("no_file")])
def test_the_standard_library_and_what_has_no_file_are_not_watched(module):
    assert source_of(module) is None


def test_packages_that_stand_below_the_standard_library_are_watched():
    inside = os.path.join(os.path.dirname(os.__file__), "site-packages", "django", "urls.py")
    assert source_of(make_module(inside)) == inside


@pytest.mark.parametrize("ending", importlib.machinery.EXTENSION_SUFFIXES)
def test_an_extension_module_has_no_source(tmp_path, ending):
    assert source_of(make_module(tmp_path / f"fast{ending}")) is None


def test_a_lazy_module_is_not_woken():
    class Lazy(types.ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(f"{name} was asked for")

    assert source_of(Lazy("lazy")) is None


def test_a_module_in_a_zip_file_is_not_watched(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        file.writestr("inside.py", "x = 1\n")
    files = SourceFiles({"inside": make_module(tmp_path / "all.zip" / "inside.py")})
    assert [path for path in files.look() if path] == []
    assert (len(files), files.folders) == (0, frozenset())


def test_nothing_is_a_change_when_it_is_seen_for_the_first_time(site):
    site.module("app.py")
    site.write("beside.py", "")
    site.begin()
    assert site.reported == []
    assert sorted(os.path.basename(path) for path in site.watch.files._seen) == ["app.py", "beside.py"]


# ---- what is a change ----


def test_an_edit_is_reported_once_with_its_path(site):
    path = site.module("app.py")
    site.begin()
    site.write("app.py", "x = 22\n")
    assert site.changes() == [path]
    assert site.changes() == []


def test_a_touch_is_a_change(site):
    path = site.module("app.py")
    site.begin()
    os.utime(path, (1, 1))
    assert site.changes() == [path]


def test_a_save_by_rename_is_a_change_though_time_and_length_stay(site):
    path = site.module("app.py")
    os.utime(path, (1, 1))
    site.begin()
    new = site.write("app.py~", "x = 2\n")
    os.utime(new, (1, 1))
    os.rename(new, path)
    assert site.changes() == [path]


def test_a_save_that_moves_the_old_file_away_first_is_one_change(site):
    path = site.module("app.py")
    site.begin()
    os.rename(path, f"{path}~")
    assert site.changes() == []
    site.write("app.py", "x = 2\n")
    assert site.changes() == [path]


def test_a_module_imported_later_is_watched_from_then_on(site):
    site.module("app.py")
    site.begin()
    path = site.module("later/late.py")
    assert site.changes() == []
    site.write("later/late.py", "x = 22\n")
    assert site.changes() == [path]


def test_a_python_file_beside_a_watched_one_is_watched_though_nobody_imports_it(site):
    site.module("app.py")
    path = site.write("beside.py", "")
    site.write("notes.txt", "")
    site.write(".#app.py", "")
    site.begin()
    site.write("beside.py", "x = 1\n")
    site.write("notes.txt", "more")
    site.write(".#app.py", "more")
    assert site.changes() == [path]


def test_a_new_python_file_beside_a_watched_one_is_a_change(site):
    site.module("app.py")
    site.begin()
    path = site.write("missing.py", "")
    site.write("missing.txt", "")
    assert site.changes() == [path]


def test_a_file_that_was_made_and_imported_at_once_is_no_change(site):
    site.module("app.py")
    site.begin()
    site.module("generated.py")
    assert site.changes() == []


def test_a_file_written_since_the_loading_began_is_a_change_in_the_first_scan_alone(site):
    """It may have been read before it was written. Neither older files count nor those of a clock that is ahead."""
    began = time.time_ns() - 1_000_000_000
    paths = {name: site.module(f"{name}.py") for name in ("before", "since", "ahead")}
    for name, seconds in (("before", -1), ("since", 0), ("ahead", 3600)):
        os.utime(paths[name], ns=(began + seconds * 1_000_000_000,) * 2)
    files = SourceFiles(site.modules, began)
    paths["after"] = site.module("after.py")
    assert [path for path in files.look() if path] == [paths["since"], paths["after"]]
    assert files.written_while_loading == {paths["since"]}
    assert [path for path in files.look() if path] == []
    later = site.module("later/late.py")
    assert [path for path in files.look() if path] == []
    assert later in files
    site.write("since.py", "x = 22\n")
    assert [path for path in files.look() if path] == [paths["since"]]
    assert not files.written_while_loading


def test_a_file_that_the_application_writes_at_each_load_is_no_reason_to_load_for_ever(site):
    path = site.module("made.py")
    rewritten = Rewritten()
    assert rewritten.is_reason(path)
    assert not rewritten.is_reason(path)  # the same again
    for number in range(10):
        site.write("made.py", f"x = {number}\n")
        assert rewritten.is_reason(path) == (number < 2)
    rewritten.edited()
    site.write("made.py", "x = 10\n")
    assert rewritten.is_reason(path)
    os.unlink(path)
    assert not rewritten.is_reason(path)


def test_of_installed_packages_only_what_is_imported_is_watched(site):
    imported = site.module("site-packages/lib.py")
    site.write("site-packages/other.py", "")
    site.begin()
    site.write("site-packages/lib.py", "x = 22\n")
    site.write("site-packages/other.py", "x = 22\n")
    site.write("site-packages/new.py", "")
    assert site.changes() == [imported]


def test_a_file_that_is_still_written_is_reported_when_it_has_come_to_rest(site):
    path = site.module("app.py")
    site.begin()
    site.write("app.py", "x = ")
    site.loop.run(0.5)
    for number in range(5):
        assert site.reported == []
        site.write("app.py", f"x = {'1' * number}\n")
        site.loop.run(SETTLE_SECONDS * 0.9)
    assert site.changes() == [path]


def test_of_two_saves_within_a_second_a_new_worker_gets_the_second(site):
    """Python would take the compiled form of the first for that of the second: same second, same length."""
    path = site.module("app.py", "x = 'one'\n")
    os.utime(path, ns=(10**9, 10**9))
    compiled = py_compile.compile(path)
    site.begin()
    site.write("app.py", "x = 'two'\n")
    os.utime(path, ns=(10**9, 10**9 + 5))
    assert site.changes() == [path]
    assert not os.path.exists(compiled)


def test_a_compiled_form_that_python_will_not_take_is_left_alone(site):
    path = site.module("app.py", "x = 'one'\n")
    compiled = py_compile.compile(path)
    site.begin()
    site.write("app.py", "x = 'three'\n")
    assert site.changes() == [path]
    assert os.path.exists(compiled)


# ---- mistakes in a file ----


def test_a_syntax_error_is_logged_and_not_reported_until_it_is_mended(site, lines, monkeypatch):
    path = site.module("app.py")
    site.begin()
    monkeypatch.chdir(site.folder)
    site.write("app.py", "x = 1\n\n  def f(:\n")
    assert site.changes() == []
    (line,) = [line for line in lines if line.startswith("error")]
    assert line == (
        "error py-autoreload: app.py:3: IndentationError: unexpected indent: def f(:; the running workers go on"
    )
    site.write("app.py", "x = 1\n")
    assert site.changes() == [path]
    assert len([line for line in lines if line.startswith("error")]) == 1


def test_a_syntax_error_beside_the_modules_is_logged_too(site, lines):
    site.module("app.py")
    path = site.write("beside.py", "")
    site.begin()
    site.write("beside.py", "return 1")
    assert site.changes() == []
    assert lines[-1] == (
        f"error py-autoreload: {path}:1: SyntaxError: 'return' outside function: return 1; the running workers go on"
    )


def test_what_cannot_be_compiled_is_told_with_its_line(tmp_path, monkeypatch):
    def problem(data, name="a.py"):
        (tmp_path / name).write_bytes(data)
        return syntax_problem(str(tmp_path / name))

    monkeypatch.chdir(tmp_path)
    assert problem(b"x = 1\n") == ""
    assert problem(b"x = '\\d'\n") == ""  # a SyntaxWarning
    assert problem(b"x = \n").startswith("a.py:1: SyntaxError: invalid syntax: x =")
    assert problem(b"x = (\n", "site.wsgi").startswith("site.wsgi:1: SyntaxError: '(' was never closed: x = (")
    assert problem(b"x = (\n", "page.html") == ""
    assert problem(b"x = '\xff'\n").startswith("a.py:1: SyntaxError: (unicode error)")
    assert "null byte" in problem(b"x = 1\0\n")
    assert syntax_problem(str(tmp_path / "gone.py")) == ""


# ---- when ----


def test_a_scan_takes_only_a_few_milliseconds_at_a_stretch(tmp_path):
    """Time passes by a millisecond with each step here: after three of them others have a turn."""
    loop = Clockwork()
    steps = []

    def clock():
        steps.append(loop.now)
        return len(steps) / 1000

    for number in range(50):
        (tmp_path / f"m{number}.py").touch()
        (tmp_path / f"t{number}.txt").touch()
    modules = {"m0": make_module(tmp_path / "m0.py")}
    watched = Watch(loop, 1000.0, [].append, modules=modules, clock=clock)
    ready = []
    watched.begin(lambda: ready.append(loop.now))
    loop.run(10)
    assert ready
    assert len(steps) > 100
    most = max(steps.count(now) for now in steps)
    assert most <= SLICE_SECONDS * 1000 + 2
    assert ready[0] == pytest.approx((len(set(steps)) - 1) * PAUSE_SECONDS)


@pytest.mark.parametrize(("interval", "period"), [(3.0, 0.5), (0.5, 0.5), (0.1, 0.1)])
def test_files_are_looked_at_every_so_often_and_twice_a_second_at_least(site, lines, interval, period):
    path = site.module("app.py")
    watched = watch(
        site.loop, interval, site.reported.append, polling=True, modules=site.modules, clock=site.loop.time
    )  # a busy machine would else divide the scan, and pause in it
    site.loop.run(period / 2)
    assert lines == [f"info py-autoreload: 1 files are watched, looking every {period:g} s"]
    site.write("app.py", "x = 22\n")
    site.loop.run(period / 2 - 0.01)
    assert site.reported == []
    site.loop.run(0.02 + SETTLE_SECONDS)
    assert site.reported == [path]
    watched.stop()


def test_an_order_to_look_is_obeyed_at_once(site):
    path = site.module("app.py")
    site.begin()
    site.write("app.py", "x = 22\n")
    site.watch.look_now()
    site.loop.run(SETTLE_SECONDS)
    assert site.reported == [path]


def test_an_order_to_look_that_comes_during_a_scan_is_obeyed_right_after_it(site):
    """The file changes when the scan, which takes a second here, has passed it; the next one is due in 1000 s."""
    path = site.module("app.py")
    for number in range(50):
        site.write(f"m{number}.py", "")
    ticks = iter(range(1000))
    watched = Watch(site.loop, 1000.0, site.reported.append, modules=site.modules, clock=lambda: next(ticks))
    ready = []
    watched.begin(lambda: ready.append(site.loop.now))
    site.loop.run(10)
    assert 1.0 < ready[0] < 1.1
    watched.look_now()
    site.loop.run(0.5)
    site.write("app.py", "x = 22\n")
    watched.look_now()
    assert site.changes() == [path]
    watched.stop()


def test_an_error_of_the_listener_is_logged_and_the_watch_goes_on(site, lines):
    path = site.module("app.py")
    calls = []

    def changed(path):
        calls.append(path)
        raise RuntimeError("no channel")

    watched = watch(site.loop, 1.0, changed, polling=True, modules=site.modules)
    site.loop.run(0.3)
    for text in ("x = 22\n", "x = 333\n"):
        site.write("app.py", text)
        site.loop.run(1.0)
    assert calls == [path, path]
    assert lines[-1] == f"error py-autoreload: the change of {path} could not be reported; reload by hand"
    watched.stop()


def test_an_error_in_a_scan_is_logged_and_the_next_scan_follows(site, lines):
    class Modules(dict):
        fails = False

        def values(self):
            if self.fails:
                raise RuntimeError("dictionary changed size during iteration")
            return super().values()

    path = site.module("app.py")
    site.modules = Modules(site.modules)
    site.begin()
    site.modules.fails = True
    assert site.changes() == []
    assert lines[-1] == "error py-autoreload: a scan failed; the next one follows in 0.5 s"
    site.modules.fails = False
    site.write("app.py", "x = 22\n")
    assert site.changes() == [path]


@pytest.mark.parametrize("when", ["before the first scan", "between two", "before a change is reported"])
def test_a_stopped_watch_reports_nothing(site, when):
    site.module("app.py")
    site.watch = watch(site.loop, 1.0, site.reported.append, polling=True, modules=site.modules)
    if when != "before the first scan":
        site.loop.run(0.3)
    if when == "before a change is reported":
        site.write("app.py", "x = 22\n")
        site.watch.look_now()
    site.watch.stop()
    site.write("app.py", "x = 333\n")
    site.watch.look_now()
    assert site.changes() == []
    site.watch.stop()


# ---- on a real loop, with and without watchfiles ----


class Live:
    """A watch on a real loop; `next` runs it until something is reported."""

    def __init__(self, folder, interval, polling, lines):
        self.path = folder / "app.py"
        self.path.write_text("x = 1\n")
        self.loop = asyncio.new_event_loop()
        self.reported = asyncio.Queue()
        self.lines = lines
        self.modules = {"app": make_module(self.path)}
        self.watch = watch(self.loop, interval, self.reported.put_nowait, polling=polling, modules=self.modules)

    def next(self):
        return self.loop.run_until_complete(asyncio.wait_for(self.reported.get(), PATIENCE_SECONDS))

    def until_logged(self, text):
        async def wait():
            while not any(text in line for line in self.lines):
                await asyncio.sleep(0)

        self.loop.run_until_complete(asyncio.wait_for(wait(), PATIENCE_SECONDS))

    def close(self):
        self.watch.stop()
        for thread in threading.enumerate():
            if thread.name == "corelet-autoreload":
                thread.join(PATIENCE_SECONDS)
                assert not thread.is_alive()
        self.loop.close()


# An hour between two looks: what is seen with watchfiles was seen by its thread.
@pytest.mark.parametrize(
    ("interval", "polling", "how"),
    [(3600.0, False, "watchfiles tells of changes"), (0.01, True, "looking every 0.01 s")],
    ids=["watchfiles", "polling"],
)
def test_edits_and_saves_by_rename_are_seen_by_a_real_loop(tmp_path, lines, interval, polling, how):
    with contextlib.closing(Live(tmp_path, interval, polling, lines)) as live:
        live.until_logged(f"info py-autoreload: 1 files are watched, {how}")
        live.path.write_text("x = 22\n")
        assert live.next() == str(live.path)
        (tmp_path / "app.py.new").write_text("x = 333\n")
        os.rename(tmp_path / "app.py.new", live.path)
        assert live.next() == str(live.path)
        live.path.write_text("x = (\n")
        live.until_logged("error py-autoreload: ")
        (tmp_path / "beside.py").write_text("")
        assert live.next() == str(tmp_path / "beside.py")
        assert live.reported.empty()


def test_a_folder_of_a_module_imported_later_is_watched_by_the_thread_too(tmp_path, lines):
    with contextlib.closing(Live(tmp_path, 3600.0, False, lines)) as live:
        live.until_logged("files are watched")
        (tmp_path / "sub").mkdir()
        late = tmp_path / "sub" / "late.py"
        late.write_text("")
        live.modules["late"] = make_module(late)
        live.path.write_text("x = 22\n")  # something happens: the scan finds the new folder
        assert live.next() == str(live.path)
        late.write_text("x = 1\n")
        assert live.next() == str(late)


def test_without_the_package_changes_are_found_by_looking(tmp_path, lines, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)  # as if it were not installed
    with contextlib.closing(Live(tmp_path, 0.01, False, lines)) as live:
        live.until_logged("looking every 0.01 s")
        live.path.write_text("x = 22\n")
        assert live.next() == str(live.path)


def test_when_the_thread_fails_changes_are_found_by_looking(tmp_path, lines, monkeypatch):
    def refused(*paths, **options):
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr("watchfiles.watch", refused)
    with contextlib.closing(Live(tmp_path, 0.02, False, lines)) as live:
        live.until_logged("watchfiles failed (OS file watch limit reached); looking every 0.02 s instead")
        live.path.write_text("x = 22\n")
        assert live.next() == str(live.path)


def test_a_loop_that_is_closed_first_ends_the_thread_quietly(tmp_path, lines):
    live = Live(tmp_path, 3600.0, False, lines)
    live.until_logged("files are watched")
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "corelet-autoreload"]
    live.loop.close()
    live.path.write_text("x = 22\n")
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert [line for line in lines if "failed" in line] == []
    live.watch.stopped.set()


def test_everything_this_process_has_imported_can_be_watched(lines):
    loop = Clockwork()
    watched = watch(loop, 1.0, [].append, polling=True)
    loop.run(100)
    assert autoreload.__file__ in watched.files
    assert pytest.__file__ in watched.files
    assert json.__file__ not in watched.files
    watched.stop()
