"""reduce: dimensions folded by a computation.

Where the fastest dimension of the operand is folded, each result is a loop with running values in registers,
which LLVM splits in several sums for known operations; where it is kept, whole rows of running values are
held in memory and the inner loop goes along them. Sums of floats narrower than f32 are made in f32 and
rounded once (as XLA on CPUs does it).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from hloc.codegen.arrays import Register
from hloc.codegen.folds import Folds
from hloc.codegen.kernel import Index, KernelContext, index_constant, kernel
from hloc.codegen.llvm import Value
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64
from hloc.codegen.rows import Row, Strip, row_bytes, row_dimensions
from hloc.ir.instruction import Instruction

_FEW = 8
"""Up to this many running values are carried in registers."""

_TOGETHER = 4
"""Rows folded in one pass over the running values."""


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
    def scratch_bytes(self) -> int:
        return row_bytes(self.reducer, prod(self.dims[d] for d in self.row)) if self.holds_rows else 0


@kernel(
    "reduce",
    element_operands="all",
    scratch=lambda instruction: _Plan(instruction).scratch_bytes,
    takes_epilogue=lambda instruction: True,
    is_loop=True,
)
def reduce(k: KernelContext, instruction: Instruction) -> None:
    plan = _Plan(instruction)
    if 0 in [plan.dims[d] for d in plan.kept]:
        return
    writer = _Reduce(k, plan)
    if plan.holds_rows:
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
        plan = self.plan

        def results(outer: Index) -> None:
            index = self.index(plan.results, outer)
            row = [self.index(plan.row, at, index) for at in _positions(self.sizes(plan.row))]
            totals = self.fold(row)
            for position, at in enumerate(row):
                self.store(at, totals[position * plan.count : (position + 1) * plan.count])

        self.k.loop_nest(self.sizes(plan.results), results)

    def fold(self, row: list[list[Value]]) -> list[Register]:
        """The folds of everything that belongs to each place of a row."""
        def elements(index: Index) -> list[list[Register]]:
            return [self.elements(tuple(self.index(self.plan.folded, index, at))) for at in row]

        sizes = self.sizes(self.plan.folded)
        folds = Folds(self.k, [self.reducer] * len(row), sizes, elements, repeatable=True)
        return [value for values in folds.run([self.initial] * len(row)) for value in values]

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
        self._fold_rows(row, index)
        row.finish(lambda at, values: self.store(self.index(self.plan.row, at, index), values))

    def _fold_rows(self, row: Row, index: list[Value]) -> None:
        """Folds the rows of the operand one after the other into the running values, several in one pass."""
        plan = self.plan

        def elements(dims: Sequence[int], values: Sequence[Value], at: Index) -> list[Register]:
            return self.elements(tuple(self.index([*plan.row, *dims], [*at, *values], index)))

        if not plan.folded:
            row.strip.along(lambda at, place: row.fold(place, [elements((), (), at)]))
            return
        whole = plan.dims[plan.folded[-1]] // _TOGETHER * _TOGETHER
        rest = plan.dims[plan.folded[-1]] - whole

        def rows(before: Index, first: Value, count: int) -> None:
            numbers = [self.b.add(first, i64(number)) for number in range(count)]
            row.strip.along(
                lambda at, place: row.fold(
                    place, [elements(plan.folded, [*before, number], at) for number in numbers]
                )
            )

        def pass_over(before: Index, running: list[Register]) -> list[Register]:
            if whole:
                with self.b.for_loop(i64(0), i64(whole), _TOGETHER, unroll=False) as first:
                    rows(before, first, _TOGETHER)
            if rest:
                rows(before, i64(whole), rest)
            return running

        self.k.reduce_loop(self.sizes(plan.folded[:-1]), [], pass_over)


def _positions(sizes: Sequence[int]) -> list[list[Value]]:
    """All indices of a small space, as constants."""
    positions: list[list[Value]] = [[]]
    for size in sizes:
        positions = [[*before, i64(i)] for before in positions for i in range(size)]
    return positions
