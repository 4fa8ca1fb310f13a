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
    [(32, 24, 16, 8), (7, 9, 3, 5), (70, 200, 20, 33), (13, 300, 5, 70), (5, 9, 35, 150)],
)
def test_sizes(m: int, n: int, d: int, e: int) -> None:
    run(Program({"a": 2, "m": m, "n": n, "d": d, "e": e}))


@pytest.mark.parametrize(
    "program",
    [
        Program(SIZES, "dm", "dn", "en", keys_first=True, weights_first=False, masked=True),
        Program(SIZES, "ambd", "anbd", "anbe", weights_first=False),
        Program(SIZES, "abmd", "abnd", "bane", masked=True),
        Program(SIZES, scaled_queries=True),
        Program(SIZES, dtype="f64"),
        Program(SIZES, "ambd", "anbd", "bane", dtype="bf16", masked=True),
        Program({"a": 1, "m": 6, "n": 70, "d": 70, "e": 20}, dtype="f16", scaled_queries=True),
        Program(SIZES, after="ROOT t = {shape} tanh(o)"),
    ],
    ids=str,
)
def test_forms(program: Program) -> None:
    run(program)


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


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_kernels_are_assembled(arch: str, dtype: str) -> None:
    sizes = {"a": 4, "b": 8, "m": 512, "n": 512, "d": 64, "e": 64}
    assembles(Program(sizes, "abmd", "abnd", "abne", dtype=dtype, masked=True).text, arch)
