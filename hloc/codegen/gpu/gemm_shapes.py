"""How large a part of a product a block makes, and by which of its threads: tiles for every kind of kernel."""

from __future__ import annotations

from hloc.codegen.gpu.gemm_units import ROW_BYTES
from hloc.codegen.gpu.group_products import ROWS, WARPGROUP
from hloc.codegen.gpu.intrinsics import WARP
from hloc.ir.dtypes import DType
from hloc.records import NamedTuple

THIN_WARPS = 8

MOST_GROUP_STAGES = 8
"""Tiles that warpgroups have in shared memory at a time, at most."""

BARRIER_BYTES = 8


class Tile(NamedTuple):
    """A block's part of the result, `m` x `n`, made `k` steps at a time; `tm` x `tn` of it by each thread."""

    m: int
    n: int
    k: int
    tm: int
    tn: int

    @property
    def threads(self) -> int:
        return (self.m // self.tm) * (self.n // self.tn)


TILES: dict[int, tuple[Tile, ...]] = {
    1: (Tile(64, 64, 16, 4, 4), Tile(32, 32, 16, 4, 2)),
    4: (Tile(128, 128, 8, 8, 8), Tile(64, 64, 8, 8, 4), Tile(32, 32, 16, 4, 2), Tile(16, 64, 16, 2, 4)),
    8: (Tile(64, 64, 8, 4, 4), Tile(32, 32, 8, 4, 2), Tile(16, 64, 8, 2, 4)),
    16: (Tile(32, 32, 8, 2, 2),),
}
"""Bytes of an element that sums are made in -> tiles, the best one for large products first."""


class WarpTile(NamedTuple):
    """A block's part of the result, `m` x `n`, for matrix units: made by `down` x `across` warps."""

    m: int
    n: int
    down: int
    across: int

    @property
    def threads(self) -> int:
        return WARP * self.down * self.across

    @property
    def stage_bytes(self) -> int:
        """Shared memory of both operands' tiles."""
        return (self.m + self.n) * ROW_BYTES


WARP_TILES = (
    WarpTile(128, 256, 2, 4),
    WarpTile(128, 128, 2, 4),
    WarpTile(64, 128, 2, 2),
    WarpTile(64, 64, 2, 2),
    WarpTile(32, 64, 2, 2),
    WarpTile(16, 64, 1, 4),
)
WARP_TILES_OF_DOUBLES = (
    WarpTile(128, 64, 4, 2),
    WarpTile(64, 64, 2, 2),
    WarpTile(32, 32, 2, 2),
    WarpTile(16, 64, 1, 4),
)


class GroupTile(NamedTuple):
    """A block's part of the result, `n` columns of 64 rows by each of so many warpgroups that multiply (`wgmma`).

    Another one fetches for them. Sums leave by `slab` columns at a time.
    """

    groups: int
    n: int
    slab: int

    @property
    def m(self) -> int:
        return ROWS * self.groups

    @property
    def multiplying(self) -> int:
        """The threads that multiply."""
        return WARPGROUP * self.groups

    @property
    def threads(self) -> int:
        return self.multiplying + WARPGROUP

    @property
    def stage_bytes(self) -> int:
        """Shared memory of both operands' tiles."""
        return (self.m + self.n) * ROW_BYTES

    def other_bytes(self, dtype: DType) -> int:
        """Shared memory besides the stages: sums of a type on their way out, and two barriers a stage."""
        return self.m * (self.slab + 2 * padding(dtype)) * dtype.itemsize + 2 * BARRIER_BYTES * MOST_GROUP_STAGES


GROUP_TILES = (
    GroupTile(2, 256, 32),
    GroupTile(2, 128, 64),
    GroupTile(1, 256, 64),
    GroupTile(2, 64, 64),
    GroupTile(1, 128, 64),
    GroupTile(1, 64, 64),
)


class Columns(NamedTuple):
    """How a block makes a product of few rows: a thread has `columns` columns, and makes `width` steps at a time.

    `lanes` lanes of each of `warps` warps share the steps of the same columns: neighbours, if what lies together in
    memory does so along steps; else neighbours have columns side by side.
    """

    columns: int
    width: int
    lanes: int
    warps: int
    along_steps: bool

    @property
    def steps(self) -> int:
        """Steps that are made at a time."""
        return self.warps * self.lanes * self.width

    @property
    def block_columns(self) -> int:
        """Columns of a block."""
        return self.columns * (WARP // self.lanes) * (THIN_WARPS // self.warps)


def padding(dtype: DType) -> int:
    """Elements after each row of a tile, so that rows do not all begin in the same bank; 16 bytes."""
    return max(1, 16 // dtype.itemsize)
