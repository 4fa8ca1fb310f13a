"""reduce: dimensions folded by a computation.

Where the fastest dimension of the operand is folded, each result is a loop with running values in registers,
which LLVM splits in several sums for known operations; where it is kept, whole rows of running values are
held in memory and the inner loop goes along them. Sums of floats narrower than f32 are made in f32 and
rounded once (as XLA on CPUs does it). Few results of many elements are folded in parts (`parts.py`), whose folds lie in
scratch until the last one is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.folds import Folds
from hloc.codegen.kernel import Index, KernelContext, index_constant, kernel
from hloc.codegen.llvm import Value
from hloc.codegen.loops import delinearize, linear, row_major_strides
from hloc.codegen.parts import Parts
from hloc.codegen.program import ALIGNMENT
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64
from hloc.codegen.rows import Row, Strip, row_bytes, row_dimensions
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape

_FEW = 8
"""Up to this many running values are carried in registers."""

_TOGETHER = 4
"""Rows folded in one pass over the running values."""

_FEW_RESULTS, _WIDEST, _LEAST_ROWS = 32, 1 << 15, 16
"""Results, or rows of them, below which they are folded in parts; places of such rows at most; rows of a part."""

_STREAMS = 4
"""Places of memory that a long fold reads at once: processors fetch more of several than of a single one in advance."""

_LONG, _LARGE = 1 << 11, 1 << 23
"""Bytes of a fold, and of all that is read, from which on several folds side by side read so many places."""


class _Plan:
    """Which dimensions are folded, in which order to go through them, and the form to use."""

    def __init__(self, instruction: Instruction):
        self.count = len(instruction.operands) // 2
        operand = instruction.operands[0].shape
        self.dims = operand.dims
        folded = set(instruction.get("dimensions"))
        self.reducer = Reducer.of_reduce(instruction)
        order = [d for d in operand.minor_to_major[::-1] if self.dims[d] != 1]
        self.kept = [d for d in range(operand.rank) if d not in folded]
        memory = order if self.reducer.operation is not None else range(operand.rank)
        self.folded = [d for d in memory if d in folded and self.dims[d] != 1]
        # The kept dimensions that vary faster than any folded one, fastest last.
        last = max((position for position, d in enumerate(order) if d in folded), default=len(order) - 1)
        self.row = row_dimensions(self.dims, order[last + 1 :])
        self.results = [d for d in order if d not in folded and d not in self.row]

    @property
    def holds_rows(self) -> bool:
        """Whether running values are held in memory, a row at a time."""
        return prod(self.dims[d] for d in self.row) > _FEW

    @property
    def places(self) -> int:
        """The places of a row."""
        return prod(self.dims[d] for d in self.row)

    @property
    def parts(self) -> Parts | None:
        """The parts of each fold, if there are too few folds for threads to have some each."""
        reducer, sizes = self.reducer, [self.dims[d] for d in self.folded]
        if prod(self.dims[d] for d in self.results) >= _FEW_RESULTS or self.places > _WIDEST:
            return None
        if reducer.operation is not None:
            return Parts.of(sizes, self.places, _LEAST_ROWS if self.holds_rows else 1)
        if reducer.choice is None or reducer.choice.ties_apart or self.places > 1:
            return None
        return Parts.of(sizes, self.places)

    @property
    def part_bytes(self) -> int:
        """Scratch for the fold of a part, in whole cache lines."""
        return sum(-(-dtype.itemsize * self.places // ALIGNMENT) * ALIGNMENT for dtype in self.reducer.sums)

    @property
    def scratch_bytes(self) -> int:
        parts = self.parts
        if parts is not None:
            return prod(self.dims[d] for d in self.results) * parts.count * self.part_bytes
        return row_bytes(self.reducer, self.places) if self.holds_rows else 0


@kernel(
    "reduce",
    element_operands="all",
    scratch=lambda instruction: _Plan(instruction).scratch_bytes,
    takes_epilogue=lambda instruction: True,
    is_loop=True,
    common_scratch=lambda instruction, is_fused: _Plan(instruction).parts is not None,
)
def reduce(k: KernelContext, instruction: Instruction) -> None:
    plan = _Plan(instruction)
    if 0 in [plan.dims[d] for d in plan.kept]:
        return
    writer = _Reduce(k, plan)
    if plan.parts is not None:
        _InParts(k, plan).write()
    elif plan.holds_rows:
        writer.along_rows()
    else:
        writer.in_registers()


class _Reduce:
    """Writes the loops of one reduce."""

    def __init__(self, k: KernelContext, plan: _Plan):
        self.k, self.b, self.plan, self.reducer = k, k.b, plan, plan.reducer
        self.initial = self.reducer.widen(k.b, [k.input(plan.count + i)(()) for i in range(plan.count)])

    def elements(self, index: Index) -> list[Register]:
        """The operands' elements at an index, as running values."""
        return self.reducer.widen(self.b, [self.k.input(i)(index) for i in range(self.plan.count)])

    def store(self, index: Sequence[Value], totals: Sequence[Register]) -> None:
        """Stores results; `index` has a place for every dimension of the operand."""
        place = tuple(index[d] for d in self.plan.kept)
        self.k.store(place, self.reducer.narrow(self.b, totals))

    def index(
        self, dims: Sequence[int], values: Sequence[Value], others: Sequence[Value] = ()
    ) -> list[Value]:
        """An index of the operand with some dimensions set."""
        index = list(others) or [index_constant(0)] * len(self.plan.dims)
        for dimension, value in zip(dims, values, strict=True):
            index[dimension] = value
        return index

    def sizes(self, dims: Sequence[int]) -> list[int]:
        return [self.plan.dims[d] for d in dims]

    # Running values in registers

    def in_registers(self) -> None:
        plan, sizes = self.plan, self.sizes(self.plan.results)
        streams = self._streams_of_results()
        if streams > 1:
            sizes[0] //= streams

        def results(outer: Index) -> None:
            row = []
            for stream in range(streams):
                at = (self.b.add(outer[0], i64(stream * sizes[0])), *outer[1:]) if streams > 1 else outer
                index = self.index(plan.results, at)
                row += [self.index(plan.row, at, index) for at in _positions(self.sizes(plan.row))]
            totals = self.fold(row)
            for position, at in enumerate(row):
                self.store(at, totals[position * plan.count : (position + 1) * plan.count])

        self.k.loop_nest(sizes, results)

    def _streams_of_results(self) -> int:
        """How many results, far from each other, are made side by side: of large arrays that lie in memory."""
        plan, operand = self.plan, self.k.instruction.operands[0].shape
        fold = prod(self.sizes(plan.folded)) * operand.dtype.itemsize
        if fold < _LONG or operand.byte_size < _LARGE or not plan.results or not self.k.is_in_memory(0):
            return 1
        if plan.places > 1 or (plan.reducer.operation is None and plan.reducer.choice is None):
            return 1
        most = _STREAMS if plan.reducer.operation is not None else _STREAMS // 2
        return next(n for n in (most, 2, 1) if plan.dims[plan.results[0]] % n == 0)

    def fold(self, row: list[list[Value]]) -> list[Register]:
        """The folds of everything that belongs to each place of a row."""
        folds = self.folds(row, self.sizes(self.plan.folded), [lambda index: index])
        return [value for values in folds.run([self.initial] * len(row)) for value in values]

    def folds(
        self, row: list[list[Value]], sizes: Sequence[int], folded: Sequence[Callable[[Index], Index]]
    ) -> Folds:
        """Folds over a space of `sizes`, side by side: what belongs to the places of a row, for each way `folded`.

        Such a way gives the operand's index along the folded dimensions.
        """

        def elements(index: Index) -> list[list[Register]]:
            indices = [self.index(self.plan.folded, way(index), at) for way in folded for at in row]
            return [self.elements(tuple(index)) for index in indices]

        return Folds(self.k, [self.reducer] * (len(row) * len(folded)), sizes, elements, repeatable=True)

    # Running values in memory

    def along_rows(self) -> None:
        plan = self.plan
        row = Row(Strip(self.k, self.sizes(plan.row)), self.reducer, self.k.scratch)

        def results(outer: Index) -> None:
            index = self.index(plan.results, outer)
            row.strip.run(lambda: self._row(row, index))

        self.k.loop_nest(self.sizes(plan.results), results)

    def _row(self, row: Row, index: list[Value]) -> None:
        row.start(self.initial)
        self.fold_rows(row, index, self.sizes(self.plan.folded), lambda folded: folded)
        row.finish(lambda at, values: self.store(self.index(self.plan.row, at, index), values))

    def fold_rows(
        self, row: Row, index: list[Value], sizes: Sequence[int], folded: Callable[[Index], Index]
    ) -> None:
        """Folds the rows of the operand one after the other into the running values, several in one pass.

        They are those of a space of `sizes`, for which `folded` gives the operand's index.
        """
        plan = self.plan

        def elements(values: Sequence[Value], at: Index) -> list[Register]:
            place = [*at, *folded(tuple(values))]
            return self.elements(tuple(self.index([*plan.row, *plan.folded], place, index)))

        if not sizes:
            row.strip.along(lambda at, place: row.fold(place, [elements((), at)]))
            return
        whole = sizes[-1] // _TOGETHER * _TOGETHER
        rest = sizes[-1] - whole

        def rows(before: Index, first: Value, count: int) -> None:
            numbers = [self.b.add(first, i64(number)) for number in range(count)]
            row.strip.along(
                lambda at, place: row.fold(place, [elements([*before, number], at) for number in numbers])
            )

        def pass_over(before: Index, running: list[Register]) -> list[Register]:
            if whole:
                with self.b.for_loop(i64(0), i64(whole), _TOGETHER, unroll=False) as first:
                    rows(before, first, _TOGETHER)
            if rest:
                rows(before, i64(whole), rest)
            return running

        self.k.reduce_loop(sizes[:-1], [], pass_over)


class _InParts(_Reduce):
    """Writes the loops of a reduce with few results, part by part.

    The folds of the parts lie in scratch one behind the other, result by result.
    """

    def __init__(self, k: KernelContext, plan: _Plan):
        super().__init__(k, plan)
        self.parts = plan.parts
        self.count = prod(self.sizes(plan.results))

    def write(self) -> None:
        self.k.in_parts(self.count * self.parts.count, self._part, self._finish)

    def _part(self, number: Value) -> None:
        result, part = (divide(number, i64(self.parts.count)) for divide in (self.b.udiv, self.b.urem))
        sizes = self.sizes(self.plan.results)
        index = self.index(self.plan.results, delinearize(self.b, result, sizes))
        rest = self.sizes(self.plan.folded[self.parts.dimension + 1 :])

        def folded(before: Index, first: Value, at: Index) -> Index:
            return (*before, self.b.add(first, at[0]), *at[1:])

        def fold(before: Index, first: Value, count: int) -> None:
            if self.plan.holds_rows:
                row = self._row_of(number)
                row.start(self.reducer.identity())
                self.fold_rows(row, index, [count, *rest], partial(folded, before, first))
                return
            streams = self._streams(count)
            starts = [self.b.add(first, i64(stream * (count // streams))) for stream in range(streams)]
            places = [self.index(self.plan.row, at, index) for at in _positions(self.sizes(self.plan.row))]
            ways = [partial(folded, before, start) for start in starts]
            folds = self.folds(places, [count // streams, *rest], ways).alone()
            for position in range(len(places)):
                self._put(number, position, self._joined(folds[position :: len(places)]))

        self.parts.run(self.b, part, fold)

    def _streams(self, count: int) -> int:
        """Into how many pieces the indices of a part are divided, which are read side by side."""
        divides = self.reducer.operation is not None and self.plan.places == 1 and count % _STREAMS == 0
        return _STREAMS if divides else 1

    def _joined(self, folds: list[list[Register]]) -> list[Register]:
        """The fold of a part from those of its pieces."""
        total, *others = folds
        for values in others:
            total = self.reducer.apply(self.k, total, values, regroup=False)
        return total

    def _arrays(self, number: Value) -> list[ArrayRef]:
        """The folds of a part, one for each place of a row."""
        start, arrays = self.b.gep("i8", self.k.scratch, self.b.mul(number, i64(self.plan.part_bytes))), []
        for dtype in self.reducer.sums:
            arrays.append(ArrayRef(self.b, ArrayShape(dtype, (self.plan.places,)), start))
            start = self.b.gep("i8", start, i64(-(-dtype.itemsize * self.plan.places // ALIGNMENT) * ALIGNMENT))
        return arrays

    def _put(self, number: Value, position: int, values: Sequence[Register]) -> None:
        for array, value in zip(self._arrays(number), values, strict=True):
            array.store((i64(position),), value)

    def _row_of(self, number: Value) -> Row:
        """The folds of a part as the running values of a row."""
        (array,) = self._arrays(number)
        return Row(Strip(self.k, self.sizes(self.plan.row), _WIDEST), self.reducer, array.pointer)

    def _finish(self) -> None:
        """Folds the folds of the parts, in order, and stores the results."""
        body = self._finish_row if self.plan.holds_rows else self._finish_result

        def result(outer: Index) -> None:
            sizes = self.sizes(self.plan.results)
            number = linear(self.b, outer, sizes, row_major_strides(sizes))
            body(self.index(self.plan.results, outer), self.b.mul(number, i64(self.parts.count)))

        self.k.loop_nest(self.sizes(self.plan.results), result)

    def _finish_result(self, index: list[Value], first: Value) -> None:
        for position, at in enumerate(_positions(self.sizes(self.plan.row))):

            def step(number: Index, running: list[Register], position: int = position) -> list[Register]:
                arrays = self._arrays(self.b.add(first, number[0]))
                values = [array.load((i64(position),)) for array in arrays]
                return self.reducer.apply(self.k, running, values, regroup=False)

            totals = self.k.reduce_loop([self.parts.count], self.initial, step)
            self.store(self.index(self.plan.row, at, index), totals)

    def _finish_row(self, index: list[Value], first: Value) -> None:
        """Folds all rows into the first one."""
        row, plan = self._row_of(first), self.plan
        with self.b.for_loop(1, self.parts.count, unroll=False) as number:
            other = self._row_of(self.b.add(first, number))
            row.strip.along(lambda at, place: row.fold(place, [other.get(place)]))
        row.finish(
            lambda at, values: self.store(
                self.index(plan.row, at, index), self.reducer.apply(self.k, self.initial, values, regroup=False)
            )
        )


def _positions(sizes: Sequence[int]) -> list[list[Value]]:
    """All indices of a small space, as constants."""
    positions: list[list[Value]] = [[]]
    for size in sizes:
        positions = [[*before, i64(i)] for before in positions for i in range(size)]
    return positions
