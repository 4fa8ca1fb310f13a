"""Shardings as text."""

from __future__ import annotations

from hloc.ir.attributes import IotaTile, MeshAxes, Metadata
from hloc.ir.device_order import Tile
from hloc.ir.sharding import (
    MANUAL,
    REPLICATED,
    UNREDUCED,
    AxisRef,
    DimSharding,
    MaximalSharding,
    Mesh,
    NamedSharding,
    Sharding,
    TiledSharding,
    TupleSharding,
    WholeSharding,
    whole_named,
)
from hloc.text.print_metadata import metadata_fields
from hloc.text.print_shapes import join_numbered


def print_sharding(sharding: Sharding, metadata: bool = True) -> str:
    """`{devices=[2,1]<=[2]}`; `metadata` says whether that of the sharding is shown."""
    if isinstance(sharding, TupleSharding):
        return f"{{{join_numbered([print_sharding(element, metadata) for element in sharding.elements])}}}"
    if isinstance(sharding, NamedSharding):
        return f"{{{_named(sharding)}{_named_metadata(sharding) if metadata else ''}}}"
    group = f" shard_{sharding.group.kind} {sharding.group.id}" if sharding.group else ""
    notes = _metadata(sharding.metadata) if metadata else ""
    return f"{{{_kind(sharding)}{group}{notes}}}"


def _kind(sharding: WholeSharding | MaximalSharding | TiledSharding) -> str:
    if isinstance(sharding, WholeSharding):
        return sharding.kind
    if isinstance(sharding, MaximalSharding):
        return f"maximal device={sharding.device}"
    devices = f"devices=[{_join(sharding.tile.dims)}]{print_order(sharding.tile)}"
    if sharding.subgroups == (REPLICATED,):
        return f"{devices} last_tile_dim_replicate"
    return f"{devices} last_tile_dims={{{', '.join(sharding.subgroups)}}}" if sharding.subgroups else devices


def _join(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def print_order(tile: Tile) -> str:
    """What follows the dimensions of a device array: `<=[4,2]T(1,0)`, or the ids."""
    if not isinstance(tile, IotaTile):
        return _join(tile.ids)
    return "<=" + _iota(tile)


def _iota(tile: IotaTile) -> str:
    order = f"T({_join(tile.permutation)})" if len(tile.reshape_dims) > 1 else ""
    return f"[{_join(tile.reshape_dims)}]{order}"


def _metadata(metadata: tuple[Metadata, ...]) -> str:
    texts = list(map(metadata_fields, metadata))
    if len(texts) > 1:
        texts = [f"{{{text}}}" for text in texts]
    return f" metadata={{{', '.join(texts)}}}" if texts else ""


def _named_metadata(sharding: NamedSharding) -> str:
    texts = (f"{{{metadata_fields(metadata)}}}" for metadata in sharding.metadata)
    return f", metadata={{{', '.join(texts)}}}" if sharding.metadata else ""


def _named(sharding: NamedSharding) -> str:
    mesh = sharding.mesh
    if mesh.maximal_device is not None:
        return print_mesh(mesh)
    for word in (REPLICATED, UNREDUCED, MANUAL):
        if (mesh.axes or word == REPLICATED) and sharding == whole_named(mesh, word, sharding.metadata):
            return f"{print_mesh(mesh)}, {word}"
    text = f"{print_mesh(mesh)}, [{', '.join(map(_dim, sharding.dims))}]"
    for word in (REPLICATED, UNREDUCED, MANUAL):
        axes = getattr(sharding, word)
        if axes:
            text += f", {word}={print_axes(axes)}"
    return text


def print_mesh(mesh: Mesh) -> str:
    """`mesh['a'=2,'b'=4], device_ids=(0,2,1,3)`."""
    if mesh.maximal_device is not None:
        return f"maximal_mesh[device_id={mesh.maximal_device}]"
    axes = ",".join(f"'{name}'={size}" for name, size in mesh.axes)
    if mesh.device_ids is None:
        return f"mesh[{axes}]"
    ids = _iota(mesh.device_ids) if isinstance(mesh.device_ids, IotaTile) else _join(mesh.device_ids)
    return f"mesh[{axes}], device_ids=({ids})"


def print_axes(axes: tuple[AxisRef, ...]) -> str:
    return f"{{{', '.join(map(_axis, axes))}}}"


def print_mesh_axes(groups: MeshAxes) -> str:
    """`mesh['a'=2,'b'=4] {'a'}`: device groups over axes of a mesh."""
    mesh = Mesh(groups.mesh, groups.device_ids)
    return f"{print_mesh(mesh)} {{{','.join(_axis(AxisRef(*axis)) for axis in groups.axes)}}}"


def _axis(axis: AxisRef) -> str:
    return f"'{axis.name}'" + (f":({axis.sub[0]}){axis.sub[1]}" if axis.sub else "")


def _dim(dim: DimSharding) -> str:
    return f"{{{', '.join([*map(_axis, dim.axes), *(['?'] if dim.is_open else [])])}}}"
