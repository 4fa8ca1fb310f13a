"""A whole process from nothing to the first result: `hloc run` against the same program as a JAX script.

    python -m tools.bench.cold [samples/softmax.hlo]

`hloc run` keeps what it compiles and finds it again in the rounds after the first; with `--no-cache` it compiles in
each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass, field

from tools.bench.measure import alternate, spread

JAX_SOFTMAX = """
import jax, numpy as np
x = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
print(jax.jit(lambda x: jax.nn.softmax(x, axis=-1))(x))
"""


@dataclass
class Command:
    """A Python process to run again and again; what each run took beside its time."""

    arguments: tuple[str, ...]
    cpu_seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        process = subprocess.Popen([sys.executable, *self.arguments], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, self.arguments)
        self.cpu_seconds.append(usage.ru_utime + usage.ru_stime)
        self.megabytes.append(usage.ru_maxrss / 1024)


def commands(file: str) -> dict[str, Command]:
    return {
        "jax script": Command(("-c", JAX_SOFTMAX)),
        "hloc run": Command(("-m", "hloc", "run", file, "--random")),
        "hloc run --no-cache": Command(("-m", "hloc", "run", file, "--random", "--no-cache")),
        "python -c pass": Command(("-c", "pass")),
    }


def costs(file: str, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each process: seconds, those of a processor, and megabytes at its peak."""
    processes = commands(file)
    times = alternate(processes, rounds, warm=1)
    return {
        name: {
            "seconds": times.median(name),
            "cpu_seconds": spread(process.cpu_seconds).median,
            "megabytes": spread(process.megabytes).median,
        }
        for name, process in processes.items()
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", nargs="?", default="samples/softmax.hlo")
    options.add_argument("--rounds", type=int, default=7)
    chosen = options.parse_args()
    processes = commands(chosen.file)
    times = alternate(processes, chosen.rounds, warm=1)
    print(times.table("jax script"))
    for name, process in processes.items():
        print(f"{name:24} {spread(process.megabytes).median:12.0f} MB at the peak")


if __name__ == "__main__":
    main()
