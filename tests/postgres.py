"""A private PostgreSQL for tests: its data in a temporary folder, its socket beside it, ended by its own process id.

PostgreSQL refuses to run as root, so there it runs as an unprivileged user that the system has.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import PATIENCE_SECONDS, Log

USERS = ("postgres", "nobody")


class Postgres:
    """A running cluster. `folder` is where its socket is; `dsn` what libpq connects with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        data = folder / "data"
        self._user = next((name for name in USERS if _exists(name)), USERS[0]) if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(folder, self._user)
        folder.chmod(0o755)
        self._run("initdb", "-D", data, "-U", "tester", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        settings = ("listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "max_connections=60")
        words = [word for setting in settings for word in ("-c", setting)]
        self.process = self._start(program("postgres"), "-D", str(data), *words)
        self.log = Log(self.process.stdout)
        self.log.wait_for("ready to accept connections")
        self.dsn = f"host={folder} user=tester dbname=postgres"
        self.url = f"tester@/postgres?host={folder}"

    def _start(self, *words: str) -> subprocess.Popen[str]:
        group = None if self._user is None else pwd.getpwnam(self._user).pw_gid
        return subprocess.Popen(
            words, user=self._user, group=group, extra_groups=None if group is None else [],
            cwd=self.folder, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _run(self, name: str, *words: object) -> None:
        process = self._start(program(name), *map(str, words))
        said, _ = process.communicate(timeout=3 * PATIENCE_SECONDS)
        assert process.returncode == 0, said

    def stop(self) -> None:
        """Fast shutdown; and if that does not end it, an immediate one."""
        for number in (signal.SIGINT, signal.SIGQUIT):
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_SECONDS)
                break
        self.log.join()


def program(name: str) -> str:
    """The newest one of the distribution: Debian does not put the server's programs on the path."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))
    path = found[-1] if found else shutil.which(name)
    if path is None:
        raise RuntimeError(
            "these tests need a real PostgreSQL: run `make test`, or install it (Debian: apt-get install postgresql)"
        )
    return path


def _exists(name: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A cluster for the length of a with block, in a folder whose path is short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="corelet-pg-") as folder:
        cluster = Postgres(Path(folder))
        try:
            yield cluster
        finally:
            cluster.stop()
