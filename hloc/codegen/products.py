"""In which type products are summed, and one term of such a sum: common to dot and convolution."""

from __future__ import annotations

from hloc.codegen.arrays import Register
from hloc.codegen.gemm import multiply_add
from hloc.codegen.llvm import Builder
from hloc.ir.dtypes import C64, C128, F32, F64, PRED, S32, S64, DType


def summing_type(lhs: DType, rhs: DType, out: DType) -> DType:
    """The type for sums of products of two element types: wide enough to be rounded, or wrapped, once.

    Floats below f32 are summed in f32. Integers are summed in s32 or s64, whose low bits are those of the
    result's type. A pred result is an or of ands.
    """
    types = (lhs, rhs, out)
    wide = any(t.real_part is F64 for t in types)
    if any(t.is_complex for t in types):
        return C128 if wide else C64
    if any(t.is_float for t in types):
        return F64 if wide else F32
    if out is PRED:
        return PRED
    return S64 if out.bits > 32 else S32


def multiply_accumulate(b: Builder, dtype: DType, x: Register, y: Register, total: Register) -> Register:
    """x * y + total, all of one type that `summing_type` gives."""
    if dtype is PRED:
        return b.or_(total, b.and_(x, y))
    if not dtype.is_complex:
        return multiply_add(b, x, y, total)
    real = multiply_add(b, b.fneg(x[1]), y[1], multiply_add(b, x[0], y[0], total[0]))
    return real, multiply_add(b, x[1], y[0], multiply_add(b, x[0], y[1], total[1]))
