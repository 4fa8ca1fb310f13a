"""Rules of pad and concatenate."""

from __future__ import annotations

from hloc.ir.attributes import PadDim, SliceDim
from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import bind, op, scalar_source

x, value = bind("x"), bind("value")


@rule(op("pad", x, value))
def drop_pad(instruction: Instruction, x: Instruction, value: Instruction) -> Instruction | None:
    """pad(x) = x without padding, and a slice of x where padding is only negative"""
    padding = instruction.attributes["padding"]
    if any(p.low > 0 or p.high > 0 or p.interior for p in padding):
        return None
    ranges = [SliceDim(-p.low, size + p.high) for p, size in zip(padding, x.shape.dims)]
    if any(r.limit < r.start for r in ranges):
        return None
    return x if all(p == (0, 0, 0) for p in padding) else Emit.at(instruction).slice(x, ranges)


@rule(op("pad", x, value))
def cut_before_pad(instruction: Instruction, x: Instruction, value: Instruction) -> Instruction | None:
    """pad(x) with negative and positive edges = pad(slice(x)), without interior padding"""
    padding = instruction.attributes["padding"]
    if not any(p.low < 0 or p.high < 0 for p in padding) or any(p.interior for p in padding):
        return None
    ranges = [SliceDim(max(-p.low, 0), size + min(p.high, 0)) for p, size in zip(padding, x.shape.dims)]
    if any(r.limit <= r.start for r in ranges):
        return None
    emit = Emit.at(instruction)
    return emit.pad(emit.slice(x, ranges), value, [PadDim(max(p.low, 0), max(p.high, 0)) for p in padding])


def _same(a: Instruction, b: Instruction) -> bool:
    """Whether two scalars are one, or constants of the same bits."""
    if a is b:
        return True
    return a.opcode == b.opcode == "constant" and a.attributes["literal"] == b.attributes["literal"]


@rule(op("pad", bind("inner", op("pad", x, bind("first"))), value))
def join_pads(
    instruction: Instruction, inner: Instruction, x: Instruction, first: Instruction, value: Instruction
) -> Instruction | None:
    """pad(pad(x)) = pad(x) with the same value, without interior padding outside and cuts"""
    if not _same(first, value):
        return None
    joined = []
    for own, outer in zip(inner.attributes["padding"], instruction.attributes["padding"]):
        if outer.interior or min(own.low, own.high, outer.low, outer.high) < 0:
            return None
        joined.append(PadDim(own.low + outer.low, own.high + outer.high, own.interior))
    return Emit.at(instruction).pad(x, value, joined)


@rule(op("pad", x, value))
def pad_of_value(instruction: Instruction, x: Instruction, value: Instruction) -> Instruction | None:
    """pad(broadcast(v), v) = broadcast(v)"""
    source = scalar_source(x)
    if source is None or not _same(source, value):
        return None
    return Emit.at(instruction).broadcast(value, instruction.shape.dims)


@rule("concatenate")
def drop_concatenate(instruction: Instruction) -> Instruction | None:
    """concatenate(x) = x"""
    return instruction.operands[0] if len(instruction.operands) == 1 else None


@rule("concatenate")
def join_concatenates(instruction: Instruction) -> Instruction | None:
    """concatenate(a, concatenate(b, c)) = concatenate(a, b, c) along the same dimension"""
    along = instruction.attributes["dimensions"]
    parts: list[Instruction] = []
    for part in instruction.operands:
        nested = part.opcode == "concatenate" and part.attributes["dimensions"] == along
        parts += part.operands if nested else [part]
    if len(parts) == len(instruction.operands):
        return None
    return Emit.at(instruction).concatenate(parts, along[0])


@rule("concatenate")
def join_neighbours(instruction: Instruction) -> Instruction | None:
    """concatenate(x[a:b], x[b:c]) = x[a:c], and of equal scalars broadcast: one broadcast"""
    along = instruction.attributes["dimensions"][0]
    emit = Emit.at(instruction)
    for number, (left, right) in enumerate(zip(instruction.operands, instruction.operands[1:])):
        joined = _joined(emit, left, right, along)
        if joined is not None:
            parts = [*instruction.operands[:number], joined, *instruction.operands[number + 2 :]]
            return emit.concatenate(parts, along) if len(parts) > 1 else joined
    return None


def _joined(emit: Emit, left: Instruction, right: Instruction, along: int) -> Instruction | None:
    """What is both, one after the other, if it is no concatenation."""
    if left.opcode == right.opcode == "slice" and left.operands[0] is right.operands[0]:
        ranges, others = list(left.attributes["slice"]), right.attributes["slice"]
        own, other = ranges[along], others[along]
        ranges[along] = other
        follows = own.start + left.shape.dims[along] * own.stride == other.start
        if ranges != list(others) or not follows or own.stride != other.stride:
            return None
        ranges[along] = SliceDim(own.start, other.limit, own.stride)
        return emit.slice(left.operands[0], ranges)
    sources = scalar_source(left), scalar_source(right)
    if None in sources or not left.shape.rank or not _same(*sources):
        return None
    dims = list(left.shape.dims)
    dims[along] += right.shape.dims[along]
    return emit.broadcast(sources[0], dims)


@rule("concatenate")
def concatenate_to_pad(instruction: Instruction) -> Instruction | None:
    """concatenate(broadcast(v), x, broadcast(v)) = pad(x, v) for a scalar v, on either side or both"""
    along, parts = instruction.attributes["dimensions"][0], list(instruction.operands)
    filled = [part for part in parts if part.opcode == "broadcast" and scalar_source(part) is not None]
    rest = [part for part in parts if part not in filled]
    if len(rest) != 1 or not filled or len(parts) > 3:
        return None
    at = parts.index(rest[0])
    if len(parts) == 3 and (at != 1 or not _same(*map(scalar_source, filled))):
        return None
    padding = [PadDim(0, 0)] * instruction.shape.rank
    low, high = (sum(part.shape.dims[along] for part in side) for side in (parts[:at], parts[at + 1 :]))
    padding[along] = PadDim(low, high)
    return Emit.at(instruction).pad(rest[0], scalar_source(filled[0]), padding)


@rule("concatenate")
def concatenate_to_broadcast(instruction: Instruction) -> Instruction | None:
    """concatenate(x, x, x) = broadcast(x) along a dimension of size 1"""
    along, first = instruction.attributes["dimensions"][0], instruction.operands[0]
    if len(instruction.operands) < 2 or first.shape.dims[along] != 1:
        return None
    if any(operand is not first for operand in instruction.operands):
        return None
    kept = [d for d in range(first.shape.rank) if d != along]
    emit = Emit.at(instruction)
    return emit.broadcast(emit.reshape(first, [first.shape.dims[d] for d in kept]), instruction.shape.dims, kept)
