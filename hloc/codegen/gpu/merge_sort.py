"""A stable sort of lines of entries by any comparator, on a device.

Tiles of a line are sorted in a block's shared memory: each thread sorts a few neighbours by insertion, then runs are
merged in pairs, each thread making a few outputs whose place in both runs it finds by binary search (merge path, after
Green, McColl, Bader: GPU Merge Path, ICS 2012). Longer lines are merged from tiles by one launch for each width, after
one that finds where the blocks begin.

Where neighbours' searches do not fit together, the comparator contradicts itself (a < of NaNs, for instance): the runs
concerned then stay as they are behind one another, so that the result is a permutation always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.merge_plan import Lines, Tiling, Values, rounded
from hloc.codegen.gpu.step import GpuStep, LaunchTemplate
from hloc.codegen.llvm import Builder, Value, integer
from hloc.codegen.routines import i64, least
from hloc.ir.dtypes import DType
from hloc.ir.shapes import ArrayShape


def merge_sort(g: GpuStep, job: Lines, offset: int = 0) -> None:
    """Sorts the lines, with `Tiling.scratch_bytes` of scratch from an offset on (a multiple of 64)."""
    sort = _MergeSort(g, job, offset)
    sort.tiles()
    if sort.t.is_long:
        sort.merges()


class _MergeSort:
    """The launches. In scratch lie up to two buffers, then an i64 a tile, twice."""

    def __init__(self, g: GpuStep, job: Lines, offset: int):
        self.g, self.job, self.offset = g, job, offset
        self.t = Tiling(job.dtypes, job.lines, job.size)
        self.buffers = [offset, offset + self.t.lines_bytes]
        self.splits = offset + min(2, len(self.t.widths)) * self.t.lines_bytes
        self.marks = self.splits + self.t.marks_bytes

    # Tiles

    def tiles(self) -> None:
        """Sorts each tile: into the first buffer, or to where it belongs if it is a line."""
        t, job = self.t, self.job
        with self.g.launch(t.blocks, t.threads, t.shared_bytes, name="tiles") as k:
            block = _Block(k, job, t)
            line, base = k.b.mul(k.block_index(), i64(t.slots // t.line_slots)), i64(0)
            if t.is_long:
                line, base = _divided(k, k.block_index(), t.tiles)
                base = k.b.mul(base, i64(t.tile))

            def load(slot: Value, line: Value, i: Value) -> None:
                block.put(block.buffer(0), slot, job.load(k, line, i))

            self._each(k, line, base, load)
            k.gpu.barrier()
            sorted_ = block.sort(self._limit(k, line, base))

            def store(slot: Value, line: Value, i: Value) -> None:
                values = block.get(sorted_, slot)
                if t.is_long:
                    block.put(self._lines(k, i64(self.buffers[0])), self._place(k, line, i), values)
                else:
                    job.store(k, line, i, values)

            self._each(k, line, base, store)

    def _limit(self, k: GpuContext, line: Value, base: Value) -> Value:
        """How many entries there are of the line in a block that this thread works on."""
        b, t = k.b, self.t
        limit = least(b, b.sub(i64(t.size), base), i64(t.line_slots))
        rows = t.slots // t.line_slots
        if t.lines % rows == 0:
            return limit
        row = b.udiv(b.mul(k.thread_index(), i64(t.run)), i64(t.line_slots))
        return b.select(b.icmp_signed("<", b.add(line, row), i64(t.lines)), limit, i64(0))

    def _each(self, k: GpuContext, line: Value, base: Value, body: Callable[[Value, Value, Value], None]) -> None:
        """body(slot, line, i) for all entries of a block, neighbours by neighbouring threads."""
        b, t = k.b, self.t
        rows = t.slots // t.line_slots
        with b.for_loop(0, t.run) as turn:
            number = b.add(b.mul(turn, i64(t.threads)), k.thread_index())
            if self.job.apart and not t.is_long:
                place, row = b.udiv(number, i64(rows)), b.urem(number, i64(rows))
            else:
                row, place = b.udiv(number, i64(t.line_slots)), b.urem(number, i64(t.line_slots))
            here, i = b.add(line, row), b.add(base, place)
            inside = b.icmp_signed("<", i, i64(t.size))
            if t.lines % rows:
                inside = b.and_(inside, b.icmp_signed("<", here, i64(t.lines)))
            with b.if_then(inside):
                body(b.add(b.mul(row, i64(t.line_slots)), place), here, i)

    # Lines in global memory

    def _lines(self, k: GpuContext, offset: Value) -> list[ArrayRef]:
        """All entries in a buffer that begins so many bytes into scratch."""
        return _arrays(k, k.b.gep("i8", k.scratch, offset), self.t.dtypes, self.t.lines * self.t.size, 64)

    def _place(self, k: GpuContext, line: Value, i: Value) -> Value:
        return k.b.add(k.b.mul(line, i64(self.t.size)), i)

    def _numbers(self, k: GpuContext, offset: int, place: Value) -> Value:
        """The address of a tile's i64."""
        return k.b.gep("i64", k.b.gep("i8", k.scratch, i64(offset)), place)

    def merges(self) -> None:
        """Merges runs of tiles until each line is one; the last time to where it belongs."""
        t = self.t
        self.g.fill(None, 0, t.marks_bytes, self.marks)
        search: LaunchTemplate | None = None
        merge: LaunchTemplate | None = None
        for turn, width in enumerate(t.widths):
            source, target = self.buffers[turn % 2], self.buffers[(turn + 1) % 2]
            if search is None:
                search = self._search(width, source)
            else:
                self.g.relaunch(search, [width, source])
            if width == t.widths[-1]:
                self._merge(width, source, None)
            elif merge is None:
                merge = self._merge(width, source, target)
            else:
                self.g.relaunch(merge, [width, source, target])

    def _search(self, width: int, source: int) -> LaunchTemplate:
        """Finds where each tile of the merged runs begins in its first run, and marks runs that are not sorted."""
        t = self.t
        count = t.lines * t.tiles
        with self.g.launch(-(-count // 64), 64, scalars=[width, source], name="search") as k:
            b, number = k.b, k.global_index()
            with b.if_then(b.icmp_signed("<", number, i64(count))):
                line, tile = _divided(k, number, t.tiles)
                pair = _Pair(k, t, k.scalars[0], tile)
                arrays = self._lines(k, k.scalars[1])
                first = self._place(k, line, pair.start)
                second = b.add(first, pair.left)
                found = [
                    _split(k, self.job, arrays, first, pair.left, second, pair.right, d) for d in (pair.begin, pair.end)
                ]
                b.store(found[0], self._numbers(k, self.splits, number))
                made = b.sub(found[1], found[0])
                fits = b.icmp_unsigned("<=", made, b.sub(pair.end, pair.begin))
                with b.if_then(b.not_(fits)):
                    mark = b.add(b.sub(number, tile), b.udiv(pair.start, i64(t.tile)))
                    k.gpu.store_volatile(k.scalars[0], self._numbers(k, self.marks, mark))
        return self.g.last_launch

    def _merge(self, width: int, source: int, target: int | None) -> LaunchTemplate:
        """Merges pairs of runs, a block a tile of the result; to where it belongs if the target is None."""
        t, job = self.t, self.job
        scalars = [width, source] if target is None else [width, source, target]
        name = "last" if target is None else "merge"
        with self.g.launch(t.blocks, t.threads, t.shared_bytes, scalars, name) as k:
            b, block = k.b, _Block(k, job, t)
            line, tile = _divided(k, k.block_index(), t.tiles)
            pair = _Pair(k, t, k.scalars[0], tile)
            begin, end = self._bounds(k, pair, tile)
            left, total = b.sub(end, begin), b.sub(pair.end, pair.begin)
            arrays = self._lines(k, k.scalars[1])
            first = b.add(self._place(k, line, pair.start), begin)
            behind = b.add(self._place(k, line, pair.start), b.add(pair.left, b.sub(pair.begin, begin)))
            second = b.sub(behind, left)

            def each(body: Callable[[Value], None]) -> None:
                with b.for_loop(0, t.run) as turn:
                    slot = b.add(b.mul(turn, i64(t.threads)), k.thread_index())
                    with b.if_then(b.icmp_signed("<", slot, total)):
                        body(slot)

            def load(slot: Value) -> None:
                start = b.select(b.icmp_signed("<", slot, left), first, second)
                block.put(block.buffer(0), slot, block.get(arrays, b.add(start, slot)))

            each(load)
            k.gpu.barrier()
            block.merge(i64(0), i64(t.buffer_bytes), i64(0), left, b.sub(total, left), i64(t.slots))
            start = b.mul(tile, i64(t.tile))

            def store(slot: Value) -> None:
                values, i = block.get(block.buffer(1), slot), b.add(start, slot)
                if target is None:
                    job.store(k, line, i, values)
                else:
                    block.put(self._lines(k, k.scalars[2]), self._place(k, line, i), values)

            each(store)
        return self.g.last_launch

    def _bounds(self, k: GpuContext, pair: _Pair, tile: Value) -> tuple[Value, Value]:
        """The part of the first run that a block's tile takes."""
        b, number = k.b, k.block_index()
        mark = b.add(b.sub(number, tile), b.udiv(pair.start, i64(self.t.tile)))
        unsorted = b.icmp_signed("==", b.load("i64", self._numbers(k, self.marks, mark)), k.scalars[0])
        found = b.load("i64", self._numbers(k, self.splits, number))
        begin = b.select(unsorted, least(b, pair.begin, pair.left), found)
        is_last = b.icmp_signed("==", pair.end, b.add(pair.left, pair.right))
        following = b.if_else(
            is_last,
            lambda: pair.left,
            lambda: b.load("i64", self._numbers(k, self.splits, b.add(number, i64(1)))),
        )
        end = b.select(b.and_(unsorted, b.not_(is_last)), least(b, pair.end, pair.left), following)
        return begin, end


class _Pair:
    """The two runs that a tile of merged ones belongs to: they begin at `start` of the line, and have `left` and
    `right` entries, of which the tile is `begin` to `end` when merged."""

    def __init__(self, k: GpuContext, t: Tiling, width: Value, tile: Value):
        b = k.b
        place = b.mul(tile, i64(t.tile))
        self.begin = b.and_(place, b.sub(b.shl(width, i64(1)), i64(1)))
        self.start = b.sub(place, self.begin)
        rest = b.sub(i64(t.size), self.start)
        self.left = least(b, width, rest)
        self.right = least(b, width, b.sub(rest, self.left))
        self.end = least(b, b.add(self.begin, i64(t.tile)), b.add(self.left, self.right))


class _Block:
    """A block's part in shared memory: two buffers, then an i32 for each thread."""

    def __init__(self, k: GpuContext, job: Lines, t: Tiling):
        self.k, self.b, self.job, self.t = k, k.b, job, t

    def buffer(self, number: int) -> list[ArrayRef]:
        return self.at(i64(number * self.t.buffer_bytes))

    def at(self, offset: Value) -> list[ArrayRef]:
        """The arrays of the buffer so many bytes into shared memory."""
        return _arrays(self.k, self.b.gep("i8", self.k.gpu.shared(), offset), self.t.dtypes, self.t.slots, 16)

    def get(self, arrays: Sequence[ArrayRef], i: Value) -> Values:
        return [array.load((i,)) for array in arrays]

    def put(self, arrays: Sequence[ArrayRef], i: Value, values: Values) -> None:
        for array, value in zip(arrays, values, strict=True):
            array.store((i,), value)

    def sort(self, limit: Value) -> list[ArrayRef]:
        """Sorts the first `limit` entries of each line in the first buffer; the buffer where they are then."""
        b, t = self.b, self.t
        mine = b.mul(self.k.thread_index(), i64(t.run))
        place = b.and_(mine, i64(t.line_slots - 1))
        if t.run > 1:
            self._insert_all(self.buffer(0), mine, b.sub(limit, place))
        if t.run == t.line_slots:
            self.k.gpu.barrier()
            return self.buffer(0)

        def double(carried: list[Value]) -> list[Value]:
            width, source, target = carried
            self.k.gpu.barrier()
            inside = b.and_(place, b.sub(b.shl(width, i64(1)), i64(1)))
            rest = b.sub(limit, b.sub(place, inside))
            left = _bounded(b, rest, width)
            right = _bounded(b, b.sub(rest, left), width)
            self.merge(source, target, b.sub(mine, inside), left, right, b.shl(width, i64(1)))
            return [b.shl(width, i64(1)), target, source]

        initial = [i64(t.run), i64(0), i64(t.buffer_bytes)]
        b.while_loop(initial, lambda carried: b.icmp_signed("<", carried[0], i64(t.line_slots)), double, "double")
        merges = (t.line_slots // t.run).bit_length() - 1
        return self.buffer(merges % 2)

    def _insert_all(self, arrays: list[ArrayRef], start: Value, count: Value) -> None:
        """Sorts a thread's entries, so many of which there are."""
        b = self.b
        end = b.add(start, least(b, count, i64(self.t.run)))
        with b.for_loop(b.add(start, i64(1)), end, unroll=False) as i:
            value = self.get(arrays, i)

            def moves(carried: list[Value]) -> Value:
                (hole,) = carried
                return b.if_else(
                    b.icmp_signed(">", hole, start),
                    lambda: self.job.before(self.k, value, self.get(arrays, b.sub(hole, i64(1)))),
                    lambda: integer("i1", 0),
                )

            def move(carried: list[Value]) -> list[Value]:
                below = b.sub(carried[0], i64(1))
                self.put(arrays, carried[0], self.get(arrays, below))
                return [below]

            (place,) = b.while_loop([i], moves, move, "insert")
            self.put(arrays, place, value)

    def merge(self, source: Value, target: Value, first: Value, left: Value, right: Value, width: Value) -> None:
        """Merges two runs side by side in one buffer into the other: each thread makes what comes to its own slots.

        The runs begin at slot `first`; their threads have `width` slots, a power of two. Ends with a barrier.
        """
        b, t, gpu = self.b, self.t, self.k.gpu
        arrays, made = self.at(source), self.at(target)
        mine = b.mul(self.k.thread_index(), i64(t.run))
        total = b.add(left, right)
        begin = least(b, b.sub(mine, first), total)
        end = least(b, b.add(b.sub(mine, first), i64(t.run)), total)
        second = b.add(first, left)
        begin_left = _split(self.k, self.job, arrays, first, left, second, right, begin)
        b.store(b.trunc(begin_left, "i32"), self._told(i64(0)))

        def step(n: Value, carried: list[Value]) -> list[Value]:
            i, j = carried
            both = b.and_(b.icmp_signed("<", i, left), b.icmp_signed("<", j, right))
            one, other = b.add(first, i), b.add(second, j)
            takes = b.if_else(
                both,
                lambda: self.job.before(self.k, self.get(arrays, other), self.get(arrays, one)),
                lambda: b.icmp_signed(">=", i, left),
            )
            self.put(made, b.add(first, n), self.get(arrays, b.select(takes, other, one)))
            taken = b.zext(takes, "i64")
            return [b.add(i, b.sub(i64(1), taken)), b.add(j, taken)]

        start = [begin_left, b.sub(begin, begin_left)]
        end_left, _ = b.for_loop_carrying(begin, end, start, step, unroll=False)
        gpu.barrier()
        is_last = b.icmp_signed("==", b.and_(b.add(mine, i64(t.run)), b.sub(width, i64(1))), i64(0))
        fits = b.if_else(
            is_last,
            lambda: integer("i1", 1),
            lambda: b.icmp_signed("==", b.load("i32", self._told(i64(1))), b.trunc(end_left, "i32")),
        )
        with b.if_then(gpu.any(b.not_(fits))), b.for_loop(begin, end, unroll=False) as n:
            self.put(made, b.add(first, n), self.get(arrays, b.add(first, n)))
        gpu.barrier()

    def _told(self, distance: Value) -> Value:
        """Where a thread so far behind this one has left its number."""
        numbers = self.k.gpu.shared(2 * self.t.buffer_bytes)
        return self.b.gep("i32", numbers, self.b.add(self.k.thread_index(), distance))


def _split(
    k: GpuContext,
    job: Lines,
    arrays: Sequence[ArrayRef],
    first: Value,
    left: Value,
    second: Value,
    right: Value,
    count: Value,
) -> Value:
    """How many of the first `count` of two merged runs come from the first one.

    The runs begin at places of the arrays and have `left` and `right` entries.
    """
    b = k.b
    low = b.sub(count, right)
    low = b.select(b.icmp_signed(">", low, i64(0)), low, i64(0))

    def search(carried: list[Value]) -> list[Value]:
        low, high = carried
        middle = b.lshr(b.add(low, high), i64(1))
        one = [array.load((b.add(first, middle),)) for array in arrays]
        place = b.sub(b.add(second, b.sub(count, i64(1))), middle)
        other = [array.load((place,)) for array in arrays]
        later = job.before(k, other, one)
        return [b.select(later, low, b.add(middle, i64(1))), b.select(later, middle, high)]

    found, _ = b.while_loop(
        [low, least(b, count, left)], lambda carried: b.icmp_signed("<", *carried), search, "split"
    )
    return found


def _arrays(k: GpuContext, start: Value, dtypes: Sequence[DType], count: int, unit: int) -> list[ArrayRef]:
    """An array of so many elements of each type, one behind the other."""
    arrays, offset = [], 0
    for dtype in dtypes:
        arrays.append(ArrayRef(k.b, ArrayShape(dtype, (count,)), k.b.gep("i8", start, i64(offset))))
        offset += rounded(count * dtype.itemsize, unit)
    return arrays


def _bounded(b: Builder, value: Value, most: Value) -> Value:
    """A signed number within 0 .. most."""
    return b.select(b.icmp_signed("<", value, i64(0)), i64(0), least(b, value, most))


def _divided(k: GpuContext, number: Value, by: int) -> tuple[Value, Value]:
    """Quotient and remainder of an unsigned number."""
    return k.b.udiv(number, i64(by)), k.b.urem(number, i64(by))
