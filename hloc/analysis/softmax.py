"""The softmax between the products of an attention, in the form that lets it go on block by block of columns.

weights = power / total, power = exp(given - shift), total = sum of power over a row, and shift made of the greatest of
the row's `given`. Of some columns, sums of powers and of their products with the values can be had relative to the
greatest so far, and made relative to a greater one later (Milakov and Gimelshein, "Online normalizer calculation for
softmax", 2018; Dao et al., "FlashAttention", 2022).
"""

from __future__ import annotations

from collections.abc import Iterator

from hloc.analysis.attention import Attention
from hloc.ir.instruction import Instruction
from hloc.records import record

_SAME_VALUES = ("convert", "copy", "bitcast", "reshape", "transpose")
"""Ops whose results have the values of their operands, but for rounding."""


@record
class Softmax:
    """The instructions of a softmax, as the module says; `most` and `total` are reduces.

    `given` has an element for each score and depends on no reduce. `shift` and `scale` have the same element for all
    of a row. Weights are powers divided by `scale` (`divides`), or multiplied by it.
    """

    given: Instruction
    most: Instruction
    shift: Instruction
    total: Instruction
    scale: Instruction
    divides: bool

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def softmax_of(found: Attention) -> Softmax | None:
    """The softmax of an attention, if that is what lies between the products."""
    reduces = [instruction for instruction in found.between if instruction.opcode == "reduce"]
    if len(reduces) != 2:
        return None
    most, total = reduces
    if _folding(most) != "maximum" or _folding(total) != "add":
        return None
    weights = _plain(found.product.operands[found.weights], found)
    for power, scale, divides in _factors(weights):
        power = _plain(power, found)
        if power.opcode != "exponential" or _plain(total.operands[0], found) is not power:
            continue
        less = _plain(power.operands[0], found)
        if less.opcode != "subtract":
            continue
        given, shift = (_plain(operand, found) for operand in less.operands)
        if _plain(most.operands[0], found) is not given or given not in found.rows or not _is_own(given, found):
            continue
        if _is_of_rows(shift, found) and _is_of_rows(scale, found) and not _depends(shift, total, found):
            return Softmax(given, most, shift, total, scale, divides)
    return None


def _folding(reduce: Instruction) -> str:
    return reduce.called[0].root.opcode if len(reduce.called[0]) == 3 else ""


def _plain(instruction: Instruction, found: Attention) -> Instruction:
    """What an instruction has its values of."""
    while instruction.opcode in _SAME_VALUES and instruction in found.between:
        instruction = instruction.operands[0]
    return instruction


def _factors(weights: Instruction) -> Iterator[tuple[Instruction, Instruction, bool]]:
    """The ways to see weights as powers over, or times, something."""
    if weights.opcode in ("divide", "multiply"):
        left, right = weights.operands
        yield left, right, weights.opcode == "divide"
        if weights.opcode == "multiply":
            yield right, left, False


def columns_of(value: Instruction, found: Attention) -> list[int]:
    """The dimensions of a value that do not count its rows."""
    rows = found.rows[value]
    return [d for d, size in enumerate(value.shape.dims) if d not in rows and size != 1]


def _is_own(given: Instruction, found: Attention) -> bool:
    """Whether a value has an element for each score, its columns in one dimension, and depends on no reduce."""
    if len(columns_of(found.scores, found)) > 1 or len(columns_of(given, found)) > 1:
        return False
    if given is found.scores:
        return True
    if given not in found.between or given.shape.count != found.scores.shape.count:
        return False
    return not any(_depends(given, reduce, found) for reduce in found.between if reduce.opcode == "reduce")


def _is_of_rows(value: Instruction, found: Attention) -> bool:
    """Whether all elements of a row are the same one."""
    value = _plain(value, found)
    if value not in found.between or value.opcode != "broadcast":
        return False
    return value.operands[0].shape.count == found.batch * found.m


def _depends(value: Instruction, on: Instruction, found: Attention) -> bool:
    """Whether a value between the products is made of another one."""
    pending, seen = [value], set()
    while pending:
        instruction = pending.pop()
        if instruction is on:
            return True
        if instruction in found.rows and instruction not in seen and instruction is not found.scores:
            seen.add(instruction)
            pending += instruction.operands
    return False
