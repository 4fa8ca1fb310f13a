"""Values that cross the border of a program: leaves and structures, held against the program's shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hloc.errors import HloError
from hloc.ir.shapes import Shape


def given_leaves(what: str, value: Any, shape: Shape) -> list[np.ndarray]:
    """The arrays in a value that `what` gave, depth first, without what stands for tokens.

    Anything that NumPy makes an array of the right type and size of will do. HloError for all else.
    """
    return list(_leaves(what, value, shape))


def _leaves(what: str, value: Any, shape: Shape) -> Iterator[np.ndarray]:
    if shape.is_tuple:
        if not isinstance(value, tuple | list) or len(value) != len(shape.elements):
            got = f"tuple of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__
            raise HloError(f"{what} gave a {got}, expected {shape!r}")
        for part, element in zip(value, shape.elements, strict=True):
            yield from _leaves(what, part, element)
    elif shape.is_array:
        array = np.asarray(value)
        if array.dtype != shape.dtype.numpy or array.shape != shape.dims:
            raise HloError(f"{what} gave {array.dtype}{list(array.shape)}, expected {shape!r}")
        yield array


def structured(shape: Shape, leaves: Iterator[np.ndarray], token: object = None) -> Any:
    """Array leaves in the structure of a shape: arrays, tuples; `token` for tokens."""
    if shape.is_tuple:
        return tuple(structured(element, leaves, token) for element in shape.elements)
    return next(leaves) if shape.is_array else token
