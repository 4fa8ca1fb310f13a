"""Gives each dimension of a dynamic slice a start of its own."""

from __future__ import annotations

from hloc.ir.attributes import SliceDim
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, replace

_SLICED = ("dynamic-slice", "dynamic-update-slice")


def run(module: Module) -> bool:
    """Takes the vector of starts apart that a dynamic-slice or dynamic-update-slice of older programs has.

    Requires: layout_removal; what it makes is row-major.
    Ensures: a start for each dimension of what is sliced.
    Leaves: reads of single elements of the vector, which the rules take further.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            if instruction.opcode in _SLICED and instruction.operands[-1].shape.rank == 1:
                _split(instruction)
                changed = True
    return changed


def _split(instruction: Instruction) -> None:
    emit = Emit.at(instruction)
    *operands, vector = instruction.operands
    for number in range(operands[0].shape.rank):
        operands.append(emit.reshape(emit.slice(vector, [SliceDim(number, number + 1)]), ()))
    replace(instruction, emit.op(instruction.opcode, instruction.shape, operands, **instruction.attributes))
