"""Running values of a whole row of results, held in scratch, so that the inner loop goes along the row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import blocks, i64
from hloc.ir.shapes import ArrayShape

MOST = 2048
"""Running values of one kind that are held at a time: 8 KiB of f32, which stay in the fastest cache."""


def row_bytes(reducer: Reducer, count: int) -> int:
    """Scratch for the running values of a row of `count` results."""
    return sum(_padded(dtype.itemsize * min(count, MOST)) for dtype in reducer.sums)


def _padded(size: int) -> int:
    return -(-size // 64) * 64


def row_dimensions(dims: Sequence[int], candidates: Sequence[int]) -> list[int]:
    """Of some dimensions in memory order, the last ones: as many as have MOST places together, but one at
    least.
    """
    row = list(candidates)
    while len(row) > 1 and prod(dims[d] for d in row) > MOST:
        del row[0]
    return row


class Row:
    """A row with dimensions of some sizes, the last one fastest; only a row of one dimension may exceed MOST.

    A position in the row (`at`) has an index for each of its dimensions.
    """

    def __init__(self, k: KernelContext, reducer: Reducer, sizes: Sequence[int], scratch: Value):
        self.k, self.b, self.reducer, self.sizes = k, k.b, reducer, list(sizes)
        self.long = prod(sizes) > MOST
        self.held: list[ArrayRef] = []
        offset = 0
        dims = (MOST,) if self.long else tuple(sizes)
        for dtype in reducer.sums:
            pointer = self.b.gep("i8", scratch, i64(offset))
            self.held.append(ArrayRef(self.b, ArrayShape(dtype, dims), pointer))
            offset += _padded(dtype.itemsize * prod(dims))
        self._first: Value | None = None
        self._count: Value | None = None

    def run(self, body: Callable[[], object]) -> None:
        """Runs `body` for the row, part by part if it is long; `along` then goes through the part."""
        if not self.long:
            body()
            return
        with blocks(self.b, i64(self.sizes[0]), i64(MOST)) as (self._first, self._count):
            body()

    def along(self, body: Callable[[Index, Index], object]) -> None:
        """Runs body(position, place of its running values) along the row, or the part of it."""
        if not self.long:
            self.k.loop_nest(self.sizes, lambda at: body(at, at))
            return
        with self.b.for_loop(i64(0), self._count) as j:
            body((self.b.add(self._first, j),), (j,))

    def start(self, initial: Sequence[Register]) -> None:
        """Sets the running values."""
        self.along(lambda at, place: self.put(place, initial))

    def finish(self, store: Callable[[Index, list[Register]], object]) -> None:
        """Runs store(at, running values) along the row."""
        self.along(lambda at, place: store(at, self.get(place)))

    def get(self, place: Index) -> list[Register]:
        return [array.load(place) for array in self.held]

    def put(self, place: Index, values: Sequence[Register]) -> None:
        for array, value in zip(self.held, values, strict=True):
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
