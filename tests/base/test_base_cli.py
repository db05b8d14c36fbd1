"""The command: what it prints, what it starts, and its exit codes."""

import subprocess
import sys

import pytest

from corelet import __version__
from corelet.base.config import OPTIONS
from corelet.base.errors import BindError, LoadError
from corelet.cli import help_text, main


@pytest.fixture
def served():
    """A server that only remembers what it was asked to serve, and ends with code 7."""
    configs = []

    def serve(config):
        configs.append(config)
        return 7

    serve.configs = configs
    return serve


def test_a_good_command_line_is_served_and_its_exit_code_is_ours(served, capsys):
    assert main(["--http-socket", ":9090", "--wsgi-file", "app.py", "--asyncio", "10"], served) == 7
    (config,) = served.configs
    assert (config.cores, config.wsgi_file, config.http_socket) == (10, "app.py", (":9090",))
    assert capsys.readouterr() == ("", "")


def test_notes_are_printed_before_the_start(served, capsys):
    assert main(["--socket", ":9090", "--processes", "4"], served) == 7
    assert capsys.readouterr().err == "corelet: note: processes 4: one worker is started in this version\n"


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
    def serve(config):
        raise LoadError("cannot load app.py: it raised ValueError: no", "Traceback:\n  its line")

    assert main(["--socket", ":0"], serve) == 22
    assert capsys.readouterr().err == (
        "Traceback:\n  its line\ncorelet: error: cannot load app.py: it raised ValueError: no\n"
    )


def test_a_socket_that_cannot_be_made_ends_without_a_traceback(capsys):
    def serve(config):
        raise BindError("cannot listen on :80: Permission denied")

    assert main(["--socket", ":0"], serve) == 1
    assert capsys.readouterr().err == "corelet: error: cannot listen on :80: Permission denied\n"


def test_an_interrupt_before_the_server_runs_is_an_exit_code(capsys):
    def serve(config):
        raise KeyboardInterrupt

    assert main(["--socket", ":0"], serve) == 130
    assert capsys.readouterr().err == ""


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
    assert any(line.startswith("processes = 2 ") and "; -p, no effect: one worker" in line for line in lines)
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
