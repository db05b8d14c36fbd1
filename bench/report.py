"""From results to what is printed: the tables, what is missing, the verdicts, the JSON.

Pure functions over the values of bench/figures.py; nothing is measured here. There is a table for each case in each
group of contestants, one for the computation, one for suspended requests and one for idle servers.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict

from bench.cases import PAGES, Case
from bench.figures import (
    CacheCost,
    Figure,
    Idle,
    InFlight,
    Results,
    Sample,
    Suspended,
    busiest_percent,
    cpu_us,
    median,
    p99_ms,
    ratio,
    requests_per_second,
    rounds,
)
from bench.servers import BASELINES, COMPUTE, CONTESTANTS, Contestant, baselines
from bench.verdicts import judgement

NONE = "–"
MAX_QUIET_SHARE = 0.05  # of the machine: a busy neighbour costs a server its caches, and not every server the same
COMPUTE_BASELINE = "corelet-http"
Column = tuple[str, Callable[[Contestant], str]]  # its heading, and a row's cell


def markdown(results: Results) -> str:
    """The whole report as it is printed."""
    parts = [f"{', '.join(f'{key} {value}' for key, value in results.machine.items())}"]
    parts.append(", ".join(f"{key} {value}" for key, value in results.settings.items()))
    if results.samples:
        parts.append(disturbance(results.samples))
    for group in BASELINES:
        for case in PAGES:
            members = taking_part(results, case.name, group)
            parts += [page_table(results, group, members, case)] if members else []
    if members := taking_part(results, COMPUTE):
        parts.append(compute_table(results, members))
    if results.suspended:
        parts.append(suspended_table(results.suspended))
    if results.idle:
        parts.append(idle_table(results.idle))
    if results.caches:
        parts.append(cache_table(results.caches))
    if results.inflight:
        parts.append(inflight_table(results.inflight))
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


def taking_part(results: Results, case: str, group: str | None = None) -> list[Contestant]:
    """The rows of a case's table, of one group or of all: none for a case that was not asked for."""
    if case not in results.cases:
        return []
    of_case = [one for one in CONTESTANTS if case in one.cases and group in {None, one.group}]
    return [one for one in of_case if measured_at_all(results, one)]


def measured_at_all(results: Results, contestant: Contestant) -> bool:
    """Whether the contestant has a sample or a reason for having none: either is a row."""
    named = any(name.partition("/")[0] == contestant.name for name in results.problems)
    return named or any(sample.contestant == contestant.name for sample in results.samples)


def page_table(results: Results, group: str, members: list[Contestant], case: Case) -> str:
    """One page in one group. The CPU column has a ratio to each baseline, the others to the first.

    A group of two workers has a ratio to the same server's single one besides, and says how evenly the two shared.
    """
    bases, two = BASELINES[group], any(one.one_worker for one in members)
    columns = [absolute(results, case.name, "CPU µs/request", cpu_us, 1)]
    columns += [own_ratio(results, case.name, cpu_us)] if two else []
    columns += [base_ratio(results, case.name, base, cpu_us) for base in bases]
    columns.append(absolute(results, case.name, "requests/s", requests_per_second, 0))
    columns += [own_ratio(results, case.name, requests_per_second)] if two else []
    columns.append(base_ratio(results, case.name, bases[0], requests_per_second))
    columns.append(absolute(results, case.name, "p99 ms", p99_ms, 1))
    columns.append(base_ratio(results, case.name, bases[0], p99_ms))
    columns.append(("nginx CPU µs", lambda one: nginx_cell(results.samples, one.name, case.name)))
    columns += [absolute(results, case.name, "busiest process %", busiest_percent, 0)] if two else []
    return contestants_table(f"{case.title}, {group}", members, columns)


def compute_table(results: Results, members: list[Contestant]) -> str:
    """The computation: here requests per second is the figure, since the application takes nearly all of the CPU."""
    title = next(iter(one.group for one in members))
    columns = [
        absolute(results, COMPUTE, "requests/s", requests_per_second, 0),
        own_ratio(results, COMPUTE, requests_per_second),
        base_ratio(results, COMPUTE, COMPUTE_BASELINE, requests_per_second),
        absolute(results, COMPUTE, "CPU µs/request", cpu_us, 1),
        base_ratio(results, COMPUTE, COMPUTE_BASELINE, cpu_us),
        absolute(results, COMPUTE, "p99 ms", p99_ms, 1),
        absolute(results, COMPUTE, "busiest process %", busiest_percent, 0),
    ]
    return contestants_table(f"{COMPUTE}: an application that holds the processor, {title}", members, columns)


def contestants_table(title: str, members: list[Contestant], columns: list[Column]) -> str:
    """A heading and a row for each contestant."""
    cells = [[f"{one.title} (`{one.name}`)", *(cell(one) for _, cell in columns)] for one in members]
    return table(title, ["server", *(heading for heading, _ in columns)], cells)


def absolute(results: Results, case: str, heading: str, figure: Figure, digits: int) -> Column:
    """A figure itself."""
    return heading, lambda one: shown(median(results.samples, one.name, case, figure), digits)


def base_ratio(results: Results, case: str, base: str, figure: Figure) -> Column:
    """A figure in proportion to a baseline's."""
    return f"× {base}", lambda one: shown(ratio(results.samples, one.name, base, case, figure), 2)


def own_ratio(results: Results, case: str, figure: Figure) -> Column:
    """A figure of two workers in proportion to the same server's with one."""
    return "× one worker", lambda one: shown(ratio(results.samples, one.name, one.one_worker, case, figure), 2)


def nginx_cell(samples: tuple[Sample, ...], contestant: str, case: str) -> str:
    """nginx's own CPU for each request: how a server writes its reply shows there too."""
    values = [one.nginx_cpu_us for one in rounds(samples, contestant, case).values() if one.nginx_cpu_us is not None]
    return shown(statistics.median(values), 1) if values else NONE


def suspended_table(rows: tuple[Suspended, ...]) -> str:
    """Memory of suspended requests."""
    headings = ["server", "requests", "answered", "together"]
    headings += ["RSS before MB", "RSS peak MB", "RSS/request kB", "PSS/request kB"]
    lines = []
    for row in rows:
        cells = [f"`{row.contestant}`", str(row.requests), str(row.answered), str(row.together)]
        cells += [f"{size / 1e6:.1f}" for size in (row.rss_before_bytes, row.rss_peak_bytes)]
        cells += [f"{size / 1e3:.1f}" for size in (row.rss_per_request_bytes, row.pss_per_request_bytes)]
        lines.append(cells)
    return table("Requests suspended at once in one worker", headings, lines)


def idle_table(rows: tuple[Idle, ...]) -> str:
    """What servers use while nobody speaks to them, each process and all together."""
    headings = ["server", "process", "CPU ms", "ticks", "wakeups"]
    lines = []
    for row in rows:
        gone = "" if row.steady else " (its processes changed meanwhile)"
        for one in (*row.processes, row.total):
            role = f"**{one.role}**{gone}" if one == row.total else one.role
            lines.append([f"`{row.contestant}`", role, f"{one.cpu_ms:.2f}", str(one.ticks), str(one.wakeups)])
    return table(f"Idle for {rows[0].seconds:g} s: a master and {rows[0].workers} workers", headings, lines)


def cache_table(rows: tuple[CacheCost, ...]) -> str:
    """What a call costs; where the value is in another process, the difference of the two columns is waiting."""
    headings = ["server", "bytes", "get µs", "get CPU µs", "set µs", "set CPU µs"]
    lines = []
    for row in rows:
        figures = (row.get_us, row.get_cpu_us, row.set_us, row.set_cpu_us)
        lines.append([f"`{row.contestant}`", str(row.size_bytes), *(f"{figure:.1f}" for figure in figures)])
    return table("A call of uwsgi.cache_get and uwsgi.cache_update", headings, lines)


def inflight_table(rows: tuple[InFlight, ...]) -> str:
    """Thousands of requests in flight; ratios to uWSGI's asyncio engine reached in the same way."""
    headings = [
        "server",
        "requests/s",
        "of what the waiting allows",
        "× uWSGI asyncio",
        "CPU µs/request",
        "× uWSGI asyncio",
    ]
    headings += ["p50 ms", "p99 ms", "failed", "kB for each that waits", "× uWSGI asyncio"]
    by_name = {row.contestant: row for row in rows}
    lines = []
    for row in rows:
        base = by_name.get("uwsgi-asyncio-nginx" if row.contestant.endswith("-nginx") else "uwsgi-asyncio")
        ratios = [None if base is None else row.ratio_to(base, name) for name in ("requests_per_second", "cpu_us")]
        memory, base_memory = row.memory, None if base is None else base.memory
        size = None if memory is None else memory.rss_per_request_bytes
        cells = [f"`{row.contestant}`", shown(row.median_of("requests_per_second"), 0)]
        cells.append(f"{row.median_of('requests_per_second') / row.allowed_per_second:.0%}")
        cells += [shown(ratios[0], 2), shown(row.median_of("cpu_us"), 1), shown(ratios[1], 2)]
        cells += [shown(row.median_of(name), 0) for name in ("p50_ms", "p99_ms")]
        cells.append(str(sum(one.failed for one in row.slices)))
        cells.append(shown(None if size is None else size / 1000, 1))
        cells.append(shown(size / base_memory.rss_per_request_bytes if size and base_memory else None, 2))
        lines.append(cells)
    title = f"{rows[0].connections} requests in flight in one worker, each waits {rows[0].wait_ms} ms for an upstream"
    return table(title, headings, lines)


def table(title: str, headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table under its heading."""
    lines = [f"### {title}", "", "| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def shown(value: float | None, digits: int) -> str:
    """A number for a cell, thousands apart."""
    return NONE if value is None else f"{value:,.{digits}f}"


def as_json(results: Results) -> dict[str, object]:
    """Everything, samples included, so that a later reader can compute what this page did not."""
    contestants = {one.name: one for one in CONTESTANTS}
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
                for base in baselines(contestants[name], case)
            },
        }
        for name, case in sorted(present)
    ]
    whole = asdict(results)
    return {**whole, "summary": summary, "goals": judgement(results)}
