"""Shape rules of gather and scatter, whose dimension numbers mirror each other."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.ir.shape_rules.common import INTEGERS, Site, check_reducer, make_array, sizes_agree
from hloc.ir.shapes import UNBOUNDED, ArrayShape, Shape, TupleShape


def _index_dims(site: Site, number: int) -> tuple[ArrayShape, int, list[int], list[bool]]:
    """Indices, index_vector_dim, then sizes and dynamic flags of the indices' other dimensions."""
    indices = site.typed(number, INTEGERS)
    place = site.get("index_vector_dim")
    if not 0 <= place <= indices.rank:
        raise site.error(
            "DIMENSIONS_C1", f"index_vector_dim={place} is beyond {site.name(number)}, {indices!r}"
        )
    kept = [d for d in range(indices.rank) if d != place]
    return indices, place, [indices.dims[d] for d in kept], [indices.is_dynamic_dim(d) for d in kept]


def _check_index_map(
    site: Site, attribute: str, operand: ArrayShape, indices: ArrayShape, place: int
) -> tuple[int, ...]:
    length = indices.dims[place] if place < indices.rank else 1
    mapped = site.dimensions(attribute, operand.rank)
    if not sizes_agree(len(mapped), length):
        raise site.error(
            "INDEX_VECTOR_C1", f"{attribute} has {len(mapped)} entries, but an index vector {length}"
        )
    return mapped


def _check_batching(
    site: Site,
    names: tuple[str, str],
    operand: ArrayShape,
    indices: ArrayShape,
    place: int,
    mapped: tuple[int, ...],
) -> tuple[int, ...]:
    """Batching dimensions come in pairs of the same size, outside of index vectors and index maps."""
    ours = site.dimensions(names[0], operand.rank, increasing=True)
    theirs = site.dimensions(names[1], indices.rank, count=len(ours))
    if place in theirs or set(ours) & set(mapped):
        raise site.error(
            "BATCHING_C1", f"a dimension of {names[0]} or {names[1]} also serves the index vectors"
        )
    for a, b in zip(ours, theirs, strict=True):
        if not sizes_agree(operand.dims[a], indices.dims[b]):
            raise site.error(
                "BATCHING_C2",
                f"batching dimension {a} of {operand!r} does not have the size of {b} of {indices!r}",
            )
    return ours


def _check_dropped(
    site: Site, attribute: str, operand: ArrayShape, batching: Sequence[int], windows: int
) -> list[int]:
    """Operand dimensions that do not show in a window: collapsed (inserted) and batching ones."""
    collapsed = site.dimensions(attribute, operand.rank, increasing=True)
    if set(collapsed) & set(batching):
        raise site.error("BATCHING_C1", f"a batching dimension is also in {attribute}")
    if windows + len(collapsed) + len(batching) != operand.rank:
        raise site.error(
            "WINDOW_DIMS_C1",
            f"{windows} window, {len(collapsed)} {attribute} and {len(batching)} batching dimensions "
            f"do not make up {operand!r}",
        )
    return sorted((*collapsed, *batching))


def gather(site: Site) -> Shape:
    operand = site.array(0)
    indices, place, batch, batch_flags = _index_dims(site, 1)
    mapped = _check_index_map(site, "start_index_map", operand, indices, place)
    names = ("operand_batching_dims", "start_indices_batching_dims")
    batching = _check_batching(site, names, operand, indices, place, mapped)
    offsets = site.get("offset_dims")
    rank = len(batch) + len(offsets)
    site.dimensions("offset_dims", rank, increasing=True)
    dropped = _check_dropped(site, "collapsed_slice_dims", operand, batching, len(offsets))
    sizes = site.get("slice_sizes")
    _check_slice_sizes(site, operand, sizes, dropped)
    window = [d for d in range(operand.rank) if d not in dropped]
    dims, flags = [0] * rank, [False] * rank
    for target, source in zip(offsets, window, strict=True):
        dims[target] = sizes[source]
        flags[target] = operand.is_dynamic_dim(source) and sizes[source] == operand.dims[source]
    others = [d for d in range(rank) if d not in offsets]
    for target, size, flag in zip(others, batch, batch_flags, strict=True):
        dims[target], flags[target] = size, flag
    return make_array(operand.dtype, dims, flags)


def _check_slice_sizes(site: Site, operand: ArrayShape, sizes: tuple[int, ...], dropped: list[int]) -> None:
    if len(sizes) != operand.rank:
        raise site.error("DIMENSIONS_C4", f"slice_sizes has {len(sizes)} entries, expected {operand.rank}")
    for number, (size, whole) in enumerate(zip(sizes, operand.dims, strict=True)):
        if size < 0 or size > whole != UNBOUNDED:
            raise site.error(
                "GATHER_C1", f"dimension {number} has size {whole}, too small for a slice of {size}"
            )
        if number in dropped and size > 1:
            raise site.error(
                "GATHER_C2", f"the slice of dimension {number} has size {size}, but is not kept in the result"
            )


def scatter(site: Site) -> Shape:
    count, rest = divmod(len(site.shapes), 2)
    if not rest:
        raise site.error(
            "SCATTER_C1",
            f"{len(site.shapes)} operands, expected as many updates as operands, and the indices",
        )
    operands = [site.array(number) for number in range(count)]
    indices, place, batch, _ = _index_dims(site, count)
    operand = operands[0]
    mapped = _check_index_map(site, "scatter_dims_to_operand_dims", operand, indices, place)
    names = ("input_batching_dims", "scatter_indices_batching_dims")
    batching = _check_batching(site, names, operand, indices, place, mapped)
    window = site.get("update_window_dims")
    site.dimensions("update_window_dims", len(batch) + len(window), increasing=True)
    dropped = _check_dropped(site, "inserted_window_dims", operand, batching, len(window))
    limits = [operand.dims[d] for d in range(operand.rank) if d not in dropped]
    for number in range(count):
        site.same_dims(number)
        site.same_type(count + 1 + number, number)
        _check_updates(site, count + 1 + number, batch, window, limits)
    check_reducer(site, site.get("to_apply"), [shape.dtype for shape in operands])
    returns_tuple = count > 1 or site.declared is not None and site.declared.is_tuple
    return TupleShape(tuple(operands)) if returns_tuple else operand


def _check_updates(
    site: Site, number: int, batch: list[int], window: tuple[int, ...], limits: list[int]
) -> None:
    """Window dimensions fit in the operand's; the others are those of the indices."""
    updates = site.array(number)
    rank = len(batch) + len(window)
    if updates.rank != rank:
        raise site.error("SCATTER_C2", f"{site.name(number)} is {updates!r}, expected rank {rank}")
    for dimension, limit in zip(window, limits, strict=True):
        if updates.dims[dimension] > limit != UNBOUNDED:
            raise site.error(
                "SCATTER_C3",
                f"{site.name(number)} is {updates!r}, expected {limit} at most in dimension {dimension}",
            )
    others = [d for d in range(rank) if d not in window]
    for dimension, size in zip(others, batch, strict=True):
        if not sizes_agree(updates.dims[dimension], size):
            raise site.error(
                "SCATTER_C4",
                f"{site.name(number)} is {updates!r}, dimension {dimension} should be {size}",
            )
