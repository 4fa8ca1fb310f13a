"""Drops what only says on which devices or in which memory a value lives."""

from __future__ import annotations

from hloc.errors import HloError
from hloc.ir.annotating_calls import ANNOTATING_CALLS, PARTITIONED_CALLS
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order


def run(module: Module) -> bool:
    """Removes `domain`, the custom calls that only annotate their operand, and `sharding` attributes.

    Every device runs the whole module after partitioning, so that a sharding has nothing left to say.

    Requires: manual_partitioning has run, if the module needs it.
    Ensures: no `sharding` annotation, no `domain`.
    Leaves: everything else. HloError for a GSPMD shard that differs from the whole: such modules must be
    partitioned first.
    """
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            changed |= instruction.annotations.pop("sharding", None) is not None
            if _is_identity(instruction):
                changed = True
                _drop(instruction)
    return changed


def _is_identity(instruction: Instruction) -> bool:
    if instruction.opcode == "domain":
        return True
    if instruction.opcode != "custom-call" or len(instruction.operands) != 1:
        return False
    target = instruction.attributes["custom_call_target"]
    same = instruction.shape.compatible(instruction.operands[0].shape)
    if target in PARTITIONED_CALLS and not same:
        raise HloError(
            f"the custom call {target} needs a module that is partitioned already", instruction.span
        )
    return same and target in (*ANNOTATING_CALLS, *PARTITIONED_CALLS)


def _drop(instruction: Instruction) -> None:
    computation = instruction.computation
    computation.replace_uses(instruction, instruction.operands[0])
    computation.remove(instruction)
