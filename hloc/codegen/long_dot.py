"""Dots of few rows and columns with long sums: the sums are divided, and operands are read where they lie.

Each part of the sums is made by tiles that read both operands in place, or along the sums if both are contiguous there.
Sizes alone decide what is a part; parts of a result lie in scratch and are added in order. Where a row of the right
operand is shorter than a tile, vectors reach into the next row: the last terms are left to the end, one by one.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import prod
from typing import Any

from hloc.codegen import scalar
from hloc.codegen.dot_side import Side
from hloc.codegen.gemm_block import Operand, block_routine, multiply_block
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import delinearize
from hloc.codegen.matvec import MOST_ROWS, ThinProduct, row_dot_routine, row_sum_routine
from hloc.codegen.products import added, multiply_add
from hloc.codegen.routines import i64, least
from hloc.codegen.tiles import Tile
from hloc.ir.dtypes import DType
from hloc.records import record

_STEPS, _THIN_STEPS = 512, 2048
"""Terms of a part of a sum; what has more is long. Of few rows they are at least as many as the second number."""

_LINES, _COLUMNS, _RESULTS = 64, 383, 1024
"""Rows and columns at most, since each tile reads its lines of both operands; columns that lie side by side of an
operand that is multiplied by few rows: more of them are shared among threads; and results.
"""

_LEAST_THIN, _PART = 1 << 17, 1 << 15
"""Elements of both operands from which on sums of fewer rows are divided, and elements that a part of them reads."""

_NARROW = 3
"""Vectors of columns for which tiles are better than whole rows of the right operand, where rows are few."""

_SUMS, _LEAST = 12, 8
"""Vectors of sums of a tile, at most and, to hide the latency of adding, at least."""


def suits(plan: Any) -> bool:
    """Whether a product of operands as they lie may be such a one: others have so many lines that it pays to pack them,
    or that threads share them.
    """
    m, n, k, sides = plan.m, plan.n, plan.k, (plan.lhs, plan.rhs)
    if k <= _STEPS or m * n > _RESULTS or plan.rhs.in_panels or any(side.computed for side in sides):
        return False
    if any(side.strides[2] < 1 for side in sides):
        return False
    if min(m, n) <= MOST_ROWS and (k * (m + n) < _LEAST_THIN or k <= steps_of(m, n)):
        return False
    is_along = _is_along(plan)
    if max(m, n) > (_LINES if is_along or min(m, n) > MOST_ROWS else _COLUMNS):
        return False
    return is_along or any(side.strides[1] == 1 for side in sides)


def _is_along(plan: Any) -> bool:
    """Whether both operands are contiguous along the sums, and neither the other way; a single line has any stride."""
    if any(side.strides[1] == 1 and size > 1 for side, size in ((plan.lhs, plan.m), (plan.rhs, plan.n))):
        return False
    return plan.lhs.strides[2] == plan.rhs.strides[2] == 1


def steps_of(m: int, n: int) -> int:
    """Terms of a part of each sum."""
    return max(_PART // (m + n), _THIN_STEPS) if min(m, n) <= MOST_ROWS else _STEPS


def tile_of(rows: int, columns: int, dtype: DType, lanes: int) -> Tile:
    """The tile for a right operand in place, of which as little as may be reaches beyond the result."""
    vectors = 3 if 2 * lanes < columns <= 3 * lanes else max(min(columns // lanes, 2), 1)
    most = min(_SUMS // vectors, rows)
    counts = range(most, min(-(-_LEAST // vectors), most) - 1, -1)
    return Tile(dtype, min(counts, key=lambda count: -(-rows // count) * count), vectors, lanes)


@record
class LongPlan:
    """The `left` and the `right` operand of m x n sums of k terms, in `count` parts. They are the dot's the other way
    round if it `turns`: then the result is the transposed one.

    The `tile` is None where both operands are contiguous along the sums, and where whole rows of the right operand are
    added up. Of sums, the last `rest` terms are in no part.
    """

    left: Side
    right: Side
    turns: bool
    m: int
    n: int
    k: int
    tile: Tile | None
    rest: int

    @staticmethod
    def of(plan: Any, lanes: int) -> LongPlan:
        """For a plan that `has_long_sums`."""
        sides, sizes = (plan.lhs, plan.rhs), (plan.m, plan.n)
        if _is_along(plan):
            return LongPlan(*sides, False, *sizes, plan.k, None, 0)
        dense = [side.strides[1] == 1 for side in sides]
        turns = dense[0] and (not dense[1] or plan.n < min(lanes, plan.m))
        if turns:
            sides, sizes = sides[::-1], sizes[::-1]
        (m, n), step = sizes, sides[1].strides[2]
        if m <= MOST_ROWS and n > _NARROW * lanes:
            return LongPlan(*sides, turns, m, n, plan.k, None, 0)
        tile = tile_of(m, n, plan.dtype, lanes)
        rest = min(-(-max(tile.columns - n, 0) // step), plan.k)
        return LongPlan(*sides, turns, m, n, plan.k, tile, rest)

    @property
    def steps(self) -> int:
        return steps_of(self.m, self.n)

    @property
    def count(self) -> int:
        return -(-(self.k - self.rest) // self.steps)


def sums_of(m: int, n: int, k: int) -> int:
    """How many sums the parts of all results have."""
    return m * n * -(-k // steps_of(m, n))


class LongDot:
    """This part of the emitter of dots (`emitters/dot.py`), which has all that it uses."""

    k: Any
    b: Any
    plan: Any

    def write_long(self) -> None:
        """All of the kernel's code."""
        plan = self.plan
        self.long = LongPlan.of(plan, max(self.k.target.vector_bytes // plan.dtype.itemsize, 2))
        self.type = scalar.memory_type(plan.dtype)
        places = {side: self._operand(side) for side in (plan.lhs, plan.rhs)}
        self.starts = places[self.long.left], places[self.long.right]
        self.k.in_parts(prod(plan.batch) * self.long.count, self._long_part, self._finish_long)

    def _sums(self, number: Value) -> Value:
        """Where the sums of a part are."""
        return self.b.gep(self.type, self.k.scratch, self.b.mul(number, i64(self.plan.m * self.plan.n)))

    def _operands(self) -> tuple[Value, Value]:
        """Where both operands begin, at the loops' batch index."""
        return tuple(self._at(s, at) for s, at in zip((self.long.left, self.long.right), self.starts, strict=True))

    def _long_part(self, number: Value) -> None:
        b, long = self.b, self.long
        matrix, part = delinearize(b, number, [prod(self.plan.batch), long.count])
        self.loops = delinearize(b, matrix, self.plan.batch)
        first = b.mul(part, i64(long.steps))
        steps = least(b, i64(long.steps), b.sub(i64(long.k - long.rest), first))
        left, right = (
            b.gep(self.type, at, b.mul(first, i64(side.strides[2])))
            for at, side in zip(self._operands(), (long.left, long.right), strict=True)
        )
        if long.tile is None:
            way = self._along_sums if _is_along(self.plan) else self._along_rows
            way(left, right, self._sums(number), steps)
            return
        (_, row, a_step), (_, _, b_step) = long.left.strides, long.right.strides
        tile = long.tile
        operands = (
            Operand(left, i64(row), i64(row), i64(a_step), i64(long.m - tile.rows)),
            Operand(right, i64(1), i64(1), i64(b_step), i64(max(long.n - tile.columns, 0))),
        )
        to, sizes = (self._sums(number), i64(long.n), i64(1)), (i64(long.m), i64(long.n), steps)
        multiply_block(b, block_routine(self.routines, tile), operands, to, sizes, integer("i1", 0))

    def _along_sums(self, left: Value, right: Value, sums: Value, steps: Value) -> None:
        """A part of sums along which both operands are contiguous, some rows at a time."""
        b, long, dtype = self.b, self.long, self.plan.dtype
        row, column = long.left.strides[1], long.right.strides[1]
        whole = long.m - long.m % MOST_ROWS
        for first, end, rows in ((0, whole, MOST_ROWS), (whole, long.m, long.m - whole)):
            if first == end:
                continue
            routine = row_dot_routine(self.routines, ThinProduct(dtype, dtype, dtype, dtype, rows))
            with b.for_loop(i64(first), i64(end), rows, unroll=False) as i:
                at, to = (b.gep(self.type, p, b.mul(i, i64(n))) for p, n in ((left, row), (sums, long.n)))
                b.call(routine, [at, right, to, i64(long.n), steps, *map(i64, (row, column, long.n, 1))])

    def _along_rows(self, left: Value, right: Value, sums: Value, steps: Value) -> None:
        """A part of few rows, for which each row of the right operand is read once."""
        long, dtype = self.long, self.plan.dtype
        (_, row, step), (_, _, b_step) = long.left.strides, long.right.strides
        routine = row_sum_routine(self.routines, ThinProduct(dtype, dtype, dtype, dtype, long.m))
        sizes = (row, step, b_step, long.n, 1)
        self.b.call(routine, [left, right, sums, i64(long.n), steps, *map(i64, sizes)])

    def _finish_long(self) -> None:
        """Adds the parts of each matrix, one after the other, to its first one; then come the results."""
        b, plan, long = self.b, self.plan, self.long
        with ExitStack() as stack:
            self.loops = [stack.enter_context(b.for_loop(0, size, unroll=False)) for size in plan.batch]
            matrix = i64(0)
            for index, size in zip(self.loops, plan.batch, strict=True):
                matrix = b.add(b.mul(matrix, i64(size)), index)
            first = b.mul(matrix, i64(long.count))
            total = self._sums(first)
            with b.for_loop(1, long.count, unroll=False) as part:
                sums = self._sums(b.add(first, part))
                with b.for_loop(0, long.m * long.n) as i:
                    x, y = (b.load(self.type, b.gep(self.type, at, i)) for at in (total, sums))
                    b.store(added(b, x, y), b.gep(self.type, total, i))
            starts = self._operands() if long.rest else ()
            with b.for_loop(0, plan.m, unroll=False) as i, b.for_loop(0, plan.n) as j:
                row, column = (j, i) if long.turns else (i, j)
                value = b.load(self.type, b.gep(self.type, total, b.add(b.mul(row, i64(long.n)), column)))
                for step in range(long.k - long.rest, long.k):
                    value = self._term(starts, (row, column), step, value)
                self._put(self._index(plan.out, i, j), value)

    def _term(self, starts: tuple[Value, Value], lines: tuple[Value, Value], step: int, total: Value) -> Value:
        """The total and one more term."""
        b, long = self.b, self.long
        values = []
        for at, line, side in zip(starts, lines, (long.left, long.right), strict=True):
            place = b.add(b.mul(line, i64(side.strides[1])), i64(step * side.strides[2]))
            values.append(b.load(self.type, b.gep(self.type, at, place)))
        return multiply_add(b, *values, total)
