"""Integer and pred ops: wrapping, with an answer for every operand (rows X01 to X06, X13, X14, X16).

Sub-byte types compute in 8 bits; `wrapping` brings the result back into the type.
"""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen.llvm import Builder, Value, bit_width, const, integer, mangled, scalar_type, with_scalar
from hloc.ir.dtypes import DType

from .scalar_types import by_lanes, canonical

Function = Callable[..., Value]


def _lit(like: Value, number: int) -> Value:
    return const(like.type, number)


def wrapping(function: Function) -> Function:
    """An op whose result needs to be brought back into a sub-byte type."""

    def run(b: Builder, dtype: DType, *operands: Value) -> Value:
        return canonical(b, dtype, function(b, dtype, *operands))

    return run


def unsigned_bits(b: Builder, dtype: DType, value: Value) -> Value:
    """The value's bits without the extension of a sub-byte signed type."""
    return b.and_(value, _lit(value, (1 << dtype.bits) - 1)) if dtype.is_subbyte else value


def divide(b: Builder, dtype: DType, x: Value, y: Value) -> Value:
    """Toward zero; all ones by zero, and the least value by -1 is itself."""
    by_zero = b.icmp_signed("==", y, _lit(y, 0))
    if dtype.is_signed:
        quotient = b.sdiv(x, _safe_divisor(b, dtype, x, y, by_zero))
    else:
        quotient = b.udiv(x, b.select(by_zero, _lit(y, 1), y))
    return b.select(by_zero, _lit(x, -1), quotient)


def remainder(b: Builder, dtype: DType, x: Value, y: Value) -> Value:
    """With the sign of x; x itself by zero."""
    by_zero = b.icmp_signed("==", y, _lit(y, 0))
    if dtype.is_signed:
        rest = b.srem(x, _safe_divisor(b, dtype, x, y, by_zero))
    else:
        rest = b.urem(x, b.select(by_zero, _lit(y, 1), y))
    return b.select(by_zero, x, rest)


def _safe_divisor(b: Builder, dtype: DType, x: Value, y: Value, by_zero: Value) -> Value:
    """y, but 1 where the quotient is undefined: for least / -1 that gives the wanted results."""
    least = b.icmp_signed("==", x, _lit(x, -1 << (bit_width(x.type) - 1)))
    overflow = b.and_(least, b.icmp_signed("==", y, _lit(y, -1)))
    return b.select(b.or_(by_zero, overflow), _lit(y, 1), y)


def maximum(b: Builder, dtype: DType, x: Value, y: Value) -> Value:
    return b.intrinsic("llvm.smax" if dtype.is_signed else "llvm.umax", x.type, [x, y])


def minimum(b: Builder, dtype: DType, x: Value, y: Value) -> Value:
    return b.intrinsic("llvm.smin" if dtype.is_signed else "llvm.umin", x.type, [x, y])


def clamp(b: Builder, dtype: DType, low: Value, x: Value, high: Value) -> Value:
    """The upper bound wins where the bounds cross."""
    return minimum(b, dtype, maximum(b, dtype, low, x), high)


def absolute(b: Builder, dtype: DType, x: Value) -> Value:
    return b.intrinsic("llvm.abs", x.type, [x, integer("i1", 0)]) if dtype.is_signed else x


def sign(b: Builder, dtype: DType, x: Value) -> Value:
    """-1, 0 or 1."""
    above = b.zext(b.icmp_signed("!=", x, _lit(x, 0)), x.type)
    if not dtype.is_signed:
        return above
    return b.or_(above, b.ashr(x, _lit(x, bit_width(x.type) - 1)))


def high_half(b: Builder, dtype: DType, x: Value, y: Value) -> Value:
    """The upper half of the product of twice the width."""
    wide = with_scalar(x.type, f"i{2 * bit_width(x.type)}")
    extend = b.sext if dtype.is_signed else b.zext
    product = b.mul(extend(x, wide), extend(y, wide))
    return b.trunc(b.lshr(product, const(wide, dtype.bits)), x.type)


def leading_zeros(b: Builder, dtype: DType, x: Value) -> Value:
    bits = unsigned_bits(b, dtype, x)
    count = b.intrinsic("llvm.ctlz", x.type, [bits, integer("i1", 0)])
    return b.sub(count, _lit(x, bit_width(x.type) - dtype.bits))


def population(b: Builder, dtype: DType, x: Value) -> Value:
    return b.intrinsic("llvm.ctpop", x.type, [unsigned_bits(b, dtype, x)])


def _in_width(b: Builder, dtype: DType, count: Value) -> Value:
    return b.icmp_unsigned("<", count, _lit(count, dtype.bits))


def shift_left(b: Builder, dtype: DType, x: Value, count: Value) -> Value:
    """0 from the width on, negative counts being large ones."""
    return b.select(_in_width(b, dtype, count), b.shl(x, count), _lit(x, 0))


def shift_right_logical(b: Builder, dtype: DType, x: Value, count: Value) -> Value:
    moved = b.lshr(unsigned_bits(b, dtype, x), count)
    return b.select(_in_width(b, dtype, count), moved, _lit(x, 0))


def shift_right_arithmetic(b: Builder, dtype: DType, x: Value, count: Value) -> Value:
    """The highest bit comes in, for unsigned types too; all of it from the width on."""
    if dtype.is_subbyte and not dtype.is_signed:
        up = _lit(x, 8 - dtype.bits)
        x = b.ashr(b.shl(x, up), up)
    last = _lit(count, dtype.bits - 1)
    return b.ashr(x, b.select(_in_width(b, dtype, count), count, last))


def power(b: Builder, dtype: DType, x: Value, y: Value) -> Value:
    """By squaring, wrapping; a negative exponent gives 0, but for the bases 1 and -1."""
    function = _power_function(b, scalar_type(x.type))
    result = by_lanes(b, lambda *lane: b.call(function, lane, pure=True), [x, y])
    if not dtype.is_signed:
        return result
    one, all_ones = _lit(x, 1), _lit(x, -1)
    odd = b.icmp_signed("!=", b.and_(y, one), _lit(y, 0))
    of_minus_one = b.select(odd, all_ones, one)
    inverse = b.select(b.icmp_signed("==", x, all_ones), of_minus_one, _lit(x, 0))
    inverse = b.select(b.icmp_signed("==", x, one), one, inverse)
    return b.select(b.icmp_signed("<", y, _lit(y, 0)), inverse, result)


def _power_function(b: Builder, type: str):
    """x to an unsigned y, scalar: a loop over the bits of y that are left."""
    symbol = f"hloc.power.{mangled(type)}"
    known = b.module.functions.get(symbol)
    if known:
        return known
    function = b.module.function(
        symbol, type, [(type, "x"), (type, "y")], "nounwind willreturn memory(none)", "internal"
    )
    inner = Builder(function)
    one, none = const(type, 1), const(type, 0)

    def step(values: list[Value]) -> list[Value]:
        result, square, left = values
        odd = inner.icmp_signed("!=", inner.and_(left, one), none)
        taken = inner.select(odd, inner.mul(result, square), result)
        return [taken, inner.mul(square, square), inner.lshr(left, one)]

    start = [one, *function.args]
    inner.ret(inner.while_loop(start, lambda values: inner.icmp_signed("!=", values[2], none), step)[0])
    return function


INTEGERS: dict[str, Function] = {
    "abs": wrapping(absolute),
    "add": wrapping(lambda b, dtype, x, y: b.add(x, y)),
    "and": lambda b, dtype, x, y: b.and_(x, y),
    "clamp": clamp,
    "count-leading-zeros": wrapping(leading_zeros),
    "divide": wrapping(divide),
    "maximum": maximum,
    "minimum": minimum,
    "mulhi": wrapping(high_half),
    "multiply": wrapping(lambda b, dtype, x, y: b.mul(x, y)),
    "negate": wrapping(lambda b, dtype, x: b.neg(x)),
    "not": wrapping(lambda b, dtype, x: b.not_(x)),
    "or": lambda b, dtype, x, y: b.or_(x, y),
    "popcnt": wrapping(population),
    "power": wrapping(power),
    "remainder": wrapping(remainder),
    "shift-left": wrapping(shift_left),
    "shift-right-arithmetic": wrapping(shift_right_arithmetic),
    "shift-right-logical": wrapping(shift_right_logical),
    "sign": sign,
    "subtract": wrapping(lambda b, dtype, x, y: b.sub(x, y)),
    "xor": lambda b, dtype, x, y: b.xor(x, y),
}

PREDICATES: dict[str, Function] = {
    "add": lambda b, dtype, x, y: b.or_(x, y),
    "and": lambda b, dtype, x, y: b.and_(x, y),
    "clamp": lambda b, dtype, low, x, high: b.and_(b.or_(low, x), high),
    "maximum": lambda b, dtype, x, y: b.or_(x, y),
    "minimum": lambda b, dtype, x, y: b.and_(x, y),
    "multiply": lambda b, dtype, x, y: b.and_(x, y),
    "not": lambda b, dtype, x: b.not_(x),
    "or": lambda b, dtype, x, y: b.or_(x, y),
    "xor": lambda b, dtype, x, y: b.xor(x, y),
}
