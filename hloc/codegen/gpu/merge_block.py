"""Runs of entries merged in a block's shared memory, on a device."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.merge_plan import Lines, Tiling, Values, rounded
from hloc.codegen.llvm import Builder, Value, integer
from hloc.codegen.routines import i64, least
from hloc.ir.dtypes import DType
from hloc.ir.shapes import ArrayShape


class Block:
    """A block's part in shared memory: two buffers, then an i32 for each thread."""

    def __init__(self, k: GpuContext, job: Lines, t: Tiling):
        self.k, self.b, self.job, self.t = k, k.b, job, t

    def buffer(self, number: int) -> list[ArrayRef]:
        return self.at(i64(number * self.t.buffer_bytes))

    def at(self, offset: Value) -> list[ArrayRef]:
        """The arrays of the buffer so many bytes into shared memory."""
        return arrays_of(self.k, self.b.gep("i8", self.k.gpu.shared(), offset), self.t.dtypes, self.t.slots, 16)

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
        begin_left = split(self.k, self.job, arrays, first, left, second, right, begin)
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


def split(
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


def arrays_of(k: GpuContext, start: Value, dtypes: Sequence[DType], count: int, unit: int) -> list[ArrayRef]:
    """An array of so many elements of each type, one behind the other."""
    arrays, offset = [], 0
    for dtype in dtypes:
        arrays.append(ArrayRef(k.b, ArrayShape(dtype, (count,)), k.b.gep("i8", start, i64(offset))))
        offset += rounded(count * dtype.itemsize, unit)
    return arrays


def _bounded(b: Builder, value: Value, most: Value) -> Value:
    """A signed number within 0 .. most."""
    return b.select(b.icmp_signed("<", value, i64(0)), i64(0), least(b, value, most))
