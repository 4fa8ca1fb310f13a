"""Panels of a matrix of narrow integers, packed as pairs of steps, as routines.

A packed element has the 32 bits of an s32: the terms of two steps, as s16, the first one in the low half. So a panel
has half as many packed steps as steps, rounded up; the term that is missing behind an odd number of steps is 0.
Strides and sizes are i64, strides count elements.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, integer, vector_type
from hloc.codegen.packing import ANYHOW, LINES, STEPS, TOGETHER, transposed
from hloc.codegen.products import load_as
from hloc.codegen.routines import PLAIN, Routines, i64, least
from hloc.ir.dtypes import S16, DType


def pack_pairs_routine(routines: Routines, source: DType, width: int, lanes: int, order: str) -> Function:
    """`pack(start, to, lines, steps, line_stride, step_stride)`: panels of `width` lines, to[panel][pair][line].

    Missing lines of the last panel are 0. `order` is one of `packing`, and says which stride is 1; `lanes` are those of
    a vector of s32.
    """
    params = "ptr start, ptr to, i64 lines, i64 steps, i64 line_stride, i64 step_stride"
    name = f"hloc.pack_pairs.{source.name}.{width}" + (f".{order}" if order else "")
    return routines.get(name, params, lambda b, p: _Packing(b, p, source, width, lanes, order).write(), stage=PLAIN)


class _Packing:
    """Writes the body of a pack routine with parameters `p`."""

    def __init__(self, b: Builder, p: SimpleNamespace, source: DType, width: int, lanes: int, order: str):
        self.b, self.p, self.source, self.width, self.lanes, self.order = b, p, source, width, lanes, order
        self.element = scalar.memory_type(source)
        self.line_stride = i64(1) if order == LINES else p.line_stride
        self.step_stride = i64(1) if order == STEPS else p.step_stride
        self.pairs = b.lshr(b.add(p.steps, i64(1)), i64(1))

    def write(self) -> None:
        """Whole panels by vectors, as far as their steps go by vectors; single elements for the rest."""
        b, p, width = self.b, self.p, self.width
        if self.order == ANYHOW:
            whole = i64(0)
        else:
            together = TOGETHER if self.order == LINES else 1
            whole = b.sub(p.lines, b.urem(p.lines, i64(width)))
            most = b.sub(p.lines, b.urem(p.lines, i64(together * width)))
            self.panels(i64(0), most, together)
            if together > 1:
                self.panels(most, whole, 1)
        with b.for_loop(whole, p.lines, width, unroll=False) as panel:
            self.singles(panel, i64(0))

    def panels(self, first: Value, end: Value, count: int) -> None:
        """Whole panels, `count` at a time."""
        b, p = self.b, self.p
        unit = self.lanes if self.order == STEPS else 1
        pairs = b.lshr(p.steps, i64(1))
        most = b.sub(pairs, b.urem(pairs, i64(unit))) if unit > 1 else pairs
        with b.for_loop(first, end, count * self.width, unroll=False) as panel:
            with b.for_loop(i64(0), most, unit, vectorize=False, unroll=False) as pair:
                if self.order == STEPS:
                    for line in range(0, self.width, self.lanes):
                        self.square(panel, pair, line, min(self.lanes, self.width - line))
                else:
                    self.lines(panel, pair, count)
            for number in range(count):
                self.singles(b.add(panel, i64(number * self.width)), most)

    def at(self, line: Value, step: Value) -> Value:
        b = self.b
        return b.gep(self.element, self.p.start, b.add(b.mul(line, self.line_stride), b.mul(step, self.step_stride)))

    def place(self, panel: Value, pair: Value) -> Value:
        """Where the first line of a pair goes, in the panel that begins with line `panel`."""
        b = self.b
        return b.gep("i32", self.p.to, b.add(b.mul(panel, self.pairs), b.mul(pair, i64(self.width))))

    def lines(self, panel: Value, pair: Value, count: int) -> None:
        """One pair of some panels, of which lines lie side by side."""
        b, width = self.b, self.width
        step = b.shl(pair, i64(1))
        rows = [self.at(panel, b.add(step, i64(number))) for number in range(2)]
        turns = [half * width + line for line in range(width) for half in range(2)]
        for number in range(count):
            offset = i64(number * width)
            x, y = (
                b.load(vector_type(self.element, width), b.gep(self.element, row, offset), align=self.source.itemsize)
                for row in rows
            )
            both = self.widened(b.shufflevector(x, y, turns))
            to = self.place(b.add(panel, offset), pair)
            b.store(b.bitcast(both, vector_type("i32", width)), to, align=4)

    def square(self, panel: Value, pair: Value, first: int, count: int) -> None:
        """As many pairs as a vector has lanes, of `count` lines from the `first` on; their steps lie side by side."""
        b, lanes = self.b, self.lanes
        step, vectors = b.shl(pair, i64(1)), []
        for line in range(count):
            address = self.at(b.add(panel, i64(first + line)), step)
            loaded = b.load(vector_type(self.element, 2 * lanes), address, align=self.source.itemsize)
            vectors.append(b.bitcast(self.widened(loaded), vector_type("i32", lanes)))
        for number, value in enumerate(transposed(b, vectors, 4)):
            if count < lanes:
                value = b.shufflevector(value, value, range(count))
            to = self.place(panel, b.add(pair, i64(number)))
            b.store(value, b.gep("i32", to, i64(first)), align=4)

    def widened(self, value: Value) -> Value:
        return scalar.convert(self.b, value, self.source, S16)

    def singles(self, panel: Value, first: Value) -> None:
        """The pairs of a panel from the `first` on, term by term."""
        b = self.b
        with (
            b.for_loop(first, self.pairs, vectorize=False, unroll=False) as pair,
            b.for_loop(i64(0), i64(self.width), vectorize=False, unroll=False) as line,
        ):
            step = b.shl(pair, i64(1))
            low, high = (self.term(b.add(panel, line), b.add(step, i64(number))) for number in range(2))
            value = b.or_(b.zext(low, "i32"), b.shl(b.zext(high, "i32"), integer("i32", 16)))
            b.store(value, b.gep("i32", self.place(panel, pair), line))

    def term(self, line: Value, step: Value) -> Value:
        """An s16; 0 beyond the matrix."""
        b, p = self.b, self.p
        there = b.and_(b.icmp_signed("<", line, p.lines), b.icmp_signed("<", step, p.steps))
        return b.if_else(
            there, lambda: [load_as(b, self.source, S16, self.at(line, step))], lambda: [integer("i16", 0)]
        )[0]


class PairPanels:
    """Panels as `packing.Panels`, of pairs: so many `steps` of terms that s16 holds."""

    def __init__(self, b: Builder, dtype: DType, target: Value, width: int, steps: Value):
        self.b, self.target, self.width, self.steps = b, target, width, steps
        self.pairs = b.lshr(b.add(steps, i64(1)), i64(1))

    def put(self, value: Value, source: DType, panel: Value, line: Value, step: Value) -> None:
        """Puts an element of type `source`."""
        scalar.store(self.b, S16, scalar.convert(self.b, value, source, S16), self._place(panel, line, step))

    def _place(self, panel: Value, line: Value, step: Value) -> Value:
        b = self.b
        pair = b.add(b.mul(panel, self.pairs), b.mul(b.lshr(step, i64(1)), i64(self.width)))
        term = b.add(b.shl(b.add(pair, line), i64(1)), b.and_(step, i64(1)))
        return b.gep("i16", self.target, term)

    def complete(self, lines: Value) -> None:
        """Puts 0 behind an odd number of steps of so many lines: whatever else it is multiplied by is nothing then."""
        b, width = self.b, i64(self.width)
        with (
            b.if_then(b.icmp_signed("!=", b.and_(self.steps, i64(1)), i64(0))),
            b.for_loop(i64(0), lines, self.width, unroll=False) as panel,
            b.for_loop(i64(0), least(b, width, b.sub(lines, panel))) as line,
        ):
            b.store(integer("i16", 0), self._place(panel, line, self.steps))
