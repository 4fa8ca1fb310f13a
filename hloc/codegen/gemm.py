"""Matrix products of any size and strides, as routines.

The scheme is that of Goto and van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008): blocks
of both operands are packed into scratch in the order in which a small tile of the result, held in vector
registers, reads them. The terms of each sum are added in the order of the contracted index.

Sizes and strides are i64, strides count elements. Operands of any real type are converted to the type in
which sums are made as they are packed.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

from hloc.codegen import scalar
from hloc.codegen.llvm import Builder, Function, Value, integer, is_float, poison, vector_type, zero
from hloc.codegen.routines import Routines, blocks, i64, least
from hloc.ir.dtypes import DType


@dataclass(frozen=True)
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


def multiply_add(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """x * y + z; of floats, rounded once where the target has an instruction for it."""
    if is_float(x.type):
        return b.intrinsic("llvm.fmuladd", x.type, [x, y, z])
    return b.add(b.mul(x, y), z)


def multiply(b: Builder, x: Value, y: Value) -> Value:
    """x * y, of integers or floats."""
    return b.fmul(x, y) if is_float(x.type) else b.mul(x, y)


def negated(b: Builder, value: Value) -> Value:
    """-value, of integers or floats."""
    return b.fneg(value) if is_float(value.type) else b.neg(value)


def added(b: Builder, x: Value, y: Value) -> Value:
    """x + y, of integers or floats."""
    return b.fadd(x, y) if is_float(x.type) else b.add(x, y)


def load_as(b: Builder, source: DType, wanted: DType, address: Value) -> Value:
    """The real element at an address, converted to the type that sums are made in."""
    return scalar.convert(b, scalar.load(b, source, address), source, wanted)


def store_as(b: Builder, value: Value, source: DType, wanted: DType, address: Value) -> None:
    """Puts a sum at an address, as an element of the result's type."""
    scalar.store(b, wanted, scalar.convert(b, value, source, wanted), address)


def tile_routine(routines: Routines, tile: Tile) -> Function:
    """`tile(a, a_row, a_step, b, run, offsets, count, c, c_row, accumulate)`.

    Sums a[offsets[o] + i * a_row + s * a_step] * b[(o * run + s) * columns + j] over o < count and s < run
    into c[i * c_row + j], or adds that to what is there.
    """
    type, vector, align = tile.type, vector_type(tile.type, tile.lanes), tile.dtype.itemsize
    places = [(i, v) for i in range(tile.rows) for v in range(tile.vectors)]

    def step(b: Builder, p: SimpleNamespace, a_at: Value, b_at: Value, sums: list[Value]) -> list[Value]:
        columns = [
            b.load(vector, b.gep(type, b_at, i64(v * tile.lanes)), align=align) for v in range(tile.vectors)
        ]
        rows = [b.load(type, b.gep(type, a_at, b.mul(p.a_row, i64(i)))) for i in range(tile.rows)]
        spread = [b.splat(row, tile.lanes) for row in rows]
        return [
            multiply_add(b, spread[i], columns[v], value) for (i, v), value in zip(places, sums, strict=True)
        ]

    def part(b: Builder, p: SimpleNamespace, o: Value, sums: list[Value]) -> list[Value]:
        a_start = b.gep(type, p.a, b.load("i64", b.gep("i64", p.offsets, o)))
        b_start = b.gep(type, p.b, b.mul(b.mul(o, p.run), i64(tile.columns)))
        return b.for_loop_carrying(
            0,
            p.run,
            sums,
            lambda s, sums: step(
                b,
                p,
                b.gep(type, a_start, b.mul(s, p.a_step)),
                b.gep(type, b_start, b.mul(s, i64(tile.columns))),
                sums,
            ),
        )

    def write(b: Builder, p: SimpleNamespace) -> None:
        targets = [b.gep(type, p.c, b.add(b.mul(p.c_row, i64(i)), i64(v * tile.lanes))) for i, v in places]
        start = b.if_else(
            p.accumulate,
            lambda: [b.load(vector, place, align=align) for place in targets],
            lambda: [zero(vector)] * len(places),
        )
        sums = b.for_loop_carrying(0, p.count, start, lambda o, sums: part(b, p, o, sums))
        for place, value in zip(targets, sums, strict=True):
            b.store(value, place, align=align)

    params = [
        ("ptr", "a"),
        ("i64", "a_row"),
        ("i64", "a_step"),
        ("ptr", "b"),
        ("i64", "run"),
        ("ptr", "offsets"),
        ("i64", "count"),
        ("ptr", "c"),
        ("i64", "c_row"),
        ("i1", "accumulate"),
    ]
    return routines.get(f"hloc.tile.{tile.name}", params, write)


def pack_routine(routines: Routines, source: DType, dtype: DType, width: int) -> Function:
    """`pack(start, to, lines, steps, line_stride, step_stride, negate)`.

    Writes panels of `width` lines as elements of `dtype`, to[panel][step][line in panel]; missing lines of
    the last panel are 0. With `negate` the values change sign. Of width 1, this is a row-major copy.
    """
    type = scalar.memory_type(dtype)

    def read(b: Builder, p: SimpleNamespace, line: Value, step: Value, stride: Value) -> Value:
        index = b.add(b.mul(line, stride), b.mul(step, p.step_stride))
        return load_as(b, source, dtype, b.gep(scalar.memory_type(source), p.start, index))

    def signed(b: Builder, p: SimpleNamespace, value: Value) -> Value:
        return b.select(p.negate, negated(b, value), value)

    def place(b: Builder, p: SimpleNamespace, panel: Value, step: Value) -> Value:
        return b.gep(type, p.to, b.add(b.mul(panel, p.steps), b.mul(step, i64(width))))

    def whole(b: Builder, p: SimpleNamespace, panel: Value, stride: Value) -> None:
        with b.for_loop(0, p.steps, unroll=False) as step:
            vector = poison(vector_type(type, width))
            for line in range(width):
                vector = b.insertelement(vector, read(b, p, b.add(panel, i64(line)), step, stride), line)
            b.store(signed(b, p, vector), place(b, p, panel, step), align=dtype.itemsize)

    def partial(b: Builder, p: SimpleNamespace, panel: Value) -> None:
        with b.for_loop(0, p.steps, unroll=False) as step:
            target = place(b, p, panel, step)
            b.store(zero(vector_type(type, width)), target, align=dtype.itemsize)
            with b.for_loop(panel, p.lines, vectorize=False, unroll=False) as line:
                b.store(
                    signed(b, p, read(b, p, line, step, p.line_stride)),
                    b.gep(type, target, b.sub(line, panel)),
                )

    def write(b: Builder, p: SimpleNamespace) -> None:
        with b.for_loop(i64(0), p.lines, width, unroll=False) as panel:
            fits = b.icmp_signed("<=", b.add(panel, i64(width)), p.lines)
            dense = b.and_(fits, b.icmp_signed("==", p.line_stride, i64(1)))
            with b.if_then(dense):
                whole(b, p, panel, i64(1))
            with b.if_then(b.xor(fits, dense)):
                whole(b, p, panel, p.line_stride)
            with b.if_then(b.not_(fits)):
                partial(b, p, panel)

    params = [
        ("ptr", "start"),
        ("ptr", "to"),
        ("i64", "lines"),
        ("i64", "steps"),
        ("i64", "line_stride"),
        ("i64", "step_stride"),
        ("i1", "negate"),
    ]
    return routines.get(f"hloc.pack.{source.name}.{dtype.name}.{width}", params, write)


def unpack_routine(routines: Routines, dtype: DType, target: DType) -> Function:
    """`unpack(sums, to, rows, columns, sums_row, to_row, to_column, accumulate)`: sums of `dtype` as results.
    """

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

    params = [
        ("ptr", "sums"),
        ("ptr", "to"),
        ("i64", "rows"),
        ("i64", "columns"),
        ("i64", "sums_row"),
        ("i64", "to_row"),
        ("i64", "to_column"),
        ("i1", "accumulate"),
    ]
    return routines.get(f"hloc.unpack.{dtype.name}.{target.name}", params, write)


def gemm_routine(routines: Routines, lhs: DType, rhs: DType, out: DType, tile: Tile) -> Function:
    """`gemm(...)`: c = a b or -a b, or that added to c, over packed blocks of the given sizes.

    Blocks are whole tiles; where the result is not of the summing type, k_block must be all of k. `scratch`
    holds a block of b and one of a; see `GemmPlan`.
    """
    params = [
        ("ptr", "a"),
        ("ptr", "b"),
        ("ptr", "c"),
        ("i64", "m"),
        ("i64", "n"),
        ("i64", "k"),
        ("i64", "a_row"),
        ("i64", "a_step"),
        ("i64", "b_column"),
        ("i64", "b_step"),
        ("i64", "c_row"),
        ("i64", "c_column"),
        ("i64", "m_block"),
        ("i64", "n_block"),
        ("i64", "k_block"),
        ("ptr", "scratch"),
        ("i1", "negate"),
        ("i1", "accumulate"),
    ]
    name = f"hloc.gemm.{lhs.name}.{rhs.name}.{out.name}.{tile.name}"
    return routines.get(name, params, lambda b, p: _write_gemm(b, _Pieces(routines, lhs, rhs, out, tile), p))


class _Pieces:
    """The routines that a gemm calls."""

    def __init__(self, routines: Routines, lhs: DType, rhs: DType, out: DType, tile: Tile):
        self.tile, self.out = tile, out
        self.compute = tile_routine(routines, tile)
        self.pack_a = pack_routine(routines, lhs, tile.dtype, tile.rows)
        self.pack_b = pack_routine(routines, rhs, tile.dtype, tile.columns)
        self.unpack = unpack_routine(routines, tile.dtype, out)
        self.lhs_type, self.rhs_type, self.out_type = (scalar.memory_type(t) for t in (lhs, rhs, out))
        self.no_offset = routines.module.constant_bytes(bytes(8), align=8)


def _write_gemm(b: Builder, pieces: _Pieces, p: SimpleNamespace) -> None:
    tile = pieces.tile
    sums = b.alloca(vector_type(tile.type, tile.lanes), tile.rows * tile.vectors, align=64)
    b_packed = p.scratch
    a_packed = b.gep("i8", p.scratch, b.mul(b.mul(p.n_block, p.k_block), i64(tile.dtype.itemsize)))
    no = integer("i1", 0)
    with blocks(b, p.n, p.n_block) as (column, columns), blocks(b, p.k, p.k_block) as (step, steps):
        start = b.add(b.mul(column, p.b_column), b.mul(step, p.b_step))
        b.call(
            pieces.pack_b,
            [b.gep(pieces.rhs_type, p.b, start), b_packed, columns, steps, p.b_column, p.b_step, no],
        )
        adds = b.or_(p.accumulate, b.icmp_signed(">", step, i64(0)))
        with blocks(b, p.m, p.m_block) as (row, rows):
            start = b.add(b.mul(row, p.a_row), b.mul(step, p.a_step))
            b.call(
                pieces.pack_a,
                [b.gep(pieces.lhs_type, p.a, start), a_packed, rows, steps, p.a_row, p.a_step, p.negate],
            )
            with b.for_loop(i64(0), columns, tile.columns) as j, b.for_loop(i64(0), rows, tile.rows) as i:
                _write_tile(
                    b,
                    pieces,
                    p,
                    _TilePlace(
                        b.gep(tile.type, a_packed, b.mul(i, steps)),
                        b.gep(tile.type, b_packed, b.mul(j, steps)),
                        steps,
                        b.add(row, i),
                        b.add(column, j),
                        least(b, i64(tile.rows), b.sub(rows, i)),
                        least(b, i64(tile.columns), b.sub(columns, j)),
                        sums,
                        adds,
                    ),
                )


class _TilePlace(NamedTuple):
    """Where one tile reads and writes: panels, first row and column of the result, and how many are real."""

    a_panel: Value
    b_panel: Value
    steps: Value
    row: Value
    column: Value
    rows: Value
    columns: Value
    sums: Value
    accumulate: Value


def _write_tile(b: Builder, pieces: _Pieces, p: SimpleNamespace, at: _TilePlace) -> None:
    """One tile: straight into the result where it is whole and its rows contiguous, else by way of `sums`."""
    tile = pieces.tile
    address = b.gep(pieces.out_type, p.c, b.add(b.mul(at.row, p.c_row), b.mul(at.column, p.c_column)))

    def compute(target: Value, stride: Value, accumulate: Value) -> None:
        b.call(
            pieces.compute,
            [
                at.a_panel,
                i64(1),
                i64(tile.rows),
                at.b_panel,
                at.steps,
                pieces.no_offset,
                i64(1),
                target,
                stride,
                accumulate,
            ],
        )

    def by_way_of_sums() -> None:
        compute(at.sums, i64(tile.columns), integer("i1", 0))
        b.call(
            pieces.unpack,
            [at.sums, address, at.rows, at.columns, i64(tile.columns), p.c_row, p.c_column, at.accumulate],
        )

    if pieces.out is not tile.dtype:
        return by_way_of_sums()
    whole = b.and_(
        b.icmp_signed("==", at.rows, i64(tile.rows)), b.icmp_signed("==", at.columns, i64(tile.columns))
    )
    direct = b.and_(whole, b.icmp_signed("==", p.c_column, i64(1)))
    b.if_else(direct, lambda: compute(address, p.c_row, at.accumulate), by_way_of_sums)


@dataclass(frozen=True)
class GemmPlan:
    """The tile and the block sizes for a product of m x k by k x n."""

    tile: Tile
    m_block: int
    n_block: int
    k_block: int

    @staticmethod
    def of(m: int, n: int, k: int, dtype: DType, vector_bytes: int, split: bool) -> GemmPlan:
        """`dtype` is the summing type; `split` says whether the result is of that type, so that k may be cut.
        """
        lanes = max(vector_bytes // dtype.itemsize, 2)
        rows = min((6, 5, 4), key=lambda rows: -(-m // rows) * (rows + 1)) if m > 4 else max(m, 1)
        tile = Tile(dtype, rows, 2 if n > lanes else 1, lanes)
        k_block = min(k, 256) if split else k
        m_block = min(-(-m // rows), 16) * rows
        room = max((1 << 21) // (k_block * dtype.itemsize), 1)
        n_block = min(-(-n // tile.columns), max(room // tile.columns, 1)) * tile.columns
        return GemmPlan(tile, m_block, n_block, k_block)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the packed blocks of both operands."""
        return (self.m_block + self.n_block) * self.k_block * self.tile.dtype.itemsize
