"""The emitters of devices, a file a family, each loaded when a program has one of its ops."""

from __future__ import annotations

from functools import partial

from hloc.codegen.kernel import KernelRow, Kernels, kernel
from hloc.lazy import Table, homes, lazy

attention = lazy("hloc.codegen.gpu.attention")
row_launches = lazy("hloc.codegen.gpu.row_launches")

GPU_HOMES: dict[str, str] = homes(
    {
        "hloc.codegen.gpu.emitters.cholesky": "cholesky",
        "hloc.codegen.gpu.emitters.collectives": (
            "all-gather all-gather-done all-gather-start all-reduce all-reduce-done all-reduce-start all-to-all "
            "collective-broadcast collective-permute collective-permute-done collective-permute-start "
            "collective-reduce ragged-all-to-all reduce-scatter"
        ),
        "hloc.codegen.gpu.emitters.control": "conditional while",
        "hloc.codegen.gpu.emitters.host": "custom-call infeed outfeed recv recv-done send send-done",
        "hloc.codegen.gpu.emitters.indexing": "dynamic-update-slice",
        "hloc.codegen.gpu.emitters.rng": "rng-bit-generator rng-get-and-update-state",
        "hloc.codegen.gpu.emitters.scatter": "scatter",
        "hloc.codegen.gpu.emitters.sort": "sort",
        "hloc.codegen.gpu.emitters.topk": "topk",
        "hloc.codegen.gpu.emitters.convolution": "convolution",
        "hloc.codegen.gpu.emitters.dot": "dot",
        "hloc.codegen.gpu.emitters.fft": "fft",
        "hloc.codegen.gpu.emitters.triangular_solve": "triangular-solve",
        "hloc.codegen.gpu.emitters.reduce": "reduce",
        "hloc.codegen.gpu.emitters.reduce_window": "reduce-window",
        "hloc.codegen.gpu.emitters.select_and_scatter": "select-and-scatter",
    }
)
"""The module of each opcode's row in the table GPU_KERNELS."""

GPU_KERNELS: Table[KernelRow] = Table(GPU_HOMES)
"""opcode -> row: ops that need more than loops over their results' elements."""

gpu_kernel = partial(kernel, table=GPU_KERNELS)
"""Decorator: the function is the GPU_KERNELS entry of these opcodes; it takes a GpuStep and the instruction."""

FORMS = Kernels(
    GPU_KERNELS,
    rows=lambda stages: row_launches.launches_bytes(stages),
    attention=lambda plan: attention.device_attention(plan),
)
