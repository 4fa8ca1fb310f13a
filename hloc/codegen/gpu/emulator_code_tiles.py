"""Copies of tiles of the emulator (TMA), and the order between them and what threads do to shared memory themselves.

A tile's bytes are copied when its copy begins, but marked as under way until the phase of its barrier is complete. What
threads have written comes before copies and products of warpgroups only with a fence behind it. Copies do not count
among those who read global memory in a launch: nobody is told that others write there.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen.device_program import EMULATED_MAP_FIELDS, TENSOR_MAP_DIMS
from hloc.codegen.gpu.emulator_code import i32
from hloc.codegen.gpu.emulator_code_barriers import COPIES, EmulatedBarriers
from hloc.codegen.gpu.emulator_code_memory import SPLIT, WRITE
from hloc.codegen.gpu.emulator_code_order import CLOCK, PENDING, THREAD
from hloc.codegen.llvm import Builder, Function, Value, const, integer
from hloc.codegen.routines import i64

_ROW, _CHUNK = 128, 16

_TF32_HALF = 0x1000
"""Half of the last bit that tf32 keeps of a float."""

RANK = "{site} by {0} numbers, and its array has {1} dims"
UNSHOWN = "{site}, for a barrier that copies do not know of"
UNFENCED = "{site} at offset {1}, where thread {0} has written, with no fence for that behind it"
MANY_TILES = "{site}, and {0} are under way for the phase already"


class EmulatedTiles(EmulatedBarriers):
    """See EmulatorCode."""

    def fence_shared(self) -> Function:
        """What this thread has done to shared memory comes before copies and products."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            now, this = self.tick(b), self.thread(b)
            b.store(now, self.own_clock(b, this))
            b.store(now, self.of_thread(b, "fenced", "i64", this))

        return self.function("fence_shared", "", write)

    def is_fenced(self, b: Builder, record: Value) -> Value:
        """Whether a fence came behind a write: of who wrote, or of this thread."""
        writer = b.and_(record, i64(THREAD))
        fences = [b.load("i64", self.of_thread(b, "fenced", "i64", t)) for t in (writer, self.thread(b))]
        last = b.intrinsic("llvm.smax", "i64", fences)
        return b.or_(b.icmp_signed("<", b.lshr(record, i64(CLOCK)), last), self.is_engine(b, record))

    def _check_fences(self) -> Function:
        """Whole words that a copy is to write have no writes of threads without a fence behind them."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            with b.for_loop(i64(0), p.bytes, 4) as i:
                at = b.add(p.offset, i)
                word = b.load("i64", self.records(b, 4, b.lshr(at, i64(2)))[0])
                split = b.icmp_signed("==", word, i64(SPLIT))
                with b.for_loop(i64(0), b.select(split, i64(4), i64(1))) as byte:
                    record = b.load("i64", self.records(b, 1, b.add(at, byte))[0])
                    record = b.select(split, record, word)
                    old = b.icmp_signed("<", record, self.get(b, "start"))
                    other = b.icmp_signed(">=", record, i64(PENDING))
                    good = b.or_(b.or_(old, other), self.is_fenced(b, record))
                    self.fail_unless(b, good, UNFENCED, p.site, b.and_(record, i64(THREAD)), p.offset)

        return self.function("check_fences", "i64 offset, i64 bytes, ptr site", write)

    def tile_place(self, b: Builder, dim: int) -> Value:
        """Where a thread leaves the number of a tile's first element along a dim, for `copy_tile`."""
        return self.place(b, "tile.at", "i64", TENSOR_MAP_DIMS, i64(dim))

    def _of_map(self, b: Builder, map: Value, field: str, dim: Value | None = None) -> Value:
        """What is in the record of a map."""
        number = i64(EMULATED_MAP_FIELDS.index(field if dim is None else f"{field}0"))
        return b.load("i64", b.gep("i64", map, number if dim is None else b.add(number, dim)))

    def copy_tile(self) -> Function:
        """Begins to copy a tile to `p`, for the barrier at `barrier`."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            slot = b.call(self.barrier_slot(), [p.barrier, i64(7), p.site])
            shown = b.icmp_signed("!=", b.load("i64", self.field(b, "shown", slot)), i64(0))
            self.fail_unless(b, shown, UNSHOWN, p.site)
            rank, bytes = self._of_map(b, p.map, "rank"), self._of_map(b, p.map, "box_bytes")
            self.fail_unless(b, b.icmp_signed("==", rank, p.rank), RANK, p.site, p.rank, rank)
            offset = self.shared_offset(b, p, bytes)
            b.call(self._check_fences(), [offset, bytes, p.site])
            b.call(self.each(WRITE, 4), [offset, bytes, p.site])
            self.mark(b, offset, bytes, b.or_(self.stamp(b), i64(PENDING)))
            with b.for_loop(i64(0), b.lshr(bytes, i64(_ROW.bit_length() - 1))) as row:
                b.call(self._copy_row(), [p.p, p.map, row])
            number = b.load("i64", self.field(b, "copies", slot))
            self.fail_unless(b, b.icmp_signed("<", number, i64(COPIES)), MANY_TILES, p.site, number)
            tile = self.tile(b, slot, number)
            b.store(offset, tile)
            b.store(bytes, b.gep("i64", tile, i64(1)))
            for place, by in (
                (self.field(b, "copies", slot), i64(1)),
                (self.field(b, "issued", slot), bytes),
                (self.state(b, "tiles"), i64(1)),
            ):
                self.count(b, place, by)
            b.call(self.settle(), [slot, p.site])

        params = "ptr p, ptr map, ptr barrier, i64 rank, i64 mask, ptr site"
        return self.function("copy_tile", params, write)

    def _copy_row(self) -> Function:
        """A row of a tile, in the order of its chunks."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            start, inside = self._row_start(b, p)
            itemsize = self._of_map(b, p.map, "itemsize")
            first = b.load("i64", self.tile_place(b, 0))
            before = b.intrinsic("llvm.smax", "i64", [b.sub(i64(0), first), i64(0)])
            end = b.sub(self._of_map(b, p.map, "dim", i64(0)), first)
            skipped, end = b.mul(before, itemsize), b.mul(end, itemsize)
            end = b.intrinsic("llvm.smin", "i64", [end, i64(_ROW)])
            live = b.and_(inside, b.icmp_signed("<", skipped, end))
            data = self.variable("tile.row", f"[{_ROW} x i8]", _CHUNK)
            b.memset(data, const("i8", 0), i64(_ROW))
            with b.if_then(live):
                source = b.inttoptr(b.add(b.add(start, b.mul(first, itemsize)), skipped))
                b.memcpy(b.gep("i8", data, skipped), source, b.sub(end, skipped))
            with b.if_then(b.icmp_signed("!=", self._of_map(b, p.map, "rounds"), i64(0))):
                _round(b, data)
            target = b.gep("i8", p.p, b.shl(p.row, i64(_ROW.bit_length() - 1)))
            for chunk in range(_ROW // _CHUNK):
                place = b.xor(i64(chunk), b.and_(p.row, i64(7)))
                value = b.load("<2 x i64>", b.gep("i8", data, i64(_CHUNK * chunk)), align=_CHUNK)
                b.store(value, b.gep("<2 x i64>", target, place), align=_CHUNK)

        return self.function("copy_row", "ptr p, ptr map, i64 row", write)

    def _row_start(self, b: Builder, p: SimpleNamespace) -> tuple[Value, Value]:
        """The address of the row's element of innermost number 0, and whether it is inside along the other dims."""

        def along(dim: Value, carried: list[Value]) -> list[Value]:
            rest, address, inside = carried
            size, stride, box = (self._of_map(b, p.map, field, dim) for field in ("dim", "stride", "box"))
            first = b.load("i64", self.place(b, "tile.at", "i64", TENSOR_MAP_DIMS, dim))
            number = b.add(first, b.urem(rest, box))
            within = b.icmp_unsigned("<", number, size)
            return [b.udiv(rest, box), b.add(address, b.mul(number, stride)), b.and_(inside, within)]

        start = [p.row, self._of_map(b, p.map, "address"), integer("i1", 1)]
        return tuple(b.for_loop_carrying(i64(1), self._of_map(b, p.map, "rank"), start, along)[1:])


def _round(b: Builder, row: Value) -> None:
    """The f32 of a row become tf32: to the nearest, halves away from zero; what is infinite or NaN loses bits only."""
    with b.for_loop(i64(0), i64(_ROW // 4)) as number:
        place = b.gep("i32", row, number)
        bits = b.load("i32", place)
        is_finite = b.icmp_unsigned("<", b.and_(bits, i32(0x7FFFFFFF)), i32(0x7F800000))
        rounded = b.add(bits, b.select(is_finite, i32(_TF32_HALF), i32(0)))
        b.store(b.and_(rounded, i32(-2 * _TF32_HALF)), place)
