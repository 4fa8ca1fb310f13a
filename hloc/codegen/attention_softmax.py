"""The softmax of an attention on CPUs: scores become powers in place, and results are divided in the end."""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen import math, scalar
from hloc.codegen.attention_blocks import AttentionBlocks
from hloc.codegen.attention_rows import Rows
from hloc.codegen.folds import Folds
from hloc.codegen.gemm import Extent
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value, const
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64


class SoftmaxRows(Rows):
    """Rows of the batch `batch`. Of each row of a block, `mosts` and `totals` get what `finish` takes."""

    def __init__(self, k: KernelContext, way: AttentionBlocks, batch: Index, mosts: Value, totals: Value):
        super().__init__(k, way, batch)
        self.mosts, self.totals = mosts, totals

    def write(self, rows: Extent, scores: Value, stride: int) -> None:
        """Makes powers of the scores of some rows, a `stride` apart."""
        b = self.b
        with b.for_loop(i64(0), rows[1], unroll=False) as number:
            line, row = b.gep(self.type, scores, b.mul(number, i64(stride))), b.add(rows[0], number)
            most = self._most(line, row)
            self._put(self.mosts, number, most)
            self._put(self.totals, number, self._total(line, row, self.relative(most)))

    def finish(self, first: Value, number: Value) -> Callable[[Value], Value]:
        """What makes a result of a sum, of the row `number` of a block that begins with row `first`."""
        most, total = (scalar.load(self.b, self.way.dtype, self._place(at, number)) for at in (self.mosts, self.totals))
        ends = self.ends(self.b.add(first, number), most, total)
        return lambda value: self.scaled(value, ends)

    def power(self, given: Value, relative: Value) -> Value:
        """exp(given - relative), which is never above 1."""
        return math.call(self.b, "exp_of_negative", [self.b.fsub(given, relative)])

    def _most(self, line: Value, row: Value) -> Value:
        """The greatest score of a row; some score if one of them is NaN, for the row's powers tell."""

        def step(column: Value, found: list[Value]) -> list[Value]:
            return [self.b.greater_number(found[0], self.given(row, column, self._load(line, column)))]

        low = const(self.type, float("-inf"))
        return self.b.for_loop_carrying(0, self.plan.n, [low], step)[0]

    def _total(self, line: Value, row: Value, relative: Value) -> Value:
        """The sum of a row's powers, which are stored."""
        b, dtype, reducer = self.b, self.way.dtype, Reducer.of_reduce(self.softmax.total)

        def power(column: Index) -> list[list[Value]]:
            power = self.power(self.given(row, *column, self._load(line, *column)), relative)
            scalar.store(b, dtype, power, b.gep(self.type, line, *column))
            return [[scalar.convert(b, power, dtype, reducer.sums[0])]]

        ((total,),) = Folds(self.k, [reducer], [self.plan.n], power).alone()
        return scalar.convert(b, total, reducer.sums[0], dtype)

    def _load(self, line: Value, column: Value) -> Value:
        return scalar.load(self.b, self.way.dtype, self.b.gep(self.type, line, column))

    def _place(self, start: Value, number: Value) -> Value:
        return self.b.gep(self.type, start, number)

    def _put(self, start: Value, number: Value, value: Value) -> None:
        scalar.store(self.b, self.way.dtype, value, self._place(start, number))
