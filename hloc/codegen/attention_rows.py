"""What is between the products of an attention that is a softmax, row by row.

Powers are made relative to the greatest of a row's scores, and products with the values are sums over powers: both
are brought to what the module says in the end, in `finished` (see `hloc.analysis.softmax`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from hloc.analysis.softmax import Softmax, columns_of
from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.attention_plan import AttentionPlan
from hloc.codegen.llvm import Value, const
from hloc.codegen.loops import Index
from hloc.codegen.routines import i64
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction

if TYPE_CHECKING:
    from hloc.codegen.kernel import KernelContext


class SoftmaxWay(Protocol):
    """A way to compute an attention whose rows go through a softmax, in `dtype`."""

    plan: AttentionPlan
    softmax: Softmax
    dtype: DType


class Rows:
    """What is between the products, for the rows of a batch: all by row and column numbers, as i64."""

    def __init__(self, k: KernelContext, way: SoftmaxWay, batch: Index):
        self.k, self.b, self.way, self.batch = k, k.b, way, batch
        self.plan, self.softmax = way.plan, way.softmax
        self.type = scalar.memory_type(way.dtype)
        self._score: Value | None = None
        k.body.bind((way.plan.found.scores, ()), lambda index: self._score)

    def _index(self, value: Instruction, row: Value, column: Value) -> Index:
        index = [i64(0)] * value.shape.rank
        rows = self.plan.found.rows[value]
        for d, digit in zip(rows, (*self.batch, *self.plan.digits(self.b, row)), strict=True):
            index[d] = digit
        for d in columns_of(value, self.plan.found):
            index[d] = column
        return tuple(index)

    def _element(self, value: Instruction, row: Value, column: Value) -> Register:
        found = self.k.body.evaluate(self.k, value, (), self._index(value, row, column))
        return scalar.convert(self.b, found, value.shape.dtype, self.way.dtype)

    def given(self, row: Value, column: Value, score: Value) -> Value:
        """What the softmax has for a score, a sum in the type that is computed in."""
        dtype = self.plan.found.scores.shape.dtype
        self._score = scalar.convert(self.b, score, self.way.dtype, dtype)
        return self._element(self.softmax.given, row, column)

    def relative(self, most: Value) -> Value:
        """What powers are made relative to, given the greatest score: 0 while that is minus infinity."""
        is_low = self.b.fcmp_ordered("==", most, const(self.type, float("-inf")))
        return self.b.select(is_low, const(self.type, 0), most)

    def power(self, given: Value, relative: Value) -> Value:
        """exp(given - relative)."""
        dtype = self.way.dtype
        return scalar.emit(self.b, "exponential", [self.b.fsub(given, relative)], [dtype], dtype, {})

    def greater(self, x: Value, y: Value) -> Value:
        """The greater one; NaN need not be seen, as its power will be."""
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def finished(self, row: Value, most: Value, total: Value, sums: Sequence[Value]) -> list[Value]:
        """Results of a row, given sums of products relative to the greatest score."""
        ends = self.ends(row, most, total)
        return [self.scaled(value, ends) for value in sums]

    def ends(self, row: Value, most: Value, total: Value) -> tuple[Value, Value]:
        """What all sums of a row are multiplied by, and what they are then divided or multiplied by."""
        b, softmax = self.b, self.softmax
        self._bind(softmax.most, lambda start: self.greater(most, start))
        shift = self._element(softmax.shift, row, i64(0))
        factor = self.power(most, shift)
        self._bind(softmax.total, lambda start: b.fadd(b.fmul(total, factor), start))
        return factor, self._element(softmax.scale, row, i64(0))

    def scaled(self, value: Value, ends: tuple[Value, Value]) -> Value:
        """A result, given its sum."""
        factor, scale = ends
        change = self.b.fdiv if self.softmax.divides else self.b.fmul
        return change(self.b.fmul(value, factor), scale)

    def _bind(self, reduce: Instruction, value: Callable[[Value], Value]) -> None:
        """Lets a reduce have a value, made of what it begins with."""
        dtype, initial = reduce.shape.dtype, reduce.operands[1]
        start = scalar.convert(self.b, self.k.body.evaluate(self.k, initial, (), ()), dtype, self.way.dtype)
        made = scalar.convert(self.b, value(start), self.way.dtype, dtype)
        self.k.body.bind((reduce, ()), lambda index: made)
