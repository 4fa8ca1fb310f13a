"""A product in parts for several threads."""

from __future__ import annotations

from math import prod

from hloc.codegen.dot_plan import DotPlan
from hloc.codegen.gemm import GROUP, GemmPlan
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.loops import delinearize
from hloc.codegen.routines import i64, least
from hloc.codegen.tiles import Tile
from hloc.records import record

_TILES, _NEAR_TILES = 8, 4
"""Tiles along each side of a part of a product, at least: what is packed is packed again for each part, what is read
in place costs nothing more.
"""

_WORK, _MOST, _FEW = 1 << 20, 16, 8
"""Multiplications of a part whose rows are read in place, parts for each worker at most, and parts that are so few
that they are parted along rows, too. A thread whose processor is slower than others' at the time, since others use it
too, does fewer of them.
"""

_ROW_TILES = 16
"""Tiles along the rows of such a part, at least: for each, its columns are packed again."""

_NEAR_BYTES, _READ = 1 << 20, 1 << 17
"""Bytes of a right operand that caches hold, so that its columns may be packed in strips of any width; else so many
bytes of columns, times the rows of a part: narrow strips of a large matrix come slowly from memory.
"""

_LAST = 4
"""Parts along rows of the last columns, and how many times as many there are in all."""

_STRIP, _MOST_BLOCKS = 1 << 19, 64
"""Bytes of columns that are packed for many blocks of rows, where few are, and parts along rows then, at most."""


_RUN, _PAGES = 256, 1 << 13
"""Bytes of rows that are read where they lie, which parts are whole multiples of: no cache line is in two parts, and no
few columns are left, which would cost a line of each row. Bytes of each row for which there are more parts than
workers: shorter runs come slower.
"""


@record
class Split:
    """A side of a result, of some `size`, in a `count` of parts of whole `unit`s, which differ by one unit at most."""

    size: int
    count: int
    unit: int

    @property
    def most(self) -> int:
        """The size of the largest part."""
        units = -(-self.size // self.unit)
        return min(-(-units // self.count) * self.unit, self.size)

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
    """A product in parts: those of each of so many `matrices`, along the rows and along the columns of the result.

    If they are `by_columns`, those of the same columns follow on each other. The first `whole` parts of one matrix have
    all rows.
    """

    matrices: int
    rows: Split
    columns: Split
    by_columns: bool = False
    whole: int = 0

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
        if plan.packs_once and not left:
            sides = _by_columns(plan, plan.gemm(vector_bytes), column, _FEW * workers // matrices)
            if matrices * sides[0].count * sides[1].count >= 2 * workers:
                return Units(matrices, *sides, by_columns=True)
        if left and not right and plan.is_packed and not plan.rhs.in_panels:
            return _parted(plan, tile, column, matrices, workers)
        if plan.is_row_sum or plan.has_few_rows:
            return _in_runs(plan, matrices, workers)
        least_rows = (_NEAR_TILES if right else _TILES) * row if plan.is_packed else plan.m
        least_columns = max((_NEAR_TILES if left else _TILES) * tile.columns, column)
        parts = (1 if left else 2) * workers
        while matrices * rows.count * columns.count < parts:
            wide = columns.size // columns.count >= rows.size // rows.count or (left and not right)
            if columns.halved(least_columns) and (wide or not rows.halved(least_rows)):
                columns = Split(plan.n, 2 * columns.count, column)
            elif rows.halved(least_rows):
                rows = Split(plan.m, 2 * rows.count, row)
            else:
                break
        return Units(matrices, rows, columns)

    def place(self, b: Builder, number: Value) -> tuple[Value, Value, tuple[Value, Value], tuple[Value, Value]]:
        """A part's matrix, its number along the columns, and which rows and which columns it has."""
        if self.whole:
            is_whole, later = b.icmp_signed("<", number, i64(self.whole)), b.sub(number, i64(self.whole))
            split = delinearize(b, later, (self.columns.count - self.whole, self.rows.count))
            column = b.select(is_whole, number, b.add(split[0], i64(self.whole)))
            rows = zip((i64(0), i64(self.rows.size)), self.rows.extent(b, split[1]), strict=True)
            extent = tuple(b.select(is_whole, every, some) for every, some in rows)
            return i64(0), column, extent, self.columns.extent(b, column)
        if self.by_columns:
            matrix, column, row = delinearize(b, number, (self.matrices, self.columns.count, self.rows.count))
        else:
            matrix, row, column = delinearize(b, number, (self.matrices, self.rows.count, self.columns.count))
        return matrix, column, self.rows.extent(b, row), self.columns.extent(b, column)

    @property
    def count(self) -> int:
        return self.whole + (self.matrices * self.columns.count - self.whole) * self.rows.count


def _in_runs(plan: DotPlan, matrices: int, workers: int) -> Units:
    """A product whose right operand is read once, in order: by columns alone."""
    itemsize = plan.rhs.shape.dtype.itemsize
    unit, parts = max(_RUN // itemsize, 1), -(-workers // matrices)
    wanted = 2 * parts if plan.has_few_rows or plan.n * itemsize >= 2 * parts * _PAGES else parts
    return Units(matrices, Split(plan.m, 1, 1), Split(plan.n, max(min(wanted, -(-plan.n // unit)), 1), unit))


def _by_columns(plan: DotPlan, blocks: GemmPlan, column: int, wanted: int) -> tuple[Split, Split]:
    """Rows and columns of a product, in blocks of rows that are packed at a time, for columns that each thread packs
    once: about as many parts as are wanted, but no columns of fewer bytes than the second cache holds.
    """
    rows = Split(plan.m, min(-(-plan.m // blocks.m_block), _MOST_BLOCKS), blocks.m_block)
    columns = Split(plan.n, 1, column)
    while columns.most > max(blocks.n_block, column) or (
        rows.count * columns.count < wanted and columns.most * plan.k * plan.dtype.itemsize > _STRIP
    ):
        columns = Split(plan.n, columns.count + 1, column)
    return rows, columns


def _parted(plan: DotPlan, tile: Tile, column: int, matrices: int, workers: int) -> Units:
    """A product that reads rows where they lie, and packs columns: by columns first. The last of many columns are
    parted along rows as well, so that no thread waits long for another one at the end.
    """
    strips = -(-plan.n // column)
    wanted = -(-max(min(matrices * plan.m * plan.n * plan.k // _WORK, _MOST * workers), workers) // matrices)
    if plan.n * plan.k * plan.dtype.itemsize > _NEAR_BYTES:
        tiles = -(-_READ // (plan.m * plan.dtype.itemsize * tile.columns))
        strips = min(strips, max(-(-plan.n // (tiles * tile.columns * workers)), 2) * workers)
    columns = min(strips, wanted)
    split = min(plan.m // (_ROW_TILES * tile.rows), _LAST)
    if plan.packs_once and matrices == 1 and split > 1 and columns >= 4 * workers:
        whole = columns - max(2 * workers, columns // _LAST)
        return Units(1, Split(plan.m, split, tile.rows), Split(plan.n, columns, column), True, whole)
    rows = Split(plan.m, 1, tile.rows)
    while rows.count * columns < min(wanted, -(-_FEW * workers // matrices)) and rows.halved(_ROW_TILES * tile.rows):
        rows = Split(plan.m, 2 * rows.count, tile.rows)
    return Units(matrices, rows, Split(plan.n, columns, column))
