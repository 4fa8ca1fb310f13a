"""Float ops of every format against the evaluator, and the rows of the language that name corners."""

import numpy as np
import pytest
from batch import FLOATS, Batch, Case, check, evaluate, operand_values, same, tiny

from hloc.codegen.scalar_float import ELEMENTARY
from hloc.ir.dtypes import BF16, F8E4M3FN, F32, F64, PRED

EXACT_UNARY = ("abs", "ceil", "floor", "negate", "round-nearest-afz", "round-nearest-even", "sign", "sqrt")
EXACT_BINARY = ("add", "divide", "maximum", "minimum", "multiply", "remainder", "subtract")
EXACT = {**dict.fromkeys(EXACT_UNARY, 1), **dict.fromkeys(EXACT_BINARY, 2), "clamp": 3}
CASES = [Case(opcode, (dtype,) * count, dtype) for dtype in FLOATS for opcode, count in EXACT.items()]
CASES += [Case("is-finite", (dtype,), PRED) for dtype in FLOATS]
FUNCTIONS = [
    Case(opcode, (dtype,) * (2 if opcode in ("atan2", "power") else 1), dtype)
    for dtype in FLOATS
    for opcode in ELEMENTARY
]


@pytest.fixture(scope="module")
def batch():
    return Batch([*CASES, *FUNCTIONS], level=0)


@pytest.mark.parametrize("opcode", [*EXACT, "is-finite"])
def test_exact_op(batch, opcode):
    for case in CASES:
        if case.opcode == opcode:
            check(batch, case)


@pytest.mark.parametrize("opcode", list(ELEMENTARY))
def test_elementary_function_of_narrow_formats(batch, opcode):
    """Computed in f32 to within a unit in the last place, and rounded: hardly ever not the nearest."""
    for case in FUNCTIONS:
        if case.opcode == opcode and case.result.bits < 32:
            operands = operand_values(case.operands)
            got, want = (
                array.astype(np.float64) for array in (batch.run(case, *operands), evaluate(case, operands))
            )
            allowed = {
                "rtol": 2.0**-case.result.mantissa_bits,
                "atol": 2 * tiny(case.result),
                "equal_nan": True,
            }
            far = ~(np.isclose(got, want, **allowed) | same(got, want, case.result))
            assert not far.any(), (case.name, operands[0][far][:3], got[far][:3], want[far][:3])
            normal = np.abs(want) > tiny(case.result)
            assert np.mean(got[normal] != want[normal]) < 0.002, case.name


@pytest.mark.parametrize("opcode", list(ELEMENTARY))
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_elementary_function(batch, opcode, dtype):
    """Within 3 units of the evaluator, itself off by one; its special values exactly."""
    case = next(case for case in FUNCTIONS if case.opcode == opcode and case.result is dtype)
    operands = operand_values(case.operands)
    got, want = batch.run(case, *operands), evaluate(case, operands)
    normal = np.isfinite(want) & (np.abs(want) >= tiny(dtype))
    with np.errstate(all="ignore"):
        error = np.where(normal, np.abs(got - want) / np.spacing(np.abs(want)), 0)
    worst = np.argmax(error)
    assert error[worst] <= 3, (case.name, [operand[worst] for operand in operands], got[worst], want[worst])
    special = ~np.isfinite(want)
    np.testing.assert_array_equal(got[special], want[special])
    zero = want == 0
    assert (np.abs(got[zero]) < tiny(dtype)).all() and (np.signbit(got[zero]) == np.signbit(want[zero])).all()


def run(batch, opcode, dtype, *operands, result=None):
    case = Case(opcode, (dtype,) * len(operands), result or dtype)
    return batch.run(case, *[np.array(operand, np.float32).astype(dtype.numpy) for operand in operands])


@pytest.mark.parametrize(
    "opcode, operands, expected",
    [
        ("maximum", ([np.nan, 1, -0.0, 0.0], [1, np.nan, 0.0, -0.0]), [np.nan, np.nan, 0.0, 0.0]),
        ("minimum", ([np.nan, 1, 0.0, -0.0], [1, np.nan, -0.0, 0.0]), [np.nan, np.nan, -0.0, -0.0]),
        ("clamp", ([0, 3], [np.nan, 2], [1, 1]), [np.nan, 1]),
        ("sign", ([np.nan, -0.0, -3, 2],), [np.nan, -0.0, -1, 1]),
        ("remainder", ([-7, 5, 5, np.inf, -6], [2, 0, np.inf, 2, 3]), [-1, np.nan, 5, np.nan, -0.0]),
        ("round-nearest-afz", ([0.5, 2.5, -0.5, 0.49999997],), [1, 3, -1, 0]),
        ("round-nearest-even", ([0.5, 2.5, -0.5],), [0, 2, -0.0]),
        (
            "power",
            ([0, np.nan, 1, -8, 0, -2, -np.inf], [0, 0, np.nan, 1 / 3, -1, 3, -3]),
            [1, 1, 1, np.nan, np.inf, -8, -0.0],
        ),
        ("rsqrt", ([-0.0, 0.0, np.inf, -1],), [-np.inf, np.inf, 0, np.nan]),
        ("log", ([0, -0.0, -1, np.inf],), [-np.inf, -np.inf, np.nan, np.inf]),
        ("log-plus-one", ([-1, -2, -0.0],), [-np.inf, np.nan, -0.0]),
        ("cbrt", ([-8, -0.0, np.inf],), [-2, -0.0, np.inf]),
        ("sine", ([np.inf, -0.0],), [np.nan, -0.0]),
        ("exponential", ([-np.inf, np.inf, 0, 800],), [0, np.inf, 1, np.inf]),
        ("logistic", ([-np.inf, np.inf, 0],), [0, 1, 0.5]),
        ("tanh", ([-np.inf, np.inf, -0.0],), [-1, 1, -0.0]),
    ],
)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_language_rows(batch, dtype, opcode, operands, expected):
    got = run(batch, opcode, dtype, *operands)
    want = np.array(expected, dtype.numpy)
    np.testing.assert_array_equal(got, want)
    ordered = ~np.isnan(want)
    assert (np.signbit(got) == np.signbit(want))[ordered].all()


def test_denormals_are_zeros(batch):
    small = np.array([1e-39, -1e-39], np.float32)
    product = batch.run(Case("multiply", (F32, F32), F32), small, np.full(2, 1e10, np.float32))
    assert product.tolist() == [0, 0] and np.signbit(product).tolist() == [False, True]


def test_every_bf16_op_rounds(batch):
    """1 + 2**-8 is a tie and goes to even; what was lost must not come back."""
    got = run(batch, "add", BF16, [1.0, 1.0078125], [2.0**-8, 2.0**-8]).astype(np.float32)
    assert got.tolist() == [1.0, 1.015625]


def test_f8_overflow_is_nan_where_there_is_no_infinity(batch):
    got = run(batch, "multiply", F8E4M3FN, [448, 16], [2, 16]).astype(np.float32)
    assert np.isnan(got[0]) and got[1] == 256
