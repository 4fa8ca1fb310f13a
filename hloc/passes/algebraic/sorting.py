"""Rules of sort, and of results that nobody uses."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit


@rule("sort")
def sort_of_one(instruction: Instruction) -> Instruction | None:
    """sort(x, y) = (x, y) along a dimension of size 1"""
    (along,) = instruction.attributes["dimensions"]
    if instruction.operands[0].shape.dims[along] > 1:
        return None
    if not instruction.shape.is_tuple:
        return instruction.operands[0]
    return Emit.at(instruction).tuple(instruction.operands)
