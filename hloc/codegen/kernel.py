"""What an emitter sees: the tables of ops, and the kernel it writes code into.

An op is made native in one of two tables. ELEMENTS: a function that gives one result element at an index
from its operands' elements; such ops fuse freely. KERNELS: a function that writes the op's own loops; it may
take some operands as Elements (then their producers fuse into it), others as arrays in memory. An op's
emitter is loaded when the op is first looked up; `emitters/__init__.py` says where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hloc.codegen.arrays import ArrayRef, Element, Register, flattened, grouped
from hloc.codegen.bodies import MOST_NESTED, Body
from hloc.codegen.emitters import ELEMENT_HOMES, KERNEL_HOMES
from hloc.codegen.llvm import Builder, Value, integer
from hloc.codegen.loops import Flat, Index, index_constant, loop_groups
from hloc.codegen.program import CONTEXT_FIELDS, External
from hloc.errors import HloError
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.lazy import Table
from hloc.records import record

if TYPE_CHECKING:
    from hloc.codegen.attention_plan import AttentionPlan
    from hloc.codegen.epilogue import Epilogue, Finisher
    from hloc.codegen.row_stages import RowStages
    from hloc.codegen.targets.target import Target

__all__ = ["ELEMENTS", "KERNELS", "ArrayRef", "Element", "Index", "KernelContext", "KernelRow", "Kernels", "Register",
           "element", "index_constant", "kernel"]

ElementFunction = Callable[["KernelContext", Instruction, list[Element], Index], Register]
Pairs = tuple[tuple[int, int], ...]
_Result = TypeVar("_Result")

ELEMENTS: Table[ElementFunction] = Table(ELEMENT_HOMES)
"""opcode -> fn(k, instruction, operands, index): the result's element at `index`."""


@record
class KernelRow:
    """One op with loops of its own.

    `emit(k, instruction)` writes the code. `element_operands(instruction)` gives the numbers of the operands
    that `emit` takes through `k.input` (all others are arrays in memory, for `k.input_array`),
    `scratch(instruction)` the bytes of temporary memory that it needs (in a fusion, `fused_scratch(instruction,
    epilogue)`, if the row has one), `in_place(instruction)` the pairs
    (operand number, output number) that may share memory. The code of an op that `fails` leaves its outcome
    in `k.status`. An op of which `takes_epilogue(instruction)` stores its results through `k.store`, and
    `written_once(instruction, epilogue)` are the roots of whose elements it writes each once, at the end.
    The arrays of a `strided` one may be seen through ops that leave them where they lie (see `strided.py`). The
    code of one that `is_loop` is a single loop nest; what comes before it may be done again by each thread.
    """

    emit: Callable[[KernelContext, Instruction], None]
    element_operands: Callable[[Instruction], Iterable[int]]
    scratch: Callable[[Instruction], int]
    in_place: Callable[[Instruction], Pairs]
    fails: bool
    takes_epilogue: Callable[[Instruction], bool]
    fused_scratch: Callable[[Instruction, Epilogue | None], int] | None
    strided: bool
    written_once: Callable[[Instruction, Epilogue], Sequence[int]]
    is_loop: bool


KERNELS: Table[KernelRow] = Table(KERNEL_HOMES)
"""opcode -> row, of CPUs."""


class AttentionWay(Protocol):
    """How a kind of target computes the attention of a plan."""

    plan: AttentionPlan

    @property
    def scratch_bytes(self) -> int:
        """Bytes of temporary memory."""
        ...


@record
class Kernels:
    """What can be one kernel on a kind of target, besides loop nests over elements.

    `own` are the ops with loops of their own. `rows` gives the bytes of temporary memory that a fused computation
    which goes by rows needs, None if there can be none; `attention` the way to compute an attention, if there is one.
    """

    own: Mapping[str, KernelRow]
    rows: Callable[[RowStages], int] | None
    attention: Callable[[AttentionPlan], AttentionWay | None] | None


def element(*opcodes: str) -> Callable[[ElementFunction], ElementFunction]:
    """Decorator: the function is the ELEMENTS entry of these opcodes."""

    def enter(function: ElementFunction) -> ElementFunction:
        for opcode in opcodes:
            ELEMENTS.enter(opcode, function)
        return function

    return enter


def kernel(
    *opcodes: str,
    element_operands: str | Callable[[Instruction], Iterable[int]] = "none",
    scratch: Callable[[Instruction], int] = lambda instruction: 0,
    in_place: Callable[[Instruction], Pairs] = lambda instruction: (),
    fails: bool = False,
    takes_epilogue: Callable[[Instruction], bool] = lambda instruction: False,
    fused_scratch: Callable[[Instruction, Epilogue | None], int] | None = None,
    strided: bool = False,
    written_once: Callable[[Instruction, Epilogue], Sequence[int]] = lambda instruction, epilogue: (),
    is_loop: bool = False,
    table: Table[KernelRow] = KERNELS,
) -> Callable[[Callable[[KernelContext, Instruction], None]], Callable[[KernelContext, Instruction], None]]:
    """Decorator: the function is the entry of these opcodes in KERNELS, or another table. See KernelRow for the rest.

    `element_operands` may also be "all" or "none". The two operands of a pair of `in_place` have the same
    shape and layout; `k.is_in_place(operand, output)` tells the emitter whether they do share memory.
    """

    def numbers(instruction: Instruction) -> Iterable[int]:
        if callable(element_operands):
            return element_operands(instruction)
        return range(len(instruction.operands)) if element_operands == "all" else ()

    def enter(function: Callable[[KernelContext, Instruction], None]):
        row = KernelRow(
            function, numbers, scratch, in_place, fails, takes_epilogue, fused_scratch, strided, written_once, is_loop
        )
        for opcode in opcodes:
            table.enter(opcode, row)
        return function

    return enter


class KernelContext:
    """A kernel being written.

    `b` is the Builder; `instruction` the op that an emitter of KERNELS was called for; `outputs` the result
    leaves in memory (of the kernel: with a `finisher`, its roots); `scratch` the temporary memory (64-byte
    aligned), `context` the execution context (`program.CONTEXT_FIELDS`). `is_fused` says that the op is one of a
    fused computation. `status` is an i32 that is not 0 when the op failed (a key of `program.ERRORS`): to be set,
    at the end of its code, by an op whose row says that it fails.

    With a `range` (begin, end), the kernel is one thread's part: the outermost loop of its first nest goes through
    the range alone. `range_size` is then how many indices that loop has, 0 if there was none to divide;
    `outer_nests` counts the nests that are in no other. There are as many threads as `workers`.
    """

    def __init__(
        self,
        b: Builder,
        target: Target,
        instruction: Instruction,
        body: Body,
        outputs: list[ArrayRef],
        scratch: Value,
        context: Value,
        splits: dict[int, set[int]] | None = None,
        externals: dict[External, int] | None = None,
        is_fused: bool = False,
    ):
        self.b = b
        self.target = target
        self.instruction = instruction
        self.body = body
        self.outputs = outputs
        self.scratch = scratch
        self.context = context
        self.status: Value = integer("i32", 0)
        self.finisher: Finisher | None = None
        self.is_fused = is_fused
        self._splits = splits or {}
        self._externals = {} if externals is None else externals
        self._flats: list[tuple[int, list[int], Flat]] = []
        self._nests = count()
        self._open_nests = 0
        self._level = 0
        self.range: tuple[Value, Value] | None = None
        self.workers = 1
        self.range_size = 0
        self.outer_nests = 0

    def inside(self, body: Body, outputs: list[Any], scratch: Value) -> KernelContext:
        """The same kernel, for a part of it that is written with other ops, results and temporary memory.

        `outputs` have `store(index, value)`, as ArrayRefs have.
        """
        part = copy(self)
        part.body, part.outputs, part.scratch, part.finisher = body, outputs, scratch, None
        return part

    # Operands and results

    def input(self, number: int, leaf: tuple[int, ...] = ()) -> Element:
        """Operand `number` (or a leaf of it) element by element: a fused producer, or a load from memory."""
        return self.body.element(self, self.instruction.operands[number], leaf)

    def input_array(self, number: int, leaf: tuple[int, ...] = ()) -> ArrayRef:
        """Operand `number` in memory. ValueError if the row takes it as an Element and it was fused."""
        array = self.body.array(self.instruction.operands[number], leaf)
        if array is None:
            raise ValueError(f"operand {number} of {self.instruction.opcode} is not in memory")
        return array

    def store(self, index: Index, values: Sequence[Register]) -> None:
        """Puts the op's results at an index, one for each output, or what its epilogue makes of them."""
        if self.finisher is not None:
            self.finisher.store(index, values)
            return
        for output, value in zip(self.outputs, values, strict=True):
            output.store(index, value)

    def is_in_memory(self, number: int) -> bool:
        """Whether `input_array` can give operand `number`."""
        return self.body.array(self.instruction.operands[number]) is not None

    def is_in_place(self, operand: int, output: int) -> bool:
        """Whether an operand's and an output's memory are the same."""
        array = self.body.array(self.instruction.operands[operand])
        return array is not None and array.pointer.text == self.outputs[output].pointer.text

    def error(self, message: str, instruction: Instruction | None = None) -> HloError:
        """An error about the instruction (or another one), to be raised: what is not supported, and why."""
        return HloError(message, (instruction or self.instruction).span)

    def compute(self, instruction: Instruction, operands: list[Element], index: Index) -> Register:
        """One result element of an op of the ELEMENTS table."""
        function = ELEMENTS.get(instruction.opcode)
        if function is None:
            message = f"{instruction.opcode} is not supported in this place on {self.target.name} yet"
            raise self.error(message, instruction)
        return function(self, instruction, operands, index)

    def choose(
        self, condition: Value, then: Callable[[], Register], otherwise: Callable[[], Register]
    ) -> Register:
        """One of two register values of the same type; only the chosen one is computed."""
        like: list[Register] = []

        def values(make: Callable[[], Register]) -> list[Value]:
            value = make()
            like.append(value)
            return flattened([value])

        merged = self.b.if_else(condition, lambda: values(then), lambda: values(otherwise))
        return grouped(merged, like[:1])[0]

    def copy(self, source: ArrayRef, target: ArrayRef) -> None:
        """Copies an array to another of the same shape, whatever the layouts; they must not overlap."""
        if source.shape.minor_to_major == target.shape.minor_to_major:
            self.b.memcpy(target.pointer, source.pointer, index_constant(target.shape.byte_size))
            return
        order = target.shape.minor_to_major[::-1]
        self.loop_nest(target.shape.dims, lambda i: target.store(i, source.load(i)), order)

    # The world outside

    def external(self, external: External) -> tuple[int, Value]:
        """The number of a function outside of the program, and its address."""
        number = self._externals.setdefault(external, len(self._externals))
        field = index_constant(CONTEXT_FIELDS.index("externals"))
        table = self.b.load("ptr", self.b.gep("ptr", self.context, field), invariant=True)
        return number, self.b.load("ptr", self.b.gep("ptr", table, index_constant(number)), invariant=True)

    # Nested computations

    def apply(self, computation: Computation, values: Sequence[Register]) -> list[Register]:
        """Inlines a computation of scalars here: a value a parameter leaf, a result a leaf of its root."""
        return self.descend(lambda: Body.of_scalars(computation, values).results(self, computation.root))

    def descend(self, inline: Callable[[], _Result]) -> _Result:
        """Inlines a nested computation. HloError beyond MOST_NESTED levels: emitting them is recursive."""
        if self._level == MOST_NESTED:
            raise self.error(f"calls are nested more than {MOST_NESTED} levels deep in one kernel")
        self._level += 1
        try:
            return inline()
        finally:
            self._level -= 1

    # Loops

    def loop_nest(
        self,
        dims: Sequence[int],
        body: Callable[[Index], object],
        order: Sequence[int] | None = None,
        interleave: int = 0,
    ) -> None:
        """Runs `body(index)` for every index of a space of `dims`, the last dimension fastest.

        `order` lists the dimensions from the outermost loop to the innermost (`shape.layout.major_to_minor`
        walks an array in memory order). Iterations must not depend on each other; several dimensions may be
        run through by one loop. No value made in the body may be used after it. `interleave` is how many
        vectors the innermost loop handles at a time; 0 leaves it to LLVM.
        """

        def iteration(index: Index, carried: list[Register]) -> Sequence[Register]:
            body(index)
            return ()

        self.reduce_loop(dims, (), iteration, order, interleave)

    def reduce_loop(
        self,
        dims: Sequence[int],
        initial: Sequence[Register],
        body: Callable[[Index, list[Register]], Sequence[Register]],
        order: Sequence[int] | None = None,
        interleave: int = 0,
    ) -> list[Register]:
        """A loop nest, in order, with values carried from each iteration to the next; the last ones.

        `body(index, carried)` gives the next carried values.
        """
        if 0 in dims:
            return list(initial)
        nest = next(self._nests)
        is_outer = not self._open_nests
        self.outer_nests += is_outer
        order = tuple(range(len(dims))) if order is None else tuple(order)
        groups = loop_groups([dims[d] for d in order], self._splits.get(nest, set()))
        index: list[Value] = [index_constant(0)] * len(dims)

        def level(depth: int, carried: list[Value]) -> list[Value]:
            if depth == len(groups):
                return flattened(body(tuple(index), grouped(carried, initial)))
            sizes = [dims[order[position]] for position in groups[depth]]

            def iteration(value: Value, values: list[Value]) -> list[Value]:
                flat = Flat(self.b, value, sizes)
                self._flats.append((nest, groups[depth], flat))
                for position, part in zip(groups[depth], flat.parts(), strict=True):
                    index[order[position]] = part
                return level(depth + 1, values)

            hints = ""
            if interleave and depth == len(groups) - 1:
                hints = self.b.module.loop_metadata(interleave=interleave)
            begin, end = 0, prod(sizes)
            if is_outer and depth == 0 and self.range is not None and not initial:
                self.range_size = end
                begin, end = self.range
            return self.b.for_loop_carrying(begin, end, carried, iteration, metadata=hints)

        self._open_nests += 1
        results = grouped(level(0, flattened(initial)), initial)
        self._open_nests -= 1
        return results

    @contextmanager
    def ranged(self, size: int) -> Iterator[tuple[Value, Value]]:
        """The `range` for a loop of the emitter's own making, through `size` indices: all of the kernel's code."""
        assert self.range is not None
        limits, self.range = self.range, None
        self.range_size = size
        self.outer_nests += 1
        self._open_nests += 1
        yield limits
        self._open_nests -= 1

    def needed_splits(self) -> dict[int, set[int]]:
        """Loops to divide, beyond `splits`: {number of the nest: positions in its order}.

        If there are any, the code is right but slow with divisions: emit it again with these splits added.
        """
        needed: dict[int, set[int]] = {}
        for nest, positions, flat in self._flats:
            if flat.splits:
                needed.setdefault(nest, set()).update(positions[split] for split in flat.splits)
        return needed
