"""Tuples that go into computations and come out of them, element by element: what passes on control flow share."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.analysis.effects import Effects
from hloc.ir.builder import make
from hloc.ir.clone import clone_computation
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.ir.shapes import Shape, TupleShape
from hloc.passes.emit import Emit


class Owners:
    """Gives an instruction computations of its own, which may then be changed."""

    def __init__(self, module: Module):
        self.module = module
        self._uses: dict[Computation, int] = {}
        for instruction in module.instructions():
            self._count(instruction)

    def _count(self, instruction: Instruction) -> None:
        for callee in instruction.called:
            self._uses[callee] = self._uses.get(callee, 0) + 1

    def own(self, instruction: Instruction, attribute: str) -> None:
        """Let what an attribute names, one computation or several, be copies where others name them too."""
        value = instruction.attributes[attribute]
        if isinstance(value, tuple):
            instruction.attributes[attribute] = tuple(map(self._owned, value))
        else:
            instruction.attributes[attribute] = self._owned(value)

    def _owned(self, computation: Computation) -> Computation:
        if self._uses[computation] == 1:
            return computation
        copy = self.module.add_computation(clone_computation(computation))
        for instruction in copy:
            self._count(instruction)
        self._uses[computation] -= 1
        self._uses[copy] = 1
        return copy


def element_after(whole: Instruction, number: int) -> Instruction:
    """The element of a tuple, read directly behind what makes the tuple; a read that exists is used again."""
    following = whole.next
    if following is not None and _reads(following, whole, number):
        return following
    for user in whole.users:
        if _reads(user, whole, number):
            whole.computation.move_before(user, following)
            return user
    return make(
        whole.computation,
        "get-tuple-element",
        [whole],
        {"index": number},
        shape=whole.shape.elements[number],
        before=following,
        like=whole,
    )


def _reads(instruction: Instruction, whole: Instruction, number: int) -> bool:
    return (
        instruction.opcode == "get-tuple-element"
        and instruction.operands[0] is whole
        and instruction.attributes["index"] == number
        and not instruction.control_predecessors
    )


def sweep(computation: Computation, effects: Effects) -> None:
    """Take out of a computation what nobody needs."""
    for instruction in computation.reversed():
        if instruction.users or instruction.is_root or instruction.opcode == "parameter":
            continue
        if not effects.must_stay(instruction):
            computation.remove(instruction)


def retyped_parameter(computation: Computation, shape: Shape, places: dict[int, int]) -> Instruction:
    """A parameter of another shape; what read the kept elements of the old one reads them in their new places."""
    old = computation.parameters[0]
    new = make(
        computation, "parameter", [], {"number": 0}, shape=shape, before=old, name=old.name, like=old
    )
    move_reads(old, new, places)
    return new


def move_reads(old: Instruction, new: Instruction, places: dict[int, int]) -> None:
    """Let the reads of a tuple read another one that has the elements in other places."""
    computation = old.computation
    for read in list(old.users):
        place = places.get(read.attributes["index"])
        if place is None:
            if not read.users and not read.is_root:
                computation.remove(read)
            continue
        shape = new.shape.elements[place]
        other = make(
            computation,
            "get-tuple-element",
            [new],
            {"index": place},
            shape=shape,
            before=read,
            like=read,
            name=read.name,
        )
        computation.replace_uses(read, other)
        computation.remove(read)


def drop_old_parameter(computation: Computation) -> None:
    """Take out the parameter that another one has replaced."""
    for instruction in computation:
        if instruction.opcode == "parameter" and instruction is not computation.parameters[0]:
            computation.remove(instruction)


def set_root(computation: Computation, results: Sequence[Instruction]) -> None:
    """Let a computation give a tuple of these."""
    old = computation.root
    shape = TupleShape(tuple(value.shape for value in results))
    computation.root = make(computation, "tuple", results, shape=shape, like=old)
    if not old.users:
        computation.remove(old)


def flatten_parameter(computation: Computation, state: TupleShape) -> None:
    """Let the one parameter of a computation be a flat tuple of the leaves that it has."""
    old = computation.parameters[0]
    emit = Emit(computation, computation.parameters[0].next, old)
    new = emit.op("parameter", state, number=0)
    computation.replace_uses(old, nested(emit, new, old.shape))
    computation.remove(old)


def leaf(emit: Emit, whole: Instruction, path: Sequence[int]) -> Instruction:
    """The part of a value at a path."""
    for number in path:
        whole = whole.operands[number] if whole.opcode == "tuple" else emit.element(whole, number)
    return whole


def nested(emit: Emit, flat: Instruction, shape: Shape) -> Instruction:
    """A value of a nested shape whose leaves are the elements of a flat tuple."""
    leaves = (emit.element(flat, number) for number in range(len(flat.shape.elements)))

    def build(part: Shape) -> Instruction:
        return emit.tuple([build(element) for element in part.elements]) if part.is_tuple else next(leaves)

    return build(shape)


def move_control_edges(old: Instruction, new: Instruction) -> None:
    """Let one instruction stand in the control order where another one stood."""
    computation = old.computation
    for earlier in old.control_predecessors:
        computation.add_control_edge(earlier, new)
    for later in old.control_successors:
        computation.add_control_edge(new, later)
    computation.drop_control_edges(old)
