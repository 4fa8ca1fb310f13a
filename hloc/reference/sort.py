"""Sorting along a dimension by any comparator, and the greatest elements.

A comparator that compares one function of its left and of its right parameters is sorted by that function's
values as keys. Any other is asked: runs are merged in pairs, all at once, each element finding its place in
the other run by binary search. Both ways are stable, so a sort that needn't be stable is so too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hloc.analysis.comparators import sort_key
from hloc.ir.computation import Computation
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.reference.context import Context
from hloc.reference.elementwise import total_order_key
from hloc.reference.values import Value, common_sizes, widen


def sort(instruction: Instruction, operands: list[np.ndarray], context: Context) -> Value:
    axis, comparator = instruction.get("dimensions")[0], instruction.get("to_apply")
    arrays = [np.moveaxis(array, axis, -1) for array in common_sizes(instruction, operands)]
    keys = _keys(comparator, arrays, context)
    order = (
        _merge_sort(comparator, arrays, context) if keys is None else np.argsort(keys, axis=-1, kind="stable")
    )
    results = [np.moveaxis(np.take_along_axis(array, order, axis=-1), -1, axis) for array in arrays]
    return tuple(results) if instruction.shape.is_tuple else results[0]


def _keys(comparator: Computation, arrays: list[np.ndarray], context: Context) -> np.ndarray | None:
    """Integers in the comparator's order, if it compares one function of either side; else None."""
    key = sort_key(comparator)
    if key is None:
        return None
    both = [array for array in arrays for _ in range(2)]
    keys = _ascending(context.lift(comparator, both, key.value), key.value.shape.dtype, key.total)
    return ~keys if key.descending else keys


def _ascending(values: np.ndarray, dtype: DType, total: bool) -> np.ndarray:
    if dtype.is_float and not total:
        values = (widen(values, dtype) + 0).astype(dtype.numpy)  # zeros are equal: -0 + 0 is 0
    return total_order_key(values, dtype)


def _merge_sort(comparator: Computation, arrays: list[np.ndarray], context: Context) -> np.ndarray:
    """The stable order along the last axis, by merging runs of 1, 2, 4, ..."""
    shape = arrays[0].shape
    count = shape[-1]
    order = np.broadcast_to(np.arange(count), shape)
    width = 1
    while width < count:
        places = _merged_places(comparator, arrays, width, context)
        inverse = np.argsort(places, axis=-1)
        arrays = [np.take_along_axis(array, inverse, axis=-1) for array in arrays]
        order = np.take_along_axis(order, inverse, axis=-1)
        width *= 2
    return order


def _merged_places(
    comparator: Computation, arrays: list[np.ndarray], width: int, context: Context
) -> np.ndarray:
    """Where each element goes when runs of `width` are merged in pairs.

    An element of the first run goes behind those of the second that come before it; one of the second goes
    behind all of the first that it doesn't come before.
    """
    count = arrays[0].shape[-1]
    place = np.arange(count)
    block = place - place % (2 * width)
    in_first = place - block < width
    other = np.where(in_first, block + width, block)
    length = np.clip(count - other, 0, width)
    low = np.zeros(arrays[0].shape, np.int64)
    high = np.broadcast_to(length, arrays[0].shape).copy()
    while (low < high).any():
        middle = (low + high) // 2
        probe = np.minimum(other + middle, count - 1)
        probed = [np.take_along_axis(array, probe, axis=-1) for array in arrays]
        sides = [
            s for a, p in zip(arrays, probed) for s in (np.where(in_first, p, a), np.where(in_first, a, p))
        ]
        beyond = context.lift(comparator, sides) == in_first
        searching = low < high
        low = np.where(searching & beyond, middle + 1, low)
        high = np.where(searching & ~beyond, middle, high)
    own = place - np.where(in_first, block, block + width)
    return block + own + low


def greatest(
    array: np.ndarray, dtype: DType, count: int, largest: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(values, indices) of the greatest or least along the last axis, equal ones by index (X22)."""
    keys = total_order_key(array, dtype)
    order = np.argsort(~keys if largest else keys, axis=-1, kind="stable")[..., :count]
    return np.take_along_axis(array, order, axis=-1), order


def topk(instruction: Instruction, operands: list[np.ndarray], context: Context) -> tuple:
    dtype = instruction.operands[0].shape.dtype
    values, order = greatest(operands[0], dtype, instruction.get("k"), instruction.get("largest"))
    return values, order.astype(instruction.shape.elements[1].dtype.numpy)


TABLE: dict[str, Callable] = {
    "sort": sort,
    "topk": topk,
}
