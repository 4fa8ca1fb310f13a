"""Lines of running folds by a known operation, made by vectors: block by block, and long ones part by part.

A block of elements is made in memory that stays in the innermost cache, if it does not lie in memory already; so are
results that are more than stored. Threads share the parts of a long line: first each part is folded as a whole, then
each goes on from what the parts before it come to. Sizes alone decide what is a part, and folds are the same with one
thread, which goes through each part once.
"""

from __future__ import annotations

from collections.abc import Callable

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.kernel import KernelContext
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.parts import Parts
from hloc.codegen.prefixes import BLOCK, prefix_routine, total_routine
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import Routines, i64, least
from hloc.ir.shapes import ArrayShape
from hloc.records import record

_LEAST, _MOST, _EVEN = 1 << 15, 64, 1 << 12
"""Elements of a part at least; parts at most; what longer parts are a multiple of."""

_FEW = 16
"""Lines from which on threads have some each."""


def parts_of(size: int, lines: int) -> Parts | None:
    """The parts of each line of `size` elements; None if it has none."""
    if lines >= _FEW or size < 2 * _LEAST:
        return None
    block = max(_LEAST, -(-size // _MOST))
    return Parts((), size, -(-block // _EVEN) * _EVEN)


@record
class Line:
    """A line: `element(i)` gives an element, `put(i, value)` takes the result of the same number.

    `source(i)` and `target(i)` are the addresses of elements and results that lie side by side in memory, as they are
    there; None if they do not.
    """

    element: Callable[[Value], Value]
    put: Callable[[Value, Value], object]
    source: Callable[[Value], Value] | None
    target: Callable[[Value], Value] | None

    def behind(self, b: Builder, entering: Value) -> Line:
        """The line that has as element i the one that is `entering` places behind."""

        def element(i: Value) -> Value:
            return self.element(b.add(i, entering))

        def source(i: Value) -> Value:
            return self.source(b.add(i, entering))

        return Line(element, self.put, self.source and source, self.target)


class Scan:
    """Writes the loops over lines."""

    def __init__(self, k: KernelContext, reducer: Reducer):
        self.k, self.b, self.reducer = k, k.b, reducer
        (dtype,) = reducer.sums
        routines = Routines(k.b.module, k.target)
        self._prefix, self._total = (
            routine(routines, reducer.operation, dtype) for routine in (prefix_routine, total_routine)
        )
        self._shape = ArrayShape(dtype, (BLOCK,))
        self._room: ArrayRef | None = None

    def results(self, line: Line, first: Value, count: int, before: Value) -> Value:
        """Makes `count` results from the first on, given the one before them; the last of them."""
        if line.source is not None and line.target is not None:
            return self.b.call(self._prefix, [line.source(first), line.target(first), i64(count), before])
        return self._blocks(line, first, count, [before], False)[0]

    def in_parts(self, parts: Parts, lines: int, line: Callable[[Value], Line], before: Value) -> None:
        """Makes all results of some lines: all of the kernel's code, for which `lines` * `parts.count` values of
        scratch are there, and two turns.
        """
        totals = ArrayRef(self.b, ArrayShape(self.reducer.sums[0], (lines * parts.count,)), self.k.scratch)

        def part(number: Value, is_made: bool, is_totalled: bool) -> None:
            def body(outer: object, first: Value, count: int) -> None:
                place = line(self.b.udiv(number, i64(parts.count)))
                carried = [self._before(totals, number, parts.count, before)] if is_made else []
                done = self._blocks(place, first, count, carried, is_totalled)
                if is_totalled:
                    totals.store((number,), done[-1])

            parts.run(self.b, self.b.urem(number, i64(parts.count)), body)

        count = lines * parts.count
        if self.k.range is None:
            with self.b.for_loop(0, count, unroll=False) as number:
                part(number, True, True)
            return

        def turn(turn: Value, number: Value) -> None:
            is_first = self.b.icmp_signed("==", turn, i64(0))
            self.b.if_else(is_first, lambda: part(number, False, True), lambda: part(number, True, False))

        self.k.in_turns(2, count, turn)

    def _before(self, totals: ArrayRef, number: Value, count: int, before: Value) -> Value:
        """The fold of all parts of a line before one."""
        first = self.b.sub(number, self.b.urem(number, i64(count)))

        def step(other: Value, running: list[Value]) -> list[Value]:
            return self.reducer.apply(self.k, running, [totals.load((other,))], regroup=False)

        return self.b.for_loop_carrying(first, number, [before], step, vectorize=False, unroll=False)[0]

    def _blocks(self, line: Line, first: Value, count: int, before: list[Value], is_totalled: bool) -> list[Value]:
        """Makes results, given the one before; or, without that, folds only. The last result, and the fold of all."""
        total = self.reducer.identity() if is_totalled else []

        def block(number: Value, carried: list[Value]) -> list[Value]:
            start = self.b.mul(number, i64(BLOCK))
            size = least(self.b, i64(BLOCK), self.b.sub(i64(count), start)) if count % BLOCK else i64(BLOCK)
            start = self.b.add(first, start)
            source = self._filled(line, start, size)
            last, total = carried[: len(before)], carried[len(before) :]
            if total:
                fold = self.b.call(self._total, [source, size])
                total = self.reducer.apply(self.k, total, [fold], regroup=False)
            if last:
                last = [self._stored(line, start, size, source, *last)]
            return [*last, *total]

        return self.b.for_loop_carrying(0, -(-count // BLOCK), [*before, *total], block, unroll=False)

    def _filled(self, line: Line, start: Value, size: Value) -> Value:
        """Where the elements of a block are."""
        if line.source is not None:
            return line.source(start)
        with self.b.for_loop(i64(0), size) as i:
            self._held.store((i,), line.element(self.b.add(start, i)))
        return self._held.pointer

    def _stored(self, line: Line, start: Value, size: Value, source: Value, before: Value) -> Value:
        """Makes the results of a block; the last one."""
        if line.target is not None:
            return self.b.call(self._prefix, [source, line.target(start), size, before])
        last = self.b.call(self._prefix, [source, self._held.pointer, size, before])
        with self.b.for_loop(i64(0), size) as i:
            line.put(self.b.add(start, i), self._held.load((i,)))
        return last

    @property
    def _held(self) -> ArrayRef:
        """Memory for a block."""
        if self._room is None:
            room = self.b.room("i8", self._shape.byte_size, align=64)
            self._room = ArrayRef(self.b, self._shape, room)
        return self._room
