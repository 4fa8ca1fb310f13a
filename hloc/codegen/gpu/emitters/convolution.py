"""convolution: window sums of products, of any dimension labels, strides, paddings, dilations and groups."""

from __future__ import annotations

from hloc.codegen.convolution_plan import ConvolutionPlan
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.spread import over_elements
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.plain_convolution import plain_element
from hloc.ir.instruction import Instruction

_THREADS = 256


@gpu_kernel("convolution", element_operands="all", takes_epilogue=lambda instruction: True)
def convolution(g: GpuStep, instruction: Instruction) -> None:
    if len(instruction.operands) > 2:
        raise g.error(f"convolution with scales or sparsity is not supported on {g.target.name} yet")
    plan = ConvolutionPlan(instruction)
    if plan.out.count:
        with g.launch(-(-plan.out.count // _THREADS), _THREADS) as k:
            _direct(k, plan)


def _direct(k: GpuContext, plan: ConvolutionPlan) -> None:
    """A thread for each element of the result."""

    def one(indices: list[Index]) -> None:
        k.store(indices[0], [plain_element(k, plan, indices[0])])

    over_elements(k, k.global_index(), plan.out, 1, one)
