"""Memory for results and temporaries: NumPy arrays at 64-byte boundaries."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

import numpy as np

from hloc.codegen.program import ALIGNMENT, Program
from hloc.errors import HloError
from hloc.ir.shapes import ArrayShape

_POOLED_BYTES = 1 << 17
"""What the C library may take from the system anew each time; below, asking the pool from Python takes longer."""


def address(array: np.ndarray) -> int:
    """Where the array's first element lies."""
    return array.__array_interface__["data"][0]


def _no_pool(size: int) -> None:
    return None


_source: Callable[[int], np.ndarray | None] = _no_pool


def draw_from(source: Callable[[int], np.ndarray | None]) -> None:
    """From now on large blocks come from a pool: `source(size)` gives bytes at a 64-byte boundary, or None."""
    global _source
    _source = source


def block(size: int, what: str) -> np.ndarray:
    """Uninitialized bytes at a 64-byte boundary. HloError, with the size, if `what` finds no memory."""
    if size > physical_bytes():
        raise HloError(f"{what} takes {size} bytes, and this machine has {physical_bytes()} bytes of memory")
    pooled = _source(size) if size >= _POOLED_BYTES else None
    if pooled is not None:
        return pooled
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
        self._arena_bytes = program.arena_bytes
        self._arena_name = f"the working memory of {program.name}"
        self.constants = address(program.constants)

    def take_arena(self) -> tuple[int, object]:
        """The address of working memory for one run, and what keeps it alive."""
        arena = block(self._arena_bytes, self._arena_name)
        return address(arena), arena

    def give_arena(self, used: tuple[int, object]) -> None:
        """Takes a run's working memory back: it goes where it came from when the last reference does."""

    def arguments(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The arrays where a run may read them."""
        return arrays

    def results(self, shapes: Sequence[ArrayShape]) -> list[np.ndarray]:
        """Room for the results of a run."""
        return [new_array(shape, "a result") for shape in shapes]

    def finished(self, results: list[np.ndarray]) -> list[np.ndarray]:
        """The results of a run, for the caller to keep."""
        return results


@cache
def physical_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int:
    """What this process may have of it: a container may have less than the machine."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError), open(file, encoding="ascii") as limit:
            return min(physical_bytes(), int(limit.read()))
    return physical_bytes()
