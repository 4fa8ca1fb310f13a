"""Blocks of a convolution's results, tile by tile: products of rows that lie anywhere in an image, as routines.

So do the copies that precede them: the code of a kernel is what belongs to its own shapes and ops. Strides and sizes
are i64 and count elements.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, integer, vector_type, zero
from hloc.codegen.products import load_as, multiply_add
from hloc.codegen.routines import OPTIMIZED, PLAIN, Routines, blocks, i64, least
from hloc.codegen.tiles import Tile
from hloc.ir.dtypes import DType


def positions_routine(routines: Routines, tile: Tile) -> Function:
    """`convolve(image, places, tiles, offsets, count, run, kernel, panel_kernel, panels, sums, panel_sums, adds)`.

    For each of so many panels of columns, and each of tiles * tile.rows positions p, the sums over o < count and
    s < run of image[places[p] + offsets[o] + s] * kernel[panel][o][s][column] go to sums[panel][p][column], or
    where it `adds` are added to what is there. Panels begin at multiples of `panel_kernel` and `panel_sums`.
    """
    params = (
        "ptr image, ptr places, i64 tiles, ptr offsets, i64 count, i64 run, ptr kernel, i64 panel_kernel, "
        "i64 panels, ptr sums, i64 panel_sums, i1 adds"
    )
    name = f"hloc.convolve.{tile.name}"
    return routines.get(name, params, lambda b, p: _PositionsWriter(b, p, tile).write(), stage=PLAIN)


def block_routine(routines: Routines, tile: Tile, kernel: DType) -> Function:
    """`block(image, places, tiles, weights, offsets, starts, runs, together, run, step, feature, features, ...)`.

    The sums over all runs for so many features, as `positions_routine` makes them with the same `sums` and
    `panel_sums`, `together` runs at a time. In memory, run o of the weights, which are of type `kernel`, begins at
    starts[o]; terms are a `step` and features a `feature` apart. A panel is packed as it is needed: by the first tile
    that it is multiplied with, where its features lie side by side.
    """
    params = (
        "ptr image, ptr places, i64 tiles, ptr weights, ptr offsets, ptr starts, i64 runs, i64 together, i64 run, "
        "i64 step, i64 feature, i64 features, ptr packed, ptr sums, i64 panel_sums"
    )

    def write(b: Builder, p: SimpleNamespace) -> None:
        pack, convolve = _pack_routine(routines, tile, kernel), positions_routine(routines, tile)
        columns, one = i64(tile.columns), i64(1)
        dense = b.icmp_signed("==", p.feature, one) if kernel is tile.dtype else integer("i1", 0)

        def panel(feature: Value, first: Value, count: Value) -> None:
            offsets, starts = (b.gep("i64", table, first) for table in (p.offsets, p.starts))
            weights = b.gep(scalar.memory_type(kernel), p.weights, b.mul(feature, p.feature))
            sums = b.gep(tile.type, p.sums, b.mul(b.udiv(feature, columns), p.panel_sums))
            adds = b.icmp_signed(">", first, i64(0))
            left = least(b, b.sub(p.features, feature), columns)

            def multiply(places: Value, tiles: Value, sums: Value) -> None:
                panels = [p.packed, i64(0), one, sums, i64(0), adds]
                b.call(convolve, [p.image, places, tiles, offsets, count, p.run, *panels])

            def while_packing() -> None:
                first = SimpleNamespace(image=p.image, offsets=offsets, count=count, run=p.run, adds=adds)
                source = _Source(weights, starts, p.step)
                _PositionsWriter(b, first, tile).block(p.places, p.packed, sums, source)
                behind = b.gep("i64", p.places, i64(tile.rows)), b.sub(p.tiles, one)
                multiply(*behind, b.gep(tile.type, sums, i64(tile.rows * tile.columns)))

            def once_packed() -> None:
                b.call(pack, [weights, starts, count, p.run, p.step, p.feature, left, p.packed])
                multiply(p.places, p.tiles, sums)

            b.if_else(b.and_(dense, b.icmp_signed("==", left, columns)), while_packing, once_packed)

        with (
            blocks(b, p.runs, p.together) as (first, count),
            b.for_loop(i64(0), p.features, tile.columns, unroll=False) as feature,
        ):
            panel(feature, first, count)

    return routines.get(f"hloc.convolve_block.{kernel.name}.{tile.name}", params, write, stage=PLAIN)


class _Source(NamedTuple):
    """Where the weights of a panel lie: of run o from weights[starts[o]] on, a line of columns every `step`."""

    weights: Value
    starts: Value
    step: Value


def _pack_routine(routines: Routines, tile: Tile, kernel: DType) -> Function:
    """`pack(weights, starts, count, run, step, feature, features, to)`: some runs of a panel, or of a part of it.

    What is missing of it stays as it is.
    """
    params = "ptr weights, ptr starts, i64 count, i64 run, i64 step, i64 feature, i64 features, ptr noalias to"

    def write(b: Builder, p: SimpleNamespace) -> None:
        with b.for_loop(i64(0), p.count, unroll=False) as run, b.for_loop(i64(0), p.run, unroll=False) as step:
            start = b.add(b.load("i64", b.gep("i64", p.starts, run)), b.mul(step, p.step))
            target = b.gep(tile.type, p.to, b.mul(b.add(b.mul(run, p.run), step), i64(tile.columns)))
            source = b.gep(scalar.memory_type(kernel), p.weights, start)
            if kernel is tile.dtype:
                _copy_line(b, kernel, tile.lanes, source, p.feature, target, p.features)
            else:
                with b.for_loop(i64(0), p.features) as column:
                    address = b.gep(scalar.memory_type(kernel), source, b.mul(column, p.feature))
                    b.store(load_as(b, kernel, tile.dtype, address), b.gep(tile.type, target, column))

    return routines.get(
        f"hloc.convolve_pack.{kernel.name}.{tile.name}",
        params,
        write,
        stage=PLAIN if kernel is tile.dtype else OPTIMIZED,
    )


def places_routine(routines: Routines) -> Function:
    """`places(to, start, size0, size1, size2, stride0, stride1, stride2, more)`: where positions are, row-major.

    Behind the last one it is written so many times more.
    """
    params = "ptr to, i64 start, i64 size0, i64 size1, i64 size2, i64 stride0, i64 stride1, i64 stride2, i64 more"

    def write(b: Builder, p: SimpleNamespace) -> None:
        def last(size: Value, stride: Value) -> Value:
            return b.mul(b.sub(size, i64(1)), stride)

        with b.for_loop(i64(0), p.size0, unroll=False) as i:
            plane, start = b.mul(i, p.size1), b.add(p.start, b.mul(i, p.stride0))
            with b.for_loop(i64(0), p.size1, unroll=False) as j:
                to = b.gep("i64", p.to, b.mul(b.add(plane, j), p.size2))
                place = b.add(start, b.mul(j, p.stride1))
                with b.for_loop(i64(0), p.size2, unroll=False) as k:
                    b.store(b.add(place, b.mul(k, p.stride2)), b.gep("i64", to, k))
        count = b.mul(b.mul(p.size0, p.size1), p.size2)
        end = b.add(p.start, last(p.size0, p.stride0))
        end = b.add(b.add(end, last(p.size1, p.stride1)), last(p.size2, p.stride2))
        with b.for_loop(i64(0), p.more, unroll=False) as number:
            b.store(end, b.gep("i64", p.to, b.add(count, number)))

    return routines.get("hloc.convolve_places", params, write, stage=PLAIN)


def copy_routine(routines: Routines, dtype: DType) -> Function:
    """`copy(source, to, ...)`: images x rows x columns x channels of an array to where channels lie side by side."""
    params = (
        "ptr source, ptr noalias to, i64 images, i64 rows, i64 columns, i64 channels, i64 image, i64 row, i64 column, "
        "i64 channel, i64 to_image, i64 to_row, i64 to_column"
    )

    def write(b: Builder, p: SimpleNamespace) -> None:
        type = scalar.memory_type(dtype)
        width = b.mul(p.columns, p.channels)
        runs = [b.icmp_signed("==", stride, p.channels) for stride in (p.column, p.to_column)]
        dense = b.and_(b.and_(*runs), b.icmp_signed("==", p.channel, i64(1)))
        with b.for_loop(i64(0), p.images, unroll=False) as i, b.for_loop(i64(0), p.rows, unroll=False) as j:
            source = b.gep(type, p.source, b.add(b.mul(i, p.image), b.mul(j, p.row)))
            to = b.gep(type, p.to, b.add(b.mul(i, p.to_image), b.mul(j, p.to_row)))

            def whole(source: Value = source, to: Value = to) -> None:
                b.memcpy(to, source, b.mul(width, i64(dtype.itemsize)))

            def apart(source: Value = source, to: Value = to) -> None:
                with b.for_loop(i64(0), p.columns, unroll=False) as k:
                    line = b.gep(type, source, b.mul(k, p.column)), p.channel, b.gep(type, to, b.mul(k, p.to_column))
                    _copy_line(b, dtype, routines.target.vector_bytes // dtype.itemsize, *line, p.channels)

            b.if_else(dense, whole, apart)

    return routines.get(f"hloc.convolve_copy.{dtype.name}", params, write, stage=PLAIN)


def _copy_line(
    b: Builder, dtype: DType, lanes: int, source: Value, step: Value, target: Value, count: Value
) -> None:
    """Copies so many elements, which lie a `step` apart, to where they lie side by side."""
    type, align = scalar.memory_type(dtype), dtype.itemsize
    whole = b.select(b.icmp_signed("==", step, i64(1)), b.and_(count, i64(-lanes)), i64(0))
    with b.for_loop(i64(0), whole, lanes, vectorize=False, unroll=False) as at:
        value = b.load(vector_type(type, lanes), b.gep(type, source, at), align=align)
        b.store(value, b.gep(type, target, at), align=align)
    with b.for_loop(whole, count, vectorize=False, unroll=False) as at:
        b.store(b.load(type, b.gep(type, source, b.mul(at, step))), b.gep(type, target, at))


class _PositionsWriter:
    """Writes the body of a routine with parameters `p`; the sums of a tile are listed row by row."""

    def __init__(self, b: Builder, p: SimpleNamespace, tile: Tile):
        self.b, self.p, self.tile = b, p, tile
        self.vector, self.align = vector_type(tile.type, tile.lanes), tile.dtype.itemsize
        self.cells = [(i, v) for i in range(tile.rows) for v in range(tile.vectors)]

    def at(self, start: Value, offset: Value) -> Value:
        return self.b.gep(self.tile.type, start, offset)

    def write(self) -> None:
        b, p, tile = self.b, self.p, self.tile
        with b.for_loop(i64(0), p.panels, unroll=False) as panel:
            kernel = self.at(p.kernel, b.mul(panel, p.panel_kernel))
            sums = self.at(p.sums, b.mul(panel, p.panel_sums))
            with b.for_loop(i64(0), p.tiles, unroll=False) as number:
                places = b.gep("i64", p.places, b.mul(number, i64(tile.rows)))
                self.block(places, kernel, self.at(sums, b.mul(number, i64(tile.rows * tile.columns))))

    def block(self, places: Value, kernel: Value, sums: Value, source: _Source | None = None) -> None:
        """One tile. If there is a source, the panel comes from there, and is packed."""
        b, p, tile = self.b, self.p, self.tile
        targets = [self.at(sums, i64(i * tile.columns + v * tile.lanes)) for i, v in self.cells]
        starts = [self.at(p.image, b.load("i64", b.gep("i64", places, i64(i)))) for i in range(tile.rows)]
        first = b.if_else(
            p.adds,
            lambda: [b.load(self.vector, target, align=self.align) for target in targets],
            lambda: [zero(self.vector)] * len(targets),
        )

        def run(o: Value, values: list[Value]) -> list[Value]:
            offset = b.load("i64", b.gep("i64", p.offsets, o))
            rows = [self.at(start, offset) for start in starts]
            panel = self.at(kernel, b.mul(b.mul(o, p.run), i64(tile.columns)))
            weights = None if source is None else self.at(source.weights, b.load("i64", b.gep("i64", source.starts, o)))

            def step(s: Value, now: list[Value]) -> list[Value]:
                at = self.at(panel, b.mul(s, i64(tile.columns)))
                columns = self.columns(at) if weights is None else self.packed(at, weights, b.mul(s, source.step))
                return self.step(rows, columns, s, now)

            return b.for_loop_carrying(i64(0), p.run, values, step)

        for target, value in zip(targets, b.for_loop_carrying(i64(0), p.count, first, run), strict=True):
            b.store(value, target, align=self.align)

    def columns(self, line: Value) -> list[Value]:
        """A line of a panel."""
        places = [self.at(line, i64(v * self.tile.lanes)) for v in range(self.tile.vectors)]
        return [self.b.load(self.vector, place, align=self.align) for place in places]

    def packed(self, line: Value, weights: Value, offset: Value) -> list[Value]:
        """A line that is packed on its way; that of the next panel, behind it, is asked for."""
        b, tile = self.b, self.tile
        source = self.at(weights, offset)
        b.prefetch(self.at(source, i64(tile.columns)))
        columns = self.columns(source)
        for v, vector in enumerate(columns):
            b.store(vector, self.at(line, i64(v * tile.lanes)), align=self.align)
        return columns

    def step(self, rows: list[Value], columns: list[Value], s: Value, sums: list[Value]) -> list[Value]:
        """Adds one term to every sum."""
        b, tile = self.b, self.tile
        spread = [b.splat(b.load(tile.type, self.at(row, s)), tile.lanes) for row in rows]
        pairs = zip(self.cells, sums, strict=True)
        return [multiply_add(b, spread[i], columns[v], value) for (i, v), value in pairs]
