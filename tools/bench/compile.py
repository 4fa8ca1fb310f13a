"""Where a compile's time goes: parsing, hloc's passes and their checks, code generation, LLVM.

    python -m tools.bench.compile FOLDER [--programs softmax attention] [--rounds 3] [--top 20]

For each program of a folder (`*.hlo`, but not `*.opt.hlo`) the best of the rounds, in milliseconds of this process's
processor time, and the ratio of the whole HLO pipeline, checks included, to LLVM. Those with the highest ratio come
first, then the largest program and the sums. With one program the time of each pass follows. Routines that programs
have in common are compiled for the first of them.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hloc import api
from hloc.codegen.compile import compile_module
from hloc.codegen.targets.target import Target, target_named
from hloc.errors import HloError
from hloc.options import Options
from hloc.passes.pipeline import Report, run_pipeline
from hloc.records import replace

STAGES = ("parse", "passes", "checks", "codegen", "llvm")
Lower = Callable[[str, Options], str | bytes]


@dataclass(frozen=True)
class Timed:
    """Milliseconds of each of STAGES; `report` is of the same compile."""

    name: str
    instructions: int
    ms: dict[str, float]
    report: Report

    @property
    def pipeline(self) -> float:
        return self.ms["passes"] + self.ms["checks"]

    @property
    def ratio(self) -> float:
        return self.pipeline / self.ms["llvm"]

    def row(self) -> str:
        cells = " ".join(f"{self.ms[stage]:9.1f}" for stage in STAGES)
        return f"{self.name:44} {self.instructions:7} {cells} {self.ratio:8.2f}"


def timed(path: Path, target: str) -> Timed:
    """One compile. Raises HloError where the program does not compile."""
    machine = target_named(target)
    clock = time.process_time
    gc.collect()
    marks = [clock()]
    module = api.parse(path)
    marks.append(clock())
    count = sum(1 for _ in module.instructions())
    report = run_pipeline(module, machine.pipeline, Options())
    marks.append(clock())
    lowering: list[float] = []
    compile_module(module, _watched(machine, lowering), Options(cache=False))
    marks.append(clock())
    parse, pipeline, rest = ((b - a) * 1e3 for a, b in zip(marks, marks[1:]))
    passes = pipeline * report.seconds / (report.seconds + report.checks)
    llvm = sum(lowering) * 1e3
    ms = dict(zip(STAGES, (parse, passes, pipeline - passes, rest - llvm, llvm), strict=True))
    return Timed(path.stem, count, ms, report)


def _watched(machine: Target, seconds: list[float]) -> Target:
    """The target with processor seconds put down for each text that LLVM gets."""

    def watched(lower: Lower) -> Lower:
        def lowered(llvm_ir: str, options: Options) -> str | bytes:
            start = time.process_time()
            try:
                return lower(llvm_ir, options)
            finally:
                seconds.append(time.process_time() - start)

        return lowered

    return replace(machine, stages={stage: watched(lower) for stage, lower in machine.stages.items()})


def best(path: Path, target: str, rounds: int) -> Timed:
    """The compile of several whose pipeline took least, each stage's time the least of all rounds."""
    runs = [timed(path, target) for _ in range(rounds)]
    least = min(runs, key=lambda run: run.pipeline)
    return Timed(
        least.name,
        least.instructions,
        {stage: min(run.ms[stage] for run in runs) for stage in STAGES},
        least.report,
    )


def table(rows: Sequence[Timed], top: int) -> str:
    head = f"{'':44} {'instr.':>7} " + " ".join(f"{stage:>9}" for stage in STAGES) + f" {'ratio':>8}"
    lines = [head, *(row.row() for row in sorted(rows, key=lambda row: -row.ratio)[:top])]
    largest = max(rows, key=lambda row: row.instructions)
    total = {stage: sum(row.ms[stage] for row in rows) for stage in STAGES}
    every = Timed("all", sum(row.instructions for row in rows), total, Report())
    lines += ["the largest:", largest.row(), every.row()]
    over = sum(row.ratio > 1 for row in rows)
    ratio = statistics.median(row.ratio for row in rows)
    return "\n".join([*lines, f"{len(rows)} programs: median ratio {ratio:.2f}, {over} above 1"])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--programs", nargs="*", default=[], metavar="NAME", help="these alone")
    options.add_argument("--target", default="cpu")
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--top", type=int, default=20, help="rows to print")
    chosen = options.parse_args()
    paths = [path for path in sorted(chosen.folder.glob("*.hlo")) if not path.name.endswith(".opt.hlo")]
    rows = []
    for path in paths:
        if chosen.programs and path.stem not in chosen.programs:
            continue
        try:
            if not rows:
                timed(path, chosen.target)  # loads what all need
            rows.append(best(path, chosen.target, chosen.rounds))
        except HloError as error:
            print(f"{path.stem} does not compile: {error.message}")
    if not rows:
        options.error("there is no such program")
    print(table(rows, chosen.top))
    if len(rows) == 1:
        print(rows[0].report.table())


if __name__ == "__main__":
    main()
