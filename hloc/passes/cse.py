"""Merges equal instructions and equal computations."""

from __future__ import annotations

from collections.abc import Callable

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.opcodes import COMMUTATIVE

_CONFIGURED = ("custom-call", "fusion")
"""Ops whose backend_config and frontend_attributes are part of what they compute."""

_OWN_BODY = ("fusion", "async-start", "async-update", "async-done")
"""Ops that do not share their computation with others: a fusion's body is the fusion's own."""


def run(module: Module) -> bool:
    """Keeps the first of several equal instructions, and of several equal computations.

    Two instructions are the same if opcode, shape with layout, attributes and operands are; of commutative
    ops the order of operands does not count, of called computations the name. Metadata never counts.
    Never merged are side effects, random numbers, collectives (also inside of called computations), barriers,
    and instructions with control edges.

    Requires: nothing.
    Ensures: no two mergeable instructions of one computation are the same.
    Leaves: computations that nobody calls any more, for dce.
    """
    computations = call_order(module.entry)
    kinds = _kinds(computations)
    changed = _share_computations(computations, kinds)
    effects = Effects()
    for computation in computations:
        changed |= _merge(computation, kinds, effects)
    return changed


def _merge(computation: Computation, kinds: dict[Computation, int], effects: Effects) -> bool:
    first: dict[tuple, Instruction] = {}
    changed = False
    for instruction in computation:
        if (
            instruction.opcode == "parameter"
            or instruction.control_predecessors
            or instruction.control_successors
        ):
            continue
        if not effects.is_repeatable(instruction):
            continue
        kept = first.setdefault(_key(instruction, lambda operand: operand.id, kinds), instruction)
        if kept is not instruction:
            computation.replace_uses(instruction, kept)
            computation.remove(instruction)
            changed = True
    return changed


def _key(
    instruction: Instruction, number: Callable[[Instruction], int], kinds: dict[Computation, int]
) -> tuple:
    """What two instructions must have in common to be the same."""
    operands = [number(operand) for operand in instruction.operands]
    if instruction.op.has(COMMUTATIVE):
        operands.sort()
    attributes = tuple(sorted((name, _plain(value, kinds)) for name, value in instruction.attributes.items()))
    extra = ()
    if instruction.opcode in _CONFIGURED:
        extra = tuple(instruction.annotations.get(name) for name in ("backend_config", "frontend_attributes"))
    return instruction.opcode, instruction.shape, tuple(operands), attributes, extra


class _Value:
    """An attribute's value as a part of a sortable key: names differ, so values are never ordered."""

    __slots__ = ("value",)

    def __init__(self, value: object):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Value) and type(self.value) is type(other.value) and self.value == other.value
        )

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: object) -> bool:
        raise TypeError("two attributes of the same name")


def _plain(value: object, kinds: dict[Computation, int]) -> _Value:
    """The value with computations named by their kind."""
    if isinstance(value, Computation):
        return _Value(("computation", kinds[value]))
    if isinstance(value, tuple) and value and isinstance(value[0], Computation):
        return _Value(("computations", *(kinds[c] for c in value)))
    return _Value(value)


def _kinds(computations: list[Computation]) -> dict[Computation, int]:
    """A number for each computation, the same for those whose instructions are the same one by one."""
    kinds: dict[Computation, int] = {}
    numbers: dict[tuple, int] = {}
    for computation in computations:  # callees come first
        places = {instruction: place for place, instruction in enumerate(computation)}
        rows = tuple(
            (*_key(i, places.__getitem__, kinds), tuple(places[e] for e in i.control_predecessors))
            for i in computation
        )
        key = (rows, places[computation.root], computation.execution_thread)
        kinds[computation] = numbers.setdefault(key, len(numbers))
    return kinds


def _share_computations(computations: list[Computation], kinds: dict[Computation, int]) -> bool:
    """Let callers name the first computation of its kind that is nobody's own body."""
    callers = [i for c in computations for i in c if i.called]
    bodies = {callee for i in callers if i.opcode in _OWN_BODY for callee in i.called}
    first: dict[int, Computation] = {}
    for computation in computations:
        if computation not in bodies:
            first.setdefault(kinds[computation], computation)
    changed = False
    for instruction in callers:
        for callee in instruction.called:
            kept = first.get(kinds[callee], callee)
            if kept is not callee and instruction.opcode not in _OWN_BODY:
                instruction.replace_called(callee, kept)
                changed = True
    return changed
