"""Families latency, elementwise and vecmath."""

from __future__ import annotations

import functools
import operator

import numpy as np

from hloc.lazy import lazy
from tools.bench.workloads.workload import Workload, f32, given

jax = lazy("jax")
jnp = lazy("jax.numpy")
torch = lazy("torch")

MILLION = 1 << 20


def softmax_numpy(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _sum_of_all(*arrays):
    return functools.reduce(operator.add, arrays)


def _latency() -> list[Workload]:
    add, three = operator.add, f32(3)
    return [
        Workload(
            "softmax_3",
            "latency",
            given(three),
            jax=lambda x: jax.nn.softmax(x, axis=-1),
            torch=lambda x: torch.softmax(x, -1),
            numpy=softmax_numpy,
        ),
        Workload("add_3", "latency", given(three, three), add, add, add),
        Workload("tenargs_3", "latency", given(*[three] * 10), _sum_of_all, _sum_of_all, _sum_of_all),
    ]


def _chain(maximum, minimum, absolute):
    """Ten operations, one after the other."""

    def chain(x):
        raised = maximum(x * 1.01 + 0.5, -0.25) * x
        bounded = minimum(raised - 0.125 * x, 4.0)
        return absolute(bounded) * 0.5 + x

    return chain


def _chains() -> list[Workload]:
    spellings = {
        "jax": _chain(lambda x, y: jnp.maximum(x, y), lambda x, y: jnp.minimum(x, y), abs),
        "torch": _chain(lambda x, y: torch.clamp(x, min=y), lambda x, y: torch.clamp(x, max=y), abs),
        "numpy": _chain(np.maximum, np.minimum, np.abs),
    }
    sizes = {"1k": 1 << 10, "64k": 1 << 16, "1m": MILLION, "16m": 1 << 24}
    return [
        Workload(f"chain10_{name}", "elementwise", given(f32(size)), **spellings, flops=10 * size)
        for name, size in sizes.items()
    ]


def _function(name: str, low: float, high: float) -> Workload:
    """One elementary function over a million floats."""

    def by_jax(x):
        return jax.scipy.special.erf(x) if name == "erf" else getattr(jnp, name)(x)

    return Workload(
        f"{name}_1m",
        "vecmath",
        given(f32(MILLION, low=low, high=high)),
        by_jax,
        lambda x: getattr(torch, name)(x),
        getattr(np, name, None),
    )


def _functions() -> list[Workload]:
    ranges = {"exp": (-20, 20), "tanh": (-5, 5), "erf": (-4, 4), "log": (1e-6, 100), "sin": (-30, 30)}
    ranges |= {"log1p": (-0.5, 10), "sqrt": (0, 100)}
    power = operator.pow
    bases, exponents = f32(MILLION, low=0.01, high=10), f32(MILLION, low=-5, high=5)
    return [
        *(_function(name, *bounds) for name, bounds in ranges.items()),
        Workload("pow_1m", "vecmath", given(bases, exponents), power, power, power),
        Workload(
            "gelu_1m",
            "vecmath",
            given(f32(MILLION, low=-5, high=5)),
            jax=lambda x: jax.nn.gelu(x, approximate=True),
            torch=lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        ),
    ]


WORKLOADS = [*_latency(), *_chains(), *_functions()]
