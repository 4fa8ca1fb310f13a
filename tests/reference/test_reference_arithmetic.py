"""Corners of arithmetic: rows X01 to X17, X23, X24 and X33 of the language."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from evaluating import INF, NAN, f32, one, s32, same, u32

MIN, MAX = -(2**31), 2**31 - 1


@pytest.mark.parametrize(
    "op, a, b, expected",
    [
        ("divide", s32(7, MIN, -7, 7, 0), s32(0, -1, 2, -2, 0), [-1, MIN, -3, -3, -1]),
        ("divide", u32(7, 0, 9), u32(0, 0, 2), [2**32 - 1, 2**32 - 1, 4]),
        ("remainder", s32(5, MIN, -7, 7), s32(0, -1, 2, -2), [5, 0, -1, 1]),
        ("remainder", f32(-7, 5, 5, INF), f32(2, 0, INF, 2), [-1, NAN, 5, NAN]),
        ("shift-left", s32(1, 1, 1, 3), s32(31, 32, -1, 1), [MIN, 0, 0, 6]),
        ("shift-right-logical", s32(-8, -8, -8, -8), s32(1, 32, -1, 31), [2**31 - 4, 0, 0, 1]),
        ("shift-right-arithmetic", s32(-8, -8, -8, 8), s32(1, 32, -1, 40), [-4, -1, -1, 0]),
        ("maximum", f32(NAN, 1, -0.0, 0.0, -0.0), f32(1, NAN, 0.0, -0.0, -0.0), [NAN, NAN, 0.0, 0.0, -0.0]),
        ("minimum", f32(NAN, 1, -0.0, 0.0, 0.0), f32(1, NAN, 0.0, -0.0, 0.0), [NAN, NAN, -0.0, -0.0, 0.0]),
        ("power", f32(0, NAN, 1, -8, 0, 2), f32(0, 0, NAN, 1 / 3, -1, 10), [1, 1, 1, NAN, INF, 1024]),
        ("power", s32(2, 0, 3, -1, 0, 1), s32(-1, 0, 40, -3, -1, -7), [0, 1, 689956897, -1, 0, 1]),
        ("mulhi", s32(MIN, MIN, 5), s32(MIN, MAX, 7), [2**30, -(2**30), 0]),
        ("mulhi", u32(2**32 - 1), u32(2**32 - 1), [2**32 - 2]),
        ("atan2", f32(0.0, -0.0), f32(-1, -1), [np.pi, -np.pi]),
    ],
)
def test_binary(op: str, a: np.ndarray, b: np.ndarray, expected: list) -> None:
    kind = "f32" if a.dtype == np.float32 else "s32" if a.dtype == np.int32 else "u32"
    same(one(f"{kind}[{len(a)}] {op}(p0, p1)", a, b), expected)


@pytest.mark.parametrize(
    "op, a, expected",
    [
        ("sign", f32(NAN, -0.0, 0.0, -3, INF), [NAN, -0.0, 0.0, -1, 1]),
        ("abs", s32(MIN, -1, 1), [MIN, 1, 1]),
        ("abs", f32(-0.0, -INF), [0.0, INF]),
        ("negate", s32(MIN, 5), [MIN, -5]),
        ("negate", f32(0.0, -0.0), [-0.0, 0.0]),
        ("count-leading-zeros", s32(0, 1, -1, 255), [32, 31, 0, 24]),
        ("popcnt", s32(-1, 0, 5), [32, 0, 2]),
        ("round-nearest-afz", f32(0.5, 2.5, -0.5, 0.49999997, -0.2), [1, 3, -1, 0, -0.0]),
        ("round-nearest-even", f32(0.5, 2.5, -0.5, 1.5), [0, 2, -0.0, 2]),
        ("not", s32(0, -1), [-1, 0]),
        ("sqrt", f32(-1, 4), [NAN, 2]),
        ("rsqrt", f32(-0.0, 4), [-INF, 0.5]),
        ("log", f32(0, 1, -1), [-INF, 0, NAN]),
        ("cbrt", f32(-8), [-2]),
        ("log-plus-one", f32(-1), [-INF]),
        ("exponential-minus-one", f32(1e-10), [1e-10]),
        ("erf", f32(0, INF, -INF, NAN), [0, 1, -1, NAN]),
        ("logistic", f32(0, INF, -INF), [0.5, 1, 0]),
        ("tanh", f32(INF, -0.0), [1, -0.0]),
    ],
)
def test_unary(op: str, a: np.ndarray, expected: list) -> None:
    kind = "f32" if a.dtype == np.float32 else "s32"
    same(one(f"{kind}[{len(a)}] {op}(p0)", a), expected)


def test_clamp_lets_nan_pass_and_the_upper_bound_win() -> None:
    x = f32(NAN, -5, 0.5, 9)
    same(one("f32[4] clamp(p1, p0, p2)", x, np.float32(0), np.float32(1)), [NAN, 0, 0.5, 1])
    same(one("f32[4] clamp(p1, p0, p2)", x, np.float32(3), np.float32(2)), [NAN, 2, 2, 2])


def test_compare_by_ieee_rules_and_in_total_order() -> None:
    order = f32(-NAN, -INF, -1, -0.0, 0.0, 1, INF, NAN)
    order[0] = np.copysign(np.float32(NAN), -1)
    ahead, behind = order[:-1], order[1:]
    less = one("pred[7] compare(p0, p1), direction=LT, type=TOTALORDER", ahead, behind)
    same(less, [True] * 7)
    same(
        one("pred[7] compare(p0, p1), direction=LT", ahead, behind),
        [False, True, True, False, True, True, False],
    )
    equal = one("pred[2] compare(p0, p0), direction=EQ", f32(NAN, 1))
    same(equal, [False, True])


def test_integers_compare_by_their_own_sign() -> None:
    same(one("pred[1] compare(p0, p1), direction=LT", s32(-1), s32(1)), [True])
    same(one("pred[1] compare(p0, p1), direction=LT", u32(2**32 - 1), u32(1)), [False])


def test_denormals_are_zero_to_arithmetic_and_stay_in_moves() -> None:
    tiny = f32(1e-40, -1e-40)
    same(one("f32[2] add(p0, p0)", tiny), [0.0, -0.0])
    same(one("f32[2] multiply(p0, p1)", tiny, f32(1e30, 1e30)), [0.0, -0.0])
    same(one("f32[2] multiply(p0, p1)", f32(1e-30, -1e-30), f32(1e-10, 1e-10)), [0.0, -0.0])
    same(one("pred[2] compare(p0, p1), direction=EQ", tiny, f32(0, 0)), [True, True])
    same(one("f32[2] sign(p0)", tiny), [0.0, -0.0])
    same(one("f32[2] negate(p0)", tiny), -tiny)
    same(one("f32[2] reverse(p0), dimensions={0}", tiny), tiny[::-1])
    same(one("f16[1] add(p0, p0)", np.array([6e-8], np.float16)), [1.2e-7])


def test_small_floats_round_after_every_op() -> None:
    big = np.array([256, 1], ml_dtypes.bfloat16)
    same(one("bf16[2] add(p0, p1)", big, np.array([1, 2**-9], ml_dtypes.bfloat16)), [256, 1])
    e4m3 = np.array([17, 100], ml_dtypes.float8_e4m3fn)
    same(one("f8e4m3fn[2] multiply(p0, p0)", e4m3), [256, NAN])


def test_narrow_integers_wrap() -> None:
    a = np.array([7, -8, 3], np.int8).astype(ml_dtypes.int4)
    assert one("s4[3] add(p0, p0)", a).astype(np.int8).tolist() == [-2, 0, 6]
    assert one("s4[3] divide(p0, p1)", a, np.array([0, -1, 2], np.int8).astype(ml_dtypes.int4)).astype(
        np.int8
    ).tolist() == [-1, -8, 1]
    assert one(
        "s4[3] shift-right-logical(p0, p1)", a, np.array([1, 1, 4], np.int8).astype(ml_dtypes.int4)
    ).astype(np.int8).tolist() == [3, 4, 0]
    assert one("s4[3] count-leading-zeros(p0)", a).astype(np.int8).tolist() == [1, 0, 2]


def test_pred_adds_as_or_and_multiplies_as_and() -> None:
    a, b = np.array([True, True, False]), np.array([True, False, False])
    same(one("pred[3] add(p0, p1)", a, b), [True, True, False])
    same(one("pred[3] multiply(p0, p1)", a, b), [True, False, False])
    same(one("pred[3] not(p0)", a), [False, False, True])


def test_complex_functions_near_zero_keep_their_digits() -> None:
    z = np.array([1e-9 + 1e-9j], np.complex128)
    for op in ("log-plus-one", "exponential-minus-one"):
        got = one(f"c128[1] {op}(p0)", z)
        np.testing.assert_allclose(got, z, rtol=1e-8)


def test_complex_parts() -> None:
    z = np.array([3 + 4j, 0, -2j], np.complex64)
    same(one("f32[3] abs(p0)", z), [5, 0, 2])
    same(one("f32[3] imag(p0)", z), [4, 0, -2])
    np.testing.assert_allclose(one("c64[3] sign(p0)", z), [0.6 + 0.8j, 0, -1j], rtol=1e-6)
    same(one("f32[2] imag(p0)", f32(1, 2)), [0, 0])
    got = one("c64[2] complex(p0, p1)", f32(1, 2), f32(-3, 4))
    assert got.tolist() == [1 - 3j, 2 + 4j]
