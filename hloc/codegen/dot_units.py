"""A product in parts for several threads."""

from __future__ import annotations

from math import prod

from hloc.codegen.dot_plan import DotPlan
from hloc.codegen.gemm import GROUP
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.routines import i64, least
from hloc.records import record

_TILES, _NEAR_TILES, _FAR_TILES = 8, 4, 2
"""Tiles along each side of a part of a product, at least: what is packed is packed again for each part, what is read
in place costs nothing more; along columns if rows of a large operand are read in place.
"""

_WORK, _MOST = 1 << 24, 8
"""Multiplications of a part, where there are more parts than two for each worker, and parts for each at most. A thread
whose processor is slower than others' at the time, since others use it too, does fewer of them.
"""


@record
class Split:
    """A side of a result, of some `size`, in a `count` of parts of whole `unit`s, which differ by one unit at most."""

    size: int
    count: int
    unit: int

    def halved(self, least: int) -> bool:
        """Whether parts may be half as large, and are no smaller than so many rows or columns then."""
        return self.size // (2 * self.count) >= least

    def extent(self, b: Builder, number: Value) -> tuple[Value, Value]:
        """Where a part begins, and how large it is."""
        if self.count == 1:
            return i64(0), i64(self.size)
        units = i64(-(-self.size // self.unit))
        begin, end = (
            b.mul(b.udiv(b.mul(at, units), i64(self.count)), i64(self.unit)) for at in (number, b.add(number, i64(1)))
        )
        return begin, b.sub(least(b, end, i64(self.size)), begin)


@record
class Units:
    """A product in parts: those of each of so many `matrices`, along the rows and along the columns of the result."""

    matrices: int
    rows: Split
    columns: Split

    @staticmethod
    def of(plan: DotPlan, workers: int, vector_bytes: int) -> Units:
        """About two parts for each worker, or more if there are many matrices or more cost nothing, unless parts
        would be too small.
        """
        matrices, tile = prod(plan.batch), plan.gemm(vector_bytes).tile
        row, column = tile.rows, GROUP if plan.finishes_blocks else tile.columns
        rows, columns = Split(plan.m, 1, row), Split(plan.n, 1, column)
        if plan.is_inline or plan.is_inline_dots or matrices >= 2 * workers:
            return Units(matrices, rows, columns)
        left, right = plan.in_place(plan.lhs), plan.in_place(plan.rhs)
        least_rows = (_NEAR_TILES if right else _TILES) * row if plan.is_packed else plan.m
        tiles = _FAR_TILES if plan.reads_rows else _NEAR_TILES if left else _TILES
        least_columns = max(tiles * tile.columns, column)
        parts = _parts(plan, matrices, workers)
        while matrices * rows.count * columns.count < parts:
            wide = columns.size // columns.count >= rows.size // rows.count or (left and not right)
            if columns.halved(least_columns) and (wide or not rows.halved(least_rows)):
                columns = Split(plan.n, 2 * columns.count, column)
            elif rows.halved(least_rows):
                rows = Split(plan.m, 2 * rows.count, row)
            else:
                break
        return Units(matrices, rows, columns)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.matrices, self.rows.count, self.columns.count

    @property
    def count(self) -> int:
        return self.matrices * self.rows.count * self.columns.count


def _parts(plan: DotPlan, matrices: int, workers: int) -> int:
    """How many parts of a product are wanted."""
    if not plan.reads_rows:
        return (1 if plan.in_place(plan.lhs) else 2) * workers
    work = matrices * plan.m * plan.n * plan.k
    return max(min(work // (workers * _WORK), _MOST), 2) * workers
