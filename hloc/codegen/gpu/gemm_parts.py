"""What kernels of products share: a block's place in the grid, the elements of an operand, and what becomes of sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import gcd, prod

from hloc.codegen import scalar
from hloc.codegen.arrays import Register, flattened, grouped
from hloc.codegen.dot_side import Side
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.gemm_plan import GemmPlan, along_and_width, greatest_power
from hloc.codegen.gpu.gemm_sides import OwnSide
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import Flat, delinearize, linear
from hloc.codegen.products import added
from hloc.codegen.routines import i64
from hloc.ir.dtypes import PRED, DType
from hloc.ir.shapes import ArrayShape
from hloc.records import NamedTuple

_RASTER = 8
"""Rows of tiles that neighbouring blocks stay in, so that what they read is in the cache."""


def i32(number: int) -> Value:
    """An i32 known now."""
    return integer("i32", number)


class BlockPlace(NamedTuple):
    """Where a block of a product works: all i64. It makes steps `first` to `end` - 1 of the sums."""

    batch: Index
    flat_batch: Value
    split: Value
    row: Value
    column: Value
    first: Value
    end: Value


def block_place(k: GpuContext, plan: GemmPlan, rows: int, columns: int, block: Value | None = None) -> BlockPlace:
    """The place of a block, by default this one, in a grid of one dimension: tiles of `rows` x `columns`, then splits,
    then batches."""
    b, dot = k.b, plan.dot
    down, across = -(-dot.m // rows), -(-dot.n // columns)
    block = k.gpu.block() if block is None else block
    tile, rest = b.urem(block, i32(down * across)), b.udiv(block, i32(down * across))
    split, batch = b.urem(rest, i32(plan.splits)), b.udiv(rest, i32(plan.splits))
    row, column = _raster(k, tile, down, across)
    flat_batch, split = b.zext(batch, "i64"), b.zext(split, "i64")
    first = b.mul(split, i64(plan.steps))
    end = i64(dot.k) if plan.splits == 1 else least(k, b.add(first, i64(plan.steps)), dot.k)
    return BlockPlace(
        tuple(delinearize(b, flat_batch, dot.batch)),
        flat_batch,
        split,
        b.mul(b.zext(row, "i64"), i64(rows)),
        b.mul(b.zext(column, "i64"), i64(columns)),
        first,
        end,
    )


def grid_size(plan: GemmPlan, rows: int, columns: int) -> int:
    """Blocks of a product in tiles of `rows` x `columns`."""
    return -(-plan.dot.m // rows) * -(-plan.dot.n // columns) * plan.splits * plan.batches


def _raster(k: GpuContext, tile: Value, down: int, across: int) -> tuple[Value, Value]:
    """The row and column of a tile: column by column within a few rows."""
    b = k.b
    if down <= _RASTER:
        return b.urem(tile, i32(down)), b.udiv(tile, i32(down))
    group, within = b.udiv(tile, i32(_RASTER * across)), b.urem(tile, i32(_RASTER * across))
    first = b.mul(group, i32(_RASTER))
    height = i32(_RASTER)
    if down % _RASTER:
        left = b.sub(i32(down), first)
        height = b.select(b.icmp_unsigned("<", left, height), left, height)
    return b.add(first, b.urem(within, height)), b.udiv(within, height)


def least(k: GpuContext, value: Value, most: int) -> Value:
    """The lesser one of an i64 and a number."""
    return k.b.select(k.b.icmp_unsigned("<", value, i64(most)), value, i64(most))


class Elements(ABC):
    """A side of a product at a block's batch: its elements by line (row of lhs, column of rhs) and step.

    `width` elements lie together in memory, at most 16 bytes of them, along steps or along lines, from any multiple
    of `width` on. `dtype` is the type that they are given in, `source` the one that they lie in. `base` is an address
    in that memory, None if elements have to be computed.
    """

    k: GpuContext
    lines: int
    steps: int
    dtype: DType
    source: DType
    along_steps: bool
    width: int
    base: Value | None

    @abstractmethod
    def element(self, line: Value, step: Value) -> Register:
        """The element of a line and step that exist."""

    @abstractmethod
    def address(self, line: Value, step: Value) -> Value:
        """Where the element lies, if there is a `base`; any address in that memory where it is not `inside`."""

    def inside(self, line: Value, step: Value) -> Value | None:
        """Whether the element is one of memory, and not zero; None if all are."""
        return None

    def group(self, line: Value, step: Value, count: int) -> list[Register]:
        """`count` elements that lie together, from one of a line and step on."""
        return [self.element(*self.neighbour(line, step, number)) for number in range(count)]

    def neighbour(self, line: Value, step: Value, number: int) -> tuple[Value, Value]:
        """The line and step of an element that lies a number of elements behind another."""
        b, more = self.k.b, i64(number)
        return (line, b.add(step, more)) if self.along_steps else (b.add(line, more), step)


def operand_of(k: GpuContext, side: Side | OwnSide, batch: Index, dtype: DType) -> Elements:
    """The elements of a side at a batch, as elements of `dtype`."""
    return side.operand(k, batch, dtype) if isinstance(side, OwnSide) else Operand(k, side, batch, dtype)


class Operand(Elements):
    """A side of a dot: see `Elements`."""

    def __init__(self, k: GpuContext, side: Side, batch: Index, dtype: DType):
        self.k, self.side, self.batch, self.dtype = k, side, batch, dtype
        self.lines, self.steps = prod(side.sizes(side.rows)), prod(side.sizes(side.columns))
        self.source = side.value.shape.dtype if side.copied else side.shape.dtype
        self.along_steps, self.width = along_and_width(side)
        self.base: Value | None = None
        if not side.copied:
            assert side.place is not None
            offset = linear(k.b, batch, side.sizes(side.batch), side.strides[0])
            self.base = k.b.gep(scalar.memory_type(self.source), side.place.pointer(k), offset)

    def element(self, line: Value, step: Value) -> Register:
        b = self.k.b
        if self.base is not None:
            value = scalar.load(b, self.source, self.address(line, step))
        else:
            index = side_index(self.k, self.side, self.batch, line, step)
            value = self.k.body.evaluate(self.k, self.side.value, (), index)
        return scalar.convert(b, value, self.source, self.dtype)

    def address(self, line: Value, step: Value) -> Value:
        """Of an operand that lies in memory with one stride a direction."""
        b, (_, line_stride, step_stride) = self.k.b, self.side.strides
        assert self.base is not None
        offset = b.add(b.mul(line, i64(line_stride)), b.mul(step, i64(step_stride)))
        return b.gep(scalar.memory_type(self.source), self.base, offset)


def side_index(k: GpuContext, side: Side | OwnSide, batch: Index, row: Value, column: Value) -> Index:
    """The index of a side's array at a batch, row and column."""
    if isinstance(side, OwnSide):
        return side.index(k, batch, row, column)
    index = dict(zip(side.batch, batch, strict=True))
    for dims, value in ((side.rows, row), (side.columns, column)):
        index |= zip(dims, delinearize(k.b, value, side.sizes(dims)), strict=True)
    return tuple(index[d] for d in range(len(index)))


class Finish:
    """What becomes of sums: results, through the epilogue, or parts of sums in scratch, if they are split."""

    def __init__(self, k: GpuContext, plan: GemmPlan, place: BlockPlace):
        self.k, self.plan, self.place = k, plan, place

    @property
    def width(self) -> int:
        """Neighbours in a row that are best stored together."""
        plan = self.plan
        itemsize = plan.dot.dtype.itemsize if plan.splits > 1 else _widest([out.shape for out in self.k.outputs])
        return greatest_power(gcd(max(1, 16 // itemsize), plan.dot.n))

    def put(self, row: Value, column: Value, sums: Sequence[Register]) -> None:
        """Stores the sums of neighbouring columns of a row of the whole product, which exist."""
        k, dot = self.k, self.plan.dot
        columns = [k.b.add(column, i64(number)) for number in range(len(sums))]
        if self.plan.splits > 1:
            line = _part_line(self.plan, k, self.place.split, self.place.flat_batch, row)
            base = k.b.gep(scalar.memory_type(dot.dtype), k.scratch, k.b.add(k.b.mul(line, i64(dot.n)), column))
            for number, value in enumerate(sums):
                scalar.store(k.b, dot.dtype, value, k.b.gep(scalar.memory_type(dot.dtype), base, i64(number)))
            return
        store_results(k, self.plan, self.place.batch, row, columns, sums)


def store_results(
    k: GpuContext, plan: GemmPlan, batch: Index, row: Value, columns: Sequence[Value], sums: Sequence[Register]
) -> None:
    """Rounds sums and gives them to the epilogue, neighbours one after the other."""
    dot = plan.dot
    values = [scalar.convert(k.b, value, dot.dtype, dot.out.shape.dtype) for value in sums]
    for column, value in zip(columns, values, strict=True):
        k.store(side_index(k, dot.out, batch, row, column), [value])


def _widest(shapes: Sequence[ArrayShape]) -> int:
    return max(shape.dtype.itemsize for shape in shapes)


def _part_line(plan: GemmPlan, k: GpuContext, split: Value, batch: Value, row: Value) -> Value:
    b = k.b
    return b.add(b.mul(b.add(b.mul(split, i64(plan.batches)), batch), i64(plan.dot.m)), row)


def thread_number(k: GpuContext) -> Value:
    """`k.global_index()`, which LLVM sees to have 32 bits, if it has no more."""
    if k.grid[0] * k.block[0] >= 1 << 31:
        return k.global_index()
    return k.b.zext(k.b.add(k.b.mul(k.gpu.block(), i32(k.block[0])), k.gpu.thread()), "i64")


def add_parts(g: GpuStep, plan: GemmPlan) -> None:
    """The launch that adds the parts of split sums, in order, and stores the results."""
    if plan.splits == 1:
        return
    dot, threads = plan.dot, 128
    count = plan.batches * dot.m * dot.n
    itemsize = _widest([dot.out.shape.with_dtype(dot.dtype), *(view.shape for view in g.step.outputs)])
    width = greatest_power(gcd(max(1, 16 // itemsize), dot.n))
    with g.launch(-(-count // (width * threads)), threads, name="sums") as k:
        _add(k, plan, width, thread_number(k))


def _add(k: GpuContext, plan: GemmPlan, width: int, thread: Value) -> None:
    b, dot = k.b, plan.dot
    count = plan.batches * dot.m * dot.n
    element = scalar.memory_type(dot.dtype)
    with b.if_then(b.icmp_unsigned("<", thread, i64(count // width))):
        first = b.mul(thread, i64(width))

        def step(split: Value, before: list[Value]) -> list[Value]:
            sums = grouped(before, zeros)
            base = b.gep(element, k.scratch, b.add(b.mul(split, i64(count)), first))
            parts = [scalar.load_element(b, dot.dtype, base, i64(number)) for number in range(width)]
            return flattened([add(k, dot.dtype, x, y) for x, y in zip(sums, parts, strict=True)])

        zeros = [scalar.constant(dot.dtype, 0)] * width
        sums = grouped(b.for_loop_carrying(0, plan.splits, flattened(zeros), step), zeros)
        batch, row, group = Flat(b, thread, [plan.batches, dot.m, dot.n // width]).parts()
        start = b.mul(group, i64(width))
        columns = [b.add(start, i64(number)) for number in range(width)]
        store_results(k, plan, tuple(delinearize(b, batch, dot.batch)), row, columns, sums)


def add(k: GpuContext, dtype: DType, x: Register, y: Register) -> Register:
    """The sum of two sums."""
    if dtype is PRED:
        return k.b.or_(x, y)
    if dtype.is_complex:
        return added(k.b, x[0], y[0]), added(k.b, x[1], y[1])
    return added(k.b, x, y)
