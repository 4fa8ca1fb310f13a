"""Removes dead code."""

from __future__ import annotations

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.module import Module, call_order


def run(module: Module) -> int:
    """Takes out instructions that nobody uses, and computations that nobody calls.

    Kept are parameters (they are the signature), roots, and what has side effects by itself or inside of
    what it calls. Orders given by control edges over a removed instruction stay in force.

    Requires: nothing.
    Ensures: every instruction is used, the root, a parameter or has a side effect.
    Leaves: the order of what stays.
    """
    effects = Effects()
    removed = sum(_sweep(computation, effects) for computation in reversed(call_order(module.entry)))
    reachable = set(call_order(module.entry))
    for computation in list(module):
        if computation not in reachable:
            module.remove_computation(computation)
            removed += 1
    return removed


def _sweep(computation: Computation, effects: Effects) -> int:
    """Users stand after what they use, so one walk from the end finds everything."""
    removed = 0
    for instruction in reversed(computation.instructions):
        if instruction.users or instruction.is_root or instruction.opcode == "parameter":
            continue
        if not effects.must_stay(instruction):
            computation.remove(instruction)
            removed += 1
    return removed
