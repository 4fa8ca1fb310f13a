"""Sums of products: dot, scaled-dot, ragged-dot.

Floats are multiplied and added in f64 (c128) and rounded once, to integers, or to the real part, as `convert` does;
integers wrap in the result's type.
`algorithm` and `operand_precision` say how much accuracy may be given up, and nothing is given up here.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from hloc.errors import HloError
from hloc.ir.dtypes import F64, DType
from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.convert import convert_array
from hloc.reference.values import narrow, widest

Dims = tuple[int, ...]


def product_type(source: DType, other: DType, result: DType) -> np.dtype:
    """The NumPy type in which products are formed and added up (see _EXACT_TERMS for integers)."""
    if result.is_complex or source.is_complex or other.is_complex:
        return np.dtype(np.complex128)
    if result.is_float:
        return np.dtype(np.float64)
    if result.kind == "predicate":
        return np.dtype(bool)
    if source.is_float or other.is_float or max(source.bits, other.bits) <= 16:
        return np.dtype(np.float64)
    return np.dtype(np.int64 if result.is_signed else np.uint64)


# Matrix products of f64 are fast, and this many products of 16-bit integers stay within its 53 exact bits.
_EXACT_TERMS = 1 << 20


def matrix_product(
    left: np.ndarray, right: np.ndarray, sources: tuple[DType, DType], result: DType
) -> np.ndarray:
    """left[..., i, k] times right[..., k, j], rounded or wrapped to the result's type."""
    kind = product_type(*sources, result)
    wraps = result.is_integer and not any(source.is_float or source.is_complex for source in sources)
    if wraps and left.shape[-1] > _EXACT_TERMS:
        kind = np.dtype(np.int64)
    a, b = (widest(x, source).astype(kind) for x, source in zip((left, right), sources))
    total = np.matmul(a, b)
    return summed_up(total.astype(np.int64) if wraps and kind == np.float64 else total, result)


def summed_up(total: np.ndarray, result: DType) -> np.ndarray:
    """A sum of products in the type of the result."""
    if total.dtype == np.complex128 and not result.is_complex:
        total = total.real
    if result.is_integer and total.dtype == np.float64:
        return convert_array(total, F64, result)
    return narrow(total, result)


def general_dot(
    operands: tuple[np.ndarray, np.ndarray],
    batch: tuple[Dims, Dims],
    contracting: tuple[Dims, Dims],
    sources: tuple[DType, DType],
    result: DType,
) -> np.ndarray:
    """Dimensions of the result: batch, the free ones of the left operand, those of the right."""
    left, right = operands
    free = [
        tuple(d for d in range(x.ndim) if d not in shared and d not in summed)
        for x, shared, summed in zip(operands, batch, contracting)
    ]
    pairs = [(*batch[side], *contracting[side]) for side in range(2)]
    common = [min(left.shape[i], right.shape[j]) for i, j in zip(*pairs)]
    left, right = _cut(left, pairs[0], common), _cut(right, pairs[1], common)
    terms = common[len(batch[0]) :]
    shared = tuple(left.shape[d] for d in batch[0])
    rows, columns = ([x.shape[d] for d in dims] for x, dims in zip((left, right), free))
    a = left.transpose([*batch[0], *free[0], *contracting[0]]).reshape((*shared, prod(rows), prod(terms)))
    b = right.transpose([*batch[1], *contracting[1], *free[1]]).reshape((*shared, prod(terms), prod(columns)))
    return matrix_product(a, b, sources, result).reshape((*shared, *rows, *columns))


def _cut(array: np.ndarray, dimensions: Dims, sizes: list[int]) -> np.ndarray:
    """Live sizes of dimensions that go together may differ: the lesser counts."""
    if all(array.shape[d] == size for d, size in zip(dimensions, sizes)):
        return array
    limits = dict(zip(dimensions, sizes))
    return array[tuple(slice(0, limits.get(d, array.shape[d])) for d in range(array.ndim))]


def _numbers(instruction: Instruction) -> tuple[tuple[Dims, Dims], tuple[Dims, Dims]]:
    get = instruction.get
    return (
        (get("lhs_batch_dims"), get("rhs_batch_dims")),
        (get("lhs_contracting_dims"), get("rhs_contracting_dims")),
    )


def dot(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    batch, contracting = _numbers(instruction)
    sources = (instruction.operands[0].shape.dtype, instruction.operands[1].shape.dtype)
    return general_dot((operands[0], operands[1]), batch, contracting, sources, instruction.shape.dtype)


def scaled_dot(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """Every scale counts for the block of elements that share it."""
    scaled = [
        _scale(
            operands[i],
            operands[i + 2],
            instruction.operands[i].shape.dtype,
            instruction.operands[i + 2].shape.dtype,
        )
        for i in range(2)
    ]
    batch, contracting = _numbers(instruction)
    return general_dot((scaled[0], scaled[1]), batch, contracting, (F64, F64), instruction.shape.dtype)


def _scale(array: np.ndarray, scale: np.ndarray, dtype: DType, scale_dtype: DType) -> np.ndarray:
    wide = widest(array, dtype)
    factors = scale.astype(np.float64)
    if factors.ndim != wide.ndim:
        return wide * factors
    for axis, (size, blocks) in enumerate(zip(wide.shape, factors.shape)):
        factors = np.repeat(factors, -(-size // max(1, blocks)), axis=axis).take(np.arange(size), axis=axis)
    return wide * factors


def ragged_dot(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """A dot for every group of consecutive places of the ragged dimension; group sizes are the third operand.

    The ragged dimension may be free (the right operand has a matrix a group), contracting (the result has one
    a group, in front) or a batch dimension (groups then change nothing). Places beyond the last group give
    zeros.
    """
    left, right, sizes = operands
    batch, contracting = _numbers(instruction)
    ragged = instruction.get("lhs_ragged_dims")[0]
    sources = (instruction.operands[0].shape.dtype, instruction.operands[1].shape.dtype)
    result = instruction.shape.dtype
    if ragged in batch[0]:
        return general_dot((left, right), batch, contracting, sources, result)
    if sizes.ndim != 1:
        raise HloError(f"ragged-dot with group sizes of rank {sizes.ndim} is not supported", instruction.span)
    ends = np.minimum(np.cumsum(sizes.astype(np.int64)), left.shape[ragged])
    parts = [slice(int(start), int(end)) for start, end in zip(np.r_[0, ends[:-1]], ends)]
    if ragged in contracting[0]:
        partner = contracting[1][contracting[0].index(ragged)]
        groups = [(_part(left, ragged, part), _part(right, partner, part)) for part in parts]
        return np.stack([general_dot(pair, batch, contracting, sources, result) for pair in groups])
    return _ragged_rows(instruction, left, right, parts, sources)


def _ragged_rows(
    instruction: Instruction,
    left: np.ndarray,
    right: np.ndarray,
    parts: list[slice],
    sources: tuple[DType, DType],
) -> np.ndarray:
    batch, contracting = _numbers(instruction)
    ragged, group = instruction.get("lhs_ragged_dims")[0], instruction.get("rhs_group_dims")[0]
    # Dimensions of one group's matrix are numbered without the group dimension.
    lower = tuple(tuple(d - (d > group) for d in dims) for dims in (batch[1], contracting[1]))
    free = [d for d in range(left.ndim) if d not in batch[0] and d not in contracting[0]]
    axis = len(batch[0]) + free.index(ragged)
    outputs = [
        general_dot(
            (_part(left, ragged, part), np.take(right, i, axis=group)),
            (batch[0], lower[0]),
            (contracting[0], lower[1]),
            sources,
            instruction.shape.dtype,
        )
        for i, part in enumerate(parts)
    ]
    joined = np.concatenate(outputs, axis=axis)
    missing = left.shape[ragged] - joined.shape[axis]
    padding = [(0, missing if d == axis else 0) for d in range(joined.ndim)]
    return np.pad(joined, padding) if missing else joined


def _part(array: np.ndarray, axis: int, part: slice) -> np.ndarray:
    return array[(slice(None),) * axis + (part,)]


TABLE: dict[str, Callable] = {
    "dot": dot,
    "ragged-dot": ragged_dot,
    "scaled-dot": scaled_dot,
}
