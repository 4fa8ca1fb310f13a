"""Fusion of random graphs: whatever it joins, the kernels have an order and the answer stays the same."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hloc.arrays import random_inputs
from hloc.options import Options
from hloc.passes.pipeline import run_pipeline
from hloc.reference.evaluate import evaluate
from hloc.text.parser import parse

SHAPE = "f32[16,16]"
BINARY = ("add", "subtract", "maximum", "minimum")
UNARY = ("tanh", "negate", "abs", "sine")


def random_program(seed: int, count: int, reach: int) -> str:
    """Operands are taken from the `reach` values before; a third of all values are results too."""
    rng = random.Random(seed)
    lines = [f"v0 = {SHAPE} parameter(0)", "zero = f32[] constant(0)", "at = s32[] parameter(1)"]
    results = []
    for i in range(1, count):
        a, b = (f"v{rng.randrange(max(0, i - reach), i)}" for _ in range(2))
        kind = rng.random()
        if kind < 0.45:
            lines.append(f"v{i} = {SHAPE} {rng.choice(BINARY)}({a}, {b})")
        elif kind < 0.7:
            lines.append(f"v{i} = {SHAPE} {rng.choice(UNARY)}({a})")
        elif kind < 0.8:
            lines.append(f"r{i} = f32[16] reduce({a}, zero), dimensions={{0}}, to_apply=max")
            lines.append(f"v{i} = {SHAPE} broadcast(r{i}), dimensions={{{rng.randrange(2)}}}")
        elif kind < 0.87:
            lines.append(f"part{i} = f32[2,16] slice({b}), slice={{[3:5], [0:16]}}")
            lines.append(f"v{i} = {SHAPE} dynamic-update-slice({a}, part{i}, at, at)")
        elif kind < 0.94:
            lines.append(f"v{i} = {SHAPE} transpose({a}), dimensions={{1,0}}")
        else:
            lines.append(f"v{i} = {SHAPE} sort({a}), dimensions={{0}}, to_apply=less")
        if rng.random() < 0.3:
            results.append(f"v{i}")
    results.append(f"v{count - 1}")
    body = "\n  ".join(lines)
    shapes = ", ".join([SHAPE] * len(results))
    return f"""HloModule random

max {{
  lhs = f32[] parameter(0)
  rhs = f32[] parameter(1)
  ROOT greatest = f32[] maximum(lhs, rhs)
}}

less {{
  left = f32[] parameter(0)
  right = f32[] parameter(1)
  ROOT order = pred[] compare(left, right), direction=LT
}}

ENTRY main {{
  {body}
  ROOT all = ({shapes}) tuple({", ".join(results)})
}}
"""


@pytest.mark.parametrize("passes", ["fusion,dce", "row_fusion,fusion,dce"])
@pytest.mark.parametrize("seed", range(24))
def test_fusion_of_a_random_graph(seed: int, passes: str) -> None:
    text = random_program(seed, count=60 + 10 * (seed % 8), reach=3 + 4 * (seed % 5))
    module = parse(text)
    arguments = random_inputs(module, seed)
    expected = evaluate(module, arguments)
    options = Options(fusion_instructions=12) if seed % 3 == 0 else Options()
    run_pipeline(module, passes, options)
    assert any(i.opcode == "fusion" for i in module.entry)
    for got, want in zip(evaluate(module, arguments), expected, strict=True):
        np.testing.assert_array_equal(got, want)
