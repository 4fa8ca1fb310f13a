"""Orders of a computation that may need less memory than the one it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.analysis.effects import Effects
from hloc.analysis.flow import ComputationFlow
from hloc.analysis.liveness import Value
from hloc.ir.instruction import Instruction
from hloc.passes.ordering import Order


def orders(flow: ComputationFlow, effects: Effects) -> Iterator[list[Instruction]]:
    """Orders to try, each legal.

    Two are list schedules: of all that can run next, what frees most beyond what it takes; ties go to what
    comes first in the text, or in a depth-first walk, which puts together what belongs together. The last is
    that walk. Arguments, constants and results are nobody's to free. An instruction is weighed again only when all
    other readers of an operand have run, so the time grows with the number of operands.
    """
    sequence = flow.computation.instructions
    walk = {instruction: place for place, instruction in enumerate(flow.computation.post_order())}
    yield Order(sequence, effects, _Gains(flow, {})).sorted()
    yield Order(sequence, effects, _Gains(flow, walk)).sorted()
    yield Order(sequence, effects, _Walk(walk)).sorted()


def results_early(flow: ComputationFlow, order: list[Instruction], effects: Effects) -> list[Instruction]:
    """An order of the entry, but that what makes only results runs as soon as it can.

    Results have memory of their own, so that takes nothing, and may free operands, which may still be in a cache.
    What could be updated where an argument lies waits for the argument's other readers.
    """
    return Order(order, effects, _Results(flow)).sorted()


class _Walk:
    """Ranks by place in a walk."""

    def __init__(self, places: dict[Instruction, int]):
        self._places = places

    def rank(self, instruction: Instruction) -> tuple[int, int]:
        return self._places[instruction], 0

    def ran(self, instruction: Instruction) -> Sequence[Instruction]:
        return ()


class _Results:
    """Ranks names, and what makes only results, before all else."""

    def __init__(self, flow: ComputationFlow):
        kept = set(flow.results)
        self._steps = dict(zip(flow.instructions, flow.steps, strict=True))
        self._readers: dict[Value, dict[Instruction, None]] = {value: {} for value in flow.arguments}
        self._makers: dict[Instruction, list[Value]] = {}
        for instruction, step in self._steps.items():
            given = [value for value in dict.fromkeys(step.inputs) if value in self._readers]
            for value in given:
                self._readers[value][instruction] = None
            if step.outputs and kept.issuperset(step.outputs):
                sizes = {value.bytes for value in step.outputs}
                self._makers[instruction] = [value for value in given if value.bytes in sizes]

    def rank(self, instruction: Instruction) -> tuple[int, int]:
        if instruction not in self._steps:
            return 0, 0
        updated = self._makers.get(instruction)
        return int(updated is None or any(len(self._readers[value]) > 1 for value in updated)), 0

    def ran(self, instruction: Instruction) -> Sequence[Instruction]:
        step = self._steps.get(instruction)
        changed: dict[Instruction, None] = {}
        for value in dict.fromkeys(step.inputs) if step is not None else ():
            readers = self._readers.get(value, {})
            readers.pop(instruction, None)
            if len(readers) == 1:
                changed.update(readers)
        return list(changed)


class _Gains:
    """Ranks by the bytes that instructions would take, less those that they would free, at the time of asking."""

    def __init__(self, flow: ComputationFlow, ties: dict[Instruction, int]):
        self._ties = ties
        self._steps = dict(zip(flow.instructions, flow.steps, strict=True))
        self._readers: dict[Value, dict[Instruction, None]] = {}
        kept = set(flow.results)
        self._counted = {value for step in flow.steps for value in step.outputs if value not in kept}
        for instruction, step in self._steps.items():
            for value in step.inputs:
                if value in self._counted:
                    self._readers.setdefault(value, {})[instruction] = None

    def rank(self, instruction: Instruction) -> tuple[int, int]:
        """Names come before all else."""
        tie = self._ties.get(instruction, 0)
        step = self._steps.get(instruction)
        if step is None:
            return -(1 << 62), tie
        freed = {v: v.bytes for v in step.inputs if v in self._counted and len(self._readers[v]) == 1}
        taken = sum(value.bytes for value in step.outputs if value in self._counted)
        return taken - sum(freed.values()), tie

    def ran(self, instruction: Instruction) -> Sequence[Instruction]:
        """Takes note that an instruction runs now; gives those whose rank has changed by that."""
        step = self._steps.get(instruction)
        changed: dict[Instruction, None] = {}
        for value in dict.fromkeys(step.inputs) if step is not None else ():
            readers = self._readers.get(value)
            if readers is not None and instruction in readers:
                del readers[instruction]
                if len(readers) == 1:
                    changed.update(readers)
        return list(changed)
