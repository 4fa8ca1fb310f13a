"""Rules of slice: of what it may be taken out of, and what need not be computed for it."""

from __future__ import annotations

from hloc.ir.attributes import SliceDim
from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.facts import known_starts
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import bind, one_use, op, wide_dims

x, value = bind("x"), bind("value")


@rule("slice", "dynamic-slice")
def drop_whole_slice(instruction: Instruction) -> Instruction | None:
    """slice(x) = x, if it has all of x; a dynamic start is clamped to 0 then"""
    operand = instruction.operands[0]
    return operand if operand.shape.dims == instruction.shape.dims else None


def _range(start: int, size: int, stride: int) -> SliceDim:
    """So many elements from a start on; none at all from 0, since the start may lie beyond the end then."""
    return SliceDim(start, start + (size - 1) * stride + 1, stride) if size else SliceDim(0, 0, 1)


@rule(op("slice", bind("inner", op("slice", x))))
def join_slices(instruction: Instruction, inner: Instruction, x: Instruction) -> Instruction | None:
    """slice(slice(x)) = slice(x)"""
    ranges = []
    for outer, own, size in zip(instruction.attributes["slice"], inner.attributes["slice"], instruction.shape.dims):
        ranges.append(_range(own.start + outer.start * own.stride, size, own.stride * outer.stride))
    return Emit.at(instruction).slice(x, ranges)


@rule(op("slice", bind("inner", op("concatenate"))))
def slice_concatenate(instruction: Instruction, inner: Instruction) -> Instruction | None:
    """slice(concatenate(x, y, z)) = slice(concatenate(x, y)), if it takes nothing from z"""
    along = inner.attributes["dimensions"][0]
    ranges = list(instruction.attributes["slice"])
    first, stride = ranges[along].start, ranges[along].stride
    if not instruction.shape.dims[along]:
        return None
    last = first + (instruction.shape.dims[along] - 1) * stride
    parts, base, start = [], 0, 0
    for part in inner.operands:
        size = part.shape.dims[along]
        if base + size > first and base <= last:
            start = start if parts else base
            parts.append(part)
        base += size
    if not parts or len(parts) == len(inner.operands):
        return None
    emit = Emit.at(instruction)
    ranges[along] = SliceDim(first - start, last - start + 1, stride)
    return emit.slice(parts[0] if len(parts) == 1 else emit.concatenate(parts, along), ranges)


@rule(op("slice", bind("inner", op("broadcast", x))))
def slice_broadcast(instruction: Instruction, inner: Instruction, x: Instruction) -> Instruction | None:
    """slice(broadcast(x)) = broadcast(slice(x)), or broadcast(x) where the dimensions of x are kept whole"""
    placed = inner.get("dimensions")
    ranges = [instruction.attributes["slice"][d] for d in placed]
    emit = Emit.at(instruction)
    whole = all(inner.shape.dims[d] == instruction.shape.dims[d] for d in placed)
    return emit.broadcast(x if whole else emit.slice(x, ranges), instruction.shape.dims, placed)


@rule(op("slice", bind("inner", op("pad", x, value))))
def slice_pad(
    instruction: Instruction, inner: Instruction, x: Instruction, value: Instruction
) -> Instruction | None:
    """slice(pad(x, v)) = slice(x), if it has nothing of the padding, and broadcast(v), if it has nothing of x"""
    ranges = []
    for cut, (low, _, interior), size in zip(
        instruction.attributes["slice"], inner.attributes["padding"], x.shape.dims
    ):
        if cut.limit <= low or cut.start >= low + (size - 1) * (interior + 1) + 1:
            return Emit.at(instruction).broadcast(value, instruction.shape.dims)
        if interior or cut.start < low or cut.limit > low + size:
            return None
        ranges.append(SliceDim(cut.start - low, cut.limit - low, cut.stride))
    return Emit.at(instruction).slice(x, ranges)


@rule(op("slice", one_use(bind("inner", op("transpose", x)))))
def slice_transpose(instruction: Instruction, inner: Instruction, x: Instruction) -> Instruction | None:
    """slice(transpose(x)) = transpose(slice(x)): less to move"""
    order, ranges = inner.attributes["dimensions"], instruction.attributes["slice"]
    emit = Emit.at(instruction)
    return emit.transpose(emit.slice(x, [ranges[order.index(d)] for d in range(x.shape.rank)]), order)


@rule(op("slice", one_use(bind("inner", op("reverse", x)))))
def slice_reverse(instruction: Instruction, inner: Instruction, x: Instruction) -> Instruction | None:
    """slice(reverse(x)) = reverse(slice(x)), of the other end of x: less to move"""
    along = inner.attributes["dimensions"]
    ranges = list(instruction.attributes["slice"])
    for d in along:
        stride, size = ranges[d].stride, instruction.shape.dims[d]
        start = x.shape.dims[d] - 1 - ranges[d].start - max(size - 1, 0) * stride
        ranges[d] = _range(start, size, stride)
    emit = Emit.at(instruction)
    return emit.op("reverse", instruction.shape, (emit.slice(x, ranges),), dimensions=along)


@rule(op("slice", bind("inner", op("reshape", x))))
def slice_reshape(instruction: Instruction, inner: Instruction, x: Instruction) -> Instruction | None:
    """slice(reshape(x)) = reshape(slice(x)), where the reshape only adds or drops dimensions of size 1"""
    wide, own = wide_dims(inner.shape.dims), wide_dims(x.shape.dims)
    if [inner.shape.dims[d] for d in wide] != [x.shape.dims[d] for d in own] or not instruction.shape.count:
        return None
    ranges = dict(zip(own, (instruction.attributes["slice"][d] for d in wide)))
    emit = Emit.at(instruction)
    cut = emit.slice(x, [ranges.get(d, SliceDim(0, 1)) for d in range(x.shape.rank)])
    return emit.reshape(cut, instruction.shape.dims)


@rule(op("slice", one_use(bind("inner", op("dynamic-update-slice")))))
def slice_update(instruction: Instruction, inner: Instruction) -> Instruction | None:
    """slice of x with a part at constants replaced by u: slice(x), if it has nothing of u, slice(u), if only of u"""
    operand, update = inner.operands[:2]
    starts = known_starts(inner, update.shape.dims)
    if starts is None:
        return None
    ranges = instruction.attributes["slice"]
    emit = Emit.at(instruction)
    if any(r.limit <= s or r.start >= s + n for r, s, n in zip(ranges, starts, update.shape.dims)):
        return emit.slice(operand, ranges)
    if not all(s <= r.start and r.limit <= s + n for r, s, n in zip(ranges, starts, update.shape.dims)):
        return None
    return emit.slice(update, [r._replace(start=r.start - s, limit=r.limit - s) for r, s in zip(ranges, starts)])
