"""Bounded dynamic dimensions. Arrays hold their live elements only, so a live size is an array's size."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from hloc.errors import HloError
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import UNBOUNDED, ArrayShape
from hloc.reference.context import Context


def set_dimension_size(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """The dimension cut to a size, or grown again up to its bound by zeros."""
    array, size = operands[0], int(operands[1])
    dimension = instruction.get("dimensions")[0]
    bound = instruction.operands[0].shape.dims[dimension]
    if size < 0 or (bound != UNBOUNDED and size > bound):
        raise HloError(
            f"size {size} is not within the bound {bound} of dimension {dimension}", instruction.span
        )
    sizes = [size if d == dimension else whole for d, whole in enumerate(array.shape)]
    return resized(array, sizes)


def get_dimension_size(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    return np.array(operands[0].shape[instruction.get("dimensions")[0]], instruction.shape.dtype.numpy)


def dynamic_reshape(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """The live elements under the sizes that the other operands give, which must be within their bounds."""
    array, sizes = operands[0], [int(size) for size in operands[1:]]
    if any(size < 0 for size in sizes) or prod(sizes) != array.size:
        raise HloError(f"{array.size} live elements do not fill the sizes {sizes}", instruction.span)
    result = array.reshape(sizes)
    if not fits(result, instruction.shape):
        raise HloError(f"the sizes {sizes} are not those of {instruction.shape!r}", instruction.span)
    return result


def resized(array: np.ndarray, sizes: list[int] | tuple[int, ...]) -> np.ndarray:
    """Cut, or filled with zeros at the ends, to the sizes."""
    kept = tuple(slice(0, size) for size in sizes)
    cut = array[kept]
    if cut.shape == tuple(sizes):
        return cut
    result = np.zeros(sizes, array.dtype)
    result[tuple(slice(0, size) for size in cut.shape)] = cut
    return result


def fits(array: np.ndarray, shape: ArrayShape) -> bool:
    """Whether an array's sizes are those of a shape, within the bounds of dynamic dimensions."""
    if array.shape == shape.dims:
        return True
    return array.ndim == shape.rank and all(
        size == dim or (shape.is_dynamic_dim(d) and (dim == UNBOUNDED or size <= dim))
        for d, (size, dim) in enumerate(zip(array.shape, shape.dims))
    )


TABLE: dict[str, Callable] = {
    "dynamic-reshape": dynamic_reshape,
    "get-dimension-size": get_dimension_size,
    "set-dimension-size": set_dimension_size,
}
