"""Large systems of a lower triangular matrix, solved by blocks: what the blocks above add to a block of rows of the
solution is a product.

The columns are solved some at a time, twelve vectors of them, which lie in panels as the product reads them.
"""

from __future__ import annotations

from math import prod

from hloc.codegen import scalar
from hloc.codegen.dot_units import Split
from hloc.codegen.gemm_block import Operand, block_routine, multiply_block
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value, integer, vector_type
from hloc.codegen.loops import delinearize
from hloc.codegen.matrices import Triangular
from hloc.codegen.products import multiply_add
from hloc.codegen.routines import Routines, blocks, i64, least
from hloc.codegen.tiles import Tile

_ROWS = 24
"""Rows of a block: whole tiles."""

_VECTORS = 12
"""Vectors of columns that are solved together: so many are held in registers."""

_WIDEST = 64
"""Bytes of the widest vectors of all targets."""


def is_blocked(plan: Triangular) -> bool:
    """Whether a system is large enough for blocks, and of real numbers."""
    return not plan.dtype.is_complex and plan.n >= 2 * _ROWS and plan.columns >= 8


def scratch_bytes(plan: Triangular) -> int:
    """Bytes for the triangle and for some columns of the solution, both with whole blocks of rows."""
    return _rows(plan) * (_line(plan) * plan.working.itemsize + _VECTORS * _WIDEST)


def _rows(plan: Triangular) -> int:
    return -(-plan.n // _ROWS) * _ROWS


def _line(plan: Triangular) -> int:
    """Elements between rows of the triangle: no power of two, which would have them displace each other in caches."""
    return -(-plan.n // 16) * 16 + 16


class BlockedSolve:
    """Writes the solution of the systems of a batch. Below the diagonal, the triangle has the other sign in scratch."""

    def __init__(self, k: KernelContext, plan: Triangular):
        self.k, self.b, self.plan = k, k.b, plan
        lanes = max(k.target.vector_bytes // plan.working.itemsize, 2)
        self.tile = Tile(plan.working, 6, 2, lanes)
        self.vector, self.group = vector_type(self.tile.type, lanes), _VECTORS * lanes
        self.triangle = k.b.gep("i8", k.scratch, i64(_rows(plan) * _VECTORS * _WIDEST))

    def write(self) -> None:
        k, plan = self.k, self.plan
        batch = k.instruction.shape.dims[:-2]
        if k.range is None:
            k.loop_nest(batch, lambda index: self.matrix(index, (i64(0), i64(plan.columns))))
            return
        count = min(k.workers, max(plan.columns // (2 * self.group), 1)) if prod(batch) < k.workers else 1
        parts = Split(plan.columns, count, self.tile.columns)
        with k.ranged(prod(batch) * count) as limits, k.b.for_loop(*limits, unroll=False) as unit:
            matrix, part = delinearize(k.b, unit, [prod(batch), count])
            self.matrix(tuple(delinearize(k.b, matrix, batch)), parts.extent(k.b, part))

    def matrix(self, batch: Index, columns: tuple[Value, Value]) -> None:
        """Some columns of one system."""
        b, plan = self.b, self.plan
        with b.for_loop(0, plan.n) as i, b.for_loop(0, plan.n) as j:
            value = plan.triangle(self.k, batch, i, j)
            value = b.select(b.icmp_signed("<", j, i), b.fneg(value), value)
            b.store(value, self._element(i, j))
        with blocks(b, columns[1], i64(self.group)) as (first, count):
            first = b.add(columns[0], first)
            self._each(first, count, lambda i, j, place: b.store(plan.given(self.k, batch, i, j), place))
            with b.for_loop(i64(0), i64(plan.n), _ROWS, unroll=False) as start:
                self._multiply(start, count)
                with b.for_loop(start, least(b, b.add(start, i64(_ROWS)), i64(plan.n)), unroll=False) as i:
                    self._solve(i, start)
            self._each(first, count, lambda i, j, place: self._put(batch, i, j, place))

    def _put(self, batch: Index, i: Value, j: Value, place: Value) -> None:
        plan = self.plan
        value = scalar.convert(self.b, self.b.load(self.tile.type, place), plan.working, plan.dtype)
        self.k.outputs[0].store(plan.place(self.b, batch, i, j), value)

    def _element(self, i: Value, j: Value) -> Value:
        """Where an element of the triangle is."""
        return self.b.gep(self.tile.type, self.triangle, self.b.add(self.b.mul(i, i64(_line(self.plan))), j))

    def _line(self, panel: Value, i: Value) -> Value:
        """Where a row of a panel of the solution is."""
        row = self.b.add(self.b.mul(panel, i64(_rows(self.plan))), i)
        return self.b.gep(self.tile.type, self.k.scratch, self.b.mul(row, i64(self.tile.columns)))

    def _each(self, first: Value, count: Value, body) -> None:
        """Runs body(i, j, place) for the elements of some columns, by panels."""
        b = self.b
        with (
            blocks(b, count, i64(self.tile.columns)) as (start, width),
            b.for_loop(0, self.plan.n, unroll=False) as i,
        ):
            line = self._line(b.udiv(start, i64(self.tile.columns)), i)
            with b.for_loop(0, width) as j:
                body(i, b.add(first, b.add(start, j)), b.gep(self.tile.type, line, j))

    def _multiply(self, start: Value, count: Value) -> None:
        """Adds the terms of all rows above `start` to the block of rows there."""
        b, plan, tile = self.b, self.plan, self.tile
        routine = block_routine(Routines(b.module, self.k.target), tile)
        line, m = i64(_line(plan)), i64(_ROWS)
        left = Operand(self._element(start, i64(0)), line, line, i64(1), m)
        with blocks(b, count, i64(tile.columns)) as (first, _):
            panel = b.udiv(first, i64(tile.columns))
            right = Operand.packed(self._line(panel, i64(0)), tile.columns, i64(tile.columns), start)
            to = self._line(panel, start), i64(tile.columns), i64(1)
            multiply_block(b, routine, (left, right), to, (m, i64(tile.columns), start), integer("i1", 1))

    def _solve(self, i: Value, start: Value) -> None:
        """Row i, given the rows of its block above it, over the diagonal."""
        b, lanes = self.b, self.tile.lanes
        vectors = [divmod(number, self.tile.vectors) for number in range(_VECTORS)]

        def places(row: Value) -> list[Value]:
            return [b.gep(self.tile.type, self._line(i64(p), row), i64(v * lanes)) for p, v in vectors]

        def load(row: Value) -> list[Value]:
            return [b.load(self.vector, place, align=self.tile.dtype.itemsize) for place in places(row)]

        def step(s: Value, sums: list[Value]) -> list[Value]:
            factor = b.splat(b.load(self.tile.type, self._element(i, s)), lanes)
            return [multiply_add(b, factor, x, y) for x, y in zip(load(s), sums, strict=True)]

        sums = b.for_loop_carrying(start, i, load(i), step, unroll=False)
        if not self.plan.unit:
            diagonal = b.splat(b.load(self.tile.type, self._element(i, i)), lanes)
            sums = [b.fdiv(total, diagonal) for total in sums]
        for place, total in zip(places(i), sums, strict=True):
            b.store(total, place, align=self.tile.dtype.itemsize)
