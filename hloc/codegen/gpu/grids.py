"""Launches of as many threads as there are elements, or of a bounded grid that goes over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.spread import over_elements
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat
from hloc.codegen.routines import i64
from hloc.ir.shapes import ArrayShape

THREADS = 256
"""Threads of a block, where nothing asks for another number."""

_MOST_BLOCKS = 1 << 14
"""Blocks of a grid whose threads go on to further elements."""


def blocks_for(count: int, threads: int = THREADS) -> int:
    """Blocks of so many threads that together have one for each element."""
    return max(1, -(-count // threads))


def each_element(g: GpuStep, shape: ArrayShape, body: Callable[[GpuContext, list[Index]], None], name: str) -> None:
    """A launch in which body(k, indices) runs for all elements of an array, some neighbours in its memory at a time.

    Nothing if there are none.
    """
    if shape.count == 0:
        return
    width = max(1, 16 // shape.dtype.itemsize)
    while width > 1 and shape.count // width < 1 << 16:
        width //= 2
    with g.launch(blocks_for(-(-shape.count // width)), THREADS, name=name) as k:
        over_elements(k, k.global_index(), shape, width, lambda indices: body(k, indices), by_rows=True)


def each_number(g: GpuStep, count: int, body: Callable[[GpuContext, Value], None], name: str) -> None:
    """A launch in which body(k, number) runs for 0 .. count - 1."""
    if count == 0:
        return
    with g.launch(blocks_for(count), THREADS, name=name) as k:
        number = k.global_index()
        with k.b.if_then(k.b.icmp_unsigned("<", number, i64(count))):
            body(k, number)


class GridContext(GpuContext):
    """A kernel whose loop nests are shared among all threads of a grid of one dimension.

    Iterations of one nest, and of different ones, must not meet at a place in memory.
    """

    def __init__(self, k: GpuContext):
        vars(self).update(vars(k))

    def loop_nest(
        self,
        dims: Sequence[int],
        body: Callable[[Index], object],
        order: Sequence[int] | None = None,
        interleave: int = 0,
    ) -> None:
        if 0 in dims:
            return
        order = tuple(range(len(dims))) if order is None else tuple(order)
        sizes = [dims[d] for d in order]
        threads = self.grid[0] * self.block[0]
        index: list[Value] = [i64(0)] * len(dims)
        with self.b.for_loop(self.global_index(), i64(prod(dims)), threads, unroll=False) as position:
            parts = Flat(self.b, position, sizes).parts() if sizes else []
            for dimension, part in zip(order, parts, strict=True):
                index[dimension] = part
            body(tuple(index))

    def copy(self, source: ArrayRef, target: ArrayRef) -> None:
        order = target.shape.minor_to_major[::-1]
        self.loop_nest(target.shape.dims, lambda index: target.store(index, source.load(index)), order)


def grid_for(count: int) -> int:
    """Blocks of a launch for loop nests of at most so many iterations."""
    return min(blocks_for(count), _MOST_BLOCKS)
