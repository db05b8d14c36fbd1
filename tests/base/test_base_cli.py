"""The command: what it prints, what it starts, and its exit codes."""

import contextlib
import os
import socket
import subprocess
import sys

import pytest

from corelet import __version__
from corelet.base.config import OPTIONS
from corelet.base.errors import BindError, ConfigError, LoadError
from corelet.cli import help_text, main


@pytest.fixture
def served():
    """A server that only remembers what it was asked to serve, and ends with code 7."""
    configs = []

    def serve(config, reconfigure):
        configs.append(config)
        serve.reconfigure = reconfigure
        return 7

    serve.configs = configs
    return serve


def test_a_good_command_line_is_served_and_its_exit_code_is_ours(served, capsys):
    assert main(["--http-socket", ":9090", "--wsgi-file", "app.py", "--asyncio", "10"], served) == 7
    (config,) = served.configs
    assert (config.cores, config.wsgi_file, config.http_socket) == (10, "app.py", (":9090",))
    assert capsys.readouterr() == ("", "")


def test_notes_are_printed_before_the_start(served, capsys):
    assert main(["--socket", ":9090", "--threads", "4"], served) == 7
    assert capsys.readouterr().err == (
        "corelet: note: threads 4: requests run on cores; asyncio N sets how many at once\n"
    )


def test_mistakes_are_printed_one_per_line_and_nothing_is_started(served, capsys):
    assert main(["--asynco", "10", "--listen", "x"], served) == 1
    assert served.configs == []
    assert capsys.readouterr() == (
        "",
        "corelet: error: --asynco is no option of corelet; did you mean --asyncio?\n"
        "corelet: error: --listen: expected a whole number, 1 or more; got 'x'\n",
    )


@pytest.mark.parametrize("words", [[], ["--wsgi-file", "app.py"]])
def test_without_a_socket_there_is_nothing_to_serve(served, capsys, words):
    assert main(words, served) == 1
    assert capsys.readouterr().err == (
        "corelet: error: no socket is named: give --http-socket :9090, or --socket 127.0.0.1:3031 for nginx\n"
    )


def test_an_application_that_cannot_be_loaded_ends_with_uwsgis_code_after_its_traceback(capsys):
    def serve(config, reconfigure):
        raise LoadError("cannot load app.py: it raised ValueError: no", "Traceback:\n  its line")

    assert main(["--socket", ":0"], serve) == 22
    assert capsys.readouterr().err == (
        "Traceback:\n  its line\ncorelet: error: cannot load app.py: it raised ValueError: no\n"
    )


def test_a_socket_that_cannot_be_made_ends_without_a_traceback(capsys):
    def serve(config, reconfigure):
        raise BindError("cannot listen on :80: Permission denied")

    assert main(["--socket", ":0"], serve) == 1
    assert capsys.readouterr().err == "corelet: error: cannot listen on :80: Permission denied\n"


def test_an_interrupt_before_the_server_runs_is_an_exit_code(capsys):
    def serve(config, reconfigure):
        raise KeyboardInterrupt

    assert main(["--socket", ":0"], serve) == 130
    assert capsys.readouterr().err == ""


def test_what_nobody_expected_ends_with_a_code_of_its_own_and_its_traceback(capsys):
    def serve(config, reconfigure):
        raise KeyError("lost")

    assert main(["--socket", ":0"], serve) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "corelet: error: the server itself failed: KeyError('lost'); please report the lines above"


def test_a_socket_may_come_from_systemd_without_an_option(served, monkeypatch):
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert main(["--wsgi-file", "app.py"], served) == 7
    monkeypatch.setenv("LISTEN_PID", "1")  # left over: they were for somebody else
    assert main(["--wsgi-file", "app.py"], served) == 1
    monkeypatch.setenv("CORELET_HANDOVER", "{}")
    assert main(["--wsgi-file", "app.py"], served) == 7


def test_the_server_can_read_words_and_files_again_as_they_were_meant_at_the_start(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAME", "first")
    file = tmp_path / "app.ini"
    file.write_text("[uwsgi]\nsocket = :1\nlisten = 5\nprocname = $(NAME)\n")
    assert main(["app.ini", "--threads", "2"], served) == 7
    monkeypatch.chdir("/")
    monkeypatch.setenv("NAME", "second")
    file.write_text("[uwsgi]\nsocket = :1\nlisten = 6\nprocname = $(NAME)\n")
    again = served.reconfigure()
    assert (served.configs[0].listen, again.config.listen) == (5, 6)
    assert again.config.procname == "first"
    assert again.notes == ("threads 2: requests run on cores; asyncio N sets how many at once",)
    file.write_text("[uwsgi]\nlisten = many\n")
    with pytest.raises(ConfigError, match=r"^app\.ini:2: listen: expected a whole number"):
        served.reconfigure()


def test_the_version_is_one_line(served, capsys):
    assert main(["--version"], served) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"corelet {__version__} (")
    assert "greenlet " in out
    assert out.count("\n") == 1
    assert served.configs == []


def test_the_help_shows_every_name_of_every_option(served, capsys):
    assert main(["-h"], served) == 0
    out = capsys.readouterr().out
    assert out == help_text()
    for row in OPTIONS:
        for name in row.names:
            assert f"--{name}" in out
        assert row.group in out
    assert "corelet --asyncio 10 --http-socket :9090 --greenlet --wsgi-file app.py" in out
    assert max(map(len, out.splitlines())) <= 120


def test_the_help_ends_with_the_exit_codes(served, capsys):
    assert main(["--help"], served) == 0
    assert capsys.readouterr().out.endswith(
        "\nExit codes\n\n"
        "  0    an ordered stop, or what was asked for is done\n"
        "  1    the configuration, a socket or privileges\n"
        "  22   the application cannot be loaded\n"
        "  70   the server itself failed\n"
    )


def test_show_config_prints_every_value_with_its_origin_and_goes_on_as_uwsgi_does(served, capsys):
    line = "--show-config -p 2 --chmod-socket=660 --mount /a=a --mount /b=b.py --socket :1 --harakiri 0.5"
    assert main(line.split(), served) == 7
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[corelet]"
    assert "chmod-socket = 660                     ; --chmod-socket" in lines
    assert "harakiri = 0.5                         ; --harakiri" in lines
    assert "mount = /a=a                           ; --mount" in lines
    assert "mount = /b=b.py                        ; --mount" in lines
    assert "listen = 100                           ; default" in lines
    assert "need-app = true                        ; default" in lines
    assert ";chdir =" in lines
    assert "processes = 2                          ; -p" in lines
    assert any(
        line.startswith("strict = true ") and "; default, no effect: an unknown option" in line for line in lines
    )
    assert len(lines) == 1 + len(OPTIONS) + 1


def test_show_config_alone_only_shows(served, capsys):
    assert main(["--show-config"], served) == 0
    assert served.configs == []
    assert capsys.readouterr().err == ""


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "corelet", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"corelet {__version__} (")
    done = subprocess.run([sys.executable, "-m", "corelet", "--what"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "corelet: error: --what is no option of corelet; --help lists them\n"
    done = subprocess.run([sys.executable, "-m", "corelet", "control"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")


# ---- checking ----


def run(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", "corelet", *words], check=False, capture_output=True, text=True, **more
    )


def test_no_server_checks_the_configuration_and_what_it_needs_and_binds_nothing(tmp_path):
    (tmp_path / "app.ini").write_text("[uwsgi]\nsocket = app.sock\nmodule = there.is.none\nprocesses = 2\n")
    done = run("app.ini", "--no-server", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"corelet {__version__}: the configuration is good\n", "")
    assert os.listdir(tmp_path) == ["app.ini"]


def test_no_server_without_a_socket_says_so(tmp_path):
    done = run("--no-server")
    assert (done.returncode, done.stdout) == (0, f"corelet {__version__}: the configuration is good\n")
    assert done.stderr == ("corelet: note: no socket is named, so only systemd's socket activation can start this\n")


def test_no_server_reports_what_is_wrong():
    done = run("--no-server", "--socket", ":x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "corelet: error: --socket: :x: a port is a number from 0 to 65535; got x\n"


def test_no_server_says_what_is_not_installed(tmp_path):
    (tmp_path / "greenlet.py").write_text("raise ImportError('no greenlet here')")
    done = run("--no-server", "--socket", ":0", env={**os.environ, "PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "corelet: error: no greenlet here; install corelet again: pip install --force-reinstall corelet\n"
    )


# ---- orders for a running server ----

WAITS_FOR_A_SIGNAL = """
import signal
numbers = {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
while True:
    print(signal.sigwait(numbers).name, flush=True)
"""


@pytest.fixture
def process(tmp_path):
    """A process that tells which signals it gets, and the pid file that names it."""
    child = subprocess.Popen([sys.executable, "-c", WAITS_FOR_A_SIGNAL], stdout=subprocess.PIPE, text=True)
    with child:
        try:
            assert child.stdout.readline() == "ready\n"
            child.pid_file = str(tmp_path / "app.pid")
            (tmp_path / "app.pid").write_text(f"{child.pid}\n")
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize(
    ("words", "what", "name"),
    [
        (["--stop", "{}"], " to stop", "SIGTERM"),
        (["--reload", "{}"], " to reload", "SIGHUP"),
        (["control", "{}", "stop"], ": stop", "SIGTERM"),
        (["control", "{}", "reload"], ": reload", "SIGHUP"),
        (["control", "{}", "stats"], ": stats", "SIGUSR1"),
    ],
)
def test_an_order_through_a_pid_file_is_a_signal(process, capsys, served, words, what, name):
    words = [word.format(process.pid_file) for word in words]
    assert main(words, served) == 0
    assert capsys.readouterr() == (f"told process {process.pid}{what} ({process.pid_file})\n", "")
    assert process.stdout.readline() == f"{name}\n"
    assert served.configs == []


def test_a_reload_that_is_no_pid_file_is_an_option_of_the_server(served):
    assert main(["--reload", "exec", "--socket", ":1"], served) == 7
    assert served.configs[0].reload == "exec"


@pytest.fixture
def fifo(tmp_path):
    """A fifo that somebody reads; `read` takes what is in it."""
    path = str(tmp_path / "app.fifo")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield path, lambda: os.read(reader, 100)
    os.close(reader)


@pytest.mark.parametrize(
    ("name", "letter"), [("reload", "r"), ("chain-reload", "c"), ("more", "+"), ("reopen-log", "l")]
)
def test_an_order_through_a_fifo_is_a_letter(fifo, capsys, name, letter):
    path, read = fifo
    assert main(["control", path, name]) == 0
    assert capsys.readouterr() == (f"wrote {letter} to {path}: {name}\n", "")
    assert read() == letter.encode()


def error_of(capsys, *words):
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    return err.removeprefix("corelet: error: ").removesuffix("\n")


def test_an_order_that_no_signal_means_needs_a_fifo(process, capsys):
    assert error_of(capsys, "control", process.pid_file, "chain-reload") == (
        f"chain-reload: no signal means this; only a fifo (master-fifo) takes it, and {process.pid_file} is none"
    )


def test_a_fifo_that_nobody_reads_or_that_is_full_is_not_waited_for(tmp_path, capsys):
    path = str(tmp_path / "app.fifo")
    os.mkfifo(path)
    assert error_of(capsys, "control", path, "reload") == (
        f"{path}: nobody reads this fifo: the server has ended; nothing was ordered"
    )
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"s" * 65536)
    assert error_of(capsys, "control", path, "reload") == (
        f"{path}: Resource temporarily unavailable; nothing was ordered; does the server still answer?"
    )
    os.close(descriptor)


def test_a_place_that_is_neither_pid_file_nor_fifo_is_refused(tmp_path, capsys):
    expected = "expected the pid file or the fifo (master-fifo) of a running server"
    none = tmp_path / "none"
    assert error_of(capsys, "control", str(none), "stop") == (
        f"{none}: {expected}; got 'No such file or directory'; is the server running?"
    )
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "app.sock"))
        for place, what in ((tmp_path, "a folder"), (tmp_path / "app.sock", "a socket"), ("/dev/null", "a device")):
            assert error_of(capsys, "control", str(place), "stop") == (
                f"{place}: {expected}; got {what}; name what pidfile or master-fifo names"
            )
    text = tmp_path / "app.py"
    text.write_text("x = 1\n")
    assert error_of(capsys, "control", str(text), "stop").startswith(f"{text}: expected a process id; got ")


def test_a_process_that_has_ended_is_an_error(tmp_path, capsys):
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    (tmp_path / "app.pid").write_text(str(child.pid))
    assert "there is no process" in error_of(capsys, "--stop", str(tmp_path / "app.pid"))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "control: expected PLACE ORDER; got nothing; corelet control --help tells what they are"),
        (["a.pid"], "control: expected PLACE ORDER; got a.pid; corelet control --help tells what they are"),
        (["a.pid", "reload", "now"], "control: expected PLACE ORDER; got a.pid reload now; corelet control --help"),
        (["a.pid", "relaod"], "relaod is no order; did you mean reload?"),
        (["a.pid", "choose-fifo"], "choose-fifo is no order; corelet control --help lists them"),
    ],
)
def test_an_order_that_cannot_be_understood_says_what_is_expected(capsys, words, error):
    assert error_of(capsys, "control", *words).startswith(error)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["a.pid", "--help"]])
def test_the_help_of_control_lists_every_order_with_its_letter_and_signal(capsys, words):
    assert main(["control", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: corelet control PLACE ORDER\n")
    lines = [line.split() for line in out.splitlines()]
    assert ["reload", "r", "SIGHUP", "reads"] in [line[:4] for line in lines]
    assert ["stop", "q", "SIGTERM", "stops;"] in [line[:4] for line in lines]
    assert ["chain-reload", "c", "replaces"] in [line[:3] for line in lines]
    assert sum(line[:1] == ["reopen-log"] for line in lines) == 1
    assert max(map(len, out.splitlines())) <= 120
