"""Choices of values and their places, folded in lanes side by side, which are in memory, so that loops vectorize."""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.kernel import KernelContext
from hloc.codegen.llvm import Value
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64, least
from hloc.ir.dtypes import PRED
from hloc.ir.shapes import ArrayShape

_LANES, _LAST = 64, 8
"""Pairs held in memory, and how many of them are left to a loop over single ones."""

_TOGETHER = 4
"""Elements folded into each lane in one pass over the lanes."""

LEAST = 4 * _LANES
"""Elements from which on lanes pay."""


class Lanes:
    """Writes the fold of elements 0 .. `size` - 1, at least LEAST, by the choice of a reducer.

    Element i belongs to lane i modulo _LANES. Two lanes are folded with the one of lesser place as the left.
    """

    def __init__(self, k: KernelContext, reducer: Reducer, size: int, element: Callable[[Value], list[Register]]):
        self.k, self.b, self.reducer, self.size, self.element = k, k.b, reducer, size, element
        self.held = []
        for dtype in reducer.sums:
            memory = self.b.room("i8", _LANES * dtype.itemsize, align=64)
            self.held.append(ArrayRef(self.b, ArrayShape(dtype, (_LANES,)), memory))

    def run(self) -> list[Register]:
        """The pair that is chosen."""
        b = self.b
        with b.for_loop(0, _LANES) as lane:
            self._put(lane, self.element(lane))
        step = _TOGETHER * _LANES
        whole = _LANES + (self.size - _LANES) // step * step
        with b.for_loop(_LANES, whole, step, unroll=False) as first, b.for_loop(0, _LANES) as lane:
            places = [b.add(b.add(first, i64(n * _LANES)), lane) for n in range(_TOGETHER)]
            self._fold(lane, [self.element(place) for place in places])
        with b.for_loop(whole, self.size, _LANES, unroll=False) as first:
            count = least(b, i64(_LANES), b.sub(i64(self.size), first))
            with b.for_loop(i64(0), count) as lane:
                self._fold(lane, [self.element(b.add(first, lane))])
        return self._merged()

    def _merged(self) -> list[Register]:
        """The choice among the lanes."""
        b, count = self.b, _LANES
        while count > _LAST:
            count //= 2
            with b.for_loop(0, count) as lane:
                self._put(lane, self._earlier_first(self._get(lane), self._get(b.add(lane, i64(count)))))
        chosen = self._get(i64(0))
        for lane in range(1, _LAST):
            chosen = self._earlier_first(chosen, self._get(i64(lane)))
        return chosen

    def _earlier_first(self, x: list[Register], y: list[Register]) -> list[Register]:
        """The choice of two pairs, the one of lesser place on the left."""
        b = self.b
        in_order = scalar.emit(b, "compare", [x[1], y[1]], [self.reducer.sums[1]] * 2, PRED, {"direction": "LT"})
        left = [b.select(in_order, one, other) for one, other in zip(x, y, strict=True)]
        right = [b.select(in_order, other, one) for one, other in zip(x, y, strict=True)]
        return self.reducer.apply(self.k, left, right)

    def _fold(self, lane: Value, elements: list[list[Register]]) -> None:
        running = self._get(lane)
        for element in elements:
            running = self.reducer.apply(self.k, running, element)
        self._put(lane, running)

    def _get(self, lane: Value) -> list[Register]:
        return [array.load((lane,)) for array in self.held]

    def _put(self, lane: Value, pair: list[Register]) -> None:
        for array, value in zip(self.held, pair, strict=True):
            array.store((lane,), value)
