"""The file that the locks of uwsgi.lock() are held in: one byte each, made by the master before its first fork.

A file in memory without a name, so it is nobody's who does not inherit it. Who locks opens it anew (/proc/self/fd): the
kernel then takes each worker for an owner of its own, and gives back what a worker held when it dies.
"""

from __future__ import annotations

import os


def lock_file() -> int:
    """The descriptor of a new one."""
    return os.memfd_create("corelet-locks", os.MFD_CLOEXEC)
