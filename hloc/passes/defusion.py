"""Inlines fusions."""

from __future__ import annotations

from hloc.ir.module import Module, call_order
from hloc.passes.inlining import inline


def run(module: Module) -> bool:
    """Puts the instructions of every fusion in the fusion's place, whatever its kind.

    A fusion says that a computation be one kernel, of a form that the compiler which made it had; its value
    is that of its computation. What becomes a kernel here is decided anew.

    Requires: nothing.
    Ensures: no fusion.
    Leaves: computations that nobody calls any more, for dce.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            if instruction.opcode == "fusion":
                inline(instruction, instruction.attributes["calls"])
                changed = True
    return changed
