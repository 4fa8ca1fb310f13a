"""Reading and writing at computed places: starts are kept within the live elements.

Start indices become s64 here, clamped or marked as out of range before the op itself looks at its bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from hloc.ir.attributes import PadDim, SliceDim
from hloc.ir.dtypes import S64
from hloc.ir.instruction import Instruction
from hloc.passes.emit import Emit
from hloc.passes.padding.values import (
    Padded,
    Result,
    Rules,
    Site,
    any_empty,
    at_least,
    common_sizes,
    filled,
    least,
    live,
    shifted,
    size_of,
    spread,
    wide_index,
    zero,
)


def _starts(emit: Emit, operands: Sequence[Padded], rank: int) -> list[Instruction]:
    """Start indices as s64 scalars; they may be given as one vector."""
    indices = [operand.data for operand in operands]
    if len(indices) == 1 and indices[0].shape.rank == 1:
        parts = [emit.slice(indices[0], [SliceDim(d, d + 1)]) for d in range(rank)]
        indices = [emit.reshape(part, ()) for part in parts]
    return [wide_index(emit, index) for index in indices]


def _clamped(emit: Emit, start: Instruction, size: Instruction, taken: Instruction) -> Instruction:
    """A start (s64) from which `taken` elements of `size` can be had (both s32)."""
    room = at_least(emit, 0, emit.map("subtract", size, taken))
    return emit.map("clamp", emit.scalar(0, S64), start, emit.convert(room, S64))


def dynamic_slice(site: Site) -> Padded:
    """Elements beyond the live ones, where there are too few, are zeros."""
    emit, value = site.emit, site.operands[0]
    sizes = site.get("dynamic_slice_sizes")
    starts = _starts(emit, site.operands[1:], len(value.dims))
    for d, size in value.sizes.items():
        starts[d] = _clamped(emit, starts[d], size, emit.scalar(sizes[d], size.shape.dtype))
    data = filled(emit, value.data, value.sizes)
    return Padded(emit.dynamic_slice(data, starts, sizes), {})


def dynamic_update_slice(site: Site) -> Padded:
    """Of a dynamic update, the live elements are written; room behind the array lets it start anywhere."""
    emit, (value, update) = site.emit, site.operands[:2]
    dims = value.dims
    starts = _starts(emit, site.operands[2:], len(dims))
    for d in {**value.sizes, **update.sizes}:
        starts[d] = _clamped(emit, starts[d], size_of(emit, value, d), size_of(emit, update, d))
    if not update.sizes:
        return Padded(emit.dynamic_update_slice(value.data, update.data, starts), value.sizes)
    behind = [PadDim(0, size if d in update.sizes else 0, 0) for d, size in enumerate(update.dims)]
    room = emit.pad(value.data, zero(emit, value.data.shape.dtype), behind)
    before = emit.dynamic_slice(room, starts, update.dims)
    new = emit.map("select", live(emit, update.dims, update.sizes), update.data, before)
    whole = emit.dynamic_update_slice(room, new, starts)
    return Padded(emit.slice(whole, [SliceDim(0, size) for size in dims]), value.sizes)


def gather(site: Site) -> Padded:
    emit, (value, indices) = site.emit, site.operands
    slices, mapped = site.get("slice_sizes"), site.get("start_index_map")
    if any(d in value.sizes for d in site.get("operand_batching_dims")):
        raise site.refused("a batch dimension of the operand")
    starts = wide_index(emit, indices.data)
    most = [
        at_least(emit, 0, shifted(emit, size_of(emit, value, d), -slices[d])) if d in value.sizes else None
        for d in mapped
    ]
    if any(room is not None for room in most):
        limits = _by_index(emit, site, [_or_all(emit, room) for room in most], starts.shape.dims)
        starts = emit.map("clamp", emit.full(0, starts.shape), starts, limits)
    data = site.same([value.data, starts])
    empty = any_empty(emit, value.sizes.values())
    if empty is not None:
        zeros = emit.full(0, data.shape)
        data = emit.map("select", spread(emit, empty, data.shape.dims), zeros, data)
    return Padded(data, _gathered_sizes(site, value, indices))


def _or_all(emit: Emit, room: Instruction | None) -> Instruction:
    """A limit as s64; where there is none, one that changes nothing."""
    return emit.scalar((1 << 63) - 1, S64) if room is None else emit.convert(room, S64)


def _by_index(
    emit: Emit, site: Site, limits: Sequence[Instruction], dims: Sequence[int]
) -> Instruction:
    """A limit for each entry of an index vector, repeated over all vectors."""
    place = site.get("index_vector_dim")
    if place == len(dims):
        return spread(emit, limits[0], dims)
    vector = [emit.reshape(limit, (1,)) for limit in limits]
    joined = vector[0] if len(vector) == 1 else emit.concatenate(vector, 0)
    return emit.broadcast(joined, dims, (place,))


def _gathered_sizes(site: Site, value: Padded, indices: Padded) -> dict[int, Instruction]:
    emit, slices, offsets = site.emit, site.get("slice_sizes"), site.get("offset_dims")
    dropped = {*site.get("collapsed_slice_dims"), *site.get("operand_batching_dims")}
    sizes = {}
    for target, d in zip(offsets, [d for d in range(len(value.dims)) if d not in dropped], strict=True):
        if d in value.sizes:
            size = value.sizes[d]
            sizes[target] = emit.map("minimum", size, emit.scalar(slices[d], size.shape.dtype))
    batch = [d for d in range(len(indices.dims)) if d != site.get("index_vector_dim")]
    targets = [d for d in range(len(site.shape.dims)) if d not in offsets]
    for target, d in zip(targets, batch, strict=True):
        if d in indices.sizes:
            sizes[target] = indices.sizes[d]
    return sizes


def scatter(site: Site) -> Result:
    """Updates that are dead, or don't fit the live elements, get indices out of range."""
    emit, count = site.emit, len(site.operands) // 2
    arrays, updates = site.operands[:count], site.operands[count + 1 :]
    sizes = common_sizes(emit, arrays)
    starts = wide_index(emit, site.operands[count].data)
    holds = [*_fitting(site, starts, sizes, updates), *_live_updates(site, updates)]
    if holds:
        if not site.get("scatter_dims_to_operand_dims"):
            raise site.refused("updates without an index")
        keep = reduce(lambda a, b: emit.map("and", a, b), holds)
        starts = emit.map("select", keep, starts, emit.full(-1, starts.shape))
    made = site.same([*(a.data for a in arrays), starts, *(u.data for u in updates)])
    if not made.shape.is_tuple:
        return Padded(made, sizes)
    return [Padded(emit.element(made, i), sizes) for i in range(count)]


def _fitting(
    site: Site, starts: Instruction, sizes: dict[int, Instruction], updates: Sequence[Padded]
) -> list[Instruction]:
    """Pred arrays over the indices: whether a window's start leaves room within the live elements."""
    emit, mapped = site.emit, site.get("scatter_dims_to_operand_dims")
    dims, place = starts.shape.dims, site.get("index_vector_dim")
    windows = _window_sizes(site, sizes, updates)
    holds = []
    for d, size in sizes.items():
        room = emit.convert(shifted(emit, size, -windows[d]), S64)
        if d not in mapped:
            fits = emit.compare("GE", room, emit.scalar(0, S64))
            holds.append(spread(emit, fits, dims))
            continue
        start = starts
        if place < len(dims):
            entry = mapped.index(d)
            cut = [SliceDim(entry, entry + 1) if i == place else SliceDim(0, s) for i, s in enumerate(dims)]
            rest = [i for i in range(len(dims)) if i != place]
            part = emit.reshape(emit.slice(starts, cut), [dims[i] for i in rest])
            start = emit.broadcast(part, dims, rest)
        holds.append(emit.compare("LE", start, spread(emit, room, dims)))
    return holds


def _window_sizes(site: Site, sizes: dict[int, Instruction], updates: Sequence[Padded]) -> list[int]:
    """Of a window, in each dimension of the array.

    A window of dynamic size has to be the array's own: then dead elements only meet dead ones.
    """
    single = {*site.get("inserted_window_dims"), *site.get("input_batching_dims")}
    window = iter(site.get("update_window_dims"))
    found = []
    for d in range(len(site.operands[0].dims)):
        place = None if d in single else next(window)
        if place is not None and any(place in update.sizes for update in updates):
            if any(update.sizes.get(place) is not sizes.get(d) for update in updates):
                raise site.refused("a window of another size than the array's")
            found.append(0)
        else:
            found.append(1 if place is None else updates[0].dims[place])
    return found


def _live_updates(site: Site, updates: Sequence[Padded]) -> list[Instruction]:
    """Pred arrays over the indices: whether an update is live."""
    emit, indices = site.emit, site.operands[len(updates)]
    dims, place = indices.dims, site.get("index_vector_dim")
    batch = [d for d in range(len(dims)) if d != place]
    outer = [d for d in range(len(updates[0].dims)) if d not in site.get("update_window_dims")]
    sizes = {}
    for d, target in zip(batch, outer, strict=True):
        size = least(emit, [indices.sizes.get(d), *(update.sizes.get(target) for update in updates)])
        if size is not None:
            sizes[d] = size
    mask = live(emit, dims, sizes)
    return [] if mask is None else [mask]


RULES: Rules = {
    "dynamic-slice": dynamic_slice,
    "dynamic-update-slice": dynamic_update_slice,
    "gather": gather,
    "scatter": scatter,
}
