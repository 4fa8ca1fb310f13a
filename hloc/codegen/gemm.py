"""Matrix products of any size and strides, as routines.

The scheme is that of Goto and van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008): blocks
of both operands are packed into scratch in the order in which a small tile of the result, held in vector
registers, reads them. An operand that the caches hold anyway is read in place. The terms of each sum are added in
the order of the contracted index, block by block.

Sizes and strides are i64, strides count elements. Operands of any real type are converted to the type in
which sums are made as they are packed.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

from hloc.codegen import scalar
from hloc.codegen.gemm_block import Operand, block_routine, multiply_block
from hloc.codegen.llvm import Builder, Function, Value, integer
from hloc.codegen.packing import TOGETHER, pack_routine
from hloc.codegen.pair_packing import pack_pairs_routine
from hloc.codegen.routines import QUICK, Routines, blocks, i64
from hloc.codegen.tiles import Tile, unpack_routine
from hloc.ir.dtypes import DType
from hloc.records import record, replace

GROUP = 96
"""Columns of a block of results that are finished together, whole tiles: such a block stays in the innermost cache."""

IN_PLACE = "place"
"""An operand that is not packed: beside the orders of `packing`, what is known of where an operand lies."""

PANELS = "panels"
"""A right operand that lies in panels of a tile's columns, step by step, as it would be packed."""

_STEPS = 384
"""Terms that are summed at a time: so long a panel of the right operand stays in the innermost cache."""

ALONE = 512
"""Terms up to which all are summed at a time: no sums over some of them have to be kept."""

_TILES = 16
"""Tiles along the rows of a packed block of the left operand, which stays in the second cache."""

_PART = 10
"""Blocks of rows for which sums are kept until they are complete."""

_SECOND, _THIRD = 1 << 19, 1 << 21
"""Bytes of a packed block of the right operand: few rows use it once, from the second cache, many from the third."""


def gemm_routine(
    routines: Routines, types: tuple[DType, DType, DType], tile: Tile, orders: tuple[str, str]
) -> Function:
    """`gemm(...)`: c = a b or -a b, or that added to c, over packed blocks of the given sizes.

    `types` are those of a, b and c, `orders` how a and b lie. Blocks are whole tiles; see `GemmPlan` for sizes and
    scratch. A result of another type than that of sums is only made anew. If b `is_packed`, as one block, it is as an
    earlier call has left it in scratch.
    """
    params = (
        "ptr a, ptr b, ptr c, i64 m, i64 n, i64 k, i64 a_row, i64 a_step, i64 b_column, i64 b_step, "
        "i64 c_row, i64 c_column, i64 m_block, i64 n_block, i64 k_block, i64 m_part, ptr scratch, i1 negate, "
        "i1 accumulate, i1 is_packed"
    )
    name = ".".join(["hloc.gemm", *(dtype.name for dtype in types), tile.name, *filter(None, orders)])
    return routines.get(name, params, lambda b, p: Gemm(routines, b, p, types, tile, orders).write(), stage=QUICK)


Extent = tuple[Value, Value]
"""The first index of a range, and how many there are."""


class Parts(NamedTuple):
    """Sums over earlier steps: where that of the first row and column is, and the strides."""

    start: Value
    row: Value
    column: Value


class Gemm:
    """Writes a product with the parameters `p` of `gemm_routine`, there or in a kernel of its own.

    A kernel may pack operands in its own way: `pack_a` and `pack_b` are called with the rows or columns, the steps,
    and the address of the packed block. With a `finish`, the sums over the last steps go to p.block, m_block rows of
    GROUP elements, and finish(rows, columns, parts) is called for each such block, with the sums over earlier steps,
    if there are any (`p.splits`). Those are in c; if a plan `keeps` sums, they are in scratch until they are complete.
    """

    def __init__(
        self,
        routines: Routines,
        b: Builder,
        p: SimpleNamespace,
        types: tuple[DType, DType, DType],
        tile: Tile,
        orders: tuple[str, str],
        keeps: bool | None = None,
        pack_a: Callable[[Extent, Extent, Value], None] | None = None,
        pack_b: Callable[[Extent, Extent, Value], None] | None = None,
        finish: Callable[[Extent, Extent, Parts | None], None] | None = None,
    ):
        self.routines, self.b, self.p, self.tile, self.finish = routines, b, p, tile, finish
        self.lhs, self.rhs, self.out = types
        self.a_order, self.b_order = orders
        self.keeps = self.out is not tile.dtype if keeps is None else keeps
        self.pack_a, self.pack_b = pack_a or self._pack_a, pack_b or self._pack_b
        self.packs_b = self.b_order not in (IN_PLACE, PANELS)
        self.block = block_routine(routines, tile, self.a_order == IN_PLACE and self.b_order == PANELS)

    def packed(self, steps: Value) -> Value:
        """How many packed steps so many steps are."""
        return steps if self.tile.terms == 1 else self.b.lshr(self.b.add(steps, i64(1)), i64(1))

    def write(self) -> None:
        b, p, size = self.b, self.p, i64(self.tile.dtype.itemsize // self.tile.terms)
        b_bytes = b.mul(b.mul(p.n_block, p.k_block), size) if self.packs_b else i64(0)
        a_bytes = i64(0) if self.a_order == IN_PLACE else b.mul(b.mul(p.m_block, p.k_block), size)
        self.b_packed = p.scratch
        self.a_packed = b.gep("i8", p.scratch, b_bytes)
        self.kept = b.gep("i8", self.a_packed, a_bytes)
        if not self.keeps:
            self._part((i64(0), p.m))
            return
        with blocks(b, p.m, p.m_part) as part:
            self._part(part)

    def _part(self, part: Extent) -> None:
        """Some rows of the result."""
        b, p = self.b, self.p
        with blocks(b, p.n, p.n_block) as columns, blocks(b, p.k, p.k_block) as steps:
            if self.packs_b:
                with b.if_then(b.not_(p.is_packed)):
                    self.pack_b(columns, steps, self.b_packed)
            with blocks(b, part[1], p.m_block) as (first, count):
                rows = b.add(part[0], first), count
                if self.a_order != IN_PLACE:
                    self.pack_a(rows, steps, self.a_packed)
                self._rows(rows, columns, steps, self._parts(rows, columns, first))

    def _parts(self, rows: Extent, columns: Extent, first: Value) -> Parts:
        """Where sums of a block are, of which `first` is the first row in its part."""
        b, p = self.b, self.p
        if self.keeps:
            offset = b.mul(first, p.n_block)
            return Parts(b.gep(self.tile.type, self.kept, offset), p.n_block, i64(1))
        offset = b.add(b.mul(rows[0], p.c_row), b.mul(columns[0], p.c_column))
        return Parts(b.gep(self.tile.type, p.c, offset), p.c_row, p.c_column)

    def _rows(self, rows: Extent, columns: Extent, steps: Extent, parts: Parts) -> None:
        b, p = self.b, self.p
        complete = b.icmp_signed("==", b.add(*steps), p.k)
        if self.finish is None:
            self._sum(rows, columns, steps, parts)
            if self.keeps:
                with b.if_then(complete):
                    self._convert(rows, columns, parts)
        elif p.splits:
            b.if_else(
                complete,
                lambda: self._groups(rows, columns, steps, parts),
                lambda: self._sum(rows, columns, steps, parts),
            )
        else:
            self._groups(rows, columns, steps, None)

    def _groups(self, rows: Extent, columns: Extent, steps: Extent, parts: Parts | None) -> None:
        """A block whose sums are complete with it, some columns at a time."""
        b, p = self.b, self.p
        with blocks(b, columns[1], i64(GROUP)) as (first, count):
            group = b.add(columns[0], first), count
            places = self._left(rows, steps), self._right(group, steps, first)
            self._multiply(places, Parts(p.block, i64(GROUP), i64(1)), (rows[1], count, steps[1]), integer("i1", 0))
            if parts is not None:
                start = b.gep(self.tile.type, parts.start, b.mul(first, parts.column))
                parts = Parts(start, parts.row, parts.column)
            self.finish(rows, group, parts)

    def _sum(self, rows: Extent, columns: Extent, steps: Extent, parts: Parts) -> None:
        """Adds a block's products over some steps to the sums, of which there are none before the first step."""
        b = self.b
        adds = b.icmp_signed(">", steps[0], i64(0))
        if not self.keeps:
            adds = b.or_(self.p.accumulate, adds)
        places = self._left(rows, steps), self._right(columns, steps, i64(0))
        self._multiply(places, parts, (rows[1], columns[1], steps[1]), adds)

    def _multiply(
        self, places: tuple[Operand, Operand], to: Parts, sizes: tuple[Value, Value, Value], adds: Value
    ) -> None:
        multiply_block(self.b, self.block, places, to, (*sizes[:2], self.packed(sizes[2])), adds)

    def _left(self, rows: Extent, steps: Extent) -> Operand:
        b, p = self.b, self.p
        if self.a_order != IN_PLACE:
            return Operand.packed(self.a_packed, self.tile.rows, rows[1], self.packed(steps[1]))
        offset = b.add(b.mul(rows[0], p.a_row), b.mul(steps[0], p.a_step))
        last = b.sub(rows[1], i64(self.tile.rows))
        return Operand(b.gep(self.tile.type, p.a, offset), p.a_row, p.a_row, p.a_step, last)

    def _right(self, columns: Extent, steps: Extent, first: Value) -> Operand:
        """The right operand; `first` is the first column within the packed block."""
        b, p = self.b, self.p
        if self.b_order == PANELS:
            offset = b.add(b.mul(columns[0], p.b_column), b.mul(steps[0], p.b_step))
            return Operand(b.gep(self.tile.type, p.b, offset), p.b_column, i64(1), p.b_step, columns[1])
        if self.packs_b:
            depth = self.packed(steps[1])
            start = b.gep(self.tile.type, self.b_packed, b.mul(first, depth))
            return Operand.packed(start, self.tile.columns, columns[1], depth)
        offset = b.add(columns[0], b.mul(steps[0], p.b_step))
        last = b.sub(columns[1], i64(self.tile.columns))
        return Operand(b.gep(self.tile.type, p.b, offset), i64(1), i64(1), p.b_step, last)

    def _convert(self, rows: Extent, columns: Extent, parts: Parts) -> None:
        """Complete sums become results."""
        b, p = self.b, self.p
        offset = b.add(b.mul(rows[0], p.c_row), b.mul(columns[0], p.c_column))
        address = b.gep(scalar.memory_type(self.out), p.c, offset)
        unpack = unpack_routine(self.routines, self.tile.dtype, self.out, self.tile.lanes)
        b.call(unpack, [parts.start, address, rows[1], columns[1], parts.row, p.c_row, p.c_column, integer("i1", 0)])

    def _pack_a(self, rows: Extent, steps: Extent, target: Value) -> None:
        p = self.p
        strides = p.a_row, p.a_step
        self._pack(p.a, self.lhs, self.tile.rows, self.a_order, (rows, steps), strides, target, p.negate)

    def _pack_b(self, columns: Extent, steps: Extent, target: Value) -> None:
        p = self.p
        strides, no = (p.b_column, p.b_step), integer("i1", 0)
        self._pack(p.b, self.rhs, self.tile.columns, self.b_order, (columns, steps), strides, target, no)

    def _pack(
        self,
        start: Value,
        dtype: DType,
        width: int,
        order: str,
        extents: tuple[Extent, Extent],
        strides: tuple[Value, Value],
        target: Value,
        negate: Value,
    ) -> None:
        b, (lines, steps) = self.b, extents
        offset = b.add(b.mul(lines[0], strides[0]), b.mul(steps[0], strides[1]))
        source = b.gep(scalar.memory_type(dtype), start, offset)
        if self.tile.terms == 2:
            pack = pack_pairs_routine(self.routines, dtype, width, self.tile.lanes, order)
            b.call(pack, [source, target, lines[1], steps[1], *strides])
            return
        pack = pack_routine(self.routines, dtype, self.tile.dtype, width, self.tile.lanes, order)
        b.call(pack, [source, target, lines[1], steps[1], *strides, i64(width), negate])


@record
class GemmPlan:
    """The tile and the block sizes for a product of m x k by k x n; sums of m_part rows are kept, if any are.

    Blocks have whole tiles, and whole packed steps.
    """

    tile: Tile
    m_block: int
    n_block: int
    k_block: int
    m_part: int = 0

    @staticmethod
    def of(
        m: int,
        n: int,
        k: int,
        dtype: DType,
        vector_bytes: int,
        keeps: bool = False,
        broad: bool = False,
        terms: int = 1,
        width: int = 0,
    ) -> GemmPlan:
        """`dtype` is the summing type; `keeps` says whether sums over some steps have to be kept in scratch, `broad`
        whether tiles may leave a single register free, `terms` how many a packed step has, `width` how many columns a
        tile must have, if it must.
        """
        lanes = max(vector_bytes // dtype.itemsize, 2)
        tile = _tile_of_width(m, width, dtype, lanes) if width else _tile(m, n, dtype, lanes, broad)
        tile = replace(tile, terms=terms)
        k_block = _even(k, 8 * terms, (ALONE if k <= ALONE else _STEPS) // 8)
        m_block = _block(m, tile.rows)
        room = (_SECOND if keeps or m <= 2 * m_block else _THIRD) // (k_block * dtype.itemsize // terms)
        panels = TOGETHER if n > TOGETHER * tile.columns else 1
        n_block = _even(n, panels * tile.columns, max(room // (panels * tile.columns), 1))
        part = min(_PART * m_block, _whole(m, tile.rows)) if keeps else 0
        return GemmPlan(tile, m_block, n_block, k_block, part)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the packed blocks of both operands, and of the sums that are kept."""
        elements = (self.m_block + self.n_block) * self.k_block // self.tile.terms + self.m_part * self.n_block
        return elements * self.tile.dtype.itemsize


def _tile(m: int, n: int, dtype: DType, lanes: int, broad: bool) -> Tile:
    """Of two tiles with twelve vectors of sums the broader one, if it may be, unless it leaves more of the last tiles
    unused: it takes fewer loads a step, and so leaves more to whoever else runs on the same core.
    """
    if n <= lanes:
        return Tile(dtype, 4 if _whole(m, 4) < _whole(m, 6) else 6, 1, lanes)
    rest = n % (3 * lanes)
    this = _whole(m, 4) * (n - rest + (_whole(rest, 2 * lanes) if rest <= 2 * lanes else 3 * lanes))
    other = _whole(m, 6) * _whole(n, 2 * lanes)
    return Tile(dtype, 4, 3, lanes) if broad and this <= 1.02 * other else Tile(dtype, 6, 2, lanes)


def _tile_of_width(m: int, width: int, dtype: DType, lanes: int) -> Tile:
    """A tile with twelve vectors of sums, of so many columns, or with all rows if these are fewer."""
    vectors = width // lanes
    return Tile(dtype, min(12 // vectors, m), vectors, lanes)


def _whole(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _block(m: int, rows: int) -> int:
    """Rows of a packed block: as even as may be, and in a number of blocks that threads can share evenly."""
    tiles = -(-m // rows)
    if tiles < 4 * _TILES:
        return _even(m, rows, _TILES)
    return rows * next((n for n in range(_TILES, _TILES // 2, -1) if -(-tiles // n) % 4 == 0), _TILES)


def _even(size: int, unit: int, most: int) -> int:
    """The size of blocks, of `most` units at most, such that the last one is little smaller than the others."""
    units = -(-size // unit)
    return -(-units // -(-units // most)) * unit
