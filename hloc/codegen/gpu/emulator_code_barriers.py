"""Barriers of the emulator in shared memory, which copies of tiles complete, and barriers of some warps.

A barrier is known by its place, where nothing else may be; what it is lies outside of shared memory. A phase without
bytes to come is complete with the last arrival. One with bytes is so when someone waits for it, no earlier: until then,
what has been copied is not there for anyone.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen.device_program import EMULATED_GROUPS
from hloc.codegen.gpu.emulator_code import THREADS, WARPS
from hloc.codegen.gpu.emulator_code_matrix import EmulatedMatrices
from hloc.codegen.gpu.emulator_code_memory import SHARED_BYTES, WRITE
from hloc.codegen.gpu.emulator_code_order import BARRIERS, CLOCK, MADE, PENDING, THREAD
from hloc.codegen.gpu.emulator_code_threads import AT_BEGIN, AT_END, AT_STUCK, STUCK
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.llvm import Builder, Function, Value, const
from hloc.codegen.routines import i64

COPIES = 64
"""The most copies of tiles for one phase."""

_PARTS = 16
"""Numbers of barriers of some warps; 0 is that of the block."""

SETS = 8
"""The most sums of a warpgroup that products add to at the same time."""

_STATE = {
    "barriers": 1,
    "tiles": 1,
    "sets": 1,
    "awaits": THREADS,
    "come": _PARTS,
    "wanted": _PARTS,
    "of_warps": _PARTS * WARPS,
    "group.met": EMULATED_GROUPS,
    "group.begun": EMULATED_GROUPS,
    "group.committed": EMULATED_GROUPS,
    "group.head": EMULATED_GROUPS,
    "group.tail": EMULATED_GROUPS,
    "group.registers": EMULATED_GROUPS,
    "set.registers": EMULATED_GROUPS * SETS,
    "set.left": EMULATED_GROUPS * SETS,
    "set.busy": EMULATED_GROUPS * SETS,
}
"""What is 0 when a block begins: barriers; copies and sums that are not waited for; the barrier that a thread waits
for, plus one; of barriers of warps, who has come so far; of warpgroups, see `emulator_code_groups.py`."""

_FIELDS = ("arrivals", "pending", "made", "shown", "phases", "expected", "issued", "copies", "awaited")
"""What is known of a barrier: how many arrive, and are still to come; its record, and whether copies know of it; the
phases that are over; bytes to wait for, bytes on their way, in how many copies; threads that wait."""

_PLACES = dict(zip(_STATE, [sum(list(_STATE.values())[:n]) for n in range(len(_STATE))], strict=True))
_STATES = sum(_STATE.values())

NO_BARRIER = "{site}, and there is no barrier at offset {0}"
UNSEEN = "{site}, and thread {0} made the barrier at offset {1}: nothing says that before"
MANY_BARRIERS = "{site}, and there are {0} already"
LATE = "{site}, and all {0} arrivals of its phase have come, but only {1} of {2} bytes"
AT_BARRIER = "; a phase waits for {0} more to come, and for {1} bytes, of which copies bring {2}"
EXCESS = "{site}, and tiles of {0} bytes come to a phase that waits for {1}"
DIFFERENT = "{site}, of {0} threads, where others wait for {1}"
TORN = "{site}, without some of its warp's threads: {0} of {1}"


class EmulatedBarriers(EmulatedMatrices):
    """See EmulatorCode."""

    def state(self, b: Builder, name: str, index: Value | None = None) -> Value:
        """The place of one of _STATE."""
        place = i64(_PLACES[name]) if index is None else b.add(index, i64(_PLACES[name]))
        return self.place(b, "state", "i64", _STATES, place)

    def count(self, b: Builder, place: Value, by: Value) -> Value:
        """Adds to what is at a place; the sum."""
        total = b.add(b.load("i64", place), by)
        b.store(total, place)
        return total

    def use_state(self, b: Builder) -> None:
        """There is something in _STATE: sets the hooks for what has to be done about it."""
        for hook, write in ((AT_BEGIN, self._clear), (AT_END, self.check_end), (AT_STUCK, self._tell_stuck)):
            function = self.function(hook, "", lambda b, p, write=write: write(b))
            self.set(b, hook, Value("ptr", function.text))

    def _clear(self, b: Builder) -> None:
        b.memset(self.state(b, "barriers"), const("i8", 0), i64(8 * _STATES))
        for hook in (AT_BEGIN, AT_END, AT_STUCK):
            self.set(b, hook, const("ptr", 0))

    def check_end(self, b: Builder) -> None:
        """Fails if something is still under way at the end of a block."""
        for name, what in (("tiles", "copies of tiles"), ("sets", "sums of products")):
            left = b.load("i64", self.state(b, name))
            template = f"ends while {{0}} {what} are not waited for, or were changed before"
            self.fail_unless(b, b.icmp_signed("==", left, i64(0)), template, const("ptr", 0), left)

    def _tell_stuck(self, b: Builder) -> None:
        """Tells of a barrier that is waited for: if there is one, of one whose bytes are not what it waits for."""
        for only_uneven in (True, False):
            with b.for_loop(i64(0), self.get(b, "threads")) as t:
                awaits = b.load("i64", self.state(b, "awaits", t))
                slot = b.intrinsic("llvm.usub.sat", "i64", [awaits, i64(1)])
                fields = [b.load("i64", self.field(b, name, slot)) for name in ("pending", "expected", "issued")]
                found = b.icmp_signed("!=", awaits, i64(0))
                if only_uneven:
                    found = b.and_(found, b.icmp_signed("!=", fields[1], fields[2]))
                with b.if_then(found):
                    self.fail(b, STUCK + AT_BARRIER, const("ptr", 0), *fields)

    # Barriers in shared memory

    def field(self, b: Builder, name: str, slot: Value) -> Value:
        return self.place(b, f"barrier.{name}", "i64", BARRIERS, slot)

    def _known(self, b: Builder, name: str, slot: Value) -> Value:
        """What those who have come know (`told`), and those who came to the phases that are complete (`done`)."""
        return self.place(b, f"barrier.{name}", "i64", BARRIERS * THREADS, b.mul(slot, i64(THREADS)))

    def barrier_make(self) -> Function:
        """A barrier at `p` of so many arrivals."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            offset = self.shared_offset(b, p, i64(8))
            b.call(self.each(WRITE, 4), [offset, i64(8), p.site])
            self.check_room(b, p.site)
            slot = b.load("i64", self.state(b, "barriers"))
            self.fail_unless(b, b.icmp_signed("<", slot, i64(BARRIERS)), MANY_BARRIERS, p.site, slot)
            self.count(b, self.state(b, "barriers"), i64(1))
            self.use_state(b)
            made = self.stamp(b)
            for name in _FIELDS:
                b.store(i64(0), self.field(b, name, slot))
            for name, value in (("arrivals", p.arrivals), ("pending", p.arrivals), ("made", made)):
                b.store(value, self.field(b, name, slot))
            entry = self.place(b, "barrier_at", "i64", SHARED_BYTES // 8, b.lshr(offset, i64(3)))
            b.store(b.add(self.get(b, "start"), slot), entry)
            self.mark(b, offset, i64(8), b.or_(made, i64(PENDING | MADE)))

        return self.function("barrier_make", "ptr p, i64 arrivals, i64 mask, ptr site", write)

    def barriers_made(self) -> Function:
        """The barriers that this thread has made may be those of copies."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            with b.for_loop(i64(0), b.load("i64", self.state(b, "barriers"))) as slot:
                own = b.zext(self.is_own(b, b.load("i64", self.field(b, "made", slot))), "i64")
                shown = self.field(b, "shown", slot)
                b.store(b.or_(b.load("i64", shown), own), shown)

        return self.function("barriers_made", "", write)

    def barrier_slot(self) -> Function:
        """The number of the barrier at `p`, which this thread must know of."""

        def write(b: Builder, p: SimpleNamespace) -> Value:
            offset = self.shared_offset(b, p, i64(8))
            entry = b.load("i64", self.place(b, "barrier_at", "i64", SHARED_BYTES // 8, b.lshr(offset, i64(3))))
            start = self.get(b, "start")
            self.fail_unless(b, b.icmp_signed(">=", entry, start), NO_BARRIER, p.site, offset)
            slot = b.sub(entry, start)
            made = b.load("i64", self.field(b, "made", slot))
            seen = b.or_(b.icmp_signed("<", made, self.get(b, "limit")), self.is_own(b, made))
            seen = b.or_(seen, self.is_before(b, made))
            self.fail_unless(b, seen, UNSEEN, p.site, b.and_(made, i64(THREAD)), offset)
            return slot

        return self.function("barrier_slot", "ptr p, i64 mask, ptr site", write, "i64")

    def _is_ready(self, b: Builder, slot: Value) -> Value:
        """Whether all have arrived, and all bytes are on their way."""
        pending, expected, issued = (
            b.load("i64", self.field(b, name, slot)) for name in ("pending", "expected", "issued")
        )
        return b.and_(b.icmp_signed("==", pending, i64(0)), b.icmp_signed("==", expected, issued))

    def barrier_arrive(self) -> Function:
        """An arrival that has the phase wait for so many bytes more."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            slot = b.call(self.barrier_slot(), [p.p, p.mask, p.site])
            with b.if_then(self._is_ready(b, slot)):
                b.call(self._complete(), [slot])
            fields = ("arrivals", "issued", "expected")
            arrivals, issued, expected = (b.load("i64", self.field(b, name, slot)) for name in fields)
            pending = self.field(b, "pending", slot)
            room = b.icmp_signed(">", b.load("i64", pending), i64(0))
            self.fail_unless(b, room, LATE, p.site, arrivals, issued, expected)
            self.count(b, self.field(b, "expected", slot), p.bytes)
            b.call(self.tell(), [self._known(b, "told", slot)])
            self.count(b, pending, i64(-1))
            b.call(self.settle(), [slot, p.site])

        return self.function("barrier_arrive", "ptr p, i64 bytes, i64 mask, ptr site", write)

    def settle(self) -> Function:
        """Completes a barrier's phase if that is due."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            fields = ("pending", "expected", "issued", "awaited")
            pending, expected, issued, awaited = (b.load("i64", self.field(b, name, p.slot)) for name in fields)
            with b.if_then(b.icmp_signed("==", pending, i64(0))):
                fits = b.icmp_signed("<=", issued, expected)
                self.fail_unless(b, fits, EXCESS, p.site, issued, expected)
                due = b.icmp_signed("!=", b.or_(awaited, b.zext(b.icmp_signed("==", expected, i64(0)), "i64")), i64(0))
                with b.if_then(b.and_(due, b.icmp_signed("==", issued, expected))):
                    b.call(self._complete(), [p.slot])

        return self.function("settle", "i64 slot, ptr site", write)

    def _complete(self) -> Function:
        """Ends a phase: the tiles are there, for those who wait for it, and these go on."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            engine = b.add(self.get(b, "engines"), b.add(p.slot, i64(EMULATED_GROUPS)))
            record = b.or_(b.shl(self.tick(b), i64(CLOCK)), engine)
            copies = b.load("i64", self.field(b, "copies", p.slot))
            with b.for_loop(i64(0), copies) as number:
                copy = self.tile(b, p.slot, number)
                self.mark(b, b.load("i64", copy), b.load("i64", b.gep("i64", copy, i64(1))), record)
            self.count(b, self.state(b, "tiles"), b.sub(i64(0), copies))
            told, done = (self._known(b, name, p.slot) for name in ("told", "done"))
            b.store(self.tick(b), b.gep("i64", told, engine))
            b.memcpy(done, told, b.shl(self.get(b, "parties"), i64(3)))
            for name in ("expected", "issued", "copies", "awaited"):
                b.store(i64(0), self.field(b, name, p.slot))
            b.store(b.load("i64", self.field(b, "arrivals", p.slot)), self.field(b, "pending", p.slot))
            self.count(b, self.field(b, "phases", p.slot), i64(1))
            with b.for_loop(i64(0), self.get(b, "threads")) as t:
                awaits = self.state(b, "awaits", t)
                with b.if_then(b.icmp_signed("==", b.load("i64", awaits), b.add(p.slot, i64(1)))):
                    b.store(i64(0), awaits)
                    b.call(self.learn(), [t, done])
                    self.queue(b, t)

        return self.function("complete", "i64 slot", write)

    def tile(self, b: Builder, slot: Value, number: Value) -> Value:
        """A copy for the phase of a barrier: its offset and bytes."""
        index = b.mul(b.add(b.mul(slot, i64(COPIES)), number), i64(2))
        return self.place(b, "barrier.tiles", "i64", BARRIERS * COPIES * 2, index)

    def barrier_wait(self) -> Function:
        """Waits for the phase of a parity."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            slot = b.call(self.barrier_slot(), [p.p, p.mask, p.site])
            phases = b.load("i64", self.field(b, "phases", slot))
            current = b.icmp_signed("==", b.and_(b.xor(phases, p.parity), i64(1)), i64(0))
            with b.if_then(b.and_(current, self._is_ready(b, slot))):
                b.call(self._complete(), [slot])
            phases = b.load("i64", self.field(b, "phases", slot))
            over = b.icmp_signed("!=", b.and_(b.xor(phases, p.parity), i64(1)), i64(0))
            this = self.thread(b)
            with b.if_then(over):
                b.call(self.learn(), [this, self._known(b, "done", slot)])
                b.ret()
            self.count(b, self.field(b, "awaited", slot), i64(1))
            b.store(b.add(slot, i64(1)), self.state(b, "awaits", this))
            self.wait(b, p.site)

        return self.function("barrier_wait", "ptr p, i64 parity, i64 mask, ptr site", write)

    # Barriers of some warps

    def part_barrier(self) -> Function:
        """So many threads come to the barrier of a number, whole warps."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            self.use_state(b)
            come, wanted = (self.state(b, name, p.number) for name in ("come", "wanted"))
            before = b.load("i64", come)
            with b.if_then(b.icmp_signed("==", before, i64(0))):
                b.store(p.count, wanted)
            others = b.load("i64", wanted)
            self.fail_unless(b, b.icmp_signed("==", others, p.count), DIFFERENT, p.site, p.count, others)
            this = self.thread(b)
            b.store(this, self._member(b, p.number, before))
            self.count(b, self._of_warp(b, p.number, self.warp(b)), i64(1))
            told = self.place(b, "part.told", "i64", _PARTS * THREADS, b.mul(p.number, i64(THREADS)))
            b.call(self.tell(), [told])
            last = b.icmp_signed("==", self.count(b, come, i64(1)), p.count)

            def completed() -> None:
                b.store(i64(0), come)
                self._check_warps(b, p)
                with b.for_loop(i64(0), p.count) as number:
                    t = b.load("i64", self._member(b, p.number, number))
                    b.call(self.learn(), [t, told])
                    with b.if_then(b.icmp_signed("!=", t, this)):
                        self.queue(b, t)
                b.memset(told, const("i8", 0), b.shl(self.get(b, "parties"), i64(3)))

            b.if_else(last, completed, lambda: self.wait(b, p.site))

        return self.function("part_barrier", "i64 number, i64 count, ptr site", write)

    def _member(self, b: Builder, part: Value, number: Value) -> Value:
        return self.place(b, "part.members", "i64", _PARTS * THREADS, b.add(b.mul(part, i64(THREADS)), number))

    def _of_warp(self, b: Builder, part: Value, warp: Value) -> Value:
        return self.state(b, "of_warps", b.add(b.mul(part, i64(WARPS)), warp))

    def _check_warps(self, b: Builder, p: SimpleNamespace) -> None:
        """Fails unless those who came are whole warps."""
        with b.for_loop(i64(0), i64(WARPS)) as warp:
            place = self._of_warp(b, p.number, warp)
            came, lanes = b.load("i64", place), self.lanes(b, warp)
            whole = b.or_(b.icmp_signed("==", came, i64(0)), b.icmp_signed("==", came, lanes))
            self.fail_unless(b, whole, TORN, p.site, came, lanes)
            b.store(i64(0), place)

    def lanes(self, b: Builder, warp: Value) -> Value:
        """How many threads a warp has."""
        rest = b.sub(self.get(b, "threads"), b.shl(warp, i64(5)))
        return b.intrinsic("llvm.smin", "i64", [rest, i64(WARP)])
