"""Drops control edges that order nothing."""

from __future__ import annotations

from hloc.analysis.effects import Effects
from hloc.ir.module import Module, call_order


def run(module: Module) -> bool:
    """Takes instructions without side effects out of the control order, joining the edges over them.

    The schedulers and the copy insertion of other compilers leave such edges, to keep memory apart that they
    had assigned; values have no such thing. Collectives keep theirs, so that all devices meet in one order.

    Requires: nothing.
    Ensures: both ends of a control edge have side effects or communicate.
    Leaves: the order of the instructions.
    """
    changed = False
    effects = Effects()
    for computation in call_order(module.entry):
        for instruction in computation:
            if not instruction.control_predecessors and not instruction.control_successors:
                continue
            if not effects.of(instruction):
                computation.drop_control_edges(instruction)
                changed = True
    return changed
