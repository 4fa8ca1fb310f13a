"""Sums over windows of 3 x 3 by fewer multiplications, by tiles of 2 x 2 results, as routines.

The scheme is F(2 x 2, 3 x 3) of Winograd ("Arithmetic Complexity of Computations", 1980) as used by Lavin and Gray
("Fast Algorithms for Convolutional Neural Networks", 2016). A tile's 4 x 4 places of the image, d, and a window of
weights, g, are brought to 16 points each, which are multiplied, and summed over the input features, before they are
brought to the results: A' ((G g G') * (B' d B)) A with

    B' = 1  0 -1  0     G = 1    0    0     A' = 1  1  1  0
         0  1  1  0         1/2  1/2  1/2        0  1 -1 -1
         0 -1  1  0         1/2 -1/2  1/2
         0  1  0 -1         0    0    1

That takes 16 multiplications rather than 36. Sizes and strides are i64 and count elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

from hloc.codegen.convolution_plan import POINTS
from hloc.codegen.gemm_block import Operand, block_routine, multiply_block
from hloc.codegen.llvm import Builder, Function, Value, const, integer, vector_type, zero
from hloc.codegen.routines import PLAIN, Routines, i64, least
from hloc.codegen.tiles import Tile

LEVEL = 16.0
"""How many times the greatest element of each of a tile's windows its greatest one may be."""

_SHAPE = "i64 images, i64 rows, i64 columns"
_IMAGE = f"ptr image, {_SHAPE}, i64 image_stride, i64 row_stride, i64 column_stride, i64 channels"


def weights_routine(routines: Routines, tile: Tile) -> Function:
    """`weights(kernel, row, column, channel, feature, channels, panels, to)`: points of some panels of weights.

    A weight lies at multiples of the strides; points are put at to[panel][point][channel][column].
    """
    params = "ptr kernel, i64 row, i64 column, i64 channel, i64 feature, i64 channels, i64 panels, ptr noalias to"
    name = f"hloc.winograd_weights.{tile.name}"
    return routines.get(name, params, lambda b, p: _Writer(b, p, tile).weights(), stage=PLAIN)


def image_routine(routines: Routines, tile: Tile) -> Function:
    """`image(image, images, rows, columns, strides..., channels, to, slab)`: points of all tiles.

    They are put at to[point][tile][channel], those of a point a `slab` apart.
    """
    params = f"{_IMAGE}, ptr noalias to, i64 slab"
    name = f"hloc.winograd_image.{tile.name}"
    return routines.get(name, params, lambda b, p: _Writer(b, p, tile).image(), stage=PLAIN)


def level_routine(routines: Routines, tile: Tile) -> Function:
    """`level(image, images, rows, columns, strides..., channels, room)`: whether elements are of a size everywhere.

    So they are if the greatest one of each tile is at most LEVEL times the greatest one of each of its windows: what
    the tile's windows have not in common then leaves no more than LEVEL times the rounding errors in them. `room` is
    for a number for each place of an image.
    """
    params = f"{_IMAGE}, ptr noalias room"
    name = f"hloc.winograd_level.{tile.name}"
    return routines.get(name, params, lambda b, p: _Level(b, p, tile).write(), result="i1", stage=PLAIN)


def block_routine_of_points(routines: Routines, tile: Tile) -> Function:
    """`block(points, slab, tiles, channels, weights, panels, products, room, sums, panel_sums, images, rows, columns)`:
    the sums of so many panels, sums[panel][position][column], given the points of both sides; whether all are finite.

    `products` has `room` for the products of a panel at each point.
    """
    params = (
        "ptr points, i64 slab, i64 tiles, i64 channels, ptr weights, i64 panels, ptr products, i64 room, ptr sums, "
        f"i64 panel_sums, {_SHAPE}"
    )

    def write(b: Builder, p: SimpleNamespace) -> Value:
        multiply = block_routine(routines, tile, is_level=True)
        writer = _Writer(b, p, tile)
        size = b.mul(p.channels, i64(tile.columns))

        def panel(number: Value, found: list[Value]) -> list[Value]:
            weights = writer.at(p.weights, b.mul(number, b.mul(size, i64(POINTS))))
            with b.for_loop(0, POINTS, unroll=False) as point:
                left = Operand(writer.at(p.points, b.mul(point, p.slab)), p.channels, p.channels, i64(1), p.tiles)
                columns = writer.at(weights, b.mul(point, size))
                right = Operand.packed(columns, tile.columns, i64(tile.columns), p.channels)
                to = writer.at(p.products, b.mul(point, p.room)), i64(tile.columns), i64(1)
                sizes = p.tiles, i64(tile.columns), p.channels
                multiply_block(b, multiply, (left, right), to, sizes, integer("i1", 0))
            return writer.results(writer.at(p.sums, b.mul(number, p.panel_sums)), found)

        (nothing,) = b.for_loop_carrying(0, p.panels, [zero(writer.vector)], panel)
        given = [const(tile.type, 0), nothing]
        total = b.intrinsic("llvm.vector.reduce.fadd", tile.type, given, overloads=[writer.vector])
        return b.fcmp_ordered("==", total, const(tile.type, 0))

    return routines.get(f"hloc.winograd_block.{tile.name}", params, write, result="i1", stage=PLAIN)


class _Places:
    """The places of a tile of an image: beyond the last row or column are these once more."""

    def __init__(self, b: Builder, p: SimpleNamespace):
        self.b, self.p = b, p
        self.down, self.across = (b.lshr(b.add(size, i64(1)), i64(1)) for size in (p.rows, p.columns))

    def lines(self, tile: Value, size: Value, count: int, beyond: int) -> list[Value]:
        """The rows, or the columns, of a tile: `count`, and there are `beyond` more of them than results."""
        b = self.b
        last = b.add(size, i64(beyond - 1))
        return [least(b, b.add(b.mul(tile, i64(2)), i64(number)), last) for number in range(count)]


class _Writer:
    """Writes the bodies of routines with parameters `p`."""

    def __init__(self, b: Builder, p: SimpleNamespace, tile: Tile):
        self.b, self.p, self.tile = b, p, tile
        self.vector, self.align = vector_type(tile.type, tile.lanes), tile.dtype.itemsize

    def at(self, start: Value, offset: Value) -> Value:
        return self.b.gep(self.tile.type, start, offset)

    def load(self, start: Value, offset: Value) -> Value:
        return self.b.load(self.vector, self.at(start, offset), align=self.align)

    def store(self, value: Value, start: Value, offset: Value) -> None:
        self.b.store(value, self.at(start, offset), align=self.align)

    def weights(self) -> None:
        b, p, tile = self.b, self.p, self.tile
        dense = b.icmp_signed("==", p.feature, i64(1))
        size = b.mul(p.channels, i64(tile.columns))
        room = b.alloca(self.vector, 9, align=64)
        with (
            b.for_loop(i64(0), p.panels, unroll=False) as panel,
            b.for_loop(i64(0), p.channels, unroll=False) as channel,
            b.for_loop(0, tile.vectors, unroll=False) as number,
        ):
            column = b.mul(number, i64(tile.lanes))
            feature = b.add(b.mul(panel, i64(tile.columns)), column)
            start = self.at(p.kernel, b.add(b.mul(channel, p.channel), b.mul(feature, p.feature)))
            offsets = [[b.add(b.mul(p.row, i64(i)), b.mul(p.column, i64(j))) for j in range(3)] for i in range(3)]
            flat = [offset for line in offsets for offset in line]

            def gathered(start: Value = start) -> list[Value]:
                self.gather(start, room)
                return [self.load(room, i64(number * tile.lanes)) for number in range(9)]

            found = b.if_else(dense, lambda: [self.load(start, offset) for offset in flat], gathered)
            points = _both(found, 3, self.weight_points)
            line = b.add(b.mul(channel, i64(tile.columns)), column)
            to = self.at(p.to, b.add(b.mul(b.mul(panel, i64(POINTS)), size), line))
            for point, value in enumerate(points):
                self.store(value, to, b.mul(size, i64(point)))

    def gather(self, start: Value, room: Value) -> None:
        """Puts a window of weights of as many features as a vector has lanes into `room`, place by place."""
        b, p, lanes = self.b, self.p, self.tile.lanes
        with (
            b.for_loop(0, 3, unroll=False) as i,
            b.for_loop(0, 3, unroll=False) as j,
            b.for_loop(0, lanes, unroll=False) as lane,
        ):
            place = b.add(b.add(b.mul(p.row, i), b.mul(p.column, j)), b.mul(p.feature, lane))
            to = b.add(b.mul(b.add(b.mul(i, i64(3)), j), i64(lanes)), lane)
            b.store(b.load(self.tile.type, self.at(start, place)), self.at(room, to))

    def weight_points(self, g: Sequence[Value]) -> list[Value]:
        """G g."""
        b = self.b
        half = b.splat(const(self.tile.type, 0.5), self.tile.lanes)
        outer, middle = b.fmul(b.fadd(g[0], g[2]), half), b.fmul(g[1], half)
        return [g[0], b.fadd(outer, middle), b.fsub(outer, middle), g[2]]

    def image(self) -> None:
        b, p, tile = self.b, self.p, self.tile
        places = _Places(b, p)
        with (
            b.for_loop(i64(0), p.images, unroll=False) as number,
            b.for_loop(i64(0), places.down, unroll=False) as down,
            b.for_loop(i64(0), places.across, unroll=False) as across,
        ):
            image = self.at(p.image, b.mul(number, p.image_stride))
            lines = [self.at(image, b.mul(row, p.row_stride)) for row in places.lines(down, p.rows, 4, 2)]
            columns = [b.mul(column, p.column_stride) for column in places.lines(across, p.columns, 4, 2)]
            order = b.add(b.mul(b.add(b.mul(number, places.down), down), places.across), across)
            to = self.at(p.to, b.mul(order, p.channels))
            with b.for_loop(i64(0), p.channels, tile.lanes, unroll=False) as channel:
                found = [self.load(line, b.add(column, channel)) for line in lines for column in columns]
                for point, value in enumerate(_both(found, 4, self.image_points)):
                    self.store(value, to, b.add(b.mul(p.slab, i64(point)), channel))

    def image_points(self, d: Sequence[Value]) -> list[Value]:
        """B' d."""
        b = self.b
        return [b.fsub(d[0], d[2]), b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[1], d[3])]

    def results(self, sums: Value, found: list[Value]) -> list[Value]:
        """The results of a panel, given the products; what is `found` is 0 as long as all are finite."""
        b, p, tile = self.b, self.p, self.tile
        places = _Places(b, p)

        def image(number: Value, found: list[Value]) -> list[Value]:
            return b.for_loop_carrying(i64(0), places.down, found, lambda down, found: line(number, down, found))

        def line(number: Value, down: Value, found: list[Value]) -> list[Value]:
            rows = [b.add(b.mul(number, p.rows), row) for row in places.lines(down, p.rows, 2, 0)]
            starts = [b.mul(row, p.columns) for row in rows]
            first = b.mul(b.add(b.mul(number, places.down), down), places.across)
            return b.for_loop_carrying(
                i64(0), places.across, found, lambda across, found: cell(starts, b.add(first, across), across, found)
            )

        def cell(starts: list[Value], order: Value, across: Value, found: list[Value]) -> list[Value]:
            columns = places.lines(across, p.columns, 2, 0)
            products = self.at(p.products, b.mul(order, i64(tile.columns)))
            at = [b.mul(b.add(start, column), i64(tile.columns)) for start in starts for column in columns]
            for first in range(0, tile.columns, tile.lanes):
                points = [self.load(products, b.add(b.mul(p.room, i64(n)), i64(first))) for n in range(POINTS)]
                # Beyond the last row or column a result goes where the right one follows.
                for place, value in reversed(list(zip(at, _both(points, 4, self.result_sums), strict=True))):
                    self.store(value, sums, b.add(place, i64(first)))
                    found = [b.fadd(found[0], b.fmul(value, zero(self.vector)))]
            return found

        return b.for_loop_carrying(i64(0), p.images, found, image)

    def result_sums(self, m: Sequence[Value]) -> list[Value]:
        """A' m."""
        b = self.b
        return [b.fadd(b.fadd(m[0], m[1]), m[2]), b.fsub(b.fsub(m[1], m[2]), m[3])]


class _Level:
    """Writes the body of a `level_routine`."""

    def __init__(self, b: Builder, p: SimpleNamespace, tile: Tile):
        self.b, self.p, self.tile, self.type = b, p, tile, tile.type
        self.width = b.add(p.columns, i64(2))

    def write(self) -> Value:
        b, p = self.b, self.p

        def image(number: Value, level: list[Value]) -> list[Value]:
            self.maxima(b.gep(self.type, p.image, b.mul(number, p.image_stride)))
            return self.tiles(level)

        return b.for_loop_carrying(i64(0), p.images, [integer("i1", 1)], image)[0]

    def maxima(self, image: Value) -> None:
        """The greatest absolute value at each place of an image."""
        b, p, tile = self.b, self.p, self.tile
        vector = vector_type(tile.type, tile.lanes)
        with (
            b.for_loop(i64(0), b.add(p.rows, i64(2)), unroll=False) as row,
            b.for_loop(i64(0), self.width, unroll=False) as column,
        ):
            place = b.add(b.mul(row, p.row_stride), b.mul(column, p.column_stride))
            start = b.gep(self.type, image, place)

            def greater(channel: Value, found: list[Value], start: Value = start) -> list[Value]:
                value = b.load(vector, b.gep(self.type, start, channel), align=tile.dtype.itemsize)
                return [self.greater(found[0], b.intrinsic("llvm.fabs", vector, [value]))]

            steps = b.udiv(p.channels, i64(tile.lanes))
            (most,) = b.for_loop_carrying(
                i64(0), steps, [zero(vector)], lambda n, found: greater(b.mul(n, i64(tile.lanes)), found)
            )
            most = b.intrinsic("llvm.vector.reduce.fmax", self.type, [most], overloads=[vector], flags="nnan")
            b.store(most, b.gep(self.type, p.room, b.add(b.mul(row, self.width), column)))

    def tiles(self, level: list[Value]) -> list[Value]:
        b, p = self.b, self.p
        places = _Places(b, p)

        def line(down: Value, level: list[Value]) -> list[Value]:
            rows = [b.mul(row, self.width) for row in places.lines(down, p.rows, 4, 2)]
            return b.for_loop_carrying(i64(0), places.across, level, lambda across, level: tile(rows, across, level))

        def tile(rows: list[Value], across: Value, level: list[Value]) -> list[Value]:
            columns = places.lines(across, p.columns, 4, 2)
            offsets = [b.add(row, column) for row in rows for column in columns]
            found = [b.load(self.type, b.gep(self.type, p.room, offset)) for offset in offsets]
            windows = _both(found, 4, self.windows)
            most, least = windows[0], windows[0]
            for window in windows[1:]:
                most = self.greater(most, window)
                least = b.select(b.fcmp_ordered("<", window, least), window, least)
            within = b.fcmp_ordered("<=", most, b.fmul(least, const(self.type, LEVEL)))
            return [b.and_(level[0], within)]

        return b.for_loop_carrying(i64(0), places.down, level, line)

    def windows(self, d: Sequence[Value]) -> list[Value]:
        """The greatest of the first three and of the last three."""
        inner = self.greater(d[1], d[2])
        return [self.greater(d[0], inner), self.greater(inner, d[3])]

    def greater(self, x: Value, y: Value) -> Value:
        return self.b.greater_number(x, y)


def _both(values: Sequence[Value], size: int, change: Callable[[Sequence[Value]], list[Value]]) -> list[Value]:
    """A square of values, row by row, changed along its columns and then along its rows."""
    columns = [change(values[column::size]) for column in range(size)]
    return [value for row in zip(*columns, strict=True) for value in change(row)]
