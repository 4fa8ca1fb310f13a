"""What a loop computes alike in each turn, and moving it in front of the loop."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.analysis.effects import Effects
from hloc.analysis.trip_count import trip_count
from hloc.ir.clone import clone_instruction
from hloc.ir.instruction import CALLERS, Instruction
from hloc.passes.loops import Loop

_NEVER = ("tuple", "parameter", "opt-barrier", "add-dependency", "after-all", "domain")


def invariant_values(loop: Loop, effects: Effects) -> set[Instruction]:
    """The instructions of the body that give the same in each turn, and may be computed in front of the loop.

    Loops inside of the body may only if they are known to end.
    """
    fixed = set(loop.invariants())
    invariant: set[Instruction] = set()
    for instruction in loop.body:
        if is_read(instruction, loop):
            if instruction.attributes["index"] in fixed:
                invariant.add(instruction)
        elif _may_move(instruction, effects) and all(o in invariant for o in instruction.operands):
            invariant.add(instruction)
    return invariant


def hoist(loop: Loop, values: Sequence[Instruction], effects: Effects) -> list[Instruction]:
    """Computes invariant values in front of the loop, which then carries them: where they are there, in order.

    The loop's computations must be its own.
    """
    outside: dict[Instruction, Instruction] = {}
    for value in values:
        for instruction in cone(value, loop):
            _copy_out(instruction, loop, outside)
    added = [outside[value] for value in values]
    numbers = loop.set_state(range(loop.size), added, effects)
    reads = {read.attributes["index"]: read for read in loop.body.parameters[0].users}
    for value, number in zip(values, numbers, strict=True):
        if value.computation is None:
            continue  # only what nobody needs was computed from it
        loop.body.replace_uses(value, reads[number])
        loop.body.remove(value)
    return added


def _copy_out(instruction: Instruction, loop: Loop, outside: dict[Instruction, Instruction]) -> None:
    if instruction in outside:
        return
    if is_read(instruction, loop):
        outside[instruction] = loop.initial[instruction.attributes["index"]]
        return
    copy = clone_instruction(instruction, [outside[operand] for operand in instruction.operands])
    outside[instruction] = loop.instruction.computation.add(copy, loop.instruction)


def _may_move(instruction: Instruction, effects: Effects) -> bool:
    if instruction.opcode in _NEVER or instruction.control_predecessors or instruction.control_successors:
        return False
    if any(leaf.is_dynamic for _, leaf in instruction.shape.leaves()):
        return False
    if not effects.is_repeatable(instruction):
        return False
    return _ends(instruction)


def _ends(instruction: Instruction) -> bool:
    """Whether an op, and all loops in what it calls, is known to come to an end."""
    if instruction.opcode not in CALLERS:
        return True
    if instruction.opcode == "while" and trip_count(instruction) is None:
        return False
    return all(_ends(inner) for callee in instruction.called for inner in callee)


def cone(value: Instruction, loop: Loop) -> list[Instruction]:
    """What a value is computed from, operands first, itself last."""
    state = loop.body.parameters[0]
    order: list[Instruction] = []
    opened = {value, state}
    stack = [(value, iter(value.operands))]
    while stack:
        instruction, pending = stack[-1]
        operand = next(pending, None)
        if operand is None:
            order.append(instruction)
            stack.pop()
        elif operand not in opened:
            opened.add(operand)
            stack.append((operand, iter(operand.operands)))
    return order


def is_read(instruction: Instruction, loop: Loop) -> bool:
    """Whether an instruction of the body reads an element of the state."""
    return instruction.opcode == "get-tuple-element" and instruction.operands[0] is loop.body.parameters[0]
