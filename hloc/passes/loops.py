"""Loops over a flat tuple, and the edits of their state that passes on loops have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hloc.analysis.effects import Effects
from hloc.ir.builder import make
from hloc.ir.clone import clone_computation
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module, call_order
from hloc.ir.shapes import Shape, TupleShape
from hloc.passes.emit import Emit


def loops_of(module: Module) -> list[Instruction]:
    """The whiles that the entry reaches, those inside of others first."""
    return [i for computation in call_order(module.entry) for i in computation if i.opcode == "while"]


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

    def own(self, instruction: Instruction, attribute: str) -> Computation:
        """The computation that an attribute names; a copy of it if others name it too."""
        computation = instruction.attributes[attribute]
        if self._uses[computation] == 1:
            return computation
        copy = self.copy(computation)
        self._uses[computation] -= 1
        self._uses[copy] = 1
        instruction.attributes[attribute] = copy
        return copy

    def copy(self, computation: Computation) -> Computation:
        """A copy, in the module, that nothing names yet."""
        copy = self.module.add_computation(clone_computation(computation))
        for instruction in copy:
            self._count(instruction)
        return copy


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
        parameter = _new_parameter(self.body, TupleShape(shapes), places)
        passed = [element_after(parameter, number) for number in new_numbers]
        _new_root(self.body, [*(self.results[number] for number in kept), *passed])
        _new_parameter(self.condition, TupleShape(shapes), places)
        for computation in (self.condition, self.body):
            sweep(computation, effects)
            _drop_old_parameter(computation)
        emit = Emit.at(old)
        new = emit.op("while", TupleShape(shapes), [emit.tuple(initial)], **old.attributes)
        new.annotations = _without_numbers(old.annotations)
        _take_reads(old, new, places)
        start = old.operands[0]
        old.computation.remove(old)
        if not start.users and not start.is_root:
            start.computation.remove(start)
        self.instruction = new
        return new_numbers

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


def _new_parameter(computation: Computation, shape: Shape, places: dict[int, int]) -> Instruction:
    """A parameter of another shape; what read the kept elements of the old one reads them in their new places."""
    old = computation.parameters[0]
    new = make(
        computation, "parameter", [], {"number": 0}, shape=shape, before=old, name=old.name, like=old
    )
    _take_reads(old, new, places)
    return new


def _take_reads(old: Instruction, new: Instruction, places: dict[int, int]) -> None:
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


def _drop_old_parameter(computation: Computation) -> None:
    for instruction in computation:
        if instruction.opcode == "parameter" and instruction is not computation.parameters[0]:
            computation.remove(instruction)


def _without_numbers(annotations: dict[str, object]) -> dict[str, object]:
    """The annotations but a config that speaks of elements by number, which has come to be wrong."""
    config = annotations.get("backend_config")
    speaks = "tuple_index" in getattr(config, "text", config or "")
    return {key: value for key, value in annotations.items() if not (speaks and key == "backend_config")}


def _new_root(computation: Computation, results: Sequence[Instruction]) -> None:
    old = computation.root
    shape = TupleShape(tuple(value.shape for value in results))
    computation.root = make(computation, "tuple", results, shape=shape, like=old)
    if not old.users:
        computation.remove(old)


# Explicit form


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
    _flat_parameter(loop.condition, state)
    _flat_parameter(loop.body, state)
    end = Emit(loop.body, like=loop.body.root)
    loop.body.root = end.tuple([_leaf(end, loop.body.root, path) for path in leaves])
    emit = Emit.at(instruction)
    start = emit.tuple([_leaf(emit, instruction.operands[0], path) for path in leaves])
    new = emit.op("while", state, [start], **instruction.attributes)
    new.annotations = dict(instruction.annotations)
    _move_control_edges(instruction, new)
    computation = instruction.computation
    computation.replace_uses(instruction, _nested(emit, new, old))
    computation.remove(instruction)
    return True


def _flat_parameter(computation: Computation, state: TupleShape) -> None:
    old = computation.parameters[0]
    emit = Emit(computation, computation.parameters[0].next, old)
    new = emit.op("parameter", state, number=0)
    computation.replace_uses(old, _nested(emit, new, old.shape))
    computation.remove(old)


def _leaf(emit: Emit, whole: Instruction, path: Sequence[int]) -> Instruction:
    for number in path:
        whole = whole.operands[number] if whole.opcode == "tuple" else emit.element(whole, number)
    return whole


def _nested(emit: Emit, flat: Instruction, shape: Shape) -> Instruction:
    """A value of a nested shape whose leaves are the elements of a flat tuple."""
    leaves = (emit.element(flat, number) for number in range(len(flat.shape.elements)))

    def build(part: Shape) -> Instruction:
        return emit.tuple([build(element) for element in part.elements]) if part.is_tuple else next(leaves)

    return build(shape)


def _move_control_edges(old: Instruction, new: Instruction) -> None:
    computation = old.computation
    for earlier in old.control_predecessors:
        computation.add_control_edge(earlier, new)
    for later in old.control_successors:
        computation.add_control_edge(new, later)
    computation.drop_control_edges(old)
