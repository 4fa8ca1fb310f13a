"""Family gemm: matrix products."""

from __future__ import annotations

import operator

import numpy as np

from hloc.lazy import lazy
from tools.bench.workloads.workload import Workload, bf16, f32, f64, given, product_flops, s8

jax = lazy("jax")
torch = lazy("torch")


def _product(name: str, rows: int, inner: int, columns: int) -> Workload:
    """A plain product of two matrices of f32."""
    times = operator.matmul
    inputs, flops = given(f32(rows, inner), f32(inner, columns)), product_flops(rows, inner, columns)
    return Workload(f"gemm_{name}", "gemm", inputs, times, times, times, flops=flops)


def _plain() -> list[Workload]:
    squares = [_product(str(size), size, size, size) for size in (16, 32, 64, 128, 256, 512, 1024, 2048)]
    return squares + [_product(f"{rows}x1024x4096", rows, 1024, 4096) for rows in (1, 8, 64)]


def _transposed() -> list[Workload]:
    inputs, flops = given(f32(512, 512), f32(512, 512)), product_flops(512, 512, 512)
    second, first = (lambda a, b: a @ b.T), (lambda a, b: a.T @ b)
    return [
        Workload("gemm_nt_512", "gemm", inputs, second, second, second, flops=flops),
        Workload("gemm_tn_512", "gemm", inputs, first, first, first, flops=flops),
    ]


def _other_types() -> list[Workload]:
    times, thousand = operator.matmul, product_flops(1024, 1024, 1024)
    batch, double = f32(64, 64, 64), f64(512, 512)
    return [
        Workload("bgemm_64x64", "gemm", given(batch, batch), times, times, times, flops=product_flops(64, 64, 64, 64)),
        Workload(
            "gemm_f64_512",
            "gemm",
            given(double, double),
            times,
            times,
            times,
            flops=product_flops(512, 512, 512),
            kind="f64",
            tolerance=1e-13,
        ),
        # bf16 has eight bits: sums that are rounded at different places differ by one of them.
        Workload(
            "gemm_bf16_1024",
            "gemm",
            given(bf16(1024, 1024), bf16(1024, 1024)),
            times,
            times,
            flops=thousand,
            tolerance=1e-2,
        ),
        Workload(
            "gemm_int8_1024",
            "gemm",
            given(s8(1024, 1024), s8(1024, 1024)),
            jax=lambda a, b: jax.lax.dot(a, b, preferred_element_type=np.int32),
            torch=lambda a, b: torch._int_mm(a, b),
            flops=thousand,
            kind="s8",
        ),
    ]


def _with_epilogue() -> Workload:
    return Workload(
        "gemm_bias_gelu",
        "gemm",
        given(f32(512, 512), f32(512, 2048), f32(2048)),
        jax=lambda x, weights, bias: jax.nn.gelu(x @ weights + bias, approximate=True),
        torch=lambda x, weights, bias: torch.nn.functional.gelu(torch.addmm(bias, x, weights), approximate="tanh"),
        flops=product_flops(512, 512, 2048),
    )


WORKLOADS = [*_plain(), *_transposed(), *_other_types(), _with_epilogue()]
