"""Removes dead code."""

from __future__ import annotations

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.module import Module, call_order


def run(module: Module) -> bool:
    """Takes out instructions that nobody uses, and computations that nobody calls.

    Kept are parameters (they are the signature), roots, and what has side effects by itself or inside of
    what it calls. Orders given by control edges over a removed instruction stay in force.

    Requires: nothing.
    Ensures: every instruction is used, the root, a parameter or has a side effect.
    Leaves: the order of what stays.
    """
    changed = False
    effects = Effects()
    for computation in reversed(call_order(module.entry)):
        changed |= _sweep(computation, effects)
    reachable = set(call_order(module.entry))
    for computation in list(module):
        if computation not in reachable:
            module.remove_computation(computation)
            changed = True
    return changed


def _sweep(computation: Computation, effects: Effects) -> bool:
    """Users stand after what they use, so one walk from the end finds everything."""
    changed = False
    for instruction in computation.reversed():
        if instruction.users or instruction.is_root or instruction.opcode == "parameter":
            continue
        if not effects.must_stay(instruction):
            computation.remove(instruction)
            changed = True
    return changed
