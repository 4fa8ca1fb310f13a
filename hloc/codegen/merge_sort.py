"""Sorting by a comparator: stable, and a permutation whatever the comparator says.

Runs of a few elements are sorted by insertion, then merged pairwise, back and forth between two buffers. Two runs of
equal length are merged from both ends at once, without branches (as in quadsort and driftsort): each end makes exactly
half of the steps, so that no step reads outside of its run, whatever the comparator says. Where the ends do not meet,
the comparator contradicts itself (a < of NaNs, for instance), and the runs are merged again from one end: the
result is a permutation always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.arrays import ArrayRef, Register, like_at
from hloc.codegen.llvm import Builder, Value, integer
from hloc.codegen.routines import i64, least

_RUN = 8
"""Elements sorted by insertion."""

Before = Callable[[list[Register], list[Register]], Value]


class MergeSort:
    """Writes the sort of `size` entries, each the values of some arrays at one place.

    `before(first, second)` is whether the comparator puts the first of two entries before the second, an i1.
    """

    def __init__(self, b: Builder, size: int, before: Before):
        self.b, self.size, self.before = b, size, before

    def sort(self, source: list[ArrayRef], target: list[ArrayRef]) -> list[ArrayRef]:
        """Sorts the entries in `source`; the arrays, these or those of `target`, where they lie at last."""
        self._sort_runs(source)
        return self._merge_runs(source, target)

    # Runs

    def _sort_runs(self, arrays: list[ArrayRef]) -> None:
        b = self.b
        with b.for_loop(i64(0), i64(self.size), _RUN, unroll=False) as start:
            end = least(b, b.add(start, i64(_RUN)), i64(self.size))
            with b.for_loop(b.add(start, i64(1)), end, unroll=False, vectorize=False) as i:
                self._insert(arrays, start, i)

    def _insert(self, arrays: list[ArrayRef], start: Value, i: Value) -> None:
        """Moves element i down to its place among start .. i - 1, which are sorted."""
        b = self.b
        value = _get(arrays, i)

        def moves(carried: list[Value]) -> Value:
            (hole,) = carried
            below = b.sub(hole, i64(1))
            return b.if_else(
                b.icmp_signed(">", hole, start),
                lambda: self.before(value, _get(arrays, below)),
                lambda: b.icmp_signed("<", i, start),
            )

        def move(carried: list[Value]) -> list[Value]:
            (hole,) = carried
            below = b.sub(hole, i64(1))
            _put(arrays, hole, _get(arrays, below))
            return [below]

        (place,) = b.while_loop([i], moves, move)
        _put(arrays, place, value)

    # Merging

    def _merge_runs(self, source: list[ArrayRef], target: list[ArrayRef]) -> list[ArrayRef]:
        """Merges runs until one is left; the buffers that hold it."""
        if self.size <= _RUN:
            return source
        count = len(source)

        def merge_pass(carried: list[Value]) -> list[Value]:
            width, *pointers = carried
            self._pass(width, like_at(source, pointers[:count]), like_at(target, pointers[count:]))
            return [self.b.shl(width, i64(1)), *pointers[count:], *pointers[:count]]

        start = [i64(_RUN), *(array.pointer for array in (*source, *target))]
        _, *pointers = self.b.while_loop(
            start, lambda carried: self.b.icmp_signed("<", carried[0], i64(self.size)), merge_pass, "pass"
        )
        return like_at(source, pointers[:count])

    def _pass(self, width: Value, source: list[ArrayRef], target: list[ArrayRef]) -> None:
        """Merges all pairs of runs of a length."""
        b, size = self.b, i64(self.size)
        pairs = b.udiv(b.add(size, b.sub(b.shl(width, i64(1)), i64(1))), b.shl(width, i64(1)))
        with b.for_loop(i64(0), pairs, unroll=False) as pair:
            start = b.mul(pair, b.shl(width, i64(1)))
            middle, end = (
                least(b, b.add(start, width), size),
                least(b, b.add(start, b.shl(width, i64(1))), size),
            )
            equal = b.icmp_signed("==", b.sub(end, middle), width)
            done = b.if_else(
                equal,
                lambda: self._merge_both_ends(source, target, start, middle, end),
                lambda: integer("i1", 0),
            )
            with b.if_then(b.not_(done)):
                self._merge_one_end(source, target, start, middle, end)

    def _merge_both_ends(
        self, source: list[ArrayRef], target: list[ArrayRef], start: Value, middle: Value, end: Value
    ) -> Value:
        """Merges two runs of equal length from both ends; whether the ends met."""
        b, one = self.b, i64(1)

        def step(i: Value, carried: list[Value]) -> list[Value]:
            left, right, last_left, last_right = carried
            taken = self._take(source, target, b.add(start, i), left, right, second_first=True)
            right_taken = b.zext(taken, "i64")
            kept = self._take(
                source, target, b.sub(b.sub(end, one), i), last_right, last_left, second_first=False
            )
            left_taken = b.zext(kept, "i64")
            return [
                b.add(left, b.sub(one, right_taken)),
                b.add(right, right_taken),
                b.sub(last_left, left_taken),
                b.sub(last_right, b.sub(one, left_taken)),
            ]

        initial = [start, middle, b.sub(middle, one), b.sub(end, one)]
        left, right, last_left, last_right = b.for_loop_carrying(
            i64(0), b.sub(middle, start), initial, step, vectorize=False, unroll=False
        )
        return b.and_(
            b.icmp_signed("==", left, b.add(last_left, one)),
            b.icmp_signed("==", right, b.add(last_right, one)),
        )

    def _take(
        self,
        source: list[ArrayRef],
        target: list[ArrayRef],
        place: Value,
        first: Value,
        second: Value,
        *,
        second_first: bool,
    ) -> Value:
        """Puts one of two elements at a place of the target, and gives whether it was the second.

        With `second_first` it is the one that comes first, else the one that comes last; of equals, the
        first.
        """
        b = self.b
        one, other = _get(source, first), _get(source, second)
        chosen = self.before(other, one) if second_first else self.before(one, other)
        _put(target, place, [_select(b, chosen, y, x) for x, y in zip(one, other, strict=True)])
        return chosen

    def _merge_one_end(
        self, source: list[ArrayRef], target: list[ArrayRef], start: Value, middle: Value, end: Value
    ) -> None:
        """Merges two runs of any length; then one of them may have a rest."""
        b, one = self.b, i64(1)

        def both_left(carried: list[Value]) -> Value:
            left, right = carried
            return b.and_(b.icmp_signed("<", left, middle), b.icmp_signed("<", right, end))

        def step(carried: list[Value]) -> list[Value]:
            left, right = carried
            place = b.add(start, b.add(b.sub(left, start), b.sub(right, middle)))
            taken = b.zext(self._take(source, target, place, left, right, second_first=True), "i64")
            return [b.add(left, b.sub(one, taken)), b.add(right, taken)]

        left, right = b.while_loop([start, middle], both_left, step, "merge")
        place = b.add(left, b.sub(right, middle))
        self._move(source, target, left, place, b.sub(middle, left))
        self._move(source, target, right, b.add(place, b.sub(middle, left)), b.sub(end, right))

    def _move(
        self, source: list[ArrayRef], target: list[ArrayRef], start: Value, place: Value, count: Value
    ) -> None:
        for array, copy in zip(source, target, strict=True):
            size = self.b.mul(count, i64(array.shape.dtype.itemsize))
            self.b.memcpy(copy.address((place,)), array.address((start,)), size)


def _get(arrays: Sequence[ArrayRef], i: Value) -> list[Register]:
    return [array.load((i,)) for array in arrays]


def _put(arrays: Sequence[ArrayRef], i: Value, values: Sequence[Register]) -> None:
    for array, value in zip(arrays, values, strict=True):
        array.store((i,), value)


def _select(b: Builder, condition: Value, x: Register, y: Register) -> Register:
    if isinstance(x, tuple):
        return b.select(condition, x[0], y[0]), b.select(condition, x[1], y[1])
    return b.select(condition, x, y)
