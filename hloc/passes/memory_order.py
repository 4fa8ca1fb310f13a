"""Orders of a computation that may need less memory than the one it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from hloc.analysis.effects import Effects
from hloc.analysis.flow import ComputationFlow
from hloc.analysis.liveness import Value
from hloc.ir.instruction import Instruction
from hloc.passes.ordering import Order


def orders(flow: ComputationFlow, effects: Effects) -> Iterator[list[Instruction]]:
    """Orders to try, each legal.

    Two are list schedules: of all that can run next, what frees most beyond what it takes; ties go to what
    comes first in the text, or in a depth-first walk, which puts together what belongs together. One is a list
    schedule from the end. The last is that walk. Arguments, constants and results are nobody's to free. An
    instruction is weighed again only when that changes something, so the time grows with the number of operands.
    """
    sequence = flow.computation.instructions
    walk = {instruction: place for place, instruction in enumerate(flow.computation.post_order())}
    yield Order(sequence, effects, _Gains(flow, {})).sorted()
    yield Order(sequence, effects, _Gains(flow, walk)).sorted()
    yield Order(sequence, effects, _Walk(_Backwards(flow).places())).sorted()
    yield Order(sequence, effects, _Walk(walk)).sorted()


class _Walk:
    """Ranks by place in a walk; what has none comes first."""

    def __init__(self, places: dict[Instruction, int]):
        self._places = places

    def rank(self, instruction: Instruction) -> tuple[int, int]:
        return self._places.get(instruction, -1), 0

    def ran(self, instruction: Instruction) -> Sequence[Instruction]:
        return ()


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


class _Backwards:
    """A list schedule made from the end: the last to run is what makes most and needs least for that."""

    def __init__(self, flow: ComputationFlow):
        self._steps = dict(zip(flow.instructions, flow.steps, strict=True))
        self._text = {instruction: number for number, instruction in enumerate(flow.instructions)}
        self._kept = set(flow.results)
        self._makers = {value: i for i, step in self._steps.items() for value in step.outputs}
        self._readers: dict[Value, list[Instruction]] = {}
        for instruction, step in self._steps.items():
            for value in dict.fromkeys(step.inputs):
                self._readers.setdefault(value, []).append(instruction)
        self._waits = {i: len(self._users(i)) for i in self._steps}
        self._live: set[Value] = set()
        self._heap: list[tuple[int, int, Instruction]] = []

    def _users(self, instruction: Instruction) -> dict[Instruction, None]:
        made = self._steps[instruction].outputs
        return {reader: None for value in made for reader in self._readers.get(value, ())}

    def _offer(self, instruction: Instruction) -> None:
        """Lets an instruction be next if everything that reads its results is placed."""
        if self._waits[instruction] == 0:
            step = self._steps[instruction]
            made = sum(v.bytes for v in step.outputs if v not in self._kept)
            counted = [v for v in step.inputs if v in self._makers and v not in self._kept]
            needed = {v: v.bytes for v in counted if v not in self._live}
            heappush(self._heap, (sum(needed.values()) - made, -self._text[instruction], instruction))

    def places(self) -> dict[Instruction, int]:
        """The place of each instruction that runs, the first one 0."""
        for instruction in self._steps:
            self._offer(instruction)
        order: dict[Instruction, None] = {}
        while self._heap:
            instruction = heappop(self._heap)[2]
            if instruction in order:
                continue
            order[instruction] = None
            for value in dict.fromkeys(self._steps[instruction].inputs):
                self._begin(value, order)
            makers = dict.fromkeys(self._makers.get(v) for v in self._steps[instruction].inputs)
            for maker in filter(None, makers):
                self._waits[maker] -= 1
                self._offer(maker)
        return {instruction: number for number, instruction in enumerate(reversed(order))}

    def _begin(self, value: Value, placed: dict[Instruction, None]) -> None:
        """From here on backwards a value lives: other readers need it no more for themselves."""
        if value in self._makers and value not in self._live:
            self._live.add(value)
            for reader in self._readers[value]:
                if reader not in placed:
                    self._offer(reader)
