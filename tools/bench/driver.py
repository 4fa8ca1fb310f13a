"""The parent of the workers: prepares a task in each, and times them in turns.

In a round each peer runs one batch of calls, of some milliseconds, while the others sleep; the order turns about from
round to round. So what slows the machine down slows all alike, and times are compared round by round.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from tools.bench import tasks
from tools.bench.peers import TEXT_PEERS
from tools.bench.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parents[2]
_GROUP_SECONDS = 20e-6  # between two looks at the clock at least
_LONG_SECONDS = 20e-3  # calls that take longer need no other before them to be warm
_REST_SECONDS = 2e-3  # after a batch, and again while threads spin for more work
_IDLE = 0.05  # of a processor: whoever uses less of it sleeps
_MOST_RESTS = 150


@dataclass
class Timing:
    """One peer on one task: seconds a call of each round (its median call, its processor time), the least of all."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    least: float = float("inf")

    def add(self, answer: Mapping[str, float]) -> None:
        self.seconds.append(answer["median"])
        self.cpu.append(answer["cpu"])
        self.least = min(self.least, answer["least"])


@dataclass
class Outcome:
    """One task: what it moves and calculates, and by peer: timings, facts, what is wrong, why there is nothing."""

    name: str
    family: str
    read_bytes: int = 0
    write_bytes: int = 0
    flops: float = 0.0
    kind: str = "f32"
    timings: dict[str, Timing] = field(default_factory=dict)
    facts: dict[str, dict] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    load: float = 0.0

    def as_json(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_json(data: dict) -> Outcome:
        timings = {peer: Timing(**timing) for peer, timing in data.pop("timings").items()}
        return Outcome(**data, timings=timings)


@dataclass(frozen=True)
class Plan:
    """How to measure: rounds; seconds of a batch, of all rounds of a task, until a worker is given up; processors."""

    rounds: int = 15
    batch: float = 8e-3
    most: float = 20.0
    patience: float = 120.0
    processors: frozenset[int] = field(default_factory=lambda: frozenset(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Batch:
    """What a peer does in a round: calls, those between two looks at the clock, those before; and how long it takes."""

    calls: int
    group: int
    warm: int
    seconds: float


@contextmanager
def only_on(processors: frozenset[int]) -> Iterator[None]:
    """This thread keeps to some processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """A worker as its parent sees it. One that dies or takes too long is started again."""

    def __init__(self, interpreter: str, folder: Path, plan: Plan):
        self._interpreter, self._folder, self._plan = interpreter, folder, plan
        self._start()

    def _start(self) -> None:
        processors = self._plan.processors
        count = str(len(processors))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), count)
        caches = {"XDG_CACHE_HOME": f"{self._folder}/cache", "TORCHINDUCTOR_CACHE_DIR": f"{self._folder}/inductor"}
        environment = os.environ | threads | caches | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        if len(processors) == 1:  # XLA has threads that wait for each other even there
            environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        with only_on(processors):  # which the process inherits
            self._process = subprocess.Popen(
                [self._interpreter, "-m", "tools.bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=environment,
                cwd=ROOT,
            )

    def ask(self, op: str, **request: object) -> dict:
        """The answer: `ok` or `error`."""
        with suppress(BrokenPipeError):  # then there is no answer
            self._process.stdin.write(json.dumps({"op": op, **request}) + "\n")
            self._process.stdin.flush()
        ready = select.select([self._process.stdout], [], [], self._plan.patience)[0]
        line = self._process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        error = self._last_words() if ready else f"longer than {self._plan.patience:g} s"
        self.stop()
        self._start()
        return {"error": error}

    def rest(self) -> None:
        """Wait until its threads are asleep: those of some pools spin for 20 ms and more, beside the next peer."""
        clock = ~self._process.pid << 3 | 2  # Linux's number of the clock of a process's processor time
        with suppress(OSError):  # it has ended
            before = time.clock_gettime(clock)
            for _ in range(_MOST_RESTS):
                time.sleep(_REST_SECONDS)
                after = time.clock_gettime(clock)
                if after - before < _IDLE * _REST_SECONDS:
                    return
                before = after

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().strip().split("\n")[-1]
        return f"ended by signal {-status}" if status < 0 else f"ended with status {status}: {last}"[:300]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # of a request that it has not read
            self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()


class Bench:
    """Workers of the peers, and a folder for texts and results. Use it in a `with` statement."""

    def __init__(self, peers: Sequence[str], interpreters: Mapping[str, str], plan: Plan, programs: Path | None):
        self._scratch = tempfile.TemporaryDirectory(prefix="bench-")
        self._folder = Path(self._scratch.name)
        self.plan, self._programs = plan, programs
        self.missing: dict[str, list[str]] = {}
        self._lowering: Process | None = None
        self._workers: dict[str, Process] = {}
        for peer in peers:
            worker = self._process(interpreters.get(peer, sys.executable))
            answer = worker.ask("missing", peer=peer)
            if answer.get("ok") == []:
                self._workers[peer] = worker
            else:
                self.missing[peer] = answer.get("ok") or [answer["error"]]
                worker.stop()

    def _process(self, interpreter: str) -> Process:
        return Process(interpreter, self._folder, self.plan)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self._workers.values(), *([self._lowering] if self._lowering else [])]:
            worker.stop()
        self._scratch.cleanup()

    @property
    def peers(self) -> list[str]:
        return list(self._workers)

    def versions(self) -> list[str]:
        """Of what the peers are made of."""
        return [text for peer, worker in self._workers.items() for text in worker.ask("versions", peer=peer)["ok"]]

    def peaks(self) -> dict[str, float]:
        """Megabytes of each worker at its peak, inputs included."""
        return {peer: worker.ask("peak").get("ok", 0.0) for peer, worker in self._workers.items()}

    def run(self, name: str) -> Outcome:
        """Prepare a task everywhere, judge the results, time those who have them."""
        outcome = self._described(name)
        if "text" in outcome.absent:
            return outcome
        of_text = [peer for peer in self._workers if name in WORKLOADS or peer in TEXT_PEERS]
        for peer in of_text:
            self._prepare(peer, outcome)
        self._judge(outcome)
        batches = {peer: self._batch(peer, outcome) for peer in outcome.facts}
        self._rounds(outcome, {peer: batch for peer, batch in batches.items() if batch})
        outcome.load = os.getloadavg()[0]
        return outcome

    def _described(self, name: str) -> Outcome:
        workload = WORKLOADS.get(name)
        if workload is None:
            return Outcome(name, tasks.PREFIX.rstrip("/"))
        outcome = Outcome(name, workload.family, flops=workload.flops, kind=workload.kind)
        self._lowering = self._lowering or self._process(sys.executable)
        answer = self._lowering.ask("lower", name=name, folder=str(self._folder))
        if "error" in answer:
            outcome.absent["text"] = answer["error"]
        else:
            outcome.read_bytes, outcome.write_bytes = answer["ok"]["read_bytes"], answer["ok"]["write_bytes"]
        return outcome

    def _results(self, peer: str) -> Path:
        return self._folder / f"{peer}.npz"

    def _prepare(self, peer: str, outcome: Outcome) -> None:
        workload = WORKLOADS.get(outcome.name)
        if workload is not None and peer in workload.left_out:
            outcome.absent[peer] = workload.left_out[peer]
            return
        place = {"folder": str(self._folder), "programs": str(self._programs) if self._programs else None}
        self._results(peer).unlink(missing_ok=True)
        answer = self._workers[peer].ask(
            "prepare", peer=peer, name=outcome.name, results=str(self._results(peer)), **place
        )
        if "error" in answer:
            outcome.absent[peer] = answer["error"]
        elif answer["ok"] is None:
            outcome.absent[peer] = tasks.NO_PROGRAM
        else:
            outcome.facts[peer] = answer["ok"]
            wrong = answer["ok"].pop("wrong", None)
            if wrong:
                outcome.wrong[peer] = wrong

    def _judge(self, outcome: Outcome) -> None:
        """Compare the results of a workload with XLA's."""
        workload = WORKLOADS.get(outcome.name)
        if workload is None or "xla" not in outcome.facts:
            return
        expected = _loaded(self._results("xla"))
        for peer, facts in outcome.facts.items():
            if peer == "xla" or peer in workload.own_results:
                continue
            error = difference(_loaded(self._results(peer)), expected)
            facts["error"] = error
            if not error <= workload.tolerance:
                outcome.wrong[peer] = f"differs from XLA by {error:.2g} of the largest entry"

    def _batch(self, peer: str, outcome: Outcome) -> Batch | None:
        """What a peer does in a round; None if it fails."""
        calls, worker = 1, self._workers[peer]
        for _ in range(3):  # calls get faster when they are warm
            answer = worker.ask("time", calls=calls, group=1, warm=0)
            if "error" in answer:
                outcome.absent[peer] = answer["error"]
                return None
            seconds = answer["ok"]["least"]
            calls = max(1, int(self.plan.batch / seconds))
        group = min(calls, max(1, int(_GROUP_SECONDS / seconds)))
        return Batch(calls, group, int(seconds < _LONG_SECONDS), max(seconds, self.plan.batch))

    def _rounds(self, outcome: Outcome, batches: Mapping[str, Batch]) -> None:
        """Time all peers in turns. If a peer fails, it leaves, and its timings go."""
        live = list(batches)
        once = sum(batch.seconds for batch in batches.values())
        rounds = max(1, min(self.plan.rounds, int(self.plan.most / once))) if live else 0
        outcome.timings = {peer: Timing() for peer in live}
        for number in range(rounds):
            for peer in live[:: 1 if number % 2 == 0 else -1]:
                batch = batches[peer]
                worker = self._workers[peer]
                answer = worker.ask("time", calls=batch.calls, group=batch.group, warm=batch.warm)
                if "error" in answer:
                    outcome.absent[peer] = answer["error"]
                    live.remove(peer)
                    del outcome.timings[peer]
                else:
                    outcome.timings[peer].add(answer["ok"])
                worker.rest()


def _loaded(path: Path) -> list[np.ndarray]:
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


def difference(given: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest difference relative to the largest entry, over all results; infinite where they cannot be compared.

    Integers and booleans are equal (0), or not (1). NaNs have to be in the same places, and so have infinities.
    """
    if [array.size for array in given] != [array.size for array in expected]:
        return float("inf")
    return max((_difference(a.reshape(-1), b.reshape(-1)) for a, b in zip(given, expected)), default=0.0)


def _difference(given: np.ndarray, expected: np.ndarray) -> float:
    if expected.dtype.kind in "iub":
        return float(not np.array_equal(given, expected))
    kind = np.complex128 if expected.dtype.kind == "c" else np.float64
    given, expected = given.astype(kind), expected.astype(kind)
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(given)) or not np.array_equal(
        given[~finite], expected[~finite], equal_nan=True
    ):
        return float("inf")
    largest = np.max(np.abs(expected[finite]), initial=0.0)
    return float(np.max(np.abs(given[finite] - expected[finite]), initial=0.0) / (largest or 1.0))
