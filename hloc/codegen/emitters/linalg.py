"""cholesky and triangular-solve, batched, of floats and complex numbers.

Matrices are copied into scratch in one form (lower triangular, row-major, the other forms by conjugating,
transposing and turning round while copying); the loops there follow LAPACK's unblocked algorithms by rows. Large
triangular systems are solved by blocks (`blocked_solve.py`).
Floats below f32 are computed in f32.
"""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register, flattened, grouped
from hloc.codegen.blocked_solve import BlockedSolve, is_blocked, scratch_bytes
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Builder, Value, const, integer
from hloc.codegen.matrices import Triangular, add, check_type, conjugate, divide, multiply, subtract, working_type
from hloc.codegen.routines import i64
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape


def _padded(size: int) -> int:
    return -(-size // 64) * 64


class _Dot:
    """Sums of products of two rows, which LLVM may split so that they vectorize."""

    def __init__(self, b: Builder, dtype: DType):
        self.b, self.dtype = b, dtype

    def __call__(
        self, count: Value, first: Callable[[Value], Register], second: Callable[[Value], Register]
    ) -> Register:
        """The sum over i < count of first(i) * second(i)."""
        b, start = self.b, scalar.zero(self.dtype)
        before = b.fast

        def step(i: Value, carried: list[Value]) -> list[Value]:
            x, y = first(i), second(i)
            b.fast = "reassoc contract"
            result = flattened([add(b, grouped(carried, [start])[0], multiply(b, x, y))])
            b.fast = before
            return result

        return grouped(b.for_loop_carrying(i64(0), count, flattened([start]), step), [start])[0]


def _matrix(b: Builder, dtype: DType, pointer: Value, rows: int, columns: int) -> ArrayRef:
    return ArrayRef(b, ArrayShape(dtype, (rows, columns)), pointer)


def _each(b: Builder, rows: int, columns: int, body: Callable[[Value, Value], None]) -> None:
    with b.for_loop(0, rows) as i, b.for_loop(0, columns) as j:
        body(i, j)


# cholesky


def _cholesky_scratch(instruction: Instruction) -> int:
    shape = instruction.shape
    n = shape.dims[-1]
    return _padded(n * n * working_type(shape.dtype).itemsize)


@kernel("cholesky", element_operands="all", scratch=_cholesky_scratch)
def cholesky(k: KernelContext, instruction: Instruction) -> None:
    """Row by row; a matrix that is not positive definite gives NaN (row X27)."""
    shape = instruction.shape
    check_type(k, instruction)
    if shape.count:
        k.loop_nest(shape.dims[:-2], _Cholesky(k, instruction).matrix)


class _Cholesky:
    """Writes the factorization of one matrix of a batch."""

    def __init__(self, k: KernelContext, instruction: Instruction):
        self.k, self.b = k, k.b
        self.dtype, self.lower = instruction.shape.dtype, instruction.get("lower")
        self.working = working_type(self.dtype)
        self.n = instruction.shape.dims[-1]
        self.factor = _matrix(k.b, self.working, k.scratch, self.n, self.n)

    def matrix(self, batch: Index) -> None:
        b = self.b
        _each(b, self.n, self.n, lambda i, j: self._load(batch, i, j))
        (good,) = b.for_loop_carrying(i64(0), i64(self.n), [integer("i1", 1)], self._row, unroll=False)
        _each(b, self.n, self.n, lambda i, j: self._store(batch, i, j, good))

    def _load(self, batch: Index, i: Value, j: Value) -> None:
        """The matrix as one whose lower triangle counts."""
        at = (*batch, i, j) if self.lower else (*batch, j, i)
        value = scalar.convert(self.b, self.k.input(0)(at), self.dtype, self.working)
        self.factor.store((i, j), value if self.lower else conjugate(self.b, value))

    def _row(self, i: Value, carried: list[Value]) -> list[Value]:
        """Row i of the factor from the rows above; whether all pivots so far are positive."""
        b, dot = self.b, _Dot(self.b, self.working)

        def entry(row: Value) -> Callable[[Value], Register]:
            return lambda s: self.factor.load((row, s))

        with b.for_loop(i64(0), i, unroll=False) as j:
            other = entry(j)
            total = dot(j, entry(i), lambda s: conjugate(b, other(s)))
            rest = subtract(b, self.factor.load((i, j)), total)
            self.factor.store((i, j), divide(b, self.working, rest, self.factor.load((j, j))))
        mine = entry(i)
        total = dot(i, mine, lambda s: conjugate(b, mine(s)))
        pivot = subtract(b, self.factor.load((i, i)), total)
        real = pivot[0] if isinstance(pivot, tuple) else pivot
        root = b.intrinsic("llvm.sqrt", real.type, [real])
        self.factor.store((i, i), (root, const(root.type, 0)) if isinstance(pivot, tuple) else root)
        return [b.and_(carried[0], b.fcmp_ordered(">", real, const(real.type, 0)))]

    def _store(self, batch: Index, i: Value, j: Value, good: Value) -> None:
        """The triangle and zeros beside it, or NaN everywhere."""
        b = self.b
        row, column = (i, j) if self.lower else (j, i)
        value = self.factor.load((row, column))
        value = value if self.lower else conjugate(b, value)
        nan = scalar.constant(self.working, float("nan"))
        inside = b.icmp_signed("<=", column, row)
        parts = []
        for part, bad, zero in zip(
            *(flattened([v]) for v in (value, nan, scalar.zero(self.working))), strict=True
        ):
            parts.append(b.select(good, b.select(inside, part, zero), bad))
        result = grouped(parts, [value])[0]
        self.k.outputs[0].store((*batch, i, j), scalar.convert(b, result, self.working, self.dtype))


# triangular-solve


def _solve_scratch(instruction: Instruction) -> int:
    plan = Triangular(instruction)
    if is_blocked(plan):
        return _padded(scratch_bytes(plan))
    size = plan.working.itemsize
    return _padded(plan.n * plan.n * size) + _padded(plan.n * plan.columns * size)


@kernel("triangular-solve", element_operands="all", scratch=_solve_scratch, is_loop=True)
def triangular_solve(k: KernelContext, instruction: Instruction) -> None:
    """x of op(a) x = b, or of x op(a) = b, by forward substitution."""
    check_type(k, instruction)
    plan = Triangular(instruction)
    if instruction.shape.count and is_blocked(plan):
        BlockedSolve(k, plan).write()
    elif instruction.shape.count:
        k.loop_nest(instruction.shape.dims[:-2], _Solve(k, plan).matrix)


class _Solve:
    """Writes the solution of one system of a batch."""

    def __init__(self, k: KernelContext, plan: Triangular):
        self.k, self.b, self.plan = k, k.b, plan
        self.triangle = _matrix(k.b, plan.working, k.scratch, plan.n, plan.n)
        offset = _padded(plan.n * plan.n * plan.working.itemsize)
        self.x = _matrix(k.b, plan.working, k.b.gep("i8", k.scratch, i64(offset)), plan.n, plan.columns)

    def matrix(self, batch: Index) -> None:
        k, b, plan, output = self.k, self.b, self.plan, self.k.outputs[0]
        _each(b, plan.n, plan.n, lambda i, j: self.triangle.store((i, j), plan.triangle(k, batch, i, j)))
        _each(b, plan.n, plan.columns, lambda i, j: self.x.store((i, j), plan.given(k, batch, i, j)))
        with b.for_loop(0, plan.n, unroll=False) as i:
            self._row(i)

        def put(i: Value, j: Value) -> None:
            value = scalar.convert(b, self.x.load((i, j)), plan.working, plan.dtype)
            output.store(plan.place(b, batch, i, j), value)

        _each(b, plan.n, plan.columns, put)

    def _row(self, i: Value) -> None:
        """Row i of x: b less the rows above times the triangle's row, over the diagonal."""
        columns = self.plan.columns
        if columns < 4:
            with self.b.for_loop(0, columns, unroll=False) as j:
                dot = _Dot(self.b, self.plan.working)
                total = dot(i, lambda s: self.triangle.load((i, s)), lambda s: self.x.load((s, j)))
                self.x.store((i, j), self._divided(i, subtract(self.b, self.x.load((i, j)), total)))
            return
        with self.b.for_loop(i64(0), i, unroll=False) as s:
            factor = self.triangle.load((i, s))
            with self.b.for_loop(0, columns) as j:
                term = multiply(self.b, factor, self.x.load((s, j)))
                self.x.store((i, j), subtract(self.b, self.x.load((i, j)), term))
        with self.b.for_loop(0, columns) as j:
            self.x.store((i, j), self._divided(i, self.x.load((i, j))))

    def _divided(self, i: Value, value: Register) -> Register:
        return value if self.plan.unit else divide(self.b, self.plan.working, value, self.triangle.load((i, i)))
