"""dot and its kin, convolution, fft, cholesky, triangular-solve."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from evaluating import NAN, f32, one, s32, same


def test_dot_orders_batch_left_right() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 4, 5)), rng.standard_normal((5, 3, 6))
    numbers = "lhs_batch_dims={0}, rhs_batch_dims={1}, lhs_contracting_dims={2}, rhs_contracting_dims={0}"
    np.testing.assert_allclose(
        one(f"f64[3,4,6] dot(p0, p1), {numbers}", x, y), np.einsum("bik,kbj->bij", x, y)
    )
    numbers = "lhs_contracting_dims={0,2}, rhs_contracting_dims={1,0}"
    np.testing.assert_allclose(one(f"f64[4,6] dot(p0, p1), {numbers}", x, y), np.einsum("bik,kbj->ij", x, y))
    np.testing.assert_allclose(one("f64[3,4,5,5,3,6] dot(p0, p1)", x, y), np.multiply.outer(x, y))


def test_integer_dots_wrap_in_the_type_of_the_result() -> None:
    contract = "lhs_contracting_dims={0}, rhs_contracting_dims={0}"
    x = np.array([100, 100], np.int8)
    same(one(f"s32[] dot(p0, p0), {contract}", x), 20000)
    same(one(f"s8[] dot(p0, p0), {contract}", x), np.int64(20000).astype(np.int8))
    big = s32(2**30, 3, -(2**31))
    same(one(f"s32[] dot(p0, p0), {contract}", big), np.array(2**60 + 9 + 2**62).astype(np.int32))
    huge = np.array([2**63 + 5, 7], np.uint64)
    same(one(f"u64[] dot(p0, p0), {contract}", huge), ((2**63 + 5) ** 2 + 49) % 2**64)
    nibbles = np.array([7, 7], np.int8).astype(ml_dtypes.int4)
    same(one(f"s32[] dot(p0, p0), {contract}", nibbles), 98)


@pytest.mark.parametrize(
    "line",
    [
        "s32[1,1] dot(p0, p1), lhs_contracting_dims={1}, rhs_contracting_dims={1}",
        "s32[1,1,1] convolution(p0, p1), window={size=2}, dim_labels=b0f_o0i->b0f",
    ],
    ids=["dot", "convolution"],
)
def test_integers_of_floats_are_converted_sums(line: str) -> None:
    dims = (1, 2, 1) if "convolution" in line else (1, 2)
    one_and_a_half = f32(1.5, 1.5).reshape(dims)
    for left, expected in (((1.5, 1.5), 4), ((3e9, 3e9), 2**31 - 1), ((-np.inf, 0), -(2**31)), ((NAN, 1), 0)):
        same(one(line, f32(*left).reshape(dims), one_and_a_half).reshape(1), [expected])


def test_small_float_dots_round_once() -> None:
    contract = "lhs_contracting_dims={0}, rhs_contracting_dims={0}"
    x = np.array([16, 1, 0.5], ml_dtypes.float8_e4m3fn)
    same(one(f"f32[] dot(p0, p0), {contract}", x), 257.25)
    y = np.ones(1000, ml_dtypes.bfloat16)
    same(one(f"bf16[] dot(p0, p0), {contract}", y), 1000)


def test_empty_contraction_is_zero() -> None:
    line = "f32[2,3] dot(p0, p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    same(one(line, np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32)), np.zeros((2, 3)))


def test_scaled_dot_scales_by_blocks() -> None:
    x = np.ones((2, 64), ml_dtypes.float8_e4m3fn)
    scale = np.array([[1, 2], [4, 0.5]], ml_dtypes.float8_e8m0fnu)
    line = "f32[2,2] scaled-dot(p0, p0, p1, p1), lhs_contracting_dims={1}, rhs_contracting_dims={1}"
    same(one(line, x, scale), [[32 + 128, 128 + 32], [128 + 32, 512 + 8]])


def test_ragged_dot_over_rows_leaves_zeros_behind_the_last_group() -> None:
    rng = np.random.default_rng(1)
    x, w, sizes = rng.standard_normal((7, 4)), rng.standard_normal((3, 4, 5)), s32(2, 0, 4)
    line = (
        "f64[7,5] ragged-dot(p0, p1, p2), lhs_contracting_dims={1}, rhs_contracting_dims={1}, "
        "lhs_ragged_dims={0}, rhs_group_dims={0}"
    )
    expected = np.concatenate([x[:2] @ w[0], x[2:6] @ w[2], np.zeros((1, 5))])
    np.testing.assert_allclose(one(line, x, w, sizes), expected)


def test_ragged_dot_over_the_contraction_gives_a_result_a_group() -> None:
    rng = np.random.default_rng(2)
    x, y, sizes = rng.standard_normal((4, 7)), rng.standard_normal((7, 5)), s32(3, 4)
    line = (
        "f64[2,4,5] ragged-dot(p0, p1, p2), lhs_contracting_dims={1}, rhs_contracting_dims={0}, "
        "lhs_ragged_dims={1}"
    )
    np.testing.assert_allclose(one(line, x, y, sizes), [x[:, :3] @ y[:3], x[:, 3:] @ y[3:]])


def convolved_by_hand(
    x: np.ndarray, k: np.ndarray, dims: list[dict], features: int, batches: int
) -> np.ndarray:
    """Sums of products one by one: x is (batch, spatial, feature), k (spatial, input, output), one spatial
    dimension.
    """
    (d,) = dims
    base = (x.shape[1] - 1) * d["base"] + 1
    places = (base + d["low"] + d["high"] - ((k.shape[0] - 1) * d["dilation"] + 1)) // d["stride"] + 1
    outputs, inputs = k.shape[2], k.shape[1]
    result = np.zeros((x.shape[0] // batches, places, outputs))
    for b, p, o in np.ndindex(*result.shape):
        group = o // (outputs // max(features, batches))
        for s, i in np.ndindex(k.shape[0], inputs):
            at = p * d["stride"] + s * d["dilation"] - d["low"]
            if at % d["base"] == 0 and 0 <= at // d["base"] < x.shape[1]:
                source = (b + (group * result.shape[0] if batches > 1 else 0), at // d["base"])
                feature = i + (group * inputs if features > 1 else 0)
                tap = k.shape[0] - 1 - s if d["reversed"] else s
                result[b, p, o] += x[(*source, feature)] * k[tap, i, o]
    return result


@pytest.mark.parametrize("features, batches", [(1, 1), (3, 1), (1, 2)])
@pytest.mark.parametrize(
    "d",
    [
        {"stride": 1, "low": 0, "high": 0, "base": 1, "dilation": 1, "reversed": 0},
        {"stride": 2, "low": 2, "high": -1, "base": 2, "dilation": 1, "reversed": 1},
        {"stride": 1, "low": -1, "high": 3, "base": 1, "dilation": 2, "reversed": 0},
    ],
)
def test_convolution(d: dict, features: int, batches: int) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2 * batches, 6, 2 * features))
    k = rng.standard_normal((3, 2, 2 * max(features, batches)))
    expected = convolved_by_hand(x, k, [d], features, batches)
    window = (
        f"size=3 stride={d['stride']} pad={d['low']}_{d['high']} lhs_dilate={d['base']} "
        f"rhs_dilate={d['dilation']} rhs_reversal={d['reversed']}"
    )
    groups = f"feature_group_count={features}, batch_group_count={batches}"
    shape = ",".join(map(str, expected.shape))
    line = f"f64[{shape}] convolution(p0, p1), window={{{window}}}, dim_labels=b0f_0io->b0f, {groups}"
    np.testing.assert_allclose(one(line, x, k), expected, atol=1e-12)


def test_convolution_labels_may_stand_anywhere() -> None:
    rng = np.random.default_rng(4)
    x, k = rng.standard_normal((2, 5, 6, 3)), rng.standard_normal((2, 3, 3, 4))
    line = "f64[2,4,4,4] convolution(p0, p1), window={size=2x3}, dim_labels=b01f_01io->b01f"
    straight = one(line, x, k)
    line = "f64[4,4,2,4] convolution(p0, p1), window={size=2x3}, dim_labels=fb10_i1o0->01bf"
    turned = one(line, x.transpose(3, 0, 2, 1), k.transpose(2, 1, 3, 0))
    np.testing.assert_allclose(turned, straight.transpose(1, 2, 0, 3))


def test_convolution_of_integers_wraps() -> None:
    line = "s8[1,1,1] convolution(p0, p1), window={size=2}, dim_labels=b0f_0io->b0f"
    x, k = np.full((1, 2, 1), 100, np.int8), np.full((2, 1, 1), 3, np.int8)
    same(one(line, x, k), np.full((1, 1, 1), 600).astype(np.int8))


def test_fft_kinds() -> None:
    rng = np.random.default_rng(5)
    z = rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4))
    x = z.real.copy()
    np.testing.assert_allclose(one("c128[3,4] fft(p0), fft_type=FFT, fft_length={4}", z), np.fft.fft(z))
    np.testing.assert_allclose(one("c128[3,4] fft(p0), fft_type=IFFT, fft_length={3,4}", z), np.fft.ifft2(z))
    half = one("c128[3,3] fft(p0), fft_type=RFFT, fft_length={4}", x)
    np.testing.assert_allclose(half, np.fft.rfft(x))
    np.testing.assert_allclose(one("f64[3,4] fft(p0), fft_type=IRFFT, fft_length={4}", half), x)


def positive_definite(count: int, size: int) -> np.ndarray:
    a = np.random.default_rng(6).standard_normal((count, size, size))
    return a @ a.swapaxes(1, 2) + size * np.eye(size)


def test_cholesky_reads_one_triangle_and_gives_nan_for_what_has_no_factor() -> None:
    s = positive_definite(2, 4)
    s[1] = -s[1]
    messy = s.copy()
    messy[0, 0, 3] = 99
    factor = one("f64[2,4,4] cholesky(p0), lower=true", messy)
    np.testing.assert_allclose(factor[0], np.linalg.cholesky(s[0]))
    assert np.isnan(factor[1]).all()
    upper = one("f64[2,4,4] cholesky(p0)", s)
    np.testing.assert_allclose(upper[0], np.linalg.cholesky(s[0]).T)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("transpose", ["NO_TRANSPOSE", "TRANSPOSE", "ADJOINT"])
@pytest.mark.parametrize("unit", [True, False])
def test_triangular_solve(left: bool, lower: bool, transpose: str, unit: bool) -> None:
    rng = np.random.default_rng(7)
    a = rng.standard_normal((2, 3, 3)) + 1j * rng.standard_normal((2, 3, 3)) + 4 * np.eye(3)
    b = rng.standard_normal((2, 3, 3)) + 0j
    flags = {"left_side": left, "lower": lower, "unit_diagonal": unit}
    text = ", ".join(f"{name}={str(value).lower()}" for name, value in flags.items())
    x = one(f"c128[2,3,3] triangular-solve(p0, p1), {text}, transpose_a={transpose}", a, b)
    t = np.tril(a) if lower else np.triu(a)
    if unit:
        t = t - t * np.eye(3) + np.eye(3)
    op = {"NO_TRANSPOSE": t, "TRANSPOSE": t.swapaxes(1, 2), "ADJOINT": t.conj().swapaxes(1, 2)}[transpose]
    np.testing.assert_allclose(op @ x if left else x @ op, b, atol=1e-12)


def test_triangular_solve_of_a_singular_matrix_divides_by_zero() -> None:
    line = "f32[1,2] triangular-solve(p0, p1), left_side=true, lower=true, transpose_a=NO_TRANSPOSE"
    same(one(line, f32(0).reshape(1, 1), f32(0, 1).reshape(1, 2)), [[NAN, np.inf]])


def test_real_results_of_complex_products_are_real_parts() -> None:
    x, y = np.array([[1 + 2j, 3 - 1j]], np.complex64), np.array([[2 - 1j], [1 + 4j]], np.complex64)
    contract = "lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    same(one(f"f32[1,1] dot(p0, p1), {contract}", x, y), (x @ y).real)
    same(one("s32[1,1] convolution(p0, p1), dim_labels=bf_io->bf", x, y), (x @ y).real)
