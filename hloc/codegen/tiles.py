"""Tiles, the small blocks of matrix products that registers hold; and products that are small altogether.

Strides and sizes are i64, strides count elements.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, vector_type, zero
from hloc.codegen.products import added, load_as, multiply_add, store_as
from hloc.codegen.routines import Routines, i64
from hloc.ir.dtypes import DType
from hloc.records import record


@record
class Tile:
    """A block of `rows` x (`vectors` * `lanes`) sums of element type `dtype`, kept in registers."""

    dtype: DType
    rows: int
    vectors: int
    lanes: int

    @property
    def type(self) -> str:
        return scalar.memory_type(self.dtype)

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes

    @property
    def name(self) -> str:
        return f"{self.dtype.name}.{self.rows}x{self.columns}"


def unpack_routine(routines: Routines, dtype: DType, target: DType) -> Function:
    """`unpack(sums, to, rows, columns, sums_row, to_row, to_column, accumulate)`: sums become results."""

    def write(b: Builder, p: SimpleNamespace) -> None:
        def copy(accumulate: bool) -> None:
            with b.for_loop(0, p.rows) as row, b.for_loop(0, p.columns, unroll=False) as column:
                source = b.add(b.mul(row, p.sums_row), column)
                value = b.load(scalar.memory_type(dtype), b.gep(scalar.memory_type(dtype), p.sums, source))
                index = b.add(b.mul(row, p.to_row), b.mul(column, p.to_column))
                address = b.gep(scalar.memory_type(target), p.to, index)
                value = added(b, load_as(b, target, dtype, address), value) if accumulate else value
                store_as(b, value, dtype, target, address)

        b.if_else(p.accumulate, lambda: copy(True), lambda: copy(False))

    params = "ptr sums, ptr to, i64 rows, i64 columns, i64 sums_row, i64 to_row, i64 to_column, i1 accumulate"
    return routines.get(f"hloc.unpack.{dtype.name}.{target.name}", params, write)


class InlineProduct:
    """A small product of known sizes, written where it is needed: c = a b, of one type, the summing type.

    Columns of b and of c lie side by side; `strides` are a's row and step, b's step and c's row.
    """

    def __init__(self, b: Builder, dtype: DType, lanes: int, strides: tuple[int, int, int, int]):
        self.b, self.type, self.align = b, scalar.memory_type(dtype), dtype.itemsize
        self.lanes = lanes
        self.a_row, self.a_step, self.b_step, self.c_row = map(i64, strides)

    def write(self, sizes: tuple[int, int, int], lhs: Value, rhs: Value, out: Value) -> None:
        """Four rows at a time."""
        m, n, k = sizes
        widths = [self.lanes] * (n // self.lanes) + [0] * (n % self.lanes)
        whole = m // 4 * 4
        for first, end, rows in ((0, whole, 4), (whole, m, 1)):
            if first < end:
                with self.b.for_loop(i64(first), i64(end), rows, unroll=False) as row:
                    self.rows(row, rows, widths, k, (lhs, rhs, out))

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
