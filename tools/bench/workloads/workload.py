"""The record of a workload, and makers of its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

Maker = Callable[[np.random.Generator], np.ndarray]

_SEED = 20261122


@dataclass(frozen=True)
class Workload:
    """One row of the benchmark.

    `inputs` makes the arguments from a generator. `flops` are those of the arithmetic that every implementation must
    do, at the rate of `kind` (a key of `limits.Limits.flops`); `read_bytes` is what has to be read, if that is less
    than all inputs. `tolerance` bounds the largest difference from XLA's results relative to their largest entry;
    integers have to be equal. Peers in `own_results` have results of their own (random numbers) that nobody compares.
    `left_out` says why a peer has no figure here.
    """

    name: str
    family: str
    inputs: Callable[[np.random.Generator], list[np.ndarray]]
    jax: Callable
    torch: Callable | None = None
    numpy: Callable | None = None
    torch_inputs: Callable[[Sequence[np.ndarray]], list] | None = None
    flops: float = 0.0
    kind: str = "f32"
    read_bytes: int | None = None
    tolerance: float = 2e-5
    own_results: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def make_inputs(self) -> list[np.ndarray]:
        return self.inputs(np.random.default_rng(_SEED))


def given(*makers: Maker) -> Callable[[np.random.Generator], list[np.ndarray]]:
    """Inputs, each by its maker, from one generator."""
    return lambda random: [maker(random) for maker in makers]


def f32(*dims: int, low: float = -1.0, high: float = 1.0) -> Maker:
    return lambda random: random.uniform(low, high, dims).astype(np.float32)


def f64(*dims: int) -> Maker:
    return lambda random: random.uniform(-1, 1, dims)


def bf16(*dims: int) -> Maker:
    return lambda random: random.uniform(-1, 1, dims).astype(ml_dtypes.bfloat16)


def s8(*dims: int) -> Maker:
    return lambda random: random.integers(-100, 100, dims).astype(np.int8)


def s32(limit: int, *dims: int) -> Maker:
    """Indices below a limit."""
    return lambda random: random.integers(0, limit, dims).astype(np.int32)


def normal(*dims: int, scale: float = 1.0) -> Maker:
    return lambda random: (random.standard_normal(dims) * scale).astype(np.float32)


def constant(value: float, *dims: int) -> Maker:
    return lambda random: np.full(dims, value, np.float32)


def c64(*dims: int) -> Maker:
    def make(random: np.random.Generator) -> np.ndarray:
        return (random.standard_normal(dims) + 1j * random.standard_normal(dims)).astype(np.complex64)

    return make


def positive_definite(rows: int) -> Maker:
    def make(random: np.random.Generator) -> np.ndarray:
        factor = random.standard_normal((rows, rows)).astype(np.float32)
        return factor @ factor.T / rows + np.eye(rows, dtype=np.float32)

    return make


def lower_triangle(maker: Maker) -> Maker:
    return lambda random: np.tril(maker(random))


def product_flops(*sizes: int) -> float:
    """Of a matrix product: a multiply and an add for each of the products of the sizes."""
    return 2.0 * math.prod(sizes)
