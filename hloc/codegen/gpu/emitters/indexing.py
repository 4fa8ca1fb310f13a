"""dynamic-update-slice: the part alone is written where the operand's memory is the result's."""

from __future__ import annotations

from hloc.codegen.emitters.indexing import starts_of
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.grids import each_element
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape


@gpu_kernel(
    "dynamic-update-slice",
    element_operands=lambda instruction: range(1, len(instruction.operands)),
    in_place=lambda instruction: ((0, 0),),
)
def dynamic_update_slice(g: GpuStep, instruction: Instruction) -> None:
    g.copy(0, 0)
    sizes = instruction.operands[1].shape.dims
    output = g.step.outputs[0].shape

    def part(k: GpuContext, indices: list[Index]) -> None:
        inputs = [k.input(number) for number in range(len(instruction.operands))]
        starts = starts_of(k, instruction, inputs, 2, sizes)
        values = [inputs[1](index) for index in indices]
        for index, value in zip(indices, values, strict=True):
            k.outputs[0].store(tuple(k.b.add(s, i) for s, i in zip(starts, index, strict=True)), value)

    each_element(g, ArrayShape(output.dtype, sizes, output.layout), part, "part")
