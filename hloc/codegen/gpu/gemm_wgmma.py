"""Products by warpgroups (`wgmma`, sm_90a): one fetches tiles (TMA) into a ring of stages, others multiply them.

A stage has a tile of each operand, 128 bytes of steps, as `StagedTile` has them, and two barriers: `full` is passed
when its tiles have come, `empty` when the products that read them are done. Blocks stay, and make one part of the
result after the other: while sums of one leave through shared memory of their own, tiles for the next are on their way.

Operands that cannot be fetched so are written to temporary memory first, by launches of their own. Steps and lines
outside of an operand come as zeros. What thread holds which sums is from "wgmma" of the PTX ISA manual.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.device_program import TensorMap
from hloc.codegen.dot_side import Side
from hloc.codegen.gpu import gemm_plan
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.gemm_fetched import CHUNK, Fetched
from hloc.codegen.gpu.gemm_parts import (
    BlockPlace,
    Operand,
    add_parts,
    block_place,
    grid_size,
    i32,
    least,
    thread_number,
)
from hloc.codegen.gpu.gemm_plan import GemmPlan, along_and_width
from hloc.codegen.gpu.gemm_shapes import BARRIER_BYTES
from hloc.codegen.gpu.gemm_tiles import Slab, Team, slab_bytes, store_slab
from hloc.codegen.gpu.gemm_units import ROW_BYTES
from hloc.codegen.gpu.group_products import ATOM_BYTES, ROWS, STEP_BYTES, WARPGROUP
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat, clamped, delinearize
from hloc.codegen.routines import i64
from hloc.ir.dtypes import F32

_FETCHING, _MULTIPLYING = 40, 232
"""Registers of threads that fetch, and of those that multiply, of three warpgroups that begin with 168 each."""

_WIDE = 128
"""Columns up to which these are enough."""

_PACKING = 256
"""Threads of a block that packs."""

_STORING = 1
"""The barrier of the threads that multiply and store."""


def write_groups(g: GpuStep, plan: GemmPlan) -> None:
    """The product in one launch, behind those that pack operands, before the one that adds parts of split sums."""
    tile = plan.groups
    assert tile is not None
    for name, side, own in zip(("lhs", "rhs"), plan.sides, (plan.dot.lhs, plan.dot.rhs), strict=True):
        if side.array is None:
            _pack(g, plan, side, own, name)
    maps = [_tensor_map(g, side, lines) for side, lines in zip(plan.sides, (tile.m, tile.n), strict=True)]
    shared = plan.stages * tile.stage_bytes + tile.other_bytes(plan.dot.dtype)
    parts = grid_size(plan, tile.m, tile.n)
    blocks = min(parts, gemm_plan.BLOCKS, g.device.multiprocessors)
    with g.launch(blocks, tile.threads, shared, maps=maps) as k:
        _Groups(k, plan, parts).write()
    add_parts(g, plan)


def _tensor_map(g: GpuStep, side: Fetched, lines: int) -> TensorMap:
    number = None if side.array is None else g.number_of(side.array)
    box, rounds = side.box(lines), side.dtype is F32
    return g.tensor_map(number, side.dtype.itemsize, side.dims, side.strides, box, side.offset, rounds)


def _pack(g: GpuStep, plan: GemmPlan, side: Fetched, own: Side, name: str) -> None:
    """The launch that writes an operand to temporary memory: a thread for each 16 bytes.

    Neighbours have what lies together in memory, or has neighbours to be computed from.
    """
    dtype, (inner, outer, batches) = side.dtype, side.dims
    width = CHUNK // dtype.itemsize
    groups = -(-inner // width)
    with g.launch(-(-groups * outer * batches // _PACKING), _PACKING, name=name) as k:
        b, thread = k.b, thread_number(k)
        with b.if_then(b.icmp_unsigned("<", thread, i64(groups * outer * batches))):
            turned = along_and_width(own)[0] != side.by_steps
            batch, slow, fast = Flat(b, thread, [batches, *((groups, outer) if turned else (outer, groups))]).parts()
            row, group = (fast, slow) if turned else (slow, fast)
            operand = Operand(k, own, tuple(delinearize(b, batch, plan.dot.batch)), dtype)
            first = b.mul(group, i64(width))
            columns = [b.add(first, i64(number)) for number in range(width)]
            if inner % width:  # What is behind a row's end is never looked at.
                columns = [least(k, column, inner - 1) for column in columns]
            values = [operand.element(*((row, c) if side.by_steps else (c, row))) for c in columns]
            place = b.add(b.mul(b.add(b.mul(batch, i64(outer)), row), i64(side.strides[0])), i64(side.offset))
            start = b.gep("i8", k.scratch, b.add(place, b.mul(group, i64(CHUNK))))
            for number, value in enumerate(values):
                scalar.store(b, dtype, value, b.gep("i8", start, i64(number * dtype.itemsize)))


class _Ring:
    """The stages. A place among them is the number of one, `slot`, and whether the way round is an `odd` one: i32s."""

    def __init__(self, k: GpuContext, stages: int, stage_bytes: int, barriers: int):
        self.k, self.b, self.stages, self.stage_bytes, self.barriers = k, k.b, stages, stage_bytes, barriers

    def full(self, slot: Value) -> Value:
        """The barrier of a stage whose tiles are to come."""
        offset = self.b.mul(self.b.zext(slot, "i64"), i64(BARRIER_BYTES))
        return self.b.gep("i8", self.k.gpu.shared(self.barriers), offset)

    def empty(self, slot: Value) -> Value:
        """The barrier of a stage whose tiles are to be read."""
        return self.b.gep("i8", self.full(slot), i64(self.stages * BARRIER_BYTES))

    def stage(self, slot: Value) -> Value:
        return self.b.gep("i8", self.k.gpu.shared(), self.b.mul(self.b.zext(slot, "i64"), i64(self.stage_bytes)))

    def next(self, slot: Value, odd: Value) -> list[Value]:
        b = self.b
        is_last = b.icmp_unsigned("==", slot, i32(self.stages - 1))
        return [b.select(is_last, i32(0), b.add(slot, i32(1))), b.xor(odd, b.zext(is_last, "i32"))]

    def make(self, arrivals: int) -> None:
        """The barriers; `arrivals` are of those who read. For one thread."""
        gpu = self.k.gpu
        for slot in range(self.stages):
            gpu.barrier_make(self.full(i32(slot)), 1)
            gpu.barrier_make(self.empty(i32(slot)), arrivals)
        gpu.barriers_made()


class _Groups:
    """The kernel of a block; it makes every so many of the `parts` of the result."""

    def __init__(self, k: GpuContext, plan: GemmPlan, parts: int):
        assert plan.groups is not None and plan.unit is not None
        self.k, self.b, self.plan, self.tile, self.unit = k, k.b, plan, plan.groups, plan.unit
        self.sides, self.parts = plan.sides, parts
        self.is_wide = self.tile.groups > 1 and self.tile.n > _WIDE
        stages = plan.stages * self.tile.stage_bytes
        self.slab_at = stages
        self.barriers_at = stages + slab_bytes(self.tile.m, self.tile.slab, plan.dot.dtype)
        self.ring = _Ring(k, plan.stages, self.tile.stage_bytes, self.barriers_at)

    def write(self) -> None:
        b, gpu, tile = self.b, self.k.gpu, self.tile
        with b.if_then(b.icmp_unsigned("==", gpu.thread(), i32(0))):
            self.ring.make(tile.multiplying // WARP)
        gpu.barrier()
        b.if_else(b.icmp_unsigned("<", gpu.thread(), i32(tile.multiplying)), self._multiply_all, self._fetch_all)

    def _each_part(self, one: Callable[[BlockPlace, list[Value]], list[Value]]) -> None:
        """Code for each of the block's parts, to which the place in the ring is carried."""
        tile = self.tile

        def part(number: Value, carried: list[Value]) -> list[Value]:
            return one(block_place(self.k, self.plan, tile.m, tile.n, number), carried)

        block, start = self.k.gpu.block(), [i32(0), i32(0)]
        self.b.for_loop_carrying(block, i32(self.parts), start, part, self.k.grid[0], unroll=False)

    def _turns(self, place: BlockPlace) -> Value:
        """Tiles of steps of a part of the sums."""
        plan, b, steps = self.plan, self.b, self.unit.steps
        if plan.splits == 1 or plan.dot.k % plan.steps == 0:
            return i64(-(-plan.steps // steps))
        count = b.sub(place.end, place.first)
        return b.udiv(b.add(count, i64(steps - 1)), i64(steps))

    # Tiles

    def _fetch_all(self) -> None:
        b, gpu, tile = self.b, self.k.gpu, self.tile
        if self.is_wide:
            gpu.set_registers(_FETCHING, False)
        with b.if_then(b.icmp_unsigned("==", gpu.thread(), i32(tile.multiplying))):
            self.starts = [self._starts(side) for side in self.sides]
            self._each_part(self._fetch)

    def _starts(self, side: Fetched) -> list[Value]:
        k = self.k
        found = [(start, k.body.evaluate(k, start, (), ()), greatest) for start, greatest, _ in side.starts]
        return [k.b.trunc(clamped(k.b, value, start.shape.dtype, most), "i32") for start, value, most in found]

    def _fetch(self, place: BlockPlace, carried: list[Value]) -> list[Value]:
        b, gpu, ring = self.b, self.k.gpu, self.ring

        def turn(number: Value, carried: list[Value]) -> list[Value]:
            slot, odd = carried
            gpu.barrier_wait(ring.empty(slot), b.xor(odd, i32(1)))
            gpu.barrier_expect(ring.full(slot), ring.stage_bytes)
            step = b.add(place.first, b.mul(number, i64(self.unit.steps)))
            self._fetch_tile(0, place.row, step, place, slot)
            self._fetch_tile(1, place.column, step, place, slot)
            return ring.next(slot, odd)

        return b.for_loop_carrying(i64(0), self._turns(place), carried, turn, unroll=False)

    def _fetch_tile(self, number: int, line: Value, step: Value, place: BlockPlace, slot: Value) -> None:
        """The tile of an operand that begins at a line and step."""
        b, side = self.b, self.sides[number]
        base = b.gep("i8", self.ring.stage(slot), i64(number * self.tile.m * ROW_BYTES))
        batch = [place.flat_batch] if side.array is None else [place.batch[dimension] for dimension in side.batch]
        others = [*(b.trunc(value, "i32") for value in batch), *self.starts[number]]
        lines = self.tile.n if number else self.tile.m
        each = lines if side.by_steps else side.box(lines)[0]
        for first in range(0, lines, each):
            at = [b.trunc(step, "i32"), b.trunc(b.add(line, i64(first)), "i32")]
            target = b.gep("i8", base, i64(first * ROW_BYTES))
            ordered = at if side.by_steps else at[::-1]
            self.k.gpu.copy_tile(target, self.k.maps[number], [*ordered, *others], self.ring.full(slot))

    # Products

    def _multiply_all(self) -> None:
        if self.is_wide:
            self.k.gpu.set_registers(_MULTIPLYING, True)
        b, gpu = self.b, self.k.gpu
        self.is_first_lane = b.icmp_unsigned("==", gpu.lane(), i32(0))
        self.group = b.zext(b.udiv(gpu.thread(), i32(WARPGROUP)), "i64")
        self._each_part(self._multiply)

    def _multiply(self, place: BlockPlace, carried: list[Value]) -> list[Value]:
        b, gpu = self.b, self.k.gpu
        zero = scalar.constant(self.plan.dot.dtype, 0)
        assert isinstance(zero, Value)
        sums = [zero] * (self.tile.n // 2)
        *sums, slot, odd, last = b.for_loop_carrying(
            i64(0), self._turns(place), [*sums, *carried, i32(0)], self._turn, unroll=False
        )
        sums = gpu.group_wait(0, sums)
        self._release(last, self.is_first_lane)
        self._store(place, sums)
        return [slot, odd]

    def _turn(self, number: Value, carried: list[Value]) -> list[Value]:
        """The products of one stage begin; those of the one before are waited for."""
        b, gpu, ring = self.b, self.k.gpu, self.ring
        *sums, slot, odd, before = carried
        gpu.barrier_wait(ring.full(slot), odd)
        sums = self._products(ring.stage(slot), gpu.group_begin(sums))
        gpu.group_commit()
        sums = gpu.group_wait(1, sums)
        self._release(before, b.and_(self.is_first_lane, b.icmp_unsigned("!=", number, i64(0))))
        return [*sums, *ring.next(slot, odd), slot]

    def _release(self, slot: Value, condition: Value) -> None:
        """Says, for a warp, that it reads a stage no longer."""
        with self.b.if_then(condition):
            self.k.gpu.barrier_arrive(self.ring.empty(slot))

    def _products(self, stage: Value, sums: list[Value]) -> list[Value]:
        b, gpu, tile = self.b, self.k.gpu, self.tile
        names = self.unit.group_names
        assert names is not None
        own = b.gep("i8", stage, b.mul(self.group, i64(ROWS * ROW_BYTES)))
        lhs, rhs = (
            gpu.shared_matrix(base, self._panel(side), ATOM_BYTES)
            for base, side in zip((own, b.gep("i8", stage, i64(tile.m * ROW_BYTES))), self.sides, strict=True)
        )
        by_lines = [not side.by_steps for side in self.sides]
        ways = [self._way(side) for side in self.sides]
        for number in range(ROW_BYTES // STEP_BYTES):
            x, y = (gpu.matrix_behind(one, number * way) for one, way in zip((lhs, rhs), ways, strict=True))
            sums = gpu.group_multiply(tile.n, names, x, y, sums, *by_lines)
        return sums

    def _panel(self, side: Fetched) -> int:
        """Bytes from the lines of one row to those of the next, where rows are of lines."""
        return 16 if side.by_steps else self.unit.steps * ROW_BYTES

    def _way(self, side: Fetched) -> int:
        """Bytes from the steps of one product to those of the next."""
        return STEP_BYTES if side.by_steps else STEP_BYTES // side.dtype.itemsize * ROW_BYTES

    # Results

    def _store(self, place: BlockPlace, sums: list[Value]) -> None:
        """All columns, some at a time; the epilogue is written once."""
        b, tile = self.b, self.tile
        team = Team(
            tile.multiplying,
            partial(self.k.gpu.part_barrier, _STORING, tile.multiplying),
            self.k.gpu.shared(self.slab_at),
        )
        with b.for_loop(i32(0), i32(tile.n // tile.slab), unroll=False) as part:
            column = b.add(place.column, b.mul(b.zext(part, "i64"), i64(tile.slab)))
            slab = Slab(tile.m, tile.slab, lambda row: row, partial(self._write, sums, part))
            store_slab(self.k, self.plan, place._replace(column=column), slab, team)

    def _write(self, sums: list[Value], part: Value, put: Callable[[Value, Value, Register], None]) -> None:
        """The thread's sums of one of the parts of the columns."""
        b, thread = self.b, self.k.thread_index()
        lane = b.and_(thread, i64(WARP - 1))
        row = b.add(b.mul(b.lshr(thread, i64(5)), i64(16)), b.lshr(lane, i64(2)))
        column = b.mul(b.and_(lane, i64(3)), i64(2))
        each = self.tile.slab // 2
        for number in range(len(sums) // each):
            with b.if_then(b.icmp_unsigned("==", part, i32(number))):
                for i, value in enumerate(sums[number * each : (number + 1) * each]):
                    put(b.add(row, i64(8 * (i // 2 % 2))), b.add(column, i64(8 * (i // 4) + i % 2)), value)
