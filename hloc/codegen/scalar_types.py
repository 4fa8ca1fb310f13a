"""How an element lives in memory and in registers.

| type                | memory                 | register                                           |
| ------------------- | ---------------------- | -------------------------------------------------- |
| pred                | i8, 0 or 1             | i1                                                 |
| s1 s2 s4, u1 u2 u4  | i8, upper bits 0       | i8, extended by the type's sign                    |
| s8 ... u64          | as it is               | as it is                                           |
| f32 f64             | as it is               | as it is                                           |
| f16                 | half                   | half                                               |
| bf16                | i16                    | i16, the bits                                      |
| f8, f6, f4          | i8, upper bits 0       | i8, the bits                                       |
| c64 c128            | two floats, real first | a Python pair of Values (real, imaginary)          |

Arithmetic of floats below 32 bits happens in f32, each op's result rounded back: `widen` and `narrow`.
A bf16 is bits and not LLVM's bfloat because x86 converts to bfloat by a library call or flushes denormals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hloc.codegen.llvm import (
    Builder,
    Value,
    const,
    float_from_bits,
    integer,
    lane_count,
    poison,
    vector_type,
    with_scalar,
)
from hloc.ir.dtypes import BF16, C128, F16, F32, F64, DType

from .scalar_formats import from_f32, to_f32

Register = Value | tuple[Value, Value]
"""A value in registers: of a complex type, (real, imaginary)."""

_FLOATS = {F16: "half", BF16: "i16", F32: "float", F64: "double"}


def register_type(dtype: DType) -> str:
    """The LLVM type of a register value; of a complex type, of each of its two parts."""
    if dtype.kind == "predicate":
        return "i1"
    part = dtype.real_part
    return _FLOATS[part] if part in _FLOATS else f"i{max(8, part.bits)}"


def memory_type(dtype: DType) -> str:
    """The LLVM type of an element in memory, for address arithmetic; `[2 x float]` for c64."""
    if dtype.is_complex:
        return f"[2 x {register_type(dtype)}]"
    return "i8" if dtype.kind == "predicate" else register_type(dtype)


def memory_size(dtype: DType) -> int:
    """Bytes between the elements of an array."""
    return dtype.itemsize


def load(b: Builder, dtype: DType, pointer: Value, **access) -> Register:
    """The element at an address. `access` goes to `Builder.load`: alias scopes, invariance and the like."""
    type = register_type(dtype)
    access.setdefault("align", max(1, dtype.real_part.bits // 8))
    if dtype.is_complex:
        second = b.gep(type, pointer, integer("i64", 1))
        return b.load(type, pointer, **access), b.load(type, second, **access)
    if dtype.kind == "predicate":
        return b.trunc(b.load("i8", pointer, **access), "i1")
    return (
        canonical(b, dtype, b.load(type, pointer, **access))
        if dtype.is_subbyte
        else b.load(type, pointer, **access)
    )


def store(b: Builder, dtype: DType, value: Register, pointer: Value, **access) -> None:
    """Puts a register value at an address. `access` goes to `Builder.store`."""
    access.setdefault("align", max(1, dtype.real_part.bits // 8))
    if dtype.is_complex:
        real, imag = value
        b.store(real, pointer, **access)
        b.store(imag, b.gep(real.type, pointer, integer("i64", 1)), **access)
        return
    if dtype.kind == "predicate":
        value = b.zext(value, "i8")
    elif dtype.is_subbyte:
        value = b.and_(value, const(value.type, (1 << dtype.bits) - 1))
    b.store(value, pointer, **access)


def load_element(b: Builder, dtype: DType, pointer: Value, index: Value, **access) -> Register:
    """The element `index` places after an address."""
    return load(b, dtype, b.gep(memory_type(dtype), pointer, index), **access)


def store_element(b: Builder, dtype: DType, value: Register, pointer: Value, index: Value, **access) -> None:
    """Puts a register value `index` places after an address."""
    store(b, dtype, value, b.gep(memory_type(dtype), pointer, index), **access)


def canonical(b: Builder, dtype: DType, value: Value) -> Value:
    """A sub-byte integer or float whose upper bits are wrong, as registers hold it; wrapping arithmetic."""
    if not dtype.is_subbyte:
        return value
    if dtype.is_signed:
        shift = const(value.type, 8 - dtype.bits)
        return b.ashr(b.shl(value, shift), shift)
    return b.and_(value, const(value.type, (1 << dtype.bits) - 1))


def constant(dtype: DType, number) -> Register:
    """A constant from a Python number or a NumPy scalar (then with all its bits, of NaN too).

    OverflowError if an integer does not fit.
    """
    return from_bits_constant(dtype, np.asarray(number, dtype=dtype.numpy))


def from_bits_constant(dtype: DType, array: np.ndarray) -> Register:
    """The constant of an array of one element of the type's own NumPy dtype."""
    raw = array.tobytes()
    if dtype.is_complex:
        half = len(raw) // 2
        parts = [int.from_bytes(raw[at : at + half], "little") for at in (0, half)]
        return tuple(float_from_bits(register_type(dtype), part) for part in parts)
    bits = int.from_bytes(raw, "little")
    type = register_type(dtype)
    if dtype in _FLOATS and dtype is not BF16:
        return float_from_bits(type, bits)
    if dtype.is_subbyte and dtype.is_signed and bits >> (dtype.bits - 1) & 1:
        bits -= 1 << dtype.bits
    return integer(type, bits)


def zero(dtype: DType) -> Register:
    """The register of all bits zero (f8e8m0fnu has no zero: it is 2**-127)."""
    value = const(register_type(dtype), 0)
    return (value, value) if dtype.is_complex else value


def widen(b: Builder, dtype: DType, value: Value) -> Value:
    """A float register as what arithmetic takes: double for f64, else float."""
    return value if dtype is F32 or dtype is F64 else to_f32(b, dtype, value)


def narrow(b: Builder, dtype: DType, value: Value) -> Value:
    """The register of a float type nearest to an arithmetic value."""
    return value if dtype is F32 or dtype is F64 else from_f32(b, dtype, value)


def to_bits(b: Builder, dtype: DType, value: Register) -> Value:
    """The element's encoding in an integer: of a complex value the real part lowest, of pred 0 or 1."""
    if dtype.is_complex:
        if dtype is C128:
            raise ValueError("c128 has no integer of its width")
        low, high = (
            b.zext(b.bitcast(part, with_scalar(part.type, "i32")), with_scalar(part.type, "i64"))
            for part in value
        )
        return b.or_(low, b.shl(high, const(high.type, 32)))
    if dtype.kind == "predicate":
        return b.zext(value, with_scalar(value.type, "i8"))
    if dtype in _FLOATS:
        return b.bitcast(value, with_scalar(value.type, f"i{dtype.bits}"))
    return value


def from_bits(b: Builder, dtype: DType, bits: Value) -> Register:
    """The register with the given encoding; upper bits that a sub-byte type lacks do not matter."""
    if dtype.is_complex:
        words = (bits, b.lshr(bits, const(bits.type, 32)))
        low, high = (b.trunc(word, with_scalar(bits.type, "i32")) for word in words)
        return b.bitcast(low, with_scalar(bits.type, "float")), b.bitcast(
            high, with_scalar(bits.type, "float")
        )
    if dtype.kind == "predicate":
        return b.trunc(bits, with_scalar(bits.type, "i1"))
    if dtype in _FLOATS:
        return b.bitcast(bits, with_scalar(bits.type, register_type(dtype)))
    return canonical(b, dtype, bits)


def by_lanes(b: Builder, function: Callable[..., Value], operands: Sequence[Value]) -> Value:
    """A function of scalars applied to each lane of vectors, or to scalars as they are."""
    lanes = lane_count(operands[0].type)
    if not lanes:
        return function(*operands)
    result = None
    for lane in range(lanes):
        value = function(*[b.extractelement(operand, lane) for operand in operands])
        result = b.insertelement(result or poison(vector_type(value.type, lanes)), value, lane)
    return result
