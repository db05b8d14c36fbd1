"""`make run`'s script: Ctrl-C in a terminal ends it in order, and a port that is taken is no server of ours."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from harness import PATIENCE_SECONDS, ROOT, Log, free_port, read_all, read_until


@contextlib.contextmanager
def demo(folder: Path, port: int | None = None):
    """The script in a process group of its own, as a shell starts it; (process, log, port)."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "corelet"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m corelet "$@"\n')
    program.chmod(0o755)
    port = port or free_port()
    environment = {
        **os.environ, "VENV": str(folder), "HTTP_PORT": str(port), "UWSGI_PORT": str(free_port()),
        "NGINX_PORT": str(free_port()), "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "server"])),
    }  # fmt: skip
    process = subprocess.Popen(
        [ROOT / "examples" / "run_demo.sh"], env=environment, start_new_session=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    log = Log(process.stdout)
    try:
        yield process, log, port
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
        log.join()


def test_ctrl_c_lets_running_requests_finish(tmp_path):
    with demo(tmp_path) as (process, log, port):
        log.wait_for("Ctrl-C ends it")
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as sock:
            sock.sendall(b"GET /stream HTTP/1.1\r\nHost: demo\r\n\r\n")
            first = read_until(sock, b"\r\n\r\n")
            os.killpg(process.pid, signal.SIGINT)  # the terminal sends it to the whole group
            log.wait_for("SIGTERM: finishing 1 running requests")
            rest = read_all(sock)
        assert (first + rest).endswith(b"0\r\n\r\n")
        assert process.wait(PATIENCE_SECONDS) == 0
        log.join()
        assert "stopped after 1 requests" in log.text()
        assert "a second signal" not in log.text()


def test_a_port_that_is_taken_is_no_server_of_ours(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other, demo(tmp_path, other.getsockname()[1]) as (process, log, _):
        assert process.wait(PATIENCE_SECONDS) == 1
        log.join()
        assert "corelet: error: " in log.text()
        assert "http://" not in log.text()
