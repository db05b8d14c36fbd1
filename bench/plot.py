"""The picture of a run: CPU per request, one panel for each group, bars side by side for the pages.

matplotlib is asked for only here, so that everything else runs without it. The whiskers are the lowest and the highest
round: how far the machine itself moved.
"""

from __future__ import annotations

from pathlib import Path

from bench.cases import PAGES
from bench.figures import Results, cpu_us, median, rounds
from bench.servers import BASELINES, CONTESTANTS, Contestant

COLOURS = {"hello": "#2f6f8f", "large": "#d08c34", "post": "#7a9a4a"}
BAR_HEIGHT = 0.26


def draw(results: Results, file: Path) -> None:
    """Write the plot of the pages; the format follows the file's ending (svg, png). Nothing when none was measured.

    Raises ImportError without matplotlib.
    """
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    pages = {case.name for case in PAGES}
    names = {sample.contestant for sample in results.samples if sample.case in pages}
    groups = {group: [one for one in CONTESTANTS if one.group == group and one.name in names] for group in BASELINES}
    groups = {group: members for group, members in groups.items() if members}
    if not groups:
        return
    heights = [len(members) + 0.6 for members in groups.values()]
    figure, panels = pyplot.subplots(
        len(groups), 1, figsize=(9, 0.75 * sum(heights) + 1.2), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for panel, (group, members) in zip(panels[:, 0], groups.items(), strict=True):
        for index, case in enumerate(PAGES):
            draw_case(panel, results, members, case.name, case.title, index)
        panel.set_yticks(range(len(members)), [one.title for one in members])
        panel.invert_yaxis()
        panel.set_title(group, loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1, 0].set_xlabel("CPU µs per request (user and system, the server's whole process tree)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="upper right", ncols=len(PAGES), fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(file)
    pyplot.close(figure)


def draw_case(panel: object, results: Results, members: list[Contestant], case: str, title: str, index: int) -> None:
    """The bars of one case, with the number at their end."""
    positions, medians, below, above = [], [], [], []
    for row, one in enumerate(members):
        values = sorted(sample.cpu_us for sample in rounds(results.samples, one.name, case).values())
        middle = median(results.samples, one.name, case, cpu_us)
        if middle is not None:
            positions.append(row + (index - 1) * BAR_HEIGHT)
            medians.append(middle)
            below.append(middle - values[0])
            above.append(values[-1] - middle)
    options = {"height": BAR_HEIGHT * 0.9, "color": COLOURS[case], "label": title, "error_kw": {"linewidth": 0.8}}
    bars = panel.barh(positions, medians, xerr=[below, above], **options)  # type: ignore[attr-defined]
    panel.bar_label(bars, fmt="%.1f", padding=4, fontsize=7)  # type: ignore[attr-defined]
