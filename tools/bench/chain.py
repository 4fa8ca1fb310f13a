"""Ten chained elementwise ops against `x + 1` over the same 16M floats: fusion makes them one pass over memory.

    python -m tools.bench.chain [--elements N] [--jax]

Floor: both read and write each element once, 128 MiB of traffic, so the ratio's floor is 1 as long as the ten ops
take less time than the traffic. A third row ends the chain in `tanh`, some thirty instructions more an element.
"""

from __future__ import annotations

import argparse

import numpy as np

import hloc
from tools.bench.measure import alternate

CHAIN = """
  c0 = f32[] constant(1.5)
  b0 = f32[{n}]{{0}} broadcast(c0), dimensions={{}}
  c1 = f32[] constant(0.25)
  b1 = f32[{n}]{{0}} broadcast(c1), dimensions={{}}
  c2 = f32[] constant(-2)
  b2 = f32[{n}]{{0}} broadcast(c2), dimensions={{}}
  o1 = f32[{n}]{{0}} multiply(x, b0)
  o2 = f32[{n}]{{0}} add(o1, b1)
  o3 = f32[{n}]{{0}} abs(o2)
  o4 = f32[{n}]{{0}} multiply(o3, x)
  o5 = f32[{n}]{{0}} maximum(o4, b2)
  o6 = f32[{n}]{{0}} subtract(o5, x)
  o7 = f32[{n}]{{0}} add(o6, b0)
  o8 = f32[{n}]{{0}} sqrt(o3)
  o9 = f32[{n}]{{0}} add(o7, o8)
  ROOT o10 = f32[{n}]{{0}} minimum(o9, b0)"""
TANH_CHAIN = CHAIN.replace("minimum(o9, b0)", "tanh(o9)")
ADD_ONE = """
  c = f32[] constant(1)
  b = f32[{n}]{{0}} broadcast(c), dimensions={{}}
  ROOT r = f32[{n}]{{0}} add(x, b)"""


def program(name: str, body: str, elements: int) -> str:
    lines = f"HloModule {name}\n\nENTRY main {{{{\n  x = f32[{{n}}]{{{{0}}}} parameter(0){body}\n}}}}\n"
    return lines.format(n=elements)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--elements", type=int, default=1 << 24)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--jax", action="store_true", help="time jax.jit of the chain too")
    chosen = options.parse_args()
    x = np.random.default_rng(0).standard_normal(chosen.elements).astype(np.float32)
    chain = hloc.compile(program("chain", CHAIN, chosen.elements))
    add_one = hloc.compile(program("add_one", ADD_ONE, chosen.elements))
    tanh_chain = hloc.compile(program("tanh_chain", TANH_CHAIN, chosen.elements))
    print(f"kernels: chain {len(chain.program.kernels)}, x + 1 {len(add_one.program.kernels)}")
    contestants = {"x + 1": lambda: add_one.execute(x), "chain of ten": lambda: chain.execute(x)}
    contestants["ending in tanh"] = lambda: tanh_chain.execute(x)
    if chosen.jax:
        contestants["jax chain of ten"] = jax_chain(x)
    times = alternate(contestants, chosen.rounds)
    print(times.table("x + 1"))


def jax_chain(x: np.ndarray):
    import jax
    import jax.numpy as jnp

    def chain(x):
        o3 = jnp.abs(x * 1.5 + 0.25)
        o7 = jnp.maximum(o3 * x, -2.0) - x + 1.5
        return jnp.minimum(o7 + jnp.sqrt(o3), 1.5)

    compiled = jax.jit(chain)
    argument = jax.device_put(x)
    return lambda: compiled(argument).block_until_ready()


if __name__ == "__main__":
    main()
