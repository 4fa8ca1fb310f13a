"""Removes communication of a device with itself."""

from __future__ import annotations

import numpy as np

from hloc.ir.dtypes import U32
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, replace

_IDENTITIES = ("all-gather", "all-reduce", "all-to-all", "reduce-scatter", "collective-broadcast")
"""Ops that give a lone device its own operands back."""

_NUMBERS = ("partition-id", "replica-id")


def run(module: Module) -> bool:
    """Replaces collectives of a lone device by their operands, and its numbers by zero.

    A device is alone if the program runs on one, or if each replica group has one member and the groups
    count all there is: replicas without partitions, or global numbers. A permute that sends nothing to a lone
    device gives zeros.

    Requires: async_to_sync, for the pairs.
    Ensures: on one device no all-gather, all-reduce, all-to-all, reduce-scatter, collective-broadcast or
    collective-permute.
    Leaves: tuples of operands where there were several.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            new = _alone(module, instruction)
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
    operands = instruction.operands
    if instruction.shape.is_tuple:
        return emit.tuple(operands)
    return operands[0] if operands[0].shape.compatible(instruction.shape) else None


def _has_lone_groups(module: Module, instruction: Instruction) -> bool:
    groups = instruction.get("replica_groups")
    if groups is None or not groups.groups() or any(len(group) != 1 for group in groups.groups()):
        return False
    return module.num_partitions == 1 or bool(instruction.get("use_global_device_ids"))
