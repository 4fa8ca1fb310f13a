"""Runs of updates with equal keys, folded in parts of a fixed length: threads do about as much, however long runs are.

A thread goes through a part. Runs that lie in it are folded into the output. Of runs that come from the part before,
or go on into the next one, it leaves what it has; then the thread of the part in which such a run begins folds the rest
of it. So a run is not folded strictly in order, but always in the same way.
"""

from __future__ import annotations

from math import prod

from hloc.codegen.arrays import ArrayRef, Register, flattened, grouped
from hloc.codegen.emitters.scatter import operand_count
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.grids import each_number
from hloc.codegen.gpu.merge_plan import rounded
from hloc.codegen.gpu.ordered_updates import OrderedUpdates
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import delinearize
from hloc.codegen.reducers import known_operation
from hloc.codegen.routines import i64, least
from hloc.ir.shapes import ArrayShape

PART = 64
"""Updates that a thread folds."""


def parts_of(updates: OrderedUpdates) -> UpdateParts | None:
    """The parts of updates; None if they are few, or the combiner is no known operation, which may be regrouped."""
    instruction = updates.instruction
    known = operand_count(instruction) == 1 and known_operation(instruction.attributes["to_apply"]) is not None
    return UpdateParts(updates) if known and updates.items > 4 * PART else None


class UpdateParts:
    """Sorted updates, to be folded. What is left of parts lies in scratch where sorting was done."""

    def __init__(self, updates: OrderedUpdates):
        self.updates, self.instruction = updates, updates.instruction
        self.items, self.inner, self.offset = updates.items, updates.inner, updates.sorted_bytes
        self.parts = -(-self.items // PART)
        self.threads = self.parts * prod(self.inner)
        self.dtype = self.instruction.operands[0].shape.dtype
        self.left_bytes = rounded(self.threads * self.dtype.itemsize)

    @property
    def scratch_bytes(self) -> int:
        """Temporary memory, that of the updates included.

        For each thread, what it has of the run that comes to it, and of the run that it begins and does not end.
        """
        return self.offset + 2 * self.left_bytes

    def fold(self, g: GpuStep) -> None:
        """Folds all updates into the output."""
        each_number(g, self.threads, self._fold_part, "parts")
        each_number(g, self.threads, self._fold_rest, "rests")

    # Parts

    def _place(self, k: GpuContext, thread: Value) -> tuple[Value, Index, Value, Value]:
        """A thread's part, its element of each of the part's windows, and where the part begins and ends."""
        part, *window = delinearize(k.b, thread, [self.parts, *self.inner])
        number = Value("i64", part.text)  # made here: loops begin with it
        start = k.b.mul(number, i64(PART))
        return number, tuple(window), start, self._end(k, number)

    def _end(self, k: GpuContext, part: Value) -> Value:
        return least(k.b, k.b.mul(k.b.add(part, i64(1)), i64(PART)), i64(self.items))

    def _left(self, k: GpuContext, at_start: bool) -> ArrayRef:
        """What threads have left: of the runs that come to them, or of those that they begin."""
        start = k.b.gep("i8", k.scratch, i64(self.offset + (0 if at_start else self.left_bytes)))
        return ArrayRef(k.b, ArrayShape(self.dtype, (self.threads,)), start)

    def _apply(self, k: GpuContext, one: Register, other: Register) -> Register:
        return k.apply(self.instruction.attributes["to_apply"], [one, other])[0]

    def _has_key(self, k: GpuContext, i: Value, key: Value) -> Value:
        """Whether there is an update i, and it has the key."""
        exists = k.b.icmp_unsigned("<", i, i64(self.items))
        return k.b.if_else(
            exists,
            lambda: k.b.icmp_signed("==", self.updates.key_array(k).load((i,)), key),
            lambda: integer("i1", 0),
        )

    def _put(self, k: GpuContext, key: Value, window: Index, total: Register) -> None:
        """Folds what a whole run comes to into the output, unless it is to be dropped."""
        with k.b.if_then(k.b.icmp_unsigned("<", key, integer(key.type, self.updates.keys))):
            place, output = self.updates.place(k, key, window), k.outputs[0]
            output.store(place, self._apply(k, output.load(place), total))

    def _fold_part(self, k: GpuContext, thread: Value) -> None:
        b, keys = k.b, self.updates.key_array(k)
        _, window, start, end = self._place(k, thread)
        first = keys.load((start,))
        (total,) = self.updates.values(k, start, window)
        begins = b.not_(self._has_key(k, b.sub(start, i64(1)), first))

        def ends(key: Value, begins: Value, total: Register) -> None:
            b.if_else(
                begins,
                lambda: self._put(k, key, window, total),
                lambda: self._left(k, at_start=True).store((thread,), total),
            )

        def step(i: Value, carried: list[Value]) -> list[Value]:
            key, begins, *rest = carried
            (so_far,) = grouped(rest, [total])
            following = keys.load((i,))
            (new,) = self.updates.values(k, i, window)

            def other_run() -> list[Value]:
                ends(key, begins, so_far)
                return [integer("i1", 1), *flattened([new])]

            same = b.icmp_signed("==", following, key)
            return [
                following,
                *b.if_else(same, lambda: [begins, *flattened([self._apply(k, so_far, new)])], other_run),
            ]

        initial = [first, begins, *flattened([total])]
        key, begins, *rest = b.for_loop_carrying(b.add(start, i64(1)), end, initial, step, unroll=False)
        (last,) = grouped(rest, [total])
        goes_on = b.and_(begins, self._has_key(k, end, key))
        b.if_else(
            goes_on,
            lambda: self._left(k, at_start=False).store((thread,), last),
            lambda: ends(key, begins, last),
        )

    def _fold_rest(self, k: GpuContext, thread: Value) -> None:
        """Folds a run that begins in a thread's part and goes on, with what the threads of the next parts have left."""
        b, keys = k.b, self.updates.key_array(k)
        part, window, start, end = self._place(k, thread)
        key = keys.load((b.sub(end, i64(1)),))
        comes = b.and_(
            b.icmp_signed("==", keys.load((start,)), key), self._has_key(k, b.sub(start, i64(1)), key)
        )
        with b.if_then(b.and_(self._has_key(k, end, key), b.not_(comes))):
            total = self._left(k, at_start=False).load((thread,))
            stride = i64(prod(self.inner))

            def step(carried: list[Value]) -> list[Value]:
                part, place, _, *rest = carried
                (so_far,) = grouped(rest, [total])
                more = self._apply(k, so_far, self._left(k, at_start=True).load((place,)))
                goes_on = self._has_key(k, self._end(k, part), key)
                return [b.add(part, i64(1)), b.add(place, stride), goes_on, *flattened([more])]

            initial = [b.add(part, i64(1)), b.add(thread, stride), integer("i1", 1), *flattened([total])]
            _, _, _, *rest = b.while_loop(initial, lambda carried: carried[2], step, "rest")
            self._put(k, key, window, grouped(rest, [total])[0])
