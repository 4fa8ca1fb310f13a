"""Windows that slide over an array: reduce-window and select-and-scatter.

A window position covers, in each dimension, `size` places `window_dilation` apart of the base, whose elements
lie `base_dilation` apart behind `pad_low` places. Places without an element take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hloc.ir.attributes import Window, WindowDim
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.indexing import update_elements
from hloc.reference.reducers import as_list, combine, identity, known_operation
from hloc.reference.values import Value, common_sizes, narrow, widen, widest

ONE = WindowDim(1)


def window_dims(window: Window | None, rank: int) -> tuple[WindowDim, ...]:
    """The window, or one element a dimension where none is written."""
    return window.dims if window is not None and window.dims else (ONE,) * rank


def reduce_window(instruction: Instruction, operands: list[np.ndarray], context: Context) -> Value:
    """Every window folded, its elements in row-major order."""
    half = len(operands) // 2
    arrays, initial = common_sizes(instruction, operands[:half]), operands[half:]
    dims, computation = window_dims(instruction.get("window"), arrays[0].ndim), instruction.get("to_apply")
    operation = known_operation(computation)
    if half == 1 and operation is not None:
        return _known(operation, arrays[0], initial[0], dims, instruction.operands[0].shape.dtype)
    sizes = [dim.output_size(size) for dim, size in zip(dims, arrays[0].shape)]
    accumulators = [np.broadcast_to(value, sizes) for value in initial]
    for places, valid in _offsets(dims, arrays[0].shape):
        elements = [array[places] for array in arrays]
        folded = as_list(context.lift(computation, [*accumulators, *elements]))
        accumulators = [np.where(valid, new, old) for new, old in zip(folded, accumulators)]
    return tuple(accumulators) if instruction.shape.is_tuple else accumulators[0]


def _places(dim: WindowDim, size: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """For every position of one dimension: the index that an offset falls on, and whether it does."""
    start = np.arange(dim.output_size(size)) * dim.stride - dim.pad_low + offset * dim.window_dilation
    index, between = np.divmod(start, dim.base_dilation)
    valid = (between == 0) & (index >= 0) & (index < size)
    return np.where(valid, index, 0), valid


def _offsets(
    dims: tuple[WindowDim, ...], shape: tuple[int, ...]
) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
    """For every offset in the window, in row-major order: an index of the array, and where it holds."""
    if 0 in shape:
        return
    tables = [[_places(dim, size, offset) for offset in range(dim.size)] for dim, size in zip(dims, shape)]
    for offsets in np.ndindex(*(dim.size for dim in dims)):
        chosen = [table[offset] for table, offset in zip(tables, offsets)]
        places = np.ix_(*(index for index, _ in chosen)) if chosen else ()
        valid = np.ones((), bool)
        for mask in np.ix_(*(mask.astype(np.int8) for _, mask in chosen)) if chosen else ():
            valid = valid & (mask != 0)
        yield places, valid


def _known(
    operation: str, array: np.ndarray, initial: np.ndarray, dims: tuple[WindowDim, ...], dtype: DType
) -> np.ndarray:
    """A known operation folds one dimension after the other, and window sizes by doubling."""
    wide = widest(array, dtype) if operation == "add" else widen(array, dtype)
    fill = np.asarray(identity(operation, wide.dtype))
    for axis, dim in enumerate(dims):
        if dim != ONE:
            wide = _fold_dimension(operation, _spread(wide, axis, dim, fill), axis, dim)
    return narrow(combine(operation, wide, initial.astype(wide.dtype)), dtype)


def _spread(array: np.ndarray, axis: int, dim: WindowDim, fill: np.ndarray) -> np.ndarray:
    """The array with padding and base dilation of one dimension filled in."""
    size = array.shape[axis]
    dilated = (size - 1) * dim.base_dilation + 1 if size else 0
    place = np.arange(max(0, dilated + dim.pad_low + dim.pad_high)) - dim.pad_low
    valid = (place >= 0) & (place < dilated) & (place % dim.base_dilation == 0)
    if not size:
        return np.broadcast_to(fill, (*array.shape[:axis], place.size, *array.shape[axis + 1 :]))
    taken = np.take(array, np.where(valid, place // dim.base_dilation, 0), axis=axis)
    along = [-1 if i == axis else 1 for i in range(array.ndim)]
    return np.where(valid.reshape(along), taken, fill)


def _fold_dimension(operation: str, array: np.ndarray, axis: int, dim: WindowDim) -> np.ndarray:
    """Sliding windows of one axis: sizes of powers of two by doubling, the window by its digits."""
    array = np.moveaxis(array, axis, 0)
    count = array.shape[0] - dim.dilated_size + 1
    total, covered, block, size = None, 0, array, 1
    while size <= dim.size:
        if dim.size & size:
            start = covered * dim.window_dilation
            part = block[start : start + max(0, count)]
            total = part if total is None else combine(operation, total, part)
            covered += size
        step = size * dim.window_dilation
        size *= 2
        if size <= dim.size:
            block = combine(operation, block[: max(0, block.shape[0] - step)], block[step:])
    if total is None:
        total = np.broadcast_to(identity(operation, array.dtype), (max(0, count), *array.shape[1:]))
    return np.moveaxis(total[:: dim.stride], 0, axis)


def select_and_scatter(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """The element that `select` keeps of each window (the first while it holds) takes its source."""
    array, source, initial = operands
    dims = window_dims(instruction.get("window"), array.ndim)
    strides = np.array([int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)])
    best = np.zeros(source.shape, array.dtype)
    where = np.full(source.shape, -1, np.int64)
    for places, valid in _offsets(dims, array.shape):
        candidate = array[places]
        flat = sum((index * int(stride) for index, stride in zip(places, strides)), np.zeros((), np.int64))
        kept = context.lift(instruction.get("select"), [best, candidate])
        takes = valid & ((where < 0) | ~kept)
        best, where = np.where(takes, candidate, best), np.where(takes, flat, where)
    target = np.broadcast_to(initial, array.shape).reshape(-1)
    hit = where.reshape(-1) >= 0
    updates = source.reshape(-1)[hit]
    (result,) = update_elements(
        instruction.get("scatter"),
        [target],
        where.reshape(-1)[hit],
        [updates],
        instruction.shape.dtype,
        context,
    )
    return result.reshape(array.shape)


TABLE: dict[str, Callable] = {
    "reduce-window": reduce_window,
    "select-and-scatter": select_and_scatter,
}
