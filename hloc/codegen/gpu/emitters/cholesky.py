"""cholesky, batched, of floats and complex numbers.

Small matrices are factored by a block each, in shared memory. Large ones go by panels: a launch for the panel, a launch
that takes its products off all that is left (LAPACK's right-looking algorithm), and so on. In between, the matrices lie
in scratch, in the type that they are computed in.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register, flattened, grouped
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
from hloc.codegen.llvm import Value, const, integer
from hloc.codegen.loops import delinearize
from hloc.codegen.matrices import check_type, conjugate, multiply, subtract, working_type
from hloc.codegen.routines import i64
from hloc.ir.instruction import Instruction

_LANES = 16
"""Threads along a row of a matrix that a block updates."""


class _Cholesky:
    """A cholesky as one of lower triangles: the upper one is the lower one's conjugate transpose.

    In scratch, of large ones: the matrices, the factors of diagonal blocks (apart, as other blocks read what these are
    made of), and a flag for each matrix that is not positive definite.
    """

    def __init__(self, instruction: Instruction):
        self.dtype, self.lower = instruction.shape.dtype, bool(instruction.get("lower"))
        self.working = working_type(self.dtype)
        *batch, self.n, _ = instruction.shape.dims
        self.batch, self.count = batch, prod(batch)
        self.panel = panel_width(self.working)

    @property
    def is_small(self) -> bool:
        return shared_bytes(self.working, self.n, self.n) <= SHARED

    @property
    def flags(self) -> int:
        """Where the flags begin."""
        return self.count * self.n * (self.n + self.panel) * self.working.itemsize

    @property
    def scratch_bytes(self) -> int:
        return 0 if self.is_small else self.flags + 4 * self.count

    def index(self, k: GpuContext, batch: Value, i: Value, j: Value) -> Index:
        """Where element (i, j) of a lower triangle lies in the operand and in the result."""
        return (*delinearize(k.b, batch, self.batch), *((i, j) if self.lower else (j, i)))

    def given(self, k: GpuContext, batch: Value, i: Value, j: Value) -> Register:
        value = scalar.convert(k.b, k.input(0)(self.index(k, batch, i, j)), self.dtype, self.working)
        return value if self.lower else conjugate(k.b, value)

    def put(self, k: GpuContext, batch: Value, i: Value, j: Value, value: Register, good: Value) -> None:
        """The result's element: the factor's, zero beside the triangle, or NaN everywhere."""
        b = k.b
        value = value if self.lower else conjugate(b, value)
        inside = b.icmp_signed("<=", j, i)
        nan, zero = scalar.constant(self.working, float("nan")), scalar.zero(self.working)
        parts = [
            b.select(good, b.select(inside, part, nothing), bad)
            for part, nothing, bad in zip(*(flattened([v]) for v in (value, zero, nan)), strict=True)
        ]
        result = scalar.convert(b, grouped(parts, [value])[0], self.working, self.dtype)
        k.outputs[0].store(self.index(k, batch, i, j), result)

    def elements(self, k: GpuContext, number: Value) -> tuple[Value, Value]:
        """The (i, j) of the element of a number, neighbours in the array's rows."""
        row, column = k.b.udiv(number, i64(self.n)), k.b.urem(number, i64(self.n))
        return (row, column) if self.lower else (column, row)


@gpu_kernel("cholesky", element_operands="all", scratch=lambda instruction: _Cholesky(instruction).scratch_bytes)
def cholesky(g: GpuStep, instruction: Instruction) -> None:
    """A matrix that is not positive definite gives NaN (row X27)."""
    check_type(g, instruction)
    plan = _Cholesky(instruction)
    if instruction.shape.count == 0:
        return
    if plan.is_small:
        _small_cholesky(g, plan)
    else:
        _large_cholesky(g, plan)


def _small_cholesky(g: GpuStep, plan: _Cholesky) -> None:
    n = plan.n
    threads = 32 if n <= 8 else 128 if n <= 48 else THREADS
    with g.launch(plan.count, threads, shared_bytes(plan.working, n, n)) as k:
        batch = k.block_index()
        matrix = shared_matrix(k, plan.working, n, n)
        with each_of_block(k, n * n) as number:
            i, j = plan.elements(k, number)
            matrix.store((i, j), plan.given(k, batch, i, j))
        k.gpu.barrier()
        good = _factor(k, matrix, i64(n))
        with each_of_block(k, n * n) as number:
            i, j = plan.elements(k, number)
            plan.put(k, batch, i, j, matrix.load((i, j)), good)


def _factor(k: GpuContext, a: ArrayRef, n: Value) -> Value:
    """Factors a matrix in shared memory, column by column, by the block; whether all pivots were positive."""
    b, thread = k.b, k.thread_index()
    row, lane = b.udiv(thread, i64(_LANES)), b.urem(thread, i64(_LANES))

    def column(j: Value, carried: list[Value]) -> list[Value]:
        pivot, after = a.load((j, j)), b.add(j, i64(1))
        real = pivot[0] if isinstance(pivot, tuple) else pivot
        root = b.intrinsic("llvm.sqrt", real.type, [real])
        with b.for_loop(b.add(after, thread), n, k.block[0], unroll=False) as i:
            parts = flattened([a.load((i, j))])
            a.store((i, j), grouped([b.fdiv(part, root) for part in parts], [pivot])[0])
        k.gpu.barrier()
        with b.if_then(b.icmp_signed("==", thread, i64(0))):
            a.store((j, j), (root, const(root.type, 0)) if isinstance(pivot, tuple) else root)
        with b.for_loop(b.add(after, row), n, k.block[0] // _LANES, unroll=False) as i:
            mine = a.load((i, j))
            with b.for_loop(b.add(after, lane), b.add(i, i64(1)), _LANES, unroll=False) as c:
                term = multiply(b, mine, conjugate(b, a.load((c, j))))
                a.store((i, c), subtract(b, a.load((i, c)), term))
        k.gpu.barrier()
        return [b.and_(carried[0], b.fcmp_ordered(">", real, const(real.type, 0)))]

    return b.for_loop_carrying(i64(0), n, [integer("i1", 1)], column, unroll=False)[0]


def _large_cholesky(g: GpuStep, plan: _Cholesky) -> None:
    n, panel, square = plan.n, plan.panel, plan.n * plan.n
    g.fill(None, 0, 4 * plan.count, plan.flags)
    with g.launch(-(-plan.count * square // THREADS), THREADS, name="begin") as k:
        number = k.global_index()
        with k.b.if_then(k.b.icmp_unsigned("<", number, i64(plan.count * square))):
            batch, number = k.b.udiv(number, i64(square)), k.b.urem(number, i64(square))
            i, j = plan.elements(k, number)
            _matrices(k, plan)[0].store((batch, i, j), plan.given(k, batch, i, j))
    kernels = []
    for start in range(0, n, panel):
        left = max(n - start - panel, 0)
        grids = (plan.count, -(-left // TILE) or 1, 1), (plan.count, -(-left // TILE), -(-left // TILE))
        if not kernels:
            _cholesky_panel(g, plan, grids[0])
            kernels.append(g.last_launch)
            _cholesky_update(g, plan, grids[1])
            kernels.append(g.last_launch)
            continue
        g.relaunch(kernels[0], [start], grids[0])
        if left:
            g.relaunch(kernels[1], [start], grids[1])
    with g.launch(-(-plan.count * square // THREADS), THREADS, name="end") as k:
        number = k.global_index()
        with k.b.if_then(k.b.icmp_unsigned("<", number, i64(plan.count * square))):
            _finish_cholesky(k, plan, k.b.udiv(number, i64(square)), k.b.urem(number, i64(square)))


def _matrices(k: GpuContext, plan: _Cholesky) -> tuple[ArrayRef, ArrayRef]:
    """The matrices in scratch, and the factors of their diagonal blocks."""
    whole = plan.count * plan.n * plan.n * plan.working.itemsize
    return (
        in_scratch(k, plan.working, (plan.count, plan.n, plan.n)),
        in_scratch(k, plan.working, (plan.count, plan.n, plan.panel), whole),
    )


def _flag(k: GpuContext, plan: _Cholesky, batch: Value) -> Value:
    return k.b.gep("i32", k.b.gep("i8", k.scratch, i64(plan.flags)), batch)


def _cholesky_panel(g: GpuStep, plan: _Cholesky, grid: tuple[int, int, int]) -> None:
    """Columns from `start` on: every block factors the diagonal block for itself, and solves for TILE rows below."""
    n, panel, dtype = plan.n, plan.panel, plan.working
    offset = shared_bytes(dtype, panel, panel)
    with g.launch(grid, THREADS, offset + shared_bytes(dtype, TILE, panel), [0], name="panel") as k:
        b, (start,) = k.b, k.scalars
        batch, y = k.block_index(), k.block_index("y")
        matrices, factors = _matrices(k, plan)
        diagonal, rows = shared_matrix(k, dtype, panel, panel), shared_matrix(k, dtype, TILE, panel, offset)
        left = b.sub(i64(n), start)
        size = b.select(b.icmp_signed("<", left, i64(panel)), left, i64(panel))
        with each_of_block(k, panel * panel) as number:
            i, j = b.udiv(number, i64(panel)), b.urem(number, i64(panel))
            with b.if_then(b.icmp_signed("<", i, size)), b.if_then(b.icmp_signed("<", j, size)):
                diagonal.store((i, j), matrices.load((batch, b.add(start, i), b.add(start, j))))
        first = b.add(b.add(start, i64(panel)), b.mul(y, i64(TILE)))

        def each(body: Callable[[Index, Index], None]) -> None:
            with each_of_block(k, TILE * panel) as number:
                line, j = b.udiv(number, i64(panel)), b.urem(number, i64(panel))
                with b.if_then(b.icmp_signed("<", b.add(first, line), i64(n))):
                    body((line, j), (batch, b.add(first, line), b.add(start, j)))

        each(lambda here, there: rows.store(here, matrices.load(there)))
        k.gpu.barrier()
        good = _factor(k, diagonal, size)
        with b.if_then(b.icmp_signed("==", y, i64(0))):
            with b.if_then(b.and_(b.not_(good), b.icmp_signed("==", k.thread_index(), i64(0)))):
                b.store(integer("i32", 1), _flag(k, plan, batch))
            with each_of_block(k, panel * panel) as number:
                i, j = b.udiv(number, i64(panel)), b.urem(number, i64(panel))
                with b.if_then(b.and_(b.icmp_signed("<", i, size), b.icmp_signed("<=", j, i))):
                    factors.store((batch, b.add(start, i), j), diagonal.load((i, j)))
        with b.if_then(b.icmp_signed("<", first, i64(n))):
            row = b.add(first, k.thread_index())
            with b.if_then(b.and_(b.icmp_signed("<", k.thread_index(), i64(TILE)), b.icmp_signed("<", row, i64(n)))):
                _solve_row(k, diagonal, rows, k.thread_index(), panel)
            k.gpu.barrier()
            each(lambda here, there: matrices.store(there, rows.load(here)))


def _solve_row(k: GpuContext, diagonal: ArrayRef, rows: ArrayRef, line: Value, panel: int) -> None:
    """A row of x of x l' = a, by one thread."""
    b = k.b
    with b.for_loop(0, panel, unroll=False) as j:
        value = rows.load((line, j))

        def step(s: Value, carried: list[Value], j=j, value=value) -> list[Value]:
            term = multiply(b, rows.load((line, s)), conjugate(b, diagonal.load((j, s))))
            return flattened([subtract(b, grouped(carried, [value])[0], term)])

        total = b.for_loop_carrying(i64(0), j, flattened([value]), step)
        root = flattened([diagonal.load((j, j))])[0]
        rows.store((line, j), grouped([b.fdiv(part, root) for part in total], [value])[0])


def _cholesky_update(g: GpuStep, plan: _Cholesky, grid: tuple[int, int, int]) -> None:
    """Takes the products of a panel's rows off the lower triangle behind it."""
    n, panel, dtype = plan.n, plan.panel, plan.working
    with g.launch(grid, THREADS, tile_bytes(dtype, panel), [0], name="update") as k:
        b, batch = k.b, k.block_index()
        matrices, _ = _matrices(k, plan)
        start, behind = k.scalars[0], b.add(k.scalars[0], i64(panel))
        corners = [b.add(behind, b.mul(k.block_index(axis), i64(TILE))) for axis in "yz"]

        def side(corner: Value, line: Value, step: Value) -> Register:
            row = b.add(corner, line)
            return k.choose(
                b.icmp_signed("<", row, i64(n)),
                lambda: matrices.load((batch, row, b.add(start, step))),
                lambda: scalar.zero(dtype),
            )

        def store(line: Value, column: Value, total: Register) -> None:
            i, j = b.add(corners[0], line), b.add(corners[1], column)
            with b.if_then(b.and_(b.icmp_signed("<", i, i64(n)), b.icmp_signed("<=", j, i))):
                matrices.store((batch, i, j), subtract(b, matrices.load((batch, i, j)), total))

        with b.if_then(b.icmp_signed(">=", corners[0], corners[1])):
            tile_product(
                k,
                dtype,
                panel,
                (lambda line, s: side(corners[0], line, s), lambda line, s: conjugate(b, side(corners[1], line, s))),
                (True, True),
                store,
            )


def _finish_cholesky(k: GpuContext, plan: _Cholesky, batch: Value, number: Value) -> None:
    b, panel = k.b, i64(plan.panel)
    matrices, factors = _matrices(k, plan)
    i, j = plan.elements(k, number)
    good = b.icmp_signed("==", b.load("i32", _flag(k, plan, batch)), integer("i32", 0))
    value = k.choose(
        b.icmp_signed("==", b.udiv(i, panel), b.udiv(j, panel)),
        lambda: factors.load((batch, i, b.urem(j, panel))),
        lambda: matrices.load((batch, i, j)),
    )
    plan.put(k, batch, i, j, value, good)
