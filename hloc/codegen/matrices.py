"""What factorizations and triangular systems have in common wherever they run: arithmetic, and how operands lie.

Floats below f32 are computed in f32. All forms of a problem come down to one of lower triangular matrices, by
conjugating, transposing and turning round while loading.
"""

from __future__ import annotations

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.routines import i64
from hloc.ir.dtypes import F32, DType
from hloc.ir.instruction import Instruction


def working_type(dtype: DType) -> DType:
    """The type that elements are computed in."""
    return F32 if dtype.is_float and dtype.bits < 32 else dtype


def check_type(k, instruction: Instruction) -> None:
    """HloError, by `k.error`, for elements of which there is no factor or solution."""
    dtype = instruction.shape.dtype
    if not (dtype.is_float or dtype.is_complex):
        raise k.error(f"{instruction.opcode} of {dtype} is not supported: only of floats and complex numbers")


# Arithmetic of real or complex registers


def conjugate(b: Builder, x: Register) -> Register:
    """The complex conjugate; a real number as it is."""
    return (x[0], b.fneg(x[1])) if isinstance(x, tuple) else x


def subtract(b: Builder, x: Register, y: Register) -> Register:
    """x - y."""
    return (b.fsub(x[0], y[0]), b.fsub(x[1], y[1])) if isinstance(x, tuple) else b.fsub(x, y)


def add(b: Builder, x: Register, y: Register) -> Register:
    """x + y."""
    return (b.fadd(x[0], y[0]), b.fadd(x[1], y[1])) if isinstance(x, tuple) else b.fadd(x, y)


def multiply(b: Builder, x: Register, y: Register) -> Register:
    """x * y."""
    if not isinstance(x, tuple):
        return b.fmul(x, y)
    real = b.fsub(b.fmul(x[0], y[0]), b.fmul(x[1], y[1]))
    return real, b.fadd(b.fmul(x[0], y[1]), b.fmul(x[1], y[0]))


def divide(b: Builder, dtype: DType, x: Register, y: Register) -> Register:
    """x / y, both of `dtype`."""
    return scalar.emit(b, "divide", [x, y], [dtype, dtype], dtype, {})


class Triangular:
    """A triangular-solve as l x = b with l lower triangular, of order `n`, for `columns` vectors.

    x op(a) = b is op(a) transposed, times x transposed; an upper triangular matrix is a lower one when rows
    and columns are counted from the end (`from_end`). `transposed` says whether l's rows are columns of a.
    """

    def __init__(self, instruction: Instruction):
        self.dtype = instruction.shape.dtype
        self.working = working_type(self.dtype)
        self.left, self.unit = bool(instruction.get("left_side")), bool(instruction.get("unit_diagonal"))
        transpose = instruction.get("transpose_a")
        self.n = instruction.operands[0].shape.dims[-1]
        self.columns = instruction.shape.dims[-1] if self.left else instruction.shape.dims[-2]
        self.adjoint = transpose == "ADJOINT"
        self.transposed = (transpose in ("TRANSPOSE", "ADJOINT")) == self.left
        self.from_end = bool(instruction.get("lower")) == self.transposed

    def _turned(self, b: Builder, i: Value) -> Value:
        return b.sub(i64(self.n - 1), i) if self.from_end else i

    def place(self, b: Builder, batch: Index, i: Value, j: Value) -> Index:
        """Where element (i, j) of x lies in the result, and that of b in operand 1."""
        row = self._turned(b, i)
        return (*batch, row, j) if self.left else (*batch, j, row)

    def triangle(self, k: KernelContext, batch: Index, i: Value, j: Value) -> Register:
        """Element (i, j) of l."""
        b = k.b
        row, column = self._turned(b, i), self._turned(b, j)
        at = (*batch, column, row) if self.transposed else (*batch, row, column)
        value = scalar.convert(b, k.input(0)(at), self.dtype, self.working)
        return conjugate(b, value) if self.adjoint else value

    def given(self, k: KernelContext, batch: Index, i: Value, j: Value) -> Register:
        """Element (i, j) of b."""
        return scalar.convert(k.b, k.input(1)(self.place(k.b, batch, i, j)), self.dtype, self.working)
