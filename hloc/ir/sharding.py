"""Shardings: which device holds which part of a value (rows SH01 to SH13 of the language).

Every class is immutable and hashable, and holds XLA's canonical form, which is what the printer writes:
make tiled and named shardings with `tiled_sharding` and `named_sharding`, which canonicalize and check
(ValueError, in words for the reader of the text, for what makes no sharding).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from hloc.ir.attributes import IotaTile, Metadata
from hloc.ir.device_order import ListedTile, Tile, iota_tile, reshape_tile, sort_minor_groups, transpose_tile
from hloc.ir.shapes import Shape
from hloc.records import record, replace

REPLICATED, MANUAL, UNREDUCED, UNKNOWN, MAXIMAL = "replicated", "manual", "unreduced", "unknown", "maximal"

# The order in which XLA sorts the kinds of dimensions that lie behind the data dimensions.
_SUBGROUP_ORDER = (MAXIMAL, MANUAL, UNREDUCED, REPLICATED)


@record
class ShardGroup:
    """` shard_as 1`, ` shard_like 2`: values of one id are to be sharded alike. `kind` is "as" or "like"."""

    kind: str
    id: int


class Sharding:
    """Common ground of the forms below."""

    def for_shape(self, shape: Shape) -> Sharding:
        """One sharding on a tuple shape means the same for each leaf: the tuple that says so."""
        if not shape.is_tuple or isinstance(self, TupleSharding):
            return self
        return TupleSharding(tuple(self for _ in shape.leaves()))


@record
class WholeSharding(Sharding):
    """`{replicated}`, `{manual}`, `{unreduced}`, `{unknown}`: the same word for every device."""

    kind: str
    metadata: tuple[Metadata, ...] = ()
    group: ShardGroup | None = None


@record
class MaximalSharding(Sharding):
    """`{maximal device=3}`: one device holds all."""

    device: int
    metadata: tuple[Metadata, ...] = ()
    group: ShardGroup | None = None


@record
class TiledSharding(Sharding):
    """`{devices=[2,1,2]<=[4] last_tile_dim_replicate}`: an array of devices over the value's dimensions.

    The last `len(subgroups)` dimensions of `tile` are no data dimensions: each entry says what the devices
    along it do. `("replicated",)` is what the text calls last_tile_dim_replicate.
    """

    tile: Tile
    subgroups: tuple[str, ...] = ()
    metadata: tuple[Metadata, ...] = ()
    group: ShardGroup | None = None

    @property
    def data_dims(self) -> tuple[int, ...]:
        """Into how many parts each dimension of the value is cut."""
        return self.tile.dims[: len(self.tile.dims) - len(self.subgroups)]


@record
class AxisRef:
    """`'a'`, or with `sub` = (pre-size, size) the sub-axis `'a':(1)2`."""

    name: str
    sub: tuple[int, int] | None = None


@record
class DimSharding:
    """The axes over which one dimension is cut; an open one (`{'b', ?}`) may be cut further."""

    axes: tuple[AxisRef, ...] = ()
    is_open: bool = False


@record
class Mesh:
    """`mesh['a'=2,'b'=4], device_ids=(...)`, or `maximal_mesh[device_id=3]`.

    `device_ids` is None where ids count up; listed ids are never in counting order.
    """

    axes: tuple[tuple[str, int], ...] = ()
    device_ids: IotaTile | tuple[int, ...] | None = None
    maximal_device: int | None = None

    def size_of(self, axis: AxisRef) -> int:
        return axis.sub[1] if axis.sub else dict(self.axes)[axis.name]


@record
class NamedSharding(Sharding):
    """`{mesh['a'=2,'b'=4], [{'a'}, {'b', ?}], replicated={...}, unreduced={...}, manual={...}}`.

    No dimensions at all and no axes is the text's `replicated`; no dimensions and all axes of the mesh
    manual (unreduced) its `manual` (`unreduced`).
    """

    mesh: Mesh
    dims: tuple[DimSharding, ...] = ()
    replicated: tuple[AxisRef, ...] = ()
    unreduced: tuple[AxisRef, ...] = ()
    manual: tuple[AxisRef, ...] = ()
    metadata: tuple[Metadata, ...] = ()


@record
class TupleSharding(Sharding):
    """`{{replicated}, {maximal device=0}}`: one sharding for each leaf of a tuple shape, depth first."""

    elements: tuple[Sharding, ...] = ()


@record
class Domain:
    """`domain={kind="sharding", entry={...}, exit={...}}`: the shardings on the two sides of a border."""

    kind: str
    entry: Sharding
    exit: Sharding


def tiled_sharding(
    dims: Sequence[int],
    *,
    ids: Sequence[int] | None = None,
    reshape_dims: Sequence[int] | None = None,
    permutation: Sequence[int] | None = None,
    subgroups: Sequence[str] = (),
    metadata: tuple[Metadata, ...] = (),
    group: ShardGroup | None = None,
) -> Sharding:
    """`{devices=[dims]ids}` or `{devices=[dims]<=[reshape_dims]T(permutation)}`, canonical.

    `subgroups` are the words of last_tile_dims, or ("replicated",) for last_tile_dim_replicate. Subgroup
    dimensions of size 1 are dropped, those of one kind joined, kinds sorted; devices that hold copies are
    listed in ascending order; what is left with no cut becomes a WholeSharding.
    """
    if len(subgroups) > len(dims):
        raise ValueError(f"{len(subgroups)} last tile dims of {len(dims)} dimensions")
    if ids is None:
        tile: Tile = iota_tile(dims, reshape_dims, permutation)
    elif len(ids) != prod(dims):
        raise ValueError(f"[{','.join(map(str, dims))}] takes {prod(dims)} device ids, not {len(ids)}")
    elif len(ids) == 1:
        raise ValueError("a tiled sharding has more than one device")
    else:
        tile = ListedTile(tuple(dims), tuple(ids))
    return replace(_with_subgroups(tile, tuple(subgroups)), metadata=metadata, group=group)


def _with_subgroups(tile: Tile, subgroups: tuple[str, ...]) -> Sharding:
    if not subgroups:
        return TiledSharding(tile)
    rank = len(tile.dims) - len(subgroups)
    kinds = dict.fromkeys(subgroups)
    uncut = prod(tile.dims[:rank]) == 1
    if len(kinds) == 1 and uncut and subgroups[0] in (MANUAL, REPLICATED, UNREDUCED):
        return WholeSharding(subgroups[0])
    if subgroups == (REPLICATED,):
        return _partly_replicated(tile)
    dims_of = {kind: [] for kind in _SUBGROUP_ORDER}
    for dim, kind in enumerate(subgroups, rank):
        if tile.dims[dim] != 1:
            dims_of[kind].append(dim)
    merged = tuple(kind for kind in _SUBGROUP_ORDER if dims_of[kind])
    sizes = [prod(tile.dims[dim] for dim in dims_of[kind]) for kind in merged]
    order = [*range(rank), *(dim for kind in merged for dim in dims_of[kind])]
    order += [dim for dim in range(rank, len(tile.dims)) if tile.dims[dim] == 1]
    tile = reshape_tile(transpose_tile(tile, order), (*tile.dims[:rank], *sizes))
    if merged == (REPLICATED,):
        return _partly_replicated(tile)
    if merged == (MANUAL,) and uncut:
        return WholeSharding(MANUAL)
    if merged and merged[-1] == REPLICATED:
        tile = sort_minor_groups(tile)
    return TiledSharding(tile, merged)


def _partly_replicated(tile: Tile) -> Sharding:
    copies = tile.dims[-1]
    if copies == prod(tile.dims):
        return WholeSharding(REPLICATED)
    if copies == 1:
        return TiledSharding(reshape_tile(tile, tile.dims[:-1]))
    return TiledSharding(sort_minor_groups(tile), (REPLICATED,))


def mesh_of(axes: Sequence[tuple[str, int]], device_ids: IotaTile | Sequence[int] | None = None) -> Mesh:
    """A mesh of (name, size) axes; ValueError for axes or device ids that make none."""
    names = [name for name, _ in axes]
    if len(dict.fromkeys(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the mesh has two axes '{twice}'")
    count = prod(size for _, size in axes)
    if isinstance(device_ids, IotaTile):
        tile = iota_tile([size for _, size in axes], device_ids.reshape_dims, device_ids.permutation)
        return Mesh(tuple(axes), None if len(tile.reshape_dims) == 1 else tile)
    if device_ids is None:
        return Mesh(tuple(axes))
    ids = tuple(device_ids)
    if sorted(ids) != list(range(count)):
        raise ValueError(f"device_ids must be a permutation of 0 to {count - 1}")
    if ids == tuple(range(count)):
        raise ValueError("device_ids that count up are left out")
    return Mesh(tuple(axes), ids)


def named_sharding(
    mesh: Mesh,
    dims: Sequence[DimSharding] = (),
    *,
    replicated: Sequence[AxisRef] = (),
    unreduced: Sequence[AxisRef] = (),
    manual: Sequence[AxisRef] = (),
    metadata: tuple[Metadata, ...] = (),
) -> NamedSharding:
    """A sharding over named axes, checked: they are the mesh's, do not overlap, are not cut needlessly."""
    words = {REPLICATED: tuple(replicated), UNREDUCED: tuple(unreduced), MANUAL: tuple(manual)}
    used: list[AxisRef] = []
    for axes in (*(dim.axes for dim in dims), *words.values()):
        for axis in axes:
            _check_axis(axis, mesh)
            if any(_overlap(axis, other) for other in used):
                raise ValueError(f"axis '{axis.name}' is used twice")
            used.append(axis)
        _check_neighbours(axes)
    names = [name for name, _ in mesh.axes]
    for word, axes in words.items():
        places = [(names.index(axis.name), axis.sub or (1, 0)) for axis in axes]
        if places != sorted(places):
            raise ValueError(f"{word} axes are to be in the order of the mesh")
    return NamedSharding(mesh, tuple(dims), **words, metadata=metadata)


def _check_neighbours(axes: Sequence[AxisRef]) -> None:
    for left, right in zip(axes, axes[1:], strict=False):
        if left.name == right.name and left.sub and right.sub and left.sub[0] * left.sub[1] == right.sub[0]:
            raise ValueError(f"neighbouring parts of axis '{left.name}' are to be written as one")


def _check_axis(axis: AxisRef, mesh: Mesh) -> None:
    size = dict(mesh.axes).get(axis.name)
    if size is None:
        known = ", ".join(f"'{name}'" for name, _ in mesh.axes) or "none"
        raise ValueError(f"the mesh has no axis '{axis.name}' (its axes: {known})")
    if axis.sub is None:
        return
    before, part = axis.sub
    if before < 1 or part < 2 or part >= size or size % (before * part):
        raise ValueError(f"axis '{axis.name}' of size {size} has no part :({before}){part}")


def _overlap(a: AxisRef, b: AxisRef) -> bool:
    if a.name != b.name:
        return False
    if a.sub is None or b.sub is None:
        return True
    if a.sub[0] * a.sub[1] > b.sub[0] and b.sub[0] * b.sub[1] > a.sub[0]:
        return True
    low, high = sorted((a.sub, b.sub))
    return high[0] % (low[0] * low[1]) != 0


def whole_named(mesh: Mesh, kind: str, metadata: tuple[Metadata, ...] = ()) -> NamedSharding:
    """`{mesh[...], replicated|manual|unreduced}`."""
    axes = tuple(AxisRef(name) for name, _ in mesh.axes)
    if kind == REPLICATED:
        return NamedSharding(mesh, metadata=metadata)
    if not axes:
        raise ValueError(f"a mesh with no axes cannot be {kind}")
    return replace(NamedSharding(mesh, metadata=metadata), **{kind: axes})
