"""Masks of an attention whose gradients need no columns that are masked.

What a masked score becomes is made of what is put in its place: where its power is 0, so is all that the power is a
factor of, and what is made of g v' there does not matter as long as it is a number. `mask_of_gradient` finds out
whether all that is multiplied in the end is made in that way; that powers are zeros is seen when they are there.
"""

from __future__ import annotations

from hloc.analysis.attention_gradient import AttentionGradient
from hloc.codegen.attention_mask import Mask, constant_of, mask_of_select
from hloc.ir.instruction import Instruction

_ANY, _SAME, _ZERO = range(3)
"""At what is masked: made of scores there; the same whatever these are; zero, if powers are and the scores numbers."""

_LINEAR = ("add", "subtract", "negate", "convert", "copy", "broadcast", "reshape", "transpose", "select")
"""Ops that make no huge numbers of others."""


def mask_of_gradient(found: AttentionGradient, weights: tuple[Instruction, ...]) -> Mask | None:
    """The mask of the scores, if no product needs weights where it masks."""
    for given in found.between:
        if given.opcode != "select" or given.shape.count != found.batch * found.m * found.n:
            continue
        mask = mask_of_select(given, [found.rows[given][-1], found.column(given)], found.m, found.n)
        if mask is not None and _vanish(found, given, weights):
            return mask
    return None


def _vanish(found: AttentionGradient, given: Instruction, weights: tuple[Instruction, ...]) -> bool:
    """Whether weights are zeros where the scores are those that `given` masks, if the first ones are, or some of them.

    These are powers times something of their row.
    """
    kinds = {scores.dot: _ANY for scores in found.scores}
    powers = []
    for instruction in found.between:
        given_kinds = [_of(operand, kinds) for operand in instruction.operands]
        kind = _SAME if instruction is given else _kind(instruction, given_kinds)
        if kind is None:
            return False
        if instruction.opcode == "exponential" and instruction.shape.count == given.shape.count and kind == _SAME:
            powers.append(instruction)
            kind = _ZERO
        kinds[instruction] = kind
    if len(powers) != 1 or not any(_is_scaled(value, powers[0], found) for value in weights):
        return False
    return all(kinds[value] == _ZERO for value in weights)


def _of(operand: Instruction, kinds: dict[Instruction, int]) -> int:
    return kinds.get(operand, _ZERO if constant_of(operand) == 0 else _SAME)


def _kind(instruction: Instruction, kinds: list[int]) -> int | None:
    """What an op makes; None if its result is of no use."""
    opcode = instruction.opcode
    if opcode == "reduce":
        return None if kinds[0] == _ANY else _SAME
    if (opcode == "multiply" and _ZERO in kinds) or (opcode == "divide" and kinds == [_ZERO, _SAME]):
        return _ZERO
    if _ANY in kinds:
        is_scaled = (opcode == "multiply" and _SAME in kinds) or (opcode == "divide" and kinds[1] == _SAME)
        return _ANY if opcode in _LINEAR or is_scaled else None
    parts = kinds[1:] if opcode == "select" else kinds
    return _ZERO if opcode in _LINEAR and all(kind == _ZERO for kind in parts) else _SAME


def _is_scaled(value: Instruction, power: Instruction, found: AttentionGradient) -> bool:
    """Whether a value is powers times, or by, what has one element a row."""
    value = _plain(value)
    if value.opcode not in ("multiply", "divide"):
        return False
    pairs = [value.operands, value.operands[::-1]][: 1 if value.opcode == "divide" else 2]
    return any(
        _plain(one) is power and other.opcode == "broadcast" and other.operands[0].shape.count == found.batch * found.m
        for one, other in pairs
    )


def _plain(value: Instruction) -> Instruction:
    while value.opcode in ("convert", "copy"):
        value = value.operands[0]
    return value
