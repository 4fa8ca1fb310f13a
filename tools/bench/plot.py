"""A picture of a run: hloc's ratio to the best peer, workload by workload, with the goals."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tools.bench.ratios import Row

_COLOURS = {"stretch": "#1b7837", "bar": "#7fbf7b", "missed": "#af8dc3"}


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Write the picture, in the format of its name. Without matplotlib there is a message, and no picture."""
    try:
        import matplotlib
    except ImportError:
        print(f"no picture {path}: matplotlib is not installed", file=sys.stderr)
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = sorted((row for row in rows if row.verdict), key=lambda row: row.to_best.median)
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.2 * len(rows)), layout="constrained")
    for place, row in enumerate(rows):
        ratio = row.to_best
        axes.barh(place, ratio.median - 1, left=1, color=_COLOURS[row.verdict])
        axes.plot([ratio.low, ratio.high], [place, place], color="black", linewidth=0.8)
        axes.plot(row.goal.bar, place, "k|", row.goal.stretch, place, "k.", markersize=6)
    axes.set_yticks(range(len(rows)), [f"{row.outcome.name} ({row.best})" for row in rows], fontsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("time of hloc / time of the best peer; | bar, . stretch, line: quartiles of the rounds")
    axes.margins(y=0.01)
    figure.savefig(path)
    return True
