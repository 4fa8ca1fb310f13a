"""Matrix products of any size and strides, as routines.

The scheme is that of Goto and van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008): blocks
of both operands are packed into scratch in the order in which a small tile of the result, held in vector
registers, reads them. The terms of each sum are added in the order of the contracted index.

Sizes and strides are i64, strides count elements. Operands of any real type are converted to the type in
which sums are made as they are packed.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, integer, vector_type
from hloc.codegen.routines import Routines, blocks, i64, least
from hloc.codegen.tiles import Tile, pack_routine, tile_routine, unpack_routine
from hloc.ir.dtypes import DType
from hloc.records import record

GROUP = 64
"""Columns of a block of results that are finished together: such a block stays in the innermost cache."""


def gemm_routine(routines: Routines, lhs: DType, rhs: DType, out: DType, tile: Tile) -> Function:
    """`gemm(...)`: c = a b or -a b, or that added to c, over packed blocks of the given sizes.

    Blocks are whole tiles; where the result is not of the summing type, k_block must be all of k. `scratch`
    holds a block of b and one of a; see `GemmPlan`.
    """
    params = (
        "ptr a, ptr b, ptr c, i64 m, i64 n, i64 k, i64 a_row, i64 a_step, i64 b_column, i64 b_step, "
        "i64 c_row, i64 c_column, i64 m_block, i64 n_block, i64 k_block, ptr scratch, i1 negate, "
        "i1 accumulate"
    )
    name = f"hloc.gemm.{lhs.name}.{rhs.name}.{out.name}.{tile.name}"
    return routines.get(name, params, lambda b, p: Gemm(routines, b, p, (lhs, rhs, out), tile).write())


Extent = tuple[Value, Value]
"""The first index of a range, and how many there are."""


class Gemm:
    """Writes a packed product with the parameters `p` of `gemm_routine`, there or in a kernel of its own.

    A kernel may pack operands in its own way: `pack_a` and `pack_b` are called with the rows or columns, the steps,
    and the address of the packed block. With a `finish`, the sums over the last steps go to p.block, m_block rows of
    GROUP elements, and finish(rows, columns) is called for each such block; sums over earlier steps, if there are
    any (`p.splits`), are in c then.
    """

    def __init__(
        self,
        routines: Routines,
        b: Builder,
        p: SimpleNamespace,
        types: tuple[DType, DType, DType],
        tile: Tile,
        pack_a: Callable[[Extent, Extent, Value], None] | None = None,
        pack_b: Callable[[Extent, Extent, Value], None] | None = None,
        finish: Callable[[Extent, Extent], None] | None = None,
    ):
        self.routines, self.b, self.p, self.tile, self.finish = routines, b, p, tile, finish
        self.lhs, self.rhs, self.out = types
        self.pack_a, self.pack_b = pack_a or self._pack_a, pack_b or self._pack_b

    def write(self) -> None:
        b, p = self.b, self.p
        b_packed = p.scratch
        block_bytes = b.mul(b.mul(p.n_block, p.k_block), i64(self.tile.dtype.itemsize))
        a_packed = b.gep("i8", p.scratch, block_bytes)
        with blocks(b, p.n, p.n_block) as columns, blocks(b, p.k, p.k_block) as steps:
            self.pack_b(columns, steps, b_packed)
            with blocks(b, p.m, p.m_block) as rows:
                self.pack_a(rows, steps, a_packed)
                packed = a_packed, b_packed
                if self.finish is None:
                    self._block(packed, rows, columns, steps)
                elif p.splits:
                    complete = b.icmp_signed("==", b.add(*steps), p.k)
                    with b.if_then(complete):
                        self._groups(packed, rows, columns, steps)
                    with b.if_then(b.not_(complete)):
                        self._block(packed, rows, columns, steps)
                else:
                    self._groups(packed, rows, columns, steps)

    def _groups(self, packed: tuple[Value, Value], rows: Extent, columns: Extent, steps: Extent) -> None:
        """A block whose sums are complete with it, some columns at a time."""
        b, p = self.b, self.p
        a_packed, b_packed = packed
        routine = block_routine(self.routines, self.tile.dtype, self.tile)
        with blocks(b, columns[1], i64(GROUP)) as (first, count):
            panels = b.gep(self.tile.type, b_packed, b.mul(first, steps[1]))
            sizes = [rows[1], count, steps[1], i64(GROUP), i64(1), integer("i1", 0)]
            b.call(routine, [a_packed, panels, p.block, *sizes])
            self.finish(rows, (b.add(columns[0], first), count))

    def _block(self, packed: tuple[Value, Value], rows: Extent, columns: Extent, steps: Extent) -> None:
        b, p = self.b, self.p
        offset = b.add(b.mul(rows[0], p.c_row), b.mul(columns[0], p.c_column))
        address = b.gep(scalar.memory_type(self.out), p.c, offset)
        adds = b.or_(p.accumulate, b.icmp_signed(">", steps[0], i64(0)))
        routine = block_routine(self.routines, self.out, self.tile)
        b.call(routine, [*packed, address, rows[1], columns[1], steps[1], p.c_row, p.c_column, adds])

    def _pack_a(self, rows: Extent, steps: Extent, target: Value) -> None:
        b, p = self.b, self.p
        start = b.add(b.mul(rows[0], p.a_row), b.mul(steps[0], p.a_step))
        pack = pack_routine(self.routines, self.lhs, self.tile.dtype, self.tile.rows)
        source = b.gep(scalar.memory_type(self.lhs), p.a, start)
        b.call(pack, [source, target, rows[1], steps[1], p.a_row, p.a_step, p.negate])

    def _pack_b(self, columns: Extent, steps: Extent, target: Value) -> None:
        b, p = self.b, self.p
        start = b.add(b.mul(columns[0], p.b_column), b.mul(steps[0], p.b_step))
        pack = pack_routine(self.routines, self.rhs, self.tile.dtype, self.tile.columns)
        source = b.gep(scalar.memory_type(self.rhs), p.b, start)
        b.call(pack, [source, target, columns[1], steps[1], p.b_column, p.b_step, integer("i1", 0)])


def block_routine(routines: Routines, out: DType, tile: Tile) -> Function:
    """`block(a, b, c, m, n, k, c_row, c_column, accumulate)`: c = a b of packed operands, or added to c."""
    params = "ptr a, ptr b, ptr c, i64 m, i64 n, i64 k, i64 c_row, i64 c_column, i1 accumulate"
    name = f"hloc.gemm_block.{out.name}.{tile.name}"
    return routines.get(name, params, lambda b, p: _BlockWriter(routines, b, p, out, tile).write())


class _BlockWriter:
    """Writes the body of a block routine: tile by tile."""

    def __init__(self, routines: Routines, b: Builder, p: SimpleNamespace, out: DType, tile: Tile):
        self.b, self.p, self.out, self.tile = b, p, out, tile
        self.compute, self.unpack = tile_routine(routines, tile), unpack_routine(routines, tile.dtype, out)
        self.no_offset = b.module.constant_bytes(bytes(8), align=8)
        self.sums = b.alloca(vector_type(tile.type, tile.lanes), tile.rows * tile.vectors, align=64)

    def write(self) -> None:
        b, p, tile = self.b, self.p, self.tile
        with b.for_loop(i64(0), p.n, tile.columns) as j, b.for_loop(i64(0), p.m, tile.rows) as i:
            panels = b.gep(tile.type, p.a, b.mul(i, p.k)), b.gep(tile.type, p.b, b.mul(j, p.k))
            offset = b.add(b.mul(i, p.c_row), b.mul(j, p.c_column))
            address = b.gep(scalar.memory_type(self.out), p.c, offset)
            rows, columns = (
                least(b, i64(size), b.sub(end, at))
                for size, end, at in ((tile.rows, p.m, i), (tile.columns, p.n, j))
            )
            self._tile(panels, address, rows, columns)

    def _tile(self, panels: tuple[Value, Value], address: Value, rows: Value, columns: Value) -> None:
        """One tile: straight into the result where it is whole and its rows contiguous, else by way of `sums`."""
        b, p, tile = self.b, self.p, self.tile

        def compute(target: Value, stride: Value, accumulate: Value) -> None:
            a_panel, b_panel = panels
            places = [a_panel, i64(1), i64(tile.rows), b_panel, p.k, self.no_offset, i64(1)]
            b.call(self.compute, [*places, target, stride, accumulate])

        def by_way_of_sums() -> None:
            compute(self.sums, i64(tile.columns), integer("i1", 0))
            sizes = [rows, columns, i64(tile.columns), p.c_row, p.c_column]
            b.call(self.unpack, [self.sums, address, *sizes, p.accumulate])

        if self.out is not tile.dtype:
            return by_way_of_sums()
        whole = b.and_(
            b.icmp_signed("==", rows, i64(tile.rows)), b.icmp_signed("==", columns, i64(tile.columns))
        )
        direct = b.and_(whole, b.icmp_signed("==", p.c_column, i64(1)))
        b.if_else(direct, lambda: compute(address, p.c_row, p.accumulate), by_way_of_sums)


@record
class GemmPlan:
    """The tile and the block sizes for a product of m x k by k x n."""

    tile: Tile
    m_block: int
    n_block: int
    k_block: int

    @staticmethod
    def of(m: int, n: int, k: int, dtype: DType, vector_bytes: int, split: bool) -> GemmPlan:
        """`dtype` is the summing type; `split` says whether the result is of it too, so that k may be cut."""
        lanes = max(vector_bytes // dtype.itemsize, 2)
        rows = 4 if m <= 4 or m in (7, 8) else 6
        tile = Tile(dtype, rows, 2 if n > lanes else 1, lanes)
        k_block = min(k, 256) if split else k
        m_block = min(-(-m // rows), 16) * rows
        room = max((1 << 21) // (k_block * dtype.itemsize), 1)
        n_block = min(-(-n // tile.columns), max(room // tile.columns, 1)) * tile.columns
        return GemmPlan(tile, m_block, n_block, k_block)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the packed blocks of both operands."""
        return (self.m_block + self.n_block) * self.k_block * self.tile.dtype.itemsize
