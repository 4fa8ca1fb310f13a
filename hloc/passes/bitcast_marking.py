"""Says of what moves nothing that it moves nothing."""

from __future__ import annotations

from hloc.analysis.call_graph import CONTROL, CallGraph
from hloc.analysis.layouts import moves_nothing
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.emit import Emit, replace


def run(module: Module) -> bool:
    """Makes a reshape, transpose or copy a `bitcast` where its result lies in memory as its operand does.

    Requires: layouts (layout_assignment).
    Ensures: a reshape, transpose or copy outside of fusions moves elements.
    Leaves: fused computations, where an index is all there is to change.
    """
    graph = CallGraph(module)
    changed = False
    for computation in graph.reachable():
        if CONTROL not in graph.contexts(computation):
            continue
        for instruction in computation:
            if _is_bitcast(instruction):
                value = instruction.operands[0]
                if value.shape != instruction.shape:
                    value = Emit.at(instruction).op("bitcast", instruction.shape, (value,))
                replace(instruction, value)
                changed = True
    return changed


def _is_bitcast(instruction: Instruction) -> bool:
    shapes = [instruction.shape, *(operand.shape for operand in instruction.operands)]
    if instruction.opcode not in ("reshape", "transpose", "copy"):
        return False
    if (
        any(not shape.is_array or shape.is_dynamic for shape in shapes)
        or shapes[0].rank == 0 == shapes[1].rank
    ):
        return False
    return moves_nothing(instruction)
