"""How a dot is computed on a device: in which kind of kernel, in tiles of which size, and by how many blocks.

A product is c[m, n] = sum over k of a[m, k] b[k, n] for each index of the batch dimensions, as `DotPlan` has it. Tiles
are chosen so that the grid fills a large device; where there are too few of them, the sums are split along k over
several blocks (split-K), whose parts a second launch adds in order.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from hloc.codegen.dot_plan import DotPlan
from hloc.codegen.epilogue import Epilogue
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction

PLAIN, THIN, TILED = "plain", "thin", "tiled"

THIN_ROWS = 8
"""Products of at most so many rows read their matrix once, bound by memory."""

BLOCKS = 132
"""Blocks that keep a large device busy: it has so many multiprocessors."""

_MOST_SPLITS = 64
_LEAST_STEPS = 256
"""Steps of a sum below which splitting it does not pay."""

_PLAIN_STEPS = 4
_PLAIN_SIDE = 16


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


class Columns(NamedTuple):
    """How a block makes a product of few rows: `warps` of them share `columns` columns a thread or warp.

    With `by_lanes`, a warp's lanes have columns of their own, `columns` each; otherwise all columns of the warp are
    the same, and its lanes go through `width` steps at a time.
    """

    columns: int
    warps: int
    by_lanes: bool
    width: int

    @property
    def steps(self) -> int:
        """Steps that the warps of a group make at a time."""
        return self.warps * self.width * (1 if self.by_lanes else 32)

    @property
    def block_columns(self) -> int:
        """Columns of a block."""
        return self.columns * (32 if self.by_lanes else 1) * (THIN_WARPS // self.warps)


THIN_WARPS = 8


class GemmPlan(NamedTuple):
    """`steps` are those of each of the `splits` parts of the sums; `tile` and `columns` belong to their kinds."""

    dot: DotPlan
    kind: str
    splits: int = 1
    steps: int = 0
    tile: Tile | None = None
    columns: Columns | None = None

    @property
    def batches(self) -> int:
        return prod(self.dot.batch)

    @property
    def scratch_bytes(self) -> int:
        """Memory for the parts of split sums."""
        if self.splits == 1:
            return 0
        return self.splits * self.batches * self.dot.m * self.dot.n * self.dot.dtype.itemsize


def dot_plan(instruction: Instruction, epilogue: Epilogue | None, is_fused: bool) -> DotPlan:
    """The product; of few rows rather than few columns."""
    return DotPlan(instruction, epilogue, is_fused, THIN_ROWS)


def gemm_plan(dot: DotPlan) -> GemmPlan:
    """How to compute a product, by threads' own arithmetic; its sizes must not be 0."""
    m, n, k, batches = dot.m, dot.n, dot.k, prod(dot.batch)
    if k <= _PLAIN_STEPS or (max(m, n) <= _PLAIN_SIDE and k <= _LEAST_STEPS):
        return GemmPlan(dot, PLAIN, 1, k)
    if m <= THIN_ROWS:
        columns = _columns(dot)
        blocks = -(-n // columns.block_columns) * batches
        splits, steps = split(k, 4 * BLOCKS, blocks, columns.steps)
        return GemmPlan(dot, THIN, splits, steps, columns=columns)
    tile = _tile(m, n, k, batches, dot.dtype)
    splits, steps = split(k, BLOCKS, tiles_of(m, n, tile.m, tile.n) * batches, tile.k)
    return GemmPlan(dot, TILED, splits, steps, tile)


def tiles_of(m: int, n: int, tile_m: int, tile_n: int) -> int:
    """Tiles that a matrix has."""
    return -(-m // tile_m) * -(-n // tile_n)


def split(k: int, wanted: int, blocks: int, unit: int) -> tuple[int, int]:
    """(parts of the sums, steps of each part but the last): whole units, so that about `wanted` blocks are busy."""
    splits = max(1, min(-(-wanted // blocks), k // _LEAST_STEPS, _MOST_SPLITS)) if 2 * blocks <= wanted else 1
    if splits == 1:
        return 1, k
    steps = -(-k // (splits * unit)) * unit
    return -(-k // steps), steps


def _tile(m: int, n: int, k: int, batches: int, dtype: DType) -> Tile:
    """The first tile of which there are enough, with what splitting adds, and which does not waste too much."""
    tiles = TILES[dtype.itemsize]
    parts = max(1, min(k // _LEAST_STEPS, _MOST_SPLITS))
    least = min(tiles_of(m, n, tile.m, tile.n) * tile.m * tile.n for tile in tiles)
    fitting = [tile for tile in tiles if 2 * tiles_of(m, n, tile.m, tile.n) * tile.m * tile.n <= 3 * least]
    for tile in fitting:
        if tiles_of(m, n, tile.m, tile.n) * batches * parts >= BLOCKS * 3 // 4:
            return tile
    return fitting[-1]


def _columns(dot: DotPlan) -> Columns:
    """Lanes go along the direction in which the matrix lies together in memory."""
    side, itemsize = dot.rhs, dot.rhs.shape.dtype.itemsize
    if side.copied:
        along_steps = bool(side.shape.rank) and side.shape.minor_to_major[0] in side.columns
    else:
        along_steps = side.strides[2] == 1 and (side.strides[1] != 1 or dot.k >= dot.n)
    wide = max(1, min(16 // itemsize, 8))
    if not along_steps:
        columns = wide if dot.n >= 32 * wide else 1
        return Columns(min(columns, max(1, 32 // dot.m)), THIN_WARPS, True, 4)
    width = wide if dot.k >= 32 * wide else 1
    warps = 1 if dot.n * prod(dot.batch) >= 4 * BLOCKS * THIN_WARPS else THIN_WARPS
    return Columns(2 if dot.n >= 2 * BLOCKS * THIN_WARPS and dot.m <= 4 else 1, warps, False, width)
