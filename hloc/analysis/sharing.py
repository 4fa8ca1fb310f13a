"""Which operands an op may write its result over: it reads each element of them only where it writes."""

from __future__ import annotations

from collections.abc import Iterator

from hloc.analysis.layouts import same_order
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import Shape

Path = tuple[int, ...]
Pair = tuple[int, Path, Path]
"""(operand number, leaf of the operand, leaf of the result)."""

UPDATES = ("dynamic-update-slice", "scatter")
"""Ops that change an array in a few places."""

_THE_SAME, _PART, _OTHER = 1, 2, 3  # where the result is written; where in its updated part; elsewhere


def shared_pairs(instruction: Instruction) -> list[Pair]:
    """The leaves of operands and of the result that may be one piece of memory.

    The operand's last use has to be this one; whether it is, is the caller's to see.
    """
    if instruction.opcode == "fusion":
        return _stated(instruction) or list(_of_fusion(instruction.called[0]))
    if instruction.opcode == "custom-call":
        return _stated(instruction)
    if instruction.opcode == "copy":
        return []  # it is there to have a second one
    if instruction.op.is_elementwise and instruction.shape.is_array:
        return [(n, (), ()) for n, o in enumerate(instruction.operands) if _alike(o.shape, instruction.shape)]
    return [(n, (), path) for n, path in based_on(instruction)]


def based_on(instruction: Instruction) -> list[tuple[int, Path]]:
    """(operand number, leaf of the result): arrays that an op changes in a few places, or sorts."""
    opcode, shape = instruction.opcode, instruction.shape
    if opcode == "dynamic-update-slice":
        return [(0, ())]
    if opcode == "scatter":
        arrays = len(instruction.operands) // 2
        return [(n, (n,) if shape.is_tuple else ()) for n in range(arrays)]
    if opcode in ("sort", "all-reduce"):
        return [(n, (n,) if shape.is_tuple else ()) for n in range(len(instruction.operands))]
    return [(1, ())] if opcode == "triangular-solve" else []


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


def _stated(instruction: Instruction) -> list[Pair]:
    aliases = instruction.get("output_to_operand_aliasing") or ()
    return [(alias.number, alias.input_index, alias.output_index) for alias in aliases]


def _alike(one: Shape, other: Shape) -> bool:
    """Whether elements of the same index lie at the same place."""
    if not (one.is_array and other.is_array and one.dims == other.dims):
        return False
    return one.byte_size == other.byte_size and same_order(one, other)


def _of_fusion(body: Computation) -> Iterator[Pair]:
    roots = root_leaves(body)
    if any(not root.shape.is_array for _, root in roots):
        return
    marks = _marks(body, [root for _, root in roots])
    for parameter in body.parameters:
        for path, root in roots if marks.get(parameter) == _THE_SAME and parameter.shape.is_array else ():
            same = parameter.shape.count == root.shape.count and parameter.shape.byte_size == root.shape.byte_size
            update = updating_root(root)
            if same and (update is None or base_of(update) in (parameter, None)):
                yield parameter.attributes["number"], (), path


def _marks(body: Computation, roots: list[Instruction]) -> dict[Instruction, int]:
    """For each instruction, whether it is needed only at the place in memory that is written at the time."""
    uniform = all(_alike_but_type(root.shape, roots[0].shape) for root in roots)
    updates = {root: updating_root(root) for root in roots}
    marks = {root: _THE_SAME if uniform or updates[root] else _OTHER for root in roots}
    changing = list(filter(None, updates.values()))
    for instruction in body.reversed():
        mark = marks.get(instruction)
        for operand in dict.fromkeys(instruction.operands) if mark else ():
            found = _place_needed(instruction, operand, mark, changing)
            marks[operand] = max(found, marks.get(operand, 0))
    return marks


def _place_needed(user: Instruction, operand: Instruction, mark: int, updates: list[Instruction]) -> int:
    """Where an op needs elements of an operand for an element at the place that `mark` tells."""
    if user.opcode == "bitcast":
        return mark if user.shape.count == operand.shape.count else _OTHER
    if user in updates and user.operands.count(operand) == 1:
        part = _PART if user.opcode == "dynamic-update-slice" else _OTHER
        return {0: mark, 1: part}.get(user.operands.index(operand), _OTHER)
    if user.opcode in ("slice", "dynamic-slice") and mark == _PART and operand is user.operands[0]:
        is_own = any(u.opcode == "dynamic-update-slice" and is_own_part(user, u) for u in updates)
        return _THE_SAME if is_own else _OTHER
    return mark if user.op.is_elementwise and _alike_but_type(operand.shape, user.shape) else _OTHER


def _alike_but_type(one: Shape, other: Shape) -> bool:
    return one.is_array and other.is_array and one.dims == other.dims and same_order(one, other)
