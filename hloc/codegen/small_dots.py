"""Small products of which both operands are contiguous along the sums: each sum is made of vectors along it."""

from __future__ import annotations

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Value, poison, vector_type, zero
from hloc.codegen.products import added, multiply, multiply_add
from hloc.codegen.routines import i64
from hloc.ir.dtypes import DType

_BLOCK = 16
"""Bytes within which vectors are shuffled at once."""


class InlineDots:
    """A small product of known sizes, written where it is needed: c = a b, of one type, the summing type.

    Rows of a and columns of b are contiguous; `strides` are a's row, b's column, c's row and c's column. As many sums
    as a vector has `lanes`, each of a vector of parts, are added up together in a tree, which ends with one vector of
    them all.
    """

    def __init__(self, b: Builder, dtype: DType, lanes: int, strides: tuple[int, int, int, int]):
        self.b, self.type, self.align = b, scalar.memory_type(dtype), dtype.itemsize
        self.lanes = lanes
        self.a_row, self.b_column, self.c_row, self.c_column = strides

    def write(self, sizes: tuple[int, int, int], lhs: Value, rhs: Value, out: Value) -> None:
        m, n, k = sizes
        while self.lanes > k:
            self.lanes //= 2
        rows = [self._line(self._at(lhs, i64(i * self.a_row)), k) for i in range(m)]
        whole = n - n % self.lanes
        with self.b.for_loop(i64(0), i64(whole), self.lanes, unroll=False) as first:
            self._columns(rows, first, self.lanes, k, rhs, out)
        if whole < n:
            self._columns(rows, i64(whole), n - whole, k, rhs, out)

    def _columns(self, rows: list[list[Value]], first: Value, count: int, k: int, rhs: Value, out: Value) -> None:
        """The sums of all rows in `count` columns."""
        start = self._at(rhs, self.b.mul(first, i64(self.b_column)))
        columns = [self._line(self._at(start, i64(j * self.b_column)), k) for j in range(count)]
        start = self._at(out, self.b.mul(first, i64(self.c_column)))
        for i, row in enumerate(rows):
            sums = [self._parts(row, column) for column in columns]
            self._store(sums, self._at(start, i64(i * self.c_row)))

    def _at(self, start: Value, offset: Value) -> Value:
        return self.b.gep(self.type, start, offset)

    def _line(self, start: Value, k: int) -> list[Value]:
        """A row or column as vectors; the last one has zeros for what an earlier one has too."""
        lanes, rest = self.lanes, k % self.lanes
        vectors = [self._load(start, s) for s in range(0, k - rest, lanes)]
        if rest:
            last = self._load(start, k - lanes)
            mask = [lane if lane >= lanes - rest else lanes for lane in range(lanes)]
            vectors.append(self.b.shufflevector(last, zero(last.type), mask))
        return vectors

    def _load(self, start: Value, offset: int) -> Value:
        return self.b.load(vector_type(self.type, self.lanes), self._at(start, i64(offset)), align=self.align)

    def _parts(self, row: list[Value], column: list[Value]) -> Value:
        """A vector of parts of a sum."""
        total = multiply(self.b, row[0], column[0])
        for x, y in zip(row[1:], column[1:], strict=True):
            total = multiply_add(self.b, x, y, total)
        return total

    def _store(self, sums: list[Value], out: Value) -> None:
        """Adds up the parts of some sums, and puts these into a row of the result."""
        b, count = self.b, len(sums)
        vector = self._added_up(sums + [poison(sums[0].type)] * (self.lanes - count))
        if count == self.lanes and self.c_column == 1:
            b.store(vector, out, align=self.align)
            return
        for j in range(count):
            b.store(b.extractelement(vector, j), self._at(out, i64(j * self.c_column)))

    def _added_up(self, vectors: list[Value]) -> Value:
        """The vector of the sums of the lanes of as many vectors as each has lanes."""
        width = 1
        while len(vectors) > 1:
            block = self.lanes if width * self.align >= _BLOCK else min(_BLOCK // self.align, self.lanes)
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [self._paired(x, y, block, width) for x, y in pairs]
            width *= 2
        return vectors[0]

    def _paired(self, x: Value, y: Value, block: int, width: int) -> Value:
        """The lower half of each block plus the upper half, so many lanes of x and of y in turn."""

        def half(offset: int) -> list[int]:
            return [
                vector + start + offset + place + i
                for start in range(0, self.lanes, block)
                for place in range(0, block // 2, width)
                for vector in (0, self.lanes)
                for i in range(width)
            ]

        return added(self.b, *(self.b.shufflevector(x, y, half(offset)) for offset in (0, block // 2)))
