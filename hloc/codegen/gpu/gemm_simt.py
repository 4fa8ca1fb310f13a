"""Products by threads' own arithmetic, for all types: tiles in shared memory, a few rows and columns a thread.

While a block multiplies a tile of `k` steps, its threads have the next one on its way into registers; the tiles change
places in shared memory, so that one barrier a tile is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hloc.codegen import scalar
from hloc.codegen.arrays import Register, flattened, grouped
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.gemm_parts import add_parts, block_place, grid_size, operand_of
from hloc.codegen.gpu.gemm_plan import GemmPlan
from hloc.codegen.gpu.gemm_shapes import Tile, padding
from hloc.codegen.gpu.gemm_tiles import Slab, TransposedTile, slab_bytes, store_slab
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.llvm import Value
from hloc.codegen.products import multiply_accumulate
from hloc.codegen.routines import i64
from hloc.ir.dtypes import DType

_SLAB_BYTES = 40 * 1024

_RESIDENT = 2
"""Blocks that a multiprocessor is to hold: the greatest tile's have 128 registers a thread then."""


def write_tiled(g: GpuStep, plan: GemmPlan) -> None:
    """The product in one launch, or two if its sums are split."""
    tile = plan.tile
    assert tile is not None
    dtype = plan.dot.dtype
    pitches = tile.m + tile.n + 2 * padding(dtype)
    slab_rows = _slab_rows(tile, dtype)
    shared = max(2 * tile.k * pitches * dtype.itemsize, slab_bytes(slab_rows, tile.n, dtype))
    with g.launch(grid_size(plan, tile.m, tile.n), tile.threads, shared, resident=_RESIDENT) as k:
        _Tiled(k, plan, tile).write(slab_rows)
    add_parts(g, plan)


def _slab_rows(tile: Tile, dtype: DType) -> int:
    rows = tile.m
    while slab_bytes(rows, tile.n, dtype) > _SLAB_BYTES:
        rows //= 2
    return rows


class _Tiled:
    """The kernel of a block: thread (x, y) makes rows and columns in groups of 16 bytes, a group of each thread."""

    def __init__(self, k: GpuContext, plan: GemmPlan, tile: Tile):
        self.k, self.b, self.plan, self.tile = k, k.b, plan, tile
        self.dtype = plan.dot.dtype
        self.place = block_place(k, plan, tile.m, tile.n)
        lhs, rhs = (operand_of(k, side, self.place.batch, self.dtype) for side in (plan.dot.lhs, plan.dot.rhs))
        self.lhs = TransposedTile(k, lhs, tile.m, tile.k, self.place.row)
        self.rhs = TransposedTile(k, rhs, tile.n, tile.k, self.place.column)
        across = i64(tile.n // tile.tn)
        thread = k.thread_index()
        self.x, self.y = self.b.urem(thread, across), self.b.udiv(thread, across)
        self.ragged = plan.dot.k % tile.k != 0

    def write(self, slab_rows: int) -> None:
        tile, b = self.tile, self.b
        zeros = [scalar.constant(self.dtype, 0)] * (tile.tm * tile.tn)
        length = self.plan.steps
        turns: Value = i64(-(-length // tile.k))
        if self.plan.splits > 1 and self.plan.dot.k % length:
            count = b.sub(self.place.end, self.place.first)
            turns = b.udiv(b.add(count, i64(tile.k - 1)), i64(tile.k))
        self._fetch(i64(0), self._read(self.place.first))
        self.k.gpu.barrier()
        if length <= tile.k:
            sums = self._multiply(i64(0), zeros)
        else:
            step = partial(self._turn, zeros)
            sums = grouped(b.for_loop_carrying(i64(0), turns, flattened(zeros), step, unroll=False), zeros)
        part = slab_rows * tile.tm // tile.m
        for first in range(0, tile.tm, part):
            store_slab(self.k, self.plan, self.place, self._slab(sums, first, part))

    def _turn(self, like: list[Register], turn: Value, carried: list[Value]) -> list[Value]:
        b, tile = self.b, self.tile
        following = b.add(turn, i64(1))
        values = self._read(b.add(self.place.first, b.mul(following, i64(tile.k))))
        sums = self._multiply(b.and_(turn, i64(1)), grouped(carried, like))
        self._fetch(b.and_(following, i64(1)), values)
        self.k.gpu.barrier()
        return flattened(sums)

    def _read(self, step: Value) -> tuple[list[Register], list[Register]]:
        clamp, end = self.plan.steps > self.tile.k, self.place.end
        return self.lhs.read(step, end, clamp, self.ragged), self.rhs.read(step, end, clamp, self.ragged)

    def _bases(self, buffer: Value) -> tuple[Value, Value]:
        """Where the tiles of a buffer, 0 or 1, lie."""
        b, type = self.b, scalar.memory_type(self.dtype)
        size = self.lhs.elements + self.rhs.elements
        lhs = b.gep(type, self.k.gpu.shared(), b.mul(buffer, i64(size)))
        return lhs, b.gep(type, lhs, i64(self.lhs.elements))

    def _fetch(self, buffer: Value, values: tuple[list[Register], list[Register]]) -> None:
        lhs, rhs = self._bases(buffer)
        self.lhs.write(values[0], lhs)
        self.rhs.write(values[1], rhs)

    def _multiply(self, buffer: Value, sums: list[Register]) -> list[Register]:
        b, tile = self.b, self.tile
        lhs, rhs = self._bases(buffer)
        rows = [self._line(self.y, tile.m, tile.tm, number) for number in range(tile.tm)]
        columns = [self._line(self.x, tile.n, tile.tn, number) for number in range(tile.tn)]
        for step in range(tile.k):
            xs = [self.lhs.load(lhs, step, row) for row in rows]
            ys = [self.rhs.load(rhs, step, column) for column in columns]
            products = [(x, y) for x in xs for y in ys]
            pairs = zip(products, sums, strict=True)
            sums = [multiply_accumulate(b, self.dtype, x, y, total) for (x, y), total in pairs]
        return sums

    def _line(self, thread: Value, size: int, count: int, number: int) -> Value:
        """The row or column in the tile of one of a thread's `count`, which come in groups of 16 bytes."""
        group = _group(count, self.dtype)
        start = number // group * (size * group // count) + number % group
        return self.b.add(self.b.mul(thread, i64(group)), i64(start))

    def _slab(self, sums: list[Register], first: int, part: int) -> Slab:
        """`part` of the rows of each thread, from `first` on."""
        b, tile = self.b, self.tile
        group = _group(tile.tm, self.dtype)

        def tile_row(row: Value) -> Value:
            thread, number = b.udiv(row, i64(part)), b.add(b.urem(row, i64(part)), i64(first))
            start = b.mul(b.udiv(number, i64(group)), i64(tile.m * group // tile.tm))
            return b.add(b.mul(thread, i64(group)), b.add(start, b.urem(number, i64(group))))

        def write(put: Callable[[Value, Value, Register], None]) -> None:
            for number in range(part):
                row = b.add(b.mul(self.y, i64(part)), i64(number))
                for column in range(tile.tn):
                    place = self._line(self.x, tile.n, tile.tn, column)
                    put(row, place, sums[(first + number) * tile.tn + column])

        return Slab(tile.m * part // tile.tm, tile.n, tile_row, write)


def _group(count: int, dtype: DType) -> int:
    return min(count, max(1, 16 // dtype.itemsize))
