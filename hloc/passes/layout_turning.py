"""Making values in the layout that is wanted of them, where that costs less than to copy them."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import Layout

_FREE = ("broadcast", "iota", "constant", "rng")
"""Ops whose result can be had in any order: there is nothing, or little, to read."""


def turn_producers(computation: Computation) -> bool:
    """Takes out copies to another layout where what makes the value may as well make it so; whether there were any.

    A product writes its result in either order of rows and columns. So a copy goes if it is one, seen through
    elementwise ops that nobody else uses, and if those would then read fewer bytes across memory than the copy does.
    """
    changed = False
    for copy in [instruction for instruction in computation if instruction.opcode == "copy"]:
        if _is_turning(copy) and _turn(copy):
            computation.replace_uses(copy, copy.operands[0])
            computation.remove(copy)
            changed = True
    return changed


def _is_turning(copy: Instruction) -> bool:
    return copy.shape.is_array and copy.shape.minor_to_major != copy.operands[0].shape.minor_to_major


def _turn(copy: Instruction) -> bool:
    """Gives the operand of a copy, and what it is made from, the copy's layout if that is worth it."""
    order = copy.shape.minor_to_major
    inside, across = [copy.operands[0]], 0
    known = {copy, copy.operands[0]}
    for instruction in inside:
        if instruction.is_root or any(user not in known for user in instruction.users):
            return False
        if instruction.opcode == "dot" and _is_written_in(instruction, order):
            continue
        if not instruction.op.is_elementwise or instruction.opcode == "map":
            return False
        for operand in instruction.operands:
            if operand in known or operand.shape.rank == 0 or operand.opcode in _FREE:
                continue
            known.add(operand)
            if operand.opcode == "dot" or (operand.op.is_elementwise and len(operand.users) == 1):
                inside.append(operand)
            elif operand.shape.minor_to_major != order:
                across += operand.shape.byte_size
    if across >= copy.shape.byte_size:
        return False
    for instruction in inside:
        instruction.shape = instruction.shape.with_layout(Layout(tuple(order)))
    return True


def _is_written_in(dot: Instruction, order: Sequence[int]) -> bool:
    """Whether a product has its result in an order at no cost: batches, then rows and columns or the other way."""
    batch = len(dot.get("lhs_batch_dims"))
    taken = batch + len(dot.get("lhs_contracting_dims"))
    rows = range(batch, batch + dot.operands[0].shape.rank - taken)
    columns = range(rows.stop, dot.shape.rank)
    given = [d for d in reversed(order) if dot.shape.dims[d] != 1]
    choices = ((*range(batch), *first, *second) for first, second in ((rows, columns), (columns, rows)))
    return given in [[d for d in choice if dot.shape.dims[d] != 1] for choice in choices]
