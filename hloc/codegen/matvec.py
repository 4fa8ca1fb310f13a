"""Products of a few rows with a matrix, as routines: the matrix is read once, where it lies.

Two forms, by the direction in which the matrix b is contiguous. Bound by memory, both go along b's rows. The
rows of a, `rows` of them, are known when the routine is written.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.gemm import added, load_as, multiply, multiply_add, store_as
from hloc.codegen.llvm import Builder, Function, Value, is_float, zero
from hloc.codegen.routines import Routines, blocks, i64
from hloc.ir.dtypes import DType

MOST_ROWS = 4
"""Products with more rows than this are better packed."""

_COLUMN_BLOCK = 2048
_STEP_BLOCK = 4096


def row_sum_routine(
    routines: Routines, lhs: DType, rhs: DType, out: DType, dtype: DType, rows: int
) -> Function:
    """`f(a, b, c, n, k, a_row, a_step, b_step, c_row, c_column)`: c = a b, b's columns side by side (stride
    1).

    Rows of b, each times an element of a, are added up in blocks of columns that stay in cache.
    """
    type = scalar.memory_type(dtype)
    together = max(8 // rows, 2)
    width = _COLUMN_BLOCK // rows

    def terms(
        b: Builder, p: SimpleNamespace, sums: Value, step: Value, count: int, column: Value, columns: Value
    ):
        """Adds `count` rows of b, from `step` on, to the sums."""
        factors = [
            [
                load_as(
                    b,
                    lhs,
                    dtype,
                    b.gep(
                        scalar.memory_type(lhs),
                        p.a,
                        b.add(b.mul(p.a_row, i64(i)), b.mul(b.add(step, i64(s)), p.a_step)),
                    ),
                )
                for s in range(count)
            ]
            for i in range(rows)
        ]
        starts = [
            b.gep(scalar.memory_type(rhs), p.b, b.add(b.mul(b.add(step, i64(s)), p.b_step), column))
            for s in range(count)
        ]
        with b.for_loop(0, columns) as j:
            values = [load_as(b, rhs, dtype, b.gep(scalar.memory_type(rhs), start, j)) for start in starts]
            for i in range(rows):
                place = b.gep(type, sums, b.add(j, i64(i * width)))
                part = multiply(b, factors[i][0], values[0])
                for factor, value in zip(factors[i][1:], values[1:], strict=True):
                    part = multiply_add(b, factor, value, part)
                b.store(added(b, b.load(type, place), part), place)

    def write(b: Builder, p: SimpleNamespace) -> None:
        sums = b.alloca(type, width * rows, align=64)
        with blocks(b, p.n, i64(width)) as (column, columns):
            with b.for_loop(0, i64(rows * width)) as j:
                b.store(zero(type), b.gep(type, sums, j))
            whole = b.sub(p.k, b.urem(p.k, i64(together)))
            with b.for_loop(i64(0), whole, together, unroll=False) as step:
                terms(b, p, sums, step, together, column, columns)
            with b.for_loop(whole, p.k, unroll=False) as step:
                terms(b, p, sums, step, 1, column, columns)
            for i in range(rows):
                with b.for_loop(0, columns, unroll=False) as j:
                    index = b.add(b.mul(p.c_row, i64(i)), b.mul(b.add(column, j), p.c_column))
                    value = b.load(type, b.gep(type, sums, b.add(j, i64(i * width))))
                    store_as(b, value, dtype, out, b.gep(scalar.memory_type(out), p.c, index))

    params = [
        ("ptr", "a"),
        ("ptr", "b"),
        ("ptr", "c"),
        ("i64", "n"),
        ("i64", "k"),
        ("i64", "a_row"),
        ("i64", "a_step"),
        ("i64", "b_step"),
        ("i64", "c_row"),
        ("i64", "c_column"),
    ]
    return routines.get(f"hloc.row_sum.{lhs.name}.{rhs.name}.{out.name}.{dtype.name}.{rows}", params, write)


def row_dot_routine(
    routines: Routines, lhs: DType, rhs: DType, out: DType, dtype: DType, rows: int
) -> Function:
    """`f(a, b, c, n, k, a_row, b_column, c_row, c_column)`: c = a b, both contiguous along the contracted
    index.

    Sums of floats are made in several parts, a number of them that depends on the target alone, over blocks
    of the contracted index that are added in order.
    """
    together = 4 if rows <= 2 else 2

    def block_sums(
        b: Builder, p: SimpleNamespace, a_starts: list[Value], b_starts: list[Value], steps: Value
    ):
        def step(s: Value, sums: list[Value]) -> list[Value]:
            xs = [load_as(b, lhs, dtype, b.gep(scalar.memory_type(lhs), start, s)) for start in a_starts]
            ys = [load_as(b, rhs, dtype, b.gep(scalar.memory_type(rhs), start, s)) for start in b_starts]
            return [
                _sum_of_products(b, x, y, sums[i * len(ys) + j])
                for i, x in enumerate(xs)
                for j, y in enumerate(ys)
            ]

        start = [zero(scalar.memory_type(dtype))] * (len(a_starts) * len(b_starts))
        return b.for_loop_carrying(0, steps, start, step)

    def columns(b: Builder, p: SimpleNamespace, column: Value, count: int) -> None:
        """Results for `count` columns, from `column` on."""
        number = b.udiv(b.add(p.k, i64(_STEP_BLOCK - 1)), i64(_STEP_BLOCK))

        def block(o: Value, totals: list[Value]) -> list[Value]:
            step = b.mul(o, i64(_STEP_BLOCK))
            left = b.sub(p.k, step)
            steps = b.select(b.icmp_signed("<", left, i64(_STEP_BLOCK)), left, i64(_STEP_BLOCK))
            a_starts = [
                b.gep(scalar.memory_type(lhs), p.a, b.add(b.mul(p.a_row, i64(i)), step)) for i in range(rows)
            ]
            b_starts = [
                b.gep(scalar.memory_type(rhs), p.b, b.add(b.mul(b.add(column, i64(j)), p.b_column), step))
                for j in range(count)
            ]
            sums = block_sums(b, p, a_starts, b_starts, steps)
            return [added(b, total, value) for total, value in zip(totals, sums, strict=True)]

        totals = b.for_loop_carrying(
            0, number, [zero(scalar.memory_type(dtype))] * (rows * count), block, unroll=False
        )
        for position, total in enumerate(totals):
            i, j = divmod(position, count)
            index = b.add(b.mul(p.c_row, i64(i)), b.mul(b.add(column, i64(j)), p.c_column))
            store_as(b, total, dtype, out, b.gep(scalar.memory_type(out), p.c, index))

    def write(b: Builder, p: SimpleNamespace) -> None:
        whole = b.sub(p.n, b.urem(p.n, i64(together)))
        with b.for_loop(i64(0), whole, together, unroll=False) as column:
            columns(b, p, column, together)
        with b.for_loop(whole, p.n, unroll=False) as column:
            columns(b, p, column, 1)

    params = [
        ("ptr", "a"),
        ("ptr", "b"),
        ("ptr", "c"),
        ("i64", "n"),
        ("i64", "k"),
        ("i64", "a_row"),
        ("i64", "b_column"),
        ("i64", "c_row"),
        ("i64", "c_column"),
    ]
    return routines.get(f"hloc.row_dot.{lhs.name}.{rhs.name}.{out.name}.{dtype.name}.{rows}", params, write)


def _sum_of_products(b: Builder, x: Value, y: Value, total: Value) -> Value:
    """x * y + total, free to be split into several sums."""
    if not is_float(x.type):
        return b.add(b.mul(x, y), total)
    before, b.fast = b.fast, "reassoc contract"
    result = b.fadd(total, b.fmul(x, y))
    b.fast = before
    return result
