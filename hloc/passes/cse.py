"""Merges equal instructions and equal computations."""

from __future__ import annotations

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.opcodes import COMMUTATIVE, OPS
from hloc.passes.equivalence import key, kinds

_OWN_BODY = ("fusion", "async-start", "async-update", "async-done")
"""Ops that do not share their computation with others: a fusion's body is the fusion's own."""

_COMMUTATIVE = frozenset(name for name, op in OPS.items() if op.has(COMMUTATIVE))


def run(module: Module) -> int:
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
    shared = _share_computations(computations, kind)
    effects = Effects()
    return shared + sum(_merge(computation, kind, effects) for computation in computations)


def _merge(computation: Computation, kind: dict[Computation, int], effects: Effects) -> int:
    """How many were merged. Only those with the same operands are looked at closely: most have no such twin."""
    alone: dict[tuple, Instruction | None] = {}
    first: dict[tuple, Instruction] = {}
    merged = 0
    for instruction in computation.instructions:
        rough = _opcode_and_operands(instruction)
        other = alone.setdefault(rough, instruction)
        if other is instruction:
            continue
        if other is not None:
            alone[rough] = None
            if _is_mergeable(other, effects):
                first[key(other, _identity, kind.__getitem__)] = other
        if not _is_mergeable(instruction, effects):
            continue
        kept = first.setdefault(key(instruction, _identity, kind.__getitem__), instruction)
        if kept is not instruction:
            computation.replace_uses(instruction, kept)
            computation.remove(instruction)
            merged += 1
    return merged


def _opcode_and_operands(instruction: Instruction) -> tuple:
    opcode, operands = instruction.opcode, [operand.id for operand in instruction.operands]
    if opcode in _COMMUTATIVE:
        operands.sort()
    return opcode, *operands


def _is_mergeable(instruction: Instruction, effects: Effects) -> bool:
    if instruction.opcode == "parameter" or instruction.control_predecessors or instruction.control_successors:
        return False
    return effects.is_repeatable(instruction)


def _identity(instruction: Instruction) -> int:
    return instruction.id


def _share_computations(computations: list[Computation], kind: dict[Computation, int]) -> int:
    """Let callers name the first computation of its kind that is nobody's own body."""
    callers = [i for c in computations for i in c.call_sites]
    bodies = {callee for i in callers if i.opcode in _OWN_BODY for callee in i.called}
    first: dict[int, Computation] = {}
    for computation in computations:
        if computation not in bodies:
            first.setdefault(kind[computation], computation)
    shared = 0
    for instruction in callers:
        for callee in instruction.called:
            kept = first.get(kind[callee], callee)
            if kept is not callee and instruction.opcode not in _OWN_BODY:
                instruction.replace_called(callee, kept)
                shared += 1
    return shared
