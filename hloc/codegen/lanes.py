"""Choices of values and their places, folded in lanes side by side, which are in memory, so that loops vectorize."""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.kernel import KernelContext
from hloc.codegen.llvm import Value, integer
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64, least
from hloc.ir.dtypes import S32
from hloc.ir.shapes import ArrayShape

_LANES, _LAST = 64, 8
"""Pairs held in memory, and how many of them are left to a loop over single ones."""

_TOGETHER = 4
"""Elements folded into each lane in one pass over the lanes."""

LEAST = 4 * _LANES
"""Elements from which on lanes pay."""

MOST = 1 << 31
"""Elements at most: their numbers have 32 bits."""


class Lanes:
    """Writes the fold of elements 0 .. `size` - 1, LEAST to MOST of them, by the choice of a reducer.

    Element i belongs to lane i modulo _LANES, which holds its value and the number of the round that it is of: the
    same for all lanes. Two lanes are folded with the one of the lesser element as the left. As places grow, only the
    place that is chosen is asked for.
    """

    def __init__(self, k: KernelContext, reducer: Reducer, size: int, element: Callable[[Value], list[Register]]):
        self.k, self.b, self.reducer, self.size, self.element = k, k.b, reducer, size, element
        self.held = []
        for dtype in (reducer.sums[0], S32):
            memory = self.b.room("i8", _LANES * dtype.itemsize, align=64)
            self.held.append(ArrayRef(self.b, ArrayShape(dtype, (_LANES,)), memory))

    def run(self) -> list[Register]:
        """The pair that is chosen."""
        b = self.b
        with b.for_loop(0, _LANES) as lane:
            self._put(lane, [self.element(lane)[0], integer("i32", 0)])
        rounds = -(-self.size // _LANES)
        whole = 1 + (self.size // _LANES - 1) // _TOGETHER * _TOGETHER
        with b.for_loop(1, whole, _TOGETHER, unroll=False) as first:
            self._rounds([b.add(first, i64(n)) for n in range(_TOGETHER)], i64(_LANES))
        with b.for_loop(whole, rounds, unroll=False) as number:
            self._rounds([number], least(b, i64(_LANES), b.sub(i64(self.size), b.mul(number, i64(_LANES)))))
        value, place = self._merged()
        return [value, self.element(b.zext(place, "i64"))[1]]

    def _rounds(self, numbers: list[Value], count: Value) -> None:
        """Folds an element of each of some rounds into the first lanes."""
        b = self.b
        firsts = [b.mul(number, i64(_LANES)) for number in numbers]
        marks = [b.trunc(number, "i32") for number in numbers]
        with b.for_loop(i64(0), count) as lane:
            running = self._get(lane)
            for first, mark in zip(firsts, marks, strict=True):
                running = self._chosen(running, [self.element(b.add(first, lane))[0], mark])
            self._put(lane, running)

    def _merged(self) -> list[Register]:
        """The value that is chosen among the lanes, and the number of its element."""
        b, count = self.b, _LANES
        with b.for_loop(0, _LANES) as lane:
            value, mark = self._get(lane)
            self._put(lane, [value, b.add(b.mul(mark, integer("i32", _LANES)), b.trunc(lane, "i32"))])
        while count > _LAST:
            count //= 2
            with b.for_loop(0, count) as lane:
                self._put(lane, self._in_order(self._get(lane), self._get(b.add(lane, i64(count)))))
        chosen = self._get(i64(0))
        for lane in range(1, _LAST):
            chosen = self._in_order(chosen, self._get(i64(lane)))
        return chosen

    def _in_order(self, x: list[Register], y: list[Register]) -> list[Register]:
        """The choice of two values with their numbers, the one of the lesser number on the left."""
        b = self.b
        is_before = b.icmp_signed("<", x[1], y[1])
        left = [b.select(is_before, one, other) for one, other in zip(x, y, strict=True)]
        right = [b.select(is_before, other, one) for one, other in zip(x, y, strict=True)]
        return self._chosen(left, right)

    def _chosen(self, left: list[Register], right: list[Register]) -> list[Register]:
        """The choice of two values, of which the left one has the lesser place, with what belongs to the place."""
        dtype = self.reducer.sums[1]
        pairs = [[pair[0], scalar.constant(dtype, side)] for side, pair in enumerate((left, right))]
        value, side = self.reducer.apply(self.k, *pairs)
        is_left = self.b.icmp_signed("==", side, scalar.constant(dtype, 0))
        return [value, self.b.select(is_left, left[1], right[1])]

    def _get(self, lane: Value) -> list[Register]:
        return [array.load((lane,)) for array in self.held]

    def _put(self, lane: Value, pair: list[Register]) -> None:
        for array, value in zip(self.held, pair, strict=True):
            array.store((lane,), value)
