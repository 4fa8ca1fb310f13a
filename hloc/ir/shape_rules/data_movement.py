"""Shape rules of the ops that only move elements: to other places, other shapes, or other element types."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.ir.dtypes import S32
from hloc.ir.shape_rules.common import (
    INTEGERS,
    Site,
    compatible,
    dynamic_flags,
    element_count,
    make_array,
    sizes_agree,
)
from hloc.ir.shapes import UNBOUNDED, ArrayShape, BufferShape, Layout, Shape

_INT32_MAX = 2**31 - 1


def bitcast(site: Site) -> Shape:
    """As declared, provided that both shapes take as many bytes (tiles may pad them differently)."""
    result = site.result()
    operand = site.shapes[0]
    if isinstance(operand, BufferShape) or isinstance(result, BufferShape):
        return result
    source, target = site.array(0), site.result_array()
    before, after = _byte_size(source), _byte_size(target)
    if before != after and before >= 0 and after >= 0:
        raise site.error(
            "BITCAST_C1", f"{site.name(0)} is {source!r} of {before} bytes, its result {target!r} of {after}"
        )
    return target


def _byte_size(shape: ArrayShape) -> int:
    """Bytes without tile padding, or -1 where a dimension is unbounded."""
    count = element_count(shape.dims)
    if count == UNBOUNDED:
        return -1
    bits = shape.layout.element_bits if shape.layout is not None else 0
    return -(-count * bits // 8) if bits else count * shape.dtype.itemsize


def bitcast_convert(site: Site) -> Shape:
    """A wider element takes in the operand's last dimension, a narrower one adds a last dimension."""
    source = site.array(0)
    dtype = site.result_array().dtype
    if source.dtype.is_complex != dtype.is_complex:
        raise site.error(
            "BITCAST_CONVERT_C1", f"{site.name(0)} is {source!r}, the result {dtype.name}: one is complex"
        )
    before, after = source.dtype.bits, dtype.bits
    if max(before, after) % min(before, after):
        raise site.error(
            "BITCAST_CONVERT_C2",
            f"{source.dtype.name} has {before} bits, {dtype.name} {after}: neither divides the other",
        )
    if before == after:
        return source.with_dtype(dtype)
    flags = dynamic_flags(source)
    if before > after:
        return make_array(dtype, (*source.dims, before // after), (*flags, False))
    ratio = after // before
    if not source.dims or not sizes_agree(source.dims[-1], ratio):
        raise site.error(
            "BITCAST_CONVERT_C3", f"{site.name(0)} is {source!r}, expected its last dimension to be {ratio}"
        )
    return make_array(dtype, source.dims[:-1], flags[:-1])


def broadcast(site: Site) -> Shape:
    """As declared: operand dimension i is result dimension dimensions[i], the others are new."""
    operand, result = site.array(0), site.result_array()
    dimensions = site.dimensions("dimensions", result.rank, count=operand.rank)
    for number, target in enumerate(dimensions):
        if not sizes_agree(operand.dims[number], result.dims[target]):
            raise site.error(
                "BROADCAST_C1",
                f"dimension {number} of {site.name(0)} has size {operand.dims[number]}, "
                f"but dimension {target} of the result {result.dims[target]}",
            )
    return result.with_dtype(operand.dtype)


def concatenate(site: Site) -> Shape:
    first = site.array(0)
    along = site.dimension("dimensions", first.rank)
    total = first.dims[along]
    flags = list(dynamic_flags(first))
    for number in range(1, len(site.shapes)):
        site.same_type(number)
        other = site.array(number)
        if not _agree_but(first.dims, other.dims, along):
            raise site.error(
                "CONCATENATE_C1",
                f"{site.name(number)} is {other!r}, expected {first!r} but for dimension {along}",
            )
        size = other.dims[along]
        total = UNBOUNDED if UNBOUNDED in (total, size) else total + size
        flags = [a or b for a, b in zip(flags, dynamic_flags(other), strict=True)]
    dims = (*first.dims[:along], total, *first.dims[along + 1 :])
    return make_array(first.dtype, dims, flags)


def _agree_but(one: Sequence[int], other: Sequence[int], along: int) -> bool:
    """Whether the sizes agree in all dimensions but one."""
    return len(one) == len(other) and all(
        i == along or sizes_agree(a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))
    )


def pad(site: Site) -> Shape:
    operand = site.array(0)
    site.scalar(1)
    site.same_type(1)
    padding = site.get("padding")
    if len(padding) != operand.rank:
        raise site.error("DIMENSIONS_C4", f"padding has {len(padding)} entries, expected {operand.rank}")
    dims = []
    for dimension, (size, (low, high, interior)) in enumerate(zip(operand.dims, padding, strict=True)):
        if interior < 0:
            raise site.error(
                "PAD_C1", f"the interior padding of dimension {dimension} is {interior}, below 0"
            )
        padded = size + low + high + max(size - 1, 0) * interior if size != UNBOUNDED else UNBOUNDED
        if padded < 0 and size != UNBOUNDED:
            raise site.error("PAD_C2", f"dimension {dimension} would get the size {padded}")
        dims.append(padded)
    return make_array(operand.dtype, dims, operand.dynamic)


def reshape(site: Site) -> Shape:
    """As declared, provided that it has as many elements."""
    operand, result = site.array(0), site.result_array()
    _check_counts(site, operand, result)
    inferred = site.get("inferred_dimension")
    if inferred is not None and not -1 <= inferred < result.rank:
        raise site.error(
            "DIMENSIONS_C1", f"inferred_dimension={inferred} is not a dimension of the result {result!r}"
        )
    return result.with_dtype(operand.dtype)


def _check_counts(site: Site, operand: ArrayShape, result: ArrayShape) -> None:
    before, after = element_count(operand.dims), element_count(result.dims)
    if not sizes_agree(before, after):
        raise site.error(
            "RESHAPE_C1",
            f"{site.name(0)} is {operand!r} of {before} elements, its result {result!r} of {after}",
        )


def dynamic_reshape(site: Site) -> Shape:
    operand, result = site.array(0), site.result_array()
    if len(site.shapes) != result.rank + 1:
        raise site.error(
            "DYNAMIC_RESHAPE_C1",
            f"{len(site.shapes) - 1} sizes for the result {result!r}, expected {result.rank}",
        )
    for number in range(1, len(site.shapes)):
        site.scalar_of(number, S32)
    _check_counts(site, operand, result)
    return result.with_dtype(operand.dtype)


def reverse(site: Site) -> Shape:
    operand = site.array(0)
    site.dimensions("dimensions", operand.rank)
    return operand


def slice_(site: Site) -> Shape:
    operand = site.array(0)
    limits = site.get("slice")
    if len(limits) != operand.rank:
        raise site.error("DIMENSIONS_C4", f"slice has {len(limits)} entries, expected {operand.rank}")
    sizes, flags = [], []
    for number, (start, limit, stride) in enumerate(limits):
        size = operand.dims[number]
        if stride < 1:
            raise site.error("SLICE_C1", f"dimension {number} has the stride {stride}, expected at least 1")
        if not 0 <= start <= limit or limit > size != UNBOUNDED:
            raise site.error(
                "SLICE_C2", f"dimension {number} has size {size}, which [{start}:{limit}] does not fit"
            )
        sizes.append((limit - start + stride - 1) // stride)
        flags.append(operand.is_dynamic_dim(number) and sizes[-1] != 1)
    return make_array(operand.dtype, sizes, flags)


def transpose(site: Site) -> Shape:
    """Dimension i of the result is dimension dimensions[i] of the operand; the layout is permuted along."""
    operand = site.array(0)
    permutation = site.dimensions("dimensions", operand.rank, count=operand.rank)
    dims = tuple(operand.dims[d] for d in permutation)
    dynamic = tuple(operand.dynamic[d] for d in permutation) if operand.dynamic else ()
    layout = operand.layout
    if layout is not None and not layout.tiles and len(layout.minor_to_major) == len(permutation):
        place = {source: target for target, source in enumerate(permutation)}
        if all(d in place for d in layout.minor_to_major):
            return ArrayShape(
                operand.dtype, dims, Layout(tuple(place[d] for d in layout.minor_to_major)), dynamic
            )
    return ArrayShape(operand.dtype, dims, None, dynamic)


def shuffle(site: Site) -> Shape:
    """The operand's shape: `rotate` shifts each of `dimensions`, `permute` reorders them by `indices`."""
    operand = site.array(0)
    dimensions = site.dimensions("dimensions", operand.rank)
    mode = getattr(site.get("mode"), "text", site.get("mode"))
    if mode == "rotate":
        if len(site.get("shifts")) != len(dimensions):
            raise site.error(
                "SHUFFLE_C1", f"{len(site.get('shifts'))} shifts for {len(dimensions)} dimensions"
            )
    elif mode == "permute":
        _check_permutation(site, operand, dimensions)
    else:
        raise site.error("SHUFFLE_C2", f"mode={mode} is neither rotate nor permute")
    return operand


def _check_permutation(site: Site, operand: ArrayShape, dimensions: tuple[int, ...]) -> None:
    indices = site.get("indices")
    if indices is None or not indices.shape.is_array or not indices.shape.dtype.is_integer:
        raise site.error("SHUFFLE_C3", "mode=permute needs indices of an integer type")
    sizes = [operand.dims[d] for d in dimensions]
    if element_count(indices.shape.dims) != element_count((*sizes, len(sizes))):
        raise site.error(
            "SHUFFLE_C3", f"indices are {indices.shape!r}, expected an index for each of {sizes} places"
        )


def check_start_indices(site: Site, first: int, rank: int) -> None:
    """Start indices from operand `first` on: an integer scalar a dimension, or one vector of them."""
    count = len(site.shapes) - first
    if count == 1 and site.array(first).rank == 1:
        vector = site.typed(first, INTEGERS)
        if not sizes_agree(vector.dims[0], rank):
            raise site.error("INDICES_C1", f"{site.name(first)} is {vector!r}, expected {rank} start indices")
        return
    if count != rank:
        raise site.error("INDICES_C1", f"{count} start indices, expected {rank}")
    for number in range(first, len(site.shapes)):
        site.scalar(number, INTEGERS)
        site.same_type(number, first)


def dynamic_slice(site: Site) -> Shape:
    operand = site.array(0)
    check_start_indices(site, 1, operand.rank)
    sizes = site.get("dynamic_slice_sizes")
    if len(sizes) != operand.rank:
        raise site.error(
            "DIMENSIONS_C4", f"dynamic_slice_sizes has {len(sizes)} entries, expected {operand.rank}"
        )
    for number, (size, whole) in enumerate(zip(sizes, operand.dims, strict=True)):
        if size < 0 or size > whole != UNBOUNDED:
            raise site.error(
                "DYNAMIC_SLICE_C1", f"dimension {number} has size {whole}, too small for a slice of {size}"
            )
    return make_array(operand.dtype, sizes)


def dynamic_update_slice(site: Site) -> Shape:
    operand, update = site.array(0), site.array(1)
    check_start_indices(site, 2, operand.rank)
    site.same_type(1)
    if update.rank != operand.rank:
        raise site.error(
            "DYNAMIC_UPDATE_SLICE_C1", f"{site.name(1)} is {update!r}, expected rank {operand.rank}"
        )
    flags = list(dynamic_flags(operand))
    for number, (size, whole) in enumerate(zip(update.dims, operand.dims, strict=True)):
        if size > whole != UNBOUNDED:
            raise site.error(
                "DYNAMIC_UPDATE_SLICE_C2",
                f"{site.name(1)} is {update!r}, too large for {operand!r} in dimension {number}",
            )
        flags[number] = flags[number] or (update.is_dynamic_dim(number) and size == whole)
    return ArrayShape(operand.dtype, operand.dims, operand.layout, tuple(flags) if any(flags) else ())


def get_dimension_size(site: Site) -> Shape:
    _sized_dimension(site)
    return ArrayShape(S32)


def set_dimension_size(site: Site) -> Shape:
    operand, dimension = _sized_dimension(site)
    site.scalar_of(1, S32)
    flags = tuple(flag or i == dimension for i, flag in enumerate(dynamic_flags(operand)))
    changed = ArrayShape(operand.dtype, operand.dims, operand.layout, flags)
    # A size equal to the bound makes the dimension static again; then the declared shape says so.
    declared = site.declared
    return declared if declared is not None and compatible(declared, changed) else changed


def _sized_dimension(site: Site) -> tuple[ArrayShape, int]:
    operand = site.array(0)
    dimension = site.dimension("dimensions", operand.rank)
    if operand.dims[dimension] > _INT32_MAX:
        raise site.error("DIMENSION_SIZE_C1", f"dimension {dimension} of {operand!r} does not fit in s32")
    return operand, dimension
