"""What the verifier asks of ops among devices: groups, pairs, channels, shardings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod

from hloc.errors import HloError
from hloc.ir.attributes import ReplicaGroups
from hloc.ir.device_order import ListedTile
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.opcodes import OPS
from hloc.ir.shape_rules.collectives import check_groups_form
from hloc.ir.shape_rules.common import Site
from hloc.ir.shapes import Shape, TupleShape
from hloc.ir.sharding import MaximalSharding, NamedSharding, Sharding, TiledSharding, TupleSharding

_GROUPED = frozenset(op.name for op in OPS.values() if "replica_groups" in op.attributes)
_PAIRED = frozenset(op.name for op in OPS.values() if "source_target_pairs" in op.attributes)
# XLA lets groups of an all-reduce differ in size, and a broadcast leave devices out.
_UNEVEN = frozenset({"all-reduce", "all-reduce-start"})
_PARTIAL = frozenset({"collective-broadcast", "collective-reduce"})


def device_faults(module: Module, instructions: Sequence[Instruction]) -> Iterator[HloError]:
    for instruction in instructions:
        if instruction.opcode in _GROUPED:
            yield from _group_faults(instruction, module)
        elif instruction.opcode in _PAIRED:
            yield from _pair_faults(instruction, module)
        if "sharding" in instruction.annotations:
            sharding = instruction.annotations["sharding"]
            yield from _sharding_faults(instruction, sharding, instruction.shape, module)


def _fault(instruction: Instruction, message: str, label: str) -> HloError:
    return HloError(f"{instruction.opcode}: {message}", instruction.span, label=label)


def _expected_devices(instruction: Instruction, module: Module) -> tuple[str, int]:
    """What the ids of the groups number, and how many there are (1: not told)."""
    replicas, partitions = module.replica_count, module.num_partitions
    if instruction.get("channel_id") is None:
        return "replicas", replicas
    if "use_global_device_ids" not in instruction.op.attributes:
        return "partitions", partitions
    return (
        ("devices", replicas * partitions)
        if instruction.get("use_global_device_ids")
        else ("replicas", replicas)
    )


def _group_faults(instruction: Instruction, module: Module) -> Iterator[HloError]:
    groups: ReplicaGroups = instruction.get("replica_groups") or ReplicaGroups()
    is_global = instruction.get("use_global_device_ids")
    if is_global and instruction.get("channel_id") is None:
        yield _fault(instruction, "use_global_device_ids=true needs a channel_id", "REPLICA_GROUPS_C6")
    try:
        check_groups_form(Site(instruction.opcode, (), instruction.attributes), groups)
    except HloError as fault:
        fault.span = instruction.span
        yield fault
        return
    if not groups.listed and groups.iota is None and groups.mesh is None:
        if is_global:
            yield _fault(instruction, "use_global_device_ids=true needs replica_groups", "REPLICA_GROUPS_C6")
        return
    kind, expected = _expected_devices(instruction, module)
    if groups.listed:
        yield from _listed_faults(instruction, groups.listed, kind)
    count = _device_count(groups)
    if instruction.opcode not in _PARTIAL and expected != 1 and count != expected:
        yield _fault(
            instruction,
            f"replica_groups name {count} {kind}, but the module has {expected}",
            "REPLICA_GROUPS_C5",
        )


def _device_count(groups: ReplicaGroups) -> int:
    if groups.iota is not None:
        return prod(groups.iota.dims)
    if groups.mesh is not None:
        return prod(size for _, size in groups.mesh.mesh)
    return sum(map(len, groups.listed))


def _listed_faults(
    instruction: Instruction, listed: Sequence[Sequence[int]], kind: str
) -> Iterator[HloError]:
    ids = Counter(device for group in listed for device in group)
    if not all(listed):
        yield _fault(instruction, "replica_groups has an empty group", "REPLICA_GROUPS_C2")
    twice = [device for device, count in ids.items() if count > 1]
    if twice:
        yield _fault(instruction, f"replica_groups name {twice[0]} twice", "REPLICA_GROUPS_C3")
    elif instruction.opcode not in _PARTIAL:
        absent = next((device for device in range(len(ids)) if device not in ids), None)
        if absent is not None:
            message = f"replica_groups name {len(ids)} {kind}, but not {absent}"
            yield _fault(instruction, message, "REPLICA_GROUPS_C4")
    if instruction.opcode not in _UNEVEN and len(set(map(len, listed))) > 1:
        yield _fault(instruction, "replica_groups differ in size", "REPLICA_GROUPS_C7")


def _pair_faults(instruction: Instruction, module: Module) -> Iterator[HloError]:
    pairs = instruction.get("source_target_pairs") or ()
    if any(len(pair) != 2 for pair in pairs):
        yield _fault(instruction, "source_target_pairs has an entry that is no pair", "SOURCE_TARGET_C1")
        return
    has_channel = instruction.get("channel_id") is not None
    limit = module.num_partitions if has_channel else module.replica_count
    allowed = _slices(instruction)
    for side, name in enumerate(("source", "target")):
        counts = Counter(pair[side] for pair in pairs)
        for device, count in counts.items():
            if device < 0 or device >= limit > 1:
                yield _fault(instruction, f"{name} {device} is no device of {limit}", "SOURCE_TARGET_C2")
            if count > allowed:
                message = f"{name} {device} is in {count} pairs, expected at most {allowed}"
                yield _fault(instruction, message, "SOURCE_TARGET_C3")


def _slices(instruction: Instruction) -> int:
    """How often a device may send: once, or in place once for each slice."""
    if not instruction.get("slice_sizes") or len(instruction.operands) != 4:
        return 1
    offsets = instruction.operands[2].shape
    while isinstance(offsets, TupleShape) and offsets.elements and offsets.elements[0].is_tuple:
        if len(offsets.elements) > 1:
            return len(offsets.elements)
        offsets = offsets.elements[0]
    return max(1, len(offsets.elements) if isinstance(offsets, TupleShape) else 1)


def _sharding_faults(
    instruction: Instruction, sharding: Sharding, shape: Shape, module: Module
) -> Iterator[HloError]:
    if isinstance(sharding, TupleSharding):
        leaves = [leaf for _, leaf in shape.leaves()]
        if len(sharding.elements) == len(leaves):
            for element, leaf in zip(sharding.elements, leaves, strict=True):
                yield from _sharding_faults(instruction, element, leaf, module)
        elif leaves and shape.is_tuple:
            message = f"sharding has {len(sharding.elements)} entries, but {shape!r} has {len(leaves)} leaves"
            yield _fault(instruction, message, "SHARDING_C1")
        return
    if not shape.is_tuple:
        yield from _rank_faults(instruction, sharding, shape)
    yield from _sharded_device_faults(instruction, sharding, module)


def _rank_faults(instruction: Instruction, sharding: Sharding, shape: Shape) -> Iterator[HloError]:
    rank = len(shape.dims) if shape.is_array else 0  # type: ignore[attr-defined]
    if isinstance(sharding, TiledSharding):
        cut = len(sharding.data_dims)
        fits = cut == rank
    else:
        cut = len(sharding.dims) if isinstance(sharding, NamedSharding) else 0
        fits = cut <= rank
    if not fits:
        yield _fault(instruction, f"sharding cuts {cut} dimensions of {shape!r}", "SHARDING_C2")


def _sharded_device_faults(
    instruction: Instruction, sharding: Sharding, module: Module
) -> Iterator[HloError]:
    """Device ids are distinct and, where the module says how many there are, below their number."""
    ids: Sequence[int] = ()
    if isinstance(sharding, MaximalSharding):
        ids = (sharding.device,)
    elif isinstance(sharding, TiledSharding):
        ids = sharding.tile.ids if isinstance(sharding.tile, ListedTile) else (prod(sharding.tile.dims) - 1,)
    elif isinstance(sharding, NamedSharding) and sharding.mesh.axes:
        listed = sharding.mesh.device_ids
        ids = (
            listed
            if isinstance(listed, tuple) and listed
            else (prod(size for _, size in sharding.mesh.axes) - 1,)
        )
    if len(set(ids)) != len(ids):
        yield _fault(instruction, "sharding names a device twice", "SHARDING_C3")
    limit = module.replica_count * module.num_partitions
    if ids and (min(ids) < 0 or max(ids) >= limit > 1):
        yield _fault(instruction, f"sharding names device {max(ids)} of {limit}", "SHARDING_C4")
