"""A whole process from nothing to the first result: `hloc run` against the same program as a JAX script.

    python -m tools.bench.cold [samples/softmax.hlo]

`hloc run` keeps what it compiles and finds it again in the rounds after the first; with `--no-cache` it compiles in
each. The first round leaves Python's bytecode of hloc, as an installation has it, even where Python is told to write
none.
"""

from __future__ import annotations

import argparse
import json
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


_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass
class Command:
    """A Python process to run again and again; what each run took beside its time."""

    arguments: tuple[str, ...]
    cpu_seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        process = subprocess.Popen([sys.executable, *self.arguments], stdout=subprocess.DEVNULL, env=_ENVIRONMENT)
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


def measured(file: str, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each process: seconds, those of a processor, and megabytes at its peak.

    The kernel counts the memory of the process that starts another as that one's: this one has to be small.
    """
    processes = commands(file)
    times = alternate(processes, rounds, warm=1)
    return {
        name: {
            "seconds": times.median(name),
            "ratio": times.ratio(name, "jax script"),
            "cpu_seconds": spread(process.cpu_seconds).median,
            "megabytes": spread(process.megabytes).median,
        }
        for name, process in processes.items()
    }


def costs(file: str, rounds: int) -> dict[str, dict[str, float]]:
    """What `measured` says in a process of its own."""
    command = [sys.executable, "-m", "tools.bench.cold", file, "--rounds", str(rounds), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", nargs="?", default="samples/softmax.hlo")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    figures = measured(chosen.file, chosen.rounds)
    if chosen.json:
        print(json.dumps(figures))
        return
    print(f"{'median':24} {'ms':>10} {'processor ms':>14} {'peak MB':>9} {'of jax script':>14}")
    for name, each in figures.items():
        times = f"{each['seconds'] * 1e3:10.0f} {each['cpu_seconds'] * 1e3:14.0f}"
        print(f"{name:24} {times} {each['megabytes']:9.0f} {each['ratio']:14.3f}")


if __name__ == "__main__":
    main()
