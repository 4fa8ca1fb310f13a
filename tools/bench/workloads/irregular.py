"""Family irregular: sorting, gather and scatter, running sums."""

from __future__ import annotations

import numpy as np

from hloc.lazy import lazy
from tools.bench.workloads.workload import Workload, f32, given, s32

jax = lazy("jax")
jnp = lazy("jax.numpy")
torch = lazy("torch")

MILLION = 1 << 20
_SLOW_SORT = {"iree": "minutes a call"}


def _sorts() -> list[Workload]:
    return [
        Workload(
            "sort_1m",
            "irregular",
            given(f32(MILLION)),
            jax=lambda x: jnp.sort(x),
            torch=lambda x: torch.sort(x)[0],
            numpy=np.sort,
            left_out=_SLOW_SORT,
        ),
        Workload(
            "argsort_1m",
            "irregular",
            given(f32(MILLION)),
            jax=lambda x: jnp.argsort(x),
            torch=lambda x: torch.argsort(x, stable=True),
            numpy=lambda x: np.argsort(x, kind="stable"),
            left_out=_SLOW_SORT,
        ),
        Workload(
            "topk_64x16k",
            "irregular",
            given(f32(64, 1 << 14)),
            jax=lambda x: jax.lax.top_k(x, 32)[0],
            torch=lambda x: torch.topk(x, 32)[0],
            left_out={"iree": "more than a minute to compile"},
        ),
    ]


def _scatter_numpy(base, indices, updates):
    return base + np.bincount(indices, weights=updates, minlength=base.size).astype(np.float32)


def _by_index() -> list[Workload]:
    table, rows = (32768, 256), 8192
    return [
        Workload(
            "scatter_add_1m",
            "irregular",
            given(f32(1 << 16), s32(1 << 16, MILLION), f32(MILLION)),
            jax=lambda base, indices, updates: base.at[indices].add(updates),
            torch=lambda base, indices, updates: base.index_add(0, indices, updates),
            numpy=_scatter_numpy,
        ),
        Workload(
            "gather_1m",
            "irregular",
            given(f32(MILLION), s32(MILLION, MILLION)),
            jax=lambda x, indices: x[indices],
            torch=lambda x, indices: torch.index_select(x, 0, indices),
            numpy=lambda x, indices: np.take(x, indices),
        ),
        Workload(
            "embed_8192x256",
            "irregular",
            given(f32(*table), s32(table[0], rows)),
            jax=lambda x, indices: x[indices],
            torch=lambda x, indices: torch.index_select(x, 0, indices),
            numpy=lambda x, indices: np.take(x, indices, axis=0),
            read_bytes=rows * (table[1] * 4 + 4),
        ),
    ]


def _running_sums() -> list[Workload]:
    """Sums of numbers of both signs: what is lost on the way is large beside the last of them."""
    return [
        Workload(
            "cumsum_1m",
            "irregular",
            given(f32(MILLION)),
            jax=lambda x: jnp.cumsum(x),
            torch=lambda x: torch.cumsum(x, 0),
            numpy=np.cumsum,
            tolerance=1e-3,
        ),
        Workload(
            "cumsum_1024x1024",
            "irregular",
            given(f32(1024, 1024)),
            jax=lambda x: jnp.cumsum(x, 1),
            torch=lambda x: torch.cumsum(x, 1),
            numpy=lambda x: np.cumsum(x, 1),
            tolerance=1e-4,
        ),
    ]


WORKLOADS = [*_sorts(), *_by_index(), *_running_sums()]
