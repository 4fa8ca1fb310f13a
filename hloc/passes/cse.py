"""Merges equal instructions and equal computations."""

from __future__ import annotations

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.equivalence import key, kinds

_OWN_BODY = ("fusion", "async-start", "async-update", "async-done")
"""Ops that do not share their computation with others: a fusion's body is the fusion's own."""


def run(module: Module) -> bool:
    """Keeps the first of several equal instructions, and of several equal computations.

    Two instructions are the same if opcode, shape with layout, attributes and operands are; of commutative
    ops the order of operands does not count, of called computations the name. Metadata never counts.
    Never merged are side effects, random numbers, collectives (also inside of called computations), barriers,
    and instructions with control edges.

    Requires: nothing.
    Ensures: no two mergeable instructions of one computation are the same.
    Leaves: computations that nobody calls any more, for dce.
    """
    computations = call_order(module.entry)
    kind = kinds(computations)
    changed = _share_computations(computations, kind)
    effects = Effects()
    for computation in computations:
        changed |= _merge(computation, kind, effects)
    return changed


def _merge(computation: Computation, kind: dict[Computation, int], effects: Effects) -> bool:
    first: dict[tuple, Instruction] = {}
    changed = False
    for instruction in computation:
        if (
            instruction.opcode == "parameter"
            or instruction.control_predecessors
            or instruction.control_successors
        ):
            continue
        if not effects.is_repeatable(instruction):
            continue
        kept = first.setdefault(key(instruction, _identity, kind.__getitem__), instruction)
        if kept is not instruction:
            computation.replace_uses(instruction, kept)
            computation.remove(instruction)
            changed = True
    return changed


def _identity(instruction: Instruction) -> int:
    return instruction.id


def _share_computations(computations: list[Computation], kind: dict[Computation, int]) -> bool:
    """Let callers name the first computation of its kind that is nobody's own body."""
    callers = [i for c in computations for i in c if i.called]
    bodies = {callee for i in callers if i.opcode in _OWN_BODY for callee in i.called}
    first: dict[int, Computation] = {}
    for computation in computations:
        if computation not in bodies:
            first.setdefault(kind[computation], computation)
    changed = False
    for instruction in callers:
        for callee in instruction.called:
            kept = first.get(kind[callee], callee)
            if kept is not callee and instruction.opcode not in _OWN_BODY:
                instruction.replace_called(callee, kept)
                changed = True
    return changed
