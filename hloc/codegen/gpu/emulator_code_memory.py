"""Shared memory of the emulator: what accesses may touch, and in what order threads do. Asynchronous copies.

There is a record of the last write and one of the reads since then for every word of four bytes, or for its bytes once
they are touched apart (SPLIT). What records are, and which are in order, is in `emulator_code_order.py`.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen.gpu.emulator_code import THREADS, WARPS
from hloc.codegen.gpu.emulator_code_global import ATOMIC, LOOK, MISALIGNED, OUTSIDE, READ, WRITE
from hloc.codegen.gpu.emulator_code_order import (
    ATOMIC_WRITE,
    CLOCK,
    MADE,
    MANY_READ,
    PENDING,
    THREAD,
    WARP_READS,
    EmulatedOrder,
)
from hloc.codegen.llvm import Builder, Function, Value, integer, vector_type
from hloc.codegen.routines import i64

SHARED_BYTES = 228 << 10
"""The most shared memory of any block."""

SPLIT = (1 << 63) - 1
"""What stands for the last write of a word whose bytes have records of their own."""

_COPIES = 128
"""The most copies of a thread that are under way."""

NOWHERE = "{site} at address {0:#x}, which lies in nothing that the kernel was given"
UNSET = "{site} at offset {1}, of which byte {0} was never written"
UNFINISHED = "{site} at offset {1}, and an asynchronous copy to byte {0} of it, by thread {2}, is not waited for"
BARRIER = "{site} at offset {1}, and there is a barrier at {0}, which thread {2} has made"
IN_USE = "{site} at offset {1}, and a product that is not waited for reads it"
RACE = "{{site}} at offset {{1}}, and {{party}} {} it too: nothing says which comes first"
MISSHAPEN = "{site}, in a warp of {0} threads"
CROWDED_RACE = "{site} at offset {1}, and other threads read it too: nothing says which comes first"
CROWD = "{site} more than {0} times before it waits for one of the copies"


class EmulatedMemory(EmulatedOrder):
    """See EmulatorCode."""

    def forget(self, b: Builder, threads: Value) -> None:
        """Begins a block: shared memory has nothing in it."""
        self.begin_order(b, threads)
        with b.for_loop(i64(0), threads) as t:
            for name in ("copies", "groups"):
                b.store(i64(0), self.of_thread(b, name, "i64", t))

    # Memory of any kind

    def access(self, kind: str) -> Function:
        """An access by a pointer that nothing is known of: to shared memory, an argument, or the thread's own stack.

        Or to another allocation, if none of the arguments lies in it: what a pointer in memory points to.
        """

        def write(b: Builder, p: SimpleNamespace) -> None:
            with b.if_then(b.icmp_signed("==", p.bytes, i64(0))):
                b.ret()
            shared = b.ptrtoint(self.shared(), "i64")
            address = b.ptrtoint(p.p, "i64")
            with b.if_then(b.icmp_unsigned("<", b.sub(address, shared), i64(SHARED_BYTES))):
                b.call(self.shared_bytes_access(kind), [p.p, p.bytes, p.mask, p.site])
                b.ret()
            fits = b.icmp_signed("==", b.and_(address, p.mask), i64(0))
            with b.if_then(b.icmp_signed("==", b.call(self._is_known(), [address, p.bytes]), integer("i1", 0))):
                self.fail(b, NOWHERE, p.site, address)
            self.fail_unless(b, fits, MISALIGNED, p.site, address, b.add(p.mask, i64(1)))

        return self.function(f"access.{kind}", "ptr p, i64 bytes, i64 mask, ptr site", write)

    def _is_known(self) -> Function:
        """Whether bytes lie in one of the launch's arguments, on a stack, or in an allocation without arguments."""

        def write(b: Builder, p: SimpleNamespace) -> Value:
            words, count = b.inttoptr(self.launched(b, "words")), self.launched(b, "pointers")
            scalars = b.add(count, self.launched(b, "scalars"))
            stacks, size = self.launched(b, "stacks"), self.launched(b, "all_stacks")

            def within(start: Value, size: Value) -> Value:
                offset = b.sub(p.address, start)
                enough = b.icmp_unsigned("<=", p.bytes, b.sub(size, offset))
                return b.and_(b.icmp_unsigned("<", offset, size), enough)

            with b.if_then(within(stacks, size)):
                b.ret(integer("i1", 1))
            with b.for_loop(i64(0), count) as i:
                start = b.load("i64", b.gep("i64", words, i))
                with b.if_then(within(start, b.load("i64", b.gep("i64", words, b.add(scalars, i))))):
                    b.ret(integer("i1", 1))
            table = b.inttoptr(self.launched(b, "allocations"))
            with b.for_loop(i64(0), self.launched(b, "allocation_count")) as i:
                start, size = (b.load("i64", b.gep("i64", table, b.add(b.mul(i, i64(2)), i64(n)))) for n in (0, 1))
                with b.if_then(within(start, size)):

                    def other(n: Value, carried: list[Value]) -> list[Value]:
                        lies = b.icmp_unsigned("<", b.sub(b.load("i64", b.gep("i64", words, n)), start), size)
                        return [b.or_(carried[0], lies)]

                    b.ret(b.not_(b.for_loop_carrying(i64(0), count, [integer("i1", 0)], other)[0]))
            return integer("i1", 0)

        return self.function("known", "i64 address, i64 bytes", write, "i1")

    # Shared memory

    def shared(self) -> Value:
        """The block's shared memory."""
        return self.variable("shared", f"[{SHARED_BYTES} x i8]", 1024)

    def records(self, b: Builder, unit: int, number: Value) -> tuple[Value, Value]:
        """Where the records of a byte (unit 1) or word (4) are: of its last write, and of the reads since then."""
        count = SHARED_BYTES // unit
        written, read = (self.place(b, f"{name}.{unit}", "i64", count, number) for name in ("written", "read"))
        return written, read

    def shared_access(self, kind: str, bytes: int) -> Function:
        """An access to so many bytes of shared memory: the plain cases at once, others piece by piece."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            offset = self.shared_offset(b, p, i64(bytes))
            if bytes % 4 or kind not in (READ, WRITE):
                b.call(self.each(kind, 1 if bytes % 4 else 4), [offset, i64(bytes), p.site])
                return
            with b.if_then(b.icmp_signed("==", b.and_(offset, i64(3)), i64(0))):
                self._words_at_once(b, kind, bytes // 4, offset)
                b.call(self.each(kind, 4), [offset, i64(bytes), p.site])
                b.ret()
            b.call(self.each(kind, 1), [offset, i64(bytes), p.site])

        return self.function(f"shared.{kind}.{bytes}", "ptr p, i64 mask, ptr site", write)

    def shared_bytes_access(self, kind: str) -> Function:
        """An access to any number of bytes of shared memory."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            b.call(self.each(kind, 1), [self.shared_offset(b, p, p.bytes), p.bytes, p.site])

        return self.function(f"shared.{kind}", "ptr p, i64 bytes, i64 mask, ptr site", write)

    def shared_offset(self, b: Builder, p: SimpleNamespace, bytes: Value) -> Value:
        size = self.launched(b, "shared_bytes")
        offset = b.sub(b.ptrtoint(p.p, "i64"), b.ptrtoint(self.shared(), "i64"))
        starts = b.intrinsic("llvm.usub.sat", "i64", [size, b.sub(bytes, i64(1))])
        self.fail_unless(b, b.icmp_unsigned("<", offset, starts), OUTSIDE, p.site, offset, size)
        fits = b.icmp_signed("==", b.and_(offset, p.mask), i64(0))
        self.fail_unless(b, fits, MISALIGNED, p.site, offset, b.add(p.mask, i64(1)))
        return offset

    def _words_at_once(self, b: Builder, kind: str, words: int, offset: Value) -> None:
        """Returns if all writes are this thread's last, or of before the barrier; so too reads, if this is a write."""
        lanes = words if words > 1 else 0
        type = vector_type("i64", lanes)
        limit, start = (b.splat(self.get(b, name), lanes) for name in ("limit", "start"))
        places = self.records(b, 4, b.lshr(offset, i64(2)))
        written, read = (b.load(type, place, align=8) for place in places)

        def every(condition: Value) -> Value:
            if not lanes:
                return condition
            return b.intrinsic("llvm.vector.reduce.and", "i1", [condition], overloads=[condition.type])

        before = b.icmp_signed("<", written, limit)
        if kind == READ:
            before = b.and_(before, b.icmp_signed(">=", written, start))
            many = b.icmp_signed("!=", b.and_(read, integer(type, MANY_READ)), integer(type, 0))
            with b.if_then(every(b.and_(before, b.and_(many, b.icmp_signed(">=", read, limit))))):
                b.ret()
        stamp = b.splat(self.stamp(b), lanes)
        good = b.or_(before, b.icmp_signed("==", written, stamp))
        if kind == WRITE:
            good = b.and_(good, b.or_(b.icmp_signed("<", read, limit), b.icmp_signed("==", read, stamp)))
        with b.if_then(every(good)):
            if kind == WRITE:
                b.store(stamp, places[0], align=8)
            else:
                b.store(self._with_reader(b, read, stamp, limit), places[1], align=8)
            b.ret()

    def _with_reader(self, b: Builder, read: Value, stamp: Value, limit: Value) -> Value:
        """The record of reads (or a vector of records) with this thread's: of one, several of a warp, or many."""

        def flag(number: int) -> Value:
            return integer(read.type, number)

        flags = b.and_(read, flag(WARP_READS | MANY_READ))
        apart = b.xor(b.xor(read, flags), stamp)
        many = b.icmp_unsigned(">=", flags, flag(MANY_READ))
        same_warp = b.icmp_signed("==", b.and_(apart, flag((WARPS - 1) << 5)), flag(0))
        same_time = b.icmp_signed("==", b.lshr(apart, flag(CLOCK)), flag(0))
        joins = b.and_(same_warp, b.not_(many))
        # Within a warp, reads of before its last meeting come before all that it does from now on.
        alone = b.or_(b.icmp_signed("<", read, limit), b.icmp_signed("==", read, stamp))
        alone = b.or_(alone, b.and_(joins, b.not_(same_time)))
        joined = b.select(joins, b.or_(stamp, flag(WARP_READS)), b.or_(stamp, flag(MANY_READ)))
        # What products read, that they are not done with.
        return b.select(b.icmp_signed(">=", read, flag(PENDING)), read, b.select(alone, stamp, joined))

    def each(self, kind: str, unit: int) -> Function:
        """An access looked at byte by byte (unit 1), or word by word."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            with b.for_loop(i64(0), p.bytes, unit) as i:
                at = b.add(p.offset, i)
                if unit == 1:
                    self._split(b, at)
                    self._one(b, kind, unit, p, at)
                else:
                    word = b.load("i64", self.records(b, 4, b.lshr(at, i64(2)))[0])
                    b.if_else(
                        b.icmp_signed("==", word, i64(SPLIT)),
                        lambda: b.call(self.each(kind, 1), [at, i64(4), p.site]),
                        lambda: self._one(b, kind, unit, p, at),
                    )
            if kind == WRITE and unit == 1:
                self._join(b, p)

        return self.function(f"each.{kind}.{unit}", "i64 offset, i64 bytes, ptr site", write)

    def _split(self, b: Builder, at: Value) -> None:
        """Gives the bytes of a byte's word records of their own."""
        words = self.records(b, 4, b.lshr(at, i64(2)))
        written, read = (b.load("i64", word) for word in words)
        with b.if_then(b.icmp_signed("!=", written, i64(SPLIT))):
            bytes = self.records(b, 1, b.and_(at, i64(-4)))
            for place, record in zip(bytes, (written, read), strict=True):
                b.store(b.splat(record, 4), place, align=8)
            b.store(i64(SPLIT), words[0])

    def _join(self, b: Builder, p: SimpleNamespace) -> None:
        """Whole words that one thread wrote have records of their own again."""
        whole = b.icmp_signed("==", b.and_(b.or_(p.offset, p.bytes), i64(3)), i64(0))
        with b.if_then(whole), b.for_loop(i64(0), p.bytes, 4) as i:
            written, read = self.records(b, 4, b.lshr(b.add(p.offset, i), i64(2)))
            b.store(self.stamp(b), written)
            b.store(i64(0), read)

    def _one(self, b: Builder, kind: str, unit: int, p: SimpleNamespace, at: Value) -> None:
        places = self.records(b, unit, b.lshr(at, i64(unit.bit_length() - 1)))
        record, read = (b.load("i64", place) for place in places)
        written = b.and_(record, i64(~PENDING))
        now = b.icmp_signed(">=", written, self.get(b, "start"))
        if kind != WRITE:
            self.fail_unless(b, now, UNSET, p.site, at, p.offset)
        pending = b.icmp_signed(">=", record, i64(PENDING))
        with b.if_then(b.and_(now, pending)):
            other = b.and_(written, i64(THREAD))
            is_barrier = b.icmp_signed("!=", b.and_(written, i64(MADE)), i64(0))
            self.fail_unless(b, b.not_(is_barrier), BARRIER, p.site, at, p.offset, other)
            self.fail(b, UNFINISHED, p.site, at, p.offset, other)
        self._check_written(b, kind, p, written)
        if kind == READ:
            b.store(self._with_reader(b, read, self.stamp(b), self.get(b, "limit")), places[1])
        elif kind != LOOK:
            self._check_read(b, p, read)
            b.store(b.or_(self.stamp(b), i64(ATOMIC_WRITE if kind == ATOMIC else 0)), places[0])
            b.store(i64(0), places[1])

    def _check_written(self, b: Builder, kind: str, p: SimpleNamespace, written: Value) -> None:
        """Fails if a write of another thread is not in order with this access."""
        recent = b.icmp_signed(">=", written, self.get(b, "limit"))
        with b.if_then(b.and_(recent, b.not_(self.is_own(b, written)))):
            b.call(self._after_write(kind in (ATOMIC, LOOK)), [written, p.offset, p.site])

    def _after_write(self, atomic: bool) -> Function:
        def write(b: Builder, p: SimpleNamespace) -> None:
            good = self.is_before(b, p.written)
            if atomic:
                good = b.or_(good, b.icmp_signed("!=", b.and_(p.written, i64(ATOMIC_WRITE)), i64(0)))
            self.fail_unless(b, good, RACE.format("writes"), p.site, b.and_(p.written, i64(THREAD)), p.offset)

        name = f"after_write{'.atomic' if atomic else ''}"
        return self.function(name, "i64 written, i64 offset, ptr site", write)

    def _check_read(self, b: Builder, p: SimpleNamespace, read: Value) -> None:
        """Fails if a read of another thread is not in order with this write."""
        with b.if_then(b.icmp_signed(">=", read, self.get(b, "limit"))):
            b.call(self._after_read(), [read, p.offset, p.site])

    def _after_read(self) -> Function:
        def write(b: Builder, p: SimpleNamespace) -> None:
            read = b.and_(p.read, i64(~PENDING))
            pending = b.icmp_signed("!=", read, p.read)
            recent = b.icmp_signed(">=", read, b.select(pending, self.get(b, "start"), self.get(b, "limit")))
            with b.if_then(b.not_(recent)):
                b.ret()
            self.fail_unless(b, b.not_(pending), IN_USE, p.site, i64(0), p.offset)
            several = b.icmp_signed("!=", b.and_(read, i64(WARP_READS | MANY_READ)), i64(0))
            many = b.icmp_signed("!=", b.and_(read, i64(MANY_READ)), i64(0))
            # Of many, one is known: the others may have told this thread as it has, or not.
            good = b.select(many, self.is_known(b, read, self.thread(b)), self.is_before(b, read))
            good = b.or_(good, b.and_(b.not_(several), self.is_own(b, read)))
            with b.if_then(b.not_(good)):
                self.fail_unless(b, b.not_(several), CROWDED_RACE, p.site, i64(0), p.offset)
                self.fail(b, RACE.format("reads"), p.site, b.and_(read, i64(THREAD)), p.offset)

        return self.function("after_read", "i64 read, i64 offset, ptr site", write)

    # Asynchronous copies

    def copy(self) -> Function:
        """Begins a copy of `live` of `bytes` bytes; what is to be seen later is kept with the thread."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            offset = self.shared_offset(b, p, p.bytes)
            b.call(self.each(WRITE, 4), [offset, p.bytes, p.site])
            this = self.thread(b)
            place = self.of_thread(b, "copies", "i64", this)
            count = b.load("i64", place)
            self.fail_unless(b, b.icmp_signed("<", count, i64(_COPIES)), CROWD, p.site, i64(_COPIES))
            b.store(b.add(count, i64(1)), place)
            self.mark(b, offset, p.bytes, b.or_(self.stamp(b), i64(PENDING)))
            copy = self._copy(b, this, count)
            group = b.load("i64", self.of_thread(b, "groups", "i64", this))
            b.store(b.or_(b.shl(group, i64(32)), p.bytes), copy)
            b.store(offset, b.gep("i64", copy, i64(1)))
            data = b.gep("i64", copy, i64(2))
            b.store(integer("<2 x i64>", 0), data, align=8)
            b.memcpy(data, p.source, p.live)

        return self.function("copy", "ptr p, ptr source, i64 bytes, i64 live, i64 mask, ptr site", write)

    def mark(self, b: Builder, offset: Value, bytes: Value, record: Value) -> None:
        """Says that whole words were last written so."""
        with b.for_loop(i64(0), bytes, 4) as i:
            b.store(record, self.records(b, 4, b.lshr(b.add(offset, i), i64(2)))[0])

    def _copy(self, b: Builder, thread: Value, number: Value) -> Value:
        """A copy under way: its group and bytes, its offset, 16 bytes of data."""
        index = b.mul(b.add(b.mul(thread, i64(_COPIES)), number), i64(4))
        return self.place(b, "copying", "i64", THREADS * _COPIES * 4, index)

    def commit(self) -> Function:
        """The copies begun since the last time are a group."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            place = self.of_thread(b, "groups", "i64", self.thread(b))
            b.store(b.add(b.load("i64", place), i64(1)), place)

        return self.function("commit", "", write)

    def wait_copies(self) -> Function:
        """Lets the copies of all groups but the last `groups` be seen by this thread."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            this = self.thread(b)
            place = self.of_thread(b, "copies", "i64", this)
            limit = b.sub(b.load("i64", self.of_thread(b, "groups", "i64", this)), p.groups)

            def one(number: Value, carried: list[Value]) -> list[Value]:
                copy, kept = self._copy(b, this, number), self._copy(b, this, carried[0])
                head = b.load("i64", copy)
                offset = b.load("i64", b.gep("i64", copy, i64(1)))
                done = b.icmp_signed("<", b.lshr(head, i64(32)), limit)
                with b.if_then(done):
                    size = b.and_(head, i64(0xFFFFFFFF))
                    b.memcpy(b.gep("i8", self.shared(), offset), b.gep("i64", copy, i64(2)), size)
                    self.mark(b, offset, size, self.stamp(b))
                b.store(b.load("<4 x i64>", copy, align=8), kept, align=8)
                return [b.select(done, carried[0], b.add(carried[0], i64(1)))]

            count = b.load("i64", place)
            b.store(b.for_loop_carrying(i64(0), count, [i64(0)], one)[0], place)

        return self.function("wait_copies", "i64 groups", write)
