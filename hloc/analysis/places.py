"""Where a fused computation needs each of its values, seen from where it writes its results."""

from __future__ import annotations

from hloc.analysis.layouts import same_order
from hloc.analysis.updates import is_own_part, root_leaves, updating_root
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import ArrayShape, Shape

THE_SAME = "the same"  # in memory where the result is written
ITS_ROW = "its row"  # anywhere in the row that a reduce folds, before that row is written
PART = "part"  # where in its own updated part the result is written
OTHER = "other"

Row = tuple[int, ...]
"""Of a value with an element a row: the dimensions of the results that its own, where wider than 1, are."""

Need = str | Row

_ELEMENTWISE = frozenset(name for name, op in OPS.items() if op.is_elementwise)

_RANKS = {THE_SAME: 0, ITS_ROW: 1, PART: 2, OTHER: 3}


def places_needed(body: Computation) -> list[dict[Instruction, Need]]:
    """Where results need what they are made of, for each group of results that are written side by side.

    A group are results of one shape, and those with an element for each of their rows. The first has the largest.
    """
    left = sorted((root for _, root in root_leaves(body)), key=lambda root: -root.shape.count)
    found = []
    while left:
        result = left[0].shape
        needs = {root: _of_root(root, result, body) for root in left}
        group = {root: need for root, need in needs.items() if need != OTHER}
        left = [root for root in left if root not in group]
        found.append(_needs_of(group, result, body))
    return found


def _needs_of(roots: dict[Instruction, Need], result: ArrayShape, body: Computation) -> dict[Instruction, Need]:
    needs = dict(roots)
    walk = _Walk(result, _rows(result, body), [update for root in roots if (update := updating_root(root))])
    for instruction in reversed(body.instructions):
        need = needs.get(instruction)
        for operand in dict.fromkeys(instruction.operands) if need is not None else ():
            found = walk.need_of(instruction, operand, need)
            needs[operand] = _both(found, needs.get(operand, found))
    return needs


def _of_root(root: Instruction, result: ArrayShape, body: Computation) -> Need:
    """Where a result is in terms of the largest one: the same place, its row, or what is made of all rows."""
    if _alike(root.shape, result):
        return THE_SAME
    rows = _rows(result, body)
    if rows is None:
        return OTHER
    return () if root.shape.count == 1 else _row_value(root.shape, result, rows)


def _rows(result: ArrayShape, body: Computation) -> Row | None:
    """The dimensions that the first reduce of an array like the result keeps."""
    for instruction in body.instructions:
        if instruction.opcode == "reduce" and _alike(instruction.operands[0].shape, result):
            folded = instruction.get("dimensions")
            return tuple(d for d in _wide(result) if d not in folded)
    return None


def _row_value(shape: ArrayShape, result: ArrayShape, rows: Row) -> Need:
    """The need of a value with an element for each of these rows."""
    is_row = [result.dims[d] for d in rows] == [shape.dims[d] for d in _wide(shape)]
    return rows if is_row else OTHER


def _both(one: Need, other: Need) -> Need:
    if one == other:
        return one
    if isinstance(one, tuple) or isinstance(other, tuple):
        return OTHER
    return max(one, other, key=_RANKS.__getitem__)


class _Walk:
    def __init__(self, result: ArrayShape, rows: Row | None, updates: list[Instruction]):
        self._result = result
        self._rows = rows
        self._updates = updates

    def need_of(self, user: Instruction, operand: Instruction, need: Need) -> Need:
        """Where an op needs elements of an operand, if its own are needed at `need`."""
        opcode, number = user.opcode, user.operands.index(operand)
        if opcode in _ELEMENTWISE and not isinstance(need, tuple):
            return need if _alike(operand.shape, user.shape) else OTHER
        if opcode not in _ELEMENTWISE and user.operands.count(operand) > 1:
            return OTHER
        if isinstance(need, tuple):
            return self._of_row_value(user, operand, number, need)
        if opcode == "bitcast":
            return need if user.shape.count == operand.shape.count else OTHER
        if user in self._updates:
            part = PART if opcode == "dynamic-update-slice" else OTHER
            return {0: need, 1: part}.get(number, OTHER)
        if opcode in ("slice", "dynamic-slice") and need == PART and number == 0:
            is_own = any(u.opcode == "dynamic-update-slice" and is_own_part(user, u) for u in self._updates)
            return THE_SAME if is_own else OTHER
        if opcode == "broadcast" and need in (THE_SAME, ITS_ROW) and _alike(user.shape, self._result):
            return tuple(user.get("dimensions")[d] for d in _wide(operand.shape))
        is_as_wide = opcode == "bitcast-convert" and _alike(operand.shape, user.shape)
        return need if is_as_wide else OTHER

    def _of_row_value(self, user: Instruction, operand: Instruction, number: int, row: Row) -> Need:
        """The row that an op needs of an operand for a value that belongs to a row."""
        if user.opcode == "reduce":
            folded, arrays = user.get("dimensions"), len(user.operands) // 2
            kept = tuple(d for d in _wide(operand.shape) if d not in folded)
            if number < arrays and kept == row and _alike(operand.shape, self._result):
                return ITS_ROW
            is_of_all = row == () == kept and self._rows is not None and number < arrays
            return _row_value(operand.shape, self._result, self._rows) if is_of_all else OTHER
        if user.opcode == "broadcast":
            places = [user.get("dimensions")[d] for d in _wide(operand.shape)]
            wide = _wide(user.shape)
            return tuple(row[wide.index(d)] for d in places)
        if user.opcode in ("reshape", "bitcast"):
            sizes = [[shape.dims[d] for d in _wide(shape)] for shape in (user.shape, operand.shape)]
            return row if sizes[0] == sizes[1] else OTHER
        if user.opcode == "get-tuple-element":
            return row
        return row if user.opcode in _ELEMENTWISE and operand.shape.dims == user.shape.dims else OTHER


def _wide(shape: ArrayShape) -> list[int]:
    return [d for d, size in enumerate(shape.dims) if size != 1]


def _alike(one: Shape, other: Shape) -> bool:
    """Whether elements of the same index are of the same number in memory."""
    if one is other:
        return one.is_array
    return one.is_array and other.is_array and one.dims == other.dims and same_order(one, other)
