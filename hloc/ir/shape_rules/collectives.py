"""Shape rules of ops among devices. The verifier checks which devices they are, these rules sizes."""

from __future__ import annotations

from math import prod

from hloc.ir.attributes import IotaTile, ReplicaGroups
from hloc.ir.opcodes import OPS
from hloc.ir.shape_rules.common import (
    INTEGERS,
    Site,
    check_reducer,
    make_array,
    one_or_tuple,
)
from hloc.ir.shapes import UNBOUNDED, ArrayShape, Shape, TupleShape


def _arrays(site: Site) -> list[ArrayShape]:
    return [site.array(number) for number in range(len(site.shapes))]


def group_size(site: Site) -> int | None:
    """How many devices each listed group has.

    None when all take part, when groups differ in size, or when a listed replica stands for its partitions.
    """
    groups = site.get("replica_groups")
    if groups is None or _spans_partitions(site):
        return None
    check_groups_form(site, groups)
    if groups.iota is not None:
        return groups.iota.dims[1]
    if groups.mesh is not None:
        lengths = dict(groups.mesh.mesh)
        return prod(lengths[name] if part is None else part[1] for name, part in groups.mesh.axes)
    sizes = {len(group) for group in groups.listed}
    return (sizes.pop() or None) if len(sizes) == 1 else None


def _spans_partitions(site: Site) -> bool:
    has_flag = "use_global_device_ids" in OPS[site.opcode].attributes
    return has_flag and site.get("channel_id") is not None and not site.get("use_global_device_ids")


def check_groups_form(site: Site, groups: ReplicaGroups) -> None:
    """Counted groups are a matrix of all counted devices; so is the order of a mesh's devices."""
    tiles = [groups.iota] if groups.iota is not None else []
    if groups.mesh is not None and isinstance(groups.mesh.device_ids, IotaTile):
        tiles.append(groups.mesh.device_ids)
    for tile in tiles:
        whole = prod(tile.dims) == prod(tile.reshape_dims) and all(d > 0 for d in tile.reshape_dims)
        if not whole or sorted(tile.permutation) != list(range(len(tile.reshape_dims))):
            raise site.error(
                "REPLICA_GROUPS_C1", f"{list(tile.dims)}<={list(tile.reshape_dims)} does not fit"
            )
    if (
        groups.mesh is not None
        and not {name for name, _ in groups.mesh.axes} <= dict(groups.mesh.mesh).keys()
    ):
        raise site.error("REPLICA_GROUPS_C1", "replica_groups name an axis that their mesh does not have")
    if groups.iota is not None and len(groups.iota.dims) != 2:
        raise site.error(
            "REPLICA_GROUPS_C1", f"{list(groups.iota.dims)} is no (number of groups, size of a group)"
        )


def _resized(shape: ArrayShape, dimension: int, size: int) -> ArrayShape:
    dims = (*shape.dims[:dimension], size, *shape.dims[dimension + 1 :])
    return ArrayShape(shape.dtype, dims, shape.layout, shape.dynamic)


def _part(site: Site, shape: Shape, number: int, count: int) -> ArrayShape:
    """Result `number` of `count`, which must be an array."""
    if count > 1 and isinstance(shape, TupleShape) and len(shape.elements) == count:
        shape = shape.elements[number]
    if not shape.is_array:
        raise site.error("SHAPE_C1", f"its result is {site.declared!r}, expected an array for each operand")
    return shape  # type: ignore[return-value]


def _gathered(site: Site, result: Shape | None) -> Shape:
    """Operands with the gathered dimension grown as in the declared result, or by the size of a group."""
    shapes = _arrays(site)
    along = site.dimension("dimensions", min(shape.rank for shape in shapes))
    shards = group_size(site)
    whole: list[Shape] = []
    for number, shape in enumerate(shapes):
        size = shape.dims[along]
        if result is not None:
            target = _part(site, result, number, len(shapes))
            have = target.dims[along] if along < target.rank else 0
            _check_growth(site, along, size, have, shards)
        elif shards is None:
            return site.result()
        else:
            have = UNBOUNDED if size == UNBOUNDED else size * shards
        whole.append(_resized(shape, along, have))
    return one_or_tuple(whole)


def _check_growth(site: Site, along: int, size: int, have: int, shards: int | None) -> None:
    if UNBOUNDED in (size, have):
        return
    what = f"dimension {along} grows from {size} to {have}"
    if have < size or (have % size if size else have):
        raise site.error("ALL_GATHER_C1", f"{what}, no whole number of shards")
    if _is_told(shards) and have != size * shards:  # type: ignore[operator]
        raise site.error("ALL_GATHER_C2", f"{what}, but a group has {shards}")


def _is_told(shards: int | None) -> bool:
    """Groups of one device stand for programs whose device counts are not set; XLA checks no sizes then."""
    return shards is not None and shards > 1


def all_gather(site: Site) -> Shape:
    return _gathered(site, site.declared)


def all_gather_start(site: Site) -> Shape:
    """(operand, result), each a tuple where there are several operands; further contexts as declared."""
    declared = site.declared
    parts = declared.elements if isinstance(declared, TupleShape) else ()
    if declared is not None and len(parts) < 2:
        raise site.error("SHAPE_C1", f"its result is {declared!r}, expected (operands, results)")
    whole = _gathered(site, parts[1] if declared is not None else None)
    operands = one_or_tuple(site.shapes)
    return TupleShape((operands, whole, *parts[2:]))


def all_gather_done(site: Site) -> Shape:
    return site.tuple(0, 2).elements[1]


def _check_folding(site: Site, shapes: list[ArrayShape]) -> None:
    """A reducer of two scalars folds each operand by itself; another one folds them all at once."""
    computation = site.get("to_apply")
    apart = len(computation.parameters) == 2
    check_reducer(site, computation, [shape.dtype for shape in (shapes[:1] if apart else shapes)])


def all_reduce(site: Site) -> Shape:
    shapes = _arrays(site)
    _check_folding(site, shapes)
    return one_or_tuple(shapes)


def reduce_scatter(site: Site) -> Shape:
    shapes = _arrays(site)
    along = site.dimension("dimensions", min(shape.rank for shape in shapes))
    _check_folding(site, shapes)
    shards = group_size(site)
    whole: list[Shape] = []
    for number, shape in enumerate(shapes):
        size = shape.dims[along]
        have = _scattered_size(site, number, len(shapes), along, size, shards)
        if UNBOUNDED not in (size, have):
            if have < 1 and size or have and size % have:
                raise site.error(
                    "REDUCE_SCATTER_C1",
                    f"dimension {along} of size {size} is not shared out in parts of {have}",
                )
            if _is_told(shards) and size != have * shards:
                raise site.error(
                    "REDUCE_SCATTER_C2",
                    f"dimension {along} of size {size} in parts of {have}, but a group has {shards}",
                )
        whole.append(_resized(shape, along, have))
    return one_or_tuple(whole)


def _scattered_size(site: Site, number: int, count: int, along: int, size: int, shards: int | None) -> int:
    if site.declared is None:
        if shards is None or size == UNBOUNDED or size % shards:
            site.result()
        return size // shards  # type: ignore[operator]
    target = _part(site, site.declared, number, count)
    return target.dims[along] if along < target.rank else 0


def all_to_all(site: Site) -> Shape:
    """With a dimension, it is split and joined again; without, operand i goes to device i of the group."""
    shapes = _arrays(site)
    shards = group_size(site)
    if site.get("dimensions"):
        along = site.dimension("dimensions", shapes[0].rank)
        if len(shapes) != 1:
            raise site.error(
                "ALL_TO_ALL_C1", f"{len(shapes)} operands, expected 1 where dimensions are given"
            )
        if shards and shapes[0].dims[along] != UNBOUNDED and shapes[0].dims[along] % shards:
            raise site.error(
                "ALL_TO_ALL_C2",
                f"dimension {along} of size {shapes[0].dims[along]} cannot be split into {shards} parts",
            )
        return make_array(shapes[0].dtype, shapes[0].dims, shapes[0].dynamic)
    for number in range(1, len(shapes)):
        site.same_type(number)
        site.same_dims(number)
    if _is_told(shards) and len(shapes) != shards:
        raise site.error(
            "ALL_TO_ALL_C1", f"{len(shapes)} operands, expected one for each of {shards} devices of a group"
        )
    return TupleShape(tuple(shapes))


def ragged_all_to_all(site: Site) -> Shape:
    """Input, output, then input offsets, send sizes, output offsets, receive sizes, all of one shape."""
    site.array(0)
    site.same_type(1)
    for number in range(2, 6):
        shape = site.typed(number, INTEGERS)
        if shape.rank not in (1, 2):
            raise site.error(
                "RAGGED_ALL_TO_ALL_C1", f"{site.name(number)} is {shape!r}, expected rank 1 or 2"
            )
        site.same_type(number, 2)
        site.same_dims(number, 2)
    return site.array(1)


def _permuted(site: Site) -> tuple[Shape, Shape]:
    """(sent, received): one operand is both; four are input, output, and where in them the slices lie."""
    if len(site.shapes) == 4 and site.get("slice_sizes"):
        if site.shapes[0].is_array and site.shapes[1].is_array:
            _check_slices(site)
        return site.shapes[0], site.shapes[1]
    if len(site.shapes) == 1:
        return site.array(0), site.shapes[0]
    whole = one_or_tuple(_arrays(site))  # type: ignore[arg-type]
    return whole, whole


def _check_slices(site: Site) -> None:
    """Slices have a size for each dimension, no larger than input and output, and a number for each to start at."""
    site.same_type(1)
    sent, received = site.array(0), site.array(1)
    for sizes in site.get("slice_sizes"):
        room = [min(pair) for pair in zip(sent.dims, received.dims, strict=False)]
        fits = len(sizes) == sent.rank == received.rank
        if not fits or any(not 0 <= size <= most for size, most in zip(sizes, room, strict=True)):
            message = f"slices of {list(sizes)} from {sent!r} to {received!r}"
            raise site.error("COLLECTIVE_PERMUTE_C1", message)
        for number in (2, 3):
            starts = sum(leaf.count for _, leaf in site.shapes[number].leaves() if leaf.is_array)
            if starts < len(sizes):
                message = f"{site.name(number)} has {starts} starts, expected {len(sizes)}"
                raise site.error("COLLECTIVE_PERMUTE_C2", message)


def collective_permute(site: Site) -> Shape:
    return _permuted(site)[1]


def collective_permute_start(site: Site) -> Shape:
    declared = site.declared
    contexts = declared.elements[2:] if isinstance(declared, TupleShape) else ()
    return TupleShape((*_permuted(site), *contexts))


def collective_permute_done(site: Site) -> Shape:
    return site.tuple(0, 2).elements[1]


def collective_broadcast(site: Site) -> Shape:
    """The operands' shapes; with has_dynamic_root, a last operand s32[1] says who sends."""
    count = len(site.shapes)
    if site.get("has_dynamic_root"):
        count -= 1
        root = site.typed(count, INTEGERS)
        if count < 1 or root.dims not in ((), (1,)):
            raise site.error(
                "COLLECTIVE_ROOT_C1", f"{site.name(count)} is {root!r}, expected the root's number"
            )
    shapes = [site.array(number) for number in range(count)]
    if site.opcode == "collective-reduce":
        _check_folding(site, shapes)
    return one_or_tuple(shapes)
