"""convolution: window sums of products, of any dimension labels, strides, paddings, dilations and groups.

Convolutions whose groups have many output features are products of matrices, in tiles (`convolution_product.py`);
others have a thread for each result.
"""

from __future__ import annotations

from hloc.codegen.convolution_plan import ConvolutionPlan
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.convolution_product import ConvolutionProduct
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.gemm_mma import write_units
from hloc.codegen.gpu.gemm_plan import UNITS, blocks_plan, most_scratch
from hloc.codegen.gpu.gemm_simt import write_tiled
from hloc.codegen.gpu.gemm_units import unit_of
from hloc.codegen.gpu.spread import over_elements
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.plain_convolution import plain_element
from hloc.ir.instruction import Instruction

_THREADS = 256

_FEATURES = 8
"""Output features of a group from which on a convolution is a product in tiles."""

_SMALL = 1 << 14
"""Multiplications up to which it is not."""


def _product(instruction: Instruction, is_fused: bool) -> ConvolutionProduct | None:
    """The convolution as a product, if that is how it is computed."""
    plan = ConvolutionPlan(instruction)
    if 0 in (plan.out.count, plan.lhs.count, plan.rhs.count) or plan.group_outputs < _FEATURES:
        return None
    product = ConvolutionProduct(instruction, plan, is_fused)
    return product if product.batch[0] * product.m * product.n * product.k > _SMALL else None


def _scratch(instruction: Instruction, is_fused: bool = False) -> int:
    product = _product(instruction, is_fused)
    return 0 if product is None else most_scratch(product, instruction, blocks_plan)


@gpu_kernel(
    "convolution",
    element_operands="all",
    scratch=_scratch,
    fused_scratch=lambda instruction, epilogue: _scratch(instruction, is_fused=True),
    takes_epilogue=lambda instruction: True,
    written_once=lambda instruction, epilogue: range(len(epilogue.roots)),
)
def convolution(g: GpuStep, instruction: Instruction) -> None:
    if len(instruction.operands) > 2:
        raise g.error(f"convolution with scales or sparsity is not supported on {g.target.name} yet")
    product = _product(instruction, g.is_fused)
    if product is not None:
        unit = unit_of(product, instruction, g.device.sm, g.options)
        plan = blocks_plan(product, unit, g.device.shared_bytes)
        (write_units if plan.kind == UNITS else write_tiled)(g, plan)
    elif instruction.shape.count:
        with g.launch(-(-instruction.shape.count // _THREADS), _THREADS) as k:
            _by_elements(k, ConvolutionPlan(instruction))


def _by_elements(k: GpuContext, plan: ConvolutionPlan) -> None:
    """A thread for each element of the result."""

    def one(indices: list[Index]) -> None:
        k.store(indices[0], [plain_element(k, plan, indices[0])])

    over_elements(k, k.global_index(), plan.out, 1, one)
