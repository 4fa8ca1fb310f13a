"""Lets devices meet once where they met several times."""

from __future__ import annotations

from dataclasses import dataclass

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import TupleShape
from hloc.passes.emit import Emit
from hloc.passes.equivalence import kinds
from hloc.passes.ordering import reorder

_COMBINED = ("all-reduce", "all-gather", "reduce-scatter")


@dataclass
class CollectiveCombiner:
    """Joins all-reduces, all-gathers and reduce-scatters that do not wait for each other into one of several operands.

    They have to be of the same groups and do the same: by equal computations, along the same dimension. One
    that is joined has operands of at most `bytes` together, so that results need not wait long.

    Requires: nothing; does most when dead code is gone and equal computations are shared.
    Ensures: no two collectives that could be joined within the budget.
    Leaves: the order as it was where that goes.
    """

    bytes: int = 32 << 20

    def run(self, module: Module) -> bool:
        order = call_order(module.entry)
        kind = kinds(order)
        effects = Effects()
        changed = False
        for computation in order:
            while group := self._group(computation, kind):
                _join(computation, group)
                reorder(computation, effects)
                changed = True
        return changed

    def _group(self, computation: Computation, kind: dict[Computation, int]) -> list[Instruction]:
        """The first collectives, two at least, that may be one."""
        candidates = [i for i in computation if _is_candidate(i)]
        if len(candidates) < 2:
            return []
        waits = _waits(computation, candidates)
        groups: dict[object, list[Instruction]] = {}
        for instruction in candidates:
            group = groups.setdefault(_purpose(instruction, kind), [])
            taken = sum(1 << candidates.index(member) for member in group)
            if not waits[instruction] & taken and _bytes([*group, instruction]) <= self.bytes:
                group.append(instruction)
        return next((group for group in groups.values() if len(group) > 1), [])


def _is_candidate(instruction: Instruction) -> bool:
    edges = instruction.control_predecessors or instruction.control_successors
    return instruction.opcode in _COMBINED and not edges and all(o.shape.is_array for o in instruction.operands)


def _purpose(instruction: Instruction, kind: dict[Computation, int]) -> tuple:
    """What collectives have in common that may be one. The number of a channel only tells that there is one."""
    folding = instruction.get("to_apply")
    groups = instruction.get("replica_groups")
    return (
        instruction.opcode,
        None if folding is None else kind[folding],
        None if groups is None else groups.groups(),
        instruction.get("channel_id") is None,
        instruction.get("use_global_device_ids"),
        instruction.get("constrain_layout"),
        instruction.get("dimensions"),
        instruction.get("mode"),
    )


def _bytes(group: list[Instruction]) -> int:
    return sum(operand.shape.byte_size for instruction in group for operand in instruction.operands)


def _waits(computation: Computation, candidates: list[Instruction]) -> dict[Instruction, int]:
    """For each instruction the candidates that have to run before it, as a set of bits."""
    bits = {instruction: 1 << number for number, instruction in enumerate(candidates)}
    waits: dict[Instruction, int] = {}
    for instruction in computation:
        found = 0
        for earlier in (*instruction.operands, *instruction.control_predecessors):
            found |= waits[earlier] | bits.get(earlier, 0)
        waits[instruction] = found
    return waits


def _join(computation: Computation, group: list[Instruction]) -> None:
    """One collective in the place of the last of a group. What reads the others may now stand before it."""
    last = group[-1]
    emit = Emit.at(last)
    operands = [operand for instruction in group for operand in instruction.operands]
    shapes = [shape for instruction in group for shape in _results(instruction)]
    joined = emit.op(last.opcode, TupleShape(tuple(shapes)), operands, **group[0].attributes)
    first = 0
    for instruction in group:
        count = len(_results(instruction))
        parts = [emit.element(joined, number) for number in range(first, first + count)]
        first += count
        value = emit.tuple(parts) if instruction.shape.is_tuple else parts[0]
        computation.replace_uses(instruction, value)
        computation.remove(instruction)


def _results(instruction: Instruction) -> tuple:
    return instruction.shape.elements if instruction.shape.is_tuple else (instruction.shape,)
