"""Programs as JAX makes them: what jit emits, run natively, against JAX's own results.

Each function below is lowered by JAX with its arguments; loops, gradients, random keys, linear algebra and the rest
of the library reach hloc as HLO text, as they would from a user.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
import pytest
from jax import lax, nn

import hloc
from hloc.options import Options

PROGRAMS: dict[str, tuple[Callable, tuple[np.ndarray, ...]]] = {}
_RANDOM = np.random.default_rng(0)


def f32(*dims: int) -> np.ndarray:
    return _RANDOM.standard_normal(dims).astype(np.float32)


def s32(limit: int, *dims: int) -> np.ndarray:
    return _RANDOM.integers(0, limit, dims).astype(np.int32)


def program(*arguments: np.ndarray) -> Callable:
    """Decorator: a function and what it is called with."""

    def enter(function: Callable) -> Callable:
        PROGRAMS[function.__name__] = function, arguments
        return function

    return enter


# Networks


@program(f32(8, 16), f32(16), f32(16))
def layernorm_in_bf16(x, scale, bias):
    x, scale, bias = (a.astype(jnp.bfloat16) for a in (x, scale, bias))
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * scale + bias


@program(f32(2, 8, 12, 16), f32(2, 2, 12, 16), f32(2, 2, 12, 16))
def attention_of_grouped_queries(q, k, v):
    k, v = jnp.repeat(k, 4, 1), jnp.repeat(v, 4, 1)
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) / 4
    scores = jnp.where(jnp.tril(jnp.ones((12, 12), bool)), scores, -jnp.inf)
    return jnp.einsum("bhqk,bhkd->bhqd", nn.softmax(scores, -1), v)


@program(f32(3, 16, 8), f32(8, 8), f32(8, 8), f32(8, 8), f32(8, 8))
def attention_train_step(x, *weights):
    def loss(wq, wk, wv, wo):
        q, k, v = ((x @ w).reshape(3, 16, 2, 4).transpose(0, 2, 1, 3) for w in (wq, wk, wv))
        p = nn.softmax(q @ k.transpose(0, 1, 3, 2) / 2)
        return (((p @ v).transpose(0, 2, 1, 3).reshape(3, 16, 8) @ wo - x) ** 2).mean()

    return jax.value_and_grad(loss, (0, 1, 2, 3))(*weights)


@program(f32(2, 10, 4, 8))
def rotary_embedding(x):
    angle = jnp.arange(10)[:, None] / 10000 ** (jnp.arange(0, 8, 2) / 8)
    cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
    even, odd = x[..., ::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)


def gru_cell(h, x, wx, wh, bias):
    g, r = x @ wx + bias, h @ wh
    z = nn.sigmoid(g[:, :8] + r[:, :8])
    q = nn.sigmoid(g[:, 8:16] + r[:, 8:16])
    return (1 - z) * jnp.tanh(g[:, 16:] + q * r[:, 16:]) + z * h


@program(f32(6, 20, 5), f32(5, 24), f32(8, 24), f32(24))
def recurrent_network(x, *weights):
    def step(h, xt):
        h = gru_cell(h, xt, *weights)
        return h, h

    return lax.scan(step, jnp.zeros((6, 8)), x.swapaxes(0, 1))


@program(f32(6, 20, 5), f32(5, 24), f32(8, 24), f32(24))
def recurrent_network_gradient(x, *weights):
    def loss(*weights):
        def step(h, xt):
            h = gru_cell(h, xt, *weights)
            return h, h.sum()

        h, sums = lax.scan(jax.checkpoint(step), jnp.zeros((6, 8)), x.swapaxes(0, 1))
        return (h**2).sum() + sums.mean()

    return jax.value_and_grad(loss, (0, 1, 2))(*weights)


@program(f32(16, 10), f32(10, 12), f32(12), f32(12, 3), f32(3), s32(3, 16))
def adam_in_a_scan(x, w1, b1, w2, b2, labels):
    def loss(parameters):
        w1, b1, w2, b2 = parameters
        logits = nn.relu(x @ w1 + b1) @ w2 + b2
        picked = jnp.take_along_axis(nn.log_softmax(logits), labels[:, None], 1)
        return -picked.mean() + 1e-3 * sum((p**2).sum() for p in parameters)

    def step(state, t):
        p, m, v = state
        value, g = jax.value_and_grad(loss)(p)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)

        def moved(p, m, v):
            return p - 0.01 * (m / (1 - 0.9 ** (t + 1))) / (jnp.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)

        return (jax.tree.map(moved, p, m, v), m, v), value

    parameters = (w1, b1, w2, b2)
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    return lax.scan(step, (parameters, zeros, zeros), jnp.arange(1.0, 6.0))


@program(f32(7, 5))
def activations(x):
    plain = (nn.gelu, nn.silu, nn.softplus, nn.elu, nn.selu, nn.log_softmax, nn.hard_swish, nn.celu, nn.log_sigmoid)
    some = nn.softmax(x, where=x > -1, axis=1)
    hot = nn.one_hot(jnp.argmax(x, 1), 5)
    return [f(x) for f in plain], nn.gelu(x, approximate=False), nn.glu(x[:, :4]), nn.softmax(x, 0), some, hot


_NHWC = ("NHWC", "HWIO", "NHWC")


@program(f32(3, 8, 8, 4), f32(3, 3, 4, 6))
def convolutions(x, w):
    def conv(*rest, **options):
        return lax.conv_general_dilated(x, w, *rest, dimension_numbers=_NHWC, **options)

    dilated = conv((1, 1), ((2, 1), (0, 3)), lhs_dilation=(2, 1), rhs_dilation=(1, 2))
    return conv((1, 1), "SAME"), conv((2, 2), "VALID"), dilated, lax.conv_transpose(x, w, (2, 2), "SAME")


@program(f32(2, 8, 8, 4), f32(3, 3, 4, 6), f32(6))
def convolution_gradient(x, w, bias):
    def loss(w, bias, x):
        y = nn.relu(lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=_NHWC) + bias)
        return (lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") ** 2).mean()

    return jax.grad(loss, (0, 1, 2))(w, bias, x)


@program(f32(4, 9, 9, 3))
def pools(x):
    def most(x, *rest):
        return lax.reduce_window(x, -jnp.inf, lax.max, *rest)

    mean = lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    padded = most(x, (1, 2, 3, 1), (1, 1, 2, 1), ((0, 0), (1, 0), (0, 2), (0, 0)))
    return mean, padded, jax.grad(lambda x: most(x, (1, 3, 3, 1), (1, 2, 2, 1), "SAME").sum())(x)


# Control flow and transformations


@program(f32(20))
def control_flow(x):
    def turn(state):
        i, a = state
        return i + 1, lax.cond(i % 3 == 0, lambda a: a * 1.1, lambda a: a - 0.1, a)

    i, a = lax.while_loop(lambda s: (s[0] < 17) & (jnp.abs(s[1]).sum() < 1e3), turn, (0, x))
    chosen = [lax.switch(j, [jnp.sin, jnp.cos, lambda x: x * 2], x) for j in (0, 2, 5)]
    moved = lax.fori_loop(0, 5, lambda i, a: a.at[i].add(a[i + 1]), x)
    return i, a, chosen, moved, lax.map(lambda v: jnp.where(v > 0, v, v**2), x)


@program(f32(5, 7), s32(7, 5))
def mapped_control_flow(x, n):
    def turns(v, n):
        return lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, jnp.roll(s[1], 1) * 0.9), (0, v))[1]

    slices = jax.vmap(lambda v, i: lax.dynamic_slice(v, (i,), (3,)))(x, n)
    updates = jax.vmap(lambda v, i: v.at[i].set(9.0))(x, n)
    branches = jax.vmap(lambda v, i: lax.cond(i > 3, jnp.sort, lambda a: -a, v))(x, n)
    return jax.vmap(turns)(x, n), slices, updates, branches


@program(f32(6, 5))
def derivatives(x):
    def f(v):
        return jnp.sum(jnp.sin(v) * jnp.cumsum(v) ** 2)

    second = jax.hessian(f)(x[0]), jax.jacfwd(lambda v: jnp.outer(v, v) @ v)(x[1])
    first = jax.jvp(f, (x[2],), (x[3],)), jax.vjp(lambda v: jnp.tanh(v) * v, x)[1](x), jax.vmap(jax.grad(f))(x)
    sorted_ = jax.grad(lambda v: jnp.sort(v, 1)[:, 1].sum())(x)
    return second, first, sorted_, jax.grad(jnp.linalg.norm)(x)


@program(f32(100))
def associative_scans(x):
    def compose(a, b):
        return a[0] * b[0], b[0] * a[1] + b[1]

    return lax.associative_scan(compose, (nn.sigmoid(x), x)), lax.associative_scan(jnp.maximum, x, reverse=True)


@program(f32(64, 64))
def heat(x):
    def step(x, _):
        around = sum(jnp.roll(x, shift, axis) for shift in (1, -1) for axis in (0, 1))
        return x + 0.1 * (around - 4 * x), None

    return lax.scan(step, x, None, length=9)[0]


@program(f32(5, 5))
def kalman_filter(x):
    transition, noise = jnp.eye(5) * 0.9 + 0.01 * x, jnp.eye(5) * 0.1

    def step(state, _):
        m, p = state
        m, p = transition @ m, transition @ p @ transition.T + noise
        gain = jnp.linalg.solve(p + jnp.eye(5), p).T
        m, p = m + gain @ (x[0] - m), (jnp.eye(5) - gain) @ p
        return (m, p), m

    return lax.scan(step, (jnp.zeros(5), jnp.eye(5)), None, length=7)


@program(f32(20, 4), f32(5, 4))
def kmeans(x, centers):
    def step(c, _):
        distance = ((x[:, None] - c[None]) ** 2).sum(-1)
        member = nn.one_hot(jnp.argmin(distance, 1), 5)
        return (member.T @ x) / (member.sum(0)[:, None] + 1e-6), distance.min(1).sum()

    return lax.scan(step, centers, None, length=4)


# Arrays


@program(f32(8, 9), s32(12, 6))
def gathers_and_scatters(x, i):
    found = x[i % 8], x.at[i].get(mode="fill", fill_value=7.0), x.at[i].get(mode="clip"), jnp.take(x, i - 4, axis=0)
    along = jnp.take_along_axis(x, (i % 9)[None, :].repeat(8, 0), 1), x[i % 8, ::2], x[:, i % 9][..., ::-1]
    added = x.at[i, 2].add(1.0, mode="drop"), x.at[i % 8].multiply(2.0), x.at[:, i % 9].max(0.5)
    return found, along, added, x.at[jnp.array([1, 1, 2])].set(jnp.ones((3, 9)))


@program(f32(50, 3), s32(7, 50))
def segments(x, s):
    ops = jax.ops
    return [f(x, s, 7) for f in (ops.segment_sum, ops.segment_max, ops.segment_prod)], ops.segment_min(x, s, 9)


@program(f32(5, 40))
def cumulative(x):
    return jnp.cumsum(x, 1), jnp.cumprod(x, 1), lax.cummax(x, 1), lax.cummin(x, 1, reverse=True), lax.cumlogsumexp(x, 1)


@program(f32(5, 40))
def sorting(x):
    ordered = jnp.sort(x, 1), jnp.argsort(x, 1), jnp.argsort(-x, 0), lax.top_k(x, 5)
    return ordered, jnp.median(x, 1), jnp.quantile(x, 0.3, 1), jnp.percentile(x, 80)


@program(f32(6, 5, 4))
def reductions(x):
    whole = x.min(), jnp.max(jnp.abs(x), (0, 1, 2)), lax.reduce(x, jnp.float32(1), lambda a, b: a * b + 0.0, (0,))
    parts = x.sum((0, 2)), x.max(1), x.prod(2), x.mean((0, 1)), x.std(0), x.var((1, 2)), jnp.ptp(x, 0)
    tests = jnp.any(x > 2, 2), jnp.all(x > -3, (0, 1)), jnp.count_nonzero(x > 0, 0)
    return whole, parts, tests, jnp.argmax(x, 1), jnp.argmin(x, 0), jnp.linalg.norm(x, axis=2)


@program(f32(2, 3, 4, 5, 6))
def many_dimensions(x):
    moved = x.transpose(4, 2, 0, 3, 1).reshape(6, 8, -1), jnp.moveaxis(x, 0, 3), jnp.squeeze(x[:1, :, :1])
    summed = x[:, ::-1, 1:3, :, ::2].sum((1, 3)), jnp.broadcast_to(x[:, None], (2, 2, 3, 4, 5, 6)).mean((1, 4))
    longer = jnp.concatenate([x, x[..., :2]], -1)[..., 3:7]
    joined = longer, jnp.stack([x, x * 2], 2)[:, 1], jnp.tile(x[0, 0], (2, 1, 3))
    return moved, summed, joined


@program(f32(12, 12))
def images(x):
    sizes = (((20, 7), "bilinear"), ((5, 5), "nearest"), ((18, 18), "cubic"))
    resized = [jax.image.resize(x, *how) for how in sizes]
    padded = jnp.pad(x, 2, mode="reflect"), jnp.pad(x, ((1, 2), (0, 3)), mode="edge"), jnp.pad(x, 1, mode="wrap")
    return resized, padded, jnp.rot90(x), jnp.flip(x, 0), jnp.roll(x, (2, -3), (0, 1))


@program(f32(30), f32(8))
def numeric_tools(x, y):
    grid = jnp.sort(y)
    looked_up = jnp.interp(x, grid, y), jnp.searchsorted(grid, x), jnp.digitize(x, grid), jnp.histogram(x, 5)[0]
    filtered = jnp.convolve(x, y), jnp.correlate(x, y, "same"), jnp.diff(x, 2), jnp.gradient(x), jnp.trapezoid(x)
    found = jnp.unique(jnp.round(x), size=8, fill_value=0), jnp.lexsort((x, jnp.round(x))), jnp.polyval(y, x)
    return looked_up, filtered, found, jnp.nanmean(jnp.where(x > 1, jnp.nan, x)), jnp.isclose(x, 0.1, atol=0.5)


# Numbers


@program(s32(1000, 33), s32(31, 33))
def integers(a, b):
    signed = a - 500
    divided = a // (b + 1), a % (b + 1), signed // (b + 1), signed % (b + 1), jnp.gcd(a, b + 1)
    shifted = a << (b % 8), a >> (b % 5), signed >> (b % 5), a ^ b, ~a, lax.population_count(a), lax.clz(a)
    narrow = a.astype(jnp.int8) * 3, a.astype(jnp.uint8) - b.astype(jnp.uint8), a.astype(jnp.int16) ** 2
    return divided, shifted, narrow, signed.astype(jnp.uint32)


@program(f32(33, 17).astype(np.float16), f32(17, 9).astype(np.float16))
def narrow_floats(a, b):
    wide = lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    eighth = a.astype(jnp.float8_e4m3fn).astype(jnp.float32)
    return a @ b, jnp.exp(a), a.sum(), jnp.cumsum(a, 1), nn.softmax(a), eighth, wide


@program(f32(9), f32(9))
def complex_numbers(a, b):
    z = a + 1j * b
    functions = jnp.exp, jnp.log, jnp.sqrt, jnp.abs, jnp.angle, jnp.sin, jnp.tanh, jnp.arcsin
    return [f(z) for f in functions], z**2.5, z / jnp.conj(z + 1), jnp.sum(z * z)


@program(f32(10), f32(10))
def special_functions(x, y):
    a, b, p = jnp.abs(x) + 0.5, jnp.abs(y) + 0.5, nn.sigmoid(x)
    one = special.gammaln(a), special.digamma(a), special.erf(x), special.erfinv(jnp.tanh(x)), special.i0e(x)
    two = special.betainc(a, b, p), special.gammainc(a, b), special.zeta(a + 1.5, b), special.xlogy(a, b)
    return one, two, special.logit(p), special.ndtri(p), special.i1(x), special.logsumexp(x)


@program(f32(64))
def fourier(x):
    back = jnp.fft.irfft(jnp.fft.rfft(x))
    return jnp.abs(jnp.fft.fft(x)), jnp.fft.rfft(x).real, back, jnp.fft.fft2(x.reshape(8, 8)).imag, jnp.fft.fftshift(x)


@program(f32(6, 6), f32(12, 7), f32(12))
def linear_algebra(a, tall, right):
    s = a @ a.T + 6 * jnp.eye(6)
    square = jnp.linalg.cholesky(s), jnp.linalg.solve(s, a), jnp.linalg.inv(s), jnp.linalg.det(a), jnp.linalg.slogdet(s)
    values = jnp.linalg.eigvalsh(s), jnp.linalg.svd(a, compute_uv=False), jnp.linalg.matrix_rank(tall)
    return square, values, jnp.linalg.lstsq(tall, right)[0], jnp.linalg.pinv(tall), jax.scipy.linalg.expm(a * 0.1)


@program(np.uint32(7))
def random_numbers(seed):
    k = iter(jax.random.split(jax.random.key(seed), 12))
    r = jax.random
    plain = r.normal(next(k), (5,)), r.uniform(next(k), (5,)), r.randint(next(k), (5,), 0, 100), r.bits(next(k), (6,))
    shaped = r.exponential(next(k), (4,)), r.laplace(next(k), (3,)), r.truncated_normal(next(k), -1, 1, (4,))
    chosen = r.permutation(next(k), 11), r.choice(next(k), 10, (4,), replace=False), r.bernoulli(next(k), 0.3, (7,))
    return plain, shaped, chosen, r.categorical(next(k), jnp.arange(5.0)), r.gumbel(next(k), (3,))


# Against JAX


def agree(got: np.ndarray, expected: np.ndarray) -> bool:
    """Integers exactly; floats as far as sums in another order, and functions rounded otherwise, carry them."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return False
    if expected.dtype.kind in "biu":
        return bool((got == expected).all())
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    tolerance = 2e-2 if expected.dtype.itemsize == 2 else 3e-4
    got, expected = got.astype(wide), expected.astype(wide)
    finite = np.abs(expected[np.isfinite(expected)])
    scale = finite.max() if finite.size else 0.0
    return np.allclose(got, expected, rtol=tolerance, atol=tolerance * 0.05 * scale + 1e-9, equal_nan=True)


@pytest.mark.parametrize("name", PROGRAMS)
def test_native_code_agrees_with_jax(name: str) -> None:
    function, arguments = PROGRAMS[name]
    lowered = jax.jit(function, keep_unused=True).lower(*arguments)
    expected = [np.asarray(leaf) for leaf in jax.tree.leaves(lowered.compile()(*arguments))]
    executable = hloc.compile(lowered.as_text(dialect="hlo"), options=Options(cache=False))
    got = executable.execute(*arguments)
    assert len(got) == len(expected)
    wrong = [n for n, pair in enumerate(zip(got, expected, strict=True)) if not agree(*map(np.asarray, pair))]
    assert not wrong, f"results {wrong} of {len(expected)}"
