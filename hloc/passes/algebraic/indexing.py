"""Rules of dynamic-slice, dynamic-update-slice, gather and scatter."""

from __future__ import annotations

from math import prod

import numpy as np

from hloc.ir.attributes import PadDim, SliceDim
from hloc.ir.instruction import Instruction
from hloc.passes.algebraic.facts import binary_opcode, integer_range, known_starts
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
    operands, changed = list(instruction.operands), False
    first = len(operands) - len(operands[0].shape.dims)
    dims = zip(_starts(instruction), _sizes(instruction), operands[0].shape.dims)
    for number, (start, size, whole) in enumerate(dims, first):
        if size == whole and splat_value(start) is None:
            operands[number] = Emit.at(instruction).scalar(0, start.shape.dtype)
        elif start.opcode == "clamp" and splat_value(start.operands[0]) == 0:
            most = splat_value(start.operands[2])
            if most is None or int(most) != whole - size:
                continue
            operands[number] = start.operands[1]
        else:
            continue
        changed = True
    if not changed:
        return None
    return Emit.at(instruction).op(instruction.opcode, instruction.shape, operands, **instruction.attributes)


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
    if size != 1 or start.shape.dtype is not dtype or not dtype.is_integer:
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


def _index_vector(emit: Emit, indices: Instruction, count: int) -> list[Instruction]:
    """The scalars of the one index vector that an array of indices holds."""
    flat = emit.reshape(indices, (count,))
    return [emit.reshape(emit.slice(flat, [SliceDim(k, k + 1)]), ()) for k in range(count)]


@rule("gather")
def gather_to_dynamic_slice(instruction: Instruction) -> Instruction | None:
    """gather(x, i) = reshape(dynamic-slice(x, i)), if i is one index vector; both clamp in the same way"""
    operand, indices = instruction.operands
    mapped = instruction.get("start_index_map")
    if instruction.get("operand_batching_dims") or indices.shape.count != len(mapped) or not mapped:
        return None
    emit = Emit.at(instruction)
    at = dict(zip(mapped, _index_vector(emit, indices, len(mapped))))
    zero = emit.scalar(0, indices.shape.dtype)
    starts = [at.get(d, zero) for d in range(operand.shape.rank)]
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
    operand, indices = instruction.operands
    mapped, sizes = instruction.get("start_index_map"), instruction.get("slice_sizes")
    if instruction.get("operand_batching_dims") or len(mapped) != 1:
        return None
    (along,) = mapped
    steps = _counted(indices)
    if steps is None or sizes[along] != 1 or instruction.get("collapsed_slice_dims") != (along,):
        return None
    start, stride, count = steps
    limit = start + (count - 1) * stride + 1
    if start < 0 or stride < 1 or limit > operand.shape.dims[along]:
        return None
    ranges = [SliceDim(0, size) for size in sizes]
    ranges[along] = SliceDim(start, limit, stride)
    emit = Emit.at(instruction)
    kept = [d for d in range(operand.shape.rank) if d != along]
    offsets = instruction.get("offset_dims")
    wide = [d for d in range(instruction.shape.rank) if d not in offsets and instruction.shape.dims[d] != 1]
    if len(wide) != 1:
        return None
    source = {**dict(zip(offsets, kept)), wide[0]: along}
    moved = emit.transpose(emit.slice(operand, ranges), [source[d] for d in sorted(source)])
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
    opcode = _combiner(instruction)
    mapped = instruction.get("scatter_dims_to_operand_dims")
    if opcode is None or instruction.operands[1].shape.count != len(mapped):
        return None
    if instruction.get("input_batching_dims"):
        return None
    operand, indices, updates = instruction.operands
    sizes = _window_sizes(instruction)
    if updates.shape.count != prod(sizes):
        return None  # index vectors without entries: several updates of one place
    fits = [operand.shape.dims[d] - sizes[d] for d in mapped]
    emit = Emit.at(instruction)
    if not _lies_within(indices, fits):
        return None
    zero = emit.scalar(0, indices.shape.dtype)
    at = dict(zip(mapped, _index_vector(emit, indices, len(mapped))))
    starts = [at.get(d, zero) for d in range(operand.shape.rank)]
    update = emit.reshape(updates, sizes)
    if opcode:
        update = emit.map(opcode, emit.dynamic_slice(operand, starts, sizes), update)
    return emit.dynamic_update_slice(operand, update, starts) if starts else update


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
