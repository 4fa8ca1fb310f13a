"""When two instructions, or two computations, are the same but for their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import COMMUTATIVE, OPS

_COMMUTATIVE = frozenset(name for name, op in OPS.items() if op.has(COMMUTATIVE))

_CONFIGURED = ("custom-call", "fusion")
"""Ops whose backend_config and frontend_attributes are part of what they compute."""


def key(
    instruction: Instruction,
    number: Callable[[Instruction], int],
    kind: Callable[[Computation], Hashable],
) -> tuple:
    """What two instructions must have in common to be the same: opcode, shape with layout, attributes, operands.

    `number` gives operands that are the same the same number, `kind` computations the same name. The order
    of the operands of commutative ops does not count, nor does metadata.
    """
    operands = [number(operand) for operand in instruction.operands]
    if instruction.opcode in _COMMUTATIVE:
        operands.sort()
    # Names differ, so that types and values are never ordered.
    attributes = tuple(sorted([(name, type(v), _plain(v, kind)) for name, v in instruction.attributes.items()]))
    extra = ()
    if instruction.opcode in _CONFIGURED:
        extra = tuple(instruction.annotations.get(name) for name in ("backend_config", "frontend_attributes"))
    return instruction.opcode, instruction.shape, tuple(operands), attributes, extra


def _plain(value: object, kind: Callable[[Computation], Hashable]) -> object:
    """The value with computations named by their kind."""
    if isinstance(value, Computation):
        return kind(value)
    if isinstance(value, tuple) and value and isinstance(value[0], Computation):
        return tuple(map(kind, value))
    return value


def kinds(computations: list[Computation]) -> dict[Computation, int]:
    """A number for each computation, the same for those whose instructions are the same one by one.

    Callees come before their callers.
    """
    found: dict[Computation, int] = {}
    numbers: dict[tuple, int] = {}
    of_a_size = Counter(map(len, computations))
    rough = {c: tuple([i.opcode for i in c.instructions]) for c in computations if of_a_size[len(c)] > 1}
    alike = Counter(rough.values())
    for computation in computations:
        if computation not in rough or alike[rough[computation]] == 1:
            found[computation] = numbers.setdefault((computation,), len(numbers))
            continue
        places = {instruction: place for place, instruction in enumerate(computation)}
        rows = tuple(
            (*key(i, places.__getitem__, found.__getitem__), tuple(places[e] for e in i.control_predecessors))
            for i in computation
        )
        name = (rows, places[computation.root], computation.execution_thread)
        found[computation] = numbers.setdefault(name, len(numbers))
    return found
