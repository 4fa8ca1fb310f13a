"""Changes of element type: rows X07 to X10 and X23 of the language."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from evaluating import INF, NAN, f32, one, s32, same, u32

from hloc.ir.dtypes import dtype_named

MIN, MAX = -(2**31), 2**31 - 1


@pytest.mark.parametrize(
    "target, values, expected",
    [
        ("s32", f32(NAN, INF, -INF, 3e9, 2.9, -2.9), [0, MAX, MIN, MAX, 2, -2]),
        ("u8", f32(-1, 256, NAN, 255.9), [0, 255, 0, 255]),
        ("u32", f32(-1, 5e9), [0, 2**32 - 1]),
        ("s64", f32(1e30, -1e30), [2**63 - 1, -(2**63)]),
        ("pred", f32(0.5, 0, -0.0, NAN, 1e-40), [True, False, False, True, False]),
        ("s8", s32(300, -9), [44, -9]),
        ("s4", s32(300, -9, 7, 8), [-4, 7, 7, -8]),
        ("s4", f32(9, -9, 3.9), [7, -8, 3]),
        ("u2", s32(300, -9, 7), [0, 3, 3]),
        ("bf16", f32(1.01, 3.4e38), [1.0078125, INF]),
        ("bf16", s32(257), [256]),
        ("f8e4m3fn", f32(464, 465, INF, -1000, 448), [448, NAN, NAN, NAN, 448]),
        ("f8e5m2", f32(61440, 61439, 57344), [INF, 57344, 57344]),
        ("f8e4m3b11fnuz", f32(31, 30, -0.0), [NAN, 30, 0.0]),
        ("f4e2m1fn", f32(100, -INF, 0.25), [6, -6, 0]),
        ("f16", np.array([1 + 2**-11 + 2**-40]), [1]),
        ("f32", np.array([1e-40, 1e300]), [0, INF]),
    ],
)
def test_convert(target: str, values: np.ndarray, expected: list) -> None:
    got = one(f"{target}[{len(values)}] convert(p0)", values)
    assert got.dtype == dtype_named(target).numpy
    same(got, np.array(expected, dtype=object))


def test_f32_to_bf16_and_to_complex_keep_denormals() -> None:
    tiny = f32(1e-40)
    assert one("bf16[1] convert(p0)", tiny).astype(np.float64)[0] > 0
    assert one("c64[1] convert(p0)", tiny)[0].real > 0
    assert one("f64[1] convert(p0)", tiny)[0] == 0


def test_complex_to_real_takes_the_real_part() -> None:
    same(one("f32[2] convert(p0)", np.array([1 + 2j, 2.5 - 3j], np.complex64)), [1, 2.5])
    same(one("s32[1] convert(p0)", np.array([-3.7 - 1j], np.complex64)), [-3])


def test_bitcast_convert_splits_and_joins_with_low_bits_first() -> None:
    words = u32(0x04030201, 0x08070605)
    same(one("u8[2,4] bitcast-convert(p0)", words), [[1, 2, 3, 4], [5, 6, 7, 8]])
    same(one("u32[2] bitcast-convert(p0)", np.arange(1, 9, dtype=np.uint8).reshape(2, 4)), words)
    same(one("s32[1] bitcast-convert(p0)", f32(1)), [0x3F800000])


def test_bitcast_convert_of_narrow_types() -> None:
    nibbles = one("u4[2,2] bitcast-convert(p0)", np.array([0x21, 0xF3], np.uint8))
    assert nibbles.astype(np.uint8).tolist() == [[1, 2], [3, 15]]
    assert one("u8[2] bitcast-convert(p0)", nibbles).tolist() == [0x21, 0xF3]
    signed = one("s4[2] bitcast-convert(p0)", np.array([15, 7], np.uint8).astype(ml_dtypes.uint4))
    assert signed.astype(np.int8).tolist() == [-1, 7]


@pytest.mark.parametrize(
    "bits, values, expected",
    [
        ((5, 10), f32(1e6, 1e-8, 65519, 65520, 6.2e-5), [INF, 0, 65504, INF, 6.1988831e-05]),
        ((8, 7), f32(1.00390625, 1.01171875, NAN), [1, 1.015625, NAN]),
        ((4, 0), f32(0.3, 1.5, 1.25, 2.0**9), [0.25, 2, 1, INF]),
    ],
)
def test_reduce_precision(bits: tuple[int, int], values: np.ndarray, expected: list) -> None:
    attributes = f"exponent_bits={bits[0]}, mantissa_bits={bits[1]}"
    same(one(f"f32[{len(values)}] reduce-precision(p0), {attributes}", values), expected)


def test_stochastic_convert_rounds_away_when_the_random_bits_are_below_the_fraction() -> None:
    x, half = f32(1.5, 1.5, -1.5, -1.5, 3.0, NAN, 1e10), 2**31
    random = u32(half - 1, half, half - 1, half, 0, 0, 0)
    same(one("s8[7] stochastic-convert(p0, p1)", x, random), [2, 1, -2, -1, 3, 0, 127])


def test_stochastic_convert_to_a_float_takes_one_of_the_neighbours() -> None:
    x = f32(1 + 2**-9, 1 + 2**-9, -1 - 2**-9, 1.0)
    random = u32(2**30 - 1, 2**30, 2**30 - 1, 0)
    same(one("bf16[4] stochastic-convert(p0, p1)", x, random), [1 + 2**-7, 1, -1 - 2**-7, 1])
