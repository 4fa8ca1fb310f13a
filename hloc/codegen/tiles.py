"""Tiles, the small blocks of matrix products that registers hold; and products that are small altogether.

Strides and sizes are i64, strides count elements.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, vector_type, zero
from hloc.codegen.products import added, load_as, multiply_add, store_as
from hloc.codegen.routines import PLAIN, Routines, i64
from hloc.ir.dtypes import DType
from hloc.records import record


@record
class Tile:
    """A block of `rows` x (`vectors` * `lanes`) sums of element type `dtype`, kept in registers.

    Each lane of packed operands holds so many `terms` of a sum: one of type `dtype`, or a pair (`pair_products`).
    """

    dtype: DType
    rows: int
    vectors: int
    lanes: int
    terms: int = 1

    @property
    def type(self) -> str:
        return scalar.memory_type(self.dtype)

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes

    @property
    def name(self) -> str:
        return f"{self.dtype.name}.{self.rows}x{self.columns}" + (".pairs" if self.terms == 2 else "")


def unpack_routine(routines: Routines, dtype: DType, target: DType, lanes: int) -> Function:
    """`unpack(sums, to, rows, columns, sums_row, to_row, to_column, accumulate)`: sums become results."""
    params = "ptr sums, ptr to, i64 rows, i64 columns, i64 sums_row, i64 to_row, i64 to_column, i1 accumulate"
    name = f"hloc.unpack.{dtype.name}.{target.name}"
    return routines.get(name, params, lambda b, p: _Unpacking(b, p, dtype, target).write(lanes), stage=PLAIN)


class _Unpacking:
    """Writes the body of an unpack routine with parameters `p`."""

    def __init__(self, b: Builder, p: SimpleNamespace, dtype: DType, target: DType):
        self.b, self.p, self.dtype, self.target = b, p, dtype, target

    def write(self, lanes: int) -> None:
        """Row by row: vectors as far as they go if results lie side by side, then single ones."""
        b, p = self.b, self.p
        dense = b.icmp_signed("==", p.to_column, i64(1))
        vectors = self.target.kind != "predicate" and not self.target.is_subbyte
        whole = b.select(dense, b.sub(p.columns, b.urem(p.columns, i64(lanes))), i64(0)) if vectors else i64(0)
        with b.for_loop(0, p.rows, vectorize=False, unroll=False) as row:
            if vectors:
                with b.for_loop(i64(0), whole, lanes, vectorize=False, unroll=False) as column:
                    self.put(row, column, lanes)
            with b.for_loop(whole, p.columns, vectorize=False, unroll=False) as column:
                self.put(row, column, 0)

    def put(self, row: Value, column: Value, lanes: int) -> None:
        b, p = self.b, self.p
        index = b.add(b.mul(row, p.sums_row), column)
        sums = b.gep(scalar.memory_type(self.dtype), p.sums, index)
        place = b.add(b.mul(row, p.to_row), column if lanes else b.mul(column, p.to_column))
        to = b.gep(scalar.memory_type(self.target), p.to, place)
        value = self.load(self.dtype, sums, lanes)
        if self.target is self.dtype:
            there = b.if_else(p.accumulate, lambda: [self.load(self.dtype, to, lanes)], lambda: [zero(value.type)])
            value = added(b, there[0], value)
        if lanes:
            b.store(scalar.convert(b, value, self.dtype, self.target), to, align=self.target.itemsize)
        else:
            store_as(b, value, self.dtype, self.target, to)

    def load(self, dtype: DType, address: Value, lanes: int) -> Value:
        if not lanes:
            return load_as(self.b, dtype, self.dtype, address)
        return self.b.load(vector_type(scalar.memory_type(dtype), lanes), address, align=dtype.itemsize)


class InlineProduct:
    """A small product of known sizes, written where it is needed: c = a b, of one type, the summing type.

    Columns of b and of c lie side by side; `strides` are a's row and step, b's step and c's row.
    """

    def __init__(self, b: Builder, dtype: DType, lanes: int, strides: tuple[int, int, int, int]):
        self.b, self.type, self.align = b, scalar.memory_type(dtype), dtype.itemsize
        self.lanes = lanes
        self.a_row, self.a_step, self.b_step, self.c_row = map(i64, strides)

    def write(self, sizes: tuple[int, int, int], lhs: Value, rhs: Value, out: Value) -> None:
        """Four rows at a time, of three vectors; rows that are left one by one, of eight."""
        m, n, k = sizes
        whole = m // 4 * 4
        for first, end, rows, vectors in ((0, whole, 4, 3), (whole, m, 1, 8)):
            if first < end:
                with self.b.for_loop(i64(first), i64(end), rows, unroll=False) as row:
                    self._strips(row, rows, vectors, (n, k), (lhs, rhs, out))

    def _strips(self, row: Value, rows: int, vectors: int, sizes: tuple[int, int], at: tuple[Value, ...]) -> None:
        """Some rows of the result, as many vectors of columns at a time; what is left ends in single columns."""
        (n, k), (lhs, rhs, out) = sizes, at
        size = vectors * self.lanes
        left = n if n <= size else n % size

        def strip(start: Value, widths: list[int]) -> None:
            b, c = (self.b.gep(self.type, place, start) for place in (rhs, out))
            self.rows(row, rows, widths, k, (lhs, b, c))

        if left < n:
            with self.b.for_loop(i64(0), i64(n - left), size, unroll=False) as start:
                strip(start, [self.lanes] * vectors)
        if left:
            strip(i64(n - left), [self.lanes] * (left // self.lanes) + [0] * (left % self.lanes))

    def rows(self, row: Value, count: int, widths: list[int], k: int, at: tuple[Value, Value, Value]) -> None:
        """Some rows of the result, in vectors and then single sums of the given widths."""
        b, (lhs, rhs, out) = self.b, at
        types = [vector_type(self.type, width) for width in widths]
        columns = [i64(sum(max(w, 1) for w in widths[:i])) for i in range(len(widths))]
        rows = [b.add(row, i64(i)) for i in range(count)]

        def address(start: Value, offset: Value) -> Value:
            return b.gep(self.type, start, offset)

        def step(s: Value, sums: list[Value]) -> list[Value]:
            start = address(rhs, b.mul(s, self.b_step))
            ys = [b.load(t, address(start, c), align=self.align) for t, c in zip(types, columns, strict=True)]
            places = [b.add(b.mul(r, self.a_row), b.mul(s, self.a_step)) for r in rows]
            xs = [b.load(self.type, address(lhs, place)) for place in places]
            pairs = [(b.splat(x, width), y) for x in xs for y, width in zip(ys, widths, strict=True)]
            return [multiply_add(b, x, y, total) for (x, y), total in zip(pairs, sums, strict=True)]

        sums = b.for_loop_carrying(0, k, [zero(t) for _ in rows for t in types], step)
        for position, total in enumerate(sums):
            i, j = divmod(position, len(widths))
            b.store(total, address(out, b.add(b.mul(rows[i], self.c_row), columns[j])), align=self.align)
