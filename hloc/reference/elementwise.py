"""Arithmetic, logic and comparison, element by element.

Operands of one op have one shape, or are scalars where the op takes scalars; a computation of scalars that is
lifted to arrays mixes arrays and scalars freely. Integers wrap. Rows X01 to X06 and X11 to X17 of the
language are what the corners do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hloc.errors import HloError
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.reference import complex_functions
from hloc.reference.context import Context
from hloc.reference.values import common_sizes, flush, from_unsigned, narrow, unsigned, widen

Kernel = Callable[..., np.ndarray]


def arithmetic(kernel: Kernel, *, integer: Kernel | None = None) -> Callable:
    """The op of a kernel on arrays of the arithmetic type; `integer` is the kernel for integers if another.

    Operands and result lose their denormals.
    """

    def run(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
        dtype = instruction.operands[0].shape.dtype
        chosen = integer if integer is not None and dtype.is_integer else kernel
        wide = [widen(operand, dtype) for operand in common_sizes(instruction, operands)]
        return narrow(chosen(*wide), instruction.shape.dtype)

    return run


def plain(kernel: Kernel) -> Callable:
    """Like `arithmetic`, but of a kernel that only touches signs or bits: denormals stay."""

    def run(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
        return np.asarray(kernel(*common_sizes(instruction, operands))).astype(
            instruction.shape.dtype.numpy, copy=False
        )

    return run


def on_bits(kernel: Kernel) -> Callable:
    """The op of a kernel on bit patterns (unsigned, of the storage width) and the type they belong to."""

    def run(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
        dtype = instruction.operands[0].shape.dtype
        patterns = [unsigned(operand, dtype) for operand in common_sizes(instruction, operands)]
        result = np.asarray(kernel(*patterns, dtype))
        return from_unsigned(result, instruction.shape.dtype)

    return run


def maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NaN if either is (X11); 0 is above -0."""
    result = np.maximum(a, b)
    if result.dtype.kind != "f":
        return result
    zeros = (result == 0) & (a == b)
    return np.where(zeros, a + b, result) if zeros.any() else result


def minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NaN if either is; -0 is below 0."""
    result = np.minimum(a, b)
    if result.dtype.kind != "f":
        return result
    zeros = (result == 0) & (a == b)
    return np.where(zeros, -((-a) + (-b)), result) if zeros.any() else result


def clamp(low: np.ndarray, value: np.ndarray, high: np.ndarray) -> np.ndarray:
    """NaN stays, and the upper bound wins over the lower (X12)."""
    return minimum(maximum(low, value), high)


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "c":
        return complex_functions.divide(a.astype(np.complex128), b.astype(np.complex128))
    return np.divide(a, b)


def divide_integers(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Toward zero; all ones by zero, and least by -1 is least (X01, X02)."""
    by_zero = b == 0
    divisor = np.where(by_zero, a.dtype.type(1), b)
    quotient = a // divisor
    if a.dtype.kind == "i":
        quotient = quotient + ((a - quotient * divisor != 0) & ((a < 0) != (divisor < 0)))
    return np.where(by_zero, ~a.dtype.type(0), quotient).astype(a.dtype, copy=False)


def remainder_integers(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """With the sign of the first; the first itself by zero (X03)."""
    by_zero = b == 0
    return np.where(by_zero, a, np.fmod(a, np.where(by_zero, a.dtype.type(1), b)))


def power_integers(base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """By squaring, wrapping. A negative exponent gives 0, but for the bases 1 and -1 (X16)."""
    base, exponent = np.broadcast_arrays(base, exponent)
    kind = base.dtype
    one = kind.type(1)
    result, square, left = (
        np.ones(base.shape, kind),
        base.copy(),
        np.where(exponent < 0, exponent & one, exponent),
    )
    while (left != 0).any():
        result = np.where(left & one, result * square, result)
        square = square * square
        left = left >> one
    whole = (exponent >= 0) | (base == one)
    if kind.kind == "i":
        whole |= base == -one
    return np.where(whole, result, kind.type(0))


def high_half(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """mulhi: the high half of the product of twice the width."""
    dtype = instruction.shape.dtype
    a, b = (operand.astype(object) for operand in common_sizes(instruction, operands))
    return (
        np.asarray((a * b) >> dtype.bits)
        .astype(np.int64 if dtype.is_signed else np.uint64)
        .astype(dtype.numpy)
    )


def sign(x: np.ndarray) -> np.ndarray:
    """-1, 0 or 1; NaN, 0 and -0 are their own (X13); a complex number divided by its modulus."""
    if x.dtype.kind == "c":
        return complex_functions.sign(x)
    if x.dtype.kind == "f":
        return np.where((x == 0) | np.isnan(x), x, np.copysign(x.dtype.type(1), x))
    return np.sign(x)


def round_away(x: np.ndarray) -> np.ndarray:
    """To the nearest integer, halves away from zero."""
    whole = np.trunc(x)
    return np.copysign(whole + np.copysign((np.abs(x - whole) >= 0.5).astype(x.dtype), x), x)


def absolute(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    dtype = instruction.operands[0].shape.dtype
    if dtype.is_complex:
        return narrow(complex_functions.modulus(flush(operands[0])), instruction.shape.dtype)
    if dtype.is_float:
        return without_sign(operands[0], dtype)
    return np.abs(operands[0].astype(np.int64) if dtype.bits < 8 else operands[0]).astype(dtype.numpy)


def without_sign(array: np.ndarray, dtype: DType) -> np.ndarray:
    """A float's magnitude, by its sign bit; formats without negative zero or without sign keep their NaN."""
    if dtype.name == "f8e8m0fnu":
        return array
    bits = unsigned(array, dtype)
    mask = bits.dtype.type((1 << (dtype.bits - 1)) - 1)
    return from_unsigned(np.where(np.isnan(array), bits, bits & mask), dtype)


def is_finite(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    return np.asarray(np.isfinite(widen(operands[0], instruction.operands[0].shape.dtype)))


def logical_not(bits: np.ndarray, dtype: DType) -> np.ndarray:
    return bits ^ bits.dtype.type((1 << dtype.bits) - 1)


def leading_zeros(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """Zero bits above the highest set one; the width for 0 (X14)."""
    spread = bits
    step = 1
    while step < dtype.bits:
        spread = spread | (spread >> spread.dtype.type(step))
        step *= 2
    return (dtype.bits - np.bitwise_count(spread)).astype(bits.dtype)


def population(bits: np.ndarray, dtype: DType) -> np.ndarray:
    return np.bitwise_count(bits).astype(bits.dtype)


def shift_left(bits: np.ndarray, count: np.ndarray, dtype: DType) -> np.ndarray:
    """0 from the width on, negative counts being large ones (X05)."""
    kind = bits.dtype.type
    moved = bits << np.minimum(count, kind(dtype.bits - 1))
    return np.where(count < dtype.bits, moved & kind((1 << dtype.bits) - 1), kind(0))


def shift_right(bits: np.ndarray, count: np.ndarray, dtype: DType) -> np.ndarray:
    kind = bits.dtype.type
    return np.where(count < dtype.bits, bits >> np.minimum(count, kind(dtype.bits - 1)), kind(0))


def shift_right_signed(bits: np.ndarray, count: np.ndarray, dtype: DType) -> np.ndarray:
    """The highest bit comes in, for unsigned types too; all of it from the width on (X06)."""
    kind = bits.dtype.type
    by = np.minimum(count, kind(dtype.bits - 1))
    ones = kind((1 << dtype.bits) - 1)
    negative = (bits >> kind(dtype.bits - 1)) != 0
    return np.where(negative, ~((~bits & ones) >> by) & ones, bits >> by)


def total_order_key(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Integers in the order -NaN < -inf < ... < -0 < 0 < ... < inf < NaN (X17); integers are their own."""
    if not dtype.is_float:
        return array.astype(np.int8 if dtype.is_signed else np.uint8) if dtype.bits < 8 else array
    bits = unsigned(array, dtype)
    if dtype.name == "f8e8m0fnu":
        return bits
    half, ones = bits.dtype.type(1 << (dtype.bits - 1)), bits.dtype.type((1 << dtype.bits) - 1)
    return np.where((bits & half) != 0, ~bits & ones, bits | half)


_RELATIONS: dict[str, Kernel] = {
    "EQ": np.equal,
    "NE": np.not_equal,
    "GE": np.greater_equal,
    "GT": np.greater,
    "LE": np.less_equal,
    "LT": np.less,
}


def compare(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """By IEEE rules (a denormal equals zero), or in total order where `type` or `order` says so."""
    dtype = instruction.operands[0].shape.dtype
    total = instruction.get("type") == "TOTALORDER" or instruction.get("order") == "TOTAL"
    key = total_order_key if total else widen
    a, b = (key(operand, dtype) for operand in common_sizes(instruction, operands))
    return np.asarray(_RELATIONS[instruction.get("direction")](a, b))


def select(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    chosen, on_true, on_false = common_sizes(instruction, operands)
    return np.where(chosen, on_true, on_false)


def make_complex(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    real, imag = np.broadcast_arrays(*common_sizes(instruction, operands))
    result = np.empty(real.shape, instruction.shape.dtype.numpy)
    result.real, result.imag = real, imag
    return result


def imaginary(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    if instruction.operands[0].shape.dtype.is_complex:
        return operands[0].imag
    return np.zeros(operands[0].shape, instruction.shape.dtype.numpy)


def subtract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype == bool:
        raise HloError("subtract of pred has no meaning")
    return a - b


def negate(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """The sign flipped, of NaN and zero too; integers wrap (X13)."""
    dtype = instruction.shape.dtype
    if dtype.is_integer and dtype.bits < 8:
        return narrow(-widen(operands[0], dtype), dtype)
    return np.asarray(np.negative(operands[0]))


TABLE: dict[str, Callable] = {
    "abs": absolute,
    "add": arithmetic(np.add),
    "and": on_bits(lambda a, b, dtype: a & b),
    "ceil": arithmetic(np.ceil),
    "clamp": arithmetic(clamp),
    "compare": compare,
    "complex": make_complex,
    "count-leading-zeros": on_bits(leading_zeros),
    "divide": arithmetic(divide, integer=divide_integers),
    "floor": arithmetic(np.floor),
    "imag": imaginary,
    "is-finite": is_finite,
    "maximum": arithmetic(maximum),
    "minimum": arithmetic(minimum),
    "mulhi": high_half,
    "multiply": arithmetic(np.multiply),
    "negate": negate,
    "not": on_bits(logical_not),
    "or": on_bits(lambda a, b, dtype: a | b),
    "popcnt": on_bits(population),
    "real": plain(np.real),
    "remainder": arithmetic(np.fmod, integer=remainder_integers),
    "round-nearest-afz": arithmetic(round_away),
    "round-nearest-even": arithmetic(np.rint),
    "select": select,
    "shift-left": on_bits(shift_left),
    "shift-right-arithmetic": on_bits(shift_right_signed),
    "shift-right-logical": on_bits(shift_right),
    "sign": arithmetic(sign),
    "subtract": arithmetic(subtract),
    "xor": on_bits(lambda a, b, dtype: a ^ b),
}
