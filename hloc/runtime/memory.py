"""Memory for results and temporaries: NumPy arrays at 64-byte boundaries."""

from __future__ import annotations

import os
from functools import cache
from math import prod

import numpy as np

from hloc.codegen.program import ALIGNMENT
from hloc.errors import HloError
from hloc.ir.shapes import ArrayShape


def address(array: np.ndarray) -> int:
    """Where the array's first element lies."""
    return array.__array_interface__["data"][0]


def block(size: int, what: str) -> np.ndarray:
    """Uninitialized bytes at a 64-byte boundary. HloError, with the size, if `what` finds no memory."""
    if size > _physical_bytes():
        raise HloError(f"{what} takes {size} bytes, and this machine has {_physical_bytes()} bytes of memory")
    try:
        room = np.empty(size + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError):
        raise HloError(f"{what} takes {size} bytes, which this process cannot have") from None
    start = -address(room) % ALIGNMENT
    return room[start : start + size]


def new_array(shape: ArrayShape, what: str) -> np.ndarray:
    """A fresh array in the shape's layout."""
    order = shape.minor_to_major[::-1]
    dims = tuple(shape.dims[d] for d in order)
    dtype = shape.dtype.numpy
    if 0 in dims:
        return np.empty(shape.dims, dtype)
    dense = block(prod(dims) * dtype.itemsize, what).view(dtype).reshape(dims)
    if order == tuple(range(len(order))):
        return dense
    return dense.transpose([order.index(d) for d in range(len(order))])


class Pool:
    """Blocks of one size, handed out and taken back; safe among threads."""

    def __init__(self, size: int, what: str):
        self.size = size
        self.what = what
        self._free: list[tuple[int, np.ndarray]] = []

    def take(self) -> tuple[int, np.ndarray]:
        """The address of a block that nobody else uses, and what keeps it alive."""
        try:
            return self._free.pop()
        except IndexError:
            fresh = block(self.size, self.what)
            return address(fresh), fresh

    def give(self, used: tuple[int, np.ndarray]) -> None:
        """Takes a block back."""
        self._free.append(used)


@cache
def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
