"""Run every program of a corpus folder through an executor and compare the results with those it stores.

    python -m tools.corpus FOLDER [--executor reference|cpu] [--only GLOB] [--optimized] [--jobs 2]
    python -m tools.corpus FOLDER --executor cuda[:N]|cuda-emulated[:sm_90a]
    python -m tools.corpus FOLDER --executor cpu [--pipeline none] [--guard-pages end|start]
    python -m tools.corpus FOLDER --executor pass:each|orders:COUNT

With guarded pages, a program that reaches beyond a buffer is a row CRASH, and standard error says which buffer.
The last line is the evaluator on what passes make of each program: every pass alone, or passes in COUNT
random orders; `pass:NAME` and `order:NUMBER` are one of them.
FOLDER holds `index.json` and the programs; `corpus_io.py`, in it or in the folder above, reads inputs and
judges outputs. Programs run in worker processes, so one that crashes or hangs is one failed row. Exit status
1 if a program fails that is not in KNOWN_FAILURES.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib.util
import multiprocessing
import os
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType

import numpy as np

import hloc
from hloc.arrays import in_layout
from hloc.errors import HloError
from hloc.ir.dtypes import dtype_named
from hloc.ir.module import Module
from hloc.options import Options
from hloc.passes import manual_partitioning
from hloc.reference.evaluate import evaluate, evaluate_replicated
from hloc.text.parser import parse
from tools.passes import KINDS, Variant, is_variant, transformed, variants

# (executor, program) to the reason why it may fail; both are patterns of fnmatch.
KNOWN_FAILURES: dict[tuple[str, str], str] = {}

WARM_UP = "HloModule warm_up\nENTRY e {\n  ROOT c = f32[] constant(0)\n}"

Arrays = list[np.ndarray]
Results = list[Arrays]


@dataclass(frozen=True)
class Task:
    """One program to run: its entry of the index, and which of its texts."""

    entry: dict
    text: str


@dataclass(frozen=True)
class Outcome:
    """What became of a program: status is ok, FAIL, CRASH, TIMEOUT or skip."""

    name: str
    category: str
    status: str
    seconds: float
    detail: str = ""


def parsed(text: str, entry: dict) -> Module:
    """The module; a program for a whole mesh is made one for each device."""
    module = parse(text, entry["name"])
    if entry.get("needs_spmd_partitioner"):
        manual_partitioning.run(module)
    return module


def evaluated(module: Module, arguments: list[Arrays], entry: dict) -> Results:
    if entry.get("needs_spmd_partitioner"):
        return [evaluate(module, arguments[0])]
    counts = {"replica_count": entry["num_replicas"], "num_partitions": entry["num_partitions"]}
    return evaluate_replicated(module, arguments, **counts)


def reference(text: str, arguments: list[Arrays], entry: dict) -> Results:
    """The evaluator, on all devices."""
    return evaluated(parsed(text, entry), arguments, entry)


def native(target: str, text: str, arguments: list[Arrays], entry: dict, options: Options) -> Results:
    """What the program becomes for a target, run there."""
    executable = hloc.compile(text, target, options)
    shapes = [leaf.shape for leaf in executable.program.parameters]
    given = [[in_layout(a, shape) for a, shape in zip(each, shapes, strict=True)] for each in arguments]
    if len(given) > 1:
        return executable.execute_replicated(given)
    return [executable.execute(*given[0])]


TARGETS = ("cpu", "cuda-emulated", "cuda")


def is_target(executor: str) -> bool:
    """Whether it is a target, perhaps with a GPU's number or an architecture behind it."""
    return executor.partition(":")[0] in TARGETS


def through_passes(
    variant: Variant, text: str, arguments: list[Arrays], entry: dict
) -> Results | None:
    """The evaluator on what passes make of the program, by way of its text; None if that is the program."""
    made = transformed(parsed(text, entry), variant.passes)
    return None if made is None else evaluated(parse(made.to_text(), entry["name"]), arguments, entry)


def executions(
    executor: str, options: Options, text: str, arguments: list[Arrays], entry: dict
) -> Iterator[tuple[str, Callable[[], Results | None]]]:
    """What an executor has to run for a program, by name."""
    if executor == "reference":
        yield executor, partial(reference, text, arguments, entry)
        return
    if is_target(executor):
        yield executor, partial(native, executor, text, arguments, entry, options)
        return
    for variant in variants(executor, zlib.crc32(entry["name"].encode())):
        yield variant.name, partial(through_passes, variant, text, arguments, entry)


def load_corpus_io(folder: Path) -> ModuleType:
    """The corpus's own reader."""
    for place in (folder, folder.parent):
        path = place / "corpus_io.py"
        if path.exists():
            spec = importlib.util.spec_from_file_location("corpus_io", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise SystemExit(f"no corpus_io.py in {folder} or above it")


def from_stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """Raw bits as values of the element type."""
    kind = dtype_named(dtype).numpy
    return array if array.dtype == kind else np.ascontiguousarray(array).view(kind).reshape(array.shape)


def to_stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """Values as the raw bits that the corpus keeps for types that NumPy lacks."""
    kind = dtype_named(dtype)
    if array.dtype.isbuiltin == 1:
        return array
    bits = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
    return bits & np.uint8((1 << kind.bits) - 1) if kind.bits < 8 else bits


def run_task(
    corpus_io: ModuleType, folder: Path, executor: str, options: Options, task: Task
) -> tuple[str, str]:
    """(status, failures) of one program."""
    entry = task.entry
    stored = corpus_io.inputs(str(folder), entry)
    inputs = [
        from_stored(array, param["dtype"]) for array, param in zip(stored, entry["params"], strict=True)
    ]
    devices = entry["num_replicas"] * entry["num_partitions"]
    arguments = [[array[i] for array in inputs] for i in range(devices)] if devices > 1 else [inputs]
    text = (folder / task.text).read_text(encoding="utf-8")
    failures = []
    for name, run in executions(executor, options, text, arguments, entry):
        results = run()
        wrong = None if results is None else failure(corpus_io, folder, entry, results)
        if wrong is not None:
            failures.append(wrong if name == executor else f"{name}: {wrong}")
    return ("FAIL", "; ".join(failures)) if failures else ("ok", "")


def failure(corpus_io: ModuleType, folder: Path, entry: dict, results: Results) -> str | None:
    """The first result of a program that is not what the corpus stores."""
    devices = entry["num_replicas"] * entry["num_partitions"]
    outputs = results[0] if devices == 1 else [np.stack(each) for each in zip(*results, strict=True)]
    if len(outputs) != len(entry["results"]):
        return f"{len(outputs)} results, expected {len(entry['results'])}"
    outputs = [
        to_stored(array, result["dtype"]) for array, result in zip(outputs, entry["results"], strict=True)
    ]
    return next((message for ok, message in corpus_io.check(str(folder), entry, outputs) if not ok), None)


def serve(pipe: Connection, folder: str, executor: str, options: Options) -> None:
    """A worker: takes tasks and answers with (status, detail, seconds) until it is told to stop.

    The first run of a process loads libraries and the grammar; that is done before any program's time counts.
    """
    corpus_io = load_corpus_io(Path(folder))
    with contextlib.suppress(Exception):  # an executor that can't run this tells so in every row
        entry = {"name": "warm_up", "num_replicas": 1, "num_partitions": 1}
        for _, run in executions(executor, options, WARM_UP, [[]], entry):
            run()
    pipe.send("ready")
    while (task := pipe.recv()) is not None:
        start = time.perf_counter()
        try:
            status, detail = run_task(corpus_io, Path(folder), executor, options, task)
        except Exception as error:  # whatever a program does is a row of the table
            status, detail = "FAIL", f"{type(error).__name__}: {error}"
        pipe.send((status, detail, time.perf_counter() - start))


class Worker:
    """A process that runs tasks one at a time; it is replaced when it dies or takes too long."""

    def __init__(self, folder: Path, executor: str, options: Options):
        self.folder, self.executor, self.options = folder, executor, options
        self.task: Task | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, str(self.folder), self.executor, self.options)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def give(self, task: Task) -> None:
        self.task, self.began = task, time.perf_counter()
        self.pipe.send(task)

    def collect(self, limit: float) -> Outcome | None:
        """The outcome of the task if it is there, or if there will be none."""
        entry, taken = self.task.entry, time.perf_counter() - self.began
        if self.pipe.poll():
            try:
                status, detail, seconds = self.pipe.recv()
                self.task = None
                return Outcome(entry["name"], entry["category"], status, seconds, detail)
            except EOFError:
                self.process.join()
                return self._replaced("CRASH", taken, f"exit status {self.process.exitcode}")
        return self._replaced("TIMEOUT", taken, f"over {limit:g} s") if taken > limit else None

    def _replaced(self, status: str, seconds: float, detail: str) -> Outcome:
        entry, self.task = self.task.entry, None
        self.process.kill()
        self.process.join()
        self._start()
        return Outcome(entry["name"], entry["category"], status, seconds, detail)

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()


def select(index: dict, only: str, optimized: bool) -> tuple[list[Task], list[Outcome]]:
    """The programs to run, and those that can't be."""
    tasks, skipped = [], []
    for entry in index["programs"]:
        text = entry.get("opt_hlo") if optimized else entry["hlo"]
        reason = None
        if entry.get("parse_only"):
            reason = "no stored outputs"
        elif optimized and entry.get("needs_spmd_partitioner"):
            reason = "what the program of one device became is run instead"
        elif text is None:
            reason = "no optimized text"
        if not any(fnmatch.fnmatch(entry["name"], each) for each in only.split(",")):
            continue
        if reason:
            skipped.append(Outcome(entry["name"], entry["category"], "skip", 0.0, reason))
        else:
            tasks.append(Task(entry, text))
    return tasks, skipped


def run_all(tasks: list[Task], workers: list[Worker], limit: float) -> list[Outcome]:
    """All outcomes, in order of the tasks; each is printed when it comes."""
    order = {task.entry["name"]: number for number, task in enumerate(tasks)}
    pending, outcomes = list(reversed(tasks)), []
    while pending or any(worker.task for worker in workers):
        for worker in workers:
            if worker.task is None and pending:
                worker.give(pending.pop())
        busy = [worker for worker in workers if worker.task]
        wait([worker.pipe for worker in busy], timeout=0.5)
        for worker in busy:
            outcome = worker.collect(limit)
            if outcome is not None:
                outcomes.append(outcome)
                show(outcome)
    return sorted(outcomes, key=lambda outcome: order[outcome.name])


def show(outcome: Outcome) -> None:
    detail = outcome.detail.strip().split("\n")[0][:160]
    print(f"{outcome.name:40} {outcome.status:8} {outcome.seconds:7.2f} s  {detail}".rstrip(), flush=True)


def known_failure(executor: str, name: str) -> str | None:
    for (who, which), reason in KNOWN_FAILURES.items():
        if fnmatch.fnmatch(executor, who) and fnmatch.fnmatch(name, which):
            return reason
    return None


def report(outcomes: list[Outcome], executor: str) -> int:
    """Totals per category; the number of failures that nobody knew of."""
    counts = Counter((outcome.category, outcome.status) for outcome in outcomes)
    statuses = [s for s in ("ok", "FAIL", "CRASH", "TIMEOUT", "skip") if any(key[1] == s for key in counts)]
    categories = list(dict.fromkeys(outcome.category for outcome in outcomes))
    print(f"\n{'category':16}" + "".join(f"{status:>9}" for status in statuses))
    for category in categories:
        print(f"{category:16}" + "".join(f"{counts[category, status]:9}" for status in statuses))
    totals = Counter(outcome.status for outcome in outcomes)
    print(f"{'all':16}" + "".join(f"{totals[status]:9}" for status in statuses))
    failed = [outcome for outcome in outcomes if outcome.status not in ("ok", "skip")]
    unknown = 0
    for outcome in failed:
        reason = known_failure(executor, outcome.name)
        unknown += reason is None
        print(
            f"{outcome.status} {outcome.name}: {outcome.detail}" + (f" (known: {reason})" if reason else "")
        )
    return unknown


def executor_named(text: str) -> str:
    """The name, checked."""
    with contextlib.suppress(HloError, ValueError):
        if text == "reference" or is_target(text) or is_variant(text):
            return text
    raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(('reference', *TARGETS, *KINDS))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--executor", type=executor_named, default="reference")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of programs to run, or several: GLOB,GLOB")
    parser.add_argument("--optimized", action="store_true", help="run the optimized texts")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--limit", type=float, default=120.0, metavar="SECONDS", help="time for one program")
    parser.add_argument("--pipeline", metavar="NAME", help="passes to run before native code")
    parser.add_argument("--guard-pages", choices=("end", "start"), default="", help="find accesses beyond buffers")
    options = parser.parse_args()
    compiling = Options(pipeline=options.pipeline, guard_pages=options.guard_pages, cache=False)
    if options.jobs > 1:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    corpus_io = load_corpus_io(options.folder)
    tasks, skipped = select(corpus_io.load_index(str(options.folder)), options.only, options.optimized)
    count = min(options.jobs, max(1, len(tasks)))
    workers = [Worker(options.folder, options.executor, compiling) for _ in range(count)]
    outcomes = run_all(tasks, workers, options.limit)
    for worker in workers:
        worker.stop()
    sys.exit(1 if report(outcomes + skipped, options.executor) else 0)


if __name__ == "__main__":
    main()
