"""What a kernel computes and moves: how much of each value it needs, bytes read and bytes written.

Of an array that a kernel only slices or gathers from, only the part is read; of one that is updated in place,
only the part is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from hloc.analysis.updates import UPDATES, in_place_update, root_leaves
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import Shape
from hloc.records import NamedTuple


class Traffic(NamedTuple):
    """Bytes that a kernel reads of each operand, in order, of constants inside of it, and that it writes."""

    operands: tuple[float, ...]
    constants: float
    written: float

    @property
    def bytes(self) -> float:
        return sum(self.operands) + self.constants + self.written


def size_of(shape: Shape) -> int:
    """Bytes of all arrays in a shape."""
    return sum(leaf.byte_size for _, leaf in shape.leaves() if leaf.is_array)


def count_of(shape: Shape) -> int:
    """Elements of all arrays in a shape."""
    return sum(leaf.count for _, leaf in shape.leaves() if leaf.is_array)


def traffic(instruction: Instruction, needs: Mapping[Instruction, float] | None = None) -> Traffic:
    """What one op or fusion moves, as one kernel. Constants of equal elements cost nothing.

    `needs` are the `needed_parts` of the fusion's computation, where they are known.
    """
    if instruction.opcode == "fusion":
        body = instruction.called[0]
        return _of_fusion(instruction, body, needed_parts(body) if needs is None else needs)
    parts: dict[Instruction, float] = {}
    for operand, part, _ in parts_needed(instruction, 1.0, instruction.opcode in UPDATES):
        parts[operand] = min(1.0, parts.get(operand, 0.0) + part)
    operands = _each_once(instruction, [_read(o, parts.get(o, 0.0)) for o in instruction.operands])
    written = size_of(instruction.shape)
    if instruction.opcode in UPDATES:
        written = updated_bytes(instruction)
    return Traffic(operands, 0.0, written)


def most_read(instruction: Instruction) -> int:
    """Bytes of all that one op or fusion may read: no fewer than its `traffic` says."""
    inside = instruction.called[0].instructions if instruction.opcode == "fusion" else ()
    values = [*instruction.operands, *(inner for inner in inside if inner.opcode == "constant")]
    return sum(size_of(value.shape) for value in values)


def _of_fusion(fusion: Instruction, body: Computation, needs: Mapping[Instruction, float]) -> Traffic:
    reads = [
        _read(operand, needs.get(parameter, 0.0))
        for operand, parameter in zip(fusion.operands, body.parameters, strict=True)
    ]
    constants = sum(_read(i, needs.get(i, 0.0)) for i in body.instructions if i.opcode == "constant")
    written = 0.0
    for _, root in root_leaves(body):
        update = in_place_update(root)
        written += size_of(root.shape) if update is None else updated_bytes(update)
    return Traffic(tuple(reads), constants, written)


def _each_once(instruction: Instruction, reads: list[float]) -> tuple[float, ...]:
    """An operand that is given twice is read once."""
    seen: set[Instruction] = set()
    for number, operand in enumerate(instruction.operands):
        if operand in seen:
            reads[number] = 0.0
        seen.add(operand)
    return tuple(reads)


def _read(value: Instruction, part: float) -> float:
    if value.opcode == "constant" and value.shape.is_array and is_splat(value):
        return 0.0
    return part * size_of(value.shape)


def is_splat(constant: Instruction) -> bool:
    """Whether all elements of an array constant are equal."""
    literal = constant.attributes["literal"]
    return literal.shape.count <= 1 or literal.is_splat()


def updated_bytes(update: Instruction) -> float:
    """Bytes that a dynamic-update-slice or a scatter writes, when it works in place."""
    if update.opcode == "scatter":
        arrays = len(update.operands) // 2
        return float(sum(size_of(operand.shape) for operand in update.operands[arrays + 1 :]))
    return float(size_of(update.operands[1].shape))


def needed_parts(body: Computation) -> dict[Instruction, float]:
    """The part of each value of a fused computation that is needed, from 0 to 1, at least once.

    Users that need the same indices, as elementwise ones do, count once; others add up.
    """
    updates = {update for _, root in root_leaves(body) if (update := in_place_update(root))}
    same = {root: 1.0 for _, root in root_leaves(body)}
    other: dict[Instruction, float] = {}
    parts: dict[Instruction, float] = {}
    for instruction in reversed(body.instructions):
        part = parts[instruction] = min(1.0, same.get(instruction, 0.0) + other.get(instruction, 0.0))
        if part == 0.0 or (instruction is body.root and instruction.opcode == "tuple"):
            continue
        if instruction.opcode in _AT_ONE_INDEX:
            for operand in instruction.operands:
                needed = part if part == 1.0 else _at_least_one(operand, part)
                if needed > same.get(operand, 0.0):
                    same[operand] = needed
            continue
        for operand, needed, keeps in parts_needed(instruction, part, instruction in updates):
            if keeps:
                same[operand] = max(same.get(operand, 0.0), needed)
            else:
                other[operand] = other.get(operand, 0.0) + needed
    return parts


_MOVING = ("bitcast", "copy", "reshape", "transpose", "reverse", "tuple", "get-tuple-element", "concatenate", "reduce")

_AT_ONE_INDEX = frozenset({*_MOVING, *(name for name, op in OPS.items() if op.is_elementwise)})
"""The ops that need of each operand as much as of their result is needed."""


def parts_needed(instruction: Instruction, part: float, in_place: bool) -> list[tuple[Instruction, float, bool]]:
    """(operand, part of it, whether at the indices of the result) that are needed for a part of the result."""
    operands, opcode = instruction.operands, instruction.opcode
    if opcode in _AT_ONE_INDEX:
        return [(operand, _at_least_one(operand, part), True) for operand in operands]
    if opcode == "broadcast":
        return [(operands[0], _share(instruction, operands[0], part), True)]
    rest = [(operand, 1.0, False) for operand in operands[1:]]
    if opcode in ("slice", "dynamic-slice"):
        return [(operands[0], _share(instruction, operands[0], part), False), *rest]
    if opcode == "gather":
        return [(operands[0], _share(instruction, operands[0], part), False), (operands[1], part, True)]
    if opcode == "pad":
        return [(operands[0], part, True), *rest]
    if opcode == "dynamic-update-slice":
        whole = max(1, instruction.shape.count)
        kept = 0.0 if in_place else max(0.0, part - operands[1].shape.count / whole)
        return [(operands[0], kept, True), *rest]
    if opcode == "scatter" and in_place:
        return _scattered(instruction)
    return [(operand, 1.0, False) for operand in operands]


def _scattered(scatter: Instruction) -> list[tuple[Instruction, float, bool]]:
    """In place, a scatter reads of its arrays what it combines the updates with."""
    arrays = len(scatter.operands) // 2
    combines = scatter.called[0].root.opcode != "parameter"
    pairs = zip(scatter.operands[:arrays], scatter.operands[arrays + 1 :], strict=True)
    bases = [(base, _share(updates, base, 1.0) if combines else 0.0, False) for base, updates in pairs]
    return [*bases, *((operand, 1.0, False) for operand in scatter.operands[arrays:])]


def _share(result: Instruction, operand: Instruction, part: float) -> float:
    """The part of an operand that holds as many elements as a part of the result."""
    return min(1.0, part * count_of(result.shape) / max(1, count_of(operand.shape)))


def _at_least_one(operand: Instruction, part: float) -> float:
    return 1.0 if operand.shape.is_array and prod(operand.shape.dims) == 1 else part
