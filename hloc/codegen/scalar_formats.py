"""Floats of 16 bits and fewer as bits: to f32, exactly, and from f32, rounded to nearest even.

All is integer arithmetic and selects (f16 has instructions of its own), so it is exact whatever the
processor does with denormals, and loops vectorize. Overflow and NaN are those of `ml_dtypes`.
"""

from __future__ import annotations

from functools import cache

from hloc.codegen.llvm import Builder, Value, integer, mangled, with_scalar
from hloc.codegen.math import call_inlined
from hloc.codegen.math.expression import Num
from hloc.ir.dtypes import BF16, F8E8M0FNU, F16, DType
from hloc.records import record

_INFINITY = 0x7F800000


@record
class Format:
    """A float format of at most 8 bits, sign included.

    `largest` is the code of the greatest finite number, `overflow` and `nan` the codes (without sign) of
    what is too large and of NaN; `negative_zero` is False where that code means NaN. Formats without NaN
    make it a zero of the opposite sign.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    largest: int
    overflow: int
    nan: int
    negative_zero: bool

    @property
    def sign_shift(self) -> int:
        return self.exponent_bits + self.mantissa_bits

    @property
    def least_exponent(self) -> int:
        """Of normal numbers; subnormal ones have it too."""
        return 1 - self.bias


@cache
def format_of(dtype: DType) -> Format:
    """The format of an HLO float type of at most 8 bits, f8e8m0fnu apart."""
    exponent, mantissa = dtype.exponent_bits, dtype.mantissa_bits
    ones = (1 << (exponent + mantissa)) - 1
    bias = (1 << (exponent - 1)) - 1
    if dtype.name.endswith("fnuz"):
        bias = 11 if "b11" in dtype.name else bias + 1
        return Format(exponent, mantissa, bias, ones, ones + 1, ones + 1, False)
    if dtype.bits < 8:
        return Format(exponent, mantissa, bias, ones, ones, 0, True)
    if dtype.name.endswith("fn"):
        return Format(exponent, mantissa, bias, ones - 1, ones, ones, True)
    infinity = ones - ((1 << mantissa) - 1)
    return Format(exponent, mantissa, bias, infinity - 1, infinity, infinity | 1 << (mantissa - 1), True)


def to_f32(b: Builder, dtype: DType, bits: Value) -> Value:
    """The f32 with the value of a narrower float's register."""
    type = with_scalar(bits.type, "float")
    if dtype is F16:
        return b.fpext(bits, type)
    if dtype is BF16:
        wide = with_scalar(bits.type, "i32")
        return b.bitcast(b.shl(b.zext(bits, wide), integer(wide, 16)), type)

    def body(inner: Builder) -> Value:
        code = Num(inner, inner.zext(inner.function.args[0], with_scalar(bits.type, "i32")))
        if dtype is F8E8M0FNU:
            return _decode_power(code, type).v
        return _decode(format_of(dtype), code, type).v

    return call_inlined(b, f"hloc.{dtype}.to.{mangled(type)}", type, [bits], body)


def _decode_power(code: Num, type: str) -> Num:
    exponent = code.equals(0).select(1 << 22, code << 23)
    return code.equals(255).select(0x7FC00000, exponent).as_float(type)


def _decode(f: Format, code: Num, type: str) -> Num:
    size = code & ((1 << f.sign_shift) - 1)
    moved = size << (23 - f.mantissa_bits)
    normal = moved + ((127 - f.bias) << 23)
    step = 2.0 ** (f.least_exponent - f.mantissa_bits)
    subnormal = (size.to_float(type) * step).bits()
    result = (size < 1 << f.mantissa_bits).select(subnormal, normal)
    if f.overflow == f.largest + 1 and f.nan > f.overflow:  # IEEE: infinity, then NaN
        result = (size > f.largest).select(moved | _INFINITY, result)
    elif f.nan > f.largest:
        code_of_nan = code if not f.negative_zero else size
        result = code_of_nan.equals(f.nan).select(0x7FC00000, result)
    sign = (code >> f.sign_shift) << 31
    return (result | sign).as_float(type)


def from_f32(b: Builder, dtype: DType, value: Value) -> Value:
    """The register of a narrower float nearest to an f32."""
    if dtype is F16:
        return b.fptrunc(value, with_scalar(value.type, "half"))
    type = with_scalar(value.type, "i16" if dtype is BF16 else "i8")
    if dtype is BF16 and b.rounds_bf16:
        return b.bitcast(b.fptrunc(value, with_scalar(value.type, "bfloat")), type)

    def body(inner: Builder) -> Value:
        number = Num(inner, inner.function.args[0])
        bits = number.bits()
        if dtype is BF16:
            code = _encode_bf16(bits)
        elif dtype is F8E8M0FNU:
            code = _encode_power(bits)
        else:
            code = _encode(format_of(dtype), bits, bits & 0x7FFFFFFF, number.abs())
        return inner.trunc(code.v, type)

    return call_inlined(b, f"hloc.{dtype}.of.{mangled(value.type)}", type, [value], body)


def _encode_bf16(bits: Num) -> Num:
    rounded = (bits + ((bits >> 16) & 1) + 0x7FFF) >> 16
    is_nan = (bits & 0x7FFFFFFF) > _INFINITY
    return is_nan.select((bits >> 16) & 0x8000 | 0x7FC0, rounded)


def _encode_power(bits: Num) -> Num:
    """The nearest power of two, ties upward; 255 (NaN) for what is not a positive number.

    The least one, 2^-127, is a denormal of f32, and kept; it stands for all that is less too. All denormals above it
    become the next one, as in XLA.
    """
    positive = ~((bits < 1) | (bits >= _INFINITY))
    least = bits <= 1 << 22
    return positive.select(least.select(0, (bits + (1 << 22)) >> 23), 255)


def _encode(f: Format, bits: Num, size: Num, value: Num) -> Num:
    shift = 23 - f.mantissa_bits
    rounded = (size + ((size >> shift) & 1) + ((1 << (shift - 1)) - 1)) >> shift
    normal = rounded - ((127 - f.bias) << f.mantissa_bits)
    # Adding this power of two leaves as many mantissa bits as the subnormal numbers have, rounded.
    aligner = value.of(2.0 ** (f.least_exponent - f.mantissa_bits + 23))
    subnormal = (value + aligner).bits() - aligner.bits()
    code = (size < (f.least_exponent + 127) << 23).select(subnormal, normal)
    code = (code > f.largest).select(f.overflow, code)
    is_nan = size > _INFINITY
    code = is_nan.select(f.nan, code)
    sign = (bits >> 31) << f.sign_shift
    if f.nan == 0:
        return is_nan.select(sign ^ (1 << f.sign_shift), code | sign)
    if f.negative_zero:
        return code | sign
    return (code.equals(0) | code.equals(f.nan)).select(code, code | sign)
