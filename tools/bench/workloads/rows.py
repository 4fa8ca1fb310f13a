"""Families reduce, norm and layout."""

from __future__ import annotations

import numpy as np

from hloc.lazy import lazy
from tools.bench.workloads.elementwise import softmax_numpy
from tools.bench.workloads.workload import Workload, f32, given

jax = lazy("jax")
jnp = lazy("jax.numpy")
torch = lazy("torch")

SIDE = 4096


def _reductions() -> list[Workload]:
    square = given(f32(SIDE, SIDE))

    def everywhere(function):
        return {"jax": function, "torch": function, "numpy": function}

    return [
        Workload("rowsum_4096", "reduce", square, **everywhere(lambda x: x.sum(1))),
        Workload("colsum_4096", "reduce", square, **everywhere(lambda x: x.sum(0))),
        # The sum of numbers of both signs is small beside them: what is lost on the way shows in it.
        Workload("fullsum_16m", "reduce", square, **everywhere(lambda x: x.sum()), tolerance=1e-2),
        Workload("argmax_4096", "reduce", square, **everywhere(lambda x: x.argmax(1))),
        Workload("rowsum_64x512", "reduce", given(f32(64, 512)), **everywhere(lambda x: x.sum(1))),
    ]


def _layernorm(rsqrt):
    def layernorm(x):
        centered = x - x.mean(-1, keepdims=True)
        variance = (centered * centered).mean(-1, keepdims=True)
        return centered * rsqrt(variance + 1e-5)

    return layernorm


def _norms() -> list[Workload]:
    softmax = {
        "jax": lambda x: jax.nn.softmax(x, axis=-1),
        "torch": lambda x: torch.softmax(x, -1),
        "numpy": softmax_numpy,
    }
    layernorm = {
        "jax": _layernorm(lambda x: jax.lax.rsqrt(x)),
        "torch": lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
        "numpy": _layernorm(lambda x: 1 / np.sqrt(x)),
    }
    rows = []
    for shape in ((SIDE, SIDE), (64, 512)):
        name = "x".join(map(str, shape))
        rows.append(Workload(f"softmax_{name}", "norm", given(f32(*shape, low=-5, high=5)), **softmax))
        rows.append(Workload(f"layernorm_{name}", "norm", given(f32(*shape)), **layernorm))
    return rows


def _transpose(name: str, dims: tuple[int, ...], order: tuple[int, ...]) -> Workload:
    return Workload(
        name,
        "layout",
        given(f32(*dims)),
        jax=lambda x: x.transpose(order),
        torch=lambda x: x.permute(order).contiguous(),
        numpy=lambda x: np.ascontiguousarray(x.transpose(order)),
    )


def _layouts() -> list[Workload]:
    part = f32(1024, 1024)
    return [
        _transpose("transpose_4096", (SIDE, SIDE), (1, 0)),
        _transpose("transpose_021", (64, 256, 512), (0, 2, 1)),
        _transpose("transpose_0213", (4, 512, 8, 64), (0, 2, 1, 3)),
        Workload(
            "concat_pad",
            "layout",
            given(part, part),
            jax=lambda a, b: jnp.pad(jnp.concatenate([a, b[::-1]], 1), 1),
            torch=lambda a, b: torch.nn.functional.pad(torch.cat([a, b.flip(0)], 1), (1, 1, 1, 1)),
            numpy=lambda a, b: np.pad(np.concatenate([a, b[::-1]], 1), 1),
        ),
    ]


WORKLOADS = [*_reductions(), *_norms(), *_layouts()]
