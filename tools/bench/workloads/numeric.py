"""Families rng, fft and linalg."""

from __future__ import annotations

import math

import numpy as np

from hloc.lazy import lazy
from tools.bench.workloads.workload import Workload, c64, f32, given, lower_triangle, positive_definite

jax = lazy("jax")
jnp = lazy("jax.numpy")
torch = lazy("torch")

MILLION = 1 << 20
_OTHER_GENERATORS = ("torch", "inductor", "numpy")


def _key(random: np.random.Generator) -> np.ndarray:
    return np.array([0, 42], np.uint32)


def _random_numbers() -> list[Workload]:
    """threefry for those who compile the JAX program; torch and NumPy run the generators that they have."""
    return [
        Workload(
            "random_bits_1m",
            "rng",
            given(_key),
            jax=lambda key: jax.random.bits(key, (MILLION,)),
            torch=lambda key: torch.randint(-(2**31), 2**31 - 1, (MILLION,), dtype=torch.int32),
            numpy=lambda key: np.random.default_rng(1).integers(0, 1 << 32, MILLION, dtype=np.uint32),
            own_results=_OTHER_GENERATORS,
        ),
        Workload(
            "random_normal_1m",
            "rng",
            given(_key),
            jax=lambda key: jax.random.normal(key, (MILLION,)),
            torch=lambda key: torch.randn(MILLION),
            numpy=lambda key: np.random.default_rng(1).standard_normal(MILLION, dtype=np.float32),
            own_results=_OTHER_GENERATORS,
        ),
    ]


def _transform(name: str, *dims: int) -> Workload:
    size = math.prod(dims)
    return Workload(
        name,
        "fft",
        given(c64(*dims)),
        jax=lambda x: jnp.fft.fft(x),
        torch=lambda x: torch.fft.fft(x),
        numpy=np.fft.fft,
        flops=5 * size * math.log2(dims[-1]),
        tolerance=1e-5,
    )


def _linear_algebra() -> list[Workload]:
    side = 512
    matrix = positive_definite(side)
    return [
        Workload(
            "cholesky_512",
            "linalg",
            given(matrix),
            jax=lambda a: jnp.linalg.cholesky(a),
            torch=lambda a: torch.linalg.cholesky(a),
            numpy=np.linalg.cholesky,
            flops=side**3 / 3,
            tolerance=1e-4,
            left_out={"iree": "a call of LAPACK"},
        ),
        Workload(
            "trisolve_512",
            "linalg",
            given(lower_triangle(matrix), f32(side, side)),
            jax=lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True),
            torch=lambda a, b: torch.linalg.solve_triangular(a, b, upper=False),
            flops=side**3,
            tolerance=1e-4,
            left_out={"iree": "a call of LAPACK"},
        ),
    ]


WORKLOADS = [
    *_random_numbers(),
    _transform("fft_1m", MILLION),
    _transform("fft_1024x1024", 1024, 1024),
    *_linear_algebra(),
]
