"""How a dot is computed on a device: in which kind of kernel, in tiles of which size, and by how many blocks.

A product is c[m, n] = sum over k of a[m, k] b[k, n] for each index of the batch dimensions, as `DotPlan` has it. Tiles
are chosen so that the grid fills a large device; where there are too few of them, the sums are split along k over
several blocks (split-K), whose parts a second launch adds in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, prod
from typing import NamedTuple, TypeVar

from hloc.codegen.dot_plan import DotPlan, Side
from hloc.codegen.epilogue import Epilogue
from hloc.codegen.gpu.gemm_sides import OwnSide
from hloc.codegen.gpu.gemm_units import ROW_BYTES, Unit, copied_together, possible_units, source_of
from hloc.codegen.gpu.intrinsics import WARP
from hloc.ir.dtypes import DType
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

_FEWEST_STEPS = 4
_PLAIN_SIDE, _PLAIN_STEPS, _MANY_RESULTS = 16, (64, 256), 1 << 15
"""Rows and columns up to which a thread makes each result by itself; up to how many steps, of few results or many."""


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

MOST_STAGES = 4

_UNITS_RATES = {1: 6e6, 2: 3e6, 4: 1.5e6, 8: 0.25e6}
_THREADS_RATE = 0.25e6
"""Multiplications of an H100's multiprocessor in a microsecond: by units, for bytes of an element, and by threads."""

_REUSE = 20
"""How much less a small tile makes of that: with r uses of each element that it loads, r / (r + _REUSE)."""

_FILL, _LAUNCH, _BANDWIDTH, _BLOCK_BANDWIDTH = 64, 2.0, 4e6, 80e3
"""Steps that a block's beginning and end take the time of; microseconds of a second launch; bytes in a microsecond, of
all memory and for one multiprocessor."""

_THROUGH_REGISTERS = 1
"""Lines of tiles, of 128 bytes, that a thread can have on their way in registers."""


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
    few = _PLAIN_STEPS[batches * m * n >= _MANY_RESULTS]
    if k <= _FEWEST_STEPS or (max(m, n) <= _PLAIN_SIDE and k <= few):
        return GemmPlan(dot, PLAIN, 1, k)
    if m <= THIN_ROWS:
        columns = _columns(dot)
        blocks = -(-n // columns.block_columns) * batches
        splits, steps = split(k, 4 * BLOCKS // blocks, columns.steps)
        return GemmPlan(dot, THIN, splits, steps, columns=columns)
    return blocks_plan(dot, unit, shared_bytes)


def blocks_plan(dot: DotPlan, unit: Unit | None, shared_bytes: int) -> GemmPlan:
    """The same for a large product: in tiles of blocks."""
    if unit is not None:
        return _units_plan(dot, unit, shared_bytes)
    tile, splits, steps = _best(dot, TILES[dot.dtype.itemsize], lambda tile: tile.k, _THREADS_RATE, dot.dtype.itemsize)
    return GemmPlan(dot, TILED, splits, steps, tile)


def _units_plan(dot: DotPlan, unit: Unit, shared_bytes: int) -> GemmPlan:
    tiles = WARP_TILES if unit.itemsize < 8 else WARP_TILES_OF_DOUBLES
    sides = (dot.lhs, unit.lhs), (dot.rhs, unit.rhs)
    is_copied = unit.parts == 1 and all(_is_copied(side, dtype) for side, dtype in sides)
    if not is_copied:
        tiles = tuple(tile for tile in tiles if tile.m + tile.n <= tile.threads * _THROUGH_REGISTERS)
    stages = MOST_STAGES if is_copied else 2
    room = min(stages, 3) * unit.parts
    tiles = tuple(tile for tile in tiles if room * tile.stage_bytes <= shared_bytes)
    rate = _UNITS_RATES[unit.itemsize] / len(unit.products)
    tile, splits, steps = _best(dot, tiles, lambda tile: unit.steps, rate, unit.itemsize)
    stages = min(stages, shared_bytes // (tile.stage_bytes * unit.parts), max(2, -(-steps // unit.steps)))
    return GemmPlan(dot, UNITS, splits, steps, warps=tile, unit=unit, stages=stages)


def _is_copied(side: Side, dtype: DType) -> bool:
    """Whether a side comes into shared memory without going through registers."""
    return not side.copied and source_of(side) is dtype and copied_together(*along_and_width(side), dtype) > 0


def _best(
    dot: DotPlan, tiles: Sequence[_AnyTile], unit: Callable[[_AnyTile], int], rate: float, itemsize: int
) -> tuple[_AnyTile, int, int]:
    """The tile, and how sums are split, in `unit(tile)` steps, that take the least time: (tile, splits, steps).

    `rate` are the multiplications of a multiprocessor in a microsecond, `itemsize` the bytes of operands' elements.
    """
    results = prod(dot.batch) * dot.m * dot.n
    found: list[tuple[float, int, _AnyTile, int, int]] = []
    for number, tile in enumerate(tiles):
        blocks = tiles_of(dot.m, dot.n, tile.m, tile.n) * prod(dot.batch)
        reuse = tile.m * tile.n / (tile.m + tile.n)
        step_bytes = (tile.m + tile.n) * itemsize
        step_time = max(tile.m * tile.n / rate * (reuse + _REUSE) / reuse, step_bytes / _BLOCK_BANDWIDTH)
        for waves in (0, 1, 2, 3):
            splits, steps = split(dot.k, waves * BLOCKS // blocks, unit(tile))
            time = -(-blocks * splits // BLOCKS) * (steps + _FILL) * step_time
            if splits > 1:
                time += _LAUNCH + 2 * splits * results * dot.dtype.itemsize / _BANDWIDTH
            found.append((time, number, tile, splits, steps))
    return min(found, key=lambda one: one[:2])[2:]


_SHARED_BYTES = (64 * 1024, 99 * 1024, 163 * 1024, 227 * 1024)
"""Shared memory of a block, of all architectures."""


def most_scratch(
    dot: DotPlan, instruction: Instruction, plan: Callable[[DotPlan, Unit | None, int], GemmPlan] = gemm_plan
) -> int:
    """Memory that is enough for a product on any architecture, computed as `plan` says."""
    units = possible_units(dot, instruction)
    plans = [plan(dot, unit, size) for unit in units for size in (_SHARED_BYTES if unit else _SHARED_BYTES[:1])]
    return max(plan.scratch_bytes for plan in plans)


def tiles_of(m: int, n: int, tile_m: int, tile_n: int) -> int:
    """Tiles that a matrix has."""
    return -(-m // tile_m) * -(-n // tile_n)


def split(k: int, wanted: int, unit: int) -> tuple[int, int]:
    """(parts of the sums, at most `wanted`; steps of each part but the last, a multiple of `unit`)."""
    splits = max(1, min(wanted, k // _LEAST_STEPS, _MOST_SPLITS))
    if splits == 1:
        return 1, k
    steps = -(-k // (splits * unit)) * unit
    return -(-k // steps), steps


def _columns(dot: DotPlan) -> Columns:
    """Lanes go along the direction in which the matrix lies together in memory, by 16 bytes if that can be."""
    m, n, k = dot.m, dot.n, dot.k
    along_steps, width = along_and_width(dot.rhs)
    if along_steps:
        columns = 2 if m <= 4 and n >= 2 * BLOCKS * THIN_WARPS else 1
        lanes = _power_up_to(min(WARP, k // width))
        busy = n * prod(dot.batch) * lanes >= 4 * BLOCKS * THIN_WARPS * WARP
    else:
        columns, width = min(width, greatest_power(WARP // m)), 4
        lanes = WARP // _power_up_to(min(WARP, n // columns))
        busy = False
    warps = 1 if busy else THIN_WARPS
    while warps > 1 and warps * lanes * width > k:
        warps //= 2
    return Columns(columns, width, lanes, warps, along_steps)


def _power_up_to(number: int) -> int:
    """The greatest power of two that is no more than a number, which is at least 1; 1 for 0."""
    return 1 << max(0, number.bit_length() - 1)


def along_and_width(side: Side | OwnSide) -> tuple[bool, int]:
    """Whether an operand's elements lie together along steps, and how many that one access takes."""
    if isinstance(side, OwnSide):
        return side.along_steps, side.width
    lines, steps = prod(side.sizes(side.rows)), prod(side.sizes(side.columns))
    most = max(1, 16 // side.shape.dtype.itemsize)
    if side.copied:
        if not side.shape.rank:
            return True, 1
        fast = side.shape.minor_to_major[0]
        dims = side.columns if fast in side.columns else side.rows
        wide = [d for d in dims if side.shape.dims[d] != 1]
        return fast in side.columns, greatest_power(gcd(side.shape.dims[fast], most)) if wide[-1:] == [fast] else 1
    assert side.place is not None
    batch_strides, line_stride, step_stride = side.strides
    along_steps = step_stride == 1 and (line_stride != 1 or steps >= lines)
    if not along_steps and line_stride != 1:
        return step_stride < line_stride, 1
    size, other = (steps, (line_stride, lines)) if along_steps else (lines, (step_stride, steps))
    spaced = [stride for stride, count in (other, *zip(batch_strides, side.sizes(side.batch))) if count != 1]
    starts = [stride for _, _, stride in side.place.starts]
    return along_steps, greatest_power(gcd(size, most, side.place.offset, *spaced, *starts))


def greatest_power(number: int) -> int:
    """The greatest power of two that divides it."""
    return number & -number
