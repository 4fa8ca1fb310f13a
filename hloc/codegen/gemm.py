"""Matrix products of any size and strides, as routines.

The scheme is that of Goto and van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008): blocks
of both operands are packed into scratch in the order in which a small tile of the result, held in vector
registers, reads them. The terms of each sum are added in the order of the contracted index.

Sizes and strides are i64, strides count elements. Operands of any real type are converted to the type in
which sums are made as they are packed.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, integer, vector_type
from hloc.codegen.routines import Routines, blocks, i64, least
from hloc.codegen.tiles import Tile, pack_routine, tile_routine, unpack_routine
from hloc.ir.dtypes import DType
from hloc.records import record


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
    return routines.get(name, params, lambda b, p: _write_gemm(b, _Pieces(routines, lhs, rhs, out, tile), p))


class _Pieces:
    """The routines that a gemm calls."""

    def __init__(self, routines: Routines, lhs: DType, rhs: DType, out: DType, tile: Tile):
        self.tile, self.out = tile, out
        self.compute = tile_routine(routines, tile)
        self.pack_a = pack_routine(routines, lhs, tile.dtype, tile.rows)
        self.pack_b = pack_routine(routines, rhs, tile.dtype, tile.columns)
        self.unpack = unpack_routine(routines, tile.dtype, out)
        self.lhs_type, self.rhs_type, self.out_type = (scalar.memory_type(t) for t in (lhs, rhs, out))
        self.no_offset = routines.module.constant_bytes(bytes(8), align=8)


def _write_gemm(b: Builder, pieces: _Pieces, p: SimpleNamespace) -> None:
    tile = pieces.tile
    sums = b.alloca(vector_type(tile.type, tile.lanes), tile.rows * tile.vectors, align=64)
    b_packed = p.scratch
    a_packed = b.gep("i8", p.scratch, b.mul(b.mul(p.n_block, p.k_block), i64(tile.dtype.itemsize)))
    no = integer("i1", 0)
    with blocks(b, p.n, p.n_block) as (column, columns), blocks(b, p.k, p.k_block) as (step, steps):
        start = b.add(b.mul(column, p.b_column), b.mul(step, p.b_step))
        b.call(
            pieces.pack_b,
            [b.gep(pieces.rhs_type, p.b, start), b_packed, columns, steps, p.b_column, p.b_step, no],
        )
        adds = b.or_(p.accumulate, b.icmp_signed(">", step, i64(0)))
        with blocks(b, p.m, p.m_block) as (row, rows):
            start = b.add(b.mul(row, p.a_row), b.mul(step, p.a_step))
            b.call(
                pieces.pack_a,
                [b.gep(pieces.lhs_type, p.a, start), a_packed, rows, steps, p.a_row, p.a_step, p.negate],
            )
            with b.for_loop(i64(0), columns, tile.columns) as j, b.for_loop(i64(0), rows, tile.rows) as i:
                _write_tile(
                    b,
                    pieces,
                    p,
                    _TilePlace(
                        b.gep(tile.type, a_packed, b.mul(i, steps)),
                        b.gep(tile.type, b_packed, b.mul(j, steps)),
                        steps,
                        b.add(row, i),
                        b.add(column, j),
                        least(b, i64(tile.rows), b.sub(rows, i)),
                        least(b, i64(tile.columns), b.sub(columns, j)),
                        sums,
                        adds,
                    ),
                )


class _TilePlace(NamedTuple):
    """Where one tile reads and writes: panels, first row and column of the result, and how many are real."""

    a_panel: Value
    b_panel: Value
    steps: Value
    row: Value
    column: Value
    rows: Value
    columns: Value
    sums: Value
    accumulate: Value


def _write_tile(b: Builder, pieces: _Pieces, p: SimpleNamespace, at: _TilePlace) -> None:
    """One tile: straight into the result where it is whole and its rows contiguous, else by way of `sums`."""
    tile = pieces.tile
    address = b.gep(pieces.out_type, p.c, b.add(b.mul(at.row, p.c_row), b.mul(at.column, p.c_column)))

    def compute(target: Value, stride: Value, accumulate: Value) -> None:
        b.call(
            pieces.compute,
            [
                at.a_panel,
                i64(1),
                i64(tile.rows),
                at.b_panel,
                at.steps,
                pieces.no_offset,
                i64(1),
                target,
                stride,
                accumulate,
            ],
        )

    def by_way_of_sums() -> None:
        compute(at.sums, i64(tile.columns), integer("i1", 0))
        b.call(
            pieces.unpack,
            [at.sums, address, at.rows, at.columns, i64(tile.columns), p.c_row, p.c_column, at.accumulate],
        )

    if pieces.out is not tile.dtype:
        return by_way_of_sums()
    whole = b.and_(
        b.icmp_signed("==", at.rows, i64(tile.rows)), b.icmp_signed("==", at.columns, i64(tile.columns))
    )
    direct = b.and_(whole, b.icmp_signed("==", p.c_column, i64(1)))
    b.if_else(direct, lambda: compute(address, p.c_row, at.accumulate), by_way_of_sums)


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
