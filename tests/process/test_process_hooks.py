"""Hooks: read all at once, done in order, fatal except at the end."""

import os
import signal

import pytest

from corelet.base.config import Config
from corelet.base.errors import ConfigError, OperatorError
from corelet.process.hooks import POINTS, HookExit, Hooks
from corelet.process.signals import MASTER_SIGNALS


def write_to(path, word):
    return f"sh -c 'echo {word} >> {path}'"


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO", "corelet")
    return caplog


def test_hooks_come_before_exec_and_each_in_the_order_given(tmp_path):
    path = tmp_path / "order"
    hooks = Hooks.from_config(
        Config(
            exec_as_root=(write_to(path, "exec1"), write_to(path, "exec2")),
            hook_as_root=(f"exec:{write_to(path, 'hook1')}", f"exec:{write_to(path, 'hook2')}"),
        )
    )
    hooks.run("as-root")
    assert path.read_text().split() == ["hook1", "hook2", "exec1", "exec2"]


@pytest.mark.parametrize("point", POINTS)
def test_every_point_has_its_hook_and_nothing_is_done_at_another(point, said):
    hooks = Hooks.from_config(Config(**{f"hook_{point.replace('-', '_')}": ("print:here",)}))
    for other in POINTS:
        hooks.run(other)
    assert said.messages == ["here"]


@pytest.mark.parametrize("point", ["asap", "as-root", "as-user", "as-user-atexit", "pre-app", "post-app"])
def test_exec_options_are_commands(point, tmp_path):
    path = tmp_path / "done"
    Hooks.from_config(Config(**{f"exec_{point.replace('-', '_')}": (write_to(path, "x"),)})).run(point)
    assert path.read_text() == "x\n"


def test_without_options_no_point_does_anything(said):
    hooks = Hooks.from_config(Config())
    for point in POINTS:
        hooks.run(point)
    assert (said.messages, hooks.signals, hooks.orders) == ([], {}, {})


def test_a_command_that_fails_stops_the_start_and_what_would_come_after_it(tmp_path):
    path = tmp_path / "after"
    hooks = Hooks.from_config(Config(hook_asap=("exec:sh -c 'exit 3'", f"exec:{write_to(path, 'x')}")))
    with pytest.raises(OperatorError, match=r"^hook-asap: sh -c 'exit 3' failed: exit code 3; see what it wrote"):
        hooks.run("asap")
    assert not path.exists()


def test_a_command_that_is_killed_stops_the_start_too():
    hooks = Hooks.from_config(Config(exec_pre_app=("sh -c 'kill -KILL $$'",)))
    with pytest.raises(OperatorError, match="failed: killed by SIGKILL"):
        hooks.run("pre-app")


def test_a_command_that_is_not_there_stops_the_start():
    with pytest.raises(OperatorError, match="hook-asap: cannot run no-such-program: no folder of PATH"):
        Hooks.from_config(Config(exec_asap=("no-such-program",))).run("asap")


def test_at_the_end_a_failure_is_a_warning_and_the_next_hook_is_done(tmp_path, said):
    path = tmp_path / "after"
    hooks = Hooks.from_config(
        Config(
            hook_as_user_atexit=("exec:false", f"unlink:{tmp_path}/missing"),
            exec_as_user_atexit=("no-such-program", write_to(path, "x")),
        )
    )
    hooks.run("as-user-atexit")
    assert path.read_text() == "x\n"
    warnings = [record.getMessage() for record in said.records if record.levelname == "WARNING"]
    assert len(warnings) == 3
    assert warnings[0].startswith("hook-as-user-atexit: false failed: exit code 1")


@pytest.mark.parametrize("action", ["print", "log"])
def test_print_is_one_line_of_the_log_with_nothing_changed(action, said):
    Hooks.from_config(Config(hook_accepting=(f"{action}:50 %s: a;b $c",))).run("accepting")
    assert said.messages == ["50 %s: a;b $c"]


def test_what_is_done_is_announced_in_one_line(said):
    Hooks.from_config(Config(hook_post_fork=("exec:true",))).run("post-fork")
    assert said.messages == ["hook-post-fork: exec:true"]


@pytest.mark.parametrize(("text", "code"), [("exit:0", 0), ("exit:", 0), ("exit:7", 7), ("exit:255", 255)])
def test_exit_ends_the_start_with_its_code(text, code):
    with pytest.raises(HookExit, match=r"^hook-asap: exit:") as caught:
        Hooks.from_config(Config(hook_asap=(text,))).run("asap")
    assert caught.value.exit_code == code
    assert isinstance(caught.value, OperatorError)


def test_unlink_removes_a_file_and_fails_without_one(tmp_path):
    path = tmp_path / "old"
    path.write_text("")
    hooks = Hooks.from_config(Config(hook_as_user=(f"unlink:{path}",)))
    hooks.run("as-user")
    assert not path.exists()
    with pytest.raises(OperatorError, match=f"hook-as-user: unlink:{path} failed: No such file or directory"):
        hooks.run("as-user")


@pytest.mark.parametrize("action", ["chdir", "cd"])
def test_chdir_changes_the_folder_of_the_process(action, tmp_path, monkeypatch):
    monkeypatch.chdir("/")  # and back at the end
    hooks = Hooks.from_config(Config(hook_as_user=(f"{action}:{tmp_path}",)))
    hooks.run("as-user")
    assert os.getcwd() == str(tmp_path)


# ---- signals ----


@pytest.mark.parametrize(
    ("function", "order"),
    [
        ("gracefully_kill_them_all", "stop"),
        ("kill_them_all", "quit"),
        ("grace_them_all", "reload"),
        ("reap_them_all", "brutal-reload"),
    ],
)
def test_unix_signal_gives_a_signal_an_order(function, order, said):
    hooks = Hooks.from_config(Config(hook_master_start=(f"unix_signal:15 {function}", "print:x")))
    assert hooks.signals == {15: function}
    assert hooks.orders == {15: order}
    hooks.run("master-start")
    assert said.messages == ["x"]


def test_every_signal_of_the_master_but_that_of_children_can_be_given_an_order():
    for number in MASTER_SIGNALS:
        text = f"unix_signal:{int(number)} grace_them_all"
        if number == signal.SIGCHLD:
            with pytest.raises(ConfigError, match=r"with a number of .*15 \(SIGTERM\)"):
                Hooks.from_config(Config(hook_master_start=(text,)))
        else:
            assert Hooks.from_config(Config(hook_master_start=(text,))).signals == {number: "grace_them_all"}


def test_the_last_order_for_a_signal_holds():
    texts = ("unix_signal:1 grace_them_all", "unix_signal:1 reap_them_all")
    assert Hooks.from_config(Config(hook_master_start=texts)).orders == {1: "brutal-reload"}


# ---- mistakes ----


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        ("hook_asap", "writefifo:/a b", "expected one of exec:…, print:…, log:…, exit:…, unlink:…, chdir:…, cd:…"),
        ("hook_asap", "true", "expected one of exec:…"),
        ("hook_asap", "exec:", "expected a command"),
        ("hook_asap", "exec:a | b", "write sh -c 'a | b'"),
        ("exec_asap", "a | b", "write sh -c 'a | b'"),
        ("hook_asap", "exit:256", "a whole number from 0 to 255"),
        ("hook_asap", "exit:x", "a whole number from 0 to 255"),
        ("hook_as_user_atexit", "exit:1", "the server is ending already"),
        ("hook_asap", "unlink:", "expected unlink:FILE; no name came"),
        ("hook_asap", "chdir:", "expected chdir:FOLDER; no name came"),
        ("hook_asap", "unix_signal:15 grace_them_all", "write it as hook-master-start"),
        ("hook_master_start", "unix_signal:9 grace_them_all", "with a number of "),
        ("hook_master_start", "unix_signal:SIGTERM grace_them_all", "with a number of "),
        ("hook_master_start", "unix_signal:15", "with a function of gracefully_kill_them_all, "),
        ("hook_master_start", "unix_signal:15 stats", "with a function of gracefully_kill_them_all, "),
    ],
)
def test_a_mistake_names_the_option_and_says_what_was_expected(option, text, reason):
    with pytest.raises(ConfigError) as caught:
        Hooks.from_config(Config(**{option: (text,)}))
    assert str(caught.value).startswith(f"--{option.replace('_', '-')}: ")
    assert reason in str(caught.value)


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        Hooks.from_config(Config(hook_asap=("a", "print:fine", "b"), exec_post_app=("c | d",), hook_accepting=("e",)))
    starts = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert starts == ["--hook-asap", "--hook-asap", "--exec-post-app", "--hook-accepting"]
