"""Sums of products: the type to make them in, and the arithmetic, common to dot and convolution."""

from __future__ import annotations

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.llvm import Builder, Value, is_float
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


def multiply_add(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """x * y + z; of floats, rounded once where the target has an instruction for it."""
    if is_float(x.type):
        return b.intrinsic("llvm.fmuladd", x.type, [x, y, z])
    return b.add(b.mul(x, y), z)


def multiply(b: Builder, x: Value, y: Value) -> Value:
    """x * y, of integers or floats."""
    return b.fmul(x, y) if is_float(x.type) else b.mul(x, y)


def negated(b: Builder, value: Value) -> Value:
    """-value, of integers or floats."""
    return b.fneg(value) if is_float(value.type) else b.neg(value)


def added(b: Builder, x: Value, y: Value) -> Value:
    """x + y, of integers or floats."""
    return b.fadd(x, y) if is_float(x.type) else b.add(x, y)


def load_as(b: Builder, source: DType, wanted: DType, address: Value) -> Value:
    """The real element at an address, converted to the type that sums are made in."""
    return scalar.convert(b, scalar.load(b, source, address), source, wanted)


def store_as(b: Builder, value: Value, source: DType, wanted: DType, address: Value) -> None:
    """Puts a sum at an address, as an element of the result's type."""
    scalar.store(b, wanted, scalar.convert(b, value, source, wanted), address)


def multiply_accumulate(b: Builder, dtype: DType, x: Register, y: Register, total: Register) -> Register:
    """x * y + total, all of one type that `summing_type` gives."""
    if dtype is PRED:
        return b.or_(total, b.and_(x, y))
    if not dtype.is_complex:
        return multiply_add(b, x, y, total)
    real = multiply_add(b, b.fneg(x[1]), y[1], multiply_add(b, x[0], y[0], total[0]))
    return real, multiply_add(b, x[1], y[0], multiply_add(b, x[0], y[1], total[1]))
