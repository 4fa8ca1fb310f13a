"""Ops that change an array in a few places, alone or at the root of a fusion."""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction

Path = tuple[int, ...]

UPDATES = ("dynamic-update-slice", "scatter")
"""Ops that change an array in a few places."""


def root_leaves(body: Computation) -> list[tuple[Path, Instruction]]:
    """The leaves of a fused computation's result and what makes them, seen through tuples."""
    root = body.root
    if root.opcode == "tuple":
        return [((n,), operand) for n, operand in enumerate(root.operands)]
    return [((), root)]


def base_of(update: Instruction) -> Instruction | None:
    """The parameter of a fused computation that its dynamic-update-slice or scatter changes."""
    if update.opcode == "scatter" and len(update.operands) != 3:
        return None
    base = update.operands[0]
    while base.opcode == "bitcast":
        base = base.operands[0]
    return base if base.opcode == "parameter" else None


def updating_root(root: Instruction) -> Instruction | None:
    """The dynamic-update-slice or scatter that a leaf of a fused result is, under another shape perhaps."""
    while root.opcode == "bitcast":
        root = root.operands[0]
    return root if root.opcode in UPDATES and root.shape.is_array else None


def in_place_update(root: Instruction) -> Instruction | None:
    """The dynamic-update-slice or scatter at a fused root that changes a parameter where it lies."""
    update = updating_root(root)
    return update if update is not None and base_of(update) is not None else None


def is_own_part(read: Instruction, update: Instruction) -> bool:
    """Whether a slice reads of an array just the part that a dynamic-update-slice is about to write."""
    if read.operands[0] is not update.operands[0] or read.shape.dims != update.operands[1].shape.dims:
        return False
    if read.opcode == "dynamic-slice":
        return read.operands[1:] == update.operands[2:]
    starts = [start.attributes["literal"].scalar() for start in update.operands[2:] if start.opcode == "constant"]
    cuts = read.attributes["slice"]
    return starts == [cut.start for cut in cuts] and all(cut.stride == 1 for cut in cuts)
