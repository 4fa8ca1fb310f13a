"""Scans: running values of all elements up to each place of a line, for many lines.

Where neighbours in memory are of one line, the threads of a block take some neighbours each, scan them, and add what
comes before by shuffles and through shared memory, tile after tile. Where they are of different lines, each thread goes
along a line. Long lines are cut in segments if there are too few lines: a first launch folds the segments, the second
one begins each with the fold of those before it. The order is that of the line, so that any associative computation
may be scanned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.folds import Values
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.fold_plan import BUSY_BLOCKS, BUSY_THREADS, THREADS, FoldSpace, power
from hloc.codegen.gpu.intrinsics import WARP
from hloc.codegen.gpu.reductions import Fold, fold_once
from hloc.codegen.gpu.running import Running, Slots, running_types, slots_bytes
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64, least
from hloc.records import NamedTuple, record

_STEPS = 8
"""Places along a line that a thread loads together, where each goes along a line of its own."""


@record
class ScanSpace:
    """Lines of `length` places. `lines` are the sizes of the dimensions that count them, the major ones first.

    `is_along` says that neighbours in memory are of one line. A thread takes `items` of them.
    """

    lines: tuple[int, ...]
    length: int
    is_along: bool
    items: int

    @property
    def count(self) -> int:
        found = 1
        for size in self.lines:
            found *= size
        return found

    @property
    def threads(self) -> int:
        """Threads that share a line, or a segment of it."""
        return min(THREADS, power(-(-self.length // self.items))) if self.is_along else 1

    @property
    def segment(self) -> int:
        """Places of a segment; the whole length if lines are not cut."""
        tile = self.threads * self.items if self.is_along else _STEPS
        if self.is_along:
            wanted = min(self.length // (4 * tile), -(-BUSY_BLOCKS // self.count))
        else:
            wanted = min(self.length // (4 * tile), BUSY_THREADS // self.count, 64)
        if wanted < 2:
            return self.length
        return -(-self.length // wanted // tile) * tile

    @property
    def segments(self) -> int:
        return -(-self.length // self.segment)

    def scratch_bytes(self, reducer: Reducer) -> int:
        return slots_bytes(running_types([reducer]), self.count * self.segments) if self.segments > 1 else 0


class Scan(NamedTuple):
    """How a kernel gets elements, and what it does with results.

    `load(line, places)` gives the running values of neighbouring places that exist, `one(line, place)` of any place
    or, if it is beyond the end, of nothing. `store(line, place, values)` takes a place's result, `initial` included.
    """

    load: Callable[[Index, Sequence[Value]], list[list[Value]]]
    one: Callable[[Index, Value], list[Value]]
    store: Callable[[Index, Value, list[Value]], None]
    initial: Values


Prepare = Callable[[GpuContext, Running], Scan]


def scan(g: GpuStep, space: ScanSpace, reducer: Reducer, prepare: Prepare, itemsize: int) -> None:
    """The launches of a scan."""
    if space.segments > 1:
        _fold_segments(g, space, reducer, prepare, itemsize)
    threads = space.threads
    lines = 1 if threads > WARP else THREADS // threads
    lines = max(min(lines, power(space.count)), -(-WARP // threads))
    warps = threads // WARP if threads > WARP else 0
    shared = slots_bytes(running_types([reducer]), warps)
    grid = (-(-space.count // lines), space.segments, 1)
    with g.launch(grid, lines * threads, shared, name="scan" if space.segments > 1 else "") as k:
        running = Running(k, [reducer])
        writer = _Writer(k, space, running, prepare(k, running), lines)
        writer.write()


def _place(k: GpuContext, space: ScanSpace, line: Value, segment: Value) -> Value:
    if space.is_along:
        return k.b.add(k.b.mul(line, i64(space.segments)), segment)
    return k.b.add(k.b.mul(segment, i64(space.count)), line)


def _fold_segments(g: GpuStep, space: ScanSpace, reducer: Reducer, prepare: Prepare, itemsize: int) -> None:
    """All segments but the last of each line: these are whole."""
    segments = space.segments - 1

    def prepared(k: GpuContext, running: Running) -> Fold:
        job = prepare(k, running)

        def split(kept: Index) -> tuple[Value, Value]:
            return (kept[0], kept[1]) if space.is_along else (kept[1], kept[0])

        def elements(kept: Index, folded: Index) -> list[Value]:
            line, segment = split(kept)
            place = k.b.add(k.b.mul(segment, i64(space.segment)), folded[0])
            return job.load(line_index(k, space, line), [place])[0]

        def finish(kept: Index, totals: list[Value]) -> None:
            Slots.scratch(running, space.count * space.segments).put(_place(k, space, *split(kept)), totals)

        return Fold(elements, finish, is_running=True)

    kept = (space.count, segments) if space.is_along else (segments, space.count)
    lanes = 1 if space.is_along else space.count
    fold_once(g, FoldSpace(kept, ((space.segment,),), lanes), [reducer], prepared, itemsize, name="segments")


def line_index(k: GpuContext, space: ScanSpace, line: Value) -> Index:
    """The index of a line."""
    return tuple(Flat(k.b, line, space.lines).parts()) if space.lines else ()


class _Writer:
    """Writes the kernel that goes along the lines, or segments of them."""

    def __init__(self, k: GpuContext, space: ScanSpace, running: Running, job: Scan, lines: int):
        self.k, self.b, self.space, self.running, self.job = k, k.b, space, running, job
        self.threads = space.threads
        b = k.b
        thread, line = k.thread_index(), k.block_index()
        if lines > 1:
            line = b.add(b.mul(line, i64(lines)), b.lshr(thread, i64(self.threads.bit_length() - 1)))
            thread = b.and_(thread, i64(self.threads - 1))
        self.exists = b.icmp_unsigned("<", line, i64(space.count))
        self.number = b.select(self.exists, line, i64(space.count - 1)) if lines > 1 else line
        self.thread, self.line = thread, line_index(k, space, self.number)
        self.segment = k.block_index("y") if space.segments > 1 else i64(0)
        self.first = b.mul(self.segment, i64(space.segment))
        self.end = least(b, b.add(self.first, i64(space.segment)), i64(space.length))
        if space.segments == 1:
            self.end = i64(space.length)
        warps = self.threads // WARP if self.threads > WARP else 0
        self.slots = Slots.shared(running, warps)

    def write(self) -> None:
        carried = self.running.merge(self.running.single(self.job.initial), self.before())
        if self.space.is_along:
            tile = self.threads * self.space.items
            self.b.for_loop_carrying(self.first, self.end, carried, self.tile, tile, unroll=False)
        else:
            with self.b.if_then(self.exists):
                self.along_line(carried)

    def before(self) -> list[Value]:
        """The segments before this one."""
        b, space, running = self.b, self.space, self.running
        if space.segments == 1:
            return running.nothing()
        slots = Slots.scratch(running, space.count * space.segments)

        def add(number: Value, values: list[Value]) -> list[Value]:
            return running.merge(values, slots.get(_place(self.k, space, self.number, number)))

        if not space.is_along:
            return b.for_loop_carrying(i64(0), self.segment, running.nothing(), add)
        each = b.udiv(b.add(self.segment, i64(self.threads - 1)), i64(self.threads))
        begin = least(b, b.mul(self.thread, each), self.segment)
        end = least(b, b.add(begin, each), self.segment)
        mine = b.for_loop_carrying(begin, end, running.nothing(), add, unroll=False)
        found = running.across_block(mine, self.threads, self.slots)
        self.k.gpu.barrier()
        return found

    # A thread along a line

    def along_line(self, carried: list[Value]) -> None:
        b, steps = self.b, _STEPS
        whole = b.add(self.first, b.mul(b.udiv(b.sub(self.end, self.first), i64(steps)), i64(steps)))

        def several(place: Value, values: list[Value], count: int) -> list[Value]:
            places = [b.add(place, i64(number)) for number in range(count)]
            results = []
            for element in self.job.load(self.line, places):
                values = self.running.merge(values, element)
                results.append(values)
            for at, result in zip(places, results, strict=True):
                self.job.store(self.line, at, result)
            return values

        carried = b.for_loop_carrying(
            self.first, whole, carried, lambda place, values: several(place, values, steps), steps, unroll=False
        )
        b.for_loop_carrying(whole, self.end, carried, lambda place, values: several(place, values, 1), unroll=False)

    # Threads side by side on a line

    def tile(self, first: Value, carried: list[Value]) -> list[Value]:
        """A tile's results, given what is before it; with the tile's elements."""
        b, items, running = self.b, self.space.items, self.running
        start = b.add(first, b.mul(self.thread, i64(items)))
        places = [b.add(start, i64(number)) for number in range(items)]
        is_whole = b.icmp_unsigned("<=", b.add(start, i64(items)), self.end)

        def beyond() -> list[Value]:
            found = []
            for place in places:
                inside = b.icmp_unsigned("<", place, self.end)
                at = b.select(inside, place, b.sub(self.end, i64(1)))
                found += running.choose(inside, self.job.one(self.line, at), running.nothing())
            return found

        flat = b.if_else(
            is_whole, lambda: [value for element in self.job.load(self.line, places) for value in element], beyond
        )
        size = len(running.types)
        scanned = [flat[:size]]
        for at in range(size, len(flat), size):
            scanned.append(running.merge(scanned[-1], flat[at : at + size]))
        before, total = self.before_thread(scanned[-1])
        before = running.merge(carried, before)
        results = [running.merge(before, values) for values in scanned]
        self.store(places, results, is_whole)
        return running.merge(carried, total)

    def store(self, places: Sequence[Value], results: Sequence[list[Value]], is_whole: Value) -> None:
        b = self.b

        def all_of_them() -> None:
            for place, values in zip(places, results, strict=True):
                self.job.store(self.line, place, values)

        def some() -> None:
            for place, values in zip(places, results, strict=True):
                with b.if_then(b.icmp_unsigned("<", place, self.end)):
                    self.job.store(self.line, place, values)

        with b.if_then(self.exists):
            b.if_else(is_whole, all_of_them, some)

    def before_thread(self, mine: list[Value]) -> tuple[list[Value], list[Value]]:
        """What the threads of a line before this one have, merged, and what all of them have."""
        b, gpu, running = self.b, self.k.gpu, self.running
        width = min(self.threads, WARP)
        before, until = running.before_lane(mine, width)
        if self.threads <= WARP:
            last = b.or_(gpu.lane(), b.trunc(i64(width - 1), "i32"))
            return before, [gpu.shuffle("idx", value, last) for value in until]
        warp = b.zext(gpu.warp(), "i64")
        with b.if_then(b.icmp_unsigned("==", b.zext(gpu.lane(), "i64"), i64(WARP - 1))):
            self.slots.put(warp, until)
        gpu.barrier()
        total, warps = running.nothing(), running.nothing()
        for number in range(self.threads // WARP):
            warps = running.choose(b.icmp_unsigned("==", warp, i64(number)), total, warps)
            total = running.merge(total, self.slots.get(i64(number)))
        gpu.barrier()
        return running.merge(warps, before), total
