"""A graph of ops evaluated element by element: fused computations, and computations of scalars.

Values already computed for an index are found again through the value tables of the builder's blocks, so
that reuse never crosses into code which the first computation does not dominate.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from hloc.analysis.layouts import moves_nothing
from hloc.analysis.moves import Leaf
from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Element, Register
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.loops import Index, index_key
from hloc.codegen.scalar_control import CONTROL, results_of
from hloc.errors import HloError
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.opcodes import OPS
from hloc.ir.shapes import ArrayShape

if TYPE_CHECKING:
    from hloc.codegen.kernel import KernelContext

PASS_THROUGH = ("opt-barrier", "add-dependency", "domain")
"""Ops whose result is their first operand."""

MOST_NESTED = 32
"""Levels of computations that one kernel inlines."""

INLINED = ("fusion", "call")
"""Ops that stand for the root of the computation they call."""

_ELEMENTWISE = frozenset(name for name, op in OPS.items() if op.is_elementwise)

_serials = count()


def source(instruction: Instruction, leaf: tuple[int, ...]) -> Leaf:
    """Where a leaf comes from, seen through tuples and ops that do nothing."""
    while True:
        if instruction.opcode == "get-tuple-element":
            leaf = (instruction.attributes["index"], *leaf)
            instruction = instruction.operands[0]
        elif instruction.opcode == "tuple" and leaf:
            instruction, leaf = instruction.operands[leaf[0]], leaf[1:]
        elif instruction.opcode in PASS_THROUGH:
            instruction = instruction.operands[0]
        else:
            return instruction, leaf


def literal_at(literal: Literal, leaf: tuple[int, ...]) -> Literal:
    """The leaf of a constant's value."""
    for position in leaf:
        literal = literal.value[position]
    return literal


def is_immediate(literal: Literal) -> bool:
    """Whether a constant array needs no memory: all its elements are equal."""
    return literal.shape.count > 0 and literal.is_splat()


def is_alias(instruction: Instruction) -> bool:
    """Whether the op's result is its operand's memory as it lies."""
    if instruction.opcode == "bitcast":
        return True
    return instruction.opcode in ("reshape", "transpose") and moves_nothing(instruction)


def lies_in_memory(instruction: Instruction) -> bool:
    """Whether a value of a fused computation has memory: a parameter or a constant, whatever its shape."""
    while True:
        instruction, _ = source(instruction, ())
        if not is_alias(instruction):
            return instruction.opcode in ("parameter", "constant")
        instruction = instruction.operands[0]


def immediate(literal: Literal) -> Element:
    """A constant whose elements are all equal, as an Element."""
    return partial(_given, scalar.constant(literal.shape.dtype, literal.array.reshape(-1)[0]))


class Body:
    """Instructions of which some leaves are bound: to Elements, or to arrays where they lie in memory."""

    def __init__(self, elements: dict[Leaf, Element], arrays: dict[Leaf, ArrayRef]):
        self._elements = elements
        self._arrays = arrays
        self._inner: dict[Instruction, Body] = {}
        self._serial = next(_serials)

    @staticmethod
    def of_scalars(computation: Computation, values: Sequence[Register]) -> Body:
        """A computation whose parameter leaves, in order, have these values."""
        leaves = [(p, leaf) for p in computation.parameters for leaf, _ in p.shape.leaves()]
        bound = {leaf: partial(_given, value) for leaf, value in zip(leaves, values, strict=True)}
        return Body(bound, {})

    def bind(self, leaf: Leaf, element: Element) -> None:
        """Let a leaf be an Element from here on."""
        self._elements[leaf] = element

    def array(self, instruction: Instruction, leaf: tuple[int, ...] = ()) -> ArrayRef | None:
        """The memory of a leaf, if it has any, under the shape of the leaf."""
        alias: ArrayShape | None = None
        while True:
            instruction, leaf = source(instruction, leaf)
            array = self._arrays.get((instruction, leaf))
            if array is not None:
                return array if alias is None else ArrayRef(array.builder, alias, array.pointer)
            if not is_alias(instruction):
                return None
            alias = alias or instruction.shape
            instruction = instruction.operands[0]

    def lies_at(self, pointer: Value) -> bool:
        """Whether an array that is read lies there."""
        return any(array.pointer.text == pointer.text for array in self._arrays.values())

    def arrays_like(self, shape: ArrayShape) -> list[ArrayRef]:
        """The arrays that are read which have the same sizes and layout."""
        form = shape.dims, shape.minor_to_major
        return [array for array in self._arrays.values() if (array.shape.dims, array.shape.minor_to_major) == form]

    def element(self, k: KernelContext, instruction: Instruction, leaf: tuple[int, ...] = ()) -> Element:
        """A leaf as an Element."""
        return partial(self.evaluate, k, instruction, leaf)

    def results(self, k: KernelContext, root: Instruction) -> list[Register]:
        """The leaves of a root of scalars."""
        for _, shape in root.shape.leaves():
            if shape.dims:
                message = f"a computation applied to scalars has {shape!r} in its result, expected scalars"
                raise HloError(message, root.span)
        return [self.evaluate(k, root, leaf, ()) for leaf, _ in root.shape.leaves()]

    def evaluate(
        self, k: KernelContext, instruction: Instruction, leaf: tuple[int, ...], index: Index
    ) -> Register:
        """The element of a leaf at an index, at the builder's place.

        Chains of ops that keep the index are followed without recursion: they may be of any length.
        """
        wanted = source(instruction, leaf)
        at = index_key(index)
        value = _recall(k.b, (self._serial, wanted, at))
        pending = [wanted] if value is None else []
        opened: set[Leaf] = set()
        while pending:
            node = pending[-1]
            key = self._serial, node, at
            value = _recall(k.b, key)
            if value is not None:
                pending.pop()
                continue
            if node not in opened and self._keeps_index(node):
                opened.add(node)
                pending += self._same_index_operands(node[0])
                continue
            pending.pop()
            value = k.b.block.tables[0][key] = self._compute(k, node, index)
        return value  # of the node that was there first

    def _keeps_index(self, node: Leaf) -> bool:
        return node[0].opcode in _ELEMENTWISE and node not in self._elements and node not in self._arrays

    def _same_index_operands(self, instruction: Instruction) -> list[Leaf]:
        dims = instruction.shape.dims
        operands = [operand for operand in reversed(instruction.operands) if operand.shape.dims == dims]
        return [source(operand, ()) for operand in operands]

    def _compute(self, k: KernelContext, node: Leaf, index: Index) -> Register:
        bound = self._elements.get(node)
        if bound is not None:
            return bound(index)
        instruction, leaf = node
        array = self._arrays.get(node)
        if array is not None:
            return array.load(index)
        if instruction.opcode == "constant":
            return self._constant(instruction, leaf)
        if instruction.opcode in INLINED:
            inner, root = self._called(k, instruction), instruction.called[0].root
            return k.descend(lambda: inner.evaluate(k, root, leaf, index))
        if instruction.opcode in CONTROL:
            return self._control(k, instruction)[leaf]
        operands = [self.element(k, operand) for operand in instruction.operands]
        return k.compute(instruction, operands, index)

    def _constant(self, instruction: Instruction, leaf: tuple[int, ...]) -> Register:
        literal = literal_at(instruction.attributes["literal"], leaf)
        if not is_immediate(literal):
            message = "an array constant is not supported in a computation applied to scalars"
            raise HloError(message, instruction.span)
        return immediate(literal)(())

    def _control(self, k: KernelContext, instruction: Instruction) -> dict[tuple[int, ...], Register]:
        """All leaves of a while or conditional, which are remembered here for each of them."""
        operands = [self.results(k, operand) for operand in instruction.operands]
        values = results_of(k, instruction, operands)
        leaves = [leaf for leaf, _ in instruction.shape.leaves()]
        for leaf, value in zip(leaves, values, strict=True):
            k.b.block.tables[0][self._serial, (instruction, leaf), ""] = value
        return dict(zip(leaves, values, strict=True))

    def _called(self, k: KernelContext, instruction: Instruction) -> Body:
        """The body of a computation called here, its parameters bound to this body's values."""
        inner = self._inner.get(instruction)
        if inner is None:
            elements: dict[Leaf, Element] = {}
            arrays: dict[Leaf, ArrayRef] = {}
            parameters = instruction.called[0].parameters
            for parameter, operand in zip(parameters, instruction.operands, strict=True):
                for leaf, _ in parameter.shape.leaves():
                    elements[parameter, leaf] = self.element(k, operand, leaf)
                    array = self.array(operand, leaf)
                    if array is not None:
                        arrays[parameter, leaf] = array
            inner = self._inner[instruction] = Body(elements, arrays)
        return inner


def _given(value: Register, index: Index) -> Register:
    return value


def _recall(b: Builder, key: tuple[int, Leaf, str]) -> Register | None:
    """What a body remembers of a leaf at an index where that dominates the builder's place."""
    for table in b.block.tables:
        found = table.get(key)
        if found is not None:
            return found
    return None
