"""Comparators of sorts that compare one function of either side: then its values are keys."""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.records import NamedTuple


class SortKey(NamedTuple):
    """`value` is what parameters 0, 2, ... are compared by; `total` says that it is by the total order of floats."""

    value: Instruction
    descending: bool
    total: bool


def sort_key(comparator: Computation) -> SortKey | None:
    """The key that a comparator orders by; None if it is not a less or greater of one function of both sides."""
    root = comparator.root
    if root.opcode != "compare" or root.get("direction") not in ("LT", "GT"):
        return None
    descending = root.get("direction") == "GT"
    total = root.get("type") == "TOTALORDER" or root.get("order") == "TOTAL"
    left, right = root.operands
    if _mirrored(left, right):
        return SortKey(left, descending, total)
    return SortKey(right, not descending, total) if _mirrored(right, left) else None


def _mirrored(left: Instruction, right: Instruction) -> bool:
    """Whether `right` computes from parameters 1, 3, ... what `left` computes from 0, 2, ..."""
    pending, seen = [(left, right)], set()
    while pending:
        a, b = pending.pop()
        if (a.id, b.id) in seen:
            continue
        seen.add((a.id, b.id))
        if a.opcode != b.opcode or a.shape != b.shape or len(a.operands) != len(b.operands):
            return False
        if a.opcode == "parameter":
            if a.get("number") % 2 or b.get("number") != a.get("number") + 1:
                return False
        elif a.attributes != b.attributes:
            return False
        pending += zip(a.operands, b.operands)
    return True
