"""What a worker is told to run: a workload, or a program of a corpus folder, as text with inputs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np

from hloc.lazy import lazy
from tools.bench.workloads import WORKLOADS
from tools.bench.workloads.workload import Workload

corpus = lazy("tools.corpus")
dtypes = lazy("hloc.ir.dtypes")

PREFIX = "corpus/"
"""Of the names of tasks that are programs of a corpus."""

NO_PROGRAM = "has no such program"
"""Of a peer that does not take part in a task."""

WARM_UP = "HloModule warm_up\nENTRY main {\n  ROOT c = f32[] constant(0)\n}\n"
"""What a compiler gets first, so that what it loads then is not in the time of a task."""

@dataclass(frozen=True)
class Task:
    """A program to prepare. `workload` is None for a program of a corpus, whose results `check` judges.

    `result_types` are shapes and element types of the results' leaves, for programs of a corpus.
    """

    name: str
    text: Path
    inputs: list[np.ndarray]
    stablehlo: Path | None = None
    workload: Workload | None = None
    result_types: Sequence[tuple[tuple[int, ...], np.dtype]] = ()
    check: Callable[[list[np.ndarray]], str | None] | None = None


class Stopwatch:
    """Seconds of a block, by the clock and of all processors together, children included."""

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter(), _processor_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start[0]
        self.cpu_seconds = _processor_seconds() - self._start[1]

    def facts(self, name: str) -> dict[str, float]:
        return {f"{name}_seconds": self.seconds, f"{name}_cpu_seconds": self.cpu_seconds}


def _processor_seconds() -> float:
    return time.process_time() + sum(os.times()[2:4])


def lower(name: str, folder: Path) -> dict[str, int]:
    """Write a workload's HLO text and StableHLO; the bytes that it has to read and to write."""
    import jax

    workload = WORKLOADS[name]
    inputs = workload.make_inputs()
    jax.config.update("jax_enable_x64", any(array.dtype == np.float64 for array in inputs))
    lowered = jax.jit(workload.jax).lower(*inputs)
    (folder / f"{name}.hlo").write_text(lowered.as_text(dialect="hlo"), encoding="utf-8")
    (folder / f"{name}.mlir").write_text(lowered.as_text(dialect="stablehlo"), encoding="utf-8")
    results = jax.tree_util.tree_leaves(lowered.out_info)
    read = workload.read_bytes or sum(array.nbytes for array in inputs)
    return {"read_bytes": read, "write_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in results)}


def task_named(name: str, folder: Path, programs: Path | None) -> Task:
    """The task, whose text `lower` has written to `folder`, or which lies in the folder of corpus programs."""
    if name.startswith(PREFIX):
        return _program(name, programs)
    workload = WORKLOADS[name]
    return Task(name, folder / f"{name}.hlo", workload.make_inputs(), folder / f"{name}.mlir", workload)


def chosen(patterns: Sequence[str], programs: Path | None) -> tuple[list[str], dict[str, str]]:
    """Names of the tasks that match a pattern by their name or family, and why others cannot be run here."""
    names = [
        name
        for name, workload in WORKLOADS.items()
        if any(fnmatch(name, pattern) or workload.family == pattern for pattern in patterns)
    ]
    left_out: dict[str, str] = {}
    if programs is None:
        return names, left_out
    for entry in _index(programs)["programs"]:
        name, reason = PREFIX + entry["name"], _unfit(entry)
        if not any(fnmatch(name, pattern) for pattern in patterns):
            continue
        if reason is None:
            names.append(name)
        else:
            left_out[name] = reason
    return names, left_out


def _unfit(entry: dict) -> str | None:
    """Why a program is not measured."""
    if entry.get("parse_only"):
        return "no stored outputs"
    if entry.get("needs_spmd_partitioner"):
        return "written for a mesh of devices"
    if entry["num_replicas"] * entry["num_partitions"] > 1:
        return "several devices"
    return None


def _index(programs: Path) -> dict:
    return corpus.load_corpus_io(programs).load_index(str(programs))


def _program(name: str, programs: Path) -> Task:
    corpus_io = corpus.load_corpus_io(programs)
    entry = next(e for e in _index(programs)["programs"] if PREFIX + e["name"] == name)
    stored = corpus_io.inputs(str(programs), entry)
    inputs = [corpus.from_stored(array, p["dtype"]) for array, p in zip(stored, entry["params"], strict=True)]
    types = [(tuple(result["shape"]), dtypes.dtype_named(result["dtype"]).numpy) for result in entry["results"]]
    check = partial(_check, corpus_io, programs, entry)
    return Task(name, programs / entry["hlo"], inputs, result_types=types, check=check)


def _check(corpus_io: object, programs: Path, entry: dict, outputs: list[np.ndarray]) -> str | None:
    return corpus.failure(corpus_io, programs, entry, [outputs])
