"""Applying small rules until none fires, and what rules need to look at their neighbourhood."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.passes.emit import Emit, replace

Rule = Callable[[Instruction], Instruction | None]
"""Gives what may stand in an instruction's place (an operand, or something new in front of it), or None.

A rule that gives None has added nothing.
"""

_STEPS_PER_INSTRUCTION = 200


def rewrite(module: Module, rules: Mapping[str, Sequence[Rule]]) -> bool:
    """Apply rules, given by opcode, everywhere until none fires; whether any did.

    What loses its last user is removed at once, so that rules may count users. Where layouts differ, the
    replacement is copied into the old layout. Instructions with dynamic dimensions are left alone.
    RuntimeError if the rules undo each other's work.
    """
    effects = Effects()
    changed = [_rewrite(computation, rules, effects) for computation in call_order(module.entry)]
    if any(changed):
        module.order_computations()
    return any(changed)


def _rewrite(computation: Computation, rules: Mapping[str, Sequence[Rule]], effects: Effects) -> bool:
    queue = deque(computation)
    waiting = set(queue)
    fuel = _STEPS_PER_INSTRUCTION * (len(queue) + 10)
    changed = False
    while queue:
        instruction = queue.popleft()
        waiting.discard(instruction)
        if instruction.computation is None or _is_dynamic(instruction):
            continue
        new = _first_result(instruction, rules.get(instruction.opcode, ()))
        if new is None:
            continue
        changed = True
        fuel -= 1
        if fuel == 0:
            raise RuntimeError(f"the rules do not come to an end at %{instruction.name}")
        for near in _substitute(instruction, new, effects):
            if near not in waiting:
                waiting.add(near)
                queue.append(near)
    return changed


def _is_dynamic(instruction: Instruction) -> bool:
    return any(i.shape.is_array and i.shape.is_dynamic for i in (instruction, *instruction.operands))


def _first_result(instruction: Instruction, rules: Sequence[Rule]) -> Instruction | None:
    for rule in rules:
        new = rule(instruction)
        if new is not None:
            return new
    return None


def _substitute(old: Instruction, new: Instruction, effects: Effects) -> list[Instruction]:
    """Put `new` in the place of `old`; what now deserves another look."""
    if not new.shape.compatible(old.shape):
        raise RuntimeError(f"a rule wants to put {new.shape!r} in the place of %{old.name}, {old.shape!r}")
    if new.shape != old.shape:
        new = Emit.at(old).op("copy", old.shape, (new,))
    operands = list(old.operands)
    replace(old, new)
    remove_unused(operands, effects)
    grandparents = [operand for parent in new.operands for operand in parent.operands]
    near = [*grandparents, *new.operands, new, *new.users, *operands]
    return [instruction for instruction in near if instruction.computation is not None]


def remove_unused(candidates: Sequence[Instruction], effects: Effects) -> None:
    """Take out those of the instructions that nobody uses, and what becomes unused by that."""
    stack = list(candidates)
    while stack:
        instruction = stack.pop()
        if instruction.computation is None or instruction.users or instruction.is_root:
            continue
        if instruction.opcode == "parameter" or effects.must_stay(instruction):
            continue
        stack.extend(instruction.operands)
        instruction.computation.remove(instruction)


# Matching


def splat(instruction: Instruction) -> np.generic | None:
    """The value that all elements of the result have, where it is known: a constant, or one broadcast."""
    while instruction.opcode == "broadcast" or instruction.opcode == "reshape":
        instruction = instruction.operands[0]
    if instruction.opcode != "constant" or not instruction.shape.is_array or not instruction.shape.count:
        return None
    literal = instruction.attributes["literal"]
    if instruction.shape.count > 1 and not literal.is_splat():
        return None
    return literal.array.reshape(-1)[0]


def is_splat(instruction: Instruction, value: float) -> bool:
    """Whether all elements are known to be `value`, signs of zero told apart."""
    known = splat(instruction)
    if known is None or known != value:
        return False
    return instruction.shape.dtype.is_complex or bool(
        np.signbit(np.float64(known)) == np.signbit(np.float64(value))
    )


def scalar_source(instruction: Instruction) -> Instruction | None:
    """The rank-0 value that a result repeats everywhere; the instruction itself if it is of rank 0."""
    if not instruction.shape.is_array:
        return None
    while instruction.shape.rank and instruction.opcode == "broadcast":
        instruction = instruction.operands[0]
    return instruction if instruction.shape.rank == 0 else None


def has_one_use(instruction: Instruction) -> bool:
    return len(instruction.users) == 1 and not instruction.is_root


def wide_dims(dims: Sequence[int]) -> list[int]:
    """The numbers of the dimensions that are not of size 1."""
    return [number for number, size in enumerate(dims) if size != 1]
