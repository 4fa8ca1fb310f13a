"""How a dot is computed on a device: in which kind of kernel, in tiles of which size, and by how many blocks.

A product is c[m, n] = sum over k of a[m, k] b[k, n] for each index of the batch dimensions, as `DotPlan` has it. Tiles
are chosen so that the grid fills a large device; where there are too few of them, the sums are split along k over
several blocks (split-K), whose parts a second launch adds in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, prod
from typing import TypeVar

from hloc.codegen.dot_plan import DotPlan
from hloc.codegen.dot_side import Side
from hloc.codegen.epilogue import Epilogue
from hloc.codegen.gpu.gemm_fetched import CHUNK, Fetched, fetched, packed
from hloc.codegen.gpu.gemm_shapes import (
    GROUP_TILES,
    MOST_GROUP_STAGES,
    THIN_WARPS,
    TILES,
    WARP_TILES,
    WARP_TILES_OF_DOUBLES,
    Columns,
    GroupTile,
    Tile,
    WarpTile,
)
from hloc.codegen.gpu.gemm_sides import OwnSide
from hloc.codegen.gpu.gemm_units import TF32_UNIT, Unit, copied_together, possible_units, source_of
from hloc.codegen.gpu.intrinsics import WARP
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.records import NamedTuple

PLAIN, THIN, TILED, UNITS, GROUPS = "plain", "thin", "tiled", "units", "groups"

THIN_ROWS = 8
"""Products of at most so many rows read their matrix once, bound by memory."""

BLOCKS = 132
"""Blocks that keep a large device busy: it has so many multiprocessors."""

_AnyTile = TypeVar("_AnyTile", "Tile", "WarpTile", "GroupTile")

_MOST_SPLITS = 64
_LEAST_STEPS = 256
"""Steps of a sum below which splitting it does not pay."""

_FEWEST_STEPS = 4
_PLAIN_SIDE, _PLAIN_STEPS, _MANY_RESULTS = 16, (64, 256), 1 << 15
"""Rows and columns up to which a thread makes each result by itself; up to how many steps, of few results or many."""


_MOST_STAGES = 4

_UNITS_RATES = {1: 6e6, 2: 3e6, 4: 1.5e6, 8: 0.25e6}
_GROUPS_RATES = {1: 7.5e6, 2: 3.75e6, 4: 1.87e6}
_THREADS_RATE = 0.25e6
"""Multiplications of an H100's multiprocessor in a microsecond: by units of warps and of warpgroups, for bytes of an
element, and by threads."""

_REUSE = 20
"""How much less a small tile makes of that: with r uses of each element that it loads, r / (r + _REUSE)."""

_FILL, _LAUNCH, _BANDWIDTH, _BLOCK_BANDWIDTH = 64, 2.0, 4e6, 80e3
"""Steps that a block's beginning and end take the time of; microseconds of a second launch; bytes in a microsecond, of
all memory and for one multiprocessor."""

_GROUPS_FILL, _FETCHED_BANDWIDTH = 96, 100e3
"""The same where tiles are fetched whole: barriers have to be made, but threads issue no copies."""

_THROUGH_REGISTERS = 1
"""Lines of tiles, of 128 bytes, that a thread can have on their way in registers."""


class GemmPlan(NamedTuple):
    """`steps` are those of each of the `splits` parts of the sums; the rest belongs to its kind.

    `stages` are the tiles that are in shared memory at a time, `sides` the operands that warpgroups have them of.
    """

    dot: DotPlan
    kind: str
    splits: int = 1
    steps: int = 0
    tile: Tile | None = None
    columns: Columns | None = None
    warps: WarpTile | None = None
    groups: GroupTile | None = None
    unit: Unit | None = None
    stages: int = 0
    sides: tuple[Fetched, ...] = ()

    @property
    def batches(self) -> int:
        return prod(self.dot.batch)

    @property
    def scratch_bytes(self) -> int:
        """Memory for the parts of split sums, and for operands that are packed behind them."""
        ends = [side.offset + side.bytes for side in self.sides if side.array is None]
        return max([_part_bytes(self.dot, self.splits), *ends])


def _part_bytes(dot: DotPlan, splits: int) -> int:
    """Memory for the parts of split sums."""
    return 0 if splits == 1 else splits * prod(dot.batch) * dot.m * dot.n * dot.dtype.itemsize


def dot_plan(instruction: Instruction, epilogue: Epilogue | None, is_fused: bool) -> DotPlan:
    """The product; of few rows rather than few columns."""
    return DotPlan(instruction, epilogue, is_fused, THIN_ROWS, splits=False)


def gemm_plan(dot: DotPlan, unit: Unit | None, shared_bytes: int, has_wgmma: bool = False) -> GemmPlan:
    """How to compute a product, by a matrix unit if there is one; its sizes must not be 0.

    Blocks have so many `shared_bytes`, and perhaps products of warpgroups.
    """
    m, n, k, batches = dot.m, dot.n, dot.k, prod(dot.batch)
    few = _PLAIN_STEPS[batches * m * n >= _MANY_RESULTS]
    if k <= _FEWEST_STEPS or (max(m, n) <= _PLAIN_SIDE and k <= few):
        return GemmPlan(dot, PLAIN, 1, k)
    if m <= THIN_ROWS:
        columns = _columns(dot)
        blocks = -(-n // columns.block_columns) * batches
        splits, steps = split(k, 4 * BLOCKS // blocks, columns.steps)
        return GemmPlan(dot, THIN, splits, steps, columns=columns)
    return blocks_plan(dot, unit, shared_bytes, has_wgmma)


def blocks_plan(dot: DotPlan, unit: Unit | None, shared_bytes: int, has_wgmma: bool = False) -> GemmPlan:
    """The same for a large product: in tiles of blocks."""
    if unit is None:
        rates = _Rates(_THREADS_RATE)
        _, tile, splits, steps = _best(dot, TILES[dot.dtype.itemsize], lambda tile: tile.k, dot.dtype.itemsize, rates)
        return GemmPlan(dot, TILED, splits, steps, tile)
    plans = [_units_plan(dot, unit, shared_bytes)]
    if has_wgmma and unit.group_names:
        plans += _groups_plans(dot, unit, shared_bytes)
    return min(plans, key=lambda one: one[0])[1]


def _groups_plans(dot: DotPlan, unit: Unit, shared_bytes: int) -> list[tuple[float, GemmPlan]]:
    """(the time that it takes, how warpgroups make a product), if they can."""
    rates = _Rates(_GROUPS_RATES[unit.itemsize], 0, _FETCHED_BANDWIDTH, _GROUPS_FILL)
    time, tile, splits, steps = _best(dot, GROUP_TILES, lambda tile: unit.steps, unit.itemsize, rates)
    room = (shared_bytes - tile.other_bytes(dot.dtype)) // tile.stage_bytes
    stages = min(MOST_GROUP_STAGES, room, max(2, -(-steps // unit.steps)))
    sides: list[Fetched] = []
    end = -(-_part_bytes(dot, splits) // CHUNK) * CHUNK
    for side, dtype in ((dot.lhs, unit.lhs), (dot.rhs, unit.rhs)):
        found = fetched(side, dtype)
        if found is None:
            # Temporary memory is planned for all machines and options: not for what most never do.
            found = None if unit is TF32_UNIT else packed(side, dtype, along_and_width(side)[0], end)
            if found is None:
                return []
            time += _LAUNCH + (found.bytes + side.shape.byte_size) / _BANDWIDTH
            end += found.bytes
        sides.append(found)
    plan = GemmPlan(dot, GROUPS, splits, steps, groups=tile, unit=unit, stages=stages, sides=tuple(sides))
    return [(time, plan)]


def _units_plan(dot: DotPlan, unit: Unit, shared_bytes: int) -> tuple[float, GemmPlan]:
    """(the time that it takes, how warps make a product)."""
    tiles = WARP_TILES if unit.itemsize < 8 else WARP_TILES_OF_DOUBLES
    sides = (dot.lhs, unit.lhs), (dot.rhs, unit.rhs)
    is_copied = unit.parts == 1 and all(_is_copied(side, dtype) for side, dtype in sides)
    if not is_copied:
        tiles = tuple(tile for tile in tiles if tile.m + tile.n <= tile.threads * _THROUGH_REGISTERS)
    stages = _MOST_STAGES if is_copied else 2
    room = min(stages, 3) * unit.parts
    tiles = tuple(tile for tile in tiles if room * tile.stage_bytes <= shared_bytes)
    rates = _Rates(_UNITS_RATES[unit.itemsize] / len(unit.products))
    time, tile, splits, steps = _best(dot, tiles, lambda tile: unit.steps, unit.itemsize, rates)
    stages = min(stages, shared_bytes // (tile.stage_bytes * unit.parts), max(2, -(-steps // unit.steps)))
    return time, GemmPlan(dot, UNITS, splits, steps, warps=tile, unit=unit, stages=stages)


def _is_copied(side: Side, dtype: DType) -> bool:
    """Whether a side comes into shared memory without going through registers."""
    return not side.copied and source_of(side) is dtype and copied_together(*along_and_width(side), dtype) > 0


class _Rates(NamedTuple):
    """Of one multiprocessor: multiplications in a microsecond (of a large tile: see _REUSE), bytes that it can load in
    one, and the steps that a block's beginning and end take the time of."""

    products: float
    reuse: int = _REUSE
    bandwidth: float = _BLOCK_BANDWIDTH
    fill: int = _FILL


def _best(
    dot: DotPlan, tiles: Sequence[_AnyTile], unit: Callable[[_AnyTile], int], itemsize: int, rates: _Rates
) -> tuple[float, _AnyTile, int, int]:
    """The tile, and how sums are split, in `unit(tile)` steps, that take the least time.

    (microseconds, tile, splits, steps). `itemsize` are the bytes of operands' elements.
    """
    results = prod(dot.batch) * dot.m * dot.n
    found: list[tuple[float, int, _AnyTile, int, int]] = []
    for number, tile in enumerate(tiles):
        blocks = tiles_of(dot.m, dot.n, tile.m, tile.n) * prod(dot.batch)
        reuse = tile.m * tile.n / (tile.m + tile.n)
        step_bytes = (tile.m + tile.n) * itemsize
        made = tile.m * tile.n / rates.products * (reuse + rates.reuse) / reuse
        step_time = max(made, step_bytes / rates.bandwidth)
        for waves in (0, 1, 2, 3):
            splits, steps = split(dot.k, waves * BLOCKS // blocks, unit(tile))
            time = -(-blocks * splits // BLOCKS) * (steps + rates.fill) * step_time
            if splits > 1:
                time += _LAUNCH + 2 * splits * results * dot.dtype.itemsize / _BANDWIDTH
            found.append((time, number, tile, splits, steps))
    time, _, tile, splits, steps = min(found, key=lambda one: one[:2])
    return time, tile, splits, steps


_MACHINES = ((64 * 1024, False), (99 * 1024, False), (163 * 1024, False), (227 * 1024, False), (227 * 1024, True))
"""Shared memory of a block, and whether warpgroups multiply, of all architectures."""


def most_scratch(
    dot: DotPlan, instruction: Instruction, plan: Callable[[DotPlan, Unit | None, int, bool], GemmPlan] = gemm_plan
) -> int:
    """Memory that is enough for a product on any architecture, computed as `plan` says."""
    units = possible_units(dot, instruction)
    plans = [plan(dot, unit, *machine) for unit in units for machine in (_MACHINES if unit else _MACHINES[:1])]
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
