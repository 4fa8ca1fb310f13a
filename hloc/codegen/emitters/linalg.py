"""cholesky and triangular-solve, batched, of floats and complex numbers.

Matrices are copied into scratch in one form (lower triangular, row-major, the other forms by conjugating,
transposing and turning round while copying); the loops there follow LAPACK's unblocked algorithms by rows.
Floats below f32 are computed in f32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register, flattened, grouped
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Builder, Value, const, integer
from hloc.codegen.routines import i64
from hloc.ir.dtypes import F32, DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape


def _working_type(dtype: DType) -> DType:
    return F32 if dtype.is_float and dtype.bits < 32 else dtype


def _padded(size: int) -> int:
    return -(-size // 64) * 64


# Arithmetic of real or complex registers


def _conjugate(b: Builder, x: Register) -> Register:
    return (x[0], b.fneg(x[1])) if isinstance(x, tuple) else x


def _subtract(b: Builder, x: Register, y: Register) -> Register:
    return (b.fsub(x[0], y[0]), b.fsub(x[1], y[1])) if isinstance(x, tuple) else b.fsub(x, y)


def _add(b: Builder, x: Register, y: Register) -> Register:
    return (b.fadd(x[0], y[0]), b.fadd(x[1], y[1])) if isinstance(x, tuple) else b.fadd(x, y)


def _multiply(b: Builder, x: Register, y: Register) -> Register:
    if not isinstance(x, tuple):
        return b.fmul(x, y)
    real = b.fsub(b.fmul(x[0], y[0]), b.fmul(x[1], y[1]))
    return real, b.fadd(b.fmul(x[0], y[1]), b.fmul(x[1], y[0]))


def _divide(b: Builder, dtype: DType, x: Register, y: Register) -> Register:
    return scalar.emit(b, "divide", [x, y], [dtype, dtype], dtype, {})


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
            result = flattened([_add(b, grouped(carried, [start])[0], _multiply(b, x, y))])
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
    return _padded(n * n * _working_type(shape.dtype).itemsize)


@kernel("cholesky", element_operands="all", scratch=_cholesky_scratch)
def cholesky(k: KernelContext, instruction: Instruction) -> None:
    """Row by row; a matrix that is not positive definite gives NaN (row X27)."""
    shape = instruction.shape
    if not (shape.dtype.is_float or shape.dtype.is_complex):
        raise k.error(f"cholesky of {shape.dtype} is not supported: only of floats and complex numbers")
    if shape.count:
        k.loop_nest(shape.dims[:-2], _Cholesky(k, instruction).matrix)


class _Cholesky:
    """Writes the factorization of one matrix of a batch."""

    def __init__(self, k: KernelContext, instruction: Instruction):
        self.k, self.b = k, k.b
        self.dtype, self.lower = instruction.shape.dtype, instruction.get("lower")
        self.working = _working_type(self.dtype)
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
        self.factor.store((i, j), value if self.lower else _conjugate(self.b, value))

    def _row(self, i: Value, carried: list[Value]) -> list[Value]:
        """Row i of the factor from the rows above; whether all pivots so far are positive."""
        b, dot = self.b, _Dot(self.b, self.working)

        def entry(row: Value) -> Callable[[Value], Register]:
            return lambda s: self.factor.load((row, s))

        with b.for_loop(i64(0), i, unroll=False) as j:
            other = entry(j)
            total = dot(j, entry(i), lambda s: _conjugate(b, other(s)))
            rest = _subtract(b, self.factor.load((i, j)), total)
            self.factor.store((i, j), _divide(b, self.working, rest, self.factor.load((j, j))))
        mine = entry(i)
        total = dot(i, mine, lambda s: _conjugate(b, mine(s)))
        pivot = _subtract(b, self.factor.load((i, i)), total)
        real = pivot[0] if isinstance(pivot, tuple) else pivot
        root = b.intrinsic("llvm.sqrt", real.type, [real])
        self.factor.store((i, i), (root, const(root.type, 0)) if isinstance(pivot, tuple) else root)
        return [b.and_(carried[0], b.fcmp_ordered(">", real, const(real.type, 0)))]

    def _store(self, batch: Index, i: Value, j: Value, good: Value) -> None:
        """The triangle and zeros beside it, or NaN everywhere."""
        b = self.b
        row, column = (i, j) if self.lower else (j, i)
        value = self.factor.load((row, column))
        value = value if self.lower else _conjugate(b, value)
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


def _solve_sizes(instruction: Instruction) -> tuple[int, int]:
    """The order of the triangular matrix, and how many vectors are solved for."""
    n = instruction.operands[0].shape.dims[-1]
    columns = instruction.shape.dims[-1] if instruction.get("left_side") else instruction.shape.dims[-2]
    return n, columns


def _solve_scratch(instruction: Instruction) -> int:
    n, columns = _solve_sizes(instruction)
    size = _working_type(instruction.shape.dtype).itemsize
    return _padded(n * n * size) + _padded(n * columns * size)


@kernel("triangular-solve", element_operands="all", scratch=_solve_scratch)
def triangular_solve(k: KernelContext, instruction: Instruction) -> None:
    """x of op(a) x = b, or of x op(a) = b, by forward substitution."""
    shape = instruction.shape
    if not (shape.dtype.is_float or shape.dtype.is_complex):
        raise k.error(
            f"triangular-solve of {shape.dtype} is not supported: only of floats and complex numbers"
        )
    if shape.count:
        k.loop_nest(shape.dims[:-2], _Solve(k, instruction).matrix)


class _Solve:
    """Writes the solution of one system of a batch, as l x = b with l lower triangular.

    x op(a) = b is op(a) transposed, times x transposed; an upper triangular matrix is a lower one when rows
    and columns are counted from the end.
    """

    def __init__(self, k: KernelContext, instruction: Instruction):
        self.k, self.b = k, k.b
        self.dtype = instruction.shape.dtype
        self.working = _working_type(self.dtype)
        self.n, self.columns = _solve_sizes(instruction)
        self.left, self.unit = instruction.get("left_side"), instruction.get("unit_diagonal")
        self.lower = instruction.get("lower")
        transpose = instruction.get("transpose_a")
        self.adjoint = transpose == "ADJOINT"
        self.transposed = (transpose in ("TRANSPOSE", "ADJOINT")) == bool(self.left)
        self.from_end = bool(self.lower) == self.transposed
        self.triangle = _matrix(k.b, self.working, k.scratch, self.n, self.n)
        offset = _padded(self.n * self.n * self.working.itemsize)
        self.x = _matrix(k.b, self.working, k.b.gep("i8", k.scratch, i64(offset)), self.n, self.columns)

    def matrix(self, batch: Index) -> None:
        b = self.b
        _each(b, self.n, self.n, lambda i, j: self._load_triangle(batch, i, j))
        _each(
            b,
            self.n,
            self.columns,
            lambda i, j: self.x.store((i, j), self._converted(1, self._place(batch, i, j))),
        )
        with b.for_loop(0, self.n, unroll=False) as i:
            self._row(i)
        output = self.k.outputs[0]
        _each(
            b,
            self.n,
            self.columns,
            lambda i, j: output.store(
                self._place(batch, i, j), scalar.convert(b, self.x.load((i, j)), self.working, self.dtype)
            ),
        )

    def _converted(self, operand: int, index: Sequence[Value]) -> Register:
        return scalar.convert(self.b, self.k.input(operand)(tuple(index)), self.dtype, self.working)

    def _turned(self, i: Value) -> Value:
        return self.b.sub(i64(self.n - 1), i) if self.from_end else i

    def _place(self, batch: Index, i: Value, j: Value) -> Index:
        """Where element (i, j) of x lies in the result, and that of b in operand 1."""
        row = self._turned(i)
        return (*batch, row, j) if self.left else (*batch, j, row)

    def _load_triangle(self, batch: Index, i: Value, j: Value) -> None:
        row, column = self._turned(i), self._turned(j)
        at = (*batch, column, row) if self.transposed else (*batch, row, column)
        value = self._converted(0, at)
        self.triangle.store((i, j), _conjugate(self.b, value) if self.adjoint else value)

    def _row(self, i: Value) -> None:
        """Row i of x: b less the rows above times the triangle's row, over the diagonal."""
        if self.columns < 4:
            with self.b.for_loop(0, self.columns, unroll=False) as j:
                dot = _Dot(self.b, self.working)
                total = dot(i, lambda s: self.triangle.load((i, s)), lambda s: self.x.load((s, j)))
                self.x.store((i, j), self._divided(i, _subtract(self.b, self.x.load((i, j)), total)))
            return
        with self.b.for_loop(i64(0), i, unroll=False) as s:
            factor = self.triangle.load((i, s))
            with self.b.for_loop(0, self.columns) as j:
                term = _multiply(self.b, factor, self.x.load((s, j)))
                self.x.store((i, j), _subtract(self.b, self.x.load((i, j)), term))
        with self.b.for_loop(0, self.columns) as j:
            self.x.store((i, j), self._divided(i, self.x.load((i, j))))

    def _divided(self, i: Value, value: Register) -> Register:
        return value if self.unit else _divide(self.b, self.working, value, self.triangle.load((i, i)))
