"""Changes of element type: by value, by bits, at random, and to fewer bits and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hloc.errors import HloError
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.values import flush, from_unsigned, unsigned, widen


def convert(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    return convert_array(operands[0], instruction.operands[0].shape.dtype, instruction.shape.dtype)


def convert_array(array: np.ndarray, source: DType, target: DType) -> np.ndarray:
    """The values in another type, by rows X07 to X10.

    Floats to integers: toward zero, ends where the type ends, NaN is 0. Integers to narrower ones wrap. To
    pred: whether not zero. Complex to real: the real part. f64 goes to narrower floats through f32.
    """
    if source is target:
        return array
    if source.is_complex and not target.is_complex:
        return convert_array(array.real, source.real_part, target)
    if target.kind == "predicate":
        return widen(array, source) != 0
    if source.is_float and target.is_integer:
        return _truncate(widen(array, source), target)
    if target.is_integer:
        return _wrap(array, source, target)
    return _to_float(array, source, target)


def _wrap(array: np.ndarray, source: DType, target: DType) -> np.ndarray:
    # ml_dtypes wraps from any integer of a byte or more.
    wide = array.astype(np.int64 if source.is_signed else np.uint64) if source.bits < 8 else array
    return wide.astype(target.numpy)


def _truncate(array: np.ndarray, target: DType) -> np.ndarray:
    wide = array.astype(np.float64)
    low = -(1 << (target.bits - 1)) if target.is_signed else 0
    high = (1 << (target.bits - int(target.is_signed))) - 1
    safe = np.where(np.isnan(wide) | (wide <= low) | (wide >= high), 0, wide)
    whole = safe.astype(np.int64 if target.is_signed else np.uint64)
    kind = whole.dtype.type
    whole = np.where(wide >= high, kind(high), np.where(wide <= low, kind(low), whole))
    return whole.astype(target.numpy)


def _to_float(array: np.ndarray, source: DType, target: DType) -> np.ndarray:
    if target.is_complex and not source.is_complex:
        return convert_array(array, source, target.real_part).astype(target.numpy)
    # Only bits are cut or added between f32 and bf16, and from exponents or to them; all else is arithmetic.
    keeps_denormals = {source.name, target.name} <= {"f32", "bf16", "f8e8m0fnu"}
    array = array if keeps_denormals else flush(array)
    if target.bits < 32:
        array = array.astype(np.float32)
    else:
        array = array.astype(target.numpy)
    array = array if keeps_denormals else flush(array)
    return array.astype(target.numpy, copy=False)


def bitcast_convert(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """The same bits as another type.

    A wider source splits into a new last dimension, low bits first; a narrower one joins its last dimension.
    """
    source, target = instruction.operands[0].shape.dtype, instruction.shape.dtype
    array = operands[0]
    if source.bits == target.bits and not source.is_complex and not target.is_complex:
        return from_unsigned(unsigned(array, source), target)
    if source.bits >= 8 and target.bits >= 8:
        return _reinterpret(array, source, target)
    return _regroup_bits(array, source, target)


def _reinterpret(array: np.ndarray, source: DType, target: DType) -> np.ndarray:
    dense = np.ascontiguousarray(array)
    if source.itemsize == target.itemsize:
        return dense.view(target.numpy).reshape(array.shape)
    if source.itemsize > target.itemsize:
        ratio = source.itemsize // target.itemsize
        return dense.reshape(-1).view(target.numpy).reshape((*array.shape, ratio))
    return dense.reshape(-1).view(target.numpy).reshape(array.shape[:-1])


def _regroup_bits(array: np.ndarray, source: DType, target: DType) -> np.ndarray:
    """By way of single bits, lowest first."""
    bits = unsigned(array, source)
    places = np.arange(source.bits, dtype=bits.dtype)
    single = (bits[..., None] >> places) & bits.dtype.type(1)
    if source.bits > target.bits:
        grouped = single.reshape((*array.shape, source.bits // target.bits, target.bits))
    else:
        grouped = single.reshape((*array.shape[:-1], target.bits))
    weights = np.uint64(1) << np.arange(target.bits, dtype=np.uint64)
    joined = (grouped.astype(np.uint64) * weights).sum(axis=-1, dtype=np.uint64)
    return from_unsigned(joined, target)


def reduce_precision(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """Rounded to nearest even in a format of fewer bits (X23).

    What is too large becomes infinity, what is below the normal range zero.
    """
    dtype = instruction.shape.dtype
    if dtype.is_complex:
        raise HloError("reduce-precision of complex numbers is not defined")
    exponent_bits, mantissa_bits = instruction.get("exponent_bits"), instruction.get("mantissa_bits")
    if dtype.bits < 16:  # the formats of 8 bits and less are exact in f16 or f32
        wide = operands[0].astype(np.float32)
        return _reduce(wide, _F32_FIELDS, exponent_bits, mantissa_bits).astype(dtype.numpy)
    return _reduce(operands[0], (dtype.exponent_bits, dtype.mantissa_bits), exponent_bits, mantissa_bits)


_F32_FIELDS = (8, 23)


def _reduce(array: np.ndarray, fields: tuple[int, int], exponent_bits: int, mantissa_bits: int) -> np.ndarray:
    source_exponent, source_mantissa = fields
    bits = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
    kind = bits.dtype.type
    sign = bits & kind(1 << (source_exponent + source_mantissa))
    size = bits ^ sign
    if mantissa_bits < source_mantissa:
        drop = source_mantissa - mantissa_bits
        odd = (size >> kind(drop)) & kind(1)
        size = (size + kind((1 << (drop - 1)) - 1) + odd) & kind(
            ~((1 << drop) - 1) & ((1 << (8 * bits.itemsize)) - 1)
        )
    if exponent_bits < source_exponent:
        bias, reduced_bias = (1 << (source_exponent - 1)) - 1, (1 << (exponent_bits - 1)) - 1
        exponent = (size >> kind(source_mantissa)).astype(np.int64)
        infinity = kind(((1 << source_exponent) - 1) << source_mantissa)
        size = np.where(exponent > bias + reduced_bias, infinity, size)
        size = np.where(exponent <= bias - reduced_bias, kind(0), size)
    rounded = np.asarray(sign | size).view(array.dtype)
    return np.where(np.isnan(array), array, rounded)


def stochastic_convert(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """Rounded away from zero with the probability of what would be cut off.

    That is when the random bits, as a fraction of 1, are below it.
    """
    source, target = instruction.operands[0].shape.dtype, instruction.shape.dtype
    value, random = widen(operands[0], source).astype(np.float64), operands[1]
    if target.is_float:
        return _stochastic_float(value, random, source, target)
    size = np.where(np.isfinite(value), np.abs(value), 0)
    whole = np.floor(size)
    away = random.astype(np.float64) < np.floor(np.ldexp(size - whole, source.bits))
    rounded = np.copysign(whole + away, value)
    return _truncate(np.where(np.isfinite(value), rounded, value), target)


def _stochastic_float(value: np.ndarray, random: np.ndarray, source: DType, target: DType) -> np.ndarray:
    nearest = np.abs(value).astype(np.float32).astype(target.numpy)
    bits = unsigned(nearest, target)
    one = bits.dtype.type(1)
    size = np.abs(value)
    below = np.where(nearest.astype(np.float64) > size, bits - one, bits)
    low = from_unsigned(below, target).astype(np.float64)
    high = from_unsigned(below + one, target).astype(np.float64)
    share = (size - low) / (high - low)
    away = (share > 0) & (random.astype(np.float64) < np.floor(np.ldexp(share, source.bits)))
    result = from_unsigned(np.where(away, below + one, below), target).astype(np.float64)
    finite = np.isfinite(value) & np.isfinite(low)
    return np.copysign(np.where(finite, result, np.abs(value)), value).astype(np.float32).astype(target.numpy)


TABLE: dict[str, Callable] = {
    "bitcast-convert": bitcast_convert,
    "convert": convert,
    "reduce-precision": reduce_precision,
    "stochastic-convert": stochastic_convert,
}
