"""Panels of a matrix, packed in the order in which tiles of a product read them, as routines.

A panel holds `width` lines (rows of the left operand, columns of the right one), step by step of the contracted
dimension. Strides and sizes are i64, strides count elements. Elements of any real type are converted to the type in
which sums are made.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, poison, vector_type, zero
from hloc.codegen.products import load_as, negated
from hloc.codegen.routines import PLAIN, Routines, blocks, i64
from hloc.ir.dtypes import DType

ANYHOW, LINES, STEPS = "", "lines", "steps"
"""How a matrix lies: with its lines side by side, with the steps of a line side by side, or neither."""

TOGETHER = 4
"""Panels that are packed in one pass over the steps, so that whole cache lines are read at a time."""

_AHEAD = 8
"""Steps by which lines side by side are asked for before they are read: each step's are far from the last one's."""

_BLOCK = 16
"""Bytes within which vectors are shuffled at once."""


def order_of(source: DType, line_stride: int, step_stride: int) -> str:
    """How a matrix of those strides lies, as far as `pack_routine` knows a better way for it."""
    if source.is_subbyte or source.kind == "predicate":
        return ANYHOW
    return LINES if line_stride == 1 else STEPS if step_stride == 1 else ANYHOW


def pack_routine(routines: Routines, source: DType, dtype: DType, width: int, lanes: int, order: str) -> Function:
    """`pack(start, to, lines, steps, line_stride, step_stride, width, negate)`.

    Writes panels of `width` lines as elements of `dtype`, to[panel][step][line in panel]; missing lines of
    the last panel are 0. The stride of the dimension that the matrix' `order` names is 1. Only of no order, values
    may change sign, with `negate`; of width 1, this is a row-major copy. `lanes` are those of a vector of `dtype`.
    """
    params = "ptr start, ptr to, i64 lines, i64 steps, i64 line_stride, i64 step_stride, i64 width, i1 negate"
    name = f"hloc.pack.{source.name}.{dtype.name}" + (f".{order}.{width}" if order else "")
    writers = {ANYHOW: _Anyhow, LINES: _Lines, STEPS: _Steps}
    write = writers[order]
    return routines.get(
        name, params, lambda b, p: write(routines, b, p, source, dtype, width, lanes).write(), stage=PLAIN
    )


class _Writer:
    """What the bodies of pack routines with parameters `p` are written with."""

    def __init__(
        self, routines: Routines, b: Builder, p: SimpleNamespace, source: DType, dtype: DType, width: int, lanes: int
    ):
        self.routines, self.b, self.p = routines, b, p
        self.source, self.dtype, self.width, self.lanes = source, dtype, width, lanes
        self.type, self.stride = scalar.memory_type(dtype), i64(width)

    def at(self, line: Value, step: Value) -> Value:
        """Where an element lies."""
        b, p = self.b, self.p
        index = b.add(b.mul(line, p.line_stride), b.mul(step, p.step_stride))
        return b.gep(scalar.memory_type(self.source), p.start, index)

    def place(self, panel: Value, step: Value) -> Value:
        """Where the lines of a step go, in the panel that begins with line `panel`."""
        offset = self.b.add(self.b.mul(panel, self.p.steps), self.b.mul(step, self.stride))
        return self.b.gep(self.type, self.p.to, offset)

    def load(self, address: Value, count: int) -> Value:
        """So many elements side by side, as values to sum."""
        loaded = self.b.load(vector_type(scalar.memory_type(self.source), count), address, align=self.source.itemsize)
        return scalar.convert(self.b, loaded, self.source, self.dtype)

    def store(self, value: Value, address: Value) -> None:
        self.b.store(value, address, align=self.dtype.itemsize)

    def pack_rest(self, lines: Value, steps: Value) -> None:
        """Packs lines from `lines` on, if there are any: the last panel."""
        b, p = self.b, self.p
        with b.if_then(b.icmp_signed("<", lines, p.lines)):
            pack = pack_routine(self.routines, self.source, self.dtype, self.width, self.lanes, ANYHOW)
            sizes = [b.sub(p.lines, lines), steps, p.line_stride, p.step_stride, i64(self.width), p.negate]
            b.call(pack, [self.at(lines, i64(0)), self.place(lines, i64(0)), *sizes])


class _Anyhow(_Writer):
    """Element by element."""

    def write(self) -> None:
        b, p = self.b, self.p
        self.stride = p.width
        with (
            blocks(b, p.lines, p.width) as (panel, _),
            b.for_loop(0, p.steps, vectorize=False, unroll=False) as step,
            b.for_loop(0, p.width, vectorize=False, unroll=False) as inner,
        ):
            line = b.add(panel, inner)
            there = b.icmp_signed("<", line, p.lines)
            value = b.if_else(there, lambda: [self.read(line, step)], lambda: [zero(self.type)])[0]
            b.store(value, b.gep(self.type, self.place(panel, step), inner))

    def read(self, line: Value, step: Value) -> Value:
        value = load_as(self.b, self.source, self.dtype, self.at(line, step))
        return self.b.select(self.p.negate, negated(self.b, value), value)


class _Lines(_Writer):
    """Lines side by side: each step of a panel is a vector."""

    def write(self) -> None:
        b, p = self.b, self.p
        together = TOGETHER * self.width
        whole = b.sub(p.lines, b.urem(p.lines, i64(self.width)))
        most = b.sub(p.lines, b.urem(p.lines, i64(together)))
        with b.for_loop(i64(0), most, together, unroll=False) as panel:
            self.panels(panel, TOGETHER)
        with b.for_loop(most, whole, self.width, unroll=False) as panel:
            self.panels(panel, 1)
        self.pack_rest(whole, p.steps)

    def panels(self, first: Value, count: int) -> None:
        b = self.b
        places = [b.add(first, i64(number * self.width)) for number in range(count)]
        with b.for_loop(0, self.p.steps, vectorize=False, unroll=False) as step:
            start, later = self.at(first, step), self.at(first, b.add(step, i64(_AHEAD)))
            for offset in range(0, count * self.width * self.source.itemsize, 64):
                b.prefetch(b.gep("i8", later, i64(offset)))
            for number, place in enumerate(places):
                offset = i64(number * self.width)
                values = self.load(b.gep(scalar.memory_type(self.source), start, offset), self.width)
                self.store(values, self.place(place, step))


class _Steps(_Writer):
    """Steps side by side: squares of a matrix are transposed in registers."""

    def write(self) -> None:
        b, p, lanes = self.b, self.p, self.lanes
        whole = b.sub(p.lines, b.urem(p.lines, i64(self.width)))
        most = b.sub(p.steps, b.urem(p.steps, i64(lanes)))
        with b.for_loop(i64(0), whole, self.width, unroll=False) as panel:
            with b.for_loop(i64(0), most, lanes, vectorize=False, unroll=False) as step:
                for first in range(0, self.width, lanes):
                    self.square(panel, step, first, min(lanes, self.width - first))
            with (
                b.for_loop(most, p.steps, vectorize=False, unroll=False) as step,
                b.for_loop(0, self.width, vectorize=False, unroll=False) as line,
            ):
                value = load_as(b, self.source, self.dtype, self.at(b.add(panel, line), step))
                b.store(value, b.gep(self.type, self.place(panel, step), line))
        self.pack_rest(whole, p.steps)

    def square(self, panel: Value, step: Value, first: int, count: int) -> None:
        """`count` lines of a panel, from the `first` on, in as many steps as a vector has lanes."""
        b = self.b
        lines = [self.load(self.at(b.add(panel, i64(first + line)), step), self.lanes) for line in range(count)]
        for number, value in enumerate(transposed(b, lines, self.dtype.itemsize)):
            if count < self.lanes:
                value = b.shufflevector(value, value, range(count))
            self.store(value, b.gep(self.type, self.place(panel, b.add(step, i64(number))), i64(first)))


class Panels:
    """Panels of `width` lines, each of so many `steps` of type `dtype`, of elements that come one by one."""

    def __init__(self, b: Builder, dtype: DType, target: Value, width: int, steps: Value):
        self.b, self.dtype, self.target, self.width, self.steps = b, dtype, target, width, steps

    def put(self, value: Value, source: DType, panel: Value, line: Value, step: Value) -> None:
        """Puts an element of type `source`: that of a line of the panel that begins with line `panel`."""
        b = self.b
        place = b.add(b.mul(panel, self.steps), b.add(b.mul(step, i64(self.width)), line))
        address = b.gep(scalar.memory_type(self.dtype), self.target, place)
        scalar.store(b, self.dtype, scalar.convert(b, value, source, self.dtype), address)

    def complete(self, lines: Value) -> None:
        """Ends panels of so many lines: nothing is missing."""


def transposed(b: Builder, rows: list[Value], itemsize: int) -> list[Value]:
    """The columns of a square whose first rows these vectors are; what is missing of the rows is poison."""
    type = rows[0].type
    lanes = int(type[1 : type.index(" x ")])
    rows = rows + [poison(type)] * (lanes - len(rows))
    group = min(max(_BLOCK // itemsize, 1), lanes)
    width = 1
    while width < group:
        rows = _interleaved(b, rows, width, group)
        width *= 2
    # Each round doubles the distance of columns that were side by side: they end in the order of reversed bits.
    bits = group.bit_length() - 1
    order = [int(f"{number:0{bits}b}"[::-1], 2) if bits else 0 for number in range(group)]
    rows = [rows[first + number] for first in range(0, lanes, group) for number in order]
    while width < lanes:
        rows = _exchanged(b, rows, width)
        width *= 2
    return rows


def _interleaved(b: Builder, rows: list[Value], width: int, group: int) -> list[Value]:
    """Runs of `width` elements of rows that far apart, in turns, within each `group` of lanes."""
    lanes = len(rows)
    result = list(rows)
    for i in range(0, lanes, 2 * width):
        for j in range(width):
            x, y = rows[i + j], rows[i + j + width]
            for half in range(2):
                mask = []
                for start in range(0, lanes, group):
                    for run in range(0, group // 2, width):
                        at = start + half * group // 2 + run
                        mask += [*range(at, at + width), *range(lanes + at, lanes + at + width)]
                result[i + j + half * width] = b.shufflevector(x, y, mask)
    return result


def _exchanged(b: Builder, rows: list[Value], width: int) -> list[Value]:
    """Rows that far apart with runs of `width` lanes exchanged."""
    lanes = len(rows)
    result = list(rows)
    for i in range(lanes):
        if i & width:
            continue
        x, y = rows[i], rows[i + width]
        low = [lane if not lane & width else lanes + lane - width for lane in range(lanes)]
        high = [lane + width if not lane & width else lanes + lane for lane in range(lanes)]
        result[i], result[i + width] = b.shufflevector(x, y, low), b.shufflevector(x, y, high)
    return result
