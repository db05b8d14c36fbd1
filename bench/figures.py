"""The values a run yields, and the medians and ratios made of them.

Pure; nothing is measured, printed or judged here. A figure of one day on one machine says little, so every figure is
put in proportion to a named baseline: the ratio is taken within each round, where both were measured moments apart
under the same conditions, and the median of those ratios is what is reported. It is not the ratio of the medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One slice: one contestant, one case, one round."""

    contestant: str
    case: str
    round: int
    requests: int
    cpu_us: float  # of the server's process tree, for each request
    nginx_cpu_us: float | None  # of nginx, for each request; None where no nginx takes part
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    others_share: float  # of the machine's CPU during the slice, used by what has no part in it; 0 to 1
    busiest_share: float  # of the tree's CPU, used by its busiest process; 0.5 when two workers share the work evenly


@dataclass(frozen=True)
class Suspended:
    """What bench/suspended.py saw of one server."""

    contestant: str
    requests: int
    answered: int
    together: int  # the most that waited at one moment, counted by the application
    rss_before_bytes: int
    rss_peak_bytes: int
    rss_after_bytes: int
    pss_before_bytes: int
    pss_peak_bytes: int

    @property
    def rss_per_request_bytes(self) -> float:
        """Resident memory that came with the requests, for each."""
        return (self.rss_peak_bytes - self.rss_before_bytes) / self.requests

    @property
    def pss_per_request_bytes(self) -> float:
        """The same of the proportional set size."""
        return (self.pss_peak_bytes - self.pss_before_bytes) / self.requests


@dataclass(frozen=True)
class InFlightSlice:
    """One slice of bench/inflight.py: one server, one round."""

    round: int
    requests_per_second: float
    cpu_us: float  # of the server's process tree, for each request
    p50_ms: float
    p99_ms: float
    failed: int  # requests that were answered wrongly, or not in time
    others_share: float  # as in Sample; the upstream and nginx have a part in it


@dataclass(frozen=True)
class InFlight:
    """What bench/inflight.py saw of one server."""

    contestant: str
    connections: int
    wait_ms: int
    slices: tuple[InFlightSlice, ...]
    memory: Suspended | None  # None: it was not measured

    @property
    def allowed_per_second(self) -> float:
        """What the waiting alone allows."""
        return self.connections * 1000 / self.wait_ms

    def median_of(self, figure: str) -> float:
        """The median of a figure over the rounds."""
        return statistics.median(getattr(one, figure) for one in self.slices)

    def ratio_to(self, other: InFlight, figure: str) -> float:
        """The median of the ratios within each round."""
        base = {one.round: getattr(one, figure) for one in other.slices}
        return statistics.median(getattr(one, figure) / base[one.round] for one in self.slices if one.round in base)


@dataclass(frozen=True)
class IdleProcess:
    """What one process of an idle server used."""

    role: str  # "master", "worker 1", …
    ticks: int  # utime and stime of /proc/PID/stat, each of 1 / SC_CLK_TCK second
    cpu_ms: float  # from the scheduler, in nanoseconds: /proc/PID/schedstat
    wakeups: int  # voluntary context switches: how often it went back to sleep


@dataclass(frozen=True)
class Idle:
    """What bench/idle.py saw of one server to which nobody spoke."""

    contestant: str
    workers: int
    seconds: float
    processes: tuple[IdleProcess, ...]
    steady: bool  # the processes at the end were those of the beginning: a master and the workers asked for

    @property
    def total(self) -> IdleProcess:
        """Master and workers together."""
        return IdleProcess(
            role="together",
            ticks=sum(one.ticks for one in self.processes),
            cpu_ms=sum(one.cpu_ms for one in self.processes),
            wakeups=sum(one.wakeups for one in self.processes),
        )


@dataclass(frozen=True)
class CacheCost:
    """What one call of uwsgi.cache_* cost in bench/cache.py: microseconds by the clock, and of the worker's CPU."""

    contestant: str
    size_bytes: int
    get_us: float
    get_cpu_us: float
    set_us: float
    set_cpu_us: float


@dataclass(frozen=True)
class Results:
    """A whole run."""

    machine: dict[str, str]
    settings: dict[str, int]
    cases: tuple[str, ...]  # the names of those asked for; a run may be partial
    samples: tuple[Sample, ...]
    suspended: tuple[Suspended, ...]
    problems: dict[str, str]  # contestant, or contestant/case -> why it is missing
    idle: tuple[Idle, ...] = ()
    caches: tuple[CacheCost, ...] = ()
    inflight: tuple[InFlight, ...] = ()


Figure = Callable[[Sample], float]


def cpu_us(sample: Sample) -> float:
    """The figure most goals are about."""
    return sample.cpu_us


def requests_per_second(sample: Sample) -> float:
    """Throughput, as wrk saw it."""
    return sample.requests_per_second


def p99_ms(sample: Sample) -> float:
    """The latency that one request in a hundred exceeds."""
    return sample.p99_ms


def busiest_percent(sample: Sample) -> float:
    """How much of the server's CPU its busiest process used."""
    return sample.busiest_share * 100


def rounds(samples: Iterable[Sample], contestant: str, case: str) -> dict[int, Sample]:
    """The samples of one contestant and case by round."""
    return {sample.round: sample for sample in samples if sample.contestant == contestant and sample.case == case}


def median(samples: Iterable[Sample], contestant: str, case: str, figure: Figure) -> float | None:
    """The median over the rounds, or None when there is no sample."""
    values = [figure(sample) for sample in rounds(samples, contestant, case).values()]
    return statistics.median(values) if values else None


def ratio(samples: tuple[Sample, ...], contestant: str, baseline: str, case: str, figure: Figure) -> float | None:
    """The median of the ratios within each round that has both, or None when no round has."""
    measured, base = rounds(samples, contestant, case), rounds(samples, baseline, case)
    values = [figure(measured[number]) / figure(base[number]) for number in measured.keys() & base.keys()]
    return statistics.median(values) if values else None
