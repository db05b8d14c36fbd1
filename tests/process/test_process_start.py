"""What keeps a server from starting is said in one line, and leaves nothing behind."""

import os
import subprocess
import sys

from harness import PATIENCE_SECONDS, ROOT
from masters import corelet


def test_without_the_package_uvloop_its_option_says_what_to_install(tmp_path):
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "uvloop.py").write_text('raise ImportError("No module named uvloop", name="uvloop")\n')
    (tmp_path / "app.py").write_text("def application(environ, start_response): ...\n")
    path = os.pathsep.join(map(str, [stub, ROOT, ROOT / "server"]))
    done = subprocess.run(
        [sys.executable, "-m", "corelet", "--loop", "uvloop", "--socket", "app.sock", "--wsgi-file", "app.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, check=False, capture_output=True, text=True,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "corelet: error: loop = uvloop needs the package uvloop: pip install 'corelet[uvloop]', "
        "or leave the option out\n"
    )
    assert not (tmp_path / "app.sock").exists()


def test_a_log_that_cannot_be_opened_is_one_line_that_names_its_option(tmp_path):
    for option, more in (("--daemonize", ()), ("--logto", ("--master",))):
        words = ("--http-socket", "127.0.0.1:0", "--wsgi-file", "app.py", option, "/nope/x.log", *more)
        code, text = corelet(tmp_path, *words)
        assert code == 1
        assert text.splitlines() == [
            f"corelet: error: {option[2:]} /nope/x.log: No such file or directory; is there such a folder, and may we "
            "write there?"
        ]
