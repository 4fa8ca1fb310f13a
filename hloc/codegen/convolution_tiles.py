"""Blocks of a convolution's results, tile by tile: products of rows that lie anywhere in an image, as a routine.

Strides and sizes are i64 and count elements.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen.llvm import Builder, Function, Value, vector_type, zero
from hloc.codegen.products import multiply_add
from hloc.codegen.routines import Routines, i64
from hloc.codegen.tiles import Tile


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
    return routines.get(f"hloc.convolve.{tile.name}", params, lambda b, p: _PositionsWriter(b, p, tile).write())


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

    def block(self, places: Value, kernel: Value, sums: Value) -> None:
        """One tile."""
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
            return b.for_loop_carrying(i64(0), p.run, values, lambda s, now: self.step(rows, panel, s, now))

        for target, value in zip(targets, b.for_loop_carrying(i64(0), p.count, first, run), strict=True):
            b.store(value, target, align=self.align)

    def step(self, rows: list[Value], panel: Value, s: Value, sums: list[Value]) -> list[Value]:
        """Adds one term to every sum."""
        b, tile = self.b, self.tile
        start = self.at(panel, b.mul(s, i64(tile.columns)))
        columns = [
            b.load(self.vector, self.at(start, i64(v * tile.lanes)), align=self.align) for v in range(tile.vectors)
        ]
        spread = [b.splat(b.load(tile.type, self.at(row, s)), tile.lanes) for row in rows]
        pairs = zip(self.cells, sums, strict=True)
        return [multiply_add(b, spread[i], columns[v], value) for (i, v), value in pairs]
