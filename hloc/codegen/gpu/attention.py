"""Attention on devices: a block for some queries, which goes through the keys tile by tile.

The scores of a tile become powers relative to the greatest score so far; sums of powers, and of their products with
the values, are made relative to a greater one when it comes (see `hloc.analysis.softmax`). So no scores are in memory,
and any number of keys will do. What else is done with scores before the softmax (scale, mask, bias) is computed
element by element. Here threads do all arithmetic; `attention_units.py` has the same by matrix units.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from math import prod

from hloc.analysis.softmax import Softmax, softmax_of
from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.attention_plan import AttentionPlan
from hloc.codegen.attention_rows import Rows
from hloc.codegen.gpu.blocks import digits
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.gemm_parts import Operand, i32
from hloc.codegen.gpu.gemm_tiles import TransposedTile
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value, const
from hloc.codegen.products import multiply_add
from hloc.codegen.routines import i64
from hloc.lazy import lazy

attention_units = lazy("hloc.codegen.gpu.attention_units")

QUERIES = 64
"""Rows of a block."""

_THREADS = 256
_SIDE = 16
"""Threads along each side of a tile."""

_ROWS = QUERIES // _SIDE
"""Rows of a tile that a thread has, neighbours."""

_PITCH = QUERIES + 8
"""Elements from one key's scores to the next one's: what 8 rows and 4 keys lie at is in different banks."""

_WIDEST = 128
"""Columns of the values that a block takes, at most."""


class DeviceAttention:
    """An attention as devices compute it: `softmax` is what lies between the products."""

    scratch_bytes = 0

    def __init__(self, plan: AttentionPlan, softmax: Softmax):
        self.plan, self.softmax = plan, softmax
        self.dtype = plan.first

    @property
    def keys(self) -> int:
        """Columns of scores of a tile."""
        return 64 if self.dtype.itemsize <= 4 else 32

    @property
    def depth(self) -> int:
        """Terms of scores that are summed at a time, and keys of which the values are in shared memory at a time."""
        return 16

    @property
    def width(self) -> int:
        """Columns of the values of a block."""
        return next((width for width in (16, 32, 64) if width >= self.plan.width), _WIDEST)

    @property
    def batches(self) -> int:
        return prod(self.plan.sizes[: self.plan.batches])


def device_attention(plan: AttentionPlan) -> DeviceAttention | None:
    """How devices compute an attention; None if they cannot in one kernel."""
    softmax = softmax_of(plan.found)
    if softmax is None or plan.first is not plan.second or plan.first.is_complex:
        return None
    return DeviceAttention(plan, softmax)


def write_attention(g: GpuStep, way: DeviceAttention) -> None:
    """The launch of a kernel whose result is the second product, or what its epilogue makes of it."""
    if attention_units.write_units(g, way):
        return
    writer = _Simt(way)
    with g.launch(prod(writer.tiles) * way.batches, _THREADS, writer.shared_bytes) as k:
        writer.write(k)


def block_place(k: GpuContext, way: DeviceAttention, tiles: int, parts: int) -> tuple[Value, Value, Index]:
    """The tile of rows, the part of the values' columns, and the batch of a block of a grid of one dimension."""
    sizes = [*way.plan.sizes[: way.plan.batches], parts, tiles]
    *batch, part, tile = digits(k.b, k.block_index(), sizes)
    return tile, part, tuple(batch)


class _Simt:
    """The kernel of a block of 16 x 16 threads: each has 4 rows, of the scores and of the results.

    Shared memory: powers, keys first; two buffers for tiles of queries and keys, or of values; then for each row what
    its sums are to be multiplied by, and in the end its greatest score and the sum of its powers.
    """

    def __init__(self, way: DeviceAttention):
        self.way, self.plan, self.dtype = way, way.plan, way.dtype
        self.size = way.dtype.itemsize
        self.tiles = -(-way.plan.m // QUERIES), -(-way.plan.width // way.width)
        self.per_key = way.keys // _SIDE
        self.per_width = way.width // _SIDE
        room = _PITCH * way.keys
        pads = 2 * (16 // self.size)
        tiles = 2 * way.depth * max(QUERIES + way.keys + pads, way.width + pads)
        self.at_tiles, self.at_rows = room, room + tiles
        self.shared_bytes = (room + tiles + 2 * QUERIES) * self.size

    def write(self, k: GpuContext) -> None:
        b, plan, way = k.b, self.plan, self.way
        self.k, self.b = k, b
        self.type = scalar.memory_type(self.dtype)
        tile, part, batch = block_place(k, way, *self.tiles)
        self.row, self.column = b.mul(tile, i64(QUERIES)), b.mul(part, i64(way.width))
        self.rows = Rows(k, way, batch)
        thread = k.thread_index()
        self.x, self.y = b.urem(thread, i64(_SIDE)), b.udiv(thread, i64(_SIDE))
        lane, warp = b.zext(k.gpu.lane(), "i64"), b.zext(k.gpu.warp(), "i64")
        self.own_row = b.add(b.mul(warp, i64(8)), b.and_(lane, i64(7)))
        self.own_part = b.lshr(lane, i64(3))
        operands = [Operand(k, side, self.rows.batch, self.dtype) for side in (plan.queries, plan.keys, plan.values)]
        self.queries, self.keys, self.values = operands
        low, zero = const(self.type, float("-inf")), const(self.type, 0)
        zeros = [zero] * (_ROWS * self.per_width)
        found = b.for_loop_carrying(
            i64(0), i64(-(-plan.n // way.keys)), [low, zero, *zeros], self._tile, unroll=False
        )
        self._finish(found[0], found[1], found[2:])

    def _address(self, offset: int, place: Value) -> Value:
        return self.b.gep(self.type, self.b.gep(self.type, self.k.gpu.shared(), i64(offset)), place)

    def _tile(self, number: Value, carried: list[Value]) -> list[Value]:
        """One tile of keys: the greatest score, the sum of powers, and the sums of products after it."""
        most, total, *sums = carried
        first = self.b.mul(number, i64(self.way.keys))
        self._put_scores(self._scores(first))
        self.k.gpu.barrier()
        most, total = self._powers(first, most, total)
        self.k.gpu.barrier()
        return [most, total, *self._add(first, sums)]

    def _scores(self, first: Value) -> list[Value]:
        """The thread's scores: its rows by its keys."""
        b, way, plan = self.b, self.way, self.plan
        queries = TransposedTile(self.k, self.queries, QUERIES, way.depth, self.row)
        keys = TransposedTile(self.k, self.keys, way.keys, way.depth, first)
        rows = [b.add(b.mul(self.y, i64(_ROWS)), i64(n)) for n in range(_ROWS)]
        columns = [b.add(b.mul(self.x, i64(self.per_key)), i64(n)) for n in range(self.per_key)]

        def multiply(bases: list[Value], turn: Value, sums: list[Value]) -> list[Value]:
            for s in range(way.depth):
                xs = [queries.load(bases[0], s, row) for row in rows]
                ys = [keys.load(bases[1], s, column) for column in columns]
                sums = self._products(xs, ys, sums)
            return sums

        zeros = [const(self.type, 0)] * (_ROWS * self.per_key)
        turns = -(-plan.depth // way.depth)
        return self._stream([queries, keys], i64(0), plan.depth, turns, multiply, zeros)

    def _products(self, xs: list[Value], ys: list[Value], sums: list[Value]) -> list[Value]:
        pairs = [(x, y) for x in xs for y in ys]
        return [multiply_add(self.b, x, y, total) for (x, y), total in zip(pairs, sums, strict=True)]

    def _stream(
        self,
        tiles: list[TransposedTile],
        first: Value,
        end: int,
        turns: int,
        multiply: Callable[[list[Value], Value, list[Value]], list[Value]],
        sums: list[Value],
    ) -> list[Value]:
        """Sums after `turns` turns over tiles of `depth` steps from `first` on, zero from step `end` on.

        While tiles are multiplied, by multiply(their addresses, turn, sums), the next ones come into registers.
        """
        b, way = self.b, self.way

        def read(turn: Value) -> list[list[Register]]:
            start = b.add(first, b.mul(turn, i64(way.depth)))
            return [tile.read(start, i64(end), True, True) for tile in tiles]

        def bases(buffer: Value) -> list[Value]:
            place, found = b.mul(buffer, i64(sum(tile.elements for tile in tiles))), []
            for tile in tiles:
                found.append(self._address(self.at_tiles, place))
                place = b.add(place, i64(tile.elements))
            return found

        def fetch(values: list[list[Register]], buffer: Value) -> None:
            for tile, given, base in zip(tiles, values, bases(buffer), strict=True):
                tile.write(given, base)
            self.k.gpu.barrier()

        def step(turn: Value, carried: list[Value]) -> list[Value]:
            following = b.add(turn, i64(1))
            values = read(following)
            carried = multiply(bases(b.and_(turn, i64(1))), turn, carried)
            fetch(values, b.and_(following, i64(1)))
            return carried

        fetch(read(i64(0)), i64(0))
        return b.for_loop_carrying(i64(0), i64(turns), sums, step, unroll=False)

    def _put_scores(self, scores: list[Value]) -> None:
        b = self.b
        for column in range(self.per_key):
            place = b.mul(b.add(b.mul(self.x, i64(self.per_key)), i64(column)), i64(_PITCH))
            start = self._address(0, b.add(place, b.mul(self.y, i64(_ROWS))))
            for row in range(_ROWS):
                b.store(scores[row * self.per_key + column], b.gep(self.type, start, i64(row)))

    def _powers(self, first: Value, most: Value, total: Value) -> tuple[Value, Value]:
        """Makes powers of the scores, by four threads a row; what a row's sums are multiplied by goes aside."""
        b, k, way, plan = self.b, self.k, self.way, self.plan
        row = b.add(self.row, self.own_row)
        row = b.select(b.icmp_unsigned("<", row, i64(plan.m)), row, i64(plan.m - 1))
        left = b.sub(i64(plan.n), first)
        keys = b.select(b.icmp_unsigned("<", left, i64(way.keys)), left, i64(way.keys))

        def place(key: Value) -> Value:
            return self._address(0, b.add(b.mul(key, i64(_PITCH)), self.own_row))

        def given(turn: Value, carried: list[Value]) -> list[Value]:
            address = place(turn)
            value = self.rows.given(row, b.add(first, turn), b.load(self.type, address))
            b.store(value, address)
            return [self.rows.greater(carried[0], value)]

        low = const(self.type, float("-inf"))
        (found,) = b.for_loop_carrying(self.own_part, keys, [low], given, 4, unroll=False)
        for step in (8, 16):
            found = self.rows.greater(found, k.gpu.shuffle("xor", found, i32(step)))
        most_now = self.rows.greater(most, found)
        relative = self.rows.relative(most_now)

        def powers(turn: Value, carried: list[Value]) -> list[Value]:
            address = place(turn)
            power = self.rows.power(b.load(self.type, address), relative)
            b.store(power, address)
            return [b.fadd(carried[0], power)]

        (added,) = b.for_loop_carrying(self.own_part, keys, [const(self.type, 0)], powers, 4, unroll=False)
        with b.for_loop(b.add(keys, self.own_part), i64(way.keys), 4, unroll=False) as turn:
            b.store(const(self.type, 0), place(turn))
        factor = self.rows.power(most, relative)
        with self._one_a_row():
            b.store(factor, self._address(self.at_rows, self.own_row))
        return most_now, b.fadd(b.fmul(total, factor), added)

    def _one_a_row(self) -> AbstractContextManager[None]:
        """What is inside is done by one of the threads of each row."""
        return self.b.if_then(self.b.icmp_signed("==", self.own_part, i64(0)))

    def _lines(self) -> list[Value]:
        """The columns of a tile of values that the thread has: neighbours, by fours."""
        b, together = self.b, min(4, self.per_width)
        return [
            b.add(b.mul(self.x, i64(together)), i64(n // together * _SIDE * together + n % together))
            for n in range(self.per_width)
        ]

    def _own_rows(self, offset: int) -> list[Value]:
        start = self._address(self.at_rows + offset, self.b.mul(self.y, i64(_ROWS)))
        return [self.b.load(self.type, self.b.gep(self.type, start, i64(row))) for row in range(_ROWS)]

    def _add(self, first: Value, sums: list[Value]) -> list[Value]:
        """Adds the products of a tile's powers with the values."""
        b, way, plan = self.b, self.way, self.plan
        factors = self._own_rows(0)
        sums = [b.fmul(value, factors[n // self.per_width]) for n, value in enumerate(sums)]
        values, lines = TransposedTile(self.k, self.values, way.width, way.depth, self.column), self._lines()

        def multiply(bases: list[Value], turn: Value, sums: list[Value]) -> list[Value]:
            for s in range(way.depth):
                key = b.mul(b.add(b.mul(turn, i64(way.depth)), i64(s)), i64(_PITCH))
                place = self._address(0, b.add(key, b.mul(self.y, i64(_ROWS))))
                xs = [b.load(self.type, b.gep(self.type, place, i64(row))) for row in range(_ROWS)]
                sums = self._products(xs, [values.load(bases[0], s, line) for line in lines], sums)
            return sums

        return self._stream([values], first, plan.n, way.keys // way.depth, multiply, sums)

    def _finish(self, most: Value, total: Value, sums: list[Value]) -> None:
        b, k, plan = self.b, self.k, self.plan
        k.gpu.barrier()
        # The four threads of a row have the same greatest score, and parts of the sum of its powers.
        for step in (8, 16):
            total = b.fadd(total, k.gpu.shuffle("xor", total, i32(step)))
        with self._one_a_row():
            b.store(most, self._address(self.at_rows, self.own_row))
            b.store(total, self._address(self.at_rows + QUERIES, self.own_row))
        k.gpu.barrier()
        mosts, totals = self._own_rows(0), self._own_rows(QUERIES)
        for number in range(_ROWS):
            row = b.add(self.row, b.add(b.mul(self.y, i64(_ROWS)), i64(number)))
            with b.if_then(b.icmp_unsigned("<", row, i64(plan.m))):
                own = sums[number * self.per_width : (number + 1) * self.per_width]
                self._store(row, self.rows.finished(row, mosts[number], totals[number], own))

    def _store(self, row: Value, results: list[Value]) -> None:
        b, plan, dtype = self.b, self.plan, self.plan.found.product.shape.dtype
        for line, value in zip(self._lines(), results, strict=True):
            column = b.add(self.column, line)
            with b.if_then(b.icmp_unsigned("<", column, i64(plan.width))):
                index = plan.product_index(b, self.rows.batch, row, column)
                self.k.store(index, [scalar.convert(b, value, self.dtype, dtype)])
