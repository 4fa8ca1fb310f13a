"""Conversions between all pairs of types, comparisons, precision, against the evaluator and by row."""

import numpy as np
import pytest
from batch import ARRAY_TYPES, COMPLEXES, FLOATS, INTEGERS, Batch, Case, check

from hloc.ir.dtypes import (
    BF16,
    C64,
    F8E4M3FN,
    F8E5M2,
    F16,
    F32,
    F64,
    PRED,
    S4,
    S8,
    S32,
    U4,
    U8,
    U16,
    U32,
    U64,
)

CONVERTS = [Case("convert", (source,), target) for source in ARRAY_TYPES for target in ARRAY_TYPES]
BITCASTS = [
    Case("bitcast-convert", (source,), target)
    for source in ARRAY_TYPES
    for target in ARRAY_TYPES
    if source.bits == target.bits < 128 and source is not PRED and target is not PRED
]
COMPARES = [
    Case("compare", (dtype, dtype), PRED, {"direction": direction, **kind})
    for dtype in ARRAY_TYPES
    for direction in ("EQ", "NE", "LT", "LE", "GT", "GE")
    for kind in ({}, {"type": "TOTALORDER"})
    if (dtype.is_float or not kind) and (not dtype.is_complex or direction in ("EQ", "NE"))
]
PRECISIONS = [(5, 10), (8, 7), (4, 3), (5, 2), (8, 23), (11, 52), (2, 1), (3, 0)]
REDUCED = [
    Case("reduce-precision", (dtype,), dtype, {"exponent_bits": exponent, "mantissa_bits": mantissa})
    for dtype in (F16, BF16, F32, F64, F8E5M2)
    for exponent, mantissa in PRECISIONS
]
RANDOM = {F16: U16, BF16: U16, F32: U32, F64: U64}
STOCHASTIC = [
    Case("stochastic-convert", (source, random), target)
    for source, random in RANDOM.items()
    for target in [*INTEGERS, *FLOATS]
    if target.is_integer or target.bits < source.bits
]
SELECTS = [Case("select", (PRED, dtype, dtype), dtype) for dtype in ARRAY_TYPES]
ALL_CASES = [*CONVERTS, *BITCASTS, *COMPARES, *REDUCED, *STOCHASTIC, *SELECTS]


@pytest.fixture(scope="module")
def batch():
    return Batch(ALL_CASES, level=0)


@pytest.mark.parametrize("source", ARRAY_TYPES, ids=str)
def test_convert_from(batch, source):
    for case in CONVERTS:
        if case.operands[0] is source:
            check(batch, case)


@pytest.mark.parametrize("dtype", ARRAY_TYPES, ids=str)
def test_compare(batch, dtype):
    for case in COMPARES:
        if case.operands[0] is dtype:
            check(batch, case)


@pytest.mark.parametrize("case", REDUCED, ids=lambda case: case.name)
def test_reduce_precision(batch, case):
    check(batch, case)


@pytest.mark.parametrize("source", list(RANDOM), ids=str)
def test_stochastic_convert(batch, source):
    for case in STOCHASTIC:
        if case.operands[0] is source:
            check(batch, case)


def test_bitcast_convert_keeps_every_bit(batch):
    for case in BITCASTS:
        source = case.operands[0]
        bits = np.random.default_rng(0).integers(0, 256, (500, source.itemsize), dtype=np.uint8)
        bits &= 0xFF if source.bits >= 8 else (1 << source.bits) - 1
        got = batch.run(case, bits.view(source.numpy).reshape(-1))
        assert (got.view(np.uint8).reshape(bits.shape) == bits).all(), case.name


def test_select_moves_bits_unchanged(batch):
    for case in SELECTS:
        dtype = case.result
        rng = np.random.default_rng(0)
        bits = rng.integers(0, 256 if dtype is not PRED else 2, (2, 500, dtype.itemsize), dtype=np.uint8)
        if dtype.is_subbyte:
            bits &= (1 << dtype.bits) - 1
        yes, no = (part.view(dtype.numpy).reshape(-1) for part in bits)
        condition = rng.random(500) < 0.5
        got = batch.run(case, condition, yes, no).view(np.uint8).reshape(bits[0].shape)
        assert (got == np.where(condition[:, None], *bits)).all(), case.name


@pytest.mark.parametrize(
    "source, target, values, expected",
    [
        (F32, S32, [np.nan, np.inf, -np.inf, 3e9, 2.9, -2.9], [0, 2**31 - 1, -(2**31), 2**31 - 1, 2, -2]),
        (F32, U8, [-1, 256, np.nan, 255.9], [0, 255, 0, 255]),
        (F32, U32, [-1, 5e9], [0, 2**32 - 1]),
        (F32, S4, [-9, 9, 2.5, np.nan], [-8, 7, 2, 0]),
        (S32, S8, [300, -129], [44, 127]),
        (S32, U4, [17, -1], [1, 15]),
        (F32, PRED, [0.5, np.nan, -0.0], [True, True, False]),
        (F32, BF16, [3.4e38, 1.00390625], [np.inf, 1.0]),
        (F32, F8E4M3FN, [464, 465, np.inf], [448, np.nan, np.nan]),
        (F32, F8E5M2, [61440, 61439], [np.inf, 57344]),
        (C64, F32, [1 + 2j], [1]),
    ],
)
def test_language_rows(batch, source, target, values, expected):
    got = batch.run(Case("convert", (source,), target), np.array(values, source.numpy))
    np.testing.assert_array_equal(got.astype(np.float64), np.array(expected, np.float64))


def test_total_order():
    order = np.array([-np.nan, -np.inf, -1, -0.0, 0.0, 1, np.inf, np.nan], np.float32)
    case = Case("compare", (F32, F32), PRED, {"direction": "LT", "type": "TOTALORDER"})
    left, right = (grid.reshape(-1) for grid in np.meshgrid(order, order, indexing="ij"))
    got = Batch([case], level=0).run(case, left, right).reshape(8, 8)
    assert (got == np.triu(np.ones((8, 8), bool), 1)).all()


def test_all_array_types_are_covered():
    assert {case.operands[0] for case in CONVERTS} == {*INTEGERS, *FLOATS, *COMPLEXES, PRED}
