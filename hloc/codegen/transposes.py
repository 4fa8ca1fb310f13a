"""Loop nests in which large inputs lie along another dimension than the result: in tiles, which are turned first.

A tile of each such input is turned in registers into memory that stays in a near cache, where it lies as the result
does. Then the loop over the tile reads and writes neighbours. What is only moved goes from there to where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

from hloc.codegen import streams
from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.bodies import Leaf
from hloc.codegen.crossings import Crossing, Names
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.kernel_steps import KernelStep
from hloc.codegen.llvm import Builder, Function, Value, lane_count, vector_type
from hloc.codegen.loops import index_key, tile_loop
from hloc.codegen.routines import Routines, i64
from hloc.ir.shapes import ArrayShape
from hloc.records import NamedTuple

_ACROSS, _ALONG = 64, 128
"""Sides of a tile."""

_NARROW = 8
"""The side along the result where nothing is turned: rows of inputs whose size is a power of two meet in one set of the
innermost cache."""

_MOST_LANES = 16
"""Of the vectors in which tiles are turned: as many of them are in registers at once."""

_WIDTHS = (1, 2, 4, 8)
"""Bytes of elements that are turned in registers."""

_MOST_TURNED = 4
"""Inputs that are turned; a tile of each is on the stack."""


class _Input(NamedTuple):
    """An input that is turned: its array, the result's dimensions that its are, and a tile of it."""

    leaf: Leaf
    array: ArrayRef
    names: Names
    tile: ArrayRef

    def index(self, index: Index) -> Index:
        """Where it has what belongs to an index of the result."""
        return tuple(index[name] for name in self.names)


def write_tiles(k: KernelContext, step: KernelStep, crossing: Crossing, store: Callable[[Index], None]) -> None:
    """The loops over a result that `store` puts at an index, tile by tile."""
    _Tiles(k, step, crossing, store).write()


class _Tiles:
    """Writes the loops: `along` is the result's fastest dimension, `across` that of inputs."""

    def __init__(self, k: KernelContext, step: KernelStep, crossing: Crossing, store: Callable[[Index], None]):
        self.k, self.b, self.store = k, k.b, store
        self.roots, self.output = step.form.roots, k.outputs[0]
        self.dims, self.along, self.across = self.output.shape.dims, crossing.along, crossing.across
        self.block = streams.block_of(self.output.shape)
        turned = [read for read in crossing.inputs if self._is_turned(read[0])]
        self.inputs = [self._input(*read) for read in turned[:_MOST_TURNED]]
        self.width = _ALONG if self.inputs else _NARROW

    def _is_turned(self, leaf: Leaf) -> bool:
        array = self.k.body.array(*leaf)
        return array is not None and array.shape.dtype.itemsize in _WIDTHS

    def _input(self, leaf: Leaf, names: Names) -> _Input:
        array = self.k.body.array(*leaf)
        shape = ArrayShape(array.shape.dtype, (_ACROSS, _ALONG))
        tile = ArrayRef(self.b, shape, self.b.room("i8", shape.byte_size, align=64))
        return _Input(leaf, array, names, tile)

    def write(self) -> None:
        k, b = self.k, self.b
        rest = [d for d in reversed(self.output.shape.minor_to_major) if d not in (self.along, self.across)]
        numbers = None
        if k.range is not None and all(self.dims[d] == 1 for d in rest):
            numbers, k.range_size = k.range, -(-self.dims[self.across] // _ACROSS)

        def tiles(outer: Index) -> None:
            with (
                tile_loop(b, self.dims[self.across], _ACROSS, numbers) as row,
                tile_loop(b, self.dims[self.along], self.width) as column,
            ):
                self._tile(dict(zip(rest, outer, strict=True)), row, column)

        k.loop_nest([self.dims[d] for d in rest], tiles)

    def _tile(self, outer: dict[int, Value], row: tuple[Value, Value], column: tuple[Value, Value]) -> None:
        """One tile: the first index and the number of them in both directions."""
        b, (i0, rows), (j0, columns) = self.b, row, column

        def at(i: Value, j: Value) -> Index:
            index = outer | {self.across: i, self.along: j}
            return tuple(index[d] for d in range(len(self.dims)))

        for read in self.inputs:
            self._turn(read, at(i0, j0), rows, columns)
        if len(self.inputs) == 1 and self._is_moved(self.inputs[0]):
            self._move(self.inputs[0], at(i0, j0), rows, columns)
            return
        with b.for_loop(i0, b.add(i0, rows)) as i, b.for_loop(j0, b.add(j0, columns)) as j:
            for read in self.inputs:
                place = b.sub(i, i0), b.sub(j, j0)
                self.k.body.bind(read.leaf, partial(self._load, read, read.index(at(i, j)), place))
            self.store(at(i, j))

    def _load(self, read: _Input, expected: Index, place: Index, index: Index) -> Register:
        """An element of the tile; one at another index is where it always was."""
        if index_key(index) == index_key(expected):
            return read.tile.load(place)
        return read.array.load(index)

    def _turn(self, read: _Input, index: Index, rows: Value, columns: Value) -> None:
        """Fills the tile of an input that begins at an index of the result."""
        routine = turn_routine(Routines(self.b.module, self.k.target), read.array.shape.dtype.itemsize)
        stride = read.array.shape.strides[read.names.index(self.along)]
        source = read.array.address(read.index(index))
        self.b.call(routine, [source, i64(stride), read.tile.pointer, i64(_ALONG), columns, rows])

    def _is_moved(self, read: _Input) -> bool:
        """Whether the result is nothing but the turned input."""
        node, _ = root = self.roots[0]
        while root != read.leaf and node.opcode in ("transpose", "copy"):
            root = (node.operands[0], ())
            node = root[0]
        return len(self.roots) == 1 and root == read.leaf

    def _move(self, read: _Input, index: Index, rows: Value, columns: Value) -> None:
        """Copies the tile to the result, past the caches if that is large."""
        b, itemsize = self.b, i64(self.output.shape.dtype.itemsize)
        streamed = self.block and not self.k.body.lies_at(self.output.pointer)
        if streamed:
            self.k.is_streaming = True
            routine = streams.stream_routine(Routines(b.module, self.k.target))
        start = self.output.address(index)
        stride = i64(self.output.shape.strides[self.across])
        with b.for_loop(0, rows, unroll=False) as i:
            target = b.gep("i8", start, b.mul(b.mul(i, stride), itemsize))
            source = read.tile.address((i, i64(0)))
            if streamed:
                b.call(routine, [target, source, b.mul(columns, itemsize)])
            else:
                b.memcpy(target, source, b.mul(columns, itemsize))


def turn_routine(routines: Routines, itemsize: int) -> Function:
    """`turn(source, stride, target, width, rows, columns)`: target[c * width + r] = source[r * stride + c].

    Elements have `itemsize` bytes, whatever they are; strides count elements.
    """
    type = f"i{8 * itemsize}"
    lanes = min(_MOST_LANES, routines.target.vector_bytes // itemsize)
    vector = vector_type(type, lanes)

    def write(b: Builder, p: SimpleNamespace) -> None:
        def source(row: Value, column: Value, inbounds: bool = True) -> Value:
            return b.gep(type, p.source, b.add(b.mul(row, p.stride), column), inbounds=inbounds)

        def target(row: Value, column: Value) -> Value:
            return b.gep(type, p.target, b.add(b.mul(column, p.width), row))

        def single(row: Value, column: Value) -> None:
            b.store(b.load(type, source(row, column)), target(row, column))

        def square(row: Value, column: Value) -> None:
            lines = [b.add(row, i64(line)) for line in range(lanes)]
            for line in lines:
                b.prefetch(source(b.add(line, i64(lanes)), column, inbounds=False))
            vectors = [b.load(vector, source(line, column), align=itemsize) for line in lines]
            for number, turned in enumerate(turned_square(b, vectors, 16 // itemsize)):
                b.store(turned, target(row, b.add(column, i64(number))), align=itemsize)

        whole_rows, whole_columns = (b.and_(count, i64(-lanes)) for count in (p.rows, p.columns))
        with b.for_loop(i64(0), whole_rows, lanes, unroll=False) as row:
            with b.for_loop(i64(0), whole_columns, lanes, unroll=False) as column:
                square(row, column)
            with b.for_loop(whole_columns, p.columns) as column, b.for_loop(i64(0), i64(lanes)) as line:
                single(b.add(row, line), column)
        with b.for_loop(whole_rows, p.rows) as row, b.for_loop(i64(0), p.columns) as column:
            single(row, column)

    params = "ptr noalias source, i64 stride, ptr noalias target, i64 width, i64 rows, i64 columns"
    return routines.get(f"hloc.turn.{itemsize}", params, write)


def turned_square(b: Builder, rows: list[Value], group: int) -> list[Value]:
    """The columns of as many rows as each has lanes.

    First in every `group` of lanes by itself, for which processors have the quickest instructions; then groups go to
    where they belong.
    """
    count = len(rows)
    group = min(group, count)
    turned = [_turned_groups(b, rows[first : first + group], group) for first in range(0, count, group)]
    columns = []
    for first in range(0, count, group):
        lanes = list(range(first, first + group))
        for number in range(group):
            pieces = [b.shufflevector(vectors[number], None, lanes) for vectors in turned]
            while len(pieces) > 1:
                both = list(range(2 * lane_count(pieces[0].type)))
                pieces = [b.shufflevector(x, y, both) for x, y in zip(pieces[::2], pieces[1::2], strict=True)]
            columns += pieces
    return columns


def _turned_groups(b: Builder, rows: list[Value], group: int) -> list[Value]:
    """The columns of each `group` of lanes of as many rows, side by side: pairs of rows are interleaved by units."""
    count, unit = lane_count(rows[0].type), 1
    while unit < group:
        turned = list(rows)
        for first in range(0, group, 2 * unit):
            for number in range(first, first + unit):
                for half in (0, 1):
                    starts = range(half * group // 2, (half + 1) * group // 2, unit)
                    mask = [
                        side + base + start + lane
                        for base in range(0, count, group)
                        for start in starts
                        for side in (0, count)
                        for lane in range(unit)
                    ]
                    place = first + 2 * (number - first) + half
                    turned[place] = b.shufflevector(rows[number], rows[number + unit], mask)
        rows, unit = turned, 2 * unit
    return rows
