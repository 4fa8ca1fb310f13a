"""Softmax, normalizations and their gradients, which row fusion makes one kernel, against JAX on one thread.

    python -m tools.bench.rows [--shape 4096x4096] [--only NAME] [--rounds N]

Floor: each input read and each result written once, at the rate at which this machine copies an array of the size of
the first input (its read and its write counted; an array in the cache is copied at the cache's rate). JAX gets arrays
that lie on its device already, and all of its results wait to be done; hloc makes new NumPy arrays.
"""

from __future__ import annotations

import argparse
import os

import numpy as np

import hloc
from tools.bench.measure import Times, alternate


def programs():
    """Name -> (function, shapes of the arguments by the rows r and columns c)."""
    import jax
    import jax.numpy as jnp

    def softmax(x):
        return jax.nn.softmax(x)

    def log_softmax(x):
        return jax.nn.log_softmax(x)

    def layernorm(x, scale, bias):
        mean = x.mean(-1, keepdims=True)
        centered = x - mean
        variance = (centered * centered).mean(-1, keepdims=True)
        return centered * jax.lax.rsqrt(variance + 1e-5) * scale + bias

    def rmsnorm(x, scale):
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale

    def softmax_gradient(y, g):
        return y * (g - (y * g).sum(-1, keepdims=True))

    def layernorm_gradient(x, scale, g):
        return jax.vjp(lambda x: layernorm(x, scale, jnp.zeros_like(scale)), x)[1](g)[0]

    matrix, row = "rc", "c"
    return {
        "softmax": (softmax, (matrix,)),
        "log_softmax": (log_softmax, (matrix,)),
        "layernorm": (layernorm, (matrix, row, row)),
        "rmsnorm": (rmsnorm, (matrix, row)),
        "softmax_gradient": (softmax_gradient, (matrix, matrix)),
        "layernorm_gradient": (layernorm_gradient, (matrix, row, matrix)),
    }


def measure(name: str, rows: int, columns: int, rounds: int, repeat: int) -> Times:
    """Alternating rounds of hloc, JAX, and a copy of the first argument."""
    import jax

    function, kinds = programs()[name]
    random = np.random.default_rng(0)
    sizes = {"r": rows, "c": columns}
    arguments = [random.standard_normal([sizes[d] for d in kind]).astype(np.float32) for kind in kinds]
    text = jax.jit(function).lower(*arguments).as_text(dialect="hlo")
    ours = hloc.compile(text)
    theirs, given = jax.jit(function), jax.device_put(arguments)
    want = np.asarray(theirs(*given))
    error = np.abs(ours.execute(*arguments)[0] - want).max() / np.abs(want).max()
    target = np.empty_like(arguments[0])
    times = alternate(
        {
            "hloc": lambda: [ours.execute(*arguments) for _ in range(repeat)],
            "jax": lambda: [theirs(*given).block_until_ready() for _ in range(repeat)],
            "copy": lambda: [np.copyto(target, arguments[0]) for _ in range(repeat)],
        },
        rounds,
    )
    moved = (sum(a.nbytes for a in arguments) + want.nbytes) / (2 * arguments[0].nbytes)
    print(
        f"{name:20} {rows}x{columns}: {len(ours.program.kernels)} kernel(s), "
        f"hloc {times.median('hloc') / repeat * 1e6:10.1f} us, jax {times.median('jax') / repeat * 1e6:10.1f} us, "
        f"ratio {times.ratio('hloc', 'jax'):.3f}, "
        f"floor {times.median('copy') / repeat * moved * 1e6:10.1f} us, "
        f"of floor {times.ratio('hloc', 'copy') / moved:.2f}, error {error:.1e}"
    )
    return times


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--shape", action="append", help="ROWSxCOLUMNS; 4096x4096 and 64x512 if nothing is said")
    options.add_argument("--only", action="append")
    options.add_argument("--rounds", type=int, default=15)
    chosen = options.parse_args()
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for shape in chosen.shape or ["4096x4096", "64x512"]:
        rows, columns = map(int, shape.split("x"))
        repeat = max(1, (1 << 22) // (rows * columns))
        for name in chosen.only or programs():
            measure(name, rows, columns, chosen.rounds, repeat)


if __name__ == "__main__":
    main()
