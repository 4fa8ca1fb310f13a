"""The softmax of an attention on CPUs: scores become powers in place, and results are divided in the end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hloc.codegen import math, scalar
from hloc.codegen.attention_blocks import AttentionBlocks
from hloc.codegen.attention_rows import Rows
from hloc.codegen.folds import CHUNK, Folds
from hloc.codegen.gemm import Extent
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Builder, Value, const, integer, vector_type, zero
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64, least

_FAR = {"f32": 256.0, "f64": 2048.0}
"""How far below the greatest score powers are zeros for sure, even where a sum with it is rounded."""


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

    def write_most(self, rows: Extent, scores: Value, stride: int, columns: Value, fill: float) -> Value:
        """Finds the greatest of the first `columns` scores of each row; whether the power of `fill` is 0 in all."""
        b = self.b
        limit = const(self.type, float(self._float(fill) + _FAR[self.way.dtype.name]))

        def row(number: Value, above: list[Value]) -> list[Value]:
            line = b.gep(self.type, scores, b.mul(number, i64(stride)))
            most = self._most(line, b.add(rows[0], number), columns)
            self._put(self.mosts, number, most)
            return [b.and_(above[0], b.fcmp_ordered(">", most, limit))]

        return b.for_loop_carrying(i64(0), rows[1], [integer("i1", 1)], row, unroll=False)[0]

    def write_powers(self, rows: Extent, scores: Value, stride: int, columns: Value) -> None:
        """Makes powers of the first `columns` scores of some rows, whose greatest ones are known."""
        b = self.b
        with b.for_loop(i64(0), rows[1], unroll=False) as number:
            line, row = b.gep(self.type, scores, b.mul(number, i64(stride))), b.add(rows[0], number)
            relative = self.relative(scalar.load(b, self.way.dtype, self._place(self.mosts, number)))
            self._put(self.totals, number, self._total_of(line, row, relative, columns))

    def finish(self, first: Value, number: Value) -> Callable[[Value], Value]:
        """What makes a result of a sum, of the row `number` of a block that begins with row `first`."""
        most, total = (scalar.load(self.b, self.way.dtype, self._place(at, number)) for at in (self.mosts, self.totals))
        ends = self.ends(self.b.add(first, number), most, total)
        return lambda value: self.scaled(value, ends)

    def power(self, given: Value, relative: Value) -> Value:
        """exp(given - relative), which is never above 1."""
        return math.call(self.b, "exp_of_negative", [self.b.fsub(given, relative)])

    def _most(self, line: Value, row: Value, columns: Value | None = None) -> Value:
        """The greatest score of a row; some score if one of them is NaN, for the row's powers tell."""

        def step(column: Value, found: list[Value]) -> list[Value]:
            return [self.b.greater_number(found[0], self.given(row, column, self._load(line, column)))]

        low = const(self.type, float("-inf"))
        return self.b.for_loop_carrying(0, self.plan.n if columns is None else columns, [low], step)[0]

    def _total(self, line: Value, row: Value, relative: Value) -> Value:
        """The sum of a row's powers, which are stored."""
        b, dtype, reducer = self.b, self.way.dtype, Reducer.of_reduce(self.softmax.total)
        given = line, row, relative, reducer
        ((total,),) = Folds(self.k, [reducer], [self.plan.n], lambda column: [[self._power(given, *column)]]).alone()
        return scalar.convert(b, total, reducer.sums[0], dtype)

    def _total_of(self, line: Value, row: Value, relative: Value, columns: Value) -> Value:
        """The same of the first `columns` of a row, in sums of CHUNK elements."""
        b, k, reducer = self.b, self.k, Reducer.of_reduce(self.softmax.total)
        given = line, row, relative, reducer

        def element(column: Value, total: list[Value]) -> list[Value]:
            return list(reducer.apply(k, total, [self._power(given, column)]))

        total = reducer.identity()
        for first in range(0, self.plan.n, CHUNK):
            end = least(b, columns, i64(first + CHUNK)) if first + CHUNK < self.plan.n else columns
            part = b.for_loop_carrying(i64(first), end, reducer.identity(), element)
            total = part if first == 0 else reducer.apply(k, total, part, regroup=False)
        return scalar.convert(b, total[0], reducer.sums[0], self.way.dtype)

    def _power(self, given: tuple[Value, Value, Value, Reducer], column: Value) -> Value:
        """The power of a score, which is stored, as the type of sums has it."""
        b, dtype, (line, row, relative, reducer) = self.b, self.way.dtype, given
        power = self.power(self.given(row, column, self._load(line, column)), relative)
        scalar.store(b, dtype, power, b.gep(self.type, line, column))
        return scalar.convert(b, power, dtype, reducer.sums[0])

    def _float(self, value: float) -> np.generic:
        return np.float64(value) if self.way.dtype.itemsize == 8 else np.float32(value)

    def _load(self, line: Value, column: Value) -> Value:
        return scalar.load(self.b, self.way.dtype, self.b.gep(self.type, line, column))

    def _place(self, start: Value, number: Value) -> Value:
        return self.b.gep(self.type, start, number)

    def _put(self, start: Value, number: Value, value: Value) -> None:
        scalar.store(self.b, self.way.dtype, value, self._place(start, number))


def all_finite(b: Builder, type: str, start: Value, count: int) -> Value:
    """Whether so many numbers, a multiple of 32, are finite."""
    lanes = 32 // (2 if type == "double" else 1)
    vector = vector_type(type, lanes)

    def step(place: Value, found: list[Value]) -> list[Value]:
        value = b.load(vector, b.gep(type, start, place), align=8 if type == "double" else 4)
        return [b.fadd(found[0], b.fmul(value, zero(vector)))]

    (nothing,) = b.for_loop_carrying(i64(0), i64(count), [zero(vector)], step, step=lanes)
    total = b.intrinsic("llvm.vector.reduce.fadd", type, [const(type, 0), nothing], overloads=[vector])
    return b.fcmp_ordered("==", total, const(type, 0))
