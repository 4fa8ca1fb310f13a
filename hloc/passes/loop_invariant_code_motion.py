"""Computes in front of a loop what would be the same in each of its turns."""

from __future__ import annotations

from hloc.analysis.cost import weight, work
from hloc.analysis.effects import Effects
from hloc.analysis.trip_count import trip_count
from hloc.ir.clone import clone_instruction
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.loops import Loop, loops_of
from hloc.passes.tuples import Owners

_LEAST_WORK = 8
"""Work for one element of the result, from which on it is worth memory: below, doing it again costs no more
than loading it."""

_MOST_GROWTH = 16
"""Bytes of the result for each byte that it is computed from, or of 64 KiB if these are more."""

_NEVER = ("tuple", "parameter", "opt-barrier", "add-dependency", "after-all", "domain")

_MOVES = ("slice", "pad", "concatenate", "dynamic-slice", "gather", "reshape", "transpose", "reverse", "broadcast")


def run(module: Module) -> bool:
    """Takes work on values that a loop does not change out of its body.

    What is worth it is decided for each value that changing ones are computed from, with all that it is
    computed from itself: a product, a sum of many, a transcendental function. A few cheap ops stay, and what
    only spreads or moves data: fusion does them again for less than memory would cost. Loops inside of the
    body move only if they are known to end.

    Requires: loops in explicit form, by while_simplifier; others are left alone.
    Ensures: no body of such a loop has work on invariant values that is worth it.
    Leaves: one more element of the state for each value.
    """
    owners = Owners(module)
    effects = Effects()
    changed = False
    for instruction in loops_of(module):
        loop = Loop.of(instruction)
        if loop is not None and _worth_hoisting(loop, effects):
            loop.own(owners)
            _hoist(loop, _worth_hoisting(loop, effects), effects)
            changed = True
    if changed:
        module.order_computations()
    return changed


def _hoist(loop: Loop, values: list[Instruction], effects: Effects) -> None:
    outside: dict[Instruction, Instruction] = {}
    for value in values:
        for instruction in _cone(value, loop):
            _copy_out(instruction, loop, outside)
    added = [outside[value] for value in values]
    numbers = loop.set_state(range(loop.size), added, effects)
    reads = {read.attributes["index"]: read for read in loop.body.parameters[0].users}
    for value, number in zip(values, numbers, strict=True):
        if value.computation is None:
            continue  # only what nobody needs was computed from it
        loop.body.replace_uses(value, reads[number])
        loop.body.remove(value)


def _copy_out(instruction: Instruction, loop: Loop, outside: dict[Instruction, Instruction]) -> None:
    if instruction in outside:
        return
    if _is_read(instruction, loop):
        outside[instruction] = loop.initial[instruction.attributes["index"]]
        return
    copy = clone_instruction(instruction, [outside[operand] for operand in instruction.operands])
    outside[instruction] = loop.instruction.computation.add(copy, loop.instruction)


def _worth_hoisting(loop: Loop, effects: Effects) -> list[Instruction]:
    """The invariant arrays that others are computed from, where they are worth it."""
    fixed = set(loop.invariants())
    invariant: set[Instruction] = set()
    for instruction in loop.body:
        if _is_read(instruction, loop):
            if instruction.attributes["index"] in fixed:
                invariant.add(instruction)
        elif _may_move(instruction, effects) and all(o in invariant for o in instruction.operands):
            invariant.add(instruction)
    return [
        value
        for value in loop.body
        if value in invariant
        and not _is_read(value, loop)
        and value.shape.is_array
        and any(user not in invariant for user in value.users)
        and _is_worth_it(value, loop)
    ]


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
    if instruction.opcode == "while" and trip_count(instruction) is None:
        return False
    return all(_ends(inner) for callee in instruction.called for inner in callee)


def _is_worth_it(value: Instruction, loop: Loop) -> bool:
    cone = _cone(value, loop)
    given = sum(i.shape.byte_size for i in cone if _is_read(i, loop))
    if value.shape.byte_size > _MOST_GROWTH * max(given, 1 << 16):
        return False
    return sum(map(_work, cone)) >= _LEAST_WORK * value.shape.count


def _work(instruction: Instruction) -> float:
    """Work in one turn: data-moving and elementwise ops by their weight, which may be nothing."""
    if instruction.opcode in ("get-tuple-element", "constant", "iota", "copy", "bitcast"):
        return 0
    if instruction.op.is_elementwise or instruction.opcode in _MOVES:
        return weight(instruction) * instruction.shape.count
    return work(instruction)


def _cone(value: Instruction, loop: Loop) -> list[Instruction]:
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


def _is_read(instruction: Instruction, loop: Loop) -> bool:
    return (
        instruction.opcode == "get-tuple-element" and instruction.operands[0] is loop.body.parameters[0]
    )
