"""Tiles of products that lie in shared memory: how operands come into them, and how sums leave through them."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.gemm_parts import BlockPlace, Elements, Finish
from hloc.codegen.gpu.gemm_plan import GemmPlan
from hloc.codegen.gpu.gemm_shapes import padding
from hloc.codegen.llvm import Value
from hloc.codegen.routines import i64
from hloc.ir.dtypes import DType
from hloc.records import NamedTuple


class TransposedTile:
    """An operand's `lines` x `steps` tile in shared memory, `steps` rows of `lines` elements.

    A thread brings `count` groups of `width` elements, which lie together in device memory. Elements of lines beyond
    the operand are any of its elements: they go into sums that nobody stores. Those beyond the steps are zero.
    """

    def __init__(self, k: GpuContext, operand: Elements, lines: int, steps: int, first_line: Value):
        self.k, self.operand, self.lines, self.steps = k, operand, lines, steps
        threads = k.block[0]
        along = steps if operand.along_steps else lines
        self.width = gcd(operand.width, along, lines * steps // threads)
        self.count = lines * steps // (threads * self.width)
        self.pitch = lines + padding(operand.dtype)
        self.first_line = first_line
        self.places = [self._place(number * threads) for number in range(self.count)]

    @property
    def elements(self) -> int:
        """Of shared memory that the tile takes."""
        return self.pitch * self.steps

    def _place(self, first: int) -> tuple[Value, Value]:
        """The line and step, in the tile, where the thread's group begins."""
        b = self.k.b
        number = b.add(self.k.thread_index(), i64(first))
        groups = (self.steps if self.operand.along_steps else self.lines) // self.width
        slow, fast = b.udiv(number, i64(groups)), b.mul(b.urem(number, i64(groups)), i64(self.width))
        return (slow, fast) if self.operand.along_steps else (fast, slow)

    def read(self, first_step: Value, end: Value, clamp: bool, ragged: bool) -> list[Register]:
        """The thread's elements of the tile that begins at a step: any if all of it is beyond the `end`, with `clamp`.

        `ragged` says that some of the tile may be.
        """
        b, operand = self.k.b, self.operand
        zero = scalar.constant(operand.dtype, 0)
        values: list[Register] = []
        for line, step in self.places:
            line, step = self._clamped(b.add(self.first_line, line)), b.add(first_step, step)
            live = b.icmp_unsigned("<", step, end)
            if clamp or ragged:
                step = b.select(live, step, i64(0))
            for value in operand.group(line, step, self.width):
                values.append(_chosen(self.k, live, value, zero) if ragged else value)
        return values

    def _clamped(self, line: Value) -> Value:
        operand, b = self.operand, self.k.b
        if operand.lines % self.lines == 0:
            return line
        last = operand.lines - (1 if operand.along_steps else self.width)
        return b.select(b.icmp_unsigned("<", line, i64(last)), line, i64(last))

    def write(self, values: list[Register], base: Value) -> None:
        """Puts the thread's elements into the tile at an address in shared memory."""
        b, dtype = self.k.b, self.operand.dtype
        for number, group in enumerate(self.places):
            for element in range(self.width):
                line, step = self.operand.neighbour(*group, element)
                place = b.add(b.mul(step, i64(self.pitch)), line)
                scalar.store_element(b, dtype, values[number * self.width + element], base, place)

    def load(self, base: Value, step: int, line: Value) -> Register:
        """An element of the tile at an address in shared memory."""
        place = self.k.b.add(line, i64(step * self.pitch))
        return scalar.load_element(self.k.b, self.operand.dtype, base, place)


def _chosen(k: GpuContext, condition: Value, x: Register, y: Register) -> Register:
    if isinstance(x, tuple):
        return k.b.select(condition, x[0], y[0]), k.b.select(condition, x[1], y[1])
    return k.b.select(condition, x, y)


class Slab(NamedTuple):
    """Some rows of a block's tile on their way out: `rows` of `columns` sums in shared memory.

    `tile_row(row)` is the row of the tile that a row of the slab is; `write(put)` lets the thread put all the sums that
    it has of them by `put(row, column, value)`.
    """

    rows: int
    columns: int
    tile_row: Callable[[Value], Value]
    write: Callable[[Callable[[Value, Value, Register], None]], None]


class Team(NamedTuple):
    """The threads of a block that store, the first ones: how many, their barrier, and where in shared memory."""

    threads: int
    barrier: Callable[[], None]
    base: Value


def store_slab(k: GpuContext, plan: GemmPlan, place: BlockPlace, slab: Slab, team: Team | None = None) -> None:
    """Sums go through shared memory, so that each thread stores neighbours, and the epilogue is written once.

    By default by all threads of the block, which need no shared memory for anything else any more.
    """
    b, dot, dtype = k.b, plan.dot, plan.dot.dtype
    finish = Finish(k, plan, place)
    threads, barrier, base = team or Team(k.block[0], k.gpu.barrier, k.gpu.shared())
    pitch = slab.columns + 2 * padding(dtype)
    barrier()

    def put(row: Value, column: Value, value: Register) -> None:
        scalar.store_element(b, dtype, value, base, b.add(b.mul(row, i64(pitch)), column))

    slab.write(put)
    barrier()
    width = gcd(finish.width, max(1, slab.rows * slab.columns // threads))
    groups = slab.columns // width

    def one(number: Value) -> None:
        row, column = b.udiv(number, i64(groups)), b.mul(b.urem(number, i64(groups)), i64(width))
        whole_row = b.add(place.row, slab.tile_row(row))
        whole_column = b.add(place.column, column)
        first = b.add(b.mul(row, i64(pitch)), column)
        inside = b.and_(
            b.icmp_unsigned("<", whole_row, i64(dot.m)), b.icmp_unsigned("<", whole_column, i64(dot.n))
        )
        with b.if_then(inside):
            sums = [scalar.load_element(b, dtype, base, b.add(first, i64(n))) for n in range(width)]
            finish.put(whole_row, whole_column, sums)

    with b.for_loop(0, slab.rows * groups // threads, unroll=False) as turn:
        one(b.add(b.mul(turn, i64(threads)), k.thread_index()))


def slab_bytes(rows: int, columns: int, dtype: DType) -> int:
    """Shared memory that a slab takes."""
    return rows * (columns + 2 * padding(dtype)) * dtype.itemsize
