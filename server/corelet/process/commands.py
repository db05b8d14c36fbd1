"""Commands of the operator (hooks, cron, attach-daemon): split into words and started, without a shell.

uWSGI hands every command to /bin/sh, so a file name with a blank or a `;` in a value becomes another command. Here a
command is what its words say. One that needs the shell is refused when the configuration is read, with the words that
ask for a shell openly (`sh -c '…'`), and never run with `|` or `$HOME` as an argument.

posix_spawn and not the subprocess module: that one reaps its children itself and keeps a list of them, while the master
reaps everything that ends with waitpid(-1) and wants to hear of it. No Python runs between fork and exec, so a master
with much memory or with threads starts a command as cheaply and as safely as a small one.
"""

from __future__ import annotations

import errno
import os
import re
import select
import shlex
import shutil
import signal
from collections.abc import Iterator, Sequence

from corelet.base.errors import ConfigError, OperatorError
from corelet.process.signals import held_back

SHELL_CHARACTERS = frozenset("|><&;`$*?()\n")
"""What only a shell understands where it stands without quotes."""

WORD_BEGINNINGS = frozenset("~#")
"""The same, at the beginning of a word only."""

END_SECONDS = 2.0  # for a command that is told to end before it is killed

SHELLS = frozenset(("sh", "ash", "bash", "dash", "ksh", "zsh"))

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")

# SIGKILL and SIGSTOP have no action that could be set. The interpreter ignores SIGPIPE, which no command expects.
_RESETTABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def words_of(command: str) -> list[str]:
    """The words of a command: split at blanks, with the shell's quotes and backslash.

    Raises ConfigError if there is none, a quote is not closed, or only a shell could run it.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"expected a command; got {command!r}: {_lowered(error)}; close what is open") from error
    if not words or not words[0]:
        raise ConfigError(f"expected a command; got {command!r}; write a program and its arguments")
    is_shell = os.path.basename(words[0]) in SHELLS
    needed = next(_for_shell(command, is_shell), "")
    if _ASSIGNMENT.match(words[0]):
        needed = "="
    if needed:
        raise ConfigError(
            f"expected a command that needs no shell; got {command!r}, where {needed!r} is for a shell; "
            f"write sh -c {shlex.quote(command)}"
        )
    return words


def _lowered(error: ValueError) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]


def _for_shell(command: str, is_shell: bool) -> Iterator[str]:
    """The characters that a shell would have to interpret, in their order.

    Between double quotes a shell still expands `$` and backquotes, and uWSGI's did. A command that is a shell itself
    (`sh -c "echo $HOME"`) may have them, since it expands them likewise; but not with a backslash before them.
    """
    quote, previous, escaped = "", " ", False
    for character in command:
        if escaped:
            if character == "\n" or (quote and character in "$`"):
                yield character  # a shell takes the backslash away, the line's end too; shlex keeps them
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            if character == quote:
                quote = ""
            elif quote == '"' and character in "$`" and not is_shell:
                yield character
        elif character in "'\"":
            quote = character
        elif character in SHELL_CHARACTERS or (character in WORD_BEGINNINGS and previous.isspace()):
            yield character
        previous = character


def start(words: Sequence[str], *, new_session: bool = True) -> int:
    """Start a command and return its process id; whoever called reaps it.

    It begins with the default action for every signal, none of them blocked, /dev/null as stdin, and our stdout and
    stderr; every other descriptor of ours is closed to it (O_CLOEXEC). With `new_session` it leads a session and a
    process group of its own, so that a signal to the group reaches its children and Ctrl-C at our terminal does not
    reach it; otherwise it stays in ours. Raises OperatorError.
    """
    try:
        return os.posix_spawnp(
            words[0],
            list(words),
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsid=new_session,
            setsigmask=(),
            setsigdef=_RESETTABLE,
        )
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a word
        raise OperatorError(f"cannot run {shlex.join(words)}: {_reason(words[0], error)}") from error


def _reason(program: str, error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return f"{error}; remove it"
    found = shutil.which(program)
    if error.errno == errno.ENOENT and found is not None:
        return f"{found} names an interpreter in its first line that is not there; correct that line"
    if error.errno == errno.ENOENT:
        where = "there is no such file" if "/" in program else "no folder of PATH has a program of that name"
        return f"{where}; give its full path"
    if error.errno == errno.EACCES:
        return f"{program} may not be executed; `chmod +x` it, or name its interpreter (python3 {program})"
    if error.errno == errno.ENOEXEC:
        return f"{program} is no program and has no #! line; name its interpreter (sh {program})"
    return f"{error.strerror}"


def run(words: Sequence[str]) -> int:
    """Run a command to its end and return its exit code; -N when signal N ended it. Raises OperatorError.

    It blocks, so it has no place in the master's loop. The command stays in our process group: whoever presses Ctrl-C
    during a start that hangs in a hook means the hook too. Whatever is raised while we wait ends it.
    """
    pid = 0
    try:
        with held_back():  # a signal that raises does so when it is known what to end
            pid = start(words, new_session=False)
        _, status = os.waitpid(pid, 0)
    except ChildProcessError as error:
        raise OperatorError(
            f"cannot tell how {shlex.join(words)} ended: SIGCHLD was ignored when corelet was started; "
            "start it from a shell, or by systemd"
        ) from error
    except BaseException:
        if pid:
            with held_back():
                _end(pid)
        raise
    return os.waitstatus_to_exitcode(status)


def _end(pid: int) -> None:
    """SIGTERM, and SIGKILL for what takes too long."""
    watched = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        if not select.select([watched], [], [], END_SECONDS)[0]:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        os.close(watched)


def ending(code: int) -> str:
    """How a process ended, in words, from its exit code as `run` returns it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # most real-time signals have no name
        return f"killed by signal {-code}"
