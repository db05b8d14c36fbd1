"""Why a worker should be replaced though nothing is wrong with it yet: its age, its memory. Pure, but for one reading.

How many requests it has served it counts itself (max-requests), to the request.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from corelet.base.config import Config
from corelet.process.fleet import Member

MEBIBYTE = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process, in bytes."""

    address_space: int
    resident: int


def memory_of(pid: int) -> Memory:
    """Read from /proc (proc(5), statm); zeros for a process that has gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            size, resident = file.read().split()[:2]
    except (OSError, ValueError):
        return Memory(0, 0)
    return Memory(int(size) * _PAGE_BYTES, int(resident) * _PAGE_BYTES)


def reason(config: Config, member: Member, memory: Memory, now: float) -> str:
    """Why the worker should be replaced now, or nothing."""
    age = now - member.born
    longest = config.max_worker_lifetime
    if longest and age >= longest + member.worker * config.max_worker_lifetime_delta:
        return f"it is {age:.0f} s old (max-worker-lifetime)"
    if config.reload_on_rss and memory.resident >= config.reload_on_rss * MEBIBYTE:
        return f"it has {memory.resident // MEBIBYTE} MB of resident memory (reload-on-rss)"
    if config.reload_on_as and memory.address_space >= config.reload_on_as * MEBIBYTE:
        return f"it has {memory.address_space // MEBIBYTE} MB of address space (reload-on-as)"
    return ""


def requests_at_most(config: Config, worker: int) -> int:
    """After how many requests a worker asks to be replaced; 0 = never."""
    return config.max_requests + worker * config.max_requests_delta if config.max_requests else 0
