"""In what order the emulator's threads do things.

A record of a write or a read is a *clock* (upwards of CLOCK) over some flags over who did it. Clocks count meetings of
threads, over all of a program's life. Each warp has the clock of its last meeting, each thread that of the last time
when it let others know what it had done. So a record of before the block's last barrier (`emulated.limit`) is in order,
one of before the block (`emulated.start`) is not of this block at all; others are in order if they are of this warp and
of before its last meeting, or if the thread knows of them: a table has, for each thread and each other, the clock
before which it knows all that the other did. Barriers in shared memory and those of some warps pass that on.

Those who do things are threads, and *engines*, numbered behind them: first one for each warpgroup, whose products read
shared memory, then one for each barrier in shared memory, for the copies of tiles that its phases wait for.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen.device_program import EMULATED_GROUPS
from hloc.codegen.gpu.emulator_code import THREADS, WARPS
from hloc.codegen.gpu.emulator_code_global import EmulatedGlobalMemory
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.llvm import Builder, Function, Value, const
from hloc.codegen.routines import i64

CLOCK = 14
THREAD = THREADS - 1
ATOMIC_WRITE, MADE, PENDING = 1 << 10, 1 << 11, 1 << 62
"""Flags of writes: that it was atomic, that it made a barrier, that it is still under way, which no barrier puts in
order. PENDING is one of reads, too: those of products."""

WARP_READS, MANY_READ = 1 << 10, 1 << 11
"""Flags of reads: that several threads made them."""

BARRIERS = 64
"""The most barriers in shared memory of a block."""

FULL_BLOCK = "{site}, in a block of {0} threads, and the emulator has room for {1}"

_PARTIES = EMULATED_GROUPS + BARRIERS
_LANES = 8
_SEVERAL = f"<{_LANES} x i64>"


class EmulatedOrder(EmulatedGlobalMemory):
    """See EmulatorCode."""

    def begin_order(self, b: Builder, threads: Value) -> None:
        """Begins a block: nothing that was done before is of any matter."""
        self.order_block(b)
        self.set(b, "start", self.get(b, "limit"))
        whole = b.and_(b.add(threads, i64(WARP - 1)), i64(-WARP))
        self.set(b, "engines", whole)
        parties = b.add(whole, i64(_PARTIES))
        self.set(b, "parties", b.intrinsic("llvm.smin", "i64", [parties, i64(THREADS)]))
        self.set(b, "share", const("ptr", 0))

    def tick(self, b: Builder) -> Value:
        """A new clock."""
        now = b.add(self.get(b, "now"), i64(1))
        self.set(b, "now", now)
        return now

    def order_block(self, b: Builder) -> None:
        """What any thread did comes before what any does from now on."""
        now = self.tick(b)
        self.set(b, "limit", b.shl(now, i64(CLOCK)))
        with b.for_loop(i64(0), i64(WARPS)) as w:
            b.store(now, self.place(b, "clock", "i64", WARPS, w))

    def order_warp(self, b: Builder, warp: Value, first: Value, lanes: Value) -> None:
        """What threads of a warp did comes before what they do from now on; what one knows, all do."""
        b.store(self.tick(b), self.place(b, "clock", "i64", WARPS, warp))
        share = self.get(b, "share", "ptr")
        with b.if_then(b.icmp_signed("!=", share, const("ptr", 0))):
            b.call(share, [first, lanes], "void")

    def begin_to_tell(self, b: Builder) -> None:
        """From now on there is something that threads know of others."""
        self.set(b, "share", Value("ptr", self._share().text))

    def own_clock(self, b: Builder, thread: Value) -> Value:
        """The place of the clock of the last time when a thread let others know."""
        return self.of_thread(b, "own", "i64", thread)

    def stamp(self, b: Builder) -> Value:
        """The record of what this thread does now."""
        this = self.thread(b)
        met = b.load("i64", self.place(b, "clock", "i64", WARPS, self.warp(b)))
        clock = b.intrinsic("llvm.smax", "i64", [met, b.load("i64", self.own_clock(b, this))])
        return b.or_(b.shl(clock, i64(CLOCK)), this)

    def is_before(self, b: Builder, record: Value) -> Value:
        """Whether what was done since the last barrier comes before what this thread does now."""
        this = self.warp(b)
        same_warp = b.icmp_signed("==", b.and_(b.lshr(record, i64(5)), i64(WARPS - 1)), this)
        clock = b.load("i64", self.place(b, "clock", "i64", WARPS, this))
        met = b.and_(same_warp, b.icmp_signed("<", b.lshr(record, i64(CLOCK)), clock))
        return b.or_(met, self.is_known(b, record, self.thread(b)))

    def is_own(self, b: Builder, record: Value) -> Value:
        """Whether this thread did it."""
        return b.icmp_signed("==", b.and_(record, i64(THREAD)), self.thread(b))

    def is_engine(self, b: Builder, record: Value) -> Value:
        """Whether no thread did it."""
        return b.icmp_signed(">=", b.and_(record, i64(THREAD)), self.get(b, "engines"))

    # What threads know of others

    def check_room(self, b: Builder, site: Value) -> None:
        """Fails if there are so many threads that engines have no numbers."""
        most = i64((THREADS - _PARTIES) // WARP * WARP)
        engines = self.get(b, "engines")
        self.fail_unless(b, b.icmp_signed("<=", engines, most), FULL_BLOCK, site, engines, most)

    def known(self, b: Builder, thread: Value, other: Value) -> Value:
        """The place of the clock before which a thread knows what another did."""
        return self.place(b, "known", "i64", THREADS * THREADS, b.add(b.mul(thread, i64(THREADS)), other))

    def is_known(self, b: Builder, record: Value, thread: Value) -> Value:
        """Whether a thread was told of what a record is of."""
        known = b.load("i64", self.known(b, thread, b.and_(record, i64(THREAD))))
        return b.icmp_signed("<", b.lshr(record, i64(CLOCK)), known)

    def _merge(self, b: Builder, target: Value, source: Value) -> None:
        """Puts knowledge together: the later clocks."""
        with b.for_loop(i64(0), self.get(b, "parties"), _LANES) as i:
            place = b.gep("i64", target, i)
            pair = [b.load(_SEVERAL, at, align=8) for at in (place, b.gep("i64", source, i))]
            b.store(b.intrinsic("llvm.smax", _SEVERAL, pair), place, align=8)

    def learn(self) -> Function:
        """A thread knows from now on what is known at a place."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            self._merge(b, self.known(b, p.thread, i64(0)), p.source)

        return self.function("learn", "i64 thread, ptr source", write)

    def tell(self) -> Function:
        """This thread leaves at a place what it knows, and what it did."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            this = self.thread(b)
            now = self.tick(b)
            self.begin_to_tell(b)
            b.store(now, self.own_clock(b, this))
            self._merge(b, p.target, self.known(b, this, i64(0)))
            warp = self.warp(b)
            first, met = b.shl(warp, i64(5)), b.load("i64", self.place(b, "clock", "i64", WARPS, warp))
            with b.for_loop(first, b.add(first, i64(WARP))) as lane:
                place = b.gep("i64", p.target, lane)
                b.store(b.intrinsic("llvm.smax", "i64", [b.load("i64", place), met]), place)
            b.store(now, b.gep("i64", p.target, this))

        return self.function("tell", "ptr target", write)

    def _share(self) -> Function:
        """Some threads know what any of them knows."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            whole = self.known(b, p.first, i64(0))
            last = b.add(p.first, p.count)
            with b.for_loop(b.add(p.first, i64(1)), last) as t:
                self._merge(b, whole, self.known(b, t, i64(0)))
            with b.for_loop(b.add(p.first, i64(1)), last) as t:
                self._merge(b, self.known(b, t, i64(0)), whole)

        return self.function("share", "i64 first, i64 count", write)
