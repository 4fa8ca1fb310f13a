"""Products of several rows with a large matrix whose columns lie side by side, as routines: it is read once, in order.

Sums of some columns stay in the innermost cache; a few rows of the matrix at a time are multiplied by all rows of the
left operand. Sizes and strides are as in `tiles`.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, vector_type, zero
from hloc.codegen.products import multiply_add
from hloc.codegen.routines import PLAIN, Routines, blocks, even_block, i64
from hloc.ir.dtypes import DType

MOST_ROWS, LEAST_BYTES = 8, 1 << 20
"""Rows for which this is better than packing, and bytes of the matrix, which caches near a core do not hold."""

_BYTES = 1 << 14
"""Bytes of the sums that are in cache."""

_STEPS, _VECTORS = 4, 3
"""Rows of the matrix, and vectors of each, that registers hold."""

_AHEAD = 2 * _STEPS
"""Rows by which the matrix is asked for before it is read: of each row only a short run is read at a time, in which no
processor foresees the next one.
"""

_LINE = 64
"""Bytes of a cache line."""


def few_rows_routine(routines: Routines, dtype: DType, rows: int, lanes: int) -> Function:
    """`f(a, b, c, n, k, a_row, a_step, b_step, c_row)`: c = a b of `rows` rows, all of one type.

    n is a multiple of `lanes`. The terms of a sum are added in order.
    """
    params = "ptr a, ptr b, ptr c, i64 n, i64 k, i64 a_row, i64 a_step, i64 b_step, i64 c_row"
    name = f"hloc.few_rows.{dtype.name}.{rows}"
    return routines.get(name, params, lambda b, p: _FewRows(b, p, dtype, rows, lanes).write(), stage=PLAIN)


class _FewRows:
    def __init__(self, b: Builder, p: SimpleNamespace, dtype: DType, rows: int, lanes: int):
        self.b, self.p, self.rows, self.lanes = b, p, rows, lanes
        self.type, self.align = scalar.memory_type(dtype), dtype.itemsize
        self.vector = vector_type(self.type, lanes)
        self.width = max(_BYTES // (rows * dtype.itemsize * lanes), 1) * lanes
        self.sums = b.alloca(self.type, self.width * rows, align=64)

    def at(self, start: Value, offset: Value) -> Value:
        return self.b.gep(self.type, start, offset)

    def load(self, address: Value) -> Value:
        return self.b.load(self.vector, address, align=self.align)

    def write(self) -> None:
        b, p = self.b, self.p
        together = _VECTORS * self.lanes
        with blocks(b, p.n, even_block(b, p.n, self.width, self.lanes)) as (column, count):
            with b.for_loop(i64(0), i64(self.rows * self.width), self.lanes, vectorize=False, unroll=False) as j:
                b.store(zero(self.vector), self.at(self.sums, j), align=self.align)
            most, whole = b.sub(p.k, b.urem(p.k, i64(_STEPS))), b.sub(count, b.urem(count, i64(together)))
            for steps, first, end in ((_STEPS, i64(0), most), (1, most, p.k)):
                with b.for_loop(first, end, steps, vectorize=False, unroll=False) as step:
                    start = self.at(p.b, b.add(b.mul(step, p.b_step), column))
                    for vectors, left, right in ((_VECTORS, i64(0), whole), (1, whole, count)):
                        with b.for_loop(left, right, vectors * self.lanes, vectorize=False, unroll=False) as j:
                            self.add(step, steps, vectors, self.at(start, j), j)
            self.store(column, count)

    def add(self, step: Value, steps: int, vectors: int, start: Value, j: Value) -> None:
        """Adds some steps' terms to some vectors of sums of each row."""
        b, p = self.b, self.p
        values = [
            [self.load(self.at(start, b.add(b.mul(p.b_step, i64(s)), i64(v * self.lanes)))) for v in range(vectors)]
            for s in range(steps)
        ]
        if steps == _STEPS:
            for s in range(steps):
                later = self.at(start, b.mul(p.b_step, i64(_AHEAD + s)))
                for offset in range(0, vectors * self.lanes * self.align, _LINE):
                    b.prefetch(b.gep("i8", later, i64(offset)))
        for i in range(self.rows):
            places = [self.at(self.sums, b.add(j, i64(i * self.width + v * self.lanes))) for v in range(vectors)]
            sums = [self.load(place) for place in places]
            for s, line in enumerate(values):
                offset = b.add(b.mul(p.a_row, i64(i)), b.mul(b.add(step, i64(s)), p.a_step))
                factor = b.splat(b.load(self.type, self.at(p.a, offset)), self.lanes)
                sums = [multiply_add(b, factor, x, total) for x, total in zip(line, sums, strict=True)]
            for place, total in zip(places, sums, strict=True):
                b.store(total, place, align=self.align)

    def store(self, column: Value, count: Value) -> None:
        """Sums become results."""
        b, p = self.b, self.p
        for i in range(self.rows):
            line = self.at(p.c, b.add(b.mul(p.c_row, i64(i)), column))
            with b.for_loop(i64(0), count, self.lanes, vectorize=False, unroll=False) as j:
                value = self.load(self.at(self.sums, b.add(j, i64(i * self.width))))
                b.store(value, self.at(line, j), align=self.align)
