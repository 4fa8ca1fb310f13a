"""A whole process from nothing to the first result: `hloc run` against the same program as a JAX script.

    python -m tools.bench.cold [samples/softmax.hlo]

`hloc run` keeps what it compiles and finds it again in the rounds after the first; with `--no-cache` it compiles in
each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from tools.bench.measure import alternate

JAX_SOFTMAX = """
import jax, numpy as np
x = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
print(jax.jit(lambda x: jax.nn.softmax(x, axis=-1))(x))
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", nargs="?", default="samples/softmax.hlo")
    options.add_argument("--rounds", type=int, default=7)
    chosen = options.parse_args()

    def process(*arguments: str):
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    times = alternate(
        {
            "jax script": process("-c", JAX_SOFTMAX),
            "hloc run": process("-m", "hloc", "run", chosen.file, "--random"),
            "hloc run --no-cache": process("-m", "hloc", "run", chosen.file, "--random", "--no-cache"),
            "python -c pass": process("-c", "pass"),
        },
        chosen.rounds,
        warm=1,
    )
    print(times.table("jax script"))


if __name__ == "__main__":
    main()
