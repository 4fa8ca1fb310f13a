"""Ops that move elements to places known from their sizes."""

from __future__ import annotations

from hloc.ir.attributes import PadDim
from hloc.ir.dtypes import S32
from hloc.passes.padding.values import (
    Padded,
    Rules,
    Site,
    at_least,
    common_sizes,
    filled,
    moved,
    shifted,
    size_of,
    zero,
)


def broadcast(site: Site) -> Padded:
    return Padded(site.same(), moved(site.operands[0].sizes, site.get("dimensions")))


def transpose(site: Site) -> Padded:
    order = site.get("dimensions")
    return Padded(site.same(), moved(site.operands[0].sizes, [order.index(d) for d in range(len(order))]))


def reverse(site: Site) -> Padded:
    """Turned round, dead elements come first: the array is moved down over them."""
    emit, value = site.emit, site.operands[0]
    data, dims = site.same(), value.dims
    cut = [d for d in value.sizes if d in site.get("dimensions")]
    if cut:
        behind = [PadDim(0, size if d in cut else 0, 0) for d, size in enumerate(dims)]
        room = emit.pad(data, zero(emit, data.shape.dtype), behind)
        starts = [
            emit.map("subtract", emit.scalar(size, S32), value.sizes[d]) if d in cut else emit.scalar(0, S32)
            for d, size in enumerate(dims)
        ]
        data = emit.dynamic_slice(room, starts, dims)
    return Padded(data, value.sizes)


def slice_(site: Site) -> Padded:
    emit, value = site.emit, site.operands[0]
    sizes = {}
    for d, size in value.sizes.items():
        start, limit, stride = site.get("slice")[d]
        until = emit.map("minimum", size, emit.scalar(limit, S32))
        room = at_least(emit, 0, shifted(emit, until, stride - 1 - start))
        sizes[d] = emit.map("divide", room, emit.scalar(stride, S32))
    return Padded(site.same(), sizes)


def pad(site: Site) -> Padded:
    """Dead elements become padding, as what lies behind the live ones is."""
    emit, (value, fill) = site.emit, site.operands
    sizes = {}
    for d, size in value.sizes.items():
        low, high, interior = site.get("padding")[d]
        between = at_least(emit, 0, shifted(emit, size, -1))
        inside = emit.map("multiply", between, emit.scalar(interior, S32))
        sizes[d] = at_least(emit, 0, shifted(emit, emit.map("add", size, inside), low + high))
    data = filled(emit, value.data, value.sizes, fill.data)
    return Padded(site.same([data, fill.data]), sizes)


def concatenate(site: Site) -> Padded:
    """Each operand is written behind the live elements of those before it, over their dead ones."""
    emit, values = site.emit, site.operands
    (along,) = site.get("dimensions")
    sizes = common_sizes(emit, values)
    if along not in sizes:
        return Padded(site.same(), sizes)
    zeros = [emit.scalar(0, S32)] * len(site.shape.dims)
    whole, end = emit.full(0, site.shape), zeros[0]
    for value in values:
        starts = [end if d == along else start for d, start in enumerate(zeros)]
        whole = emit.dynamic_update_slice(whole, value.data, starts)
        end = emit.map("add", end, size_of(emit, value, along))
    return Padded(whole, {**sizes, along: end})


def bitcast_convert(site: Site) -> Padded:
    """To wider elements, the last dimension goes, which must be whole."""
    value = site.operands[0]
    if any(d >= len(site.shape.dims) for d in value.sizes):
        raise site.refused("joining the elements of a dynamic dimension")
    return Padded(site.same(), value.sizes)


def bitcast(site: Site) -> Padded:
    value = site.operands[0]
    here, there = site.instruction.operands[0].shape, site.instruction.shape
    same = here.dims == there.dims and here.minor_to_major == there.minor_to_major
    if value.sizes and not same:
        raise site.refused("other dimensions for the same memory")
    return Padded(site.same(), value.sizes)


def shuffle(site: Site) -> Padded:
    value = site.operands[0]
    if set(value.sizes) & set(site.get("dimensions")):
        raise site.refused("a dynamic dimension whose elements change places")
    return Padded(site.same(), value.sizes)



RULES: Rules = {
    "bitcast": bitcast,
    "bitcast-convert": bitcast_convert,
    "broadcast": broadcast,
    "concatenate": concatenate,
    "pad": pad,
    "reverse": reverse,
    "shuffle": shuffle,
    "slice": slice_,
    "transpose": transpose,
}
