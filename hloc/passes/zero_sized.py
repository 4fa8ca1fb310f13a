"""Replaces what works on arrays without elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hloc.analysis.effects import Effects
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, dense, replace


def run(module: Module) -> bool:
    """Makes empty results constants, and ops that only see empty operands what the rest of them says.

    A reduction of nothing is its initial value, a dot over nothing and a gather from it zero, a padded nothing
    the padding value; concatenating, updating or scattering nothing changes nothing.

    Requires: nothing.
    Ensures: empty arrays are parameters, constants, or results of calls, collectives, side effects and ends of
    asynchronous ops.
    Leaves: unused operands, for dce.
    """
    changed = False
    effects = Effects()
    for computation in call_order(module.entry):
        for instruction in computation:
            new = _simpler(instruction, effects)
            if new is not None:
                replace(instruction, new)
                changed = True
    return changed


def _simpler(instruction: Instruction, effects: Effects) -> Instruction | None:
    shape = instruction.shape
    if not shape.is_array or shape.is_dynamic or instruction.opcode in ("parameter", "constant"):
        return None
    if effects.of(instruction) or instruction.opcode.endswith("-done"):
        return None  # what was begun needs its end
    if shape.count == 0:
        empty = np.empty(shape.dims, shape.dtype.numpy)
        return Emit.at(instruction).literal(Literal(dense(shape), empty))
    rule = _RULES.get(instruction.opcode)
    if rule is not None and any(_is_empty(operand) for operand in instruction.operands):
        return rule(instruction)
    return None


def _is_empty(instruction: Instruction) -> bool:
    return instruction.shape.is_array and instruction.shape.count == 0 and not instruction.shape.is_dynamic


def _initial(instruction: Instruction) -> Instruction:
    return Emit.at(instruction).broadcast(instruction.operands[1], instruction.shape.dims)


def _zeros(instruction: Instruction) -> Instruction:
    return Emit.at(instruction).full(0, instruction.shape)


def _nothing_gathered(instruction: Instruction) -> Instruction | None:
    """Slices of an empty operand have no elements, but where their dimensions are dropped zeros stand for them."""
    return _zeros(instruction) if _is_empty(instruction.operands[0]) else None


def _concatenated(instruction: Instruction) -> Instruction | None:
    parts = [operand for operand in instruction.operands if not _is_empty(operand)]
    if len(parts) == 1:
        return parts[0]
    return Emit.at(instruction).concatenate(parts, instruction.attributes["dimensions"][0])


def _unchanged(instruction: Instruction) -> Instruction | None:
    """The operand of an update or scatter whose updates are empty."""
    update = instruction.operands[1 if instruction.opcode == "dynamic-update-slice" else -1]
    return instruction.operands[0] if _is_empty(update) else None


_RULES: dict[str, Callable[[Instruction], Instruction | None]] = {
    "reduce": _initial,
    "pad": _initial,
    "dot": _zeros,
    "gather": _nothing_gathered,
    "concatenate": _concatenated,
    "dynamic-update-slice": _unchanged,
    "scatter": _unchanged,
}
