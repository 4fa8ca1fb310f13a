"""Conversions between any two element types, comparisons, and rounding to other precisions."""

from __future__ import annotations

from collections.abc import Mapping

from hloc.codegen.llvm import Builder, Value, bit_width, const, with_scalar
from hloc.codegen.math.expression import Num
from hloc.ir.dtypes import F8E8M0FNU, F32, F64, DType

from .scalar_types import (
    Register,
    canonical,
    from_bits,
    narrow,
    register_type,
    to_bits,
    widen,
)

_OPERATORS = {"EQ": "==", "NE": "!=", "GE": ">=", "GT": ">", "LE": "<=", "LT": "<"}


def convert(b: Builder, value: Register, source: DType, target: DType) -> Register:
    """A value in another type, by rows X07 to X10.

    Floats go to integers toward zero, to the nearest end where out of range, NaN to 0. Integers wrap. To
    pred: whether not zero, NaN included. Complex to what is not: the real part. f64 goes to floats below
    32 bits through f32, as XLA has it.
    """
    if source is target:
        return value
    if source.is_complex:
        part = source.real_part
        if not target.is_complex:
            return convert(b, value[0], part, target)
        return tuple(convert(b, half, part, target.real_part) for half in value)
    if target.is_complex:
        real = convert(b, value, source, target.real_part)
        return real, const(real.type, 0)
    if target.kind == "predicate":
        return _is_not_zero(b, value, source)
    if target.is_float:
        return _to_float(b, value, source, target)
    if source.is_float:
        return _to_integer(b, widen(b, source, value), target)
    return _between_integers(b, value, source, target)


def _is_not_zero(b: Builder, value: Value, dtype: DType) -> Value:
    if dtype.is_float:
        wide = widen(b, dtype, value)
        return b.fcmp_unordered("!=", wide, const(wide.type, 0))
    return b.icmp_signed("!=", value, const(value.type, 0))


def _resized(b: Builder, value: Value, type: str, signed: bool) -> Value:
    if bit_width(type) < bit_width(value.type):
        return b.trunc(value, type)
    return (b.sext if signed else b.zext)(value, type)


def _between_integers(b: Builder, value: Value, source: DType, target: DType) -> Value:
    type = with_scalar(value.type, register_type(target))
    return canonical(b, target, _resized(b, value, type, source.is_signed))


def _to_integer(b: Builder, value: Value, target: DType) -> Value:
    if target.bits <= 16:
        return _to_narrow_integer(b, value, target)
    name = "llvm.fptosi.sat" if target.is_signed else "llvm.fptoui.sat"
    type = with_scalar(value.type, register_type(target))
    return b.intrinsic(name, type, [value], overloads=[type, value.type])


def _to_narrow_integer(b: Builder, value: Value, target: DType) -> Value:
    """Bounded as a float, which has both ends: processors have instructions for all of it, and convert to 32 bits."""
    half = 1 << (target.bits - 1)
    low, high = (-half, half - 1) if target.is_signed else (0, 2 * half - 1)
    value = b.select(b.fcmp_ordered("==", value, value), value, const(value.type, 0.0))
    for relation, end in ((">", low), ("<", high)):
        bound = const(value.type, float(end))
        value = b.select(b.fcmp_ordered(relation, value, bound), value, bound)
    whole = b.fptosi(value, with_scalar(value.type, "i32"))
    return b.trunc(whole, with_scalar(value.type, register_type(target)))


def _to_float(b: Builder, value: Value, source: DType, target: DType) -> Value:
    """Through f32 to what is narrower."""
    wide = with_scalar(value.type, "double" if target is F64 else "float")
    if source.is_float:
        value = widen(b, source, value)
        if value.type != wide:
            value = (b.fpext if target is F64 else b.fptrunc)(value, wide)
    else:
        value = (b.sitofp if source.is_signed else b.uitofp)(value, wide)
    return narrow(b, target, value)


def bitcast_convert(b: Builder, value: Register, source: DType, target: DType) -> Register:
    """The same bits as another type of as many bits. ValueError for other types."""
    if source is target:
        return value
    if source.bits != target.bits:
        raise ValueError(f"bitcast-convert of one element from {source} to {target}")
    return from_bits(b, target, to_bits(b, source, value))


# Comparison


def compare(b: Builder, dtype: DType, x: Register, y: Register, attributes: Mapping) -> Value:
    """`x direction y`: IEEE's order for floats, total order where `type` or `order` says so (X17)."""
    op = _OPERATORS[attributes["direction"]]
    total = attributes.get("type") == "TOTALORDER" or attributes.get("order") == "TOTAL"
    if dtype.is_complex:
        parts = [_compare_floats(b, op, *pair) for pair in zip(x, y, strict=True)]
        return (b.and_ if op == "==" else b.or_)(*parts)
    if dtype.is_float and total:
        return _compare_total(b, dtype, op, x, y)
    if dtype.is_float:
        return _compare_floats(b, op, widen(b, dtype, x), widen(b, dtype, y))
    return (b.icmp_signed if dtype.is_signed else b.icmp_unsigned)(op, x, y)


def _compare_floats(b: Builder, op: str, x: Value, y: Value) -> Value:
    return (b.fcmp_unordered if op == "!=" else b.fcmp_ordered)(op, x, y)


def _compare_total(b: Builder, dtype: DType, op: str, x: Value, y: Value) -> Value:
    """By the bits as integers, those of negative numbers in reverse."""
    if dtype is F8E8M0FNU:
        return b.icmp_unsigned(op, *(to_bits(b, dtype, operand) for operand in (x, y)))
    return b.icmp_signed(op, *(_signed_key(b, dtype, operand) for operand in (x, y)))


def _signed_key(b: Builder, dtype: DType, value: Value) -> Value:
    """A float's bits, in the upper bits of an integer that is signed as the float is."""
    bits = to_bits(b, dtype, value)
    return _reversed_below_zero(b, b.shl(bits, const(bits.type, bit_width(bits.type) - dtype.bits)))


def _reversed_below_zero(b: Builder, key: Value) -> Value:
    """Negative integers in reverse order; its own inverse."""
    width = bit_width(key.type)
    last, rest = const(key.type, width - 1), const(key.type, (1 << (width - 1)) - 1)
    return b.xor(key, b.and_(b.ashr(key, last), rest))


def order_key(b: Builder, dtype: DType, value: Value) -> Value:
    """An unsigned integer of the width of the type's registers (8 bits of pred), in the type's order.

    Of floats that is the total order (X17). Complex types have none.
    """
    if dtype.is_float and dtype is not F8E8M0FNU:
        key = _signed_key(b, dtype, value)
    else:
        key = to_bits(b, dtype, value)
        if not dtype.is_signed:
            return key
    return b.xor(key, const(key.type, 1 << (bit_width(key.type) - 1)))


def from_order_key(b: Builder, dtype: DType, key: Value) -> Register:
    """The element of a key of `order_key`, with all its bits."""
    width = bit_width(key.type)
    is_signed_float = dtype.is_float and dtype is not F8E8M0FNU
    if is_signed_float or dtype.is_signed:
        key = b.xor(key, const(key.type, 1 << (width - 1)))
    if is_signed_float:
        key = b.lshr(_reversed_below_zero(b, key), const(key.type, width - dtype.bits))
    return from_bits(b, dtype, key)


# Precision


def reduce_precision(b: Builder, dtype: DType, value: Value, exponent_bits: int, mantissa_bits: int) -> Value:
    """Rounded to nearest even in a format of fewer bits (X23); NaN stays.

    Too large becomes infinity, below that format's normal range zero.
    """
    if dtype.bits < 16:
        wide = reduce_precision(b, F32, widen(b, dtype, value), exponent_bits, mantissa_bits)
        return narrow(b, dtype, wide)
    bits = Num(b, to_bits(b, dtype, value))
    sign_bit = 1 << (dtype.bits - 1)
    infinity = ((1 << dtype.exponent_bits) - 1) << dtype.mantissa_bits
    sign, size = bits & sign_bit, bits & (sign_bit - 1)
    rounded = size
    if mantissa_bits < dtype.mantissa_bits:
        drop = dtype.mantissa_bits - mantissa_bits
        odd = (size >> drop) & 1
        rounded = (size + odd + ((1 << (drop - 1)) - 1)) & -(1 << drop)
    if exponent_bits < dtype.exponent_bits:
        bias, reduced = (1 << (dtype.exponent_bits - 1)) - 1, (1 << (exponent_bits - 1)) - 1
        too_large = rounded >= (bias + reduced + 1) << dtype.mantissa_bits
        too_small = rounded < (bias - reduced + 1) << dtype.mantissa_bits
        rounded = too_small.select(0, too_large.select(infinity, rounded))
    result = (size > infinity).select(bits, rounded | sign)
    return from_bits(b, dtype, result.v)


def stochastic_convert(b: Builder, value: Value, random: Value, source: DType, target: DType) -> Value:
    """Away from zero with the probability of what would be cut off.

    That is when the random bits (as many as the source has) are below that fraction.
    """
    if target.is_float and target.bits >= source.bits:
        return convert(b, value, source, target)
    number = Num(b, convert(b, value, source, F64))
    noise = Num(b, b.uitofp(random, with_scalar(random.type, "double")))
    if target.is_float:
        return _stochastic_float(b, number, noise, source, target)
    size = number.abs()
    finite = size < float("inf")
    whole = size.intrinsic("llvm.floor")
    threshold = ((size - whole) * 2.0**source.bits).intrinsic("llvm.floor")
    away = (noise < threshold).select(number.of(1.0), 0.0)
    rounded = finite.select((whole + away).copysign(number), number)
    return _to_integer(b, rounded.v, target)


def _stochastic_float(b: Builder, number: Num, noise: Num, source: DType, target: DType) -> Value:
    """Between the two neighbours in the target's format."""
    size = number.abs()
    nearest = Num(b, to_bits(b, target, convert(b, size.v, F64, target)))

    def back(bits: Num) -> Num:
        return Num(b, convert(b, from_bits(b, target, bits.v), target, F64))

    below = (back(nearest) > size).select(nearest - 1, nearest)
    low, high = back(below), back(below + 1)
    share = (size - low) / (high - low)
    threshold = (share * 2.0**source.bits).intrinsic("llvm.floor")
    away = (share > 0.0) & (noise < threshold)
    chosen = back(away.select(below + 1, below))
    finite = (size < float("inf")) & (low < float("inf"))
    result = Num(b, convert(b, finite.select(chosen, size).v, F64, F32))
    # Not by copysign: x86 makes a library call of one between formats.
    return narrow(b, target, (number.bits() < 0).select(-result, result).v)
