"""Communication: which devices take part together, and what each of them gets.

A device yields an Exchange and waits; when all members of its group have come to the same meeting, `RESULTS`
tells what each one takes away.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.reference.context import Context, Device, Exchange
from hloc.reference.reducers import as_list
from hloc.reference.values import Value, zeros

# Opcodes whose groups are lists of replicas or of partitions by channel alone: they have no
# use_global_device_ids.
_BY_CHANNEL = (
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-permute-start",
    "collective-broadcast",
)


def group_mode(instruction: Instruction) -> str:
    """How ids in groups are to be read: "replica", "partition", "both" or "global".

    Without a channel they are replicas, within each partition. With one: flattened device numbers if
    use_global_device_ids, else partitions within each replica for the ops that never have that attribute, and
    replicas with all of their partitions for those that might.
    """
    has_channel = instruction.get("channel_id") is not None
    if instruction.get("use_global_device_ids"):
        if not has_channel:
            raise HloError("use_global_device_ids needs a channel_id", instruction.span)
        return "global"
    if not has_channel:
        return "replica"
    return "partition" if instruction.opcode in _BY_CHANNEL else "both"


def expand(ids: tuple[int, ...] | None, mode: str, device: Device) -> tuple[int, ...]:
    """Flattened device numbers of a group of ids, seen from one device; None stands for all ids."""
    replicas, partitions = device.replicas, device.partitions
    if mode == "global":
        return tuple(range(replicas * partitions)) if ids is None else ids
    if mode == "partition":
        return tuple(device.replica * partitions + p for p in (range(partitions) if ids is None else ids))
    chosen = range(replicas) if ids is None else ids
    if mode == "replica":
        return tuple(r * partitions + device.partition for r in chosen)
    return tuple(r * partitions + p for r in chosen for p in range(partitions))


def members_of(instruction: Instruction, device: Device) -> tuple[int, ...]:
    """The group that this device is in, as flattened device numbers in order."""
    mode, groups = group_mode(instruction), instruction.get("replica_groups")
    listed = groups.groups() if groups is not None else ()
    if not listed:
        return expand(None, mode, device)
    for ids in listed:
        members = expand(tuple(ids), mode, device)
        if device.number in members:
            return members
    raise HloError(f"device {device.number} is in none of the groups", instruction.span)


def check_parts(instruction: Instruction, count: int) -> None:
    """HloError if the shapes of an op are not made for a group of `count` devices.

    The verifier lets it be where groups have one device or are not listed: the counts of devices may not be set yet.
    """
    wrong = _wrong_parts(instruction, count)
    if wrong is not None:
        devices = "1 device" if count == 1 else f"{count} devices"
        hint = "replica_count and num_partitions of the module give the number of devices"
        raise HloError(f"{instruction.opcode}: {wrong} in a group of {devices}", instruction.span, hint=hint)


def _wrong_parts(instruction: Instruction, count: int) -> str | None:
    opcode, operands = instruction.opcode, instruction.operands
    if opcode == "all-to-all" and not instruction.get("dimensions"):
        return None if len(operands) == count else f"{len(operands)} operands"
    if opcode == "all-to-all":
        size = operands[0].shape.dims[instruction.get("dimensions")[0]]
        return f"{size} rows to share out" if size % count else None
    if opcode not in ("all-gather", "all-gather-start", "reduce-scatter"):
        return None
    (axis,) = instruction.get("dimensions")
    shape = instruction.shape.elements[1] if opcode == "all-gather-start" else instruction.shape
    for operand, result in zip(operands, shape.elements if shape.is_tuple else (shape,), strict=True):
        before, after = operand.shape.dims[axis], result.dims[axis]
        part, whole = (after, before) if opcode == "reduce-scatter" else (before, after)
        if part * count != whole:
            return f"dimension {axis} goes from {before} to {after}"
    return None


def exchange(
    instruction: Instruction, operands: list[Value], context: Context
) -> Generator[Exchange, Value, Value]:
    if instruction.opcode.startswith("collective-permute"):
        members = _permuted_members(instruction, context.device)
    else:
        members = members_of(instruction, context.device)
        check_parts(instruction, len(members))
    channel = instruction.get("channel_id")
    meeting = (
        ("channel", channel, instruction.opcode) if channel is not None else ("instruction", instruction.id)
    )
    return (yield Exchange(instruction, operands, members, meeting))


def _permuted_members(instruction: Instruction, device: Device) -> tuple[int, ...]:
    """All devices that pairs may name: those that no pair names come too, to get their zeros."""
    return expand(None, group_mode(instruction), device)


Operands = list[list[Value]]


def all_reduce(instruction: Instruction, operands: Operands, context: Context) -> list[Value]:
    total = _folded(instruction, operands, context)
    return [_packed(instruction, total)] * len(operands)


def _folded(instruction: Instruction, operands: Operands, context: Context) -> list[Value]:
    """Every operand folded over the members, in order of the group."""
    folded = []
    for each in zip(*operands):
        total = each[0]
        for value in each[1:]:
            (total,) = as_list(context.lift(instruction.get("to_apply"), [total, value]))
        folded.append(total)
    return folded


def _packed(instruction: Instruction, results: list[Value]) -> Value:
    return tuple(results) if len(results) > 1 or instruction.shape.is_tuple else results[0]


def reduce_scatter(instruction: Instruction, operands: Operands, context: Context) -> list[Value]:
    axis, count = instruction.get("dimensions")[0], len(operands)
    parts = [np.split(total, count, axis=axis) for total in _folded(instruction, operands, context)]
    return [_packed(instruction, [part[i] for part in parts]) for i in range(count)]


def all_gather(instruction: Instruction, operands: Operands, context: Context) -> list[Value]:
    axis = instruction.get("dimensions")[0]
    joined = [np.concatenate(each, axis=axis) for each in zip(*operands)]
    if not instruction.opcode.endswith("-start"):
        return [_packed(instruction, joined)] * len(operands)
    return [_started(own, joined) for own in operands]


def _started(own: list[Value], results: list[Value]) -> tuple:
    """What a start op gives: (operands, results), without a tuple around a single one."""
    return (own[0], results[0]) if len(own) == 1 else (tuple(own), tuple(results))


def all_to_all(instruction: Instruction, operands: Operands, context: Context) -> list[Value]:
    """Member i gets part i of everybody: parts along a dimension of one operand, or operands themselves."""
    dimensions = instruction.get("dimensions")
    count = len(operands)
    if dimensions:
        axis = dimensions[0]
        parts = [np.split(own[0], count, axis=axis) for own in operands]
        joined = [np.concatenate([parts[j][i] for j in range(count)], axis=axis) for i in range(count)]
        return [(one,) for one in joined] if instruction.shape.is_tuple else joined
    return [_packed(instruction, [operands[j][i] for j in range(count)]) for i in range(count)]


def ragged_all_to_all(instruction: Instruction, operands: Operands, context: Context) -> list[Value]:
    """Rows of the input from each member go where the sender says, over a copy of the output operand.

    Offsets and sizes have an entry for every member (or several, in turn): what member i sends to member j
    starts at input_offsets[j], is send_sizes[j] long, and lands at output_offsets[j] of the receiver.
    """
    count = len(operands)
    results = [np.array(own[1]) for own in operands]
    for data, _, input_offsets, send_sizes, output_offsets, _ in operands:
        updates = len(send_sizes) // count
        for entry, (start, size, place) in enumerate(zip(input_offsets, send_sizes, output_offsets)):
            target = results[entry // max(1, updates)]
            target[int(place) : int(place) + int(size)] = data[int(start) : int(start) + int(size)]
    return list(results)


def collective_permute(instruction: Instruction, operands: Operands, context: Context) -> list[Value]:
    """Targets get their source's operands; a device that is no target gets zeros.

    With slice_sizes, targets get slices into a copy of their output operand, and others keep theirs.
    """
    sources = _sources(instruction, len(operands))
    if instruction.get("slice_sizes"):
        received = [_permuted_slices(instruction, operands, i, sources.get(i)) for i in range(len(operands))]
    else:
        received = [
            list(operands[sources[i]]) if i in sources else [np.zeros_like(x) for x in operands[i]]
            for i in range(len(operands))
        ]
    if not instruction.opcode.endswith("-start"):
        return [_packed(instruction, values) for values in received]
    contexts = instruction.shape.elements[2:]
    return [
        (*_started(own[: len(values)], values), *(zeros(shape) for shape in contexts))
        for own, values in zip(operands, received)
    ]


def _sources(instruction: Instruction, count: int) -> dict[int, int]:
    """Target to source, as places in the group; pairs beyond the devices there are, are an error."""
    pairs = instruction.get("source_target_pairs")
    if any(not 0 <= i < count for pair in pairs for i in pair):
        raise HloError(
            f"source_target_pairs name a device beyond the {count} that there are", instruction.span
        )
    return {target: source for source, target in pairs}


def _permuted_slices(
    instruction: Instruction, operands: Operands, target: int, source: int | None
) -> list[Value]:
    """The form of (input, output, input offsets, output offsets), for one target."""
    _, output, _, places = operands[target]
    if isinstance(output, tuple):
        raise HloError(f"a {instruction.opcode} of slices of several arrays is not supported", instruction.span)
    result = np.array(output)
    if source is not None:
        data, _, starts, _ = operands[source]
        for row, sizes in enumerate(instruction.get("slice_sizes")):
            taken = data[_window(starts, row, sizes, data.shape)]
            result[_window(places, row, sizes, result.shape)] = taken
    return [result]


def _window(starts: Value, row: int, sizes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    if isinstance(starts, tuple):
        parts = starts[row] if starts and isinstance(starts[0], tuple) else starts
        first = [int(part) for part in parts]
    else:
        first = [int(part) for part in np.asarray(starts).reshape(-1)]
    clamped = [min(max(start, 0), whole - size) for start, size, whole in zip(first, sizes, shape)]
    return tuple(slice(start, start + size) for start, size in zip(clamped, sizes))


def collective_broadcast(instruction: Instruction, operands: Operands, context: Context) -> list[Value]:
    """The operands of the group's first member, or of the one that the last operand names."""
    root, given = _root(instruction, operands)
    return [_packed(instruction, given[root])] * len(operands)


def _root(instruction: Instruction, operands: Operands) -> tuple[int, Operands]:
    if not instruction.get("has_dynamic_root"):
        return 0, operands
    root = int(np.asarray(operands[0][-1]).reshape(-1)[0])
    if not 0 <= root < len(operands):
        raise HloError(f"the root {root} is not in a group of {len(operands)}", instruction.span)
    return root, [own[:-1] for own in operands]


def collective_reduce(instruction: Instruction, operands: Operands, context: Context) -> list[Value]:
    """Folded on the root; the others keep what they gave."""
    root, given = _root(instruction, operands)
    total = _folded(instruction, given, context)
    return [_packed(instruction, total if i == root else own) for i, own in enumerate(given)]


def replica_id(instruction: Instruction, operands: list[Value], context: Context) -> np.ndarray:
    return np.array(context.device.replica, np.uint32)


def partition_id(instruction: Instruction, operands: list[Value], context: Context) -> np.ndarray:
    return np.array(context.device.partition, np.uint32)


def result_of_start(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    return operands[0][1]


def reduced(instruction: Instruction, operands: list[Value], context: Context) -> Value:
    return operands[0]


RESULTS: dict[str, Callable[..., list[Value]]] = {
    "all-gather": all_gather,
    "all-gather-start": all_gather,
    "all-reduce": all_reduce,
    "all-reduce-start": all_reduce,
    "all-to-all": all_to_all,
    "collective-broadcast": collective_broadcast,
    "collective-permute": collective_permute,
    "collective-permute-start": collective_permute,
    "collective-reduce": collective_reduce,
    "ragged-all-to-all": ragged_all_to_all,
    "reduce-scatter": reduce_scatter,
}

GENERATORS: dict[str, Callable] = dict.fromkeys(RESULTS, exchange)

TABLE: dict[str, Callable] = {
    "all-gather-done": result_of_start,
    "all-reduce-done": reduced,
    "collective-permute-done": result_of_start,
    "partition-id": partition_id,
    "replica-id": replica_id,
}
