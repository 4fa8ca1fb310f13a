"""Takes barriers away when there is nothing left that they could keep apart."""

from __future__ import annotations

from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import replace


def run(module: Module) -> int:
    """Replaces every opt-barrier by its operand, and the elements of one of a tuple by what the tuple is made of.

    Kernels may then go across: a barrier forbids to move and to merge, which is done with, not to fuse.

    Requires: nothing; cse comes before it, or it would merge what is computed twice on purpose.
    Ensures: no opt-barrier without control edges.
    Leaves: tuples that nobody uses any more, for dce.
    """
    barriers = [i for computation in call_order(module.entry) for i in computation if i.opcode == "opt-barrier"]
    removed = [barrier for barrier in barriers if not (barrier.control_predecessors or barrier.control_successors)]
    for barrier in removed:
        _remove(barrier)
    return len(removed)


def _remove(barrier: Instruction) -> None:
    (operand,) = barrier.operands
    computation = barrier.computation
    if operand.opcode == "tuple":
        for user in list(barrier.users):
            if user.opcode == "get-tuple-element":
                computation.replace_uses(user, operand.operands[user.attributes["index"]])
    replace(barrier, operand)
