"""Integer and pred ops of every width against the evaluator, and the language's rows about corners."""

import numpy as np
import pytest
from batch import INTEGERS, Batch, Case, check

from hloc.codegen.scalar_integer import INTEGERS as ROWS
from hloc.codegen.scalar_integer import PREDICATES
from hloc.ir.dtypes import PRED, S8, S32, U32

UNARY = ("abs", "count-leading-zeros", "negate", "not", "popcnt", "sign")


def arity(opcode):
    return 3 if opcode == "clamp" else 1 if opcode in UNARY else 2


CASES = [Case(opcode, (dtype,) * arity(opcode), dtype) for dtype in INTEGERS for opcode in ROWS]
CASES += [Case(opcode, (PRED,) * arity(opcode), PRED) for opcode in PREDICATES]


@pytest.fixture(scope="module")
def batch():
    return Batch(CASES, level=0)


@pytest.mark.parametrize("opcode", list(ROWS))
def test_integer_op(batch, opcode):
    for case in CASES:
        if case.opcode == opcode:
            check(batch, case)


@pytest.mark.parametrize(
    "opcode, dtype, operands, expected",
    [
        ("divide", S32, ([7, -(2**31), -7, 7], [0, -1, 2, -2]), [-1, -(2**31), -3, -3]),
        ("divide", U32, ([7], [0]), [2**32 - 1]),
        ("remainder", S32, ([5, -(2**31), -7, 7], [0, -1, 2, -2]), [5, 0, -1, 1]),
        ("shift-left", S32, ([1, 1, 1], [31, 32, -1]), [-(2**31), 0, 0]),
        ("shift-right-logical", S32, ([-1, -1, -1], [31, 32, -1]), [1, 0, 0]),
        ("shift-right-arithmetic", S32, ([-8, -8, -8, 8], [1, 32, -1, 99]), [-4, -1, -1, 0]),
        ("power", S32, ([2, 0, 3, -1, 0, 1], [-1, 0, 40, -3, -1, -5]), [0, 1, 689956897, -1, 0, 1]),
        ("count-leading-zeros", S32, ([0, 1, -1],), [32, 31, 0]),
        ("popcnt", S32, ([-1, 0],), [32, 0]),
        ("abs", S32, ([-(2**31), -5],), [-(2**31), 5]),
        ("negate", S32, ([-(2**31), 5],), [-(2**31), -5]),
        ("mulhi", S8, ([-128, 127], [-128, -128]), [64, -64]),
        ("clamp", S32, ([3, 0, 9], [5, -5, 5], [4, 9, 1]), [4, 0, 1]),
    ],
)
def test_language_rows(batch, opcode, dtype, operands, expected):
    case = Case(opcode, (dtype,) * len(operands), dtype)
    arrays = [np.array(operand, dtype.numpy) for operand in operands]
    assert batch.run(case, *arrays).tolist() == expected
