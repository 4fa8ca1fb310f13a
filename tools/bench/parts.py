"""Where a program's time goes: each kernel's calls, microseconds, share, and the least time that its work can take.

    python -m tools.bench.parts NAME [--top N] [--rounds N] [--threads N] [--corpus FOLDER]
    python -m tools.bench.parts FILE.hlo

NAME is a workload, or `corpus/NAME` with a folder; a file gets random inputs. Around every call of a kernel in the
program's LLVM text the processor's time stamps are read and added up, on the calling thread: a kernel that several
threads share counts from its start to its end. Kept is the least of all rounds. A floor is that of
`tools.bench.limits`, by the kernel's bytes or by its arithmetic, whichever takes longer; `of floor` is the time by it.
Then come what lies between kernels (loops, calls, copies), and a whole call from Python, which on a busy machine
takes longer than its parts. Time stamps are x86-64's.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hloc import api
from hloc.arrays import random_inputs
from hloc.codegen.compile import compile_module
from hloc.codegen.program import ENTRY, Program
from hloc.codegen.targets.target import target_named
from hloc.options import Options
from hloc.passes.pipeline import run_pipeline
from hloc.records import replace
from hloc.runtime.executable import Executable
from tools.bench.limits import Gauge, Limits
from tools.bench.tasks import lower, task_named

_CALLS = re.compile(r'\s+(?:%\S+ = )?call \w+ @"?((?:kernel|computation)\.[^"(]+)"?\(')
_STAMP = "call i64 @llvm.readcyclecounter()"
_MOST = 1 << 14
_LOOKS = 5


class Clock:
    """What timed code adds to: for each number in `names` time stamps spent, calls, and the stamp of the last call.

    Names are those of kernels, and that of the entry's computation.
    """

    def __init__(self) -> None:
        self.words = np.zeros((_MOST, 3), np.int64)
        self.names: dict[str, int] = {}

    def timed(self, llvm_ir: str) -> str:
        """The text with time stamps around what the entry calls, and around the kernels that computations call."""
        lines, called, places = [], "none", 0
        for line in llvm_ir.split("\n"):
            if line.startswith("define "):
                called = "computation" if f"@{ENTRY}(" in line else "kernel" if "@computation." in line else "none"
            call = _CALLS.match(line)
            if call is None or not call[1].startswith(called):
                lines.append(line)
                continue
            number = self.names.setdefault(call[1], len(self.names))
            lines += self._around(line, number, f"%parts.{places}")
            places += 1
        return "\n".join([*lines, "declare i64 @llvm.readcyclecounter()"])

    def _around(self, line: str, number: int, name: str) -> list[str]:
        start = self.words[number].ctypes.data
        spent, calls, last = (f"ptr inttoptr (i64 {start + 8 * word} to ptr)" for word in range(3))
        return [
            f"  {name}.begin = {_STAMP}",
            line,
            f"  {name}.end = {_STAMP}",
            f"  {name}.spent = sub i64 {name}.end, {name}.begin",
            f"  {name}.before = load volatile i64, {spent}",
            f"  {name}.sum = add i64 {name}.before, {name}.spent",
            f"  store volatile i64 {name}.sum, {spent}",
            f"  {name}.calls = load volatile i64, {calls}",
            f"  {name}.more = add i64 {name}.calls, 1",
            f"  store volatile i64 {name}.more, {calls}",
            f"  store volatile i64 {name}.begin, {last}",
        ]


@dataclass(frozen=True)
class Part:
    """Seconds of all `calls` of a kernel in a call of the program, the least they can take, and what it stands for."""

    name: str
    calls: int
    seconds: float
    floor: float = 0.0
    of: str = ""

    def row(self, total: float) -> str:
        floor = f"{self.floor * 1e6:10.1f} {self.seconds / self.floor:8.1f}" if self.floor else f"{'':19}"
        figures = f"{self.calls:7} {self.seconds * 1e6:11.1f} {self.seconds / total:6.1%} {floor}"
        return f"{self.name[:44]:44} {figures}  {self.of}".rstrip()


@dataclass(frozen=True)
class Parts:
    """The kernels of a program, those that take longest first; seconds between them, and of a call from Python.

    Each is the least of all rounds: their sum is at most a call's.
    """

    parts: Sequence[Part]
    between: float
    seconds: float

    @property
    def native(self) -> float:
        """Seconds in native code."""
        return sum(part.seconds for part in self.parts) + self.between

    def table(self, top: int) -> str:
        rows, rest = list(self.parts[:top]), self.parts[top:]
        if rest:
            sums = (sum(getattr(part, name) for part in rest) for name in ("calls", "seconds", "floor"))
            rows.append(Part(f"{len(rest)} others", *sums))
        rows.append(Part("between kernels", 1, self.between))
        rows.append(Part("all of these", 1, self.native, sum(part.floor for part in self.parts)))
        rows.append(Part("a call from Python", 1, self.seconds))
        head = f"{'kernel':44} {'calls':>7} {'us':>11} {'share':>6} {'floor us':>10} {'of floor':>8}"
        return "\n".join([head, *(row.row(self.native) for row in rows)])


def parts_of(text: str | Path, inputs: Sequence[np.ndarray] | None, rounds: int, limits: Limits) -> Parts:
    """The parts of a program's time by as many threads as `limits` are of. Without inputs, of random ones."""
    clock = Clock()
    program = _compiled(text, clock, Options(num_threads=limits.threads, cache=False))
    given = random_inputs(program, 0) if inputs is None else inputs
    seconds, ticks, between, calls = _rounds(Executable(program), given, clock, rounds)
    costs = {cost.name: cost for cost in program.cost.instructions}
    parts = []
    for kernel in program.kernels:
        number = clock.names.get(kernel.name)
        if number is None or not calls[number]:
            continue
        cost = costs[kernel.instructions[0]]
        kind = "s8" if cost.integer_ops > cost.flops else "f32"
        floor = limits.floor(cost.bytes_read, cost.bytes_written, max(cost.flops, cost.integer_ops), kind)
        of = f"{cost.opcode} {cost.op_name}"
        parts.append(Part(kernel.name, int(calls[number]), float(ticks[number]), calls[number] * floor, of))
    return Parts(sorted(parts, key=lambda part: -part.seconds), between, seconds)


def _compiled(text: str | Path, clock: Clock, options: Options) -> Program:
    target = target_named("cpu")
    stages = target.stages | {"obj": lambda llvm_ir, given: target.stages["obj"](clock.timed(llvm_ir), given)}
    module = api.parse(text)
    run_pipeline(module, target.pipeline, options)
    return compile_module(module, replace(target, stages=stages), options)


def _rounds(
    executable: Executable, given: Sequence[np.ndarray], clock: Clock, rounds: int
) -> tuple[float, np.ndarray, float, np.ndarray]:
    """Least seconds of a call from Python, by the numbers of `clock.names`, and between kernels; calls by number."""
    begins, seconds, found = [], [], []
    for _ in range(rounds + 2):  # two to warm up
        clock.words[:] = 0
        begins.append(time.perf_counter())
        executable.execute(*given)
        seconds.append(time.perf_counter() - begins[-1])
        found.append(clock.words[: len(clock.names)].copy())
    entry = next(number for name, number in clock.names.items() if name.startswith("computation."))
    rate = (found[-1][entry, 2] - found[1][entry, 2]) / (begins[-1] - begins[1])
    ticks = np.array([words[:, 0] for words in found[2:]])
    between = 2 * ticks[:, entry] - ticks.sum(axis=1)
    return min(seconds[2:]), ticks.min(axis=0) / rate, float(between.min() / rate), found[-1][:, 1]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program", metavar="NAME or FILE.hlo")
    options.add_argument("--top", type=int, default=20)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    options.add_argument("--corpus", type=Path, metavar="FOLDER", help="its programs too, named corpus/NAME")
    chosen = options.parse_args()
    gauge = Gauge(chosen.threads)
    for _ in range(_LOOKS):
        gauge.look()
    with TemporaryDirectory() as folder:
        text, inputs = Path(chosen.program), None
        if text.suffix != ".hlo":
            if chosen.corpus is None:
                lower(chosen.program, Path(folder))
            task = task_named(chosen.program, Path(folder), chosen.corpus)
            text, inputs = task.text, task.inputs
        print(parts_of(text, inputs, chosen.rounds, gauge.limits).table(chosen.top))


if __name__ == "__main__":
    main()
