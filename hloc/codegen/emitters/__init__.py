"""The emitters, a file a family, each loaded when a program has one of its ops."""

from __future__ import annotations

from hloc.ir.opcodes import OPS
from hloc.lazy import homes

ELEMENT_HOMES: dict[str, str] = {
    **{name: "hloc.codegen.emitters.elementwise" for name, op in OPS.items() if op.is_elementwise},
    **homes(
        {
            "hloc.codegen.emitters.elementwise": "map partition-id replica-id",
            "hloc.codegen.emitters.data_movement": (
                "bitcast bitcast-convert broadcast concatenate iota pad reshape reverse slice transpose"
            ),
            "hloc.codegen.emitters.indexing": "dynamic-slice dynamic-update-slice gather",
        }
    ),
}
"""The module of each opcode's entry in the table ELEMENTS."""

KERNEL_HOMES: dict[str, str] = homes(
    {
        "hloc.codegen.emitters.collective_permute": "collective-permute collective-permute-start",
        "hloc.codegen.emitters.collectives": (
            "all-gather all-gather-done all-gather-start all-reduce all-reduce-done all-reduce-start "
            "all-to-all collective-broadcast collective-permute-done collective-reduce ragged-all-to-all reduce-scatter"
        ),
        "hloc.codegen.emitters.convolution": "convolution",
        "hloc.codegen.emitters.custom_calls": "custom-call",
        "hloc.codegen.emitters.data_movement": "concatenate pad",
        "hloc.codegen.emitters.dot": "dot",
        "hloc.codegen.emitters.fft": "fft",
        "hloc.codegen.emitters.host": "infeed outfeed recv recv-done send send-done",
        "hloc.codegen.emitters.indexing": "dynamic-update-slice",
        "hloc.codegen.emitters.linalg": "cholesky triangular-solve",
        "hloc.codegen.emitters.reduce": "reduce",
        "hloc.codegen.emitters.reduce_window": "reduce-window",
        "hloc.codegen.emitters.rng": "rng-bit-generator rng-get-and-update-state",
        "hloc.codegen.emitters.scatter": "scatter",
        "hloc.codegen.emitters.select_and_scatter": "select-and-scatter",
        "hloc.codegen.emitters.sort": "sort",
        "hloc.codegen.emitters.topk": "topk",
    }
)
"""The module of each opcode's row in the table KERNELS."""
