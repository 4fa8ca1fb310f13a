"""What an emitter sees: the kernel it writes code into, and the tables that it is entered in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

from hloc.codegen.arrays import ArrayRef, Element, Register, flattened, grouped
from hloc.codegen.bodies import MOST_NESTED, Body
from hloc.codegen.kernel_rows import ELEMENTS, KERNELS, KernelRow, Kernels, element, kernel
from hloc.codegen.llvm import Builder, Value, integer
from hloc.codegen.loops import Flat, Index, index_constant, loop_groups
from hloc.codegen.program import CONTEXT_FIELDS, External
from hloc.errors import HloError
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction

if TYPE_CHECKING:
    from hloc.codegen.epilogue import Finisher
    from hloc.codegen.targets.target import Target

__all__ = ["ELEMENTS", "KERNELS", "ArrayRef", "Element", "Index", "KernelContext", "KernelRow", "Kernels", "Register",
           "element", "index_constant", "kernel"]

_Result = TypeVar("_Result")

_BLOCK, _VECTORS, _BLOCKS = 2048, 64, 64
"""Elements of a block in loops that threads share: at most so many, and a multiple of the next; and how many blocks
there are at least."""


_SHORT, _SHORT_NARROW, _SHORT_FOLD = 7, 8, 16
"""Iterations of an inner loop that is written out, so that the one around it is vectorized instead: of one that fills
no vector, of elements of 32 bits or of fewer, and of one with values carried from each iteration to the next.
"""


class KernelContext:
    """A kernel being written.

    `b` is the Builder; `instruction` the op that an emitter of KERNELS was called for; `outputs` the result
    leaves in memory (of the kernel: with a `finisher`, its roots); `scratch` the temporary memory (64-byte
    aligned), `context` the execution context (`program.CONTEXT_FIELDS`). `is_fused` says that the op is one of a
    fused computation. `status` is an i32 that is not 0 when the op failed (a key of `program.ERRORS`): to be set,
    at the end of its code, by an op whose row says that it fails.

    With a `range` (begin, end), the kernel is one thread's part: the outermost loop of its first nest goes through
    the range alone. `range_size` is then how many indices that loop has, 0 if there was none to divide;
    `outer_nests` counts the nests that are in no other. There are as many threads as `workers`; the first `cleared`
    bytes of each one's scratch are 0 when it begins. What comes after
    `in_parts` is then left to one thread: the kernel `finishes`, in code of its own, which is written by a context that
    `is_finishing`. The kernel `is_streaming` if some of its stores have to be waited for (`streams.py`).
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
        self.turn: Value | None = None
        self.range_size = 0
        self.cleared = 0
        self.outer_nests = 0
        self.finishes = False
        self.is_finishing = False
        self.is_streaming = False
        self.only_calls = False
        self.short_fold = _SHORT_FOLD

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

        self.reduce_loop(dims, (), iteration, order, interleave, independent=True)

    def reduce_loop(
        self,
        dims: Sequence[int],
        initial: Sequence[Register],
        body: Callable[[Index, list[Register]], Sequence[Register]],
        order: Sequence[int] | None = None,
        interleave: int = 0,
        independent: bool = False,
    ) -> list[Register]:
        """A loop nest, in order, with values carried from each iteration to the next; the last ones.

        `body(index, carried)` gives the next carried values. Iterations are `independent` as those of `loop_nest` are.
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

            vectors = interleave if depth == len(groups) - 1 else 0
            if is_outer and depth == 0 and self.range is not None and not initial:
                self._ranged_loop(prod(sizes), len(groups) == 1, iteration, vectors)
                return []
            count, is_inner = prod(sizes), depth > 0 or not is_outer
            flat = is_inner and count <= (self.short_fold if initial else self.short)
            return self.b.for_loop_carrying(
                0, count, carried, iteration, interleave=vectors, flat=flat, independent=independent
            )

        self._open_nests += 1
        results = grouped(level(0, flattened(initial)), initial)
        self._open_nests -= 1
        return results

    @property
    def short(self) -> int:
        """Iterations of a short loop without carried values; of one with them, `short_fold`."""
        arrays = [leaf for _, leaf in self.instruction.shape.leaves() if leaf.is_array]
        return _SHORT_NARROW if any(leaf.dtype.itemsize < 4 for leaf in arrays) else _SHORT

    def _ranged_loop(
        self, size: int, is_innermost: bool, iteration: Callable[[Value, list[Value]], object], interleave: int
    ) -> None:
        """The loop over a thread's part of 0 .. size - 1; the range of an innermost one is of blocks of it.

        LLVM then knows that whole vectors will do; of a loop that may end anywhere it also writes what is left over,
        several times with different numbers of lanes.
        """
        block = _block_size(size) if is_innermost else 1
        self.range_size = size // block
        begin, end = (self.b.mul(limit, index_constant(block), " nuw nsw") for limit in self.range)
        with self.b.for_loop(begin, end, interleave=interleave, multiple=block, independent=True) as number:
            iteration(number, [])

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

    def in_turns(self, turns: int, count: int, body: Callable[[Value, Value], object]) -> None:
        """Runs body(turn, number) for all numbers below `count`, in each turn perhaps by several threads.

        This is all of the kernel's code; the op's row has as many turns.
        """
        if self.range is not None:
            with self.ranged(count) as limits, self.b.for_loop(*limits, unroll=False) as number:
                body(self.turn, number)
            return
        with self.b.for_loop(0, turns, unroll=False) as turn, self.b.for_loop(0, count, unroll=False) as number:
            body(turn, number)

    def in_parts(self, count: int, part: Callable[[Value], object], finish: Callable[[], object]) -> None:
        """Runs part(number) for 0 .. count - 1, each perhaps by another thread; when all are done, `finish`.

        This is all of the kernel's code. The parts leave what they make in scratch, which all threads have in common:
        the op's row says so.
        """
        if self.range is not None:
            self.finishes = True
            with self.ranged(count) as limits, self.b.for_loop(*limits, unroll=False) as number:
                part(number)
            return
        if not self.is_finishing:
            with self.b.for_loop(0, count, unroll=False) as number:
                part(number)
        finish()

    def needed_splits(self) -> dict[int, set[int]]:
        """Loops to divide, beyond `splits`: {number of the nest: positions in its order}.

        If there are any, the code is right but slow with divisions: emit it again with these splits added.
        """
        needed: dict[int, set[int]] = {}
        for nest, positions, flat in self._flats:
            if flat.splits:
                needed.setdefault(nest, set()).update(positions[split] for split in flat.splits)
        return needed


def _block_size(size: int) -> int:
    """A divisor of a size that takes whole vectors, several at a time, and leaves many blocks; 1 if there is none."""
    most = min(_BLOCK, size // _BLOCKS) // _VECTORS * _VECTORS
    return next((block for block in range(most, 0, -_VECTORS) if size % block == 0), 1)
