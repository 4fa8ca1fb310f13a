"""Compare what hloc makes of programs with what XLA made of them: kernels, bytes moved, temporary memory.

    python -m tools.compare_xla FOLDER [--only GLOB] [--json OUT] [--worst 15]

FOLDER holds NAME.hlo beside NAME.opt.hlo, the same program as XLA compiled it: scheduled and fused. Both
optimized modules go through the same functions:

* kernels launched in a run: every instruction that is not only a name, in loops as often as they turn, of a
  conditional's branches the largest; and every copy that has to be made though the text has none;
* bytes read and written by these kernels;
* peak temporary memory, in the order of the instructions.

Programs that neither can tell apart (both figures 0) count as 1.0 in the shares, and not in the medians.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import hloc
from hloc.analysis.memory import memory_of
from hloc.analysis.run_counts import call_counts, is_kernel
from hloc.analysis.traffic import traffic
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module

FIGURES = ("kernels", "bytes", "peak")


@dataclass
class Figures:
    """Of one module: kernels launched, bytes moved, bytes of temporary memory at the peak."""

    kernels: float
    bytes: float
    peak: float


@dataclass
class Row:
    """One program: our figures and XLA's."""

    name: str
    ours: Figures
    theirs: Figures
    seconds: float
    ratios: dict[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for figure in FIGURES:
            one, other = getattr(self.ours, figure), getattr(self.theirs, figure)
            self.ratios[figure] = None if one == other == 0 else one / other if other else float("inf")


def figures_of(module: Module) -> Figures:
    """What a scheduled module costs in one run."""
    plans = memory_of(module)
    totals: dict[Computation, tuple[float, float]] = {}
    for computation, plan in plans.items():
        kernels = moved = 0.0
        for copy in plan.copies:
            kernels, moved = kernels + 1, moved + 2 * copy.bytes
        for instruction in computation:
            more = _cost(instruction, totals)
            kernels, moved = kernels + more[0], moved + more[1]
        totals[computation] = kernels, moved
    kernels, moved = totals[module.entry]
    return Figures(kernels, moved, plans[module.entry].peak)


def _cost(instruction: Instruction, totals: dict[Computation, tuple[float, float]]) -> tuple[float, float]:
    """(kernels, bytes) of one execution of an instruction."""
    if is_kernel(instruction):
        return 1, traffic(instruction).bytes
    runs = call_counts(instruction)
    if instruction.opcode == "conditional":
        return max(totals[branch][0] for branch in runs), max(totals[branch][1] for branch in runs)
    parts = [(times * totals[callee][0], times * totals[callee][1]) for callee, times in runs.items()]
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def compare(path: Path, optimized: Path) -> Row:
    start = time.perf_counter()
    ours = hloc.optimize(path)
    seconds = time.perf_counter() - start
    return Row(path.name.removesuffix(".hlo"), figures_of(ours), figures_of(hloc.parse(optimized)), seconds)


def pairs(folder: Path, only: str) -> list[tuple[Path, Path]]:
    found = []
    for optimized in sorted(folder.glob("*.opt.hlo")):
        name = optimized.name.removesuffix(".opt.hlo")
        if fnmatch.fnmatch(name, only) and (folder / f"{name}.hlo").exists():
            found.append((folder / f"{name}.hlo", optimized))
    return found


def _shown(ratio: float | None) -> str:
    return "  -  " if ratio is None else f"{ratio:5.2f}"


def table(rows: list[Row]) -> str:
    lines = [f"{'program':36} {'kernels':>24} {'bytes':>32} {'peak':>32}"]
    for row in rows:
        cells = [f"{row.name:36}"]
        for figure, width in zip(FIGURES, (8, 12, 12), strict=True):
            one, other = getattr(row.ours, figure), getattr(row.theirs, figure)
            cells.append(f"{one:{width}.0f} {other:{width}.0f} {_shown(row.ratios[figure])}")
        lines.append("  ".join(cells))
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    lines = [f"{len(rows)} programs; ours over XLA's:"]
    for figure in FIGURES:
        known = [row.ratios[figure] for row in rows if row.ratios[figure] is not None]
        every = [1.0 if row.ratios[figure] is None else row.ratios[figure] for row in rows]
        if not known:
            lines.append(f"{figure:8} nothing to compare")
            continue
        shares = [f"at most {limit}: {sum(r <= limit for r in every) / len(every):6.1%}" for limit in (1.0, 0.9)]
        lines.append(f"{figure:8} median {statistics.median(known):.2f}, {', '.join(shares)}")
    return "\n".join(lines)


def worst(rows: list[Row], count: int) -> str:
    lines = []
    for figure in FIGURES:
        bad = [row for row in rows if (row.ratios[figure] or 0) > 1.0]
        bad.sort(key=lambda row: -row.ratios[figure])
        lines.append(f"\n{figure}: {len(bad)} programs worse than XLA's")
        for row in bad[:count]:
            one, other = getattr(row.ours, figure), getattr(row.theirs, figure)
            lines.append(f"  {row.name:40} {one:14.0f} {other:14.0f} {_shown(row.ratios[figure])}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", help="names of programs to compare, as a pattern")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--worst", type=int, default=15, help="how many of the worst programs to list")
    options = parser.parse_args()
    rows = []
    failed = []
    for path, optimized in pairs(options.folder, options.only):
        try:
            rows.append(compare(path, optimized))
        except hloc.HloError as error:
            failed.append(f"{path.name}: {error}")
    print(table(rows))
    print(summary(rows))
    print(worst(rows, options.worst))
    for line in failed:
        print("not compared:", line)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
