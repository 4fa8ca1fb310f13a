"""The order of a computation's instructions."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Protocol

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.opcodes import SIDE_EFFECT


def reorder(computation: Computation, effects: Effects) -> bool:
    """Put operands before users again, changing the present order as little as that allows.

    Side effects keep their order among themselves. Readers of an array go before the op that changes it in
    place, where nothing forces them behind it. Gives whether the order changed.
    """
    sequence = computation.instructions
    if is_in_order(sequence):
        return False
    order = Order(sequence, effects).sorted()
    if order == sequence:
        return False
    computation.reorder(order)
    return True


def is_in_order(sequence: Sequence[Instruction]) -> bool:
    """Whether what an instruction waits for, and what had better read an array before it, all comes before it."""
    earlier: set[Instruction] = set()
    are_earlier = earlier.issuperset
    for instruction in sequence:
        if not are_earlier(instruction.operands) or not are_earlier(instruction.control_predecessors):
            return False
        earlier.add(instruction)
        if not all(are_earlier(changed.users) for changed in changed_in_place(instruction)):
            return False
    return True


class Ranks(Protocol):
    """What an order prefers among instructions that may run next: the least rank, then the first in the text."""

    def rank(self, instruction: Instruction) -> tuple[int, int]: ...

    def ran(self, instruction: Instruction) -> Sequence[Instruction]:
        """Called when an instruction runs; gives those whose rank has become less by that."""


class Order:
    """A topological sort; without ranks by first come, first served.

    Wishes are edges that give way if all else is stuck.
    """

    def __init__(self, sequence: list[Instruction], effects: Effects, ranks: Ranks | None = None):
        self.sequence = sequence
        self.ranks = ranks
        self.place = {instruction: number for number, instruction in enumerate(sequence)}
        self.after: dict[Instruction, list[Instruction]] = {i: [] for i in sequence}
        self.wished_after: dict[Instruction, list[Instruction]] = {}
        self.waits = dict.fromkeys(sequence, 0)
        self.wishes = dict.fromkeys(sequence, 0)
        for instruction in sequence:
            for earlier in (*dict.fromkeys(instruction.operands), *instruction.control_predecessors):
                self._edge(earlier, instruction)
        chain = [i for i in sequence if SIDE_EFFECT in effects.of(i)]
        for earlier, later in zip(chain, chain[1:], strict=False):
            self._edge(earlier, later)
        for instruction in sequence:
            for changed in changed_in_place(instruction):
                for reader in changed.users:
                    if reader is not instruction:
                        self.wished_after.setdefault(reader, []).append(instruction)
                        self.wishes[instruction] += 1

    def _edge(self, earlier: Instruction, later: Instruction) -> None:
        self.after[earlier].append(later)
        self.waits[later] += 1

    def sorted(self) -> list[Instruction]:
        order: list[Instruction] = []
        free: list[tuple[tuple[int, int], int]] = []
        wishing: list[tuple[tuple[int, int], int]] = []
        done: set[Instruction] = set()
        ranks = self.ranks

        def offer(instruction: Instruction) -> None:
            if self.waits[instruction] == 0 and instruction not in done:
                rank = (0, 0) if ranks is None else ranks.rank(instruction)
                heappush(wishing if self.wishes[instruction] > 0 else free, (rank, self.place[instruction]))

        for instruction in self.sequence:
            offer(instruction)
        while free or wishing:
            instruction = self.sequence[heappop(free or wishing)[1]]
            if instruction in done:
                continue
            done.add(instruction)
            order.append(instruction)
            for later in self.after[instruction]:
                self.waits[later] -= 1
                offer(later)
            for later in self.wished_after.get(instruction, ()):
                self.wishes[later] -= 1
                offer(later)
            for other in () if ranks is None else ranks.ran(instruction):
                offer(other)
        return order


def changed_in_place(instruction: Instruction) -> list[Instruction]:
    """The operands that an op, or the op at the root of a fusion, would like to change where they lie."""
    root = instruction
    if instruction.opcode == "fusion":
        root = instruction.called[0].root
    if root.opcode == "dynamic-update-slice":
        changed = root.operands[:1]
    elif root.opcode == "scatter":
        changed = root.operands[: len(root.operands) // 2]
    else:
        return []
    if root is instruction:
        return changed
    return [instruction.operands[p.attributes["number"]] for p in changed if p.opcode == "parameter"]
