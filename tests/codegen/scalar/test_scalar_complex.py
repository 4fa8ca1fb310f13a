"""Complex ops against mpmath in high precision, and C's answers for infinities and zeros."""

import mpmath
import numpy as np
import pytest
from batch import COMPLEXES, Batch, Case, complex_of

from hloc.codegen.scalar_complex import COMPLEXES as ROWS
from hloc.ir.dtypes import C64, C128
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.reference.table import FUNCTIONS

BINARY = ("add", "atan2", "divide", "multiply", "power", "subtract")
CASES = [
    Case(opcode, (dtype,) * (2 if opcode in BINARY else 1), dtype.real_part if opcode == "abs" else dtype)
    for dtype in COMPLEXES
    for opcode in ROWS
]


def _cbrt(z):
    return mpmath.exp(mpmath.log(z) / 3)


def _arctan_of_quotient(y, x):
    return -1j * mpmath.log((x + 1j * y) / mpmath.sqrt(x * x + y * y))


EXACT = {
    "abs": abs,
    "acos": mpmath.acos,
    "acosh": mpmath.acosh,
    "add": lambda z, w: z + w,
    "asin": mpmath.asin,
    "asinh": mpmath.asinh,
    "atan": mpmath.atan,
    "atan2": _arctan_of_quotient,
    "atanh": mpmath.atanh,
    "cbrt": _cbrt,
    "cosh": mpmath.cosh,
    "cosine": mpmath.cos,
    "divide": lambda z, w: z / w,
    "exponential": mpmath.exp,
    "exponential-minus-one": lambda z: mpmath.exp(z) - 1,
    "log": mpmath.log,
    "log-plus-one": lambda z: mpmath.log(1 + z),
    "logistic": lambda z: 1 / (1 + mpmath.exp(-z)),
    "multiply": lambda z, w: z * w,
    "negate": lambda z: -z,
    "power": lambda z, w: z**w,
    "rsqrt": lambda z: 1 / mpmath.sqrt(z),
    "sign": lambda z: z / abs(z),
    "sine": mpmath.sin,
    "sinh": mpmath.sinh,
    "sqrt": mpmath.sqrt,
    "subtract": lambda z, w: z - w,
    "tan": mpmath.tan,
    "tanh": mpmath.tanh,
}
# Largest error as a multiple of epsilon times the modulus, where the functions lose more than 4.
LOOSE = {"atan2": 1e4, "power": 60.0, "logistic": 8.0, "tan": 6.0, "tanh": 6.0}


@pytest.fixture(scope="module")
def batch():
    return Batch(CASES, level=0)


def numbers(dtype, seed, count=60):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-2, 1, (2, count))
    return complex_of(*(rng.normal(0, 1, (2, count)) * scale), dtype)


def test_every_row_has_a_formula():
    assert set(EXACT) == set(ROWS)


@pytest.mark.parametrize("dtype", COMPLEXES, ids=str)
@pytest.mark.parametrize("opcode", list(ROWS))
def test_accuracy(batch, opcode, dtype):
    case = next(case for case in CASES if case.opcode == opcode and case.operands[0] is dtype)
    operands = [numbers(dtype, seed) for seed in range(len(case.operands))]
    got = batch.run(case, *operands)
    epsilon = float(np.finfo(dtype.real_part.numpy).eps)
    with mpmath.workprec(200):
        for number, row in zip(got, zip(*operands, strict=True), strict=True):
            want = EXACT[opcode](*[mpmath.mpc(complex(z)) for z in row])
            error = abs(mpmath.mpc(complex(number)) - want) / (epsilon * max(abs(want), mpmath.mpf("1e-30")))
            assert error < LOOSE.get(opcode, 4), (opcode, row, number, want, error)


@pytest.mark.parametrize("dtype", COMPLEXES, ids=str)
def test_no_overflow_or_cancellation_on_the_way(batch, dtype):
    big, small = (1e38, 1e-37) if dtype is C64 else (1e308, 1e-307)
    epsilon = 4 * float(np.finfo(dtype.real_part.numpy).eps)

    def run(opcode, *operands, result=dtype):
        case = Case(opcode, (dtype,) * len(operands), result)
        return batch.run(case, *[np.array([operand], dtype.numpy) for operand in operands])[0]

    assert run("divide", big + big * 1j, big - big * 1j) == pytest.approx(1j, rel=epsilon)
    assert run("abs", 3 * small + 4j * small, result=dtype.real_part) == pytest.approx(5 * small, rel=epsilon)
    assert run("log", complex(big, big)).real == pytest.approx(np.log(np.sqrt(2)) + np.log(big), rel=epsilon)
    near_one = dtype.numpy.type(0.6 + 0.8j)
    exact = float(
        mpmath.log(mpmath.mpf(float(near_one.real)) ** 2 + mpmath.mpf(float(near_one.imag)) ** 2) / 2
    )
    assert run("log", near_one).real == pytest.approx(exact, rel=1e-6)
    assert run("log-plus-one", 1e-20 + 1e-12j).real == pytest.approx(1e-20, rel=1e-6)
    limit = 89.0 if dtype is C64 else 710.0
    beyond = run("exponential", complex(limit, 1.5707))
    exact = mpmath.exp(mpmath.mpc(complex(dtype.numpy.type(complex(limit, 1.5707)))))
    assert beyond.real == pytest.approx(float(exact.real), rel=1e-5)


@pytest.mark.parametrize(
    "opcode, operands, expected",
    [
        ("divide", (1 + 1j, 0), complex(np.inf, np.inf)),
        ("divide", (1 + 1j, complex(np.inf, np.nan)), complex(0, 0)),
        ("divide", (complex(np.inf, 0), 1 + 1j), complex(np.inf, -np.inf)),
        ("exponential", (complex(-np.inf, 1),), complex(0, 0)),
        ("exponential", (complex(np.inf, 0),), complex(np.inf, 0)),
        ("log", (complex(0, 0),), complex(-np.inf, 0)),
        ("log", (complex(-np.inf, 0),), complex(np.inf, np.pi)),
        ("sqrt", (complex(-1, 0),), 1j),
        ("sqrt", (complex(-1, -0.0),), 1j),
        ("sqrt", (complex(0, np.inf),), complex(np.inf, np.inf)),
        ("rsqrt", (complex(-1, -0.0),), 1j),
        ("power", (0, 0), 1),
        ("power", (0, 2), 0),
        ("sign", (0,), 0),
        ("tanh", (complex(np.inf, 1),), 1),
        ("sinh", (complex(1000, 0),), complex(np.inf, 0)),
        ("atanh", (complex(0, np.inf),), complex(0, np.pi / 2)),
        ("log-plus-one", (-1,), complex(-np.inf, 0)),
    ],
)
@pytest.mark.parametrize("dtype", COMPLEXES, ids=str)
def test_special_values(batch, dtype, opcode, operands, expected):
    case = Case(opcode, (dtype,) * len(operands), dtype)
    got = batch.run(case, *[np.array([operand], dtype.numpy) for operand in operands])[0]
    want = np.array(expected, C128.numpy)
    np.testing.assert_allclose([got.real, got.imag], [want.real, want.imag], rtol=1e-6)


_PARTS = (np.inf, -np.inf, np.nan, 0.0, -0.0, 1.5, -2.0, 1e30)
_NOT_IN_XLA = ("acos", "acosh", "asin", "asinh", "atan", "atanh", "atan2", "cbrt")


@pytest.mark.parametrize("dtype", COMPLEXES, ids=str)
@pytest.mark.parametrize("opcode", sorted(set(ROWS) - set(_NOT_IN_XLA) - {"multiply"}))
def test_infinities_nans_and_signed_zeros_are_the_evaluators(batch, opcode, dtype):
    """Of one finite operand, parts that are zero have the same sign too. NumPy may fuse steps of products."""
    case = next(case for case in CASES if case.opcode == opcode and case.operands[0] is dtype)
    first = np.array([complex(x, y) for x in _PARTS for y in _PARTS], dtype.numpy)
    operands = [first] if len(case.operands) == 1 else [np.repeat(first, 64), np.tile(first, 64)]
    got = batch.run(case, *operands)
    instruction = _instruction(opcode, [dtype] * len(operands), case.result, got.shape)
    with np.errstate(all="ignore"):
        want = FUNCTIONS[opcode](instruction, operands, None)
    finite = np.isfinite(operands[0]) if len(operands) == 1 else np.zeros(got.shape, bool)
    for a, b in ((got.real, want.real), (got.imag, want.imag)):
        with np.errstate(all="ignore"):
            close = np.abs(a - b) <= 1e-5 * np.abs(b) + 1e-6
        same = (a == b) | close | (np.isnan(a) & np.isnan(b))
        same &= (np.signbit(a) == np.signbit(b)) | ~finite | (a != 0) | (b != 0)
        wrong = [(tuple(o[i] for o in operands), got[i], want[i]) for i in np.flatnonzero(~same)]
        assert not wrong, wrong[:5]


def _instruction(opcode, dtypes, result, dims):
    operands = [
        Instruction("parameter", ArrayShape(dtype, dims), [], {"number": number})
        for number, dtype in enumerate(dtypes)
    ]
    return Instruction(opcode, ArrayShape(result, dims), operands, {})
