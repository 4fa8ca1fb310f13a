"""reduce, scan, map, reduce-window, select-and-scatter, batch-norm."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from evaluating import INF, NAN, f32, leaves, one, s32, same

# Neither associative nor commutative: shows order, and where the initial value goes.
SHIFT = """shift { a = f32[] parameter(0)
 b = f32[] parameter(1)
 two = f32[] constant(2)
 c = f32[] multiply(a, two)
 ROOT d = f32[] add(c, b) }"""


def binary(op: str, dtype: str) -> str:
    return f"f {{ a = {dtype}[] parameter(0)\n b = {dtype}[] parameter(1)\n ROOT c = {dtype}[] {op}(b, a) }}"


def test_reduce_goes_from_the_initial_value_in_row_major_order() -> None:
    x = np.arange(9, dtype=np.float32).reshape(3, 3)
    got = one("f32[] reduce(p0, p1), dimensions={0,1}, to_apply=shift", x, np.float32(1), computations=SHIFT)
    same(got, 1014)
    got = one("f32[3] reduce(p0, p1), dimensions={0}, to_apply=shift", x, np.float32(1), computations=SHIFT)
    same(got, [8 + 0 + 6 + 6, 8 + 4 + 8 + 7, 8 + 8 + 10 + 8])


@pytest.mark.parametrize(
    "op, values, initial, expected",
    [
        ("add", f32(1e8, 1, -1e8), 0.0, 1),
        ("multiply", f32(2, 3, 4), 0.5, 12),
        ("maximum", f32(-1, -2), -INF, -1),
        ("maximum", f32(-0.0, 0.0, -0.0), -INF, 0.0),
        ("maximum", f32(-0.0, -1), -INF, -0.0),
        ("minimum", f32(0.0, -0.0), INF, -0.0),
        ("minimum", f32(0.0, 1), INF, 0.0),
        ("maximum", f32(1, NAN, 2), -INF, NAN),
        ("maximum", f32(), 3.0, 3),
    ],
)
def test_known_reducers(op: str, values: np.ndarray, initial: float, expected: float) -> None:
    line = "f32[] reduce(p0, p1), dimensions={0}, to_apply=f"
    same(one(line, values, np.float32(initial), computations=binary(op, "f32")), expected)


def test_integer_reductions_wrap() -> None:
    line = "s8[] reduce(p0, p1), dimensions={0}, to_apply=f"
    same(one(line, np.array([100, 100], np.int8), np.int8(1), computations=binary("add", "s8")), -55)
    nibbles = np.array([7, 7], np.int8).astype(ml_dtypes.int4)
    zero = np.array(0, np.int8).astype(ml_dtypes.int4)
    got = one(
        "s4[] reduce(p0, p1), dimensions={0}, to_apply=f", nibbles, zero, computations=binary("add", "s4")
    )
    assert int(got) == -2


def test_a_known_reducer_and_a_spelled_out_one_agree() -> None:
    spelled = """f { a = f32[] parameter(0)
 b = f32[] parameter(1)
 m = f32[] maximum(a, b)
 ROOT c = f32[] copy(m) }"""
    x = np.random.default_rng(0).standard_normal((5, 7, 3)).astype(np.float32)
    line = "f32[5,3] reduce(p0, p1), dimensions={1}, to_apply=f"
    known = one(line, x, np.float32(0.5), computations=binary("maximum", "f32"))
    same(one(line, x, np.float32(0.5), computations=spelled), known)


ARG_MAX = """f { v = f32[] parameter(0)
 i = s32[] parameter(1)
 w = f32[] parameter(2)
 j = s32[] parameter(3)
 p = pred[] compare(v, w), direction=GE
 m = f32[] select(p, v, w)
 k = s32[] select(p, i, j)
 ROOT t = (f32[], s32[]) tuple(m, k) }"""


@pytest.mark.parametrize("count", [7, 20_000])
def test_variadic_reduce(count: int) -> None:
    x = np.random.default_rng(1).permutation(2 * count).astype(np.float32).reshape(2, count)
    i = np.broadcast_to(np.arange(count, dtype=np.int32), x.shape)
    line = "(f32[2], s32[2]) reduce(p0, p1, p2, p3), dimensions={1}, to_apply=f"
    most, where = leaves(line, x, i, np.float32(-INF), np.int32(-1), computations=ARG_MAX)
    same(most, x.max(axis=1))
    same(where, x.argmax(axis=1))


def test_a_reducer_that_loops_is_applied_element_by_element() -> None:
    text = """cond { t = (f32[], f32[]) parameter(0)
 x = f32[] get-tuple-element(t), index=0
 k = f32[] constant(10)
 ROOT p = pred[] compare(x, k), direction=LT }
body { t = (f32[], f32[]) parameter(0)
 x = f32[] get-tuple-element(t), index=0
 y = f32[] get-tuple-element(t), index=1
 z = f32[] add(x, y)
 ROOT r = (f32[], f32[]) tuple(z, y) }
f { a = f32[] parameter(0)
 b = f32[] parameter(1)
 t = (f32[], f32[]) tuple(a, b)
 w = (f32[], f32[]) while(t), condition=cond, body=body
 ROOT r = f32[] get-tuple-element(w), index=0 }"""
    got = one(
        "f32[2] reduce(p0, p1), dimensions={0}, to_apply=f",
        f32(3, 4, 5, 20).reshape(2, 2),
        np.float32(1),
        computations=text,
    )
    same(got, [1 + 3 * 3, 1 + 4 * 3])


def test_map_applies_a_computation_of_scalars() -> None:
    text = """f { a = f32[] parameter(0)
 b = f32[] parameter(1)
 s = f32[] sine(b)
 ROOT c = f32[] multiply(a, s) }"""
    a, b = f32(1, 2, 3), f32(0.1, 0.2, 0.3)
    np.testing.assert_allclose(
        one("f32[3] map(p0, p1), dimensions={0}, to_apply=f", a, b, computations=text),
        a * np.sin(b),
        rtol=1e-6,
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_keeps_every_output(reverse: bool) -> None:
    text = """f { x = f32[2] parameter(0)
 c = f32[2] parameter(1)
 s = f32[2] add(x, c)
 n = f32[2] negate(s)
 ROOT r = (f32[2], f32[2]) tuple(n, s) }"""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    flag = ", is_reverse=true" if reverse else ""
    line = f"(f32[2,3], f32[2]) scan(p0, p1), dimensions={{1}}, num_carries=1{flag}, to_apply=f"
    outputs, carry = leaves(line, x, f32(1, 1), computations=text)
    turned = x[:, ::-1] if reverse else x
    sums = np.cumsum(turned, axis=1) + 1
    same(outputs, -(sums[:, ::-1] if reverse else sums))
    same(carry, sums[:, -1])


def windows_by_hand(x: np.ndarray, dims: list[dict], fold, initial: float) -> np.ndarray:
    """Every window walked on its own; `dims` holds size, stride, low, high, base and window dilation."""
    sizes = []
    for n, d in zip(x.shape, dims):
        room = (n - 1) * d["base"] + 1 + d["low"] + d["high"] - ((d["size"] - 1) * d["dilation"] + 1)
        sizes.append(room // d["stride"] + 1)
    result = np.zeros(sizes, x.dtype)
    for out in np.ndindex(*sizes):
        value = initial
        for offset in np.ndindex(*(d["size"] for d in dims)):
            at = [o * d["stride"] + k * d["dilation"] - d["low"] for o, k, d in zip(out, offset, dims)]
            whole = all(a % d["base"] == 0 and 0 <= a // d["base"] < n for a, d, n in zip(at, dims, x.shape))
            if whole:
                value = fold(value, x[tuple(a // d["base"] for a, d in zip(at, dims))])
        result[out] = value
    return result


def window_dim(
    size: int, stride: int = 1, low: int = 0, high: int = 0, base: int = 1, dilation: int = 1
) -> dict:
    return {"size": size, "stride": stride, "low": low, "high": high, "base": base, "dilation": dilation}


WINDOWS = [
    [window_dim(3, low=2, high=2)],
    [window_dim(3, stride=2, low=1, base=2, dilation=2), window_dim(2, high=1, dilation=3)],
    [window_dim(7, stride=3, low=6), window_dim(1, stride=2, low=-1)],
]


@pytest.mark.parametrize("dims", WINDOWS)
@pytest.mark.parametrize("reducer", ["add", "maximum", "shift"])
def test_reduce_window(dims: list[dict], reducer: str) -> None:
    x = np.random.default_rng(2).integers(-9, 9, (7, 8)[: len(dims)]).astype(np.float32)
    folds = {"add": lambda a, b: a + b, "maximum": max, "shift": lambda a, b: 2 * a + b}
    expected = windows_by_hand(x, dims, folds[reducer], 1.0)
    window = " ".join(
        f"{key}=" + "x".join(form(d) for d in dims)
        for key, form in (
            ("size", lambda d: str(d["size"])),
            ("stride", lambda d: str(d["stride"])),
            ("pad", lambda d: f"{d['low']}_{d['high']}"),
            ("lhs_dilate", lambda d: str(d["base"])),
            ("rhs_dilate", lambda d: str(d["dilation"])),
        )
    )
    shape = ",".join(map(str, expected.shape))
    computation = SHIFT if reducer == "shift" else binary(reducer, "f32")
    name = "shift" if reducer == "shift" else "f"
    line = f"f32[{shape}] reduce-window(p0, p1), window={{{window}}}, to_apply={name}"
    same(one(line, x, np.float32(1), computations=computation), expected)


def test_variadic_reduce_window() -> None:
    line = "(f32[3], s32[3]) reduce-window(p0, p1, p2, p3), window={size=2 stride=2 pad=0_1}, to_apply=f"
    x = f32(3, 5, 4, 1, 7)
    most, where = leaves(line, x, s32(*range(5)), np.float32(-INF), np.int32(-1), computations=ARG_MAX)
    same(most, [5, 4, 7])
    same(where, [1, 2, 4])


def test_select_and_scatter_folds_current_and_source_in_that_order() -> None:
    select = (
        "ge { a = f32[] parameter(0)\n b = f32[] parameter(1)\n ROOT c = pred[] compare(a, b), direction=GE }"
    )
    line = "f32[5] select-and-scatter(p0, p1, p2), window={size=3}, select=ge, scatter=shift"
    got = one(line, f32(0, 9, 2, 3, 4), f32(1, 2, 3), np.float32(100), computations=select + "\n" + SHIFT)
    same(got, [100, 2 * (2 * 100 + 1) + 2, 100, 100, 203])


def test_batch_norm_training_gives_the_biased_variance() -> None:
    x = np.random.default_rng(3).standard_normal((4, 3, 2)).astype(np.float32)
    scale, offset = f32(1, 2, 3), f32(0, 1, -1)
    line = "(f32[4,3,2], f32[3], f32[3]) batch-norm-training(p0, p1, p2), epsilon=0.001, feature_index=1"
    out, mean, variance = leaves(line, x, scale, offset)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(variance, x.var(axis=(0, 2)), rtol=1e-5)
    line = "f32[4,3,2] batch-norm-inference(p0, p1, p2, p3, p4), epsilon=0.001, feature_index=1"
    np.testing.assert_allclose(one(line, x, scale, offset, mean, variance), out, rtol=1e-4, atol=1e-5)


def test_batch_norm_grad_is_the_derivative_of_the_training_form() -> None:
    rng = np.random.default_rng(4)
    x, gradient = rng.standard_normal((2, 6, 2))
    scale = np.array([1.5, 0.5])
    mean, variance = x.mean(axis=0), x.var(axis=0)
    line = "(f64[6,2], f64[2], f64[2]) batch-norm-grad(p0, p1, p2, p3, p4), epsilon=0.001, feature_index=1"
    dx, dscale, doffset = leaves(line, x, scale, mean, variance, gradient)

    def loss(at: np.ndarray) -> float:
        normal = (at - at.mean(axis=0)) / np.sqrt(at.var(axis=0) + 0.001)
        return float((normal * scale * gradient).sum())

    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        assert dx[index] == pytest.approx((loss(x + step) - loss(x - step)) / 2e-6, abs=1e-6)
    np.testing.assert_allclose(doffset, gradient.sum(axis=0))
    normal = (x - mean) / np.sqrt(variance + 0.001)
    np.testing.assert_allclose(dscale, (normal * gradient).sum(axis=0))


def test_sums_of_bf16_round_once() -> None:
    ones = np.ones(1000, ml_dtypes.bfloat16)
    zero = np.zeros((), ml_dtypes.bfloat16)
    got = one(
        "bf16[] reduce(p0, p1), dimensions={0}, to_apply=f", ones, zero, computations=binary("add", "bf16")
    )
    same(got, 1000)
