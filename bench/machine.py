"""What the figures came from: the processor, the kernel and the versions of everything that took part.

A figure without them cannot be compared with another, so they stand at the top of every report and in its JSON. The
versions are asked of the environments in which the peers were found, not of the one that runs the harness.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.launch import NotStarted, find_program


def machine(peers: Sequence[Path]) -> dict[str, str]:
    """Processor, kernel, interpreter, servers: name -> what it is."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    found = {
        "CPU": f"{model} × {os.cpu_count()}",
        "Linux": platform.release(),
        "harness on CPython": platform.python_version(),
    }
    for name in ("corelet", "uwsgi", "gunicorn", "granian", "waitress"):
        found[name] = version(name, peers)
    return found


def version(name: str, peers: Sequence[Path]) -> str:
    """A peer's version and the Python it runs on, asked of the environment it was found in."""
    try:
        _, home = find_program("waitress-serve" if name == "waitress" else name, peers)
    except NotStarted:
        return "missing"
    code = f"import sys, importlib.metadata as m; print(m.version({name!r}), 'on', sys.version.split()[0])"
    try:
        asked = subprocess.run([str(home / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # not an environment with that distribution: corelet of this tree
        return "not installed"
    return asked.stdout.strip()
