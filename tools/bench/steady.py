"""Whether a long process stays as large as it is: programs run and compiled again and again, memory watched.

    python -m tools.bench.steady [--minutes 10] [--threads 4] FILES

Each round calls every program of the FILES: with results dropped at once, with the latest results kept, and from new
threads that call at the same time. After some rounds one of the programs is compiled anew, called until its calls are
native, and dropped. Prints the resident memory at each minute, and ends with status 1 if it grew: if its median in the
last third of the time, the first fifth left out as warm-up, is above that in the first third by more than ALLOWED.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count, cycle
from pathlib import Path

import numpy as np

import hloc
from hloc.arrays import random_inputs
from hloc.options import Options

ALLOWED = 0.02, 4.0
"""Growth that is none: a part of the memory, and megabytes on top."""

_KEPT = 16
_CALLS = 8
"""Calls in a row, of each kind."""

_ROUNDS = 4
"""Rounds from one compile to the next."""

_SAMPLES = 60
"""Looks at the memory, evenly over the time."""

Call = Callable[[], object]


def resident_megabytes() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(samples: Sequence[float]) -> float:
    """Megabytes by which samples in the last third lie above those in the first, after a fifth of warm-up."""
    steady = samples[len(samples) // 5 :]
    third = max(len(steady) // 3, 1)
    return statistics.median(steady[-third:]) - statistics.median(steady[:third])


def is_grown(samples: Sequence[float]) -> bool:
    """Whether samples of megabytes say that memory grows."""
    part, megabytes = ALLOWED
    return growth(samples) > part * statistics.median(samples) + megabytes


class Work:
    """Programs, their arguments, and what is done with them; counts calls and compiles."""

    def __init__(self, files: Sequence[Path], threads: int):
        self.texts = [path.read_text(encoding="utf-8") for path in files]
        self.calls = self.compiles = 0
        self._threads = threads
        self._kept: deque[object] = deque(maxlen=_KEPT)
        self._bound = [self._bind(text) for text in self.texts]
        self._anew = cycle(self.texts)

    def _bind(self, text: str) -> Call:
        executable = hloc.compile(text, options=Options(cache=False))
        self.compiles += 1
        arguments: list[np.ndarray] = random_inputs(executable.program, 0)
        return lambda: executable.execute(*arguments)

    def round(self, number: int) -> None:
        for call in self._bound:
            for _ in range(_CALLS):
                call()
            self._kept.extend(call() for _ in range(_CALLS))
            self._together(call)
            self.calls += _CALLS * (2 + self._threads)
        if number % _ROUNDS == 0:
            call = self._bind(next(self._anew))
            for _ in range(3):
                call()

    def _together(self, call: Call) -> None:
        """Calls from new threads; raises what the first of them raised."""
        faults: list[BaseException] = []

        def run() -> None:
            try:
                for _ in range(_CALLS):
                    call()
            except BaseException as fault:  # whatever it is, the thread that started this one is to have it
                faults.append(fault)

        threads = [threading.Thread(target=run) for _ in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]


def watch(work: Work, seconds: float) -> list[float]:
    """Works for so long; megabytes at even times. Prints a line a minute."""
    samples: list[float] = []
    start = time.monotonic()
    minute = 0
    for number in count():
        work.round(number)
        passed = time.monotonic() - start
        if passed >= seconds * (len(samples) + 1) / _SAMPLES:
            gc.collect()
            samples.append(resident_megabytes())
        if passed >= 60 * minute:
            now = resident_megabytes()
            print(f"minute {minute:3}: {now:8.1f} MB, {work.calls} calls, {work.compiles} compiles", flush=True)
            minute += 1
        if passed >= seconds:
            return samples


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("files", nargs="+", type=Path)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--threads", type=int, default=4)
    chosen = options.parse_args()
    samples = watch(Work(chosen.files, chosen.threads), chosen.minutes * 60)
    least, most = min(samples), max(samples)
    print(f"{least:.1f} to {most:.1f} MB, {growth(samples):+.1f} MB from the first third to the last")
    if is_grown(samples):
        sys.exit("memory grows")


if __name__ == "__main__":
    main()
