"""How a dot is computed on a device: in which kind of kernel, in tiles of which size, and by how many blocks.

A product is c[m, n] = sum over k of a[m, k] b[k, n] for each index of the batch dimensions, as `DotPlan` has it. Tiles
are chosen so that the grid fills a large device; where there are too few of them, the sums are split along k over
several blocks (split-K), whose parts a second launch adds in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple, TypeVar

from hloc.codegen.dot_plan import DotPlan
from hloc.codegen.epilogue import Epilogue
from hloc.codegen.gpu.gemm_units import ROW_BYTES, Unit, possible_units, source_of
from hloc.ir.instruction import Instruction

PLAIN, THIN, TILED, UNITS = "plain", "thin", "tiled", "units"

THIN_ROWS = 8
"""Products of at most so many rows read their matrix once, bound by memory."""

BLOCKS = 132
"""Blocks that keep a large device busy: it has so many multiprocessors."""

_AnyTile = TypeVar("_AnyTile", "Tile", "WarpTile")

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


class WarpTile(NamedTuple):
    """A block's part of the result, `m` x `n`, for matrix units: made by `down` x `across` warps."""

    m: int
    n: int
    down: int
    across: int

    @property
    def threads(self) -> int:
        return 32 * self.down * self.across

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

MOST_STAGES = 4

_THROUGH_REGISTERS = 1
"""Lines of tiles, of 128 bytes, that a thread can have on their way in registers."""


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
    """`steps` are those of each of the `splits` parts of the sums; the rest belongs to its kind.

    `stages` are the tiles that are in shared memory at a time.
    """

    dot: DotPlan
    kind: str
    splits: int = 1
    steps: int = 0
    tile: Tile | None = None
    columns: Columns | None = None
    warps: WarpTile | None = None
    unit: Unit | None = None
    stages: int = 0

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


def gemm_plan(dot: DotPlan, unit: Unit | None, shared_bytes: int) -> GemmPlan:
    """How to compute a product, by a matrix unit if there is one; its sizes must not be 0."""
    m, n, k, batches = dot.m, dot.n, dot.k, prod(dot.batch)
    if k <= _PLAIN_STEPS or (max(m, n) <= _PLAIN_SIDE and k <= _LEAST_STEPS):
        return GemmPlan(dot, PLAIN, 1, k)
    if m <= THIN_ROWS:
        columns = _columns(dot)
        blocks = -(-n // columns.block_columns) * batches
        splits, steps = split(k, 4 * BLOCKS, blocks, columns.steps)
        return GemmPlan(dot, THIN, splits, steps, columns=columns)
    return blocks_plan(dot, unit, shared_bytes)


def blocks_plan(dot: DotPlan, unit: Unit | None, shared_bytes: int) -> GemmPlan:
    """The same for a large product: in tiles of blocks."""
    m, n, k, batches = dot.m, dot.n, dot.k, prod(dot.batch)
    if unit is not None:
        return _units_plan(dot, unit, shared_bytes)
    tile = _tile(m, n, k, batches, TILES[dot.dtype.itemsize])
    splits, steps = split(k, BLOCKS, tiles_of(m, n, tile.m, tile.n) * batches, tile.k)
    return GemmPlan(dot, TILED, splits, steps, tile)


def _units_plan(dot: DotPlan, unit: Unit, shared_bytes: int) -> GemmPlan:
    m, n, k, batches = dot.m, dot.n, dot.k, prod(dot.batch)
    tiles = WARP_TILES if unit.itemsize < 8 else WARP_TILES_OF_DOUBLES
    is_copied = unit.parts == 1 and all(
        source_of(side) is dtype and not side.copied for side, dtype in ((dot.lhs, unit.lhs), (dot.rhs, unit.rhs))
    )
    if not is_copied:
        tiles = [tile for tile in tiles if tile.m + tile.n <= tile.threads * _THROUGH_REGISTERS]
    stages = MOST_STAGES if is_copied else 2
    room = min(stages, 3) * unit.parts
    tile = _tile(m, n, k, batches, [tile for tile in tiles if room * tile.stage_bytes <= shared_bytes])
    splits, steps = split(k, BLOCKS, tiles_of(m, n, tile.m, tile.n) * batches, unit.steps)
    stages = min(stages, shared_bytes // (tile.stage_bytes * unit.parts), max(2, -(-steps // unit.steps)))
    return GemmPlan(dot, UNITS, splits, steps, warps=tile, unit=unit, stages=stages)


_SHARED_BYTES = (64 * 1024, 99 * 1024, 163 * 1024, 227 * 1024)
"""Shared memory of a block, of all architectures."""


def most_scratch(dot: DotPlan, plan: Callable[[DotPlan, Unit | None, int], GemmPlan] = gemm_plan) -> int:
    """Memory that is enough for a product on any architecture, computed as `plan` says."""
    plans = [plan(dot, unit, size) for unit in possible_units(dot) for size in _SHARED_BYTES]
    return max(plan.scratch_bytes for plan in plans)


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


def _tile(m: int, n: int, k: int, batches: int, tiles: Sequence[_AnyTile]) -> _AnyTile:
    """The first tile of which there are enough, with what splitting adds, and which does not waste too much."""
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
