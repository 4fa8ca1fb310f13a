"""Conditionals over flat tuples, and the edits of what goes in and comes out that passes on them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import TupleShape
from hloc.passes.emit import Emit
from hloc.passes.tuples import (
    Owners,
    drop_old_parameter,
    flatten_parameter,
    leaf,
    move_reads,
    nested,
    retyped_parameter,
    set_root,
    sweep,
)

_ATTRIBUTES = ("true_computation", "false_computation", "branch_computations")


def choices_of(module: Module) -> list[Instruction]:
    """The conditionals that the entry reaches, those inside of others first."""
    return [i for computation in call_order(module.entry) for i in computation if i.opcode == "conditional"]


class Choice:
    """A `conditional` in explicit form: what each branch takes and gives are flat tuples, put together in one
    `tuple` and taken apart by get-tuple-element.
    """

    def __init__(self, instruction: Instruction):
        self.instruction = instruction

    @staticmethod
    def of(instruction: Instruction) -> Choice | None:
        """The conditional, or None if it is not in explicit form, or bound by control edges."""
        choice = Choice(instruction)
        if instruction.control_predecessors or instruction.control_successors:
            return None
        return choice if choice.is_explicit() else None

    def is_explicit(self) -> bool:
        wholes = [self.instruction, *(branch.parameters[0] for branch in self.branches)]
        if any(whole.is_root or not _is_flat(whole) for whole in wholes) or not self.size:
            return False
        makers = [*self.instruction.operands[1:], *(branch.root for branch in self.branches)]
        if any(maker.opcode != "tuple" for maker in makers):
            return False
        return all(user.opcode == "get-tuple-element" for whole in wholes for user in whole.users)

    @property
    def branches(self) -> list[Computation]:
        return self.instruction.called

    @property
    def size(self) -> int:
        """How many results there are."""
        return len(self.instruction.shape.elements)

    def given(self, branch: int) -> list[Instruction]:
        """What a branch is given, element by element."""
        return self.instruction.operands[1 + branch].operands

    # Edits, which ask for branches of its own

    def own(self, owners: Owners) -> None:
        for attribute in _ATTRIBUTES:
            if attribute in self.instruction.attributes:
                owners.own(self.instruction, attribute)

    def set_results(self, results: Callable[[Computation], Sequence[Instruction]], places: dict[int, int]) -> None:
        """Let the branches give other results; `places` tells where the old ones that stay are among them."""
        for branch in self.branches:
            set_root(branch, results(branch))
        old = self.instruction
        shape = self.branches[0].root.shape
        new = Emit.at(old).op("conditional", shape, old.operands, **old.attributes)
        new.annotations = dict(old.annotations)
        move_reads(old, new, places)
        old.computation.remove(old)
        self.instruction = new

    def set_given(self, number: int, kept: Sequence[int], added: Sequence[Instruction], effects: Effects) -> None:
        """Give a branch some of the elements that it has, and more; it reads none of the others."""
        branch, old = self.branches[number], self.instruction.operands[1 + number]
        values = [*(old.operands[place] for place in kept), *added]
        shape = TupleShape(tuple(value.shape for value in values))
        retyped_parameter(branch, shape, {place: at for at, place in enumerate(kept)})
        sweep(branch, effects)
        drop_old_parameter(branch)
        computation = self.instruction.computation
        computation.set_operand(self.instruction, 1 + number, Emit.at(self.instruction).tuple(values))
        if not old.users and not old.is_root:
            computation.remove(old)


def _is_flat(instruction: Instruction) -> bool:
    shape = instruction.shape
    return shape.is_tuple and not any(element.is_tuple for element in shape.elements)


def make_explicit(instruction: Instruction, owners: Owners) -> bool:
    """Give a conditional explicit form; whether anything had to be done.

    One without results stays as it is.
    """
    results = [path for path, _ in instruction.shape.leaves()]
    choice = Choice(instruction)
    if not results or choice.is_explicit():
        return False
    choice.own(owners)
    emit = Emit.at(instruction)
    operands = []
    for branch, operand in zip(choice.branches, instruction.operands[1:], strict=True):
        leaves = list(operand.shape.leaves())
        flatten_parameter(branch, TupleShape(tuple(shape for _, shape in leaves)))
        end = Emit(branch, like=branch.root)
        branch.root = end.tuple([leaf(end, branch.root, path) for path in results])
        operands.append(emit.tuple([leaf(emit, operand, path) for path, _ in leaves]))
    flat = TupleShape(tuple(shape for _, shape in instruction.shape.leaves()))
    new = emit.op("conditional", flat, [instruction.operands[0], *operands], **instruction.attributes)
    new.annotations = dict(instruction.annotations)
    computation = instruction.computation
    value = nested(emit, new, instruction.shape)
    computation.replace_uses(instruction, value)
    computation.remove(instruction)
    return True
