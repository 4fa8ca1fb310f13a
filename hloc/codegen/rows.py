"""Values of a whole row of results, held in scratch, so that the inner loop goes along the row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import blocks, i64
from hloc.ir.dtypes import DType
from hloc.ir.shapes import ArrayShape

MOST = 2048
"""Values of one kind that are held at a time: 8 KiB of f32, which stay in the fastest cache."""


def row_bytes(reducer: Reducer, count: int) -> int:
    """Scratch for the running values of a row of `count` results."""
    return sum(held_bytes(dtype, count) for dtype in reducer.sums)


def held_bytes(dtype: DType, count: int) -> int:
    """Scratch for an array of `count` values, in whole cache lines."""
    return -(-dtype.itemsize * min(count, MOST) // 64) * 64


def row_dimensions(dims: Sequence[int], candidates: Sequence[int], most: int = MOST) -> list[int]:
    """Of some dimensions in memory order, the last ones: as many as have `most` places together, but one at
    least.
    """
    row = list(candidates)
    while len(row) > 1 and prod(dims[d] for d in row) > most:
        del row[0]
    return row


class Strip:
    """Places with dimensions of some sizes, the last one fastest, for which values are held in scratch.

    Only a strip of one dimension may exceed `most`: it is then gone through in parts. A position in the strip (`at`)
    has an index for each of its dimensions; its place is where its values are held.
    """

    def __init__(self, k: KernelContext, sizes: Sequence[int], most: int = MOST):
        self.k, self.b, self.sizes, self.most = k, k.b, list(sizes), most
        self.long = prod(sizes) > most
        self.dims = (most,) if self.long else tuple(sizes)
        self._first: Value | None = None
        self._count: Value | None = None

    def held(self, dtype: DType, scratch: Value, offset: int) -> ArrayRef:
        """Memory for a value of each place, `offset` bytes into the scratch."""
        return ArrayRef(self.b, ArrayShape(dtype, self.dims), self.b.gep("i8", scratch, i64(offset)))

    def run(self, body: Callable[[], object]) -> None:
        """Runs `body` for the strip, part by part if it is long; `along` then goes through the part."""
        if not self.long:
            body()
            return
        with blocks(self.b, i64(self.sizes[0]), i64(self.most)) as (self._first, self._count):
            body()

    def along(self, body: Callable[[Index, Index], object]) -> None:
        """Runs body(position, place) along the strip, or the part of it."""
        if not self.long:
            self.k.loop_nest(self.sizes, lambda at: body(at, at))
            return
        with self.b.for_loop(i64(0), self._count) as j:
            body((self.b.add(self._first, j),), (j,))


class Row:
    """The running values of a reducer for the places of a strip."""

    def __init__(self, strip: Strip, reducer: Reducer, scratch: Value, offset: int = 0):
        self.strip, self.k, self.reducer = strip, strip.k, reducer
        self.arrays: list[ArrayRef] = []
        for dtype in reducer.sums:
            self.arrays.append(strip.held(dtype, scratch, offset))
            offset += held_bytes(dtype, prod(strip.dims))

    def start(self, initial: Sequence[Register]) -> None:
        """Sets the running values."""
        self.strip.along(lambda at, place: self.put(place, initial))

    def finish(self, store: Callable[[Index, list[Register]], object]) -> None:
        """Runs store(at, running values) along the row."""
        self.strip.along(lambda at, place: store(at, self.get(place)))

    def get(self, place: Index) -> list[Register]:
        return [array.load(place) for array in self.arrays]

    def put(self, place: Index, values: Sequence[Register]) -> None:
        for array, value in zip(self.arrays, values, strict=True):
            array.store(place, value)

    def fold(self, place: Index, groups: Sequence[Sequence[Register]]) -> list[Register]:
        """Folds groups of values into the running ones at a place; the new ones.

        In order, but for sums of floats: there the groups are summed first.
        """
        running = self.get(place)
        if self.reducer.is_float_sum and len(groups) > 1:
            (first, *others) = groups
            for values in others:
                first = self.reducer.apply(self.k, first, values)
            groups = [first]
        for values in groups:
            running = self.reducer.apply(self.k, running, values)
        self.put(place, running)
        return running
