"""Two conversions in a row give after the rules what the evaluator gives for each, between any three types."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import hloc
from hloc.ir import dtypes
from hloc.ir.dtypes import DType
from hloc.reference.evaluate import evaluate

INTEGERS = (dtypes.PRED, dtypes.S1, dtypes.S4, dtypes.U4, dtypes.S8, dtypes.U8, dtypes.S32, dtypes.U32)
FLOATS = (dtypes.F8E4M3FN, dtypes.F8E8M0FNU, dtypes.F16, dtypes.BF16, dtypes.F32, dtypes.F64)
NUMBERS = np.array([-1e9, -300, -130, -9, -8, -2, -1, 0, 1, 2, 7, 8, 15, 100, 200, 300, 1e9])


def values(dtype: DType) -> np.ndarray:
    if dtype is dtypes.PRED:
        return NUMBERS != 0
    with np.errstate(over="ignore"):
        return (NUMBERS.astype(np.int64) if dtype.is_integer else NUMBERS).astype(dtype.numpy)


@pytest.mark.parametrize("first", INTEGERS + FLOATS, ids=str)
def test_rules_keep_the_answer(first: DType) -> None:
    ways = list(product(INTEGERS + FLOATS, repeat=2))
    lines = [
        f"m{i} = {middle}[17] convert(x)\n  r{i}_ = {last}[17] convert(m{i})"
        for i, (middle, last) in enumerate(ways)
    ]
    shapes, names = ", ".join(f"{last}[17]" for _, last in ways), ", ".join(f"r{i}_" for i in range(len(ways)))
    body = "\n  ".join([f"x = {first}[17] parameter(0)", *lines, f"ROOT t = ({shapes}) tuple({names})"])
    module = hloc.parse(f"HloModule m\nENTRY main {{\n  {body}\n}}\n")
    with np.errstate(all="ignore"):
        want = evaluate(module, [values(first)])
        got = evaluate(hloc.optimize(module), [values(first)])
    for way, expected, result in zip(ways, want, got, strict=True):
        np.testing.assert_array_equal(
            np.asarray(result).astype(float), np.asarray(expected).astype(float), err_msg=f"{first} by {way}"
        )
