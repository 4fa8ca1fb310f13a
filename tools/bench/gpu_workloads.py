"""What `tools.bench.gpu` runs: programs as HLO, the same for torch and JAX, and what is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

Arrays = list[np.ndarray]

MEMORY, PRODUCTS = "GB/s", "TFLOP/s"


@dataclass(frozen=True)
class Workload:
    """A program of one size. `work` is what one run moves in bytes, or its float operations, as `unit` says.

    `expected` gives the places in the result that are looked at, and what is right there; `tolerance` is relative to
    the greatest value among those. `torch` and `jax` take the library and give a function of its arrays.
    """

    name: str
    text: str
    arguments: Callable[[np.random.Generator], Arrays]
    work: float
    unit: str
    expected: Callable[[Arrays], tuple[Any, np.ndarray]]
    tolerance: float
    torch: Callable[[Any], Callable[..., Any]]
    jax: Callable[[Any], Callable[..., Any]]


_ADD = "a {\n  x = f32[] parameter(0)\n  y = f32[] parameter(1)\n  ROOT s = f32[] add(x, y)\n}\n"
_MAX = "m {\n  x = f32[] parameter(0)\n  y = f32[] parameter(1)\n  ROOT s = f32[] maximum(x, y)\n}\n"


def _program(name: str, body: str, *computations: str) -> str:
    lines = "\n".join(f"  {line.strip()}" for line in body.strip().splitlines())
    return f"HloModule {name}\n" + "".join(computations) + "ENTRY e {\n" + lines + "\n}\n"


def _normal(*shapes: Sequence[int], dtype: Any = np.float32) -> Callable[[np.random.Generator], Arrays]:
    def make(random: np.random.Generator) -> Arrays:
        return [random.standard_normal(shape, np.float32).astype(dtype) for shape in shapes]

    return make


_SOME = slice(None, None, 97)
"""Rows that are looked at: every 97th."""


def elementwise(count: int) -> Workload:
    v = f"f32[{count}]"
    text = _program("chain", f"""
        x = {v} parameter(0)
        y = {v} parameter(1)
        p = {v} multiply(x, y)
        t = {v} tanh(p)
        s = {v} add(t, x)
        m = {v} maximum(s, y)
        ROOT r = {v} multiply(m, x)""")

    def expected(a: Arrays) -> tuple[Any, np.ndarray]:
        x, y = (array[_SOME].astype(np.float64) for array in a)
        return _SOME, np.maximum(np.tanh(x * y) + x, y) * x

    return Workload(
        f"elementwise chain {v}", text, _normal((count,), (count,)), 12.0 * count, MEMORY, expected, 1e-5,
        lambda torch: torch.compile(lambda x, y: torch.maximum(torch.tanh(x * y) + x, y) * x),
        lambda jnp: lambda x, y: jnp.maximum(jnp.tanh(x * y) + x, y) * x,
    )


def reduction(rows: int, columns: int, dims: tuple[int, ...]) -> Workload:
    m = f"f32[{rows},{columns}]"
    kept = [size for number, size in enumerate((rows, columns)) if number not in dims]
    result = f"f32[{','.join(map(str, kept))}]"
    text = _program("sum", f"""
        x = {m} parameter(0)
        zero = f32[] constant(0)
        ROOT r = {result} reduce(x, zero), dimensions={{{",".join(map(str, dims))}}}, to_apply=a""", _ADD)
    kind = {(0, 1): "full", (1,): "row", (0,): "column"}[dims]
    return Workload(
        f"{kind} sum {m}", text, _normal((rows, columns)), 4.0 * rows * columns, MEMORY,
        lambda a: (..., a[0].sum(dims, dtype=np.float64)), 1e-4,
        lambda torch: lambda x: x.sum(dims),
        lambda jnp: lambda x: x.sum(dims),
    )


def softmax(rows: int, columns: int) -> Workload:
    m, c = f"f32[{rows},{columns}]", f"f32[{rows}]"
    text = _program("softmax", f"""
        x = {m} parameter(0)
        low = f32[] constant(-inf)
        zero = f32[] constant(0)
        top = {c} reduce(x, low), dimensions={{1}}, to_apply=m
        tops = {m} broadcast(top), dimensions={{0}}
        d = {m} subtract(x, tops)
        e = {m} exponential(d)
        sum = {c} reduce(e, zero), dimensions={{1}}, to_apply=a
        sums = {m} broadcast(sum), dimensions={{0}}
        ROOT r = {m} divide(e, sums)""", _ADD, _MAX)

    def expected(a: Arrays) -> tuple[Any, np.ndarray]:
        x = a[0][_SOME].astype(np.float64)
        e = np.exp(x - x.max(1, keepdims=True))
        return _SOME, e / e.sum(1, keepdims=True)

    return Workload(
        f"softmax {m}", text, _normal((rows, columns)), 8.0 * rows * columns, MEMORY, expected, 1e-5,
        lambda torch: lambda x: torch.softmax(x, 1),
        lambda jnp: lambda x: _softmax(jnp, x),
    )


def _softmax(jnp: Any, x: Any) -> Any:
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layernorm(rows: int, columns: int) -> Workload:
    m, c, v = f"f32[{rows},{columns}]", f"f32[{rows}]", f"f32[{columns}]"
    text = _program("layernorm", f"""
        x = {m} parameter(0)
        gain = {v} parameter(1)
        bias = {v} parameter(2)
        zero = f32[] constant(0)
        count = f32[] constant({columns})
        counts = {c} broadcast(count), dimensions={{}}
        sum = {c} reduce(x, zero), dimensions={{1}}, to_apply=a
        mean = {c} divide(sum, counts)
        means = {m} broadcast(mean), dimensions={{0}}
        d = {m} subtract(x, means)
        q = {m} multiply(d, d)
        squares = {c} reduce(q, zero), dimensions={{1}}, to_apply=a
        variance = {c} divide(squares, counts)
        little = f32[] constant(1e-5)
        littles = {c} broadcast(little), dimensions={{}}
        safe = {c} add(variance, littles)
        scale = {c} rsqrt(safe)
        scales = {m} broadcast(scale), dimensions={{0}}
        n = {m} multiply(d, scales)
        gains = {m} broadcast(gain), dimensions={{1}}
        g = {m} multiply(n, gains)
        biases = {m} broadcast(bias), dimensions={{1}}
        ROOT r = {m} add(g, biases)""", _ADD)

    def expected(a: Arrays) -> tuple[Any, np.ndarray]:
        x, gain, bias = (array.astype(np.float64) for array in (a[0][_SOME], a[1], a[2]))
        d = x - x.mean(1, keepdims=True)
        return _SOME, d / np.sqrt((d * d).mean(1, keepdims=True) + 1e-5) * gain + bias

    def in_jax(jnp: Any) -> Callable[..., Any]:
        def call(x: Any, gain: Any, bias: Any) -> Any:
            d = x - x.mean(1, keepdims=True)
            return d / jnp.sqrt((d * d).mean(1, keepdims=True) + 1e-5) * gain + bias

        return call

    return Workload(
        f"layernorm {m}", text, _normal((rows, columns), (columns,), (columns,)), 8.0 * rows * columns, MEMORY,
        expected, 1e-5,
        lambda torch: lambda x, gain, bias: torch.nn.functional.layer_norm(x, (columns,), gain, bias, 1e-5),
        in_jax,
    )


def transpose(rows: int, columns: int) -> Workload:
    text = _program("transposed", f"""
        x = f32[{rows},{columns}] parameter(0)
        ROOT t = f32[{columns},{rows}] transpose(x), dimensions={{1,0}}""")
    return Workload(
        f"transpose f32[{rows},{columns}]", text, _normal((rows, columns)), 8.0 * rows * columns, MEMORY,
        lambda a: (..., a[0].T), 0.0,
        lambda torch: lambda x: x.t().contiguous(),
        lambda jnp: lambda x: x.T,
    )


def product(size: int) -> Workload:
    m = f"bf16[{size},{size}]"
    text = _program("product", f"""
        x = {m} parameter(0)
        y = {m} parameter(1)
        ROOT p = {m} dot(x, y), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}""")

    def expected(a: Arrays) -> tuple[Any, np.ndarray]:
        return _SOME, a[0][_SOME].astype(np.float32) @ a[1].astype(np.float32)

    return Workload(
        f"product {m}", text, _normal((size, size), (size, size), dtype=ml_dtypes.bfloat16), 2.0 * size**3, PRODUCTS,
        expected, 2.0**-7,
        lambda torch: torch.matmul,
        lambda jnp: jnp.matmul,
    )


def attention(batch: int, heads: int, length: int, width: int) -> Workload:
    q, s = f"bf16[{batch},{heads},{length},{width}]", f"f32[{batch},{heads},{length},{length}]"
    c = f"f32[{batch},{heads},{length}]"
    pairs = "lhs_batch_dims={0,1}, rhs_batch_dims={0,1}, lhs_contracting_dims={3}"
    text = _program("attention", f"""
        q = {q} parameter(0)
        k = {q} parameter(1)
        v = {q} parameter(2)
        raw = {s} dot(q, k), {pairs}, rhs_contracting_dims={{3}}
        factor = f32[] constant({width**-0.5!r})
        factors = {s} broadcast(factor), dimensions={{}}
        x = {s} multiply(raw, factors)
        low = f32[] constant(-inf)
        zero = f32[] constant(0)
        top = {c} reduce(x, low), dimensions={{3}}, to_apply=m
        tops = {s} broadcast(top), dimensions={{0,1,2}}
        d = {s} subtract(x, tops)
        e = {s} exponential(d)
        sum = {c} reduce(e, zero), dimensions={{3}}, to_apply=a
        sums = {s} broadcast(sum), dimensions={{0,1,2}}
        p = {s} divide(e, sums)
        weights = bf16[{batch},{heads},{length},{length}] convert(p)
        ROOT o = {q} dot(weights, v), {pairs}, rhs_contracting_dims={{2}}""", _ADD, _MAX)

    def expected(a: Arrays) -> tuple[Any, np.ndarray]:
        looked_at = (a[0][-1, -1, _SOME], a[1][-1, -1], a[2][-1, -1])
        queries, keys, values = (array.astype(np.float32) for array in looked_at)
        scores = queries @ keys.T * width**-0.5
        e = np.exp(scores - scores.max(1, keepdims=True))
        return (-1, -1, _SOME), (e / e.sum(1, keepdims=True)) @ values

    def in_jax(jnp: Any) -> Callable[..., Any]:
        def call(q: Any, k: Any, v: Any) -> Any:
            raw = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
            return jnp.einsum("bhqk,bhkd->bhqd", _softmax(jnp, raw * width**-0.5).astype(q.dtype), v)

        return call

    shape = (batch, heads, length, width)
    return Workload(
        f"attention {q}", text, _normal(shape, shape, shape, dtype=ml_dtypes.bfloat16),
        4.0 * batch * heads * length * length * width, PRODUCTS, expected, 2.0**-5,
        lambda torch: torch.nn.functional.scaled_dot_product_attention,
        in_jax,
    )


def small_sum(count: int) -> Workload:
    """What is launched to see what a launch costs."""
    v = f"f32[{count}]"
    text = _program("small", f"""
        x = {v} parameter(0)
        ROOT s = {v} add(x, x)""")
    return Workload(
        f"call of {v}", text, _normal((count,)), 8.0 * count, MEMORY, lambda a: (..., a[0] * 2), 0.0,
        lambda torch: lambda x: x + x,
        lambda jnp: lambda x: x + x,
    )


def workloads(is_small: bool) -> list[Workload]:
    """All but the small sum. The small ones only show that all of this is right."""
    if is_small:
        return [
            elementwise(1000),
            *(reduction(33, 70, dims) for dims in ((0, 1), (1,), (0,))),
            softmax(5, 130),
            layernorm(5, 130),
            transpose(40, 70),
            product(64),
            attention(1, 2, 32, 16),
        ]
    return [
        elementwise(1 << 26),
        *(reduction(16384, 8192, dims) for dims in ((0, 1), (1,), (0,))),
        *(softmax(rows, (1 << 27) // rows) for rows in (1 << 17, 1 << 14)),
        *(layernorm(rows, (1 << 27) // rows) for rows in (1 << 17, 1 << 14)),
        transpose(8192, 16384),
        *(product(size) for size in (4096, 6144, 8192)),
        *(attention(4, 16, length, 128) for length in (2048, 4096)),
    ]
