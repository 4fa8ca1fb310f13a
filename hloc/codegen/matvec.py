"""Products of a few rows with a matrix, as routines: the matrix is read once, where it lies.

Two forms, by the direction in which the matrix b is contiguous. Bound by memory, both go along b's rows. The
rows of a, `rows` of them, are known when the routine is written. Sizes and strides are as in `tiles`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, const, is_float, vector_type, zero
from hloc.codegen.products import added, load_as, multiply, multiply_add, store_as
from hloc.codegen.routines import OPTIMIZED, PLAIN, Routines, blocks, even_block, i64, least
from hloc.ir.dtypes import DType
from hloc.records import NamedTuple

MOST_ROWS = 4
"""Products with more rows than this are better packed."""

_COLUMN_BLOCK, _COLUMNS = 2048, 64
"""Sums of a block of columns, in cache, and columns that blocks are whole multiples of."""
_STEP_BLOCK = 4096


class ThinProduct(NamedTuple):
    """Element types of the operands and the result, the type of sums, and the rows of a."""

    lhs: DType
    rhs: DType
    out: DType
    dtype: DType
    rows: int

    @property
    def name(self) -> str:
        return ".".join([*(dtype.name for dtype in self[:4]), str(self.rows)])


class _Writer:
    """What the bodies of both routines are written with."""

    def __init__(self, b: Builder, p: SimpleNamespace, product: ThinProduct):
        self.b, self.p, self.product = b, p, product
        self.type = scalar.memory_type(product.dtype)

    def lhs(self, offset: Value) -> Value:
        return self.b.gep(scalar.memory_type(self.product.lhs), self.p.a, offset)

    def rhs(self, offset: Value) -> Value:
        return self.b.gep(scalar.memory_type(self.product.rhs), self.p.b, offset)

    def load(self, source: DType, start: Value, offset: Value) -> Value:
        """An operand's element, as a value to sum."""
        address = self.b.gep(scalar.memory_type(source), start, offset)
        return load_as(self.b, source, self.product.dtype, address)

    def row(self, i: int) -> Value:
        """Where row i of a starts."""
        return self.b.mul(self.p.a_row, i64(i))

    def store(self, i: int, column: Value, value: Value) -> None:
        """A result, in row i."""
        index = self.b.add(self.b.mul(self.p.c_row, i64(i)), self.b.mul(column, self.p.c_column))
        address = self.b.gep(scalar.memory_type(self.product.out), self.p.c, index)
        store_as(self.b, value, self.product.dtype, self.product.out, address)


def row_sum_routine(routines: Routines, product: ThinProduct) -> Function:
    """`f(a, b, c, n, k, a_row, a_step, b_step, c_row, c_column)`: c = a b, b's columns side by side.

    Rows of b, each times an element of a, are added up in blocks of columns that stay in cache.
    """
    params = "ptr a, ptr b, ptr c, i64 n, i64 k, i64 a_row, i64 a_step, i64 b_step, i64 c_row, i64 c_column"
    dtype = product.dtype
    alike = product.rhs is dtype and product.out is dtype and is_float(scalar.memory_type(dtype))
    lanes = routines.target.vector_bytes // dtype.itemsize if alike else 0
    return routines.get(
        f"hloc.row_sum.{product.name}",
        params,
        lambda b, p: _RowSum(b, p, product, lanes).write(),
        stage=PLAIN if lanes else OPTIMIZED,
    )


class _RowSum(_Writer):
    """Works on vectors of so many lanes; with 0, on elements, in loops that LLVM makes vectors of."""

    def __init__(self, b: Builder, p: SimpleNamespace, product: ThinProduct, lanes: int):
        super().__init__(b, p, product)
        self.lanes = lanes

    def write(self) -> None:
        b, p, rows = self.b, self.p, self.product.rows
        together = max(8 // rows, 2)
        self.width = _COLUMN_BLOCK // rows // _COLUMNS * _COLUMNS
        self.sums = b.alloca(self.type, self.width * rows, align=64)
        with blocks(b, p.n, even_block(b, p.n, self.width, _COLUMNS)) as (column, columns):
            b.memset(self.sums, const("i8", 0), i64(rows * self.width * self.product.dtype.itemsize))
            whole = b.sub(p.k, b.urem(p.k, i64(together)))
            with b.for_loop(i64(0), whole, together, unroll=False) as step:
                self.add_rows(step, together, column, columns)
            with b.for_loop(whole, p.k, unroll=False) as step:
                self.add_rows(step, 1, column, columns)
            for i in range(rows):
                self.put(i, column, columns)

    def put(self, i: int, column: Value, columns: Value) -> None:
        """Stores a row of sums as results."""

        def some(j: Value, lanes: int) -> None:
            if not lanes:
                self.store(i, b.add(column, j), b.load(self.type, self.sum(i, j)))
                return
            place = b.gep(self.type, self.p.c, b.add(b.mul(self.p.c_row, i64(i)), b.add(column, j)))
            b.store(self.vector(self.sum(i, j)), place, align=self.product.dtype.itemsize)

        b = self.b
        self.along(columns, some, b.icmp_signed("==", self.p.c_column, i64(1)))

    def along(self, count: Value, some: Callable[[Value, int], None], dense: Value | None = None) -> None:
        """`some` of so many elements, from an index on: vectors, if they lie `dense`, and then single ones."""
        b, lanes = self.b, self.lanes
        if not lanes:
            with b.for_loop(0, count, unroll=False) as j:
                some(j, 0)
            return
        whole = b.and_(count, i64(-lanes))
        whole = whole if dense is None else b.select(dense, whole, i64(0))
        with b.for_loop(i64(0), whole, lanes, vectorize=False, unroll=False) as j:
            some(j, lanes)
        with b.for_loop(whole, count, vectorize=False, unroll=False) as j:
            some(j, 0)

    def vector(self, address: Value) -> Value:
        return self.b.load(vector_type(self.type, self.lanes), address, align=self.product.dtype.itemsize)

    def sum(self, i: int, j: Value) -> Value:
        """The address of a sum in the block."""
        return self.b.gep(self.type, self.sums, self.b.add(j, i64(i * self.width)))

    def add_rows(self, first: Value, count: int, column: Value, columns: Value) -> None:
        """Adds `count` rows of b, from `first` on, to the sums."""
        b, p, product = self.b, self.p, self.product
        steps = [b.add(first, i64(s)) for s in range(count)]
        factors = [
            [self.load(product.lhs, p.a, b.add(self.row(i), b.mul(step, p.a_step))) for step in steps]
            for i in range(product.rows)
        ]
        starts = [self.rhs(b.add(b.mul(step, p.b_step), column)) for step in steps]
        splats = [[b.splat(factor, self.lanes) if self.lanes else factor for factor in row] for row in factors]

        def some(j: Value, lanes: int) -> None:
            if lanes:
                values = [self.vector(b.gep(self.type, start, j)) for start in starts]
            else:
                values = [self.load(product.rhs, start, j) for start in starts]
            for i, row in enumerate(splats if lanes else factors):
                part = multiply(b, row[0], values[0])
                for factor, value in zip(row[1:], values[1:], strict=True):
                    part = multiply_add(b, factor, value, part)
                place = self.sum(i, j)
                before = self.vector(place) if lanes else b.load(self.type, place)
                b.store(added(b, before, part), place, align=product.dtype.itemsize)

        self.along(columns, some)


def row_dot_routine(routines: Routines, product: ThinProduct) -> Function:
    """`f(a, b, c, n, k, a_row, b_column, c_row, c_column)`: c = a b, both contiguous along the sums.

    Sums of floats are made in several parts, a number of them that depends on the target alone, over blocks
    of the contracted index that are added in order.
    """
    params = "ptr a, ptr b, ptr c, i64 n, i64 k, i64 a_row, i64 b_column, i64 c_row, i64 c_column"
    return routines.get(f"hloc.row_dot.{product.name}", params, lambda b, p: _RowDot(b, p, product).write())


class _RowDot(_Writer):
    def write(self) -> None:
        b, p = self.b, self.p
        together = 4 if self.product.rows <= 2 else 2
        whole = b.sub(p.n, b.urem(p.n, i64(together)))
        with b.for_loop(i64(0), whole, together, unroll=False) as column:
            self.columns(column, together)
        with b.for_loop(whole, p.n, unroll=False) as column:
            self.columns(column, 1)

    def columns(self, first: Value, count: int) -> None:
        """Results for `count` columns, from `first` on."""
        b, k = self.b, self.p.k
        columns = [b.add(first, i64(j)) for j in range(count)]
        number = b.udiv(b.add(k, i64(_STEP_BLOCK - 1)), i64(_STEP_BLOCK))

        def block(o: Value, totals: list[Value]) -> list[Value]:
            step = b.mul(o, i64(_STEP_BLOCK))
            sums = self.block_sums(step, least(b, b.sub(k, step), i64(_STEP_BLOCK)), columns)
            return [added(b, total, value) for total, value in zip(totals, sums, strict=True)]

        start = [zero(self.type)] * (self.product.rows * count)
        totals = b.for_loop_carrying(0, number, start, block, unroll=False)
        for position, total in enumerate(totals):
            i, j = divmod(position, count)
            self.store(i, columns[j], total)

    def block_sums(self, first: Value, steps: Value, columns: list[Value]) -> list[Value]:
        """Sums over a block of the contracted index, row by row."""
        b, product = self.b, self.product
        a_starts = [self.lhs(b.add(self.row(i), first)) for i in range(product.rows)]
        b_starts = [self.rhs(b.add(b.mul(column, self.p.b_column), first)) for column in columns]

        def step(s: Value, sums: list[Value]) -> list[Value]:
            xs = [self.load(product.lhs, start, s) for start in a_starts]
            ys = [self.load(product.rhs, start, s) for start in b_starts]
            pairs = [(x, y) for x in xs for y in ys]
            return [_sum_of_products(b, x, y, total) for (x, y), total in zip(pairs, sums, strict=True)]

        return b.for_loop_carrying(0, steps, [zero(self.type)] * (len(a_starts) * len(b_starts)), step)


def _sum_of_products(b: Builder, x: Value, y: Value, total: Value) -> Value:
    """x * y + total, free to be split into several sums."""
    if not is_float(x.type):
        return b.add(b.mul(x, y), total)
    before, b.fast = b.fast, "reassoc contract"
    result = b.fadd(total, b.fmul(x, y))
    b.fast = before
    return result
