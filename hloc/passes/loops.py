"""Loops over a flat tuple, and the edits of their state that passes on loops have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.analysis.effects import Effects
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import TupleShape
from hloc.passes.emit import Emit
from hloc.passes.tuples import (
    Owners,
    drop_old_parameter,
    element_after,
    flatten_parameter,
    leaf,
    move_control_edges,
    move_reads,
    nested,
    retyped_parameter,
    set_root,
    sweep,
)


def loops_of(module: Module) -> list[Instruction]:
    """The whiles that the entry reaches, those inside of others first."""
    return [i for computation in call_order(module.entry) for i in computation.call_sites if i.opcode == "while"]


class Loop:
    """A `while` in explicit form: its state a flat tuple that is put together in one `tuple`, by the caller
    and by the body, and that all others take apart by get-tuple-element.
    """

    def __init__(self, instruction: Instruction):
        self.instruction = instruction

    @staticmethod
    def of(instruction: Instruction) -> Loop | None:
        """The loop, or None if it is not in explicit form, or bound by control edges."""
        loop = Loop(instruction)
        if instruction.control_predecessors or instruction.control_successors:
            return None
        return loop if loop.is_explicit() else None

    def is_explicit(self) -> bool:
        shape = self.instruction.shape
        if not shape.is_tuple or not shape.elements or any(element.is_tuple for element in shape.elements):
            return False
        if self.instruction.is_root or self.body.parameters[0].is_root or self.condition.parameters[0].is_root:
            return False
        if self.instruction.operands[0].opcode != "tuple" or self.body.root.opcode != "tuple":
            return False
        wholes = (self.instruction, self.body.parameters[0], self.condition.parameters[0])
        return all(user.opcode == "get-tuple-element" for whole in wholes for user in whole.users)

    @property
    def condition(self) -> Computation:
        return self.instruction.attributes["condition"]

    @property
    def body(self) -> Computation:
        return self.instruction.attributes["body"]

    @property
    def initial(self) -> list[Instruction]:
        """What each element of the state is at first."""
        return self.instruction.operands[0].operands

    @property
    def results(self) -> list[Instruction]:
        """What each element becomes in a turn."""
        return self.body.root.operands

    @property
    def size(self) -> int:
        return len(self.instruction.shape.elements)

    def read_inside(self) -> Iterator[Instruction]:
        """The get-tuple-elements of the state in body and condition."""
        yield from list(self.body.parameters[0].users)
        yield from list(self.condition.parameters[0].users)

    def is_invariant(self, number: int) -> bool:
        """Whether the body passes the element on as it is."""
        result = self.results[number]
        return (
            result.opcode == "get-tuple-element"
            and result.operands[0] is self.body.parameters[0]
            and result.attributes["index"] == number
        )

    def invariants(self) -> list[int]:
        return [number for number in range(self.size) if self.is_invariant(number)]

    def read_outside(self, number: int) -> list[Instruction]:
        """The get-tuple-elements of an element of the loop's result."""
        return [user for user in self.instruction.users if user.attributes["index"] == number]

    def is_used(self, read: Instruction) -> bool:
        """Whether a get-tuple-element of the state is for more than passing the element on."""
        if read.computation is self.body and self.results[read.attributes["index"]] is read:
            return len(read.users) > 1 or self.results.count(read) > 1
        return bool(read.users) or read.is_root

    # Edits, which ask for computations of its own

    def own(self, owners: Owners) -> None:
        owners.own(self.instruction, "condition")
        owners.own(self.instruction, "body")

    def rename(self, names: dict[int, int]) -> None:
        """Let who reads an element read another one of the same value."""
        for read in [*self.read_inside(), *list(self.instruction.users)]:
            number = read.attributes["index"]
            if number in names:
                other = element_after(read.operands[0], names[number])
                read.computation.replace_uses(read, other)

    def set_state(self, kept: Sequence[int], added: Sequence[Instruction], effects: Effects) -> list[int]:
        """Keep some elements of the state and add invariant ones; gives the numbers of the latter.

        Nobody needs an element that is not kept but what makes its own next value.
        """
        old = self.instruction
        initial = [*(self.initial[number] for number in kept), *added]
        shapes = (*(old.shape.elements[number] for number in kept), *(value.shape for value in added))
        places = {number: place for place, number in enumerate(kept)}
        new_numbers = list(range(len(kept), len(initial)))
        parameter = retyped_parameter(self.body, TupleShape(shapes), places)
        passed = [element_after(parameter, number) for number in new_numbers]
        set_root(self.body, [*(self.results[number] for number in kept), *passed])
        retyped_parameter(self.condition, TupleShape(shapes), places)
        for computation in (self.condition, self.body):
            sweep(computation, effects)
            drop_old_parameter(computation)
        emit = Emit.at(old)
        new = emit.op("while", TupleShape(shapes), [emit.tuple(initial)], **old.attributes)
        new.annotations = _without_numbers(old.annotations)
        move_reads(old, new, places)
        start = old.operands[0]
        old.computation.remove(old)
        if not start.users and not start.is_root:
            start.computation.remove(start)
        self.instruction = new
        return new_numbers


def _without_numbers(annotations: dict[str, object]) -> dict[str, object]:
    """The annotations but a config that speaks of elements by number, which has come to be wrong."""
    config = annotations.get("backend_config")
    speaks = "tuple_index" in getattr(config, "text", config or "")
    return {key: value for key, value in annotations.items() if not (speaks and key == "backend_config")}


def make_explicit(instruction: Instruction, owners: Owners) -> bool:
    """Give a loop explicit form; whether anything had to be done.

    Its state becomes a flat tuple of the leaves that it had, in order. A loop without state stays as it is.
    """
    leaves = [path for path, _ in instruction.shape.leaves()]
    loop = Loop(instruction)
    if not leaves or loop.is_explicit():
        return False
    loop.own(owners)
    state = TupleShape(tuple(shape for _, shape in instruction.shape.leaves()))
    old = instruction.shape
    flatten_parameter(loop.condition, state)
    flatten_parameter(loop.body, state)
    end = Emit(loop.body, like=loop.body.root)
    loop.body.root = end.tuple([leaf(end, loop.body.root, path) for path in leaves])
    emit = Emit.at(instruction)
    start = emit.tuple([leaf(emit, instruction.operands[0], path) for path in leaves])
    new = emit.op("while", state, [start], **instruction.attributes)
    new.annotations = dict(instruction.annotations)
    move_control_edges(instruction, new)
    computation = instruction.computation
    computation.replace_uses(instruction, nested(emit, new, old))
    computation.remove(instruction)
    return True
