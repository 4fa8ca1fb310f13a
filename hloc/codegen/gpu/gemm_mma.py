"""Products by matrix units (`mma.sync`, sm_80 on): tiles of 128 bytes of steps in a ring of stages in shared memory.

While warps multiply one tile, the next ones are on their way. Each warp makes its part of the block's tile from
fragments that it loads from shared memory; what lane holds which elements is from "Matrix Fragments" of the PTX ISA
manual. The sums stay in registers until they leave through shared memory (`store_slab`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.dot_side import Side
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.gemm_parts import add_parts, block_place, grid_size, operand_of
from hloc.codegen.gpu.gemm_plan import GemmPlan
from hloc.codegen.gpu.gemm_staged import CHUNK, StagedTile, Steps, finite_only, rounded_to_tf32
from hloc.codegen.gpu.gemm_tiles import Slab, slab_bytes, store_slab
from hloc.codegen.gpu.gemm_units import ROW_BYTES
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.llvm import Value
from hloc.codegen.routines import i64
from hloc.ir.dtypes import F32, DType


def write_units(g: GpuStep, plan: GemmPlan) -> None:
    """The product in one launch, or two if its sums are split."""
    warps = plan.warps
    assert warps is not None
    shared = plan.stages * _stage_bytes(plan)
    with g.launch(grid_size(plan, warps.m, warps.n), warps.threads, shared) as k:
        _Units(k, plan).write()
    add_parts(g, plan)


def _stage_bytes(plan: GemmPlan) -> int:
    assert plan.warps is not None and plan.unit is not None
    return plan.warps.stage_bytes * plan.unit.parts


class Fragments:
    """What a warp loads of an operand's tile: the fragments of its lines, `size` lines each, from `first` on."""

    def __init__(self, k: GpuContext, tile: StagedTile, size: int, count: int, first: Value):
        self.k, self.b, self.tile, self.size, self.count, self.first = k, k.b, tile, size, count, first
        self.lane = k.b.zext(k.gpu.lane(), "i64")

    def load(self, slot: Value, number: int, is_lhs: bool) -> list[list[Value]]:
        """The registers of all fragments of the `number`th product of the tile's steps."""
        found: list[list[Value]] = []
        for start in range(0, self.count * self.size, 16):
            found += self._sixteen(slot, number, i64(start), is_lhs)
        return found

    def _sixteen(self, slot: Value, number: int, start: Value, is_lhs: bool) -> list[list[Value]]:
        """Sixteen lines by 32 bytes: one fragment of the lhs, or two of the rhs."""
        b, tile, lane = self.b, self.tile, self.lane
        low, eighth, sixteenth = b.and_(lane, i64(7)), b.and_(b.lshr(lane, i64(3)), i64(1)), b.lshr(lane, i64(4))
        line, chunk = (eighth, sixteenth) if is_lhs else (sixteenth, eighth)
        first = b.add(self.first, start)
        if tile.by_steps:
            per_chunk = CHUNK // tile.itemsize
            line = b.add(first, b.add(low, b.mul(line, i64(8))))
            step = b.mul(b.add(chunk, i64(2 * number)), i64(per_chunk))
        else:
            line = b.add(first, b.mul(line, i64(8)))
            step = b.add(b.add(low, b.mul(chunk, i64(8))), i64(16 * number))
        address = b.gep("i8", slot, tile.offset(line, step))
        registers = self.k.gpu.load_matrices(address, 4, transposed=not tile.by_steps)
        return [registers] if is_lhs else [registers[:2], registers[2:]]

    def pairs(self, slot: Value, half: int) -> list[tuple[Value, Value]]:
        """Of doubles: for each fragment the lane's elements of two products, whose steps are the lane's chunk."""
        b, tile = self.b, self.tile
        found = []
        for number in range(self.count):
            line = b.add(b.add(self.first, i64(8 * number)), b.lshr(self.lane, i64(2)))
            chunk = b.add(b.and_(self.lane, i64(3)), i64(4 * half))
            address = b.gep("i8", slot, tile.offset(line, b.mul(chunk, i64(2))))
            second = b.gep("double", address, i64(1))
            found.append((b.load("double", address, align=8), b.load("double", second, align=8)))
        return found


class _Units:
    """The kernel of a block."""

    def __init__(self, k: GpuContext, plan: GemmPlan):
        assert plan.warps is not None and plan.unit is not None
        self.k, self.b, self.plan, self.warps, self.unit = k, k.b, plan, plan.warps, plan.unit
        b, dot, warps, unit = k.b, plan.dot, plan.warps, plan.unit
        self.place = block_place(k, plan, warps.m, warps.n)
        self.stage_bytes = _stage_bytes(plan)
        sides = (dot.lhs, unit.lhs, warps.m, self.place.row), (dot.rhs, unit.rhs, warps.n, self.place.column)
        self.tiles = [self._tile(*side) for side in sides]
        warp = b.zext(k.gpu.warp(), "i64")
        self.lane = b.zext(k.gpu.lane(), "i64")
        self.down, self.across = b.udiv(warp, i64(warps.across)), b.urem(warp, i64(warps.across))
        self.rows, self.columns = warps.m // warps.down, warps.n // warps.across
        self.counts = self.rows // unit.shape[0], self.columns // unit.shape[1]
        self.lhs = Fragments(k, self.tiles[0], unit.shape[0], self.counts[0], b.mul(self.down, i64(self.rows)))
        self.rhs = Fragments(k, self.tiles[1], unit.shape[1], self.counts[1], b.mul(self.across, i64(self.columns)))
        self.ragged = dot.k % unit.steps != 0
        self.per_fragment = unit.shape[0] * unit.shape[1] // 32

    def _tile(self, side: Side, dtype: DType, lines: int, first_line: Value) -> StagedTile:
        parts = self.unit.parts
        operand = operand_of(self.k, side, self.place.batch, F32 if parts > 1 else dtype)
        return StagedTile(self.k, operand, lines, first_line, dtype, parts)

    # Stages

    def write(self) -> None:
        plan, b = self.plan, self.b
        turns = self._turns()
        with b.for_loop(0, plan.stages - 1, unroll=all(tile.is_async for tile in self.tiles)) as stage:
            slot = b.mul(stage, i64(self.stage_bytes))
            self._copy(stage, turns, slot)
            self._put(self._read(stage), slot)
        zero = scalar.constant(plan.dot.dtype, 0)
        assert isinstance(zero, Value)
        zeros = [zero] * (self.counts[0] * self.counts[1] * self.per_fragment)
        last = i64((plan.stages - 1) * self.stage_bytes)
        found = b.for_loop_carrying(
            i64(0), turns, [*zeros, i64(0), last], partial(self._turn, turns), unroll=False
        )
        self._store(found[:-2])

    def _turns(self) -> Value:
        """Tiles of steps of the block's part of the sums."""
        plan, b, steps = self.plan, self.b, self.unit.steps
        if plan.splits == 1 or plan.dot.k % plan.steps == 0:
            return i64(-(-plan.steps // steps))
        count = b.sub(self.place.end, self.place.first)
        return b.udiv(b.add(count, i64(steps - 1)), i64(steps))

    def _turn(self, turns: Value, turn: Value, carried: list[Value]) -> list[Value]:
        """One tile is multiplied; the fetching of another, that replaces the one before, begins."""
        b, stages = self.b, self.plan.stages
        *sums, slot, other = carried
        self.k.gpu.wait_copies(stages - 2)
        self.k.gpu.barrier()
        following = b.add(turn, i64(stages - 1))
        self._copy(following, turns, other)
        values = self._read(following)
        sums = self._multiply(b.gep("i8", self.k.gpu.shared(), slot), sums)
        self._put(values, other)
        return [*sums, self._next(slot), self._next(other)]

    def _next(self, slot: Value) -> Value:
        b, size = self.b, self.stage_bytes
        is_last = b.icmp_unsigned("==", slot, i64((self.plan.stages - 1) * size))
        return b.select(is_last, i64(0), b.add(slot, i64(size)))

    def _steps(self, number: Value) -> Steps:
        first = self.b.add(self.place.first, self.b.mul(number, i64(self.unit.steps)))
        return Steps(first, self.place.end, self.ragged)

    def _slots(self, slot: Value) -> Iterator[tuple[StagedTile, Value]]:
        base = self.b.gep("i8", self.k.gpu.shared(), slot)
        yield self.tiles[0], base
        yield self.tiles[1], self.b.gep("i8", base, i64(self.tiles[0].bytes * self.unit.parts))

    def _copy(self, number: Value, turns: Value, slot: Value) -> None:
        """Begins the asynchronous copies of a tile, if it exists, as one group."""
        b, gpu = self.b, self.k.gpu
        if any(tile.is_async for tile in self.tiles):
            with b.if_then(b.icmp_unsigned("<", number, turns)):
                for tile, base in self._slots(slot):
                    tile.copy(self._steps(number), base)
        gpu.commit_copies()

    def _read(self, number: Value) -> list[list[Register]]:
        return [tile.read(self._steps(number)) for tile in self.tiles]

    def _put(self, values: list[list[Register]], slot: Value) -> None:
        for given, (tile, base) in zip(values, self._slots(slot), strict=True):
            tile.write(given, base)

    # Products

    def _multiply(self, slot: Value, sums: list[Value]) -> list[Value]:
        rhs = self.b.gep("i8", slot, i64(self.tiles[0].bytes * self.unit.parts))
        if self.unit.itemsize == 8:
            for half in range(2):
                xs, ys = self.lhs.pairs(slot, half), self.rhs.pairs(rhs, half)
                for part in range(2):
                    sums = self._products([[x[part]] for x in xs], [[y[part]] for y in ys], sums)
            return sums
        for number in range(ROW_BYTES // 32):
            xs, ys = self._parts(self.lhs, slot, number, True), self._parts(self.rhs, rhs, number, False)
            finite = [self._finite(side[0]) if self.unit.parts > 1 else [] for side in (xs, ys)]
            for x, y in self.unit.products[:-1]:
                sums = self._products(xs[x] if x else finite[0], ys[y] if y else finite[1], sums)
            sums = self._products(xs[0], ys[0], sums)
        return sums

    def _finite(self, fragments: list[list[Value]]) -> list[list[Value]]:
        return [[finite_only(self.b, self.unit.lhs, bits) for bits in one] for one in fragments]

    def _parts(self, side: Fragments, base: Value, number: int, is_lhs: bool) -> list[list[list[Value]]]:
        """The fragments of all parts of the operand's elements."""
        b, unit = self.b, self.unit
        slots = [b.gep("i8", base, i64(part * side.tile.bytes)) for part in range(unit.parts)]
        found = [side.load(slot, number, is_lhs) for slot in slots]
        if unit.lhs is not F32:
            return found
        return [[[rounded_to_tf32(b, bits) for bits in one] for one in part] for part in found]

    def _products(self, xs: list[list[Value]], ys: list[list[Value]], sums: list[Value]) -> list[Value]:
        unit, size, made = self.unit, self.per_fragment, []
        for i, x in enumerate(xs):
            for j, y in enumerate(ys):
                start = (i * len(ys) + j) * size
                made += self.k.gpu.mma(unit.ptx_shape, unit.names, x, y, sums[start : start + size])
        return made

    # Results

    def _store(self, sums: list[Value]) -> None:
        dtype, room = self.plan.dot.dtype, self.plan.stages * self.stage_bytes
        part = self.counts[0]
        while slab_bytes(self._slab_rows(part), self.warps.n, dtype) > room:
            part //= 2
        for first in range(0, self.counts[0], part):
            store_slab(self.k, self.plan, self.place, self._slab(sums, first, part))

    def _slab_rows(self, part: int) -> int:
        return self.warps.down * part * self.unit.shape[0]

    def _slab(self, sums: list[Value], first: int, part: int) -> Slab:
        """`part` fragments of each warp's lines, from `first` on."""
        b, size = self.b, self.unit.shape[0]
        height = part * size

        def tile_row(row: Value) -> Value:
            down, rest = b.udiv(row, i64(height)), b.urem(row, i64(height))
            return b.add(b.mul(down, i64(self.rows)), b.add(rest, i64(first * size)))

        def write(put: Callable[[Value, Value, Register], None]) -> None:
            group, pair = b.lshr(self.lane, i64(2)), b.mul(b.and_(self.lane, i64(3)), i64(2))
            for i in range(part):
                for j in range(self.counts[1]):
                    start = ((first + i) * self.counts[1] + j) * self.per_fragment
                    for number in range(self.per_fragment):
                        row = b.add(b.add(b.mul(self.down, i64(height)), group), i64(i * size + number // 2 * 8))
                        column = b.add(b.mul(self.across, i64(self.columns)), b.add(pair, i64(8 * j + number % 2)))
                        put(row, column, sums[start + number])

        return Slab(self._slab_rows(part), self.warps.n, tile_row, write)
