"""Ops about sizes, and reshapes: live elements keep their row-major order."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from hloc.ir.dtypes import S32, S64
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import array
from hloc.passes.emit import Emit
from hloc.passes.padding.values import (
    Padded,
    Rules,
    Site,
    at_least,
    checked,
    dynamic_dimensions,
    filled,
    product,
    size_of,
    spread,
    within,
)


def get_dimension_size(site: Site) -> Padded:
    (dimension,) = site.get("dimensions")
    return Padded(size_of(site.emit, site.operands[0], dimension), {})


def set_dimension_size(site: Site) -> Padded:
    """A dimension that grows again holds zeros where it had been cut."""
    emit, (value, size) = site.emit, site.operands
    (dimension,) = site.get("dimensions")
    bound = value.dims[dimension]
    holds = within(emit, size.data, bound)
    if not site.instruction.shape.is_dynamic_dim(dimension) and not value.sizes:
        holds = emit.compare("EQ", size.data, emit.scalar(bound, S32))
    before = {d: old for d, old in value.sizes.items() if d == dimension}
    data = filled(emit, value.data, before)
    return Padded(data, {**value.sizes, dimension: checked(emit, size.data, holds)})


def reshape(site: Site) -> Padded:
    """One dimension of the result follows from the count of live elements."""
    emit, value, shape = site.emit, site.operands[0], site.shape
    if not value.sizes:
        return Padded(site.same(), {})
    chosen = _inferred_dimension(site)
    others = prod(size for d, size in enumerate(shape.dims) if d != chosen)
    if not others or not shape.count:
        return Padded(emit.full(0, shape), {})
    count = product(emit, [size_of(emit, value, d) for d in range(len(value.dims))])
    per_size = emit.scalar(others, S64)
    size = emit.convert(emit.map("divide", count, per_size), S32)
    if not _is_multiple(value, others):
        rest = emit.map("remainder", count, per_size)
        size = checked(emit, size, emit.compare("EQ", rest, emit.scalar(0, S64)))
    return reshaped(emit, value, shape.dims, {chosen: size})


def _inferred_dimension(site: Site) -> int:
    named = site.get("inferred_dimension")
    if named is not None and named >= 0:
        return named
    open_dimensions = dynamic_dimensions(site.instruction.shape)
    if len(open_dimensions) != 1:
        raise site.refused("a result of which no one dimension follows")
    return open_dimensions[0]


def _is_multiple(value: Padded, factor: int) -> bool:
    """Whether any count of live elements is a multiple of a factor."""
    return prod(size for d, size in enumerate(value.dims) if d not in value.sizes) % factor == 0


def dynamic_reshape(site: Site) -> Padded:
    emit, value, given = site.emit, site.operands[0], [operand.data for operand in site.operands[1:]]
    shape = site.instruction.shape
    if not shape.dims:
        return Padded(emit.reshape(value.data, ()), {})
    holds = [
        within(emit, size, bound) if shape.is_dynamic_dim(d) else _is(emit, size, bound)
        for d, (size, bound) in enumerate(zip(given, shape.dims, strict=True))
    ]
    count = product(emit, [size_of(emit, value, d) for d in range(len(value.dims))])
    whole = emit.compare("EQ", product(emit, given), count)
    for condition in holds:
        whole = emit.map("and", whole, condition)
    open_dimensions = dynamic_dimensions(shape)
    sizes = {d: checked(emit, given[d], whole) for d in open_dimensions}
    if not open_dimensions:
        raise site.refused("a result of static shape")
    return reshaped(emit, value, shape.dims, sizes)


def _is(emit: Emit, size: Instruction, bound: int) -> Instruction:
    return emit.compare("EQ", size, emit.scalar(bound, S32))


def reshaped(emit: Emit, value: Padded, dims: Sequence[int], sizes: dict[int, Instruction]) -> Padded:
    """The live elements, in row-major order, as those of other dimensions and sizes."""
    if not prod(dims):
        return Padded(emit.full(0, array(value.data.shape.dtype, *dims)), sizes)
    if _keeps_places(value.dims, list(value.sizes), dims, list(sizes)):
        return Padded(emit.reshape(value.data, dims), sizes)
    result = Padded(value.data, sizes)
    number = _row_major_number(emit, dims, [_size(emit, result, dims, d) for d in range(len(dims))])
    places = []
    for dimension in reversed(range(len(value.dims))):
        extent = at_least(emit, 1, emit.convert(size_of(emit, value, dimension), S64))
        extents = spread(emit, extent, dims)
        places.insert(0, emit.map("remainder", number, extents))
        number = emit.map("divide", number, extents)
    return Padded(_taken(emit, value.data, dims, places), sizes)


def _keeps_places(
    before: Sequence[int], cut_before: list[int], after: Sequence[int], cut_after: list[int]
) -> bool:
    """Whether padded arrays can be reshaped as they are: the one cut dimension has the same ones outside."""
    if len(cut_before) != 1 or len(cut_after) != 1:
        return not cut_before and not cut_after
    return prod(before[: cut_before[0]]) == prod(after[: cut_after[0]])


def _size(emit: Emit, value: Padded, dims: Sequence[int], dimension: int) -> Instruction:
    size = value.sizes.get(dimension)
    return emit.scalar(dims[dimension], S64) if size is None else emit.convert(size, S64)


def _row_major_number(emit: Emit, dims: Sequence[int], sizes: Sequence[Instruction]) -> Instruction:
    """For each place of the dimensions, its number among the live ones (s64)."""
    number = emit.full(0, array(S64, *dims))
    for dimension, size in enumerate(sizes):
        number = emit.map("multiply", number, spread(emit, size, dims))
        number = emit.map("add", number, emit.iota(S64, dims, dimension))
    return number


def _taken(
    emit: Emit, data: Instruction, dims: Sequence[int], places: Sequence[Instruction]
) -> Instruction:
    """The elements of `data` at places given dimension by dimension (s64 arrays of the result's dims)."""
    rank = data.shape.rank
    columns = [emit.reshape(place, (*dims, 1)) for place in places]
    indices = columns[0] if rank == 1 else emit.concatenate(columns, len(dims))
    return emit.op(
        "gather",
        array(data.shape.dtype, *dims),
        (data, indices),
        offset_dims=(),
        collapsed_slice_dims=tuple(range(rank)),
        start_index_map=tuple(range(rank)),
        index_vector_dim=len(dims),
        slice_sizes=(1,) * rank,
    )


RULES: Rules = {
    "dynamic-reshape": dynamic_reshape,
    "get-dimension-size": get_dimension_size,
    "reshape": reshape,
    "set-dimension-size": set_dimension_size,
}
