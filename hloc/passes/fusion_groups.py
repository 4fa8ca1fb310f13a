"""Groups of instructions that are to become one kernel."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from hloc.analysis.cost import weight
from hloc.analysis.layouts import same_order
from hloc.analysis.moves import moves_from
from hloc.ir.instruction import Instruction
from hloc.passes.fusion_cost import HOISTED_WEIGHT, follows_cheaply, outside_of_inner_loop, repeated_work
from hloc.passes.fusion_rules import (
    NO_INDEX,
    PRODUCTS,
    SAME_INDEX,
    evaluations,
    index_step,
    is_read_in_place,
    loop_space,
    reads_of,
    unchanged_turns,
)

Indices = dict[int, float]
"""Numbers of the different indices at which a value is wanted -> how often in all."""

ROOT_INDEX = 0
"""The index at which the results are computed."""

_SCALAR_INDEX = -1


class Group:
    """Instructions to be computed in one kernel.

    `outputs` are the results, the first one has the loops; `members` are all instructions inside, with the
    indices at which each is wanted. `owner` is the op with loops of its own, of which `own` lists the
    element-by-element operands; both are None for a plain loop nest. An owner that is not the first output has an
    epilogue. `inputs` are the values from outside, `shape` the index space of the results, `turns` how often the
    loops turn, `repeated` the work in each turn that is done elsewhere too, `slack` what of it was let pass because it
    is less than a kernel's cost. Of what is `in_place`, the operand is only seen through ops that leave it in its
    memory.
    """

    def __init__(self, output: Instruction, own: Sequence[int] | None):
        self.outputs = [output]
        self.owner = None if own is None else output
        self.own = own
        self.shape = output.shape if own is None else loop_space(output, own)
        self.members: dict[Instruction, Indices] = {output: {ROOT_INDEX: float(self.shape.count)}}
        self.inputs: dict[Instruction, None] = dict.fromkeys(output.operands)
        self.in_place: set[Instruction] = set()
        self.repeated = 0.0
        self.slack = 0.0
        self.turns = self.shape.count
        self._numbers: dict[tuple[int, Hashable], int] = {}

    @property
    def last(self) -> Instruction:
        return self.outputs[0]

    def add(self, instruction: Instruction, indices: Indices, is_output: bool = False) -> None:
        """Take in a producer that is wanted at these indices."""
        self.repeated += repeated_work(instruction, sum(indices.values())) / max(1, self.turns)
        self.members[instruction] = indices
        self.inputs.pop(instruction, None)
        self.inputs.update(dict.fromkeys(o for o in instruction.operands if o not in self.members))
        if is_output:
            self.outputs.append(instruction)

    def adopt(self, owner: Instruction, own: Sequence[int], is_output: bool) -> None:
        """Let a plain loop nest become the epilogue of an op with loops of its own."""
        self.add(owner, {ROOT_INDEX: float(owner.shape.count)}, is_output)
        self.owner, self.own = owner, own
        self.turns = max(self.turns, loop_space(owner, own).count)

    def is_epilogue_of(self, owner: Instruction, order: Callable[[Instruction], int]) -> bool:
        """Whether all of a plain loop nest can follow on each result of an op, in whose `order` members come."""
        if self.owner is not None:
            return False
        leaves = [(member, ()) for member in sorted(self.members, key=order)]
        moves = moves_from([(owner, ())], leaves, lambda leaf: [(operand, ()) for operand in leaf[0].operands])
        if moves is None:
            return False
        following = {output.shape.dims for output in self.outputs if (output, ()) in moves}
        if any(output.shape.dims not in following for output in self.outputs):
            return False
        return owner.opcode in PRODUCTS or follows_cheaply(owner, sum(weight(leaf[0]) for leaf in moves))

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

    def is_read_in_place(self, producer: Instruction) -> bool:
        """Whether a member reads a producer where it lies, and would not if it were computed."""
        users = [user for user in producer.users if user in self.members]
        return any(
            user in self.in_place or (user is self.owner and is_read_in_place(user, number))
            for user in users
            for number, operand in enumerate(user.operands)
            if operand is producer
        )

    def _add_indices(self, user: Instruction, number: int, found: Indices) -> bool:
        if user is self.owner:
            return self._add_own_indices(user, number, found)
        step = index_step(user, number)
        for index, times in self.members[user].items():
            times = evaluations(user, number, times)
            if step is NO_INDEX:
                index = _SCALAR_INDEX
                times = 1.0 if weight(user.operands[number]) < HOISTED_WEIGHT else times
            elif step is not SAME_INDEX:
                if index == ROOT_INDEX and user.shape.dims == self.shape.dims:
                    times = outside_of_inner_loop(times, unchanged_turns(user, number, self.shape.minor_to_major))
                index = self._numbers.setdefault((index, step), len(self._numbers) + 1)
            found[index] = max(found.get(index, 0.0), times)
        return True

    def _add_own_indices(self, owner: Instruction, number: int, found: Indices) -> bool:
        operand = owner.operands[number]
        if operand.opcode != "constant" and number not in self.own:
            return False
        if operand.shape.rank == 0:
            found[_SCALAR_INDEX] = 1.0
            return True
        index = ROOT_INDEX
        if owner is not self.last or operand.shape.dims != self.shape.dims or owner.opcode in PRODUCTS:
            key = (ROOT_INDEX, (owner.id, operand.shape.dims if owner.opcode == "reduce" else number))
            index = self._numbers.setdefault(key, len(self._numbers) + 1)
        found[index] = max(found.get(index, 0.0), operand.shape.count * reads_of(owner, number))
        return True

    def has_space(self, instruction: Instruction) -> bool:
        """Whether an instruction runs over the index space of this group's loop nest."""
        if self.owner is self.last:
            return False
        return instruction.shape.dims == self.shape.dims and same_order(instruction.shape, self.shape)
