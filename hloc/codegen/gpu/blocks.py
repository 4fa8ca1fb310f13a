"""What the threads of a block do together in several kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register, flattened, grouped
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.llvm import Builder, Value, integer
from hloc.codegen.loops import delinearize
from hloc.codegen.matrices import add, multiply
from hloc.codegen.routines import i64
from hloc.ir.dtypes import DType
from hloc.ir.shapes import ArrayShape

THREADS = 256
"""Threads of a block that works on matrices."""

SHARED = 48 * 1024
"""Bytes of shared memory that a block may have on every machine."""

TILE = 64
"""Lines and columns of a block's tile in `tile_product`, by 256 threads."""

_STEP = 16
"""Threads along each side of a tile."""


@contextmanager
def each_of_block(k: GpuContext, count: Value | int) -> Iterator[Value]:
    """The numbers below `count`, spread over the threads of a block of one dimension."""
    with k.b.for_loop(k.thread_index(), count, k.block[0], unroll=False) as number:
        yield number


def shared_matrix(k: GpuContext, dtype: DType, rows: int, columns: int, offset: int = 0) -> ArrayRef:
    """A matrix in shared memory, rows an odd number of elements apart, so that columns are spread over banks."""
    return ArrayRef(k.b, ArrayShape(dtype, (rows, columns | 1)), k.gpu.shared(offset))


def shared_bytes(dtype: DType, rows: int, columns: int) -> int:
    """Bytes of a `shared_matrix`, in whole 16."""
    return -(-rows * (columns | 1) * dtype.itemsize // 16) * 16


def in_scratch(k: GpuContext, dtype: DType, dims: Sequence[int], offset: int = 0) -> ArrayRef:
    """An array of the kernel's own in temporary memory, some bytes behind its beginning."""
    return ArrayRef(k.b, ArrayShape(dtype, tuple(dims)), k.b.gep("i8", k.scratch, i64(offset)))


def panel_width(dtype: DType) -> int:
    """Columns of a panel of a large matrix: the tiles of a `tile_product` of so many steps fit into shared memory."""
    return 32 if dtype.itemsize <= 8 else 16


def tile_bytes(dtype: DType, depth: int) -> int:
    """Shared memory for a `tile_product`."""
    return 2 * shared_bytes(dtype, depth, TILE)


def tile_product(
    k: GpuContext,
    dtype: DType,
    depth: int,
    sides: tuple[Callable[[Value, Value], Register], Callable[[Value, Value], Register]],
    steps_adjacent: tuple[bool, bool],
    store: Callable[[Value, Value, Register], None],
) -> None:
    """store(line, column, sum over s < depth of left(line, s) * right(column, s)) for a tile of TILE x TILE.

    By the 256 threads of a block, through shared memory. `sides` give elements of both operands, zero outside of
    them; `steps_adjacent` says of each whether steps are neighbours in memory, or lines.
    """
    b = k.b
    halves = [shared_matrix(k, dtype, depth, TILE, number * shared_bytes(dtype, depth, TILE)) for number in (0, 1)]
    for half, side, adjacent in zip(halves, sides, steps_adjacent, strict=True):
        with each_of_block(k, depth * TILE) as number:
            width = depth if adjacent else TILE
            outer, inner = b.udiv(number, i64(width)), b.urem(number, i64(width))
            line, step = (outer, inner) if adjacent else (inner, outer)
            half.store((step, line), side(line, step))
    k.gpu.barrier()
    thread = k.thread_index()
    own = b.udiv(thread, i64(_STEP)), b.urem(thread, i64(_STEP))
    places = [[b.add(first, i64(_STEP * number)) for number in range(TILE // _STEP)] for first in own]
    zeros = [scalar.zero(dtype)] * len(places[0]) * len(places[1])

    def step(s: Value, carried: list[Value]) -> list[Value]:
        lines, columns = ([half.load((s, at)) for at in part] for half, part in zip(halves, places, strict=True))
        products = [multiply(b, x, y) for x in lines for y in columns]
        return flattened([add(b, t, p) for t, p in zip(grouped(carried, zeros), products, strict=True)])

    totals = iter(grouped(b.for_loop_carrying(0, depth, flattened(zeros), step, unroll=4), zeros))
    for line in places[0]:
        for column in places[1]:
            store(line, column, next(totals))


def digits(b: Builder, number: Value, sizes: Sequence[int]) -> list[Value]:
    """The index, as i64, whose row-major position is a number: by divisions of 32 bits, if it has no more."""
    if prod(sizes) >= 1 << 31:
        return delinearize(b, number, sizes)
    rest, found = b.trunc(number, "i32"), []
    for position, size in reversed(list(enumerate(sizes))):
        is_last = all(other == 1 for other in sizes[:position])
        divisor, zero = integer("i32", size), integer("i32", 0)
        found.append(b.zext(rest if is_last else b.urem(rest, divisor), "i64"))
        rest = zero if is_last else b.udiv(rest, divisor)
    return found[::-1]
