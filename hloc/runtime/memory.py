"""Memory for results and temporaries: NumPy arrays at 64-byte boundaries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

import numpy as np

from hloc.codegen.program import ALIGNMENT, Program
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
    if 0 in shape.dims:
        return np.empty(shape.dims, shape.dtype.numpy)
    return laid_out(block(shape.byte_size, what), shape)


def laid_out(block: np.ndarray, shape: ArrayShape) -> np.ndarray:
    """The array in the shape's layout that lies in a block of its bytes."""
    order = shape.minor_to_major[::-1]
    dense = block.view(shape.dtype.numpy).reshape([shape.dims[d] for d in order])
    return dense.transpose([order.index(d) for d in range(len(order))])


class Memory:
    """What the runs of a program lie in. Runs may be at work at once.

    `constants` is the address of the program's constants.
    """

    def __init__(self, program: Program):
        self._arenas = Pool(program.arena_bytes, f"the working memory of {program.name}")
        self.constants = address(program.constants)

    def take_arena(self) -> tuple[int, object]:
        """The address of working memory for one run, and what keeps it alive."""
        return self._arenas.take()

    def give_arena(self, used: tuple[int, object]) -> None:
        """Takes a run's working memory back."""
        self._arenas.give(used)

    def arguments(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The arrays where a run may read them."""
        return arrays

    def results(self, shapes: Sequence[ArrayShape]) -> list[np.ndarray]:
        """Room for the results of a run."""
        return [new_array(shape, "a result") for shape in shapes]

    def finished(self, results: list[np.ndarray]) -> list[np.ndarray]:
        """The results of a run, for the caller to keep."""
        return results


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
