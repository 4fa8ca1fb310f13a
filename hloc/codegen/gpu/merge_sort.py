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
from hloc.codegen.gpu.merge_block import Block, arrays_of, split
from hloc.codegen.gpu.merge_plan import Lines, Tiling, Values
from hloc.codegen.gpu.step import GpuStep, LaunchTemplate
from hloc.codegen.llvm import Value
from hloc.codegen.routines import i64, least

_BATCH = 4
"""Entries that a thread loads together."""


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
            block = Block(k, job, t)
            line, base = k.b.mul(k.block_index(), i64(t.slots // t.line_slots)), i64(0)
            if t.is_long:
                line, base = _divided(k, k.block_index(), t.tiles)
                base = k.b.mul(base, i64(t.tile))

            self._each(
                k, line, base,
                lambda slot, line, i: job.load(k, line, i),
                lambda slot, line, i, values: block.put(block.buffer(0), slot, values),
            )
            k.gpu.barrier()
            sorted_ = block.sort(self._limit(k, line, base))

            def store(slot: Value, line: Value, i: Value, values: Values) -> None:
                if t.is_long:
                    block.put(self._lines(k, i64(self.buffers[0])), self._place(k, line, i), values)
                else:
                    job.store(k, line, i, values)

            self._each(k, line, base, lambda slot, line, i: block.get(sorted_, slot), store)

    def _limit(self, k: GpuContext, line: Value, base: Value) -> Value:
        """How many entries there are of the line in a block that this thread works on."""
        b, t = k.b, self.t
        limit = least(b, b.sub(i64(t.size), base), i64(t.line_slots))
        rows = t.slots // t.line_slots
        if t.lines % rows == 0:
            return limit
        row = b.udiv(b.mul(k.thread_index(), i64(t.run)), i64(t.line_slots))
        return b.select(b.icmp_signed("<", b.add(line, row), i64(t.lines)), limit, i64(0))

    def _each(
        self,
        k: GpuContext,
        line: Value,
        base: Value,
        load: Callable[[Value, Value, Value], Values],
        store: Callable[[Value, Value, Value, Values], None],
    ) -> None:
        """load(slot, line, i), and store of it, for all entries of a block, neighbours by neighbouring threads."""
        b, t = k.b, self.t
        rows = t.slots // t.line_slots

        def at(number: Value) -> tuple[Value, Sequence[Value]]:
            if self.job.apart and not t.is_long:
                place, row = b.udiv(number, i64(rows)), b.urem(number, i64(rows))
            else:
                row, place = b.udiv(number, i64(t.line_slots)), b.urem(number, i64(t.line_slots))
            here, i = b.add(line, row), b.add(base, place)
            inside = b.icmp_signed("<", i, i64(t.size))
            if t.lines % rows:
                inside = b.and_(inside, b.icmp_signed("<", here, i64(t.lines)))
            return inside, (b.add(b.mul(row, i64(t.line_slots)), place), here, i)

        _in_batches(k, t, at, (i64(0), line, base), load, store)

    # Lines in global memory

    def _lines(self, k: GpuContext, offset: Value) -> list[ArrayRef]:
        """All entries in a buffer that begins so many bytes into scratch."""
        return arrays_of(k, k.b.gep("i8", k.scratch, offset), self.t.dtypes, self.t.lines * self.t.size, 64)

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
                    split(k, self.job, arrays, first, pair.left, second, pair.right, d) for d in (pair.begin, pair.end)
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
            b, block = k.b, Block(k, job, t)
            line, tile = _divided(k, k.block_index(), t.tiles)
            pair = _Pair(k, t, k.scalars[0], tile)
            begin, end = self._bounds(k, pair, tile)
            left, total = b.sub(end, begin), b.sub(pair.end, pair.begin)
            arrays = self._lines(k, k.scalars[1])
            first = b.add(self._place(k, line, pair.start), begin)
            behind = b.add(self._place(k, line, pair.start), b.add(pair.left, b.sub(pair.begin, begin)))
            second = b.sub(behind, left)

            def at(slot: Value) -> tuple[Value, Sequence[Value]]:
                return b.icmp_signed("<", slot, total), (slot,)

            def load(slot: Value) -> Values:
                start = b.select(b.icmp_signed("<", slot, left), first, second)
                return block.get(arrays, b.add(start, slot))

            def store(slot: Value, values: Values) -> None:
                i = b.add(b.mul(tile, i64(t.tile)), slot)
                if target is None:
                    job.store(k, line, i, values)
                else:
                    block.put(self._lines(k, k.scalars[2]), self._place(k, line, i), values)

            none = (i64(0),)
            _in_batches(k, t, at, none, load, lambda slot, values: block.put(block.buffer(0), slot, values))
            k.gpu.barrier()
            block.merge(i64(0), i64(t.buffer_bytes), i64(0), left, b.sub(total, left), i64(t.slots))
            _in_batches(k, t, at, none, lambda slot: block.get(block.buffer(1), slot), store)
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


def _in_batches(
    k: GpuContext,
    t: Tiling,
    at: Callable[[Value], tuple[Value, Sequence[Value]]],
    default: Sequence[Value],
    load: Callable[..., Values],
    store: Callable[..., None],
) -> None:
    """Loads and stores the entries of all slots of a block, some at a time: the loads do not wait for each other.

    `at(number)` says whether there is such an entry, and gives what load and store take. Where there is none, the
    entry of the `default`, which there always is, is loaded for nothing.
    """
    b, batch = k.b, min(_BATCH, t.run)
    with b.for_loop(0, t.run, batch, unroll=False) as turn:
        numbers = [b.add(b.mul(b.add(turn, i64(n)), i64(t.threads)), k.thread_index()) for n in range(batch)]
        places = [at(number) for number in numbers]
        entries = [load(*(b.select(inside, x, y) for x, y in zip(place, default))) for inside, place in places]
        for (inside, place), values in zip(places, entries, strict=True):
            with b.if_then(inside):
                store(*place, values)


def _divided(k: GpuContext, number: Value, by: int) -> tuple[Value, Value]:
    """Quotient and remainder of an unsigned number."""
    return k.b.udiv(number, i64(by)), k.b.urem(number, i64(by))
