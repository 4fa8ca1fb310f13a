"""Small blocks of a matrix product, held in vector registers, and the packed panels that they read: routines.

Strides and sizes are i64, strides count elements. Operands of any real type are converted to the type in
which sums are made as they are packed.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, poison, vector_type, zero
from hloc.codegen.products import added, load_as, multiply_add, negated, store_as
from hloc.codegen.routines import Routines, i64
from hloc.ir.dtypes import DType
from hloc.records import record


@record
class Tile:
    """A block of `rows` x (`vectors` * `lanes`) sums of element type `dtype`, kept in registers."""

    dtype: DType
    rows: int
    vectors: int
    lanes: int

    @property
    def type(self) -> str:
        return scalar.memory_type(self.dtype)

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes

    @property
    def name(self) -> str:
        return f"{self.dtype.name}.{self.rows}x{self.columns}"


def tile_routine(routines: Routines, tile: Tile) -> Function:
    """`tile(a, a_row, a_step, b, run, offsets, count, c, c_row, accumulate)`.

    Sums a[offsets[o] + i * a_row + s * a_step] * b[(o * run + s) * columns + j] over o < count and s < run
    into c[i * c_row + j], or adds that to what is there.
    """
    params = (
        "ptr a, i64 a_row, i64 a_step, ptr b, i64 run, ptr offsets, i64 count, ptr c, i64 c_row, "
        "i1 accumulate"
    )
    return routines.get(f"hloc.tile.{tile.name}", params, lambda b, p: _TileWriter(b, p, tile).write())


class _TileWriter:
    """Writes the body of a tile routine with parameters `p`; sums are listed row by row."""

    def __init__(self, b: Builder, p: SimpleNamespace, tile: Tile):
        self.b, self.p, self.tile = b, p, tile
        self.vector, self.align = vector_type(tile.type, tile.lanes), tile.dtype.itemsize
        self.places = [(i, v) for i in range(tile.rows) for v in range(tile.vectors)]

    def at(self, start: Value, offset: Value) -> Value:
        return self.b.gep(self.tile.type, start, offset)

    def vector_at(self, address: Value) -> Value:
        return self.b.load(self.vector, address, align=self.align)

    def write(self) -> None:
        b, p = self.b, self.p
        targets = [
            self.at(p.c, b.add(b.mul(p.c_row, i64(i)), i64(v * self.tile.lanes))) for i, v in self.places
        ]
        start = b.if_else(
            p.accumulate,
            lambda: [self.vector_at(t) for t in targets],
            lambda: [zero(self.vector)] * len(targets),
        )
        sums = b.for_loop_carrying(0, p.count, start, self.run)
        for target, value in zip(targets, sums, strict=True):
            b.store(value, target, align=self.align)

    def run(self, o: Value, sums: list[Value]) -> list[Value]:
        """Adds the terms of one run."""
        b, p = self.b, self.p
        a_start = self.at(p.a, b.load("i64", b.gep("i64", p.offsets, o)))
        b_start = self.at(p.b, b.mul(b.mul(o, p.run), i64(self.tile.columns)))

        def step(s: Value, sums: list[Value]) -> list[Value]:
            a_at = self.at(a_start, b.mul(s, p.a_step))
            return self.step(a_at, self.at(b_start, b.mul(s, i64(self.tile.columns))), sums)

        return b.for_loop_carrying(0, p.run, sums, step)

    def step(self, a_at: Value, b_at: Value, sums: list[Value]) -> list[Value]:
        """Adds one term to every sum."""
        b, tile = self.b, self.tile
        columns = [self.vector_at(self.at(b_at, i64(v * tile.lanes))) for v in range(tile.vectors)]
        rows = [b.load(tile.type, self.at(a_at, b.mul(self.p.a_row, i64(i)))) for i in range(tile.rows)]
        spread = [b.splat(row, tile.lanes) for row in rows]
        pairs = zip(self.places, sums, strict=True)
        return [multiply_add(b, spread[i], columns[v], value) for (i, v), value in pairs]


_WIDE = 8
"""Lines from which on it pays to copy contiguous ones by vectors."""


def pack_routine(routines: Routines, source: DType, dtype: DType, width: int) -> Function:
    """`pack(start, to, lines, steps, line_stride, step_stride, negate)`.

    Writes panels of `width` lines as elements of `dtype`, to[panel][step][line in panel]; missing lines of
    the last panel are 0. With `negate` the values change sign. Of width 1, this is a row-major copy.
    """
    params = "ptr start, ptr to, i64 lines, i64 steps, i64 line_stride, i64 step_stride, i1 negate"
    name = f"hloc.pack.{source.name}.{dtype.name}.{width}"
    return routines.get(name, params, lambda b, p: _PackWriter(b, p, source, dtype, width).write())


class _PackWriter:
    """Writes the body of a pack routine with parameters `p`."""

    def __init__(self, b: Builder, p: SimpleNamespace, source: DType, dtype: DType, width: int):
        self.b, self.p, self.source, self.dtype, self.width = b, p, source, dtype, width
        self.type = scalar.memory_type(dtype)
        self.vector = vector_type(self.type, width)

    def write(self) -> None:
        b, p = self.b, self.p
        with b.for_loop(i64(0), p.lines, self.width, unroll=False) as panel:
            fits = b.icmp_signed("<=", b.add(panel, i64(self.width)), p.lines)
            strided = fits
            if self.width >= _WIDE:
                dense = b.and_(fits, b.icmp_signed("==", p.line_stride, i64(1)))
                strided = b.xor(fits, dense)
                with b.if_then(dense):
                    self.whole(panel, i64(1))
            with b.if_then(strided):
                self.whole(panel, p.line_stride)
            with b.if_then(b.not_(fits)):
                self.partial(panel)

    def whole(self, panel: Value, stride: Value) -> None:
        """A panel with all its lines."""
        b = self.b
        with b.for_loop(0, self.p.steps, unroll=False) as step:
            vector = poison(self.vector)
            for line in range(self.width):
                vector = b.insertelement(vector, self.read(b.add(panel, i64(line)), step, stride), line)
            b.store(self.signed(vector), self.place(panel, step), align=self.dtype.itemsize)

    def partial(self, panel: Value) -> None:
        """The last panel, with some of its lines."""
        b, p = self.b, self.p
        with b.for_loop(0, p.steps, unroll=False) as step:
            target = self.place(panel, step)
            b.store(zero(self.vector), target, align=self.dtype.itemsize)
            with b.for_loop(panel, p.lines, vectorize=False, unroll=False) as line:
                value = self.signed(self.read(line, step, p.line_stride))
                b.store(value, b.gep(self.type, target, b.sub(line, panel)))

    def read(self, line: Value, step: Value, stride: Value) -> Value:
        b = self.b
        index = b.add(b.mul(line, stride), b.mul(step, self.p.step_stride))
        address = b.gep(scalar.memory_type(self.source), self.p.start, index)
        return load_as(b, self.source, self.dtype, address)

    def signed(self, value: Value) -> Value:
        return self.b.select(self.p.negate, negated(self.b, value), value)

    def place(self, panel: Value, step: Value) -> Value:
        offset = self.b.add(self.b.mul(panel, self.p.steps), self.b.mul(step, i64(self.width)))
        return self.b.gep(self.type, self.p.to, offset)


def unpack_routine(routines: Routines, dtype: DType, target: DType) -> Function:
    """`unpack(sums, to, rows, columns, sums_row, to_row, to_column, accumulate)`: sums become results."""

    def write(b: Builder, p: SimpleNamespace) -> None:
        def copy(accumulate: bool) -> None:
            with b.for_loop(0, p.rows) as row, b.for_loop(0, p.columns, unroll=False) as column:
                source = b.add(b.mul(row, p.sums_row), column)
                value = b.load(scalar.memory_type(dtype), b.gep(scalar.memory_type(dtype), p.sums, source))
                index = b.add(b.mul(row, p.to_row), b.mul(column, p.to_column))
                address = b.gep(scalar.memory_type(target), p.to, index)
                value = added(b, load_as(b, target, dtype, address), value) if accumulate else value
                store_as(b, value, dtype, target, address)

        b.if_else(p.accumulate, lambda: copy(True), lambda: copy(False))

    params = "ptr sums, ptr to, i64 rows, i64 columns, i64 sums_row, i64 to_row, i64 to_column, i1 accumulate"
    return routines.get(f"hloc.unpack.{dtype.name}.{target.name}", params, write)


class InlineProduct:
    """A small product of known sizes, written where it is needed: c = a b, of one type, the summing type.

    Columns of b and of c lie side by side; `strides` are a's row and step, b's step and c's row.
    """

    def __init__(self, b: Builder, dtype: DType, lanes: int, strides: tuple[int, int, int, int]):
        self.b, self.type, self.align = b, scalar.memory_type(dtype), dtype.itemsize
        self.lanes = lanes
        self.a_row, self.a_step, self.b_step, self.c_row = map(i64, strides)

    def write(self, sizes: tuple[int, int, int], lhs: Value, rhs: Value, out: Value) -> None:
        """Four rows at a time."""
        m, n, k = sizes
        widths = [self.lanes] * (n // self.lanes) + [0] * (n % self.lanes)
        whole = m // 4 * 4
        for first, end, rows in ((0, whole, 4), (whole, m, 1)):
            if first < end:
                with self.b.for_loop(i64(first), i64(end), rows, unroll=False) as row:
                    self.rows(row, rows, widths, k, (lhs, rhs, out))

    def rows(self, row: Value, count: int, widths: list[int], k: int, at: tuple[Value, Value, Value]) -> None:
        """Some rows of the result, in vectors and then single sums of the given widths."""
        b, (lhs, rhs, out) = self.b, at
        types = [vector_type(self.type, width) for width in widths]
        columns = [i64(sum(max(w, 1) for w in widths[:i])) for i in range(len(widths))]
        rows = [b.add(row, i64(i)) for i in range(count)]

        def address(start: Value, offset: Value) -> Value:
            return b.gep(self.type, start, offset)

        def step(s: Value, sums: list[Value]) -> list[Value]:
            start = address(rhs, b.mul(s, self.b_step))
            ys = [b.load(t, address(start, c), align=self.align) for t, c in zip(types, columns, strict=True)]
            places = [b.add(b.mul(r, self.a_row), b.mul(s, self.a_step)) for r in rows]
            xs = [b.load(self.type, address(lhs, place)) for place in places]
            pairs = [(b.splat(x, width), y) for x in xs for y, width in zip(ys, widths, strict=True)]
            return [multiply_add(b, x, y, total) for (x, y), total in zip(pairs, sums, strict=True)]

        sums = b.for_loop_carrying(0, k, [zero(t) for _ in rows for t in types], step)
        for position, total in enumerate(sums):
            i, j = divmod(position, len(widths))
            b.store(total, address(out, b.add(b.mul(rows[i], self.c_row), columns[j])), align=self.align)
