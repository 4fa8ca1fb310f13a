"""What a call costs: of tiny programs it is all there is, and the memory of large results has to come from somewhere.

    python -m tools.bench.calls [--only NAME] [--rounds N]

hloc and NumPy get and give NumPy arrays; JAX gets arrays that lie on its device already, and every call waits for its
result, which is dropped before the next call. The Python loop around the calls counts: 10 to 20 ns for each.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable

import numpy as np

import hloc
from tools.bench.measure import alternate

THREE = (3,)
LARGE = (4096, 4096)


def programs() -> dict[str, tuple[Callable, Callable, list[tuple[int, ...]], int]]:
    """Name -> (function for JAX, the same for NumPy, shapes of the arguments, calls a round)."""
    import jax
    import jax.numpy as jnp

    def softmax(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def total(*arguments):
        return sum(arguments[1:], arguments[0])

    def several(x):
        return x + 1, (x - 1, x * 2)

    return {
        "add_3": (jnp.add, np.add, [THREE, THREE], 2000),
        "softmax_3": (jax.nn.softmax, softmax, [THREE], 2000),
        "ten_arguments_3": (total, total, [THREE] * 10, 2000),
        "three_results_3": (several, several, [THREE], 2000),
        "negate_4096x4096": (jnp.negative, np.negative, [LARGE], 1),
        "softmax_4096x4096": (jax.nn.softmax, softmax, [LARGE], 1),
    }


def repeated(call: Callable, arguments: list, count: int, finish: Callable | None = None) -> Callable[[], object]:
    """A round of calls as they stand in a program, `call(a, b)`, their results handed to `finish`."""
    names = {f"a{number}": argument for number, argument in enumerate(arguments)}
    text = f"call({', '.join(names)})"
    space = names | {"call": call, "finish": finish}
    timer = timeit.Timer(text if finish is None else f"finish({text})", globals=space)
    return lambda: timer.timeit(count)


def measure(name: str, rounds: int) -> None:
    """Alternating rounds of hloc, JAX and NumPy; prints microseconds a call."""
    import jax

    function, on_numpy, shapes, count = programs()[name]
    random = np.random.default_rng(0)
    arguments = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    jitted = jax.jit(function)
    ours = hloc.compile(jitted.lower(*arguments).as_text(dialect="hlo"))
    placed = jax.device_put(arguments)
    for got, want in zip(ours.execute(*arguments), jax.tree.leaves(jitted(*placed)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    ours(*arguments)
    times = alternate(
        {
            "hloc": repeated(ours, arguments, count),
            "jax": repeated(jitted, placed, count, jax.block_until_ready),
            "numpy": repeated(on_numpy, arguments, count),
        },
        rounds,
    )
    figures = (f"{who} {times.median(who) / count * 1e6:10.3f}" for who in times.seconds)
    least = times.least("hloc") / count * 1e6
    ratio = times.ratio("hloc", "jax")
    print(f"{name:18} us a call: {', '.join(figures)}; least of hloc {least:.3f}; ratio to jax {ratio:.3f}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", action="append")
    options.add_argument("--rounds", type=int, default=25)
    chosen = options.parse_args()
    for name in chosen.only or programs():
        measure(name, chosen.rounds)


if __name__ == "__main__":
    main()
