"""From samples to what is printed: medians, ratios, the tables, the verdict on each goal, the JSON.

Pure functions over values; nothing is measured here. A figure of one day on one machine says little, so every figure is
put in proportion to a named baseline: the ratio is taken within each round, where both were measured moments apart
under the same conditions, and the median of those ratios is what is reported. It is not the ratio of the medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from bench.cases import CASES, Case
from bench.servers import BASELINES, CONTESTANTS, GOALS, MAX_SUSPENDED_BYTES, Contestant, Goal

NONE = "–"
MAX_QUIET_SHARE = 0.05  # of the machine: a busy neighbour costs a server its caches, and not every server the same


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
class Results:
    """A whole run."""

    machine: dict[str, str]
    settings: dict[str, int]
    cases: tuple[str, ...]  # the names of those asked for; a run may be partial
    samples: tuple[Sample, ...]
    suspended: tuple[Suspended, ...]
    problems: dict[str, str]  # contestant, or contestant/case -> why it is missing


Figure = Callable[[Sample], float]


def cpu_us(sample: Sample) -> float:
    """The figure the goals are about."""
    return sample.cpu_us


def requests_per_second(sample: Sample) -> float:
    """Throughput, as wrk saw it."""
    return sample.requests_per_second


def p99_ms(sample: Sample) -> float:
    """The latency that one request in a hundred exceeds."""
    return sample.p99_ms


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


def markdown(results: Results) -> str:
    """The whole report as it is printed."""
    parts = [f"{', '.join(f'{key} {value}' for key, value in results.machine.items())}"]
    parts.append(", ".join(f"{key} {value}" for key, value in results.settings.items()))
    if results.samples:
        parts.append(disturbance(results.samples))
    for group in BASELINES:
        members = [one for one in CONTESTANTS if one.group == group and measured_at_all(results, one)]
        parts += [case_table(results, group, members, case) for case in CASES if members and case.name in results.cases]
    if results.suspended:
        parts.append(suspended_table(results.suspended))
    if results.problems:
        parts.append("### Missing\n\n" + "\n".join(f"- {name}: {why}" for name, why in results.problems.items()))
    parts.append("### Goals\n\n" + "\n".join(f"- {line}" for line in judgement(results)))
    return "\n\n".join(parts) + "\n"


def disturbance(samples: tuple[Sample, ...]) -> str:
    """How busy the machine was with other things, and whether the figures may be quoted."""
    shares = [sample.others_share for sample in samples]
    usual = statistics.median(shares)
    text = f"other processes took {usual:.0%} of the machine in the median slice, at most {max(shares):.0%}"
    return text if usual <= MAX_QUIET_SHARE else f"**Disturbed: {text}. Not figures to quote.**"


def measured_at_all(results: Results, contestant: Contestant) -> bool:
    """Whether the contestant has a sample or a reason for having none: either is a row."""
    named = any(name.partition("/")[0] == contestant.name for name in results.problems)
    return named or any(sample.contestant == contestant.name for sample in results.samples)


def case_table(results: Results, group: str, members: list[Contestant], case: Case) -> str:
    """One case in one group. The CPU column has a ratio to each baseline, the others to the first."""
    bases = BASELINES[group]
    columns = ["server", "CPU µs/request", *(f"× {base}" for base in bases)]
    columns += ["requests/s", f"× {bases[0]}", "p99 ms", f"× {bases[0]}", "nginx CPU µs"]
    lines = [
        f"### {case.title}, {group}",
        "",
        "| " + " | ".join(columns) + " |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
    ]
    for one in members:
        cells = [f"{one.title} (`{one.name}`)", shown(median(results.samples, one.name, case.name, cpu_us), 1)]
        cells += [shown(ratio(results.samples, one.name, base, case.name, cpu_us), 2) for base in bases]
        for figure, digits in ((requests_per_second, 0), (p99_ms, 1)):
            cells.append(shown(median(results.samples, one.name, case.name, figure), digits))
            cells.append(shown(ratio(results.samples, one.name, bases[0], case.name, figure), 2))
        cells.append(nginx_cell(results.samples, one.name, case.name))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def nginx_cell(samples: tuple[Sample, ...], contestant: str, case: str) -> str:
    """nginx's own CPU for each request: how a server writes its reply shows there too."""
    values = [one.nginx_cpu_us for one in rounds(samples, contestant, case).values() if one.nginx_cpu_us is not None]
    return shown(statistics.median(values), 1) if values else NONE


def suspended_table(rows: tuple[Suspended, ...]) -> str:
    """Memory of suspended requests."""
    lines = ["### Requests suspended at once in one worker", ""]
    lines.append(
        "| server | requests | answered | together | RSS before MB | RSS peak MB | RSS/request kB | PSS/request kB |"
    )
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        cells = [f"`{row.contestant}`", str(row.requests), str(row.answered), str(row.together)]
        cells += [f"{size / 1e6:.1f}" for size in (row.rss_before_bytes, row.rss_peak_bytes)]
        cells += [f"{size / 1e3:.1f}" for size in (row.rss_per_request_bytes, row.pss_per_request_bytes)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def judgement(results: Results) -> list[str]:
    """One line for each goal and case: what was measured, the limit, and OK, NOT REACHED or NOT MEASURED."""
    lines = [
        verdict(f"{goal_name(goal)}, {case.title}", measured_ratio(results, goal, case), goal.limit, 2)
        for goal in GOALS
        for case in CASES
    ]
    for row in results.suspended:
        if row.contestant == "corelet":
            text = f"suspended: {row.answered} of {row.requests} answered, {row.together} at once, memory of each in kB"
            complete = row.answered == row.together == row.requests
            lines.append(verdict(text, row.rss_per_request_bytes / 1000, MAX_SUSPENDED_BYTES / 1000, 1, valid=complete))
            break
    else:
        lines.append(verdict("suspended: memory of each request in kB", None, MAX_SUSPENDED_BYTES / 1000, 1))
    return lines


def goal_name(goal: Goal) -> str:
    """The goal in words."""
    return f"CPU of {goal.contestant} / {goal.baseline}"


def measured_ratio(results: Results, goal: Goal, case: Case) -> float | None:
    """What the goal is about, measured."""
    return ratio(results.samples, goal.contestant, goal.baseline, case.name, cpu_us)


def verdict(text: str, value: float | None, limit: float, digits: int, *, valid: bool = True) -> str:
    """A goal's line. `valid` false: the figure stands, but the measurement was not what it should be."""
    if value is None:
        return f"{text}: NOT MEASURED (at most {limit:.{digits}f})"
    word = "OK" if value <= limit and valid else "NOT REACHED"
    return f"{text}: {value:.{digits}f} (at most {limit:.{digits}f}): {word}"


def shown(value: float | None, digits: int) -> str:
    """A number for a cell, thousands apart."""
    return NONE if value is None else f"{value:,.{digits}f}"


def as_json(results: Results) -> dict[str, object]:
    """Everything, samples included, so that a later reader can compute what this page did not."""
    bases = {one.name: BASELINES[one.group] for one in CONTESTANTS}
    present = {(sample.contestant, sample.case) for sample in results.samples}
    summary = [
        {
            "contestant": name,
            "case": case,
            "cpu_us": median(results.samples, name, case, cpu_us),
            "requests_per_second": median(results.samples, name, case, requests_per_second),
            "p99_ms": median(results.samples, name, case, p99_ms),
            "ratios": {
                base: {
                    figure.__name__: ratio(results.samples, name, base, case, figure)
                    for figure in (cpu_us, requests_per_second, p99_ms)
                }
                for base in bases[name]
            },
        }
        for name, case in sorted(present)
    ]
    whole = asdict(results)
    return {**whole, "summary": summary, "goals": judgement(results)}
