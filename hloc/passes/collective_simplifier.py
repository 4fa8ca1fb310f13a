"""Removes communication that a device can do without."""

from __future__ import annotations

import numpy as np

from hloc.ir.dtypes import U32
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, replace
from hloc.passes.patterns import splat_value

_IDENTITIES = ("all-gather", "all-reduce", "all-to-all", "reduce-scatter", "collective-broadcast")
"""Ops that give a lone device its own operands back."""

_IDEMPOTENT = ("maximum", "minimum", "and", "or")
_NUMBERS = ("partition-id", "replica-id")


def run(module: Module) -> bool:
    """Replaces collectives of a lone device by their operands, its numbers by zero, and permutes that need not be.

    A device is alone if the program runs on one, or if each replica group has one member and the groups
    count all there is: replicas without partitions, or global numbers. A permute that sends nothing to a lone
    device gives zeros. A permute of a permute is one; so is none that sends all devices their own. An
    all-reduce of a value that is a known one on all devices is known too, where folding it in any order is exact.

    Requires: async_to_sync, for the pairs.
    Ensures: on one device no all-gather, all-reduce, all-to-all, reduce-scatter, collective-broadcast or
    collective-permute.
    Leaves: tuples of operands where there were several; unused permutes, for dce.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            new = _alone(module, instruction) or _permuted_once(module, instruction) or _folded(module, instruction)
            if new is not None:
                replace(instruction, new)
                changed = True
    return changed


def _alone(module: Module, instruction: Instruction) -> Instruction | None:
    opcode = instruction.opcode
    is_single = module.replica_count * module.num_partitions == 1
    emit = Emit.at(instruction)
    if opcode in _NUMBERS and is_single:
        return emit.scalar(np.uint32(0), U32)
    if opcode == "collective-permute" and is_single and len(instruction.operands) == 1:
        sends = (0, 0) in instruction.attributes["source_target_pairs"]
        return instruction.operands[0] if sends else emit.full(0, instruction.shape)
    if opcode not in _IDENTITIES or not (is_single or _has_lone_groups(module, instruction)):
        return None
    operands, shape = instruction.operands, instruction.shape
    results = shape.elements if shape.is_tuple else (shape,)
    kept = all(operand.shape.compatible(result) for operand, result in zip(operands, results, strict=True))
    if not kept or opcode == "all-to-all" and len(operands) > 1:
        return None  # made for a larger group: the executors say so
    return emit.tuple(operands) if shape.is_tuple else operands[0]


def _has_lone_groups(module: Module, instruction: Instruction) -> bool:
    groups = instruction.get("replica_groups")
    if groups is None or not groups.groups() or any(len(group) != 1 for group in groups.groups()):
        return False
    return module.num_partitions == 1 or bool(instruction.get("use_global_device_ids"))


def _permuted_once(module: Module, instruction: Instruction) -> Instruction | None:
    """permute(permute(x, p), q) = permute(x, p then q); permute(x, all their own) = x"""
    if not _is_plain_permute(instruction):
        return None
    pairs = instruction.attributes["source_target_pairs"]
    by_channel = instruction.get("channel_id") is not None
    count = module.num_partitions if by_channel else module.replica_count
    inner = instruction.operands[0]
    if sorted(pairs) == [(number, number) for number in range(count)]:
        return inner
    if not _is_plain_permute(inner) or (inner.get("channel_id") is not None) is not by_channel:
        return None
    if len(inner.users) > 1 or inner.is_root or inner.control_predecessors or inner.control_successors:
        return None
    sources = {target: source for source, target in inner.attributes["source_target_pairs"]}
    joined = tuple((sources[middle], target) for middle, target in pairs if middle in sources)
    if not joined:
        return Emit.at(instruction).full(0, instruction.shape)
    attributes = {**instruction.attributes, "source_target_pairs": joined}
    return Emit.at(instruction).op("collective-permute", instruction.shape, inner.operands, **attributes)


def _is_plain_permute(instruction: Instruction) -> bool:
    return (
        instruction.opcode == "collective-permute"
        and len(instruction.operands) == 1
        and instruction.shape.is_array
        and not instruction.get("slice_sizes")
    )


def _folded(module: Module, instruction: Instruction) -> Instruction | None:
    """all-reduce(splat): the splat itself by max, min, and, or; n times it by add, where each partial sum is exact"""
    if instruction.opcode != "all-reduce" or not instruction.shape.is_array or len(instruction.operands) != 1:
        return None
    value = splat_value(instruction.operands[0])
    opcode = _folding(instruction)
    if value is None:
        return None
    if opcode in _IDEMPOTENT:
        return instruction.operands[0]
    if opcode != "add":
        return None
    size = _group_size(module, instruction)
    dtype = instruction.shape.dtype
    if size is None or dtype.is_complex or not dtype.is_integer and not dtype.is_float:
        return None
    sums = [float(value) * number for number in range(1, size + 1)]
    limit = 2.0**53 if dtype.is_integer else np.inf
    if any(abs(s) >= limit or float(np.asarray(s).astype(dtype.numpy)) != s for s in sums):
        return None
    return Emit.at(instruction).full(sums[-1], instruction.shape)


def _folding(instruction: Instruction) -> str | None:
    """The op that an all-reduce folds by, if its computation is that op of its two parameters."""
    computation = instruction.attributes["to_apply"]
    root = computation.root
    return root.opcode if sorted(map(id, root.operands)) == sorted(map(id, computation.parameters)) else None


def _group_size(module: Module, instruction: Instruction) -> int | None:
    """The members of each group, where ids are those of devices; None if the groups are of several sizes."""
    groups = instruction.get("replica_groups")
    listed = groups.groups() if groups is not None else ()
    if instruction.get("channel_id") is not None and not instruction.get("use_global_device_ids"):
        return None
    if not listed:
        return module.replica_count
    sizes = {len(group) for group in listed}
    return sizes.pop() if len(sizes) == 1 else None
