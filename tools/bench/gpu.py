"""hloc on a GPU beside torch and JAX, in turns within one run; one command makes the table.

    python -m tools.bench.gpu [--markdown tools/bench/results/gpu.md] [--target cuda:0] [--only GLOB] [--rounds 7]
    python -m tools.bench.gpu --small --target cuda-emulated     # only whether it is all right, without a GPU

Results are held against NumPy's before anything is timed. What moves memory is measured against the speed at which the
driver copies within the GPU; products against torch, which calls cuBLAS, attention against torch's flash attention.
torch and JAX are left out where they are not installed, or have no GPU. A time is that of one of many calls, one begun
behind the other, with a wait at the end; rounds of all contestants alternate. Exit status 1 if a result is wrong.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import hloc
from hloc.errors import HloError
from hloc.host import gpus
from hloc.options import Options
from hloc.runtime.cuda_gpu import gpu_of_process
from tools.bench.gpu_workloads import MEMORY, Arrays, Workload, small_sum, workloads

_SECONDS = 0.05
"""How long the calls of one round take together, about."""

_COPIED = 1 << 30

OURS, TORCH, JAX = "hloc", "torch", "JAX"

GOALS = {"product": (TORCH, 0.8), "attention": (TORCH, 0.6)}
"""By the first word of a workload: part of a peer's speed. What moves memory is to reach 0.9 of the copy's speed."""

MEMORY_GOAL = 0.9


class Contestant:
    """Something that runs a workload: `call` begins a run, `wait` ends when all begun are done."""

    def __init__(self, call: Callable[[], Any], wait: Callable[[], Any]):
        self.call, self.wait = call, wait

    def seconds(self, count: int) -> float:
        """Of one of so many calls."""
        self.wait()
        start = time.perf_counter()
        for _ in range(count):
            result = self.call()
        self.wait()
        elapsed = time.perf_counter() - start
        del result
        return elapsed / count

    def calls(self) -> int:
        """How many calls take about _SECONDS."""
        self.seconds(2)
        return max(1, min(10_000, round(_SECONDS / max(self.seconds(3), 1e-7))))


@dataclass
class Row:
    """Seconds of a run by contestant, why there is none of hloc's, and what is wrong with its result."""

    workload: Workload
    seconds: dict[str, float] = field(default_factory=dict)
    fault: str | None = None

    def speed(self, name: str) -> float | None:
        """GB/s or TFLOP/s."""
        scale = 1e9 if self.workload.unit == MEMORY else 1e12
        return self.workload.work / self.seconds[name] / scale if name in self.seconds else None


# Contestants


class Ours:
    """hloc: arguments and results in the GPU's memory where there is one."""

    def __init__(self, target: str):
        self.target = target
        self.is_gpu = target.partition(":")[0] == "cuda"
        self.number = int(target.partition(":")[2] or 0) if self.is_gpu else 0

    def contestant(self, workload: Workload, arrays: Arrays) -> tuple[Contestant, np.ndarray]:
        """What runs a workload, and its first result."""
        run = hloc.compile(workload.text, self.target, Options(cache=False), workload.name)
        given = run.to_device(*arrays) if self.is_gpu else arrays
        result = np.asarray(run(*given))
        wait = gpu_of_process(self.number).synchronize if self.is_gpu else lambda: None
        return Contestant(lambda: run(*given), wait), result

    def give_back(self) -> None:
        """Lets the others have the memory of what is over."""
        gc.collect()
        if self.is_gpu:
            gpu_of_process(self.number).release_unused()

    def copy_speed(self) -> float | None:
        """Bytes a second, read and written, as the driver copies them; None without a GPU."""
        if not self.is_gpu:
            return None
        gpu = gpu_of_process(self.number)
        source, target = gpu.allocate(_COPIED, "the copy's source"), gpu.allocate(_COPIED, "the copy")
        copy = Contestant(lambda: gpu.call("cuMemcpyDtoDAsync", target, source, _COPIED, gpu.stream), gpu.synchronize)
        count = copy.calls()
        seconds = min(copy.seconds(count) for _ in range(5))
        gpu.free(source)
        gpu.free(target)
        self.give_back()
        return 2 * _COPIED / seconds


class Torch:
    """torch, on the same GPU."""

    def __init__(self, number: int):
        import torch

        if not torch.cuda.is_available():
            raise ImportError("torch has no GPU")
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        self.torch, self.device = torch, torch.device("cuda", number)
        self.version = torch.__version__

    def contestant(self, workload: Workload, arrays: Arrays) -> Contestant:
        tensors = [self._tensor(array) for array in arrays]
        call = workload.torch(self.torch)
        call(*tensors)
        return Contestant(lambda: call(*tensors), lambda: self.torch.cuda.synchronize(self.device))

    def _tensor(self, array: np.ndarray) -> Any:
        if array.dtype.name == "bfloat16":
            return self.torch.from_numpy(array.view(np.int16)).to(self.device).view(self.torch.bfloat16)
        return self.torch.from_numpy(array).to(self.device)


class Jax:
    """JAX, on the same GPU."""

    def __init__(self, number: int):
        import jax

        found = [device for device in jax.devices() if device.platform in ("gpu", "cuda")]
        if not found:
            raise ImportError("JAX has no GPU")
        self.jax, self.device, self.version = jax, found[number], jax.__version__

    def contestant(self, workload: Workload, arrays: Arrays) -> Contestant:
        given = [self.jax.device_put(array, self.device) for array in arrays]
        call = self.jax.jit(workload.jax(self.jax.numpy))
        last = [call(*given)]

        def run() -> None:
            last[0] = call(*given)

        return Contestant(run, lambda: last[0].block_until_ready())


def peers(number: int, is_gpu: bool) -> dict[str, Torch | Jax]:
    """Those that are installed and have a GPU; the others are told."""
    found: dict[str, Torch | Jax] = {}
    for name, make in ((TORCH, Torch), (JAX, Jax)) if is_gpu else ():
        try:
            found[name] = make(number)
        except Exception as error:  # a library that fails to start is one that is not there
            print(f"without {name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}", flush=True)
    return found


# Measuring


def fault(workload: Workload, arrays: Arrays, result: np.ndarray) -> str | None:
    """What is wrong with a result, where it is looked at."""
    places, right = workload.expected(arrays)
    got, right = np.asarray(result[places], np.float64), np.asarray(right, np.float64)
    if got.shape != right.shape:
        return f"the result is {list(result.shape)}"
    worst = float(np.max(np.abs(got - right), initial=0.0))
    allowed = workload.tolerance * float(np.max(np.abs(right), initial=0.0))
    return None if worst <= allowed else f"off by {worst:.3g}, allowed is {allowed:.3g}"


def measured(workload: Workload, ours: Ours, others: dict[str, Torch | Jax], rounds: int) -> Row:
    """Medians of alternating rounds."""
    row = Row(workload)
    arrays = workload.arguments(np.random.default_rng(0))
    try:
        contestant, result = ours.contestant(workload, arrays)
    except HloError as error:
        row.fault = f"hloc: {error.message}"
        return row
    row.fault = fault(workload, arrays, result)
    if row.fault or not ours.is_gpu:
        return row
    contestants = {OURS: contestant}
    for name, other in others.items():
        try:
            contestants[name] = other.contestant(workload, arrays)
        except Exception as error:  # a peer that has no memory left, for instance
            print(f"  {name} does not run {workload.name}: {str(error).splitlines()[0]}", flush=True)
    counts = {name: each.calls() for name, each in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, each in contestants.items():
            times[name].append(each.seconds(counts[name]))
    row.seconds = {name: statistics.median(each) for name, each in times.items()}
    return row


def verdict(row: Row, copy_speed: float | None) -> str:
    """The goal of a row, and whether it is met; nothing if there is no measure."""
    name, part = GOALS.get(row.workload.name.split()[0], (None, MEMORY_GOAL))
    speed = row.speed(OURS)
    base = row.speed(name) if name else copy_speed and copy_speed / 1e9
    if speed is None or not base:
        return ""
    reached = speed / base
    return f"{reached:.0%} of {name or 'the copy'} ({'met' if reached >= part else 'missed'}: {part:.0%})"


def line(row: Row, copy_speed: float | None) -> str:
    """A row of the table."""
    cells = [row.workload.name, row.workload.unit]
    for name in (OURS, TORCH, JAX):
        speed = row.speed(name)
        cells.append("" if speed is None else f"{speed:.1f}")
    for name in (TORCH, JAX):
        known = name in row.seconds and OURS in row.seconds
        cells.append(f"{row.seconds[name] / row.seconds[OURS]:.2f}" if known else "")
    return "| " + " | ".join([*cells, row.fault or verdict(row, copy_speed) or "right"]) + " |"


_HEAD = "| workload | unit | hloc | torch | JAX | hloc/torch | hloc/JAX | verdict |\n|---|---|---|---|---|---|---|---|"


def launch_lines(ours: Ours, others: dict[str, Torch | Jax], rounds: int) -> list[str]:
    """Microseconds of a small call: begun behind others, and waited for."""
    workload = small_sum(1024)
    arrays = workload.arguments(np.random.default_rng(0))
    contestants = {OURS: ours.contestant(workload, arrays)[0]}
    contestants |= {name: other.contestant(workload, arrays) for name, other in others.items()}
    lines = ["| a call of f32[1024] | begun, µs | waited for, µs |", "|---|---|---|"]
    for name, each in contestants.items():
        each.seconds(1000)
        begun = min(each.seconds(2000) for _ in range(rounds))
        waited = min(statistics.fmean(each.seconds(1) for _ in range(200)) for _ in range(rounds))
        lines.append(f"| {name} | {begun * 1e6:.1f} | {waited * 1e6:.1f} |")
    return lines


def surroundings(ours: Ours, others: dict[str, Torch | Jax]) -> list[str]:
    """What the figures are of."""
    gpu = gpus.gpu(ours.number)
    driver = ".".join(map(str, gpus.driver_version()))
    versions = "".join(f", {name} {other.version}" for name, other in others.items())
    return [
        f"{gpu.name} ({gpu.arch}, {gpu.memory / 2**30:.0f} GiB), driver for CUDA {driver}",
        f"hloc {hloc.__version__}{versions}",
        f"`{' '.join(['python -m tools.bench.gpu', *sys.argv[1:]])}`",
    ]


def report(rows: list[Row], ours: Ours, others: dict[str, Torch | Jax], copy_speed: float, launches: list[str]) -> str:
    """The whole of it as markdown."""
    head = "\n\n".join(["# hloc on a GPU", *surroundings(ours, others)])
    copy = f"The driver copies at {copy_speed / 1e9:.0f} GB/s, read and written. Above 1, hloc is the faster."
    table = "\n".join([_HEAD, *(line(row, copy_speed) for row in rows)])
    return f"{head}\n\n{copy}\n\n{table}\n\n" + "\n".join(launches) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.bench.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--target", default="cuda", help="cuda:N, or cuda-emulated with --small")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="file for the table")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of workloads")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="sizes that only show whether all is right")
    options = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of the GPU's memory
    ours = Ours(options.target)
    try:
        copy_speed = ours.copy_speed()
        others = peers(ours.number, ours.is_gpu and not options.small)
    except HloError as error:
        sys.exit(error.message)
    print(_HEAD, flush=True)
    rows = []
    for workload in workloads(options.small):
        if fnmatch.fnmatch(workload.name, options.only):
            rows.append(measured(workload, ours, others, options.rounds))
            ours.give_back()
            print(line(rows[-1], copy_speed), flush=True)
    if copy_speed is not None:
        text = report(rows, ours, others, copy_speed, launch_lines(ours, others, options.rounds))
        print(f"\n{text}")
        if options.markdown:
            options.markdown.write_text(text, encoding="utf-8")
    sys.exit(1 if any(row.fault for row in rows) else 0)


if __name__ == "__main__":
    main()
