"""Write the kernels of every program of a folder for several GPUs, and let ptxas assemble them.

    python -m tools.ptx FOLDER [--arch sm_80,sm_90a,sm_120] [--only GLOB] [--jobs 2] [--ptxas PATH] [--kernels]

FOLDER holds programs, `NAME.hlo`; those called `NAME.opt.hlo` are left out unless GLOB names them. A line a program
and architecture that fails, then what ptxas warns of and the kernels that spill registers, then a table: kernels, the
most registers, bytes spilled, and seconds that hloc and ptxas took. `--kernels` prints every kernel. It takes no GPU.

Exit status 1 if a program does not compile, or ptxas refuses its code.
"""

from __future__ import annotations

import argparse
import fnmatch
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hloc.api import compile_program
from hloc.codegen.targets.ptxas import KernelUse, assemble, find_ptxas, version

ARCHITECTURES = ("sm_80", "sm_90a", "sm_120")


@dataclass(frozen=True)
class Outcome:
    """What became of a program for one architecture; `failure` is None if ptxas has taken it."""

    name: str
    arch: str
    failure: str | None
    kernels: tuple[KernelUse, ...] = ()
    warnings: tuple[str, ...] = ()
    compile_seconds: float = 0.0
    ptxas_seconds: float = 0.0

    @property
    def spilling(self) -> list[KernelUse]:
        return [kernel for kernel in self.kernels if kernel.spill_stores or kernel.spill_loads]


def assembled(path: Path, arch: str, tool: str | None) -> Outcome:
    """One program for one architecture."""
    name, start = path.name.removesuffix(".hlo"), time.perf_counter()
    try:
        code = compile_program(path, arch).device
        middle = time.perf_counter()
        made = assemble(code.image, arch, tool)
        seconds = middle - start, time.perf_counter() - middle
        return Outcome(name, arch, None, made.kernels, made.warnings, *seconds)
    except Exception as error:  # whatever a program does is a row of the table
        return Outcome(name, arch, f"{type(error).__name__}: {error}")


def programs(folder: Path, only: str) -> list[Path]:
    """The programs of a folder, in order of their names."""
    found = sorted(folder.glob("*.hlo"))
    optimized = only.endswith(".opt")
    return [
        path
        for path in found
        if path.name.endswith(".opt.hlo") == optimized and fnmatch.fnmatch(path.name.removesuffix(".hlo"), only)
    ]


def run_all(paths: list[Path], archs: list[str], tool: str | None, jobs: int) -> Iterator[Outcome]:
    """The outcomes in order of programs, each program's architectures together."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        tasks = [pool.submit(assembled, path, arch, tool) for path in paths for arch in archs]
        for task in tasks:
            yield task.result()


def show(outcome: Outcome, every_kernel: bool) -> None:
    """A failure, and the kernels asked for."""
    if outcome.failure is not None:
        print(f"{outcome.name:40} {outcome.arch:8} FAIL  {outcome.failure.splitlines()[0][:300]}", flush=True)
    for warning in outcome.warnings:
        print(f"{outcome.name:40} {outcome.arch:8} {warning[:300]}", flush=True)
    for use in outcome.kernels if every_kernel else outcome.spilling:
        spills = f"{use.spill_stores} + {use.spill_loads} bytes spilled"
        print(f"{outcome.name:40} {outcome.arch:8} {use.name}: {use.registers} registers, {spills}", flush=True)


def report(outcomes: list[Outcome], archs: list[str]) -> int:
    """A line an architecture; the number of failures."""
    heads = ("programs", "failed", "kernels", "spilling", "registers", "hloc s", "ptxas s")
    print(f"\n{'':8}" + "".join(f"{head:>10}" for head in heads))
    for arch in archs:
        rows = [outcome for outcome in outcomes if outcome.arch == arch]
        kernels = [kernel for row in rows for kernel in row.kernels]
        failed = sum(row.failure is not None for row in rows)
        spilling = sum(len(row.spilling) for row in rows)
        most = max((kernel.registers for kernel in kernels), default=0)
        counts = (len(rows), failed, len(kernels), spilling, most)
        seconds = (sum(row.compile_seconds for row in rows), sum(row.ptxas_seconds for row in rows))
        print(f"{arch:8}" + "".join(f"{n:10}" for n in counts) + "".join(f"{s:10.1f}" for s in seconds))
    return sum(outcome.failure is not None for outcome in outcomes)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.ptx", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default=",".join(ARCHITECTURES), metavar="A,B", help="architectures")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of programs")
    parser.add_argument("--jobs", type=int, default=2, help="programs at a time")
    parser.add_argument("--ptxas", metavar="PATH", help="the ptxas to use, if not the first that is found")
    parser.add_argument("--kernels", action="store_true", help="print what every kernel takes")
    options = parser.parse_args()
    tool = options.ptxas or find_ptxas()
    if tool is None:
        sys.exit("no ptxas: pip install nvidia-cuda-nvcc-cu12")
    print(f"ptxas {version(tool)}", flush=True)
    archs, paths = options.arch.split(","), programs(options.folder, options.only)
    if not paths:
        sys.exit(f"{options.folder} has no program {options.only}.hlo")
    outcomes = []
    for outcome in run_all(paths, archs, options.ptxas, options.jobs):
        outcomes.append(outcome)
        show(outcome, options.kernels)
    sys.exit(1 if report(outcomes, archs) else 0)


if __name__ == "__main__":
    main()
