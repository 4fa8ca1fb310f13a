"""Attention on devices against the evaluator: sizes, layouts, types, masks, and what may stand around the products."""

from __future__ import annotations

import numpy as np
import pytest
from attention_programs import SIZES, Program
from device_cases import EMULATED, assembles

import hloc
from hloc.arrays import compare, random_inputs
from hloc.options import Options


def run(program: Program, arguments: list[np.ndarray] | None = None) -> None:
    module = hloc.parse(program.text)
    given = random_inputs(module) if arguments is None else arguments
    executable = hloc.compile(module, EMULATED, Options(cache=False))
    if not program.after:
        assert len(executable.program.kernels) == 1
    with np.errstate(all="ignore"):
        expected = hloc.evaluate(module, *given)
    difference = compare(executable(*given), expected)
    assert difference.equal, difference


@pytest.mark.parametrize(
    ("m", "n", "d", "e"),
    [(32, 24, 16, 8), (70, 140, 20, 33), (5, 9, 35, 150)],
)
def test_sizes(m: int, n: int, d: int, e: int) -> None:
    run(Program({"a": 2, "m": m, "n": n, "d": d, "e": e}))


@pytest.mark.parametrize(
    "program",
    [
        Program(SIZES, "dm", "dn", "en", keys_first=True, weights_first=False, masked=True),
        Program(SIZES, "ambd", "anbd", "anbe", weights_first=False),
        Program(SIZES, "abmd", "abnd", "bane", masked=True),
        Program(SIZES, dtype="f64"),
        Program(SIZES, "ambd", "anbd", "bane", dtype="bf16", masked=True),
        Program({"a": 1, "m": 6, "n": 70, "d": 70, "e": 20}, dtype="f16", scaled_queries=True),
        Program(SIZES, after="ROOT t = {shape} tanh(o)"),
    ],
    ids=str,
)
def test_forms(program: Program) -> None:
    run(program)


def test_many_queries_by_matrix_units() -> None:
    run(Program({"a": 1, "m": 260, "n": 66, "d": 16, "e": 8}, dtype="bf16", masked=True))


MIXED = """HloModule mixed
most { x = f32[] parameter(0) y = f32[] parameter(1) ROOT r = f32[] maximum(x, y) }
sum { x = f32[] parameter(0) y = f32[] parameter(1) ROOT r = f32[] add(x, y) }
ENTRY e {
  q = bf16[2,12,24] parameter(0)
  k = bf16[2,40,24] parameter(1)
  v = bf16[2,40,16] parameter(2)
  bias = f32[12,40] parameter(3)
  scores = f32[2,12,40] dot(q, k), lhs_batch_dims={0}, rhs_batch_dims={0}, \
    lhs_contracting_dims={2}, rhs_contracting_dims={2}
  biases = f32[2,12,40] broadcast(bias), dimensions={1,2}
  given = f32[2,12,40] add(scores, biases)
  low = f32[] constant(-inf)
  top = f32[2,12] reduce(given, low), dimensions={2}, to_apply=most
  tops = f32[2,12,40] broadcast(top), dimensions={0,1}
  less = f32[2,12,40] subtract(given, tops)
  power = f32[2,12,40] exponential(less)
  zero = f32[] constant(0)
  total = f32[2,12] reduce(power, zero), dimensions={2}, to_apply=sum
  one = f32[] constant(1)
  ones = f32[2,12] broadcast(one), dimensions={}
  inverse = f32[2,12] divide(ones, total)
  inverses = f32[2,12,40] broadcast(inverse), dimensions={0,1}
  weights = f32[2,12,40] multiply(power, inverses)
  rounded = bf16[2,12,40] convert(weights)
  ROOT o = bf16[2,12,16] dot(rounded, v), lhs_batch_dims={0}, rhs_batch_dims={0}, \
    lhs_contracting_dims={2}, rhs_contracting_dims={1}
}
"""


def test_a_softmax_in_f32_of_products_of_bf16() -> None:
    module = hloc.parse(MIXED)
    given = random_inputs(module)
    executable = hloc.compile(module, EMULATED, Options(cache=False))
    assert len(executable.program.kernels) == 1
    assert compare(executable(*given), hloc.evaluate(module, *given)).equal


def test_what_is_not_finite() -> None:
    program = Program({"a": 1, "m": 8, "n": 70, "d": 4, "e": 4})
    arguments = random_inputs(hloc.parse(program.text))
    arguments[0][0, 1] = np.nan
    arguments[0][0, 2] = np.inf
    arguments[1][0, 3] = -np.inf
    arguments[2][0, 66, 1] = np.inf
    run(program, arguments)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_scores_far_below_zero(dtype: str) -> None:
    """No power of what is far from the greatest score is made."""
    program = Program({"a": 1, "m": 8, "n": 70, "d": 4, "e": 4}, dtype=dtype)
    arguments = random_inputs(hloc.parse(program.text))
    arguments[0] = -100 * np.abs(arguments[0]) - 50
    arguments[1] = np.abs(arguments[1]) + 2
    run(program, [argument.astype(arguments[2].dtype) for argument in arguments])


@pytest.mark.parametrize(
    ("arch", "dtype"), [("sm_80", "bf16"), ("sm_90a", "bf16"), ("sm_90a", "f32"), ("sm_120", "bf16")]
)
def test_kernels_are_assembled(arch: str, dtype: str) -> None:
    sizes = {"a": 4, "b": 8, "m": 512, "n": 512, "d": 64, "e": 64}
    assembles(Program(sizes, "abmd", "abnd", "abne", dtype=dtype, masked=True).text, arch)
