"""Lets devices get only the part that they keep."""

from __future__ import annotations

from hloc.analysis.effects import Effects
from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.module import Module, call_order
from hloc.lazy import lazy
from hloc.passes.emit import Emit, replace

evaluator = lazy("hloc.reference.evaluate")
collectives = lazy("hloc.reference.collectives")
contexts = lazy("hloc.reference.context")

_MOST_OPS = 64
_MOST_BYTES = 4096
_MOST_DEVICES = 256
"""How far the place of a device's part is looked into."""


def run(module: Module) -> bool:
    """Makes an all-reduce of which each device keeps its own part a reduce-scatter, and drops such an all-gather.

    A part is a device's own if the dynamic-slice starts where the device stands in its group, on every
    device. The places are computed for each device, from its numbers, by the evaluator; they are exact, and so
    is the result: the members' operands are folded in the order of the group either way.

    Requires: nothing; does most after constant folding.
    Ensures: no dynamic-slice of a device's own part of an all-gather, or of an all-reduce that nobody else reads.
    Leaves: unused collectives and scalars, for dce.
    """
    if not 1 < module.replica_count * module.num_partitions <= _MOST_DEVICES:
        return False
    effects = Effects()
    changed = False
    for computation in call_order(module.entry):
        for instruction in computation:
            if instruction.opcode == "dynamic-slice" and not instruction.control_successors:
                new = _own_part(module, instruction, effects)
                if new is not None:
                    replace(instruction, new)
                    changed = True
    return changed


def _own_part(module: Module, part: Instruction, effects: Effects) -> Instruction | None:
    whole = part.operands[0]
    if whole.opcode not in ("all-reduce", "all-gather") or len(whole.operands) != 1 or whole.shape.is_tuple:
        return None
    if whole.control_predecessors or whole.control_successors or part.control_predecessors:
        return None
    cut = [d for d, size in enumerate(part.shape.dims) if size != whole.shape.dims[d]]
    if len(cut) != 1 or not _starts_at_own_place(module, part, cut[0], effects):
        return None
    source = whole.operands[0]
    if whole.opcode == "all-gather":
        along = whole.attributes["dimensions"] == (cut[0],)
        return source if along and source.shape.compatible(part.shape) else None
    if len(whole.users) > 1 or whole.is_root:
        return None
    attributes = {**whole.attributes, "dimensions": (cut[0],)}
    return Emit.at(part).op("reduce-scatter", part.shape, [source], **attributes)


def _starts_at_own_place(module: Module, part: Instruction, dimension: int, effects: Effects) -> bool:
    whole, start = part.operands[0], part.operands[1 + dimension]
    size, full = part.shape.dims[dimension], whole.shape.dims[dimension]
    cone = _cone(start, effects)
    if cone is None:
        return False
    replicas, partitions = module.replica_count, module.num_partitions
    for number in range(replicas * partitions):
        device = contexts.Device(number // partitions, number % partitions, replicas, partitions)
        members = collectives.members_of(whole, device)
        begins = _value(cone, device)
        if begins is None or len(members) * size != full:
            return False
        if min(max(begins, 0), full - size) != members.index(number) * size:
            return False
    return True


def _cone(value: Instruction, effects: Effects) -> list[Instruction] | None:
    """What a number is computed from, operands first: constants and the device's numbers; None if from more."""
    order: list[Instruction] = []
    stack = [value]
    while stack:
        instruction = stack[-1]
        missing = [operand for operand in instruction.operands if operand not in order]
        if instruction in order:
            stack.pop()
        elif missing:
            stack += missing
        else:
            order.append(instruction)
        if len(order) + len(stack) > _MOST_OPS:
            return None
    return order if all(_is_simple(instruction, effects) for instruction in order) else None


def _is_simple(instruction: Instruction, effects: Effects) -> bool:
    shape = instruction.shape
    if not shape.is_array or shape.is_dynamic or shape.byte_size > _MOST_BYTES:
        return False
    return instruction.opcode != "parameter" and not instruction.called and effects.is_repeatable(instruction)


def _value(cone: list[Instruction], device: object) -> int | None:
    """The last number of a cone, on a device."""
    known: dict[Instruction, Literal] = {}
    for instruction in cone:
        if instruction.opcode in ("partition-id", "replica-id"):
            number = device.partition if instruction.opcode == "partition-id" else device.replica
            known[instruction] = Literal.of(number, instruction.shape.dtype)
        elif instruction.opcode == "constant":
            known[instruction] = instruction.attributes["literal"]
        else:
            try:
                operands = [known[operand] for operand in instruction.operands]
                known[instruction] = evaluator.fold(instruction, operands)
            except HloError:
                return None
    return int(known[cone[-1]].scalar())
