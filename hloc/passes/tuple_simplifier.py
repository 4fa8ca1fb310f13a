"""Sees through tuples."""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order

_CONTROL = ("while", "conditional")


def run(module: Module) -> bool:
    """Makes elements of a `tuple` its operands, and a tuple of all elements of a tuple that tuple.

    The states of loops and what goes into branches and comes out of them stay tuples of elements: other
    passes look at each element by itself.

    Requires: nothing.
    Ensures: no get-tuple-element of a `tuple`.
    Leaves: tuples that nobody uses any more, for dce.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            new = _simpler(instruction)
            if (
                new is not None
                and not instruction.control_predecessors
                and not instruction.control_successors
            ):
                changed |= _replace(computation, instruction, new)
    return changed


def _simpler(instruction: Instruction) -> Instruction | None:
    if instruction.opcode == "get-tuple-element" and instruction.operands[0].opcode == "tuple":
        return instruction.operands[0].operands[instruction.attributes["index"]]
    if instruction.opcode == "tuple":
        return _taken_apart(instruction)
    return None


def _taken_apart(instruction: Instruction) -> Instruction | None:
    """The tuple whose elements, all and in order, the instruction puts together again."""
    operands = instruction.operands
    if not operands or operands[0].opcode != "get-tuple-element":
        return None
    whole = operands[0].operands[0]
    if whole.shape != instruction.shape or _is_border(whole, instruction):
        return None
    for position, operand in enumerate(operands):
        if operand.opcode != "get-tuple-element" or operand.operands[0] is not whole:
            return None
        if operand.attributes["index"] != position:
            return None
    return whole


def _is_border(whole: Instruction, instruction: Instruction) -> bool:
    """Whether the tuple goes into control flow or comes out of it."""
    is_inside = not instruction.computation.is_entry
    if whole.opcode in _CONTROL or is_inside and (whole.opcode == "parameter" or instruction.is_root):
        return True
    return any(user.opcode in _CONTROL for user in instruction.users)


def _replace(computation: Computation, old: Instruction, new: Instruction) -> bool:
    if not old.users and not old.is_root:
        return False
    computation.replace_uses(old, new)
    if not old.users and not old.is_root:
        computation.remove(old)
    return True
