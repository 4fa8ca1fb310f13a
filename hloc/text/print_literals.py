"""Literals as text: XLA's number formats and braces, a whole array at a time.

Formats (XLA's `RoundTripFpToString`): f32 and f64 take 6 and 15 significant digits where these read back
as the same value, else 9 and 17; narrower floats take the digits that any value of the type needs. NaNs
other than the type's quiet one show their payload. Integers are decimal; predicates are `true` and `false`
alone, 1 and 0 inside braces.
"""

from __future__ import annotations

from math import ceil, log10, prod

import numpy as np

from hloc.ir.dtypes import F32, F64, PRED, DType
from hloc.ir.literals import Literal, bits_of
from hloc.text.print_floats import float_texts

ELIDED = "{...}"
"""What stands for a constant that is not shown."""

LARGE = 10
"""A constant of more elements than this is large."""

# From how many elements on it pays to look for repeated values.
_SAMPLE = 4096


def print_literal(literal: Literal) -> str:
    """The text between the parentheses of `constant(...)`."""
    if literal.is_tuple:
        return f"( {', '.join(map(print_literal, literal.value))} )"
    array, dtype = literal.array, literal.shape.dtype
    if array.ndim == 0 and dtype is PRED:
        return "true" if array else "false"
    if array.ndim == 0:
        return element_texts(array, dtype)[0]
    return _braces(element_texts(array, dtype) if array.size else [], array.shape)


def _braces(texts: list[str], dims: tuple[int, ...]) -> str:
    """Element texts, row-major, in nested braces."""
    count, rank = dims[-1], len(dims)
    if rank == 1:
        return "{" + ", ".join(texts) + "}"
    start, end = ("{ ", " }") if count > 1 else ("{", "}")
    rows = prod(dims[:-1])
    if count == 1:
        parts = [f"{{{text}}}" for text in texts]
    else:
        parts = [f"{start}{', '.join(texts[row * count : (row + 1) * count])}{end}" for row in range(rows)]
    for level in range(rank - 2, -1, -1):
        parts = _fold(parts, dims, level)
    return parts[0]


def _fold(parts: list[str], dims: tuple[int, ...], level: int) -> list[str]:
    """Join groups of `dims[level]` parts; from rank 4 on, inner groups are numbered in a comment."""
    size = dims[level]
    groups = prod(dims[:level])
    joined = [", ".join(parts[group * size : (group + 1) * size]) for group in range(groups)]
    if len(dims) <= 3 or level == 0:
        return [f"{{ {text} }}" for text in joined]
    above = dims[level - 1]
    space = " " if size else ""
    return [f"{{ /*i{level - 1}={group % above}*/{space}{text} }}" for group, text in enumerate(joined)]


def element_texts(array: np.ndarray, dtype: DType) -> list[str]:
    """The texts of all elements, row-major."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.size > 64 and (bits_of(flat) == bits_of(flat[:1])[0]).all() and not dtype.is_complex:
        return element_texts(flat[:1], dtype) * flat.size
    if dtype is PRED:
        return list(map(("0", "1").__getitem__, flat.tolist()))
    if dtype.is_integer:
        wide = flat if dtype.bits >= 8 else flat.astype(np.int8 if dtype.is_signed else np.uint8)
        return list(map(str, wide.tolist()))
    if dtype.is_complex:
        parts = _float_texts(flat.view(dtype.real_part.numpy), dtype.real_part)
        return list(map("({}, {})".format, parts[::2], parts[1::2]))
    return _float_texts(flat, dtype)


def _float_texts(flat: np.ndarray, dtype: DType) -> list[str]:
    bits = bits_of(flat) if dtype.bits <= 16 else flat.view(np.uint32 if dtype is F32 else np.uint64)
    if _worth_sharing(bits):
        distinct, places = np.unique(bits, return_inverse=True)
        texts = np.array(_distinct_texts(distinct.view(flat.dtype), dtype), object)
        return texts[places].tolist()
    return _distinct_texts(flat, dtype)


def _worth_sharing(bits: np.ndarray) -> bool:
    if bits.itemsize <= 2:
        return bits.size > 64
    sample = bits[:_SAMPLE]
    return bits.size > 64 and np.unique(sample).size < sample.size // 2


def _distinct_texts(flat: np.ndarray, dtype: DType) -> list[str]:
    with np.errstate(invalid="ignore"):  # a signalling NaN is no error here
        if dtype is F32 or dtype is F64:
            texts = float_texts(flat)
        else:
            texts = _narrow_texts(flat, dtype)
        nans = np.flatnonzero(np.isnan(flat)).tolist()
    for place in nans:
        texts[place] = _nan_text(flat[place : place + 1], dtype)
    return texts


def _narrow_texts(flat: np.ndarray, dtype: DType) -> list[str]:
    """Texts of floats of at most 16 bits, with more digits for the few that would not read back."""
    digits = ceil(1 + (dtype.mantissa_bits + 1) * log10(2))
    values = flat.astype(np.float64)
    texts = [f"{value:.{digits}g}" for value in values.tolist()]
    with np.errstate(over="ignore"):
        read = np.array(list(map(float, texts))).astype(dtype.numpy)
    for place in np.flatnonzero((read != flat) & ~np.isnan(values)).tolist():
        texts[place] = repr(values[place].item())
    return texts


def _nan_text(one: np.ndarray, dtype: DType) -> str:
    """`nan`, `-nan`, `nan(0x1)`: the sign, and the mantissa unless it is that of the type's quiet NaN."""
    bits = int(one.view(f"u{dtype.itemsize}")[0])
    has_sign = dtype.exponent_bits + dtype.mantissa_bits < dtype.bits
    sign = "-" if has_sign and bits >> (dtype.bits - 1) else ""
    payload = bits & ((1 << dtype.mantissa_bits) - 1)
    quiet = np.array(np.nan, dtype.numpy).view(f"u{dtype.itemsize}")
    standard = int(quiet) & ((1 << dtype.mantissa_bits) - 1)
    return f"{sign}nan" if payload == standard else f"{sign}nan({payload:#x})"
