"""triangular-solve, batched, of floats and complex numbers.

Small systems are solved by a block each, in shared memory. Large ones go by blocks of rows: a launch that solves for
them, a launch that takes their products off all rows that are left, and so on. In between, x lies in scratch, in the
type that it is computed in.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.gpu.blocks import (
    SHARED,
    THREADS,
    TILE,
    each_of_block,
    in_scratch,
    panel_width,
    shared_bytes,
    shared_matrix,
    tile_bytes,
    tile_product,
)
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import delinearize
from hloc.codegen.matrices import Triangular, check_type, divide, multiply, subtract
from hloc.codegen.routines import i64
from hloc.ir.instruction import Instruction


class _Solve(Triangular):
    """A triangular-solve by blocks of `block` rows, `width` columns at a time; x in scratch if there are several."""

    def __init__(self, instruction: Instruction):
        super().__init__(instruction)
        self.batch = instruction.shape.dims[:-2]
        self.count = prod(self.batch)
        self.width = next(width for width in (1, 2, 4, 8, 16, 32) if width >= min(self.columns, 32))
        fits = self.bytes(self.n) <= SHARED
        self.block = self.n if fits else panel_width(self.working)

    def bytes(self, block: int) -> int:
        """Shared memory for a diagonal block and the rows of x that go with it."""
        return shared_bytes(self.working, block, block) + shared_bytes(self.working, block, self.width)

    @property
    def is_small(self) -> bool:
        return self.block == self.n

    @property
    def scratch_bytes(self) -> int:
        return 0 if self.is_small else self.count * self.n * self.columns * self.working.itemsize

    def x(self, k: GpuContext) -> ArrayRef:
        return in_scratch(k, self.working, (self.count, self.n, self.columns))

    def put(self, k: GpuContext, batch: Index, i: Value, j: Value, value: Register) -> None:
        k.outputs[0].store(self.place(k.b, batch, i, j), scalar.convert(k.b, value, self.working, self.dtype))


@gpu_kernel("triangular-solve", element_operands="all", scratch=lambda instruction: _Solve(instruction).scratch_bytes)
def triangular_solve(g: GpuStep, instruction: Instruction) -> None:
    """x of op(a) x = b, or of x op(a) = b, by forward substitution."""
    check_type(g, instruction)
    if instruction.shape.count == 0:
        return
    plan = _Solve(instruction)
    diagonal_grid = (plan.count, -(-plan.columns // plan.width), 1)
    if plan.is_small:
        _solve_diagonal(g, plan, diagonal_grid)
        return
    size = plan.n * plan.columns
    with g.launch(-(-plan.count * size // THREADS), THREADS, name="begin") as k:
        b, number = k.b, k.global_index()
        with b.if_then(b.icmp_unsigned("<", number, i64(plan.count * size))):
            row, j = b.udiv(number, i64(plan.columns)), b.urem(number, i64(plan.columns))
            batch, i = b.udiv(row, i64(plan.n)), b.urem(row, i64(plan.n))
            plan.x(k).store((batch, i, j), plan.given(k, tuple(delinearize(b, batch, plan.batch)), i, j))
    kernels = []
    for start in range(0, plan.n, plan.block):
        left = max(plan.n - start - plan.block, 0)
        update_grid = (plan.count, -(-left // TILE), -(-plan.columns // TILE))
        if not kernels:
            _solve_diagonal(g, plan, diagonal_grid)
            kernels.append(g.last_launch)
            _solve_update(g, plan, update_grid)
            kernels.append(g.last_launch)
            continue
        g.relaunch(kernels[0], [start])
        if left:
            g.relaunch(kernels[1], [start], update_grid)


def _solve_diagonal(g: GpuStep, plan: _Solve, grid: tuple[int, int, int]) -> None:
    """Solves for the rows of x from `start` on, of which what is above has been taken off.

    In shared memory x stays as it is before the division by the diagonal: each thread that wants a row divides for
    itself, and a column of the triangle takes one barrier.
    """
    block, width, dtype = plan.block, plan.width, plan.working
    offset = shared_bytes(dtype, block, block)
    with g.launch(grid, THREADS, plan.bytes(block), [0], name="diagonal") as k:
        b, (start,) = k.b, k.scalars
        number, batch = k.block_index(), tuple(delinearize(b, k.block_index(), plan.batch))
        triangle, x = shared_matrix(k, dtype, block, block), shared_matrix(k, dtype, block, width, offset)
        left, first = b.sub(i64(plan.n), start), b.mul(k.block_index("y"), i64(width))
        size = b.select(b.icmp_signed("<", left, i64(block)), left, i64(block))
        _load_triangle(k, plan, triangle, batch, (start, size))

        def each(body: Callable[[Index, Value, Value], None]) -> None:
            with each_of_block(k, block * width) as at:
                i, column = b.udiv(at, i64(width)), b.urem(at, i64(width))
                j, row = b.add(first, column), b.add(start, i)
                with b.if_then(b.and_(b.icmp_signed("<", i, size), b.icmp_signed("<", j, i64(plan.columns)))):
                    body((i, column), row, j)

        def divided(i: Value, value: Register) -> Register:
            return value if plan.unit else divide(b, dtype, value, triangle.load((i, i)))

        def store(here: Index, row: Value, j: Value) -> None:
            value = divided(here[0], x.load(here))
            plan.put(k, batch, row, j, value)
            if not plan.is_small:
                plan.x(k).store((number, row, j), value)

        if plan.is_small:
            each(lambda here, row, j: x.store(here, plan.given(k, batch, row, j)))
        else:
            each(lambda here, row, j: x.store(here, plan.x(k).load((number, row, j))))
        k.gpu.barrier()
        lane, column = b.udiv(k.thread_index(), i64(width)), b.urem(k.thread_index(), i64(width))
        # Threads of columns that are none have no rows left to do.
        lane = b.select(b.icmp_signed("<", b.add(first, column), i64(plan.columns)), lane, i64(block))
        with b.for_loop(i64(0), size, unroll=False) as j:
            _take_off(k, plan, (triangle, x), (j, size), (lane, column), divided)
            k.gpu.barrier()
        each(store)


def _load_triangle(k: GpuContext, plan: _Solve, target: ArrayRef, batch: Index, span: tuple[Value, Value]) -> None:
    """Puts the diagonal block that begins at a row, of a number of rows, into shared memory."""
    b, block, (start, size) = k.b, plan.block, span
    with each_of_block(k, block * block) as at:
        outer, inner = b.udiv(at, i64(block)), b.urem(at, i64(block))
        i, j = (inner, outer) if plan.transposed else (outer, inner)
        with b.if_then(b.and_(b.icmp_signed("<", i, size), b.icmp_signed("<=", j, i))):
            target.store((i, j), plan.triangle(k, batch, b.add(start, i), b.add(start, j)))


def _take_off(
    k: GpuContext,
    plan: _Solve,
    arrays: tuple[ArrayRef, ArrayRef],
    span: tuple[Value, Value],
    own: tuple[Value, Value],
    divided: Callable[[Value, Register], Register],
) -> None:
    """Takes row j of x, times the triangle's column, off the rows below; `own` are the thread's (row, column)."""
    b, (triangle, x), (j, size), (lane, column) = k.b, arrays, span, own
    after = b.add(b.add(j, i64(1)), lane)
    with b.if_then(b.icmp_signed("<", after, size)):
        value = divided(j, x.load((j, column)))
        with b.for_loop(after, size, THREADS // plan.width, unroll=False) as i:
            x.store((i, column), subtract(b, x.load((i, column)), multiply(b, triangle.load((i, j)), value)))


def _solve_update(g: GpuStep, plan: _Solve, grid: tuple[int, int, int]) -> None:
    """Takes the triangle's columns from `start` on, times the rows of x there, off the rows below."""
    n, block, dtype = plan.n, plan.block, plan.working
    with g.launch(grid, THREADS, tile_bytes(dtype, block), [0], name="update") as k:
        b, number, (start,) = k.b, k.block_index(), k.scalars
        batch, x = tuple(delinearize(b, number, plan.batch)), plan.x(k)
        row = b.add(b.add(start, i64(block)), b.mul(k.block_index("y"), i64(TILE)))
        column = b.mul(k.block_index("z"), i64(TILE))

        def left(line: Value, step: Value) -> Register:
            i = b.add(row, line)
            return k.choose(
                b.icmp_signed("<", i, i64(n)),
                lambda: plan.triangle(k, batch, i, b.add(start, step)),
                lambda: scalar.zero(dtype),
            )

        def right(line: Value, step: Value) -> Register:
            j = b.add(column, line)
            return k.choose(
                b.icmp_signed("<", j, i64(plan.columns)),
                lambda: x.load((number, b.add(start, step), j)),
                lambda: scalar.zero(dtype),
            )

        def store(line: Value, place: Value, total: Register) -> None:
            i, j = b.add(row, line), b.add(column, place)
            inside = b.and_(b.icmp_signed("<", i, i64(n)), b.icmp_signed("<", j, i64(plan.columns)))
            with b.if_then(inside):
                x.store((number, i, j), subtract(b, x.load((number, i, j)), total))

        tile_product(k, dtype, block, (left, right), (not plan.transposed, False), store)
