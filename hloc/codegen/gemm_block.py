"""The innermost part of a matrix product: a block of the result, tile by tile, as a routine."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

from hloc.codegen.llvm import Builder, Function, Value, vector_type, zero
from hloc.codegen.pair_products import add_pairs
from hloc.codegen.products import added, multiply_add
from hloc.codegen.routines import PLAIN, Routines, i64, least
from hloc.codegen.tiles import Tile, unpack_routine
from hloc.records import NamedTuple, replace

_NARROW = 2
"""Vectors of the tiles of the last columns, at most."""


class Operand(NamedTuple):
    """Lines of an operand: rows of the left one, columns of the right one.

    The tile that begins with line i begins i * `line` elements behind `start`; in it, the next line lies `inner`
    elements further, the next step `step` elements. Tiles begin at line `last` at the latest: in place, the last one
    overlaps the one before it rather than to reach beyond the matrix.
    """

    start: Value
    line: Value
    inner: Value
    step: Value
    last: Value

    @staticmethod
    def packed(start: Value, width: int, lines: Value, steps: Value) -> Operand:
        """Panels of `width` lines."""
        return Operand(start, steps, i64(1), i64(width), lines)


def block_routine(routines: Routines, tile: Tile, is_level: bool = False) -> Function:
    """`block(...)`: c = a b, or that added to c, in the type of sums; see `multiply_block`.

    Where a tile would add to a result twice, operands must be packed. If it `is_level`, some tiles have a row less
    rather than that rows are computed in vain: the left operand must be in place.
    """
    params = (
        "ptr a, ptr b, ptr c, i64 a_line, i64 a_row, i64 a_step, i64 a_last, i64 b_line, i64 b_step, i64 b_last, "
        "i64 m, i64 n, i64 k, i64 c_row, i64 c_column, i1 accumulate"
    )
    name = f"hloc.gemm_block.{tile.name}" + (".level" if is_level else "")
    return routines.get(name, params, lambda b, p: _write_block(routines, b, p, tile, is_level), stage=PLAIN)


def multiply_block(
    b: Builder,
    routine: Function,
    operands: tuple[Operand, Operand],
    to: tuple[Value, Value, Value],
    sizes: tuple[Value, Value, Value],
    accumulate: Value,
) -> None:
    """Calls a block routine; `to` is c with its strides of rows and of columns, `sizes` are m, n and k in packed steps.

    Columns of the right operand lie side by side.
    """
    (a, a_line, a_row, a_step, a_last), (start, b_line, _, b_step, b_last) = operands
    c, c_row, c_column = to
    places = [a, start, c, a_line, a_row, a_step, a_last, b_line, b_step, b_last]
    b.call(routine, [*places, *sizes, c_row, c_column, accumulate])


def _write_block(routines: Routines, b: Builder, p: SimpleNamespace, tile: Tile, is_level: bool) -> None:
    """The body of a block routine."""
    tiles = _TileWriter(routines, b, p, tile, p.a_last)
    if not is_level:
        with (
            b.for_loop(i64(0), p.n, tile.columns, unroll=False) as column,
            b.for_loop(i64(0), p.m, tile.rows, unroll=False) as row,
        ):
            tiles.write(row, column)
        return
    lower = _TileWriter(routines, b, p, replace(tile, rows=tile.rows - 1), b.add(p.a_last, i64(1)))
    count = b.udiv(b.add(p.m, i64(tile.rows - 1)), i64(tile.rows))
    missing = b.sub(b.mul(count, i64(tile.rows)), p.m)
    whole = b.mul(b.sub(count, least(b, missing, count)), i64(tile.rows))
    with b.for_loop(i64(0), p.n, tile.columns, unroll=False) as column:
        with b.for_loop(i64(0), whole, tile.rows, unroll=False) as row:
            tiles.write(row, column)
        with b.for_loop(whole, p.m, tile.rows - 1, unroll=False) as row:
            lower.write(row, column)


class _TileWriter:
    """Writes tiles of a block with parameters `p`, which begin at row `last` at most; sums are listed row by row."""

    def __init__(self, routines: Routines, b: Builder, p: SimpleNamespace, tile: Tile, last: Value):
        self.b, self.p, self.tile, self.last = b, p, tile, last
        self.unpack = unpack_routine(routines, tile.dtype, tile.dtype, tile.lanes)
        self.vector, self.align = vector_type(tile.type, tile.lanes), tile.dtype.itemsize
        self.add = partial(add_pairs, target=routines.target) if tile.terms == 2 else multiply_add
        self.sums = b.alloca(self.vector, tile.rows * tile.vectors, align=64)

    def at(self, start: Value, offset: Value) -> Value:
        return self.b.gep(self.tile.type, start, offset)

    def write(self, row: Value, column: Value) -> None:
        """The tile at a row and a column; one of the last columns is narrower where that does."""
        b, p, tile = self.b, self.p, self.tile
        i, j = least(b, row, self.last), least(b, column, p.b_last)
        address = self.at(p.c, b.add(b.mul(i, p.c_row), b.mul(j, p.c_column)))
        for line in range(tile.rows):
            for lane in range(0, tile.columns, max(64 // self.align, 1)):
                b.prefetch(self.at(address, b.add(b.mul(p.c_row, i64(line)), i64(lane))), write=True)
        places = self.at(p.a, b.mul(i, p.a_line)), self.at(p.b, b.mul(j, p.b_line)), address
        sizes = b.sub(p.m, i), b.sub(p.n, j)
        if tile.vectors <= _NARROW:
            self.tile_of(tile.vectors, places, sizes)
        else:
            b.if_else(
                b.icmp_signed("<=", sizes[1], i64(_NARROW * tile.lanes)),
                lambda: self.tile_of(_NARROW, places, sizes),
                lambda: self.tile_of(tile.vectors, places, sizes),
            )

    def tile_of(self, vectors: int, places: tuple[Value, Value, Value], sizes: tuple[Value, Value]) -> None:
        """A tile of so many vectors; `sizes` are the rows and columns that are left."""
        a, start, address = places
        self.store(self.tile_sums(a, start, vectors), address, *sizes, vectors)

    def tile_sums(self, a: Value, start: Value, vectors: int) -> list[Value]:
        b, p, tile = self.b, self.p, self.tile

        def step(s: Value, sums: list[Value]) -> list[Value]:
            b_at, a_at = self.at(start, b.mul(s, p.b_step)), self.at(a, b.mul(s, p.a_step))
            parts = [self.at(b_at, i64(v * tile.lanes)) for v in range(vectors)]
            columns = [b.load(self.vector, part, align=self.align) for part in parts]
            rows = [b.load(tile.type, self.at(a_at, b.mul(p.a_row, i64(i)))) for i in range(tile.rows)]
            spread = [b.splat(row, tile.lanes) for row in rows]
            pairs = [(row, column) for row in spread for column in columns]
            return [self.add(b, x, y, value) for (x, y), value in zip(pairs, sums, strict=True)]

        zeros = [zero(self.vector)] * (tile.rows * vectors)
        hints = b.module.loop_metadata(vectorize=False, unroll=False, align=64)
        return b.for_loop_carrying(0, p.k, zeros, step, metadata=hints)

    def store(self, sums: list[Value], address: Value, rows: Value, columns: Value, vectors: int) -> None:
        """Straight into the result where the tile is whole and its rows contiguous, else by way of memory."""
        b, p, tile = self.b, self.p, self.tile
        width = i64(vectors * tile.lanes)
        whole = b.and_(b.icmp_signed(">=", rows, i64(tile.rows)), b.icmp_signed(">=", columns, width))
        direct = b.and_(whole, b.icmp_signed("==", p.c_column, i64(1)))
        start, stride = b.select(direct, address, self.sums), b.select(direct, p.c_row, width)
        offsets = [(b.mul(stride, i64(i)), i64(v * tile.lanes)) for i in range(tile.rows) for v in range(vectors)]
        places = [self.at(start, b.add(line, column)) for line, column in offsets]

        def total() -> list[Value]:
            there = [b.load(self.vector, place, align=self.align) for place in places]
            return [added(b, x, y) for x, y in zip(there, sums, strict=True)]

        values = b.if_else(b.and_(direct, p.accumulate), total, lambda: sums)
        for place, value in zip(places, values, strict=True):
            b.store(value, place, align=self.align)
        with b.if_then(b.not_(direct)):
            sizes = least(b, rows, i64(tile.rows)), least(b, columns, width)
            b.call(self.unpack, [self.sums, address, *sizes, width, p.c_row, p.c_column, p.accumulate])
