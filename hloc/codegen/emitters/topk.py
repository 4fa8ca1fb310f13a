"""topk: the greatest or least elements of each row, in order, and their positions.

An element and its position become one integer: the element's key, an unsigned integer in the order that is asked
for, above the complement of the position. So all of them differ, the greater one comes first, and of equal elements
the one at the lower position. The k greatest so far lie in scratch as a heap (Williams, Algorithm 232, CACM 7(6),
1964) with the least of them on top, at first so many zeros, which are less than any of them. The keys of a row are
made a block at a time, together with the greatest of the block: most blocks of a long row have none that gets in.
Where there are many more blocks than elements asked for, the greatest ones of all blocks are found first: the k-th of
them is a bound, below which no element gets in, so that hardly more than k elements and their blocks are looked at.
At last the heap is emptied from its top into the result, from the end.

The bound is found bit by bit. A small k needs no heap then: each of the entries that are not below the bound has its
place in the result by how many of the others are greater, without a branch that nobody could foresee. Only if there are
more of them than _ROOM, they go through the heap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Builder, Function, Value, bit_width, integer, vector_type
from hloc.codegen.routines import Routines, blocks, i64, least
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape

_BLOCK = 128
"""Keys made at a time."""

_MANY = 2
"""So many blocks for each element asked for are many."""

_SMALL, _ROOM = 64, 128
"""The most elements asked for, and the most entries, that are put in order by their ranks."""

_SIGN = -1 << 63
"""What makes unsigned integers signed ones of the same order."""

_FOUND = _ROOM + 16
"""Words for these entries, and those behind them in a vector; the last one counts them."""


def _entry_bytes(dtype: DType) -> int:
    """Bytes of a key and a position together: 32 bits for either, or 64."""
    return 16 if dtype.bits > 32 else 8


def _heap_bytes(instruction: Instruction) -> int:
    values = instruction.shape.elements[0]
    return -(-values.dims[-1] * _entry_bytes(values.dtype) // 64) * 64


def _scratch(instruction: Instruction) -> int:
    operand = instruction.operands[0].shape
    return _heap_bytes(instruction) + _keys_bytes(operand) + 8 * _FOUND


def _keys_bytes(operand: ArrayShape) -> int:
    """Memory for the keys of a block, and for the greatest of all blocks in whole vectors."""
    return _BLOCK * operand.dtype.itemsize + -(-_blocks(operand.dims[-1]) * operand.dtype.itemsize // 64) * 64


def _blocks(size: int) -> int:
    return -(-size // _BLOCK)


@kernel("topk", element_operands="all", scratch=_scratch, is_loop=True)
def topk(k: KernelContext, instruction: Instruction) -> None:
    dtype = instruction.operands[0].shape.dtype
    if dtype.is_complex:
        raise k.error(f"topk of {dtype}: complex numbers have no order")
    if instruction.shape.elements[0].count:
        _TopK(k, instruction).write()


class _TopK:
    """Writes one topk: `count` elements of each row of `size`, by entries of type `wide`."""

    def __init__(self, k: KernelContext, instruction: Instruction):
        self.k, self.b = k, k.b
        self.dtype = instruction.operands[0].shape.dtype
        *self.rows, self.size = instruction.operands[0].shape.dims
        self.count = instruction.shape.elements[0].dims[-1]
        self.largest = instruction.get("largest")
        self.half = _entry_bytes(self.dtype) * 4
        self.wide = f"i{2 * self.half}"
        self.key = f"i{max(8, self.dtype.bits)}"
        self.lanes = k.target.vector_bytes // self.dtype.itemsize
        self.heap = k.scratch
        self.keys = self.b.gep("i8", k.scratch, i64(_heap_bytes(instruction)))
        self.tops = self.b.gep(self.key, self.keys, i64(_BLOCK))
        self.found = self.b.gep("i8", self.keys, i64(_keys_bytes(instruction.operands[0].shape)))
        self.found_count = self.b.gep("i64", self.found, i64(_FOUND - 1))
        self.sink = _sink_routine(Routines(self.b.module, k.target), self.wide)

    def write(self) -> None:
        """Selects from every row."""
        self.k.loop_nest(self.rows, self._row)

    def _row(self, row: Index) -> None:
        b = self.b
        if _blocks(self.size) >= _MANY * self.count:
            self._make_tops(row)
            self._select_by_bound(row, self._bound())
            return
        self._clear()
        with blocks(b, i64(self.size), i64(_BLOCK)) as (start, size):
            greatest = self._make_keys(row, start, size)
            with b.if_then(self._gets_in(self._entry(greatest, start))):
                self._select(start, size)
        self._empty(row)

    def _clear(self) -> None:
        self.b.memset(self.heap, integer("i8", 0), i64(self.count * 2 * self.half // 8))

    def _select_by_bound(self, row: Index, bound: Value) -> None:
        """Selects from what is not below the bound."""
        b = self.b

        def by_heap() -> None:
            self._clear()
            with self._blocks_above(row, bound) as (start, size):
                self._select(start, size, bound)
            self._empty(row)

        if self.count > _SMALL or self.half != 32:
            by_heap()
            return
        b.store(i64(0), self.found_count)
        with self._blocks_above(row, bound) as (start, size):
            count = b.load("i64", self.found_count)
            with b.if_then(b.icmp_signed("<=", count, i64(_ROOM))):
                self._find(start, size, bound)
        count = b.load("i64", self.found_count)
        b.if_else(b.icmp_signed("<=", count, i64(_ROOM)), lambda: self._rank(row, count), by_heap)

    @contextmanager
    def _blocks_above(self, row: Index, bound: Value) -> Iterator[tuple[Value, Value]]:
        """(start, size) of the blocks with a key that is not below the bound; their keys are in scratch."""
        b = self.b
        with blocks(b, i64(self.size), i64(_BLOCK)) as (start, size):
            greatest = b.load(self.key, b.gep(self.key, self.tops, b.udiv(start, i64(_BLOCK))))
            with b.if_then(b.icmp_unsigned(">=", greatest, bound)):
                self._make_keys(row, start, size)
                yield start, size

    # The bound

    def _make_tops(self, row: Index) -> None:
        """The greatest key of each block, and zeros behind them to fill a vector."""
        b = self.b
        with blocks(b, i64(self.size), i64(_BLOCK)) as (start, size):
            size = i64(_BLOCK) if self.size % _BLOCK == 0 else size
            greatest = self._make_keys(row, start, size, stored=False)
            b.store(greatest, b.gep(self.key, self.tops, b.udiv(start, i64(_BLOCK))))
        for number in range(_blocks(self.size), -(-_blocks(self.size) // self.lanes) * self.lanes):
            b.store(integer(self.key, 0), b.gep(self.key, self.tops, i64(number)))

    def _bound(self) -> Value:
        """The k-th greatest of the greatest: the greatest number that k of them are not below, bit by bit."""
        b, lanes = self.b, self.lanes
        bits = integer(self.key, 1 << (bit_width(self.key) - 1))

        def one_bit(carried: list[Value]) -> list[Value]:
            bound, bit = carried
            trial = b.or_(bound, bit)

            def add(i: Value, total: list[Value]) -> list[Value]:
                place = b.gep(self.key, self.tops, i)
                tops = b.load(vector_type(self.key, lanes), place, align=self.dtype.itemsize)
                mask = b.bitcast(b.icmp_unsigned(">=", tops, b.splat(trial, lanes)), f"i{lanes}")
                ones = b.intrinsic("llvm.ctpop", mask.type, [mask], overloads=[mask.type])
                return [b.add(total[0], b.zext(ones, "i64"))]

            count = -(-_blocks(self.size) // lanes) * lanes
            (found,) = b.for_loop_carrying(i64(0), i64(count), [i64(0)], add, lanes, vectorize=False, unroll=4)
            enough = b.icmp_signed(">=", found, i64(self.count))
            return [b.select(enough, trial, bound), b.lshr(bit, integer(self.key, 1))]

        start = [integer(self.key, 0), bits]
        return b.while_loop(start, lambda c: b.icmp_unsigned("!=", c[1], integer(self.key, 0)), one_bit, "bit")[0]

    # By ranks

    def _find(self, start: Value, size: Value, bound: Value) -> None:
        """Notes a block's entries that are not below a bound, as signed integers of the same order."""
        b = self.b

        def note(i: Value) -> None:
            count = b.load("i64", self.found_count)
            entry = self._entry(b.load(self.key, b.gep(self.key, self.keys, i)), b.add(start, i))
            b.store(b.xor(entry, i64(_SIGN)), b.gep("i64", self.found, least(b, count, i64(_ROOM))))
            b.store(b.add(count, i64(1)), self.found_count)

        self._each_able(size, lambda: bound, note)

    def _rank(self, row: Index, count: Value) -> None:
        """Stores the entries that were found, each where as many are before it as are greater."""
        b, lanes = self.b, max(2, self.k.target.vector_bytes // 8)
        vector = vector_type("i64", lanes)
        b.store(b.splat(i64(_SIGN), lanes), b.gep("i64", self.found, count), align=8)

        def add(i: Value, carried: list[Value]) -> list[Value]:
            others = b.load(vector, b.gep("i64", self.found, i), align=8)
            return [b.sub(carried[0], b.sext(b.icmp_signed(">", others, b.splat(entry, lanes)), vector))]

        with b.for_loop(i64(0), count, vectorize=False, unroll=False) as number:
            entry = b.load("i64", b.gep("i64", self.found, number))
            zero = b.splat(i64(0), lanes)
            (totals,) = b.for_loop_carrying(i64(0), count, [zero], add, lanes, vectorize=False, unroll=False)
            rank = b.intrinsic("llvm.vector.reduce.add", "i64", [totals], overloads=[vector])
            with b.if_then(b.icmp_signed("<", rank, i64(self.count))):
                self._store(row, rank, b.xor(entry, i64(_SIGN)))

    # By the heap

    def _make_keys(self, row: Index, start: Value, size: Value, stored: bool = True) -> Value:
        """The greatest of the keys of a block of a row; puts them into scratch if they are to be `stored`."""
        b = self.b

        def step(i: Value, carried: list[Value]) -> list[Value]:
            key = scalar.order_key(b, self.dtype, self.k.input(0)((*row, b.add(start, i))))
            key = key if self.largest else b.not_(key)
            if stored:
                b.store(key, b.gep(self.key, self.keys, i))
            return [b.select(b.icmp_unsigned(">", key, carried[0]), key, carried[0])]

        return b.for_loop_carrying(i64(0), size, [integer(self.key, 0)], step)[0]

    def _select(self, start: Value, size: Value, bound: Value | None = None) -> None:
        """Puts those of a block's entries that are greater than the top of the heap into it, if not below a bound."""
        b = self.b

        def put(i: Value) -> None:
            self._put(self._entry(b.load(self.key, b.gep(self.key, self.keys, i)), b.add(start, i)))

        self._each_able(size, self._least if bound is None else lambda: bound, put)

    def _each_able(self, size: Value, bound: Callable[[], Value], body: Callable[[Value], None]) -> None:
        """Goes through the places of the block's keys that are not below a bound, which may change meanwhile.

        Few of them are: a vector of keys is compared at once. Behind the end of a block are keys of an earlier one.
        """
        b, lanes = self.b, self.lanes

        def take(carried: list[Value]) -> list[Value]:
            (mask,) = carried
            lane = b.intrinsic("llvm.cttz", mask.type, [mask, integer("i1", 1)], overloads=[mask.type])
            i = b.add(first, b.zext(lane, "i64"))
            with b.if_then(b.icmp_signed("<", i, size)):
                body(i)
            return [b.and_(mask, b.sub(mask, integer(mask.type, 1)))]

        with b.for_loop(i64(0), size, lanes, vectorize=False, unroll=False) as first:
            keys = b.load(vector_type(self.key, lanes), b.gep(self.key, self.keys, first), align=self.dtype.itemsize)
            able = b.icmp_unsigned(">=", keys, b.splat(bound(), lanes))
            mask = b.bitcast(able, f"i{lanes}")
            b.while_loop([mask], lambda carried: b.icmp_unsigned("!=", carried[0], integer(mask.type, 0)), take)

    def _least(self) -> Value:
        """A key such that none below it gets in: that of the top, or the next one if the top is of an earlier entry."""
        b, top = self.b, self.b.load(self.wide, self.heap)
        is_entry = b.icmp_unsigned("!=", top, integer(self.wide, 0))
        return b.add(self._key_of(top), b.zext(is_entry, self.key))

    def _put(self, entry: Value) -> None:
        """Puts an entry into the heap if it is greater than its top."""
        with self.b.if_then(self._gets_in(entry)):
            self.b.call(self.sink, [self.heap, i64(self.count), entry])

    def _gets_in(self, entry: Value) -> Value:
        return self.b.icmp_unsigned(">", entry, self.b.load(self.wide, self.heap))

    def _entry(self, key: Value, position: Value) -> Value:
        b = self.b
        low = b.zext(b.not_(b.trunc(position, f"i{self.half}")), self.wide)
        return b.or_(b.shl(b.zext(key, self.wide), integer(self.wide, self.half)), low)

    def _key_of(self, entry: Value) -> Value:
        return self.b.trunc(self.b.lshr(entry, integer(self.wide, self.half)), self.key)

    def _empty(self, row: Index) -> None:
        """Takes the least entry that is left, from the last of the result to the first."""
        b = self.b
        with b.for_loop(i64(self.count - 1), i64(-1), -1, vectorize=False, unroll=False) as i:
            self._store(row, i, b.load(self.wide, self.heap))
            left = b.select(b.icmp_signed(">", i, i64(1)), i, i64(1))
            b.call(self.sink, [self.heap, left, b.load(self.wide, b.gep(self.wide, self.heap, i))])

    def _store(self, row: Index, place: Value, entry: Value) -> None:
        b, key = self.b, self._key_of(entry)
        values, positions = self.k.outputs
        key = key if self.largest else b.not_(key)
        values.store((*row, place), scalar.from_order_key(b, self.dtype, key))
        positions.store((*row, place), b.not_(b.trunc(entry, "i32")))


def _sink_routine(routines: Routines, wide: str) -> Function:
    """`(heap, size, entry)`: an entry takes the place of the top, and goes down to where it belongs."""

    def write(b: Builder, p: SimpleNamespace) -> None:
        last = b.sub(p.size, i64(1))

        def at(place: Value) -> Value:
            return b.gep(wide, p.heap, place)

        def below(place: Value) -> Value:
            """The lesser of two children; `size` or more if there is none."""
            left = b.add(b.shl(place, i64(1)), i64(1))
            right = b.add(left, i64(1))
            first, second = (b.load(wide, at(least(b, child, last))) for child in (left, right))
            return b.select(b.icmp_unsigned("<", second, first), right, left)

        def goes_on(carried: list[Value]) -> Value:
            _, child = carried
            return b.if_else(
                b.icmp_signed("<", child, p.size),
                lambda: b.icmp_unsigned("<", b.load(wide, at(child)), p.entry),
                lambda: integer("i1", 0),
            )

        def go(carried: list[Value]) -> list[Value]:
            place, child = carried
            b.store(b.load(wide, at(child)), at(place))
            return [child, below(child)]

        place, _ = b.while_loop([i64(0), below(i64(0))], goes_on, go)
        b.store(p.entry, at(place))

    return routines.get(f"topk_sink_{wide}", f"ptr noalias heap, i64 size, {wide} entry", write)
