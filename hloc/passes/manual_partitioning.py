"""Makes a module written for all devices together one that each device runs."""

from __future__ import annotations

import numpy as np

from hloc.errors import HloError
from hloc.ir.attributes import Raw, ReplicaGroups
from hloc.ir.dtypes import S32, U32
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.module import Module
from hloc.ir.shapes import array
from hloc.passes.emit import Emit, replace
from hloc.passes.sdy import Mesh, ValueSharding, read_manual_axes, read_meshes, read_shardings

_INTO, _OUT = "xla.sdy.GlobalToLocalShape", "xla.sdy.LocalToGlobalShape"


def run(module: Module) -> bool:
    """Replaces the borders of JAX's manual regions (shard_map) by slices and all-gathers.

    Outside of a manual region every device holds whole values, all devices the same: it takes its own shard,
    by its partition number, on the way in, and the shards are gathered on the way out. Axes of the mesh that
    are not manual do not cut anything. `num_partitions` becomes the size of the mesh.

    Requires: `xla.sdy.meshes` in the module's frontend attributes if there is a manual region, else HloError.
    Ensures: no custom call of the two border targets.
    Leaves: tuples around several values, for tuple_simplifier.
    """
    borders = [i for i in module.instructions() if _target(i) in (_INTO, _OUT)]
    if not borders:
        return False
    meshes = _meshes(module, borders[0])
    channel = 1 + max((i.get("channel_id") or 0 for i in module.instructions()), default=0)
    for border in borders:
        shardings = _shardings(border, meshes)
        module.num_partitions = _partitions(module, border, shardings)
        into = _target(border) == _INTO
        values = []
        for operand, shape, sharding in zip(border.operands, _shapes(border), shardings, strict=True):
            emit = Emit.at(border)
            if into:
                values.append(_shard(emit, border, operand, shape, sharding))
            else:
                value = _gathered(emit, operand, sharding, channel)
                channel += len(shape.dims)
                values.append(_checked(border, value, shape))
        replace(border, Emit.at(border).tuple(values) if border.shape.is_tuple else values[0])
    return True


def _target(instruction: Instruction) -> str | None:
    return instruction.attributes.get("custom_call_target") if instruction.opcode == "custom-call" else None


def _frontend(annotations: dict, key: str) -> str | None:
    for name, value in annotations.get("frontend_attributes", ()):
        if name == key:
            return value.text if isinstance(value, Raw) else value
    return None


def _meshes(module: Module, border: Instruction) -> dict[str, Mesh]:
    text = _frontend(module.attributes, "xla.sdy.meshes")
    if text is None:
        raise HloError(
            f"{_target(border)} needs xla.sdy.meshes in the module's frontend_attributes", border.span
        )
    return read_meshes(text, border.span)


def _shardings(border: Instruction, meshes: dict[str, Mesh]) -> list[ValueSharding]:
    key = "xla.sdy.in_shardings" if _target(border) == _INTO else "xla.sdy.out_shardings"
    text = _frontend(border.annotations, key)
    manual = _frontend(border.annotations, "xla.sdy.manual_axes")
    if text is None or manual is None:
        raise HloError(f"{_target(border)} needs {key} and xla.sdy.manual_axes", border.span)
    shardings = read_shardings(text, meshes, read_manual_axes(manual, border.span), border.span)
    if len(shardings) != len(border.operands) or len(shardings) != len(_shapes(border)):
        raise HloError(f"{key} tells of {len(shardings)} values, not {len(border.operands)}", border.span)
    for shape, sharding in zip(_shapes(border), shardings, strict=True):
        if len(sharding.dims) != shape.rank:
            raise HloError(f"{key}: a sharding of {len(sharding.dims)} dimensions for {shape!r}", border.span)
    return shardings


def _shapes(border: Instruction) -> tuple:
    return border.shape.elements if border.shape.is_tuple else (border.shape,)


def _partitions(module: Module, border: Instruction, shardings: list[ValueSharding]) -> int:
    sizes = {sharding.mesh.size for sharding in shardings}
    if module.num_partitions > 1:
        sizes.add(module.num_partitions)
    if len(sizes) > 1:
        raise HloError(f"meshes of different sizes: {sorted(sizes)}", border.span)
    return sizes.pop() if sizes else module.num_partitions


def _shard(
    emit: Emit, border: Instruction, value: Instruction, shape, sharding: ValueSharding
) -> Instruction:
    """The part of a whole value that belongs to the device that runs."""
    starts = []
    for dimension, (whole, part) in enumerate(zip(value.shape.dims, shape.dims, strict=True)):
        if whole != part * sharding.shards(dimension):
            shards = sharding.shards(dimension)
            raise HloError(
                f"dimension {dimension} of {value.shape!r} in {shards} shards is not {part}", border.span
            )
        starts.append(_start(emit, sharding, dimension, part))
    if value.shape.dims == shape.dims:
        return value
    return emit.dynamic_slice(value, starts, shape.dims)


def _start(emit: Emit, sharding: ValueSharding, dimension: int, part: int) -> Instruction:
    """Where the device's shard begins: looked up in a table by its partition number."""
    mesh = sharding.mesh
    if sharding.shards(dimension) == 1:
        return emit.scalar(0, S32)
    table = np.zeros(mesh.size, np.int32)
    for position, device in enumerate(mesh.devices):
        table[device] = sharding.shard_of(dimension, position) * part
    device = emit.convert(emit.op("partition-id", array(U32)), S32)
    entry = emit.dynamic_slice(emit.literal(Literal.of(table)), [device], (1,))
    return emit.reshape(entry, ())


def _gathered(emit: Emit, value: Instruction, sharding: ValueSharding, channel: int) -> Instruction:
    """The whole value, from all devices' shards."""
    for dimension in range(value.shape.rank):
        shards = sharding.shards(dimension)
        if shards == 1:
            continue
        dims = [size * shards if d == dimension else size for d, size in enumerate(value.shape.dims)]
        value = emit.op(
            "all-gather",
            array(value.shape.dtype, *dims),
            (value,),
            replica_groups=ReplicaGroups(sharding.groups(dimension)),
            channel_id=channel + dimension,
            use_global_device_ids=True,
            dimensions=(dimension,),
        )
    return value


def _checked(border: Instruction, value: Instruction, shape) -> Instruction:
    if value.shape.dims != shape.dims:
        raise HloError(f"the shards make {value.shape!r}, not {shape!r}", border.span)
    return value
