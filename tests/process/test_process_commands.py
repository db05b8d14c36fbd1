"""Commands of the operator: words without a shell, and processes that start clean."""

import os
import shlex
import signal
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corelet.base.errors import ConfigError, OperatorError
from corelet.process.commands import ending, run, start, words_of

# ---- words ----


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/usr/bin/backup --all", ["/usr/bin/backup", "--all"]),
        ("  touch   a\tb ", ["touch", "a", "b"]),
        ("touch 'a b' \"c d\" e\\ f", ["touch", "a b", "c d", "e f"]),
        ("sh -c 'a | b > c; d & $e `f` * ?'", ["sh", "-c", "a | b > c; d & $e `f` * ?"]),
        ('sh -c "echo $HOME"', ["sh", "-c", "echo $HOME"]),
        ('/bin/bash -c "echo $HOME"', ["/bin/bash", "-c", "echo $HOME"]),
        ("echo \\$HOME \\* \\;", ["echo", "$HOME", "*", ";"]),
        ('echo "a | b * ?"', ["echo", "a | b * ?"]),
        ("echo 'two\nlines'", ["echo", "two\nlines"]),
        ("run a~b c#d key=value", ["run", "a~b", "c#d", "key=value"]),
        ("echo ''", ["echo", ""]),
    ],
)
def test_a_command_is_split_at_blanks_with_quotes(command, words):
    assert words_of(command) == words


NEEDS_A_SHELL = [
    "a | b",
    "a > b",
    "a < b",
    "a & b",
    "a; b",
    "a `b`",
    "a $b",
    "a *",
    "a ?",
    "(a)",
    "a\nb",
    "a \\\nb",
    'touch "$HOME/a"',
    'touch "`a`"',
    'touch "\\$a"',
    'sh -c "echo \\$HOME"',
    "touch ~/a",
    "~/a",
    "a # b",
    "NAME=value a",
]


@pytest.mark.parametrize("command", NEEDS_A_SHELL)
def test_a_command_that_needs_a_shell_is_refused_with_the_words_that_ask_for_one(command):
    with pytest.raises(ConfigError) as caught:
        words_of(command)
    message = str(caught.value)
    assert message.endswith(f"write sh -c {shlex.quote(command)}")
    assert repr(command) in message


@pytest.mark.parametrize("command", NEEDS_A_SHELL)
def test_the_words_that_are_proposed_are_accepted(command):
    assert words_of(f"sh -c {shlex.quote(command)}") == ["sh", "-c", command]


@pytest.mark.parametrize("command", ["", "  ", "''", "'a", 'a "b', "a \\"])
def test_no_command_and_open_quotes_are_refused(command):
    with pytest.raises(ConfigError, match="expected a command; got"):
        words_of(command)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab '\"\\$`|~#*=-/\n", max_size=12))
def test_what_is_accepted_means_to_a_shell_what_it_means_here(command):
    try:
        words = words_of(command)
    except ConfigError:
        return
    said = subprocess.run(["sh", "-c", f"printf '%s\\0' {command}"], check=True, capture_output=True)
    assert said.stdout.decode().split("\0")[:-1] == words


# ---- processes ----


def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_command_begins_with_default_actions_and_no_signal_blocked(capfd):
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        assert wait(start(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGUSR2, before)
    of_libc = 1 << 32 - 1 | 1 << 33 - 1  # its own two real-time signals
    said = dict(line.split(":") for line in capfd.readouterr().out.splitlines())
    assert {name: int(bits, 16) & ~of_libc for name, bits in said.items()} == {"SigBlk": 0, "SigIgn": 0}


def group_and_session(capfd):
    """(process id, group, session) of what `cat /proc/self/stat` has said."""
    fields = capfd.readouterr().out.split()
    return int(fields[0]), int(fields[4]), int(fields[5])


def test_a_command_leads_a_session_and_a_group_of_its_own(capfd):
    pid = start(["cat", "/proc/self/stat"])
    assert wait(pid) == 0
    assert group_and_session(capfd) == (pid, pid, pid)


def test_without_a_new_session_it_stays_in_our_group(capfd):
    pid = start(["cat", "/proc/self/stat"], new_session=False)
    assert wait(pid) == 0
    assert group_and_session(capfd) == (pid, os.getpgrp(), os.getsid(0))


def test_stdin_is_dev_null_whatever_ours_is(capfd):
    ours = os.dup(0)
    terminal, _ = pipe = os.pipe()
    os.dup2(terminal, 0)
    try:
        assert wait(start(["readlink", "/proc/self/fd/0"])) == 0
    finally:
        os.dup2(ours, 0)
        for descriptor in (ours, *pipe):
            os.close(descriptor)
    assert capfd.readouterr().out == "/dev/null\n"


def test_no_other_descriptor_of_ours_is_open_in_it(capfd, tmp_path):
    with open(tmp_path / "secret", "w"):
        assert wait(start(["ls", "-l", "/proc/self/fd"])) == 0
    said = capfd.readouterr().out
    assert "/dev/null" in said
    assert "secret" not in said


def test_run_returns_the_exit_code_and_minus_the_signal():
    assert run(["true"]) == 0
    assert run(["sh", "-c", "exit 3"]) == 3
    assert run(["sh", "-c", "kill -KILL $$"]) == -signal.SIGKILL


def test_run_leaves_the_end_of_other_children_to_their_owner():
    other = start(["true"])
    assert run(["sh", "-c", "exit 3"]) == 3
    assert os.waitpid(other, 0)[0] == other


def test_run_says_so_when_it_cannot_know_the_exit_code():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(OperatorError, match="cannot tell how sh -c 'exit 3' ended: SIGCHLD was ignored"):
            run(["sh", "-c", "exit 3"])
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    ("name", "text", "mode", "reason"),
    [
        ("missing", None, 0, "there is no such file; give its full path"),
        ("plain", "#!/bin/sh\n", 0o644, "may not be executed; `chmod \\+x` it"),
        ("no_shebang", "echo\n", 0o755, "is no program and has no #! line"),
        ("lost", "#!/no/such/interpreter\n", 0o755, "names an interpreter in its first line that is not there"),
    ],
)
def test_what_cannot_be_started_is_explained(tmp_path, name, text, mode, reason):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(OperatorError, match=f"^cannot run {path} --now: .*{reason}"):
        start([str(path), "--now"])


def test_a_name_that_path_does_not_have_is_explained():
    with pytest.raises(OperatorError, match="cannot run no-such-program: no folder of PATH has a program of that name"):
        start(["no-such-program"])


def test_a_zero_byte_in_a_word_is_an_error_of_the_operator_too():
    with pytest.raises(OperatorError, match="embedded null"):
        start(["echo", "a\0b"])


def test_an_ending_is_said_in_words():
    assert ending(0) == "exit code 0"
    assert ending(3) == "exit code 3"
    assert ending(-9) == "killed by SIGKILL"
    assert ending(-(signal.SIGRTMIN + 2)) == f"killed by signal {signal.SIGRTMIN + 2}"
