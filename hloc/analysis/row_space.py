"""Rows: which dimensions of a value count through the rows that reduces fold, and how ops hand them on.

A row kernel goes through rows one by one (or through several, side by side) and keeps what reduces make of a row
beside the loop over its columns. It may do so if each value that depends on a reduce is wanted only in the row in
which it was made. `Rows` says this of a value: the dimensions which, in this order and as digits of one number,
are the number of the row. Dimensions of size 1 are left out. A value may have any other dimensions besides: they are
its columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from hloc.analysis.layouts import reshape_runs
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.records import record

Rows = tuple[int, ...]

WHOLE: Rows = (-1,)
"""In place of the rows of a value that depends on all of them, and has one element."""

LEAST_LANES, MOST_STRIP_BYTES = 64, 1 << 18
"""Rows side by side that make a strip, at least, and the bytes of a strip that the second cache holds."""


@record
class RowSpace:
    """The rows of a reduce: their `sizes`, the major ones first, and where the operand's elements lie.

    `lanes` is how many neighbours in memory belong to different rows: 1 if a row's own columns are neighbours.
    """

    sizes: tuple[int, ...]
    lanes: int

    @property
    def count(self) -> int:
        return prod(self.sizes)


def rows_reduced(reduce: Instruction) -> Rows:
    """The kept dimensions of a reduce's operand, in the order of memory."""
    shape, folded = reduce.operands[0].shape, reduce.get("dimensions")
    return tuple(d for d in memory_order(shape) if d not in folded)


def row_space(reduce: Instruction) -> RowSpace:
    """The rows that a reduce folds."""
    shape, folded = reduce.operands[0].shape, reduce.get("dimensions")
    order = memory_order(shape)
    last = max((position for position, d in enumerate(order) if d in folded), default=-1)
    lanes = prod(shape.dims[d] for d in order[last + 1 :])
    return RowSpace(tuple(shape.dims[d] for d in rows_reduced(reduce)), lanes)


def memory_order(shape: ArrayShape) -> list[int]:
    """The dimensions wider than 1, the major ones first; without a layout an array is row-major."""
    return [d for d in reversed(shape.minor_to_major) if shape.dims[d] != 1]


def column_dims(shape: ArrayShape, rows: Rows) -> list[int]:
    """The dimensions that are no rows and wider than 1, in the order of memory."""
    return [d for d in memory_order(shape) if d not in rows]


def is_row_value(shape: ArrayShape, rows: Rows) -> bool:
    """Whether a value has one element a row."""
    return rows != WHOLE and shape.count == prod(shape.dims[d] for d in rows)


def rows_of(instruction: Instruction, known: Mapping[Instruction, Rows]) -> Rows | None:
    """The rows of an op's result, given those of the operands that have any.

    None if it needs other rows of an operand than the one that it is in, or if operands disagree.
    """
    found = {
        rows_through(instruction, number, known[operand])
        for number, operand in enumerate(instruction.operands)
        if operand in known
    }
    return found.pop() if len(found) == 1 else None


def rows_through(user: Instruction, number: int, rows: Rows) -> Rows | None:
    """The rows of an op's result, given those of operand `number`; None if they get mixed up."""
    if not rows:
        return rows  # all is one row
    if rows == WHOLE:
        return WHOLE if _has_one_element(user) and user.opcode != "reduce" else None
    opcode, operand = user.opcode, user.operands[number].shape
    if opcode == "get-tuple-element":
        return rows
    if opcode == "reduce":
        return _through_reduce(user, number, rows)
    if not user.shape.is_array:
        return None
    if user.op.is_elementwise:
        return rows if operand.dims == user.shape.dims else None
    if opcode == "broadcast":
        dimensions = user.get("dimensions")
        return tuple(dimensions[d] for d in rows)
    if opcode == "transpose":
        order = user.get("dimensions")
        return tuple(order.index(d) for d in rows)
    if opcode == "reshape":
        return _through_reshape(operand.dims, user.shape.dims, rows)
    if opcode == "gather":
        return _through_gather(user, number, rows)
    if number == 0 and opcode in ("slice", "dynamic-slice", "reverse"):
        return _through_part(user, operand, rows)
    return None


def _through_part(user: Instruction, operand: ArrayShape, rows: Rows) -> Rows | None:
    """Rows stay where each of their dimensions is taken whole, in order."""
    if user.opcode == "reverse":
        return rows if not set(rows) & set(user.get("dimensions")) else None
    return rows if all(user.shape.dims[d] == operand.dims[d] for d in rows) else None


def _through_reduce(user: Instruction, number: int, rows: Rows) -> Rows | None:
    """Every dimension that is no row has to be folded; or all of them, of a value with one element a row."""
    folded, shape = user.get("dimensions"), user.operands[number].shape
    if number >= len(user.operands) // 2:
        return None
    kept = [d for d in range(shape.rank) if d not in folded]
    if {d for d in kept if shape.dims[d] != 1} == set(rows):
        return tuple(kept.index(d) for d in rows)
    return WHOLE if is_row_value(shape, rows) and _has_one_element(user) else None


def _has_one_element(instruction: Instruction) -> bool:
    return instruction.shape.is_array and instruction.shape.count == 1


def _through_reshape(source: tuple[int, ...], target: tuple[int, ...], rows: Rows) -> Rows | None:
    runs = reshape_runs(source, target)
    if runs is None:
        return None
    into = {tuple(ours): theirs for ours, theirs in runs}
    found: list[int] = []
    left = list(rows)
    while left:
        ours = next(ours for ours in into if left[0] in ours)
        if tuple(left[: len(ours)]) != ours:
            return None
        found += into[ours]
        del left[: len(ours)]
    return tuple(found)


def _through_gather(user: Instruction, number: int, rows: Rows) -> Rows | None:
    """One part a row, from the row itself: rows are batching dimensions of operand and indices alike."""
    operand, indices = user.operands[0].shape, user.operands[1].shape
    ours, theirs = user.get("operand_batching_dims"), user.get("start_indices_batching_dims")
    batch = [d for d in range(user.shape.rank) if d not in user.get("offset_dims")]
    vector = user.get("index_vector_dim")
    result = []
    for d in rows:
        if number == 1:
            if d == vector:
                return None
            place = d
        elif d in ours and operand.dims[d] == indices.dims[theirs[ours.index(d)]]:
            place = theirs[ours.index(d)]
        else:
            return None
        result.append(batch[place - (place > vector)])
    return tuple(result)


def rows_backwards(user: Instruction, number: int, rows: Rows | None) -> Rows | None:
    """The rows of operand `number` of an op whose result has these; None if an element of it serves several rows."""
    operand = user.operands[number].shape
    if rows is None or rows == WHOLE or not operand.is_array:
        return None
    if user.op.is_elementwise:
        return rows if operand.dims == user.shape.dims else None
    if user.opcode == "broadcast":
        dimensions = user.get("dimensions")
        return tuple(dimensions.index(d) for d in rows) if set(rows) <= set(dimensions) else None
    if user.opcode == "transpose":
        return tuple(user.get("dimensions")[d] for d in rows)
    if user.opcode == "reshape":
        return _through_reshape(user.shape.dims, operand.dims, rows)
    return None
