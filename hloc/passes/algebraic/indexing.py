"""Rules of dynamic-slice, dynamic-update-slice, gather and scatter."""

from __future__ import annotations

from math import prod

import numpy as np

from hloc.ir.attributes import PadDim, SliceDim
from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.facts import binary_opcode, integer_range, known_starts, limits
from hloc.passes.algebraic.rules import rule
from hloc.passes.emit import Emit
from hloc.passes.patterns import bind, op, scalar_source, splat_value, wide_dims

x = bind("x")


@rule("dynamic-slice")
def dynamic_slice_to_slice(instruction: Instruction) -> Instruction | None:
    """dynamic-slice(x, constants) = slice(x), the starts clamped so that the slice fits"""
    sizes = instruction.attributes["dynamic_slice_sizes"]
    starts = known_starts(instruction, sizes)
    if starts is None:
        return None
    return Emit.at(instruction).slice(instruction.operands[0], [SliceDim(s, s + n) for s, n in zip(starts, sizes)])


def _starts(instruction: Instruction) -> list[Instruction]:
    """The index operands, one a dimension."""
    return instruction.operands[len(instruction.operands) - instruction.operands[0].shape.rank :]


def _sizes(instruction: Instruction) -> tuple[int, ...]:
    """The sizes of the part that is read or replaced."""
    is_read = instruction.opcode == "dynamic-slice"
    return instruction.shape.dims if is_read else instruction.operands[1].shape.dims


def _same_starts(a: Instruction, b: Instruction) -> bool:
    """Whether two such ops begin at the same place: the same values, or equal constants."""
    return all(
        p is q or (splat_value(p) is not None and splat_value(p) == splat_value(q))
        for p, q in zip(_starts(a), _starts(b), strict=True)
    )


@rule("dynamic-slice", "dynamic-update-slice")
def drop_clamp_of_start(instruction: Instruction) -> Instruction | None:
    """dynamic-slice(x, clamp(a, i, b)) = dynamic-slice(x, i), if it clamps to no less than fits; and so updates

    A start of a dimension taken whole may be anything, and is 0.
    """
    starts, emit = _starts(instruction), Emit.at(instruction)
    room = [whole - size for size, whole in zip(_sizes(instruction), instruction.operands[0].shape.dims)]
    new = [_plain_start(emit, start, most) for start, most in zip(starts, room)]
    if new == starts:
        return None
    operands = [*instruction.operands[: len(instruction.operands) - len(new)], *new]
    return emit.op(instruction.opcode, instruction.shape, operands, **instruction.attributes)


def _plain_start(emit: Emit, start: Instruction, most: int) -> Instruction:
    """A start without a clamp to [0, most], which the op does by itself."""
    if most == 0 and splat_value(start) is None:
        return emit.scalar(0, start.shape.dtype)
    if start.opcode != "clamp":
        return start
    low, value, high = start.operands
    return value if splat_value(low) == 0 and splat_value(high) == most else start


@rule(op("dynamic-slice"))
def dynamic_slice_of_broadcast(instruction: Instruction) -> Instruction | None:
    """dynamic-slice(broadcast(x), i) = broadcast(dynamic-slice(x, i)) with the starts of the dimensions of x"""
    inner = instruction.operands[0]
    if inner.opcode != "broadcast":
        return None
    value, placed, starts = inner.operands[0], inner.get("dimensions"), _starts(instruction)
    emit = Emit.at(instruction)
    if placed:
        sizes = [instruction.shape.dims[d] for d in placed]
        value = emit.dynamic_slice(value, [starts[d] for d in placed], sizes)
    return emit.broadcast(value, instruction.shape.dims, placed)


@rule(op("dynamic-slice"))
def dynamic_slice_of_iota(instruction: Instruction) -> Instruction | None:
    """dynamic-slice(iota, i) = iota where the iota's own dimension is taken whole, and clamp(i) for one element"""
    inner = instruction.operands[0]
    if inner.opcode != "iota":
        return None
    along, dtype, emit = inner.attributes["iota_dimension"], instruction.shape.dtype, Emit.at(instruction)
    size, whole = instruction.shape.dims[along], inner.shape.dims[along]
    if size == whole:
        return emit.iota(dtype, instruction.shape.dims, along)
    start = _starts(instruction)[along]
    if size != 1 or start.shape.dtype is not dtype or not dtype.is_integer or whole - 1 > limits(dtype)[1]:
        return None
    low, high = emit.scalar(0, dtype), emit.scalar(whole - 1, dtype)
    return emit.broadcast(emit.op("clamp", start.shape, (low, start, high)), instruction.shape.dims)


@rule(op("dynamic-slice"))
def dynamic_slice_of_reshape(instruction: Instruction) -> Instruction | None:
    """dynamic-slice(reshape(x), i) = reshape(dynamic-slice(x, i)), where the reshape only adds or drops sizes of 1"""
    inner = instruction.operands[0]
    if inner.opcode != "reshape":
        return None
    value = inner.operands[0]
    wide, own = wide_dims(inner.shape.dims), wide_dims(value.shape.dims)
    if [inner.shape.dims[d] for d in wide] != [value.shape.dims[d] for d in own] or not wide:
        return None
    emit, starts = Emit.at(instruction), _starts(instruction)
    zero = emit.scalar(0, starts[0].shape.dtype)
    at = {d: (starts[place], instruction.shape.dims[place]) for d, place in zip(own, wide)}
    chosen = [at.get(d, (zero, 1)) for d in range(value.shape.rank)]
    part = emit.dynamic_slice(value, [start for start, _ in chosen], [size for _, size in chosen])
    return emit.reshape(part, instruction.shape.dims)


@rule(op("dynamic-slice"))
def dynamic_slice_of_transpose(instruction: Instruction) -> Instruction | None:
    """dynamic-slice(transpose(x), i) = transpose(dynamic-slice(x, i)): less to move"""
    inner = instruction.operands[0]
    if inner.opcode != "transpose":
        return None
    order, starts, emit = inner.attributes["dimensions"], _starts(instruction), Emit.at(instruction)
    back = [order.index(d) for d in range(len(order))]
    sizes = [instruction.shape.dims[d] for d in back]
    return emit.transpose(emit.dynamic_slice(inner.operands[0], [starts[d] for d in back], sizes), order)


@rule(op("dynamic-slice"))
def dynamic_slice_of_update(instruction: Instruction) -> Instruction | None:
    """dynamic-slice(dynamic-update-slice(x, u, i), i) = u, of the same size"""
    inner = instruction.operands[0]
    if inner.opcode != "dynamic-update-slice" or _sizes(inner) != _sizes(instruction):
        return None
    return inner.operands[1] if _same_starts(inner, instruction) else None


@rule("dynamic-update-slice")
def drop_whole_update(instruction: Instruction) -> Instruction | None:
    """dynamic-update-slice(x, y) = y, if y has all dimensions of x"""
    operand, update = instruction.operands[:2]
    return update if operand.shape.dims == update.shape.dims else None


@rule("dynamic-update-slice")
def drop_own_update(instruction: Instruction) -> Instruction | None:
    """dynamic-update-slice(x, dynamic-slice(x, i), i) = x"""
    operand, update = instruction.operands[:2]
    if update.opcode != "dynamic-slice" or update.operands[0] is not operand:
        return None
    return operand if _same_starts(update, instruction) else None


@rule("dynamic-update-slice")
def update_twice(instruction: Instruction) -> Instruction | None:
    """dynamic-update-slice(dynamic-update-slice(x, u, i), v, i) = dynamic-update-slice(x, v, i), of the same size"""
    inner = instruction.operands[0]
    if inner.opcode != "dynamic-update-slice" or _sizes(inner) != _sizes(instruction):
        return None
    if not _same_starts(inner, instruction):
        return None
    operand, update = inner.operands[0], instruction.operands[1]
    return Emit.at(instruction).dynamic_update_slice(operand, update, _starts(instruction))


@rule("dynamic-update-slice")
def update_to_pad(instruction: Instruction) -> Instruction | None:
    """dynamic-update-slice(broadcast(v), u, constants) = pad(u, v) for a scalar v"""
    operand, update = instruction.operands[:2]
    value, starts = scalar_source(operand), known_starts(instruction, update.shape.dims)
    if value is None or starts is None:
        return None
    edges = zip(starts, update.shape.dims, operand.shape.dims)
    return Emit.at(instruction).pad(update, value, [PadDim(s, whole - s - size) for s, size, whole in edges])


def _all_starts(emit: Emit, indices: Instruction, mapped: tuple[int, ...], rank: int) -> list[Instruction]:
    """A scalar start a dimension, from the one index vector that an array holds for the dimensions `mapped`."""
    flat = emit.reshape(indices, (len(mapped),))
    zero = emit.scalar(0, indices.shape.dtype)
    at = {d: emit.reshape(emit.slice(flat, [SliceDim(k, k + 1)]), ()) for k, d in enumerate(mapped)}
    return [at.get(d, zero) for d in range(rank)]


@rule("gather")
def gather_to_dynamic_slice(instruction: Instruction) -> Instruction | None:
    """gather(x, i) = reshape(dynamic-slice(x, i)), if i is one index vector; both clamp in the same way"""
    operand, indices = instruction.operands
    mapped = instruction.get("start_index_map")
    if instruction.get("operand_batching_dims") or indices.shape.count != len(mapped) or not mapped:
        return None
    if prod(instruction.get("slice_sizes")) != instruction.shape.count:
        return None  # dimensions of size 0 that are dropped leave zeros
    emit = Emit.at(instruction)
    starts = _all_starts(emit, indices, mapped, operand.shape.rank)
    return emit.reshape(emit.dynamic_slice(operand, starts, instruction.get("slice_sizes")), instruction.shape.dims)


@rule("gather")
def gather_of_broadcast(instruction: Instruction) -> Instruction | None:
    """gather(broadcast(v), i) = broadcast(v) for a scalar v"""
    value = scalar_source(instruction.operands[0])
    if value is None:
        return None
    return Emit.at(instruction).broadcast(value, instruction.shape.dims)


@rule("gather")
def gather_to_slice(instruction: Instruction) -> Instruction | None:
    """gather(x, constants) = slice(x), if the constants count through a dimension of x with one stride"""
    (operand, indices), sizes = instruction.operands, instruction.get("slice_sizes")
    mapped, offsets = instruction.get("start_index_map"), instruction.get("offset_dims")
    steps = _counted(indices) if len(mapped) == 1 and mapped == instruction.get("collapsed_slice_dims") else None
    if steps is None or instruction.get("operand_batching_dims"):
        return None
    (along,), (start, stride, count) = mapped, steps
    limit = start + (count - 1) * stride + 1
    wide = [d for d, size in enumerate(instruction.shape.dims) if d not in offsets and size != 1]
    if start < 0 or stride < 1 or limit > operand.shape.dims[along] or len(wide) != 1:
        return None
    emit = Emit.at(instruction)
    cut = [SliceDim(0, size) if d != along else SliceDim(start, limit, stride) for d, size in enumerate(sizes)]
    source = dict(zip(offsets, (d for d in range(operand.shape.rank) if d != along))) | {wide[0]: along}
    moved = emit.transpose(emit.slice(operand, cut), [source[d] for d in sorted(source)])
    return emit.reshape(moved, instruction.shape.dims)


def _counted(indices: Instruction) -> tuple[int, int, int] | None:
    """(first, stride, how many) of two numbers or more that go up by one stride, as one index each."""
    while indices.opcode == "reshape":
        indices = indices.operands[0]
    if indices.opcode == "iota" and indices.shape.rank == 1:
        return (0, 1, indices.shape.count) if indices.shape.count > 1 else None
    if indices.opcode != "constant" or len(wide_dims(indices.shape.dims)) != 1:
        return None
    numbers = indices.attributes["literal"].array.reshape(-1).astype(object)
    strides = np.diff(numbers)
    return (int(numbers[0]), int(strides[0]), len(numbers)) if (strides == strides[0]).all() else None


@rule("scatter")
def scatter_to_update(instruction: Instruction) -> Instruction | None:
    """scatter(x, i, u) = dynamic-update-slice(x, f(dynamic-slice(x, i), u), i), if i is one index vector that fits

    Where it may not fit, a scatter drops the update and a dynamic-update-slice would clamp: it stays.
    """
    opcode, mapped = _combiner(instruction), instruction.get("scatter_dims_to_operand_dims")
    operand, indices, updates = instruction.operands[:3]
    if opcode is None or indices.shape.count != len(mapped) or instruction.get("input_batching_dims"):
        return None
    sizes = _window_sizes(instruction)
    if not operand.shape.count:
        return None
    if updates.shape.count != prod(sizes):  # index vectors without entries: several updates of one place
        return None
    if not operand.shape.rank or not _lies_within(indices, [operand.shape.dims[d] - sizes[d] for d in mapped]):
        return None
    emit = Emit.at(instruction)
    starts = _all_starts(emit, indices, mapped, operand.shape.rank)
    update = emit.reshape(updates, sizes)
    if opcode:
        update = emit.map(opcode, emit.dynamic_slice(operand, starts, sizes), update)
    return emit.dynamic_update_slice(operand, update, starts)


def _combiner(scatter: Instruction) -> str | None:
    """The binary op that a scatter of one array applies, "" if the update replaces what was there; None for others."""
    if len(scatter.operands) != 3:
        return None
    root = scatter.attributes["to_apply"].root
    if root.opcode == "parameter":
        return "" if root.attributes["number"] == 1 else None
    return binary_opcode(scatter.attributes["to_apply"])


def _window_sizes(scatter: Instruction) -> list[int]:
    """The sizes of an update window, a dimension of the operand each."""
    inserted = scatter.get("inserted_window_dims")
    given = iter([scatter.operands[2].shape.dims[d] for d in scatter.get("update_window_dims")])
    return [1 if d in inserted else next(given) for d in range(scatter.operands[0].shape.rank)]


def _lies_within(indices: Instruction, most: list[int]) -> bool:
    """Whether each number of an index vector is known to lie in [0, most]."""
    source = indices
    while source.opcode == "reshape":
        source = source.operands[0]
    if source.opcode == "constant":
        numbers = source.attributes["literal"].array.reshape(-1)
        return all(0 <= int(number) <= limit for number, limit in zip(numbers, most))
    low, high = integer_range(source)
    return low >= 0 and all(high <= limit for limit in most)
