"""How many iterations of the application's computation are two milliseconds, and what a second core is worth here.

The count is found once in a run, by the harness, and handed to every server in its environment: each process then does
the same work, one worker or two. Counting until a clock says "enough" would be no work at all on a busy machine, where
two milliseconds pass without a processor. What two bare processes reach against one is the most that two workers can:
on a machine whose second core is taken, or is only the other thread of the first, no server doubles anything.

    python bench/compute.py START SECONDS ITERATIONS        # what such a bare process runs
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.apps.bench_app import computed
from bench.cases import COMPUTE_MS

PROBE_ITERATIONS = 10_000
PROBES = 100
REPEATS = 3
SECONDS = 0.5
START_SECONDS = 0.3  # an interpreter's start; the processes begin to count at the same moment


def calibrated_iterations() -> int:
    """The iterations that take COMPUTE_MS of this interpreter's CPU time, from the fastest of many probes."""
    fastest = min(cpu_seconds(PROBE_ITERATIONS) for _ in range(PROBES))
    return round(PROBE_ITERATIONS * COMPUTE_MS / 1000 / fastest)


def cpu_seconds(iterations: int) -> float:
    """CPU time of one computation."""
    began = time.thread_time()
    computed(iterations)
    return time.thread_time() - began


def two_against_one(iterations: int) -> float:
    """The throughput of two bare processes that only compute, divided by that of one: the median of a few repeats."""
    return statistics.median(count(2, iterations) / count(1, iterations) for _ in range(REPEATS))


def count(processes: int, iterations: int) -> int:
    """How often so many processes together compute, all within the same SECONDS."""
    arguments = [repr(time.monotonic() + START_SECONDS), repr(SECONDS), str(iterations)]
    running = [
        subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return max(1, sum(int(one.communicate()[0]) for one in running))


def count_alone(start: float, seconds: float, iterations: int) -> int:
    """How often one process computes from `start` (of the monotonic clock, which all processes share) on."""
    time.sleep(max(0.0, start - time.monotonic()))
    done = 0
    while time.monotonic() < start + seconds:
        computed(iterations)
        done += 1
    return done


if __name__ == "__main__":
    print(count_alone(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
