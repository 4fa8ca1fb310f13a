"""Reading and writing at computed places: dynamic-slice, dynamic-update-slice, gather, scatter.

Gather and scatter see the array as rows: the dimensions of which a window takes everything make up a row, the
others (the indexed ones) number the rows. So both come down to lists of row numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from hloc.ir.computation import Computation
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.reducers import as_list, is_assignment, known_operation
from hloc.reference.values import Value, flush


def _starts(operands: list[np.ndarray], room: list[int]) -> list[int]:
    """Start indices (scalars, or one vector), clamped so that the part fits (X18)."""
    if len(operands) == 1 and operands[0].ndim == 1:
        operands = list(operands[0])
    return [min(max(int(index), 0), most) for index, most in zip(operands, room, strict=True)]


def dynamic_slice(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    array, sizes = operands[0], instruction.get("dynamic_slice_sizes")
    starts = _starts(operands[1:], [max(0, whole - size) for whole, size in zip(array.shape, sizes)])
    return array[tuple(slice(start, start + size) for start, size in zip(starts, sizes))]


def dynamic_update_slice(
    instruction: Instruction, operands: list[np.ndarray], context: Context
) -> np.ndarray:
    array, update = operands[0], operands[1]
    starts = _starts(operands[2:], [whole - size for whole, size in zip(array.shape, update.shape)])
    result = array.copy()
    result[tuple(slice(start, start + size) for start, size in zip(starts, update.shape))] = update
    return result


def _index_vectors(indices: np.ndarray, vector_dim: int) -> np.ndarray:
    """The start indices as s64, the index vector last; u64 beyond s64 is out of range as well."""
    if indices.dtype == np.uint64:
        indices = np.minimum(indices, np.uint64(np.iinfo(np.int64).max // 2))
    indices = indices.astype(np.int64)
    return indices[..., None] if vector_dim == indices.ndim else np.moveaxis(indices, vector_dim, -1)


def _batch_starts(
    vectors: np.ndarray,
    rank: int,
    start_map: tuple[int, ...],
    batching: tuple[int, ...],
    index_batching: tuple[int, ...],
    vector_dim: int,
) -> np.ndarray:
    """For every index vector, the start in each dimension of the array: shape (batch..., rank)."""
    batch = vectors.shape[:-1]
    starts = np.zeros((*batch, rank), np.int64)
    for place, dimension in enumerate(start_map):
        starts[..., dimension] = vectors[..., place]
    for dimension, source in zip(batching, index_batching, strict=True):
        axis = source - (source > vector_dim)
        along = [-1 if i == axis else 1 for i in range(len(batch))]
        starts[..., dimension] = np.arange(batch[axis]).reshape(along)
    return starts


def _row_numbers(
    starts: np.ndarray, indexed: list[int], shape: tuple[int, ...], sizes: tuple[int, ...]
) -> np.ndarray:
    """Numbers of the rows that windows touch: shape (..., window size of each indexed dimension)."""
    numbers = np.zeros((*starts.shape[:-1], *(1 for _ in indexed)), np.int64)
    for place, dimension in enumerate(indexed):
        along = [-1 if i == place else 1 for i in range(len(indexed))]
        start = starts[..., dimension].reshape((*starts.shape[:-1], *(1 for _ in indexed)))
        numbers = numbers * shape[dimension] + start + np.arange(sizes[dimension]).reshape(along)
    return np.broadcast_to(numbers, (*starts.shape[:-1], *(sizes[dimension] for dimension in indexed)))


def _split_dimensions(shape: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """(indexed dimensions, dimensions that lie whole in every window)."""
    whole = [d for d, (size, taken) in enumerate(zip(shape, sizes)) if size == taken]
    return [d for d in range(len(shape)) if d not in whole], whole


def gather(instruction: Instruction, operands: list[np.ndarray], context: Context) -> np.ndarray:
    """A slice for every index vector, its start clamped so that it fits (X18)."""
    array = operands[0]
    sizes = tuple(min(size, whole) for size, whole in zip(instruction.get("slice_sizes"), array.shape))
    if array.size == 0:
        # Slices without elements still show where their dimensions are dropped; XLA gives zeros there.
        zeros = np.zeros(_gathered_dims(instruction, sizes, operands[1].shape), np.float32)
        return zeros.astype(array.dtype)
    vector_dim, batching = instruction.get("index_vector_dim"), instruction.get("operand_batching_dims")
    starts = _batch_starts(
        _index_vectors(operands[1], vector_dim),
        array.ndim,
        instruction.get("start_index_map"),
        batching,
        instruction.get("start_indices_batching_dims"),
        vector_dim,
    )
    starts = np.clip(starts, 0, np.array(array.shape, np.int64) - np.array(sizes, np.int64))
    indexed, whole = _split_dimensions(array.shape, sizes)
    rows = array.transpose(indexed + whole).reshape(
        (prod(array.shape[d] for d in indexed), *(array.shape[d] for d in whole))
    )
    taken = np.take(rows, _row_numbers(starts, indexed, array.shape, sizes), axis=0)
    return _place_offsets(instruction, taken, starts.ndim - 1, indexed + whole, batching)


def _gathered_dims(
    instruction: Instruction, sizes: tuple[int, ...], indices: tuple[int, ...]
) -> list[int]:
    dropped = {*instruction.get("collapsed_slice_dims"), *instruction.get("operand_batching_dims")}
    window = iter([size for d, size in enumerate(sizes) if d not in dropped])
    batch = iter([size for d, size in enumerate(indices) if d != instruction.get("index_vector_dim")])
    offsets = instruction.get("offset_dims")
    return [next(window) if d in offsets else next(batch) for d in range(instruction.shape.rank)]


def _place_offsets(
    instruction: Instruction, taken: np.ndarray, batch_rank: int, order: list[int], batching: tuple[int, ...]
) -> np.ndarray:
    """From dimensions (batch..., window in the order given) to those of the result."""
    dropped = {*instruction.get("collapsed_slice_dims"), *batching}
    axis_of = {dimension: batch_rank + place for place, dimension in enumerate(order)}
    taken = taken.squeeze(axis=tuple(axis_of[d] for d in sorted(dropped)))
    kept = [d for d in order if d not in dropped]
    axis_of = {dimension: batch_rank + place for place, dimension in enumerate(kept)}
    window, batch = iter(sorted(kept)), iter(range(batch_rank))
    offsets = instruction.get("offset_dims")
    return taken.transpose(
        [axis_of[next(window)] if d in offsets else next(batch) for d in range(taken.ndim)]
    )


def scatter(instruction: Instruction, operands: list[np.ndarray], context: Context) -> Value:
    """Updates folded in, one after the other; one whose window doesn't fit is dropped whole (X19)."""
    count = len(operands) // 2
    arrays, indices, updates = operands[:count], operands[count], operands[count + 1 :]
    shape, vector_dim = arrays[0].shape, instruction.get("index_vector_dim")
    starts = _batch_starts(
        _index_vectors(indices, vector_dim),
        len(shape),
        instruction.get("scatter_dims_to_operand_dims"),
        instruction.get("input_batching_dims"),
        instruction.get("scatter_indices_batching_dims"),
        vector_dim,
    )
    starts = starts.reshape((prod(starts.shape[:-1]), len(shape)))
    sizes = _window_sizes(instruction, len(shape), updates[0].shape)
    fits = ((starts >= 0) & (starts <= np.array(shape, np.int64) - np.array(sizes, np.int64))).all(axis=-1)
    indexed, whole = _split_dimensions(shape, sizes)
    order = indexed + whole
    numbers = _row_numbers(starts[fits], indexed, shape, sizes).reshape(-1)
    row = tuple(shape[d] for d in whole)
    rows = [array.transpose(order).reshape((prod(shape[d] for d in indexed), *row)) for array in arrays]
    new = [
        _windows(instruction, update, sizes, order)[fits].reshape((numbers.size, *row)) for update in updates
    ]
    dtype = instruction.operands[0].shape.dtype
    results = update_elements(instruction.get("to_apply"), rows, numbers, new, dtype, context)
    back = [r.reshape([shape[d] for d in order]).transpose(np.argsort(order)) for r in results]
    return tuple(back) if instruction.shape.is_tuple else back[0]


def _window_sizes(instruction: Instruction, rank: int, update_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements of a window in each dimension of the array."""
    single = {*instruction.get("inserted_window_dims"), *instruction.get("input_batching_dims")}
    window = iter(instruction.get("update_window_dims"))
    return tuple(1 if d in single else update_shape[next(window)] for d in range(rank))


def _windows(
    instruction: Instruction, update: np.ndarray, sizes: tuple[int, ...], order: list[int]
) -> np.ndarray:
    """The updates as (index vectors, window dimensions in the order given)."""
    window = instruction.get("update_window_dims")
    batch = [d for d in range(update.ndim) if d not in window]
    count = prod(update.shape[d] for d in batch)
    flat = update.transpose([*batch, *window]).reshape((count, *sizes))
    return flat.transpose([0, *(1 + d for d in order)])


def update_elements(
    computation: Computation,
    arrays: list[np.ndarray],
    numbers: np.ndarray,
    updates: list[np.ndarray],
    dtype: DType,
    context: Context,
) -> list[np.ndarray]:
    """Rows `numbers[i]` of every array become computation(rows..., updates[i]...), for i in order.

    Updates of one row follow each other; those of different rows don't touch, so each round takes one update
    of every row that has any left.
    """
    results = [np.array(array) for array in arrays]
    if len(arrays) == 1 and is_assignment(computation):
        last = _last_of_each(numbers)
        results[0][numbers[last]] = updates[0][last]
        return results
    ufunc = _AT.get(known_operation(computation) or "")
    if len(arrays) == 1 and ufunc is not None and updates[0].ndim == 1 and dtype.name in _AT_TYPES[ufunc]:
        results[0] = np.array(flush(results[0]))
        ufunc.at(results[0], numbers, flush(updates[0]))
        return [flush(results[0])]
    for chosen in _rounds(numbers):
        rows = numbers[chosen]
        new = as_list(context.lift(computation, [*(r[rows] for r in results), *(u[chosen] for u in updates)]))
        for result, value in zip(results, new):
            result[rows] = value
    return results


# Folding in place, one update after the other, is what ufunc.at does; for the types where it is also fast.
_AT = {"add": np.add, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum}
_INTEGERS = ("s8", "s16", "s32", "s64", "u8", "u16", "u32", "u64")
_AT_TYPES = {np.maximum: _INTEGERS, np.minimum: _INTEGERS}
_AT_TYPES |= dict.fromkeys((np.add, np.multiply), (*_INTEGERS, "f32", "f64"))


def _last_of_each(numbers: np.ndarray) -> np.ndarray:
    """Positions of the last occurrence of every number."""
    _, first = np.unique(numbers[::-1], return_index=True)
    return numbers.size - 1 - first


def _rounds(numbers: np.ndarray) -> list[np.ndarray]:
    """Positions in groups: first occurrences of every number, second ones, and so on."""
    order = np.argsort(numbers, kind="stable")
    ranked = numbers[order]
    begins = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if ranked.size else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[begins, ranked.size])
    occurrence = np.arange(ranked.size) - np.repeat(begins, lengths)
    by_round = np.argsort(occurrence, kind="stable")
    counts = np.bincount(occurrence) if ranked.size else np.zeros(0, np.int64)
    return np.split(order[by_round], np.cumsum(counts)[:-1]) if ranked.size else []


TABLE: dict[str, Callable] = {
    "dynamic-slice": dynamic_slice,
    "dynamic-update-slice": dynamic_update_slice,
    "gather": gather,
    "scatter": scatter,
}
