"""What a server's whole process tree has used: CPU time and memory, read from outside.

CPU time is the sum over the tree of every process' own clock and of the children it has waited for, so a server that
hands its work to threads or to short-lived processes pays for them. The clock is the kernel's per-process CPU clock
(nanoseconds, user and system, all threads, ended ones too): utime and stime in /proc/PID/stat are the same account in
steps of 10 ms, which is 1 % of a one-second slice. Waited-for children stand only in /proc/PID/stat and are taken from
there. Linux only, like the server itself.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

US_PER_TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")
# Field numbers of proc(5) less the two that stand before and in the parentheses (pid, comm), counted from zero.
PPID, UTIME, STIME, CUTIME, CSTIME = 1, 11, 12, 13, 14


@dataclass(frozen=True)
class Memory:
    """Resident and proportional set size of a process tree, in bytes."""

    rss_bytes: int
    pss_bytes: int


def tree_pids(root_pid: int) -> list[int]:
    """The process and all its descendants that live now, root first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat_fields(int(entry))):
            children.setdefault(int(fields[PPID]), []).append(int(entry))
    found, position = [root_pid], 0
    while position < len(found):
        found += children.get(found[position], [])
        position += 1
    return found


def tree_cpu_us(root_pid: int) -> float:
    """CPU microseconds (user and system) the tree has used since its processes began."""
    return sum(cpu_us_by_pid(root_pid).values())


def cpu_us_by_pid(root_pid: int) -> dict[int, float]:
    """The same for each process, master and workers apart: its own and that of children it has waited for."""
    used = {}
    for pid in tree_pids(root_pid):
        if fields := stat_fields(pid):
            used[pid] = (int(fields[CUTIME]) + int(fields[CSTIME])) * US_PER_TICK + own_cpu_us(pid, fields)
    return used


def busiest_share(before: dict[int, float], after: dict[int, float]) -> float:
    """How much of what a tree used between two moments its busiest process used: 0 to 1, and 1 when nobody did."""
    used = [microseconds - before.get(pid, 0.0) for pid, microseconds in after.items()]
    return max(used) / sum(used) if sum(used) else 1.0


def own_cpu_us(pid: int, fields: list[str]) -> float:
    """One process' CPU microseconds, all its threads; from the kernel's clock, else from its ticks in `fields`."""
    try:
        # clock_getcpuclockid(3) for another process, which Python does not offer: ~pid << 3 | CPUCLOCK_SCHED.
        return time.clock_gettime_ns((~pid << 3) | 2) / 1000
    except OSError:  # a sandbox that emulates the kernel may lack it
        return (int(fields[UTIME]) + int(fields[STIME])) * US_PER_TICK


def stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command name, or None when the process has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()  # a command name may hold spaces and parentheses


def scheduled_ns(pid: int) -> int:
    """Nanoseconds on a processor of a process' living threads, from /proc/PID/task/TID/schedstat."""
    return sum(
        int(path.read_text(encoding="ascii").split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def voluntary_switches(pid: int) -> int:
    """How often a process' living threads gave up a processor by themselves: once for each time they were woken."""
    name, total = "voluntary_ctxt_switches:", 0
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        total += next(int(line.removeprefix(name)) for line in lines if line.startswith(name))
    return total


def machine_busy_us() -> float:
    """CPU microseconds the whole machine has been busy since it began, what its hypervisor took away included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) * US_PER_TICK


def children_cpu_us() -> float:
    """CPU microseconds of this process and of the children it has waited for: here, the load generator's."""
    times = os.times()
    return (times.user + times.system + times.children_user + times.children_system) * 1_000_000


def tree_memory(root_pid: int) -> Memory:
    """Memory of the tree from /proc/PID/smaps_rollup. PSS counts a page shared by n processes as 1/n."""
    rss = pss = 0
    for pid in tree_pids(root_pid):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes = {key: rest.split()[0] for key, _, rest in (line.partition(":") for line in text.splitlines()[1:])}
        rss += int(sizes["Rss"]) * 1024
        pss += int(sizes["Pss"]) * 1024
    return Memory(rss, pss)
