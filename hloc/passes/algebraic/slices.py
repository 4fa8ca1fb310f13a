"""Rules of slice, pad, concatenate, dynamic-slice and dynamic-update-slice."""

from __future__ import annotations

from hloc.ir.attributes import SliceDim
from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import splat_value


@rule("slice", "dynamic-slice")
def drop_whole_slice(instruction: Instruction) -> Instruction | None:
    """slice(x) = x, if it has all of x; a dynamic start is clamped to 0 then"""
    operand = instruction.operands[0]
    return operand if operand.shape.dims == instruction.shape.dims else None


@rule("slice")
def join_slices(instruction: Instruction) -> Instruction | None:
    """slice(slice(x)) = slice(x)"""
    inner = instruction.operands[0]
    if inner.opcode != "slice":
        return None
    ranges = []
    for outer, own, size in zip(
        instruction.attributes["slice"], inner.attributes["slice"], instruction.shape.dims
    ):
        start, stride = own.start + outer.start * own.stride, own.stride * outer.stride
        ranges.append(SliceDim(start, start + max(size - 1, 0) * stride + min(size, 1), stride))
    return Emit.at(instruction).slice(inner.operands[0], ranges)


@rule("slice")
def slice_concatenate(instruction: Instruction) -> Instruction | None:
    """slice(concatenate(.., x, ..)) = slice(x), if it takes from x alone"""
    inner = instruction.operands[0]
    if inner.opcode != "concatenate":
        return None
    along = inner.attributes["dimensions"][0]
    ranges = instruction.attributes["slice"]
    base = 0
    for part in inner.operands:
        size = part.shape.dims[along]
        if base <= ranges[along].start and ranges[along].limit <= base + size:
            own = ranges[along]._replace(start=ranges[along].start - base, limit=ranges[along].limit - base)
            return Emit.at(instruction).slice(part, [own if d == along else r for d, r in enumerate(ranges)])
        base += size
    return None


@rule("slice")
def slice_broadcast(instruction: Instruction) -> Instruction | None:
    """slice(broadcast(x)) = broadcast(x), if the dimensions of x are kept whole"""
    inner = instruction.operands[0]
    if inner.opcode != "broadcast":
        return None
    dimensions = inner.get("dimensions")
    if any(inner.shape.dims[d] != instruction.shape.dims[d] for d in dimensions):
        return None
    return Emit.at(instruction).broadcast(inner.operands[0], instruction.shape.dims, dimensions)


@rule("pad")
def drop_pad(instruction: Instruction) -> Instruction | None:
    """pad(x) = x without padding, and a slice of x where padding is only negative"""
    padding = instruction.attributes["padding"]
    operand = instruction.operands[0]
    if any(p.low > 0 or p.high > 0 or p.interior for p in padding):
        return None
    ranges = [SliceDim(-p.low, size + p.high) for p, size in zip(padding, operand.shape.dims)]
    if any(r.limit < r.start for r in ranges):
        return None
    return operand if all(p == (0, 0, 0) for p in padding) else Emit.at(instruction).slice(operand, ranges)


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


@rule("dynamic-slice")
def dynamic_slice_to_slice(instruction: Instruction) -> Instruction | None:
    """dynamic-slice(x, constants) = slice(x), the starts clamped so that the slice fits"""
    operand, *indices = instruction.operands
    sizes = instruction.attributes["dynamic_slice_sizes"]
    if len(indices) != len(sizes):
        return None
    ranges = []
    for index, size, whole in zip(indices, sizes, operand.shape.dims):
        known = splat_value(index)
        if known is None and size != whole:
            return None
        start = 0 if known is None else min(max(int(known), 0), whole - size)
        ranges.append(SliceDim(start, start + size))
    return Emit.at(instruction).slice(operand, ranges)


@rule("dynamic-update-slice")
def drop_whole_update(instruction: Instruction) -> Instruction | None:
    """dynamic-update-slice(x, y) = y, if y has all dimensions of x"""
    operand, update = instruction.operands[:2]
    return update if operand.shape.dims == update.shape.dims else None
