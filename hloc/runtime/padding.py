"""Arrays of bounded dynamic shapes: padded to their bounds for native code, then cut to their live sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hloc.codegen.program import buffers
from hloc.ir.shapes import ArrayShape
from hloc.runtime.memory import new_array


def is_within(array: np.ndarray, shape: ArrayShape) -> bool:
    """Whether the array's sizes are those of a shape, or less where a dimension is dynamic."""
    return array.ndim == shape.rank and all(
        size == bound or (shape.is_dynamic_dim(d) and size < bound)
        for d, (size, bound) in enumerate(zip(array.shape, shape.dims, strict=True))
    )


def padded(arrays: Sequence[np.ndarray], shapes: Sequence[ArrayShape]) -> list[np.ndarray]:
    """The `buffers` of each array: itself, or a copy with zeros behind the live elements, and its sizes."""
    given = []
    for array, shape in zip(arrays, shapes, strict=True):
        if not shape.is_dynamic:
            given.append(array)
            continue
        room = new_array(buffers(shape)[0], "an argument")
        room[...] = np.zeros((), array.dtype)
        room[tuple(map(slice, array.shape))] = array
        sizes = [size for d, size in enumerate(array.shape) if shape.is_dynamic_dim(d)]
        given += [room, *(np.array(size, np.int32) for size in sizes)]
    return given


def live(results: Sequence[np.ndarray], shapes: Sequence[ArrayShape]) -> list[np.ndarray]:
    """The arrays in the `buffers` of results, with their live elements only."""
    rest = iter(results)
    found = []
    for shape in shapes:
        array = next(rest)
        if shape.is_dynamic:
            sizes = list(shape.dims)
            for dimension, moves in enumerate(shape.dynamic):
                if moves:
                    sizes[dimension] = int(next(rest))
            if tuple(sizes) != array.shape:
                array = array[tuple(map(slice, sizes))].copy(order="K")
        found.append(array)
    return found
