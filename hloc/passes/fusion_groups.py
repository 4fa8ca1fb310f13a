"""Groups of instructions that are to become one kernel."""

from __future__ import annotations

from collections.abc import Hashable

from hloc.analysis.cost import weight
from hloc.analysis.layouts import same_order
from hloc.ir.instruction import Instruction
from hloc.passes.fusion_rules import NO_INDEX, SAME_INDEX, evaluations, index_step

Indices = dict[int, float]
"""Numbers of the different indices at which a value is wanted -> how often in all."""

ROOT_INDEX = 0
"""The index at which the results are computed."""

_SCALAR_INDEX = -1

_HOISTED_WEIGHT = 8
"""Scalar ops lighter than this are taken to be moved out of loops."""


class Group:
    """Instructions to be computed in one kernel.

    `outputs` are the results, the first one has the loops; `members` are all instructions inside, with the
    indices at which each is wanted. `own` holds the element-by-element operands of an output that has loops
    of its own, and is None for a plain loop nest. `inputs` are the values from outside, `shape` the index
    space, `repeated` the work per index that is done elsewhere too.
    """

    def __init__(self, output: Instruction, own: tuple[int, ...] | None):
        self.outputs = [output]
        self.own = own
        self.shape = output.shape
        if output.opcode in ("reduce", "dynamic-update-slice"):
            self.shape = output.operands[own[0]].shape
        self.members: dict[Instruction, Indices] = {output: {ROOT_INDEX: float(self.shape.count)}}
        self.inputs: dict[Instruction, None] = dict.fromkeys(output.operands)
        self.repeated = 0.0
        self._numbers: dict[tuple[int, Hashable], int] = {}

    @property
    def last(self) -> Instruction:
        return self.outputs[0]

    def add(self, instruction: Instruction, indices: Indices, is_output: bool = False) -> None:
        """Take in a producer that is wanted at these indices."""
        extra = max(0.0, sum(indices.values()) - instruction.shape.count)
        self.repeated += extra * weight(instruction) / max(1, self.shape.count)
        self.members[instruction] = indices
        self.inputs.pop(instruction, None)
        self.inputs.update(dict.fromkeys(o for o in instruction.operands if o not in self.members))
        if is_output:
            self.outputs.append(instruction)

    def join(self, other: Group) -> None:
        """Take in all of another loop nest over the same index space."""
        for member, indices in other.members.items():
            self.members.setdefault(member, indices)
        self.outputs += other.outputs
        self.inputs = {i: None for i in (*other.inputs, *self.inputs) if i not in self.members}

    def indices_for(self, producer: Instruction) -> Indices | None:
        """The indices at which members want a producer; None if one of them wants it as a whole."""
        found: Indices = {}
        for user in producer.users:
            if user not in self.members:
                continue
            for number, operand in enumerate(user.operands):
                if operand is producer and not self._add_indices(user, number, found):
                    return None
        return found

    def _add_indices(self, user: Instruction, number: int, found: Indices) -> bool:
        step = index_step(user, number)
        if self.own is not None and user is self.last:
            if number not in self.own and user.operands[number].opcode != "constant":
                return False
            if user.opcode in ("reduce", "dynamic-update-slice") and step is not NO_INDEX:
                step = SAME_INDEX
        for index, times in self.members[user].items():
            times = evaluations(user, number, times)
            if step is NO_INDEX:
                index = _SCALAR_INDEX
                times = 1.0 if weight(user.operands[number]) < _HOISTED_WEIGHT else times
            elif step is not SAME_INDEX:
                index = self._numbers.setdefault((index, step), len(self._numbers) + 1)
            found[index] = max(found.get(index, 0.0), times)
        return True

    def has_space(self, instruction: Instruction) -> bool:
        """Whether an instruction runs over the index space of this group's loop nest."""
        if self.own is not None:
            return False
        return instruction.shape.dims == self.shape.dims and same_order(instruction.shape, self.shape)
