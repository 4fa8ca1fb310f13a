"""What an instruction's value is here, and the number formats in which arithmetic happens.

A value is a NumPy array in logical order with the type's own NumPy dtype, a tuple of values, or TOKEN. An
array of a bounded dynamic shape has its live sizes: it holds the live elements and nothing else.

Arithmetic of the types that NumPy lacks happens in a wider type: floats below 32 bits in f32, integers
below 8 bits in 8. `widen` goes there, `narrow` comes back, rounding to nearest even or wrapping, so every
op rounds once. f32 and f64 arithmetic takes and gives no denormals (as XLA's CPU runs it): `flush` turns
them into zeros of the same sign. Moving data, flipping a sign and looking at bits leave them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from hloc.errors import HloError
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.literals import Literal
from hloc.ir.shapes import ArrayShape, Shape


class Token:
    """The value of a token: nothing but an order."""

    def __repr__(self) -> str:
        return "TOKEN"


TOKEN = Token()
Value = np.ndarray | tuple | Token

# Pieces of this many elements keep the search for denormals in a core's own cache.
_PIECE = 1 << 16

_LEAST_NORMAL = {kind: np.finfo(kind).smallest_normal for kind in (np.float32, np.float64)}


@cache
def arithmetic_type(dtype: DType) -> np.dtype:
    """The NumPy type in which arithmetic of an HLO type happens."""
    if dtype.is_float and dtype.bits < 32:
        return np.dtype(np.float32)
    if dtype.is_integer and dtype.bits < 8:
        return np.dtype(np.int8 if dtype.is_signed else np.uint8)
    return dtype.numpy


def wide_type(dtype: DType) -> np.dtype:
    """The NumPy type for functions and sums that are rounded once at their end: f64, c128, or as it is."""
    if dtype.is_float:
        return np.dtype(np.float64)
    return np.dtype(np.complex128) if dtype.is_complex else arithmetic_type(dtype)


def widen(array: np.ndarray, dtype: DType) -> np.ndarray:
    """The array in its arithmetic type, without denormals."""
    return flush(array.astype(arithmetic_type(dtype), copy=False))


def widest(array: np.ndarray, dtype: DType) -> np.ndarray:
    """The array in its wide type, without what is denormal in its own."""
    return widen(array, dtype).astype(wide_type(dtype), copy=False)


def narrow(array: np.ndarray, dtype: DType) -> np.ndarray:
    """The array rounded (floats) or wrapped (integers) to an HLO type, without denormals.

    Every float type below 32 bits is reached through f32, as XLA's CPU does, so what is denormal there is zero.
    """
    array = np.asarray(array)
    if dtype.is_float and dtype.bits < 32:
        array = flush(array.astype(np.float32, copy=False))
    return flush(array.astype(dtype.numpy, copy=False))


def flush(array: np.ndarray) -> np.ndarray:
    """The array with denormals of f32, f64 and complex parts replaced by zeros of their sign."""
    kind = array.dtype.type
    if kind is np.complex64 or kind is np.complex128:
        return _flush_complex(array)
    least = _LEAST_NORMAL.get(kind)
    if least is None or not _has_denormals(array, least):
        return array
    return np.where(np.abs(array) < least, np.copysign(kind(0), array), array)


def _flush_complex(array: np.ndarray) -> np.ndarray:
    real, imag = array.real, array.imag
    clean_real, clean_imag = flush(real), flush(imag)
    if clean_real is real and clean_imag is imag:
        return array
    result = np.empty(array.shape, array.dtype)
    result.real, result.imag = clean_real, clean_imag
    return result


def _has_denormals(array: np.ndarray, least: np.floating) -> bool:
    flat = _distinct(array).reshape(-1)
    for start in range(0, flat.size, _PIECE):
        size = np.abs(flat[start : start + _PIECE])
        if ((size < least) & (size > 0)).any():
            return True
    return False


def _distinct(array: np.ndarray) -> np.ndarray:
    """The array with dimensions over which a broadcast repeats it cut to one element."""
    if 0 not in array.strides or array.size == 0:
        return array
    return array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]


def common_sizes(instruction: Instruction, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The operands in one shape (but for scalars), cut to the least of live sizes that differ."""
    shapes = [array.shape for array in arrays if array.ndim]
    if all(shape == shapes[0] for shape in shapes):
        return arrays
    if not reads_dynamic(instruction):
        raise HloError(f"operands of {instruction.opcode} differ in size: {', '.join(map(str, shapes))}")
    least = tuple(slice(0, min(sizes)) for sizes in zip(*shapes, strict=True))
    return [array[least] if array.ndim else array for array in arrays]


def reads_dynamic(instruction: Instruction) -> bool:
    """Whether an operand has a bounded dynamic dimension."""
    return any(leaf.is_dynamic for operand in instruction.operands for _, leaf in operand.shape.leaves())


def unsigned(array: np.ndarray, dtype: DType) -> np.ndarray:
    """The bit patterns as unsigned integers of the storage width, zero above a narrow type's width."""
    if dtype.kind == "predicate":
        return array.astype(np.uint8)
    bits = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
    return bits if dtype.bits >= 8 else bits & np.uint8((1 << dtype.bits) - 1)


def from_unsigned(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """The inverse of `unsigned`: patterns (in the low bits of any unsigned type) as values of the type."""
    if dtype.kind == "predicate":
        return (bits & bits.dtype.type(1)).astype(bool)
    if dtype.is_integer:
        return bits.astype(arithmetic_type(dtype)).astype(dtype.numpy)
    stored = np.ascontiguousarray(bits.astype(f"u{dtype.itemsize}", copy=False))
    return stored.view(dtype.numpy).reshape(bits.shape)


def literal_value(literal: Literal) -> Value:
    """The value of a constant."""
    if literal.is_tuple:
        return tuple(literal_value(part) for part in literal.value)
    return literal.value


def zeros(shape: Shape) -> Value:
    """Zeros of a shape."""
    if shape.is_tuple:
        return tuple(zeros(element) for element in shape.elements)
    return np.zeros(shape.dims, shape.dtype.numpy) if shape.is_array else TOKEN


def leaves_of(value: Value) -> Iterator[np.ndarray]:
    """The arrays of a value, depth first; tokens are left out."""
    if isinstance(value, tuple):
        for part in value:
            yield from leaves_of(part)
    elif isinstance(value, np.ndarray):
        yield value


def array_leaves(shape: Shape) -> list[ArrayShape]:
    """The array shapes in a shape, depth first."""
    return [leaf for _, leaf in shape.leaves() if leaf.is_array]
