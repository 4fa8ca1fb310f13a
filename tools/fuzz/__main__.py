"""Runs random programs through all executors and keeps what differs, made small.

    python -m tools.fuzz --count 500 --seed 0 [--jobs 2] [--executors reference,cpu,none,jaxlib] [--out DIR]
    python -m tools.fuzz --executors pass:each,orders:2
    python -m tools.fuzz --executors cuda-emulated

Each seed is one program. Executors are the evaluator, native code of the pipelines `cpu` and `none`, jaxlib,
the targets `cuda` and `cuda-emulated` (with `:N` or `:sm_90a`), and the evaluator again on what passes make of the
program: `pass:NAME` one pass alone, `pass:each` every one alone, `order:NUMBER` a random order of passes,
`orders:COUNT` as many orders for each program.

A finding is a difference between results, a crash, a hang, or a text that does not come back as it went; its
program goes to DIR as `SEED.hlo` with its arguments in `SEED.npz`, a smaller one that fails alike as
`SEED.small.hlo`. Each line of progress shows the seed to go on with. The exit status is 1 if there are
findings.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hloc.arrays import to_stored
from hloc.errors import HloError
from tools.fuzz.executors import Finding, Outcome, Program, XlaResult, native
from tools.fuzz.shrink import shrink
from tools.fuzz.workers import Reply, Task, Worker
from tools.passes import KINDS, is_variant

EXECUTORS = ("reference", "cpu", "none", "jaxlib")


@dataclass
class Tally:
    """Counts of a run."""

    modules: int = 0
    portable: int = 0
    findings: list[tuple[int, Finding]] = field(default_factory=list)
    refusals: Counter = field(default_factory=Counter)
    examples: dict[str, int] = field(default_factory=dict)

    def refuse(self, who: str, why: str, seed: int) -> None:
        key = f"{who}: {why}"
        self.refusals[key] += 1
        self.examples.setdefault(key, seed)


class Lane:
    """A native worker and, if asked for, one of jaxlib's that works a program ahead of it."""

    def __init__(self, executors: tuple[str, ...], limit: float):
        self.executors = executors
        self.native = Worker("native", limit)
        self.jaxlib = Worker("jaxlib", limit) if "jaxlib" in executors else None

    def run(self, seeds: range, report) -> None:
        """Every seed; `report` gets (seed, outcome, what XLA did)."""
        if self.jaxlib is not None and seeds:
            self.jaxlib.give(Task(seeds[0]))
        for seed in seeds:
            xla = xla_result(self.jaxlib.collect()) if self.jaxlib is not None else None
            if self.jaxlib is not None and seed + seeds.step in seeds:
                self.jaxlib.give(Task(seed + seeds.step))
            report(seed, outcome_of(self.native.run(Task(seed, None, self.executors, xla))), xla)

    def fails(self, program: Program, where: str) -> bool:
        """Whether a program fails at an executor or check of that name."""
        xla = xla_result(self.jaxlib.run(Task(None, program))) if self.jaxlib is not None else None
        executors = (where,) if is_variant(where) else self.executors
        outcome = outcome_of(self.native.run(Task(None, program, executors, xla)))
        return where in [finding.where for finding in outcome.findings]

    def stop(self) -> None:
        self.native.stop()
        if self.jaxlib is not None:
            self.jaxlib.stop()


def xla_result(reply: Reply) -> XlaResult:
    if isinstance(reply.value, XlaResult):
        return reply.value
    return XlaResult(refusal=f"{reply.status} {reply.value}")


def outcome_of(reply: Reply) -> Outcome:
    if isinstance(reply.value, Outcome):
        return reply.value
    return Outcome([Finding(reply.status.lower(), str(reply.value))])


class Run:
    """A whole run: lanes side by side, findings kept and shrunk at once."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.tally = Tally()
        self.began = time.monotonic()
        self._lock = threading.Lock()

    def lane(self, number: int) -> None:
        options = self.options
        lane = Lane(options.executors, options.limit)
        stop = options.seed + options.count
        lane.run(range(options.seed + number, stop, options.jobs), lambda *what: self.report(lane, *what))
        lane.stop()

    def report(self, lane: Lane, seed: int, outcome: Outcome, xla: XlaResult | None) -> None:
        with self._lock:
            tally = self.tally
            tally.modules += 1
            tally.portable += xla is not None and xla.results is not None
            if xla is not None and xla.refusal:
                tally.refuse("jaxlib", xla.refusal, seed)
            for who, why in outcome.refused.items():
                tally.refuse("orders" if who.startswith("order:") else who, why, seed)
            for finding in outcome.findings:
                tally.findings.append((seed, finding))
                print(f"{seed}: {finding.where}: {finding.detail.splitlines()[0][:300]}", flush=True)
            if tally.modules % 100 == 0:
                self.progress(seed)
        if outcome.findings and self.options.out:
            self.keep(lane, seed, outcome)

    def progress(self, seed: int) -> None:
        seconds = time.monotonic() - self.began
        rate = self.tally.modules / seconds
        print(f"... {self.tally.modules} modules, {rate:.1f} a second, next seed {seed + 1}", flush=True)

    def keep(self, lane: Lane, seed: int, outcome: Outcome) -> None:
        folder = Path(self.options.out)
        folder.mkdir(parents=True, exist_ok=True)
        program = Task(seed).made()
        save(folder / f"{seed}", program)
        if self.options.shrink:
            where = outcome.findings[0].where
            small = shrink(program, lambda candidate: lane.fails(candidate, where))
            save(folder / f"{seed}.small", small)

    def summary(self) -> None:
        tally = self.tally
        for key, count in tally.refusals.most_common():
            print(f"refused {count:5} (as {tally.examples[key]}) {key[:180]}")
        seconds = time.monotonic() - self.began
        seeds = len({seed for seed, _ in tally.findings})
        print(
            f"{tally.modules} modules in {seconds:.0f} s, {tally.portable} of them beside jaxlib: "
            f"{len(tally.findings)} findings in {seeds} modules"
        )


def save(path: Path, program: Program) -> None:
    Path(f"{path}.hlo").write_text(program.text, encoding="utf-8")
    stored = {f"in{i}": to_stored(np.asarray(array)) for i, array in enumerate(program.arguments)}
    np.savez(f"{path}.npz", **stored)


def executors(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        try:
            if name in EXECUTORS or native(name) is not None or is_variant(name):
                continue
        except (HloError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{name}: {error}") from None
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join((*EXECUTORS, *KINDS))}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=500, help="programs to run")
    parser.add_argument("--seed", type=int, default=0, help="the first one's seed")
    parser.add_argument("--jobs", type=int, default=1, help="programs at a time, each with two processes")
    parser.add_argument("--executors", type=executors, default=EXECUTORS, help="comma-separated; default all")
    parser.add_argument("--out", metavar="DIR", help="where findings go")
    parser.add_argument("--limit", type=float, default=60.0, metavar="SECONDS", help="time for one program")
    parser.add_argument(
        "--shrink", action=argparse.BooleanOptionalAction, default=True, help="make findings small"
    )
    run = Run(parser.parse_args())
    lanes = [threading.Thread(target=run.lane, args=(number,)) for number in range(run.options.jobs)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    run.summary()
    sys.exit(1 if run.tally.findings else 0)


if __name__ == "__main__":
    main()
