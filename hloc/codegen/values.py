"""Values in memory and the steps that make them.

A Value is a content of memory that never changes while the value lives; a View is a value seen under a shape.
"""

from __future__ import annotations

from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.shapes import ArrayShape, Shape
from hloc.records import NamedTuple

ARGUMENT, CONSTANT, MADE = "argument", "constant", "made"

SMALL_BYTES = 64
"""Values so small lie on the stack, where LLVM sees all that is done to them and keeps them in registers."""


class Value:
    """One content: the argument leaf `number`, the constant `literal`, or what the step `defined` makes.

    `last_use` is the number of the last step that reads it; the number of steps stands for the end.
    """

    __slots__ = ("kind", "bytes", "number", "literal", "defined", "last_use")

    def __init__(self, kind: str, shape: ArrayShape, number: int = -1, literal: Literal | None = None):
        self.kind = kind
        self.bytes = shape.byte_size
        self.number = number
        self.literal = literal
        self.defined = -1
        self.last_use = -1


class View(NamedTuple):
    """A value under a shape, whose layout says how it lies in memory."""

    value: Value
    shape: ArrayShape


def constant_view(literal: Literal, shape: ArrayShape) -> View:
    """A constant, in memory as `shape` has it."""
    shape = shape.with_default_layout()
    return View(Value(CONSTANT, shape, literal=Literal(shape, literal.value)), shape)


Leaves = dict[tuple[int, ...], View]
"""The array leaves of an instruction's result, depth first; tokens are none."""


class Step:
    """One op that runs: it reads `inputs` and makes `outputs`."""

    def __init__(self, instruction: Instruction, inputs: list[View]):
        self.instruction = instruction
        self.inputs = inputs
        self.outputs: list[View] = []

    def pairs(self) -> list[tuple[int, int]]:
        """(input, output) numbers that may share memory, if no later step needs the input's value."""
        return []


class CallStep(Step):
    """A call of a computation, a choice between several (the first input chooses), or a loop.

    `callees` are the called computations, of a loop its condition and body; `operands` the leaves that each
    of them is given. An input that is `carried` to an output, (input, output), lies in its memory when the
    callees begin: these are given the output for it. Of a loop that is the state but for what its body only
    passes on.
    """

    def __init__(
        self,
        instruction: Instruction,
        inputs: list[View],
        callees: tuple[Computation, ...],
        operands: list[list[View]],
    ):
        super().__init__(instruction, inputs)
        self.callees = callees
        self.operands = operands
        self.carried: list[tuple[int, int]] = []

    @property
    def is_loop(self) -> bool:
        return self.instruction.opcode == "while"

    def pairs(self) -> list[tuple[int, int]]:
        """What is carried may be there already, even if it is carried to several places, the first of them.

        Branches may all be given it, but of them one runs. What a loop's body only passes on stays as it is.
        """
        values = [view.value for view in self.inputs]
        able = sorted({before for before, _ in self.carried}) if self.is_loop else range(len(values))
        return [(i, after) for before, after in self.carried for i in able if values[i] is values[before]]

    def slots(self, callee: int) -> tuple[int | None, ...]:
        """For each argument of a callee the output in whose memory it lies; None if it may not be written."""
        outputs = {view.value: number for number, view in enumerate(self.outputs)}
        return tuple(outputs.get(view.value) for view in self.operands[callee])


def array_shapes(shape: Shape) -> list[ArrayShape]:
    """The array leaves of a shape, row-major where no layout is given."""
    return [leaf.with_default_layout() for _, leaf in shape.leaves() if leaf.is_array]


def argument_shapes(computation: Computation) -> list[ArrayShape]:
    """The array leaves of all parameters, row-major where no layout is given."""
    return [leaf for parameter in computation.parameters for leaf in array_shapes(parameter.shape)]


def same_memory(a: ArrayShape, b: ArrayShape) -> bool:
    """Whether arrays of these shapes, which have the same dimensions, lie in memory alike."""
    wide = [[d for d in shape.minor_to_major if shape.dims[d] != 1] for shape in (a, b)]
    return wide[0] == wide[1]
