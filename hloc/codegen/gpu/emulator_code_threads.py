"""Threads of the emulator: launches, turns, and what threads wait for each other for."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from hloc.codegen.device_program import EMULATED_LAUNCH_FIELDS
from hloc.codegen.gpu.emulator_code import THREADS, WARPS, i32
from hloc.codegen.gpu.emulator_code_memory import EmulatedMemory
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.llvm import Builder, Function, Value, const, integer
from hloc.codegen.routines import i64

_RING = 2 * THREADS

STUCK = "the threads of the block do not meet: {waiting}"
LONG = "{site} again and again, and no thread changes it"

AT_BEGIN, AT_END, AT_STUCK = "at_begin", "at_end", "at_stuck"
"""Hooks, functions that those set who need them in a block: for the beginning of the next, for when all threads have
ended, and for when they all wait."""

_MOST_LOOKS = 1 << 24
"""Volatile loads of a block, beyond which it is said to wait for ever. Each lets the other threads go on."""


class EmulatedThreads(EmulatedMemory):
    """See EmulatorCode."""

    # Launches

    def launches(self, meets: bool) -> None:
        """What the runtime calls: `emulator.run(launch)` or, for kernels whose threads meet, `emulator.meet(launch)`.

        `launch` is an array of EMULATED_LAUNCH_FIELDS.
        """
        name, run = ("meet", self._run_fibers) if meets else ("run", self._run_each)

        def write(b: Builder, p: SimpleNamespace) -> None:
            fields = {
                field: b.load("i64", b.gep("i64", p.launch, i64(number)))
                for number, field in enumerate(EMULATED_LAUNCH_FIELDS)
            }
            for field, value in fields.items():
                self.set(b, f"launch.{field}", value)
            b.store(i64(0), self.variable("error", "[5 x i64]"))
            self.set(b, "launches", b.add(self.get(b, "launches"), i64(1)))
            before = b.if_else(
                b.icmp_signed("!=", fields["flush"], i64(0)),
                lambda: self.machine.enter_flushing(b),
                lambda: self.machine.enter_exact(b),
            )
            self._write_places(b)
            run(b)
            self.machine.leave_flushing(b, before)

        self.function(name, "ptr launch", write, linkage="")

    def _write_places(self, b: Builder) -> None:
        """The coordinates of each thread in its block."""
        x, y, z = (self.launched(b, f"block_{axis}") for axis in "xyz")
        threads = b.mul(b.mul(x, y), z)
        self.set(b, "threads", threads)
        with b.for_loop(i64(0), threads) as t:
            place = integer("<4 x i32>", 0)
            rest = t
            for number, size in enumerate((x, y, z)):
                place = b.insertelement(place, b.trunc(b.urem(rest, size), "i32"), number)
                rest = b.udiv(rest, size)
            b.store(place, self.of_thread(b, "places", "<4 x i32>", t), align=8)

    def _set_block(self, b: Builder, number: Value) -> None:
        place = integer("<4 x i32>", 0)
        for position, axis in enumerate("xyz"):
            size = self.launched(b, f"grid_{axis}")
            place = b.insertelement(place, b.trunc(b.urem(number, size), "i32"), position)
            number = b.udiv(number, size)
        b.store(place, self.variable("block", "<4 x i32>"), align=8)

    def _set_thread(self, b: Builder, thread: Value) -> None:
        self.set(b, "thread", b.trunc(thread, "i32"))
        place = b.load("<4 x i32>", self.of_thread(b, "places", "<4 x i32>", thread), align=8)
        b.store(place, self.variable("coordinates", "<4 x i32>"), align=8)

    def _blocks(self, b: Builder) -> Value:
        return b.mul(b.mul(self.launched(b, "grid_x"), self.launched(b, "grid_y")), self.launched(b, "grid_z"))

    def _call_kernel(self, b: Builder) -> None:
        entry, words = (b.inttoptr(self.launched(b, name)) for name in ("entry", "words"))
        b.call(entry, [words], "void")

    def _stack_top(self, b: Builder, number: Value) -> Value:
        stacks, size = b.inttoptr(self.launched(b, "stacks")), self.launched(b, "stack_bytes")
        return b.gep("i8", stacks, b.mul(b.add(number, i64(1)), size))

    def _run_each(self, b: Builder) -> None:
        """All threads of all blocks in turn, on the first stack."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            with b.for_loop(i64(0), self._blocks(b)) as number:
                self._set_block(b, number)
                threads = self.get(b, "threads")
                with b.for_loop(i64(0), threads) as thread:
                    self._set_thread(b, thread)
                    self.set_racer(b, b.add(b.mul(number, threads), thread))
                    self._call_kernel(b)
            self.leave(b)

        start = self.function("each", "", write)
        stack = self.prepared(b, self._stack_top(b, i64(0)), Value("ptr", start.text))
        b.call(self.switch(), [self.variable("main", "ptr"), stack])

    def _run_fibers(self, b: Builder) -> None:
        """Block after block, each until all of its threads are done or one fails."""
        error = self.variable("error", "[5 x i64]")

        def goes_on(carried: list[Value]) -> Value:
            within = b.icmp_signed("<", carried[0], self._blocks(b))
            return b.and_(within, b.icmp_signed("==", b.load("i64", error), i64(0)))

        def block(carried: list[Value]) -> list[Value]:
            self._set_block(b, carried[0])
            self.set_racer(b, carried[0])
            b.call(self._begin_block(), [])
            self._set_thread(b, i64(0))
            first = b.load("ptr", self.of_thread(b, "stack", "ptr", i64(0)))
            b.call(self.switch(), [self.variable("main", "ptr"), first])
            return [b.add(carried[0], i64(1))]

        b.while_loop([i64(0)], goes_on, block)

    def _begin_block(self) -> Function:
        """Sets all threads to their start; the first is to run now, the others wait for their turn."""
        def write(b: Builder, p: SimpleNamespace) -> None:
            threads = self.get(b, "threads")
            start = Value("ptr", self._fiber().text)
            with b.for_loop(i64(0), threads) as t:
                b.store(self.prepared(b, self._stack_top(b, t), start), self.of_thread(b, "stack", "ptr", t))
                b.store(const("ptr", 0), self.of_thread(b, "waiting", "ptr", t))
                b.store(b.trunc(t, "i32"), self.place(b, "ring", "i32", _RING, t))
            self.set(b, "head", i64(1))
            self.set(b, "tail", threads)
            self.set(b, "live", threads)
            self.set(b, "arrived", i64(0))
            self.set(b, "votes", i64(0))
            self.set(b, "looks", i64(0))
            with b.for_loop(i64(0), i64(WARPS)) as w:
                b.store(i64(0), self.place(b, "met", "i64", WARPS, w))
                b.store(i32(0), self.place(b, "ballots", "i32", WARPS, w))
            self.forget(b, threads)
            self._at(b, AT_BEGIN)

        return self.function("begin", "", write)

    def _fiber(self) -> Function:
        """What each thread of a block runs."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            self._call_kernel(b)
            b.store(self.text("have ended"), self.of_thread(b, "waiting", "ptr", self.thread(b)))
            live = b.sub(self.get(b, "live"), i64(1))
            self.set(b, "live", live)
            with b.if_then(b.icmp_signed("==", live, i64(0))):
                self._at(b, AT_END)
                self.leave(b)
            b.call(self._next(), [])
            b.unreachable()

        return self.function("fiber", "", write)

    def _at(self, b: Builder, hook: str) -> None:
        """Calls a hook, if there is one."""
        function = self.get(b, hook, "ptr")
        with b.if_then(b.icmp_signed("!=", function, const("ptr", 0))):
            b.call(function, [], "void")

    # Waiting

    def _next(self) -> Function:
        """Lets the thread at the head of the ring go on; comes back when this one is at its head again."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            head, this = self.get(b, "head"), self.thread(b)
            with b.if_then(b.icmp_signed("==", head, self.get(b, "tail"))):
                self._at(b, AT_STUCK)
                self.fail(b, STUCK, const("ptr", 0))
            self.set(b, "head", b.add(head, i64(1)))
            place = self.place(b, "ring", "i32", _RING, b.and_(head, i64(_RING - 1)))
            thread = b.zext(b.load("i32", place), "i64")
            self._set_thread(b, thread)
            mine, other = (self.of_thread(b, "stack", "ptr", t) for t in (this, thread))
            b.call(self.switch(), [mine, b.load("ptr", other)])

        return self.function("next", "", write)

    def wait(self, b: Builder, site: Value) -> None:
        """Waits until another thread wakes this one."""
        b.store(site, self.of_thread(b, "waiting", "ptr", self.thread(b)))
        b.call(self._next(), [])

    def queue(self, b: Builder, thread: Value) -> None:
        """A thread that waits goes on when it is its turn."""
        b.store(const("ptr", 0), self.of_thread(b, "waiting", "ptr", thread))
        tail = self.get(b, "tail")
        b.store(b.trunc(thread, "i32"), self.place(b, "ring", "i32", _RING, b.and_(tail, i64(_RING - 1))))
        self.set(b, "tail", b.add(tail, i64(1)))

    def wake(self, b: Builder, first: Value, count: Value) -> None:
        """All of `count` threads but this one go on, before those whose turn it was."""
        this = self.thread(b)
        head = b.sub(self.get(b, "head"), b.sub(count, i64(1)))
        self.set(b, "head", head)
        for start, end, at in ((first, this, head), (b.add(this, i64(1)), b.add(first, count), b.sub(head, i64(1)))):
            with b.for_loop(start, end) as t:
                b.store(const("ptr", 0), self.of_thread(b, "waiting", "ptr", t))
                slot = b.and_(b.add(at, b.sub(t, first)), i64(_RING - 1))
                b.store(b.trunc(t, "i32"), self.place(b, "ring", "i32", _RING, slot))

    def arrive(self, b: Builder, counter: Value, place: Value, count: Value, site: Value) -> Value:
        """Counts this thread in at a meeting of `count` threads at one site; whether it is the last."""
        before = b.load("i64", counter)
        with b.if_then(b.icmp_signed("==", before, i64(0))):
            b.store(site, place)
        with b.if_then(b.icmp_signed("!=", b.ptrtoint(b.load("ptr", place), "i64"), b.ptrtoint(site, "i64"))):
            b.store(site, self.of_thread(b, "waiting", "ptr", self.thread(b)))
            self.fail(b, STUCK, site)
        now = b.add(before, i64(1))
        last = b.icmp_signed("==", now, count)
        b.store(b.select(last, i64(0), now), counter)
        return last

    def barrier(self) -> Function:
        """All threads of the block come here with the same site; whether any came with i64 1."""

        def write(b: Builder, p: SimpleNamespace) -> Value:
            threads = self.get(b, "threads")
            votes = b.or_(self.get(b, "votes"), p.vote)
            counter = self.variable("arrived", "i64")
            last = self.arrive(b, counter, self.variable("barrier", "ptr"), threads, p.site)
            self.set(b, "votes", b.select(last, i64(0), votes))

            def completed() -> None:
                self.set(b, "verdict", votes)
                self.order_block(b)
                self.wake(b, i64(0), threads)

            b.if_else(last, completed, lambda: self.wait(b, p.site))
            return self.get(b, "verdict")

        return self.function("barrier", "ptr site, i64 vote", write, "i64")

    def meet_warp(self, b: Builder, site: Value, together: Callable[[Value, Value], object], orders: bool) -> None:
        """The lanes of a warp come here; the last does what they do together, given the first thread and their count.

        With `orders`, what they did to memory before comes before what they do to it after.
        """
        warp = self.warp(b)
        first = b.shl(warp, i64(5))
        rest = b.sub(self.get(b, "threads"), first)
        lanes = b.select(b.icmp_signed("<", rest, i64(WARP)), rest, i64(WARP))
        counter, place = self.place(b, "met", "i64", WARPS, warp), self.place(b, "meeting", "ptr", WARPS, warp)

        def completed() -> None:
            together(first, lanes)
            if orders:
                self.order_warp(b, warp, first, lanes)
            self.wake(b, first, lanes)

        b.if_else(self.arrive(b, counter, place, lanes, site), completed, lambda: self.wait(b, site))

    def look(self) -> Function:
        """A thread has looked at what others may change: they go on first. Fails when it looks too often."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            looks = b.add(self.get(b, "looks"), i64(1))
            self.set(b, "looks", looks)
            self.fail_unless(b, b.icmp_signed("<", looks, i64(_MOST_LOOKS)), LONG, p.site)
            self.queue(b, self.thread(b))
            b.call(self._next(), [])

        return self.function("look", "ptr site", write)

    # Warps

    def warp_barrier(self) -> Function:
        """The lanes of a warp wait for each other."""

        def write(b: Builder, p: SimpleNamespace) -> None:
            self.meet_warp(b, p.site, lambda first, lanes: None, orders=True)

        return self.function("warp_barrier", "ptr site", write)

    def shuffle(self) -> Function:
        """`value` of the lane `source` of the warp."""

        def write(b: Builder, p: SimpleNamespace) -> Value:
            this = self.thread(b)
            b.store(p.value, self.of_thread(b, "shuffled", "i32", this))
            b.store(p.source, self.of_thread(b, "source", "i32", this))

            def exchange(first: Value, lanes: Value) -> None:
                with b.for_loop(i64(0), lanes) as lane:
                    source = b.zext(b.load("i32", self.of_thread(b, "source", "i32", b.add(first, lane))), "i64")
                    value = b.load("i32", self.of_thread(b, "shuffled", "i32", b.add(first, source)))
                    value = b.select(b.icmp_unsigned("<", source, lanes), value, i32(_NO_LANE))
                    b.store(value, self.of_thread(b, "received", "i32", b.add(first, lane)))

            self.meet_warp(b, p.site, exchange, orders=True)
            return b.load("i32", self.of_thread(b, "received", "i32", this))

        return self.function("shuffle", "ptr site, i32 value, i32 source", write, "i32")

    def ballot(self) -> Function:
        """A bit for each lane that comes with i32 1."""

        def write(b: Builder, p: SimpleNamespace) -> Value:
            warp = self.warp(b)
            place, result = (self.place(b, name, "i32", WARPS, warp) for name in ("ballots", "ballot"))
            lane = b.and_(self.get(b, "thread", "i32"), i32(WARP - 1))
            b.store(b.or_(b.load("i32", place), b.shl(p.vote, lane)), place)

            def count(first: Value, lanes: Value) -> None:
                b.store(b.load("i32", place), result)
                b.store(i32(0), place)

            self.meet_warp(b, p.site, count, orders=True)
            return b.load("i32", result)

        return self.function("ballot", "ptr site, i32 vote", write, "i32")


_NO_LANE = 0x7FC0DEAD
"""What a shuffle gives from a lane that is none of the block's: unlikely as a number, not a number as a float."""
