"""Computes in front of a loop what would be the same in each of its turns."""

from __future__ import annotations

from hloc.analysis.cost import weight, work
from hloc.analysis.effects import Effects
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.hoisting import cone, hoist, invariant_values, is_read
from hloc.passes.loops import Loop, loops_of
from hloc.passes.tuples import Owners

_LEAST_WORK = 8
"""Work for one element of the result, from which on it is worth memory: below, doing it again costs no more
than loading it."""

_MOST_GROWTH = 16
"""Bytes of the result for each byte that it is computed from, or of 64 KiB if these are more."""

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
            hoist(loop, _worth_hoisting(loop, effects), effects)
            changed = True
    if changed:
        module.order_computations()
    return changed


def _worth_hoisting(loop: Loop, effects: Effects) -> list[Instruction]:
    """The invariant arrays that others are computed from, where they are worth it."""
    invariant = invariant_values(loop, effects)
    return [
        value
        for value in loop.body
        if value in invariant
        and not is_read(value, loop)
        and value.shape.is_array
        and any(user not in invariant for user in value.users)
        and _is_worth_it(value, loop)
    ]


def _is_worth_it(value: Instruction, loop: Loop) -> bool:
    needed = cone(value, loop)
    given = sum(i.shape.byte_size for i in needed if is_read(i, loop))
    if value.shape.byte_size > _MOST_GROWTH * max(given, 1 << 16):
        return False
    return sum(map(_work, needed)) >= _LEAST_WORK * value.shape.count


def _work(instruction: Instruction) -> float:
    """Work in one turn: data-moving and elementwise ops by their weight, which may be nothing."""
    if instruction.opcode in ("get-tuple-element", "constant", "iota", "copy", "bitcast"):
        return 0
    if instruction.op.is_elementwise or instruction.opcode in _MOVES:
        return weight(instruction) * instruction.shape.count
    return work(instruction)
