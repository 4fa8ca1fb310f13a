"""select-and-scatter: each window's chosen element receives its source element."""

from __future__ import annotations

from hloc.codegen.arrays import Register
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.windows import chosen
from hloc.ir.instruction import Instruction


@kernel("select-and-scatter", element_operands="all")
def select_and_scatter(k: KernelContext, instruction: Instruction) -> None:
    output = k.outputs[0]
    initial = k.input(2)(())
    k.loop_nest(
        output.shape.dims, lambda index: output.store(index, initial), output.shape.minor_to_major[::-1]
    )
    source = instruction.operands[1].shape
    if 0 in output.shape.dims:
        return

    def window(index: Index, carried: list[Register]) -> list[Register]:
        found, place = chosen(k, instruction, index)
        with k.b.if_then(found):
            folded = k.apply(instruction.attributes["scatter"], [output.load(place), k.input(1)(index)])
            output.store(place, folded[0])
        return carried

    k.reduce_loop(source.dims, [], window)
