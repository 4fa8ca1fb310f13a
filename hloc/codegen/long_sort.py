"""Sorting a long line by the digits of integer keys, in turns that threads share: stable, whatever the threads.

As in `radix_sort`, the least significant digit comes first; but digits are wide, and there are few of them. A line is
cut into chunks. In one turn each chunk counts its own digits, in the next one all entries of a chunk move to their
places, which are known from the counts of all chunks: those of a lesser digit come first, of equal digits those of
earlier chunks. A chunk is counted and moved in two halves side by side, with counts of their own: of neighbours with
the same digit, one would have to wait for the other's count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.llvm import Builder, Value, bit_width, integer
from hloc.codegen.routines import i64, least
from hloc.ir.dtypes import DType

LEAST = 1 << 15
"""Entries of a line from which on the counts of wide digits pay."""

_MOST_BITS = 11
"""Of a digit."""

_MOST_CHUNKS, _HALVES = 8, 2
_WORDS = 64
"""Words of 32 bits in front of the counts: where entries lie in each turn, then each chunk's flags."""

_MOST_TURNS = 16

Key = Callable[[list[Register]], Value]


class Entries:
    """How entries of some element types lie in memory: in an array of each type; two of 4 bytes side by side in one."""

    def __init__(self, b: Builder, dtypes: Sequence[DType], size: int):
        self.b, self.dtypes, self.size = b, tuple(dtypes), size
        self.is_pair = [dtype.itemsize for dtype in dtypes] == [4, 4]
        sizes = [8] if self.is_pair else [dtype.itemsize for dtype in dtypes]
        self.starts = [sum(-(-size * each // 64) * 64 for each in sizes[:number]) for number in range(len(sizes) + 1)]

    @staticmethod
    def bytes(dtypes: Sequence[DType], size: int) -> int:
        """Memory for so many entries, in whole cache lines."""
        return sum(-(-size * dtype.itemsize // 64) * 64 for dtype in dtypes) + 64

    def get(self, start: Value, i: Value) -> list[Register]:
        """Entry i of those that begin at an address."""
        b = self.b
        if self.is_pair:
            both = b.load("i64", b.gep("i64", start, i))
            halves = b.trunc(b.lshr(both, i64(32)), "i32"), b.trunc(both, "i32")
            return [b.bitcast(half, scalar.memory_type(dtype)) for half, dtype in zip(halves, self.dtypes, strict=True)]
        return [scalar.load(b, dtype, self._place(start, n, i)) for n, dtype in enumerate(self.dtypes)]

    def put(self, start: Value, i: Value, entry: Sequence[Register]) -> None:
        """Sets entry i of those that begin at an address."""
        b = self.b
        if self.is_pair:
            high, low = (b.zext(b.bitcast(value, "i32"), "i64") for value in entry)
            b.store(b.or_(b.shl(high, i64(32)), low), b.gep("i64", start, i))
            return
        for n, (dtype, value) in enumerate(zip(self.dtypes, entry, strict=True)):
            scalar.store(b, dtype, value, self._place(start, n, i))

    def _place(self, start: Value, number: int, i: Value) -> Value:
        array = self.b.gep("i8", start, i64(self.starts[number]))
        return self.b.gep(scalar.memory_type(self.dtypes[number]), array, i)


class LongSort:
    """Writes the turns of the sort of `size` entries by keys of `key_bits`, in so many `chunks`.

    The entries lie at `first` to begin with, later there or at `second`. `memory` has `scratch_bytes` of room.

    Turn 0 makes the entries, which is the caller's part, and counts their first digit; then turns that move entries and
    turns that count the next digit follow on each other. In the last turn the result is at `place(turn)`.
    """

    scratch_bytes = _WORDS * 4 + (_MOST_CHUNKS * _HALVES * 4 << _MOST_BITS)

    def __init__(self, entries: Entries, key_bits: int, chunks: int, first: Value, second: Value, memory: Value):
        self.b, self.entries, self.size = entries.b, entries, entries.size
        self.passes, self.bits = _digits(key_bits)
        self.chunks = min(chunks, _MOST_CHUNKS)
        self.first, self.second, self.memory = first, second, memory
        self.counts = self.b.gep("i32", memory, i64(_WORDS))

    @staticmethod
    def turns(key_bits: int) -> int:
        return 2 * _digits(key_bits)[0] + 1

    # What lies where

    def bounds(self, chunk: Value) -> tuple[Value, Value]:
        """The first entry of a chunk, and the first one behind it."""
        each = -(-self.size // self.chunks)
        first = self.b.mul(chunk, i64(each))
        return first, least(self.b, self.b.add(first, i64(each)), i64(self.size))

    def begin(self, chunk: Value, flags: Value) -> None:
        """In turn 0, when the entries of a chunk are made: they are at `first`, and there are flags, an i32, of it."""
        self.b.store(flags, self._flags(chunk))

    def flags(self, chunk: Value | None = None) -> Value:
        """The flags of a chunk, or those of all chunks together."""
        b, found = self.b, integer("i32", 0)
        for number in [chunk] if chunk is not None else map(i64, range(self.chunks)):
            found = b.or_(found, b.load("i32", self._flags(number)))
        return found

    def _flags(self, chunk: Value) -> Value:
        return self.b.gep("i32", self.memory, self.b.add(chunk, i64(_MOST_TURNS)))

    def place(self, turn: Value) -> Value:
        """Where the entries lie in a turn."""
        return self.b.select(self._moved(turn), self.second, self.first)

    def _moved(self, turn: Value) -> Value:
        """Whether the entries are at `second`. Nobody says so of the first digit: whoever did, others may be ahead."""
        b = self.b
        is_later = b.icmp_signed(">", turn, i64(1))
        said = b.icmp_signed("!=", b.load("i32", self._word(turn)), integer("i32", 0))
        return b.select(is_later, said, integer("i1", 0))

    def _word(self, turn: Value) -> Value:
        """Says whether the entries are at `second` when a later digit is counted and moved, in two turns."""
        return self.b.gep("i32", self.memory, self.b.lshr(turn, i64(1)))

    def _table(self, number: Value) -> Value:
        return self.b.gep("i32", self.counts, self.b.shl(number, i64(_MOST_BITS)))

    def _halves(self, chunk: Value) -> tuple[Value, Value, Value, Value]:
        """Where the two halves of a chunk begin, the size of both, and where the chunk ends: it may have one more."""
        first, end = self.bounds(chunk)
        half = self.b.lshr(self.b.sub(end, first), i64(1))
        return first, self.b.add(first, half), half, end

    def _digit(self, turn: Value, key: Value) -> Value:
        b = self.b
        wide = key if bit_width(key.type) == 64 else b.zext(key, "i64")
        shift = b.mul(b.lshr(turn, i64(1)), i64(self.bits))
        return b.and_(b.lshr(wide, shift), i64((1 << self.bits) - 1))

    # Turns

    def count(self, turn: Value, chunk: Value, key: Key) -> None:
        """An even turn of a chunk: counts the digits of its entries."""
        b, source = self.b, self.place(turn)
        first, second, half, end = self._halves(chunk)
        tables = [self._table(b.add(b.mul(chunk, i64(_HALVES)), i64(n))) for n in range(_HALVES)]
        b.memset(tables[0], integer("i8", 0), i64(_HALVES * 4 << _MOST_BITS))

        def add(table: Value, i: Value) -> None:
            place = b.gep("i32", table, self._digit(turn, key(self.entries.get(source, i))))
            b.store(b.add(b.load("i32", place), integer("i32", 1)), place)

        with b.for_loop(i64(0), half, vectorize=False, unroll=2) as i:
            for table, start in zip(tables, (first, second), strict=True):
                add(table, b.add(start, i))
        with b.if_then(b.icmp_signed(">", b.sub(end, second), half)):
            add(tables[1], b.sub(end, i64(1)))

    def move(self, turn: Value, chunk: Value, key: Key) -> None:
        """An odd turn of a chunk: moves its entries to their places by the digit, unless all have the same."""
        b = self.b
        places = b.room("i32", _HALVES << self.bits, align=64)
        most = self._find_places(chunk, places)
        settled = b.icmp_signed("==", most, integer("i32", self.size))
        before = self._moved(turn)
        with b.if_then(b.icmp_signed("==", chunk, i64(0))):
            after = b.xor(before, b.not_(settled))
            b.store(b.zext(after, "i32"), self._word(b.add(turn, i64(1))))
        with b.if_then(b.not_(settled)):
            source = b.select(before, self.second, self.first)
            self._move(turn, chunk, key, places, source, b.select(before, self.first, self.second))

    def _move(self, turn: Value, chunk: Value, key: Key, places: Value, source: Value, target: Value) -> None:
        b, get = self.b, self.entries.get
        first, second, half, end = self._halves(chunk)
        tables = [places, b.gep("i32", places, i64(1 << self.bits))]

        def step(moves: list[tuple[Value, Value]]) -> None:
            loaded = [get(source, i) for _, i in moves]
            digits = [self._digit(turn, key(entry)) for entry in loaded]
            for (table, _), digit, entry in zip(moves, digits, loaded, strict=True):
                count = b.gep("i32", table, digit)
                place = b.load("i32", count)
                b.store(b.add(place, integer("i32", 1)), count)
                self.entries.put(target, b.zext(place, "i64"), entry)

        with b.for_loop(i64(0), half, vectorize=False, unroll=2) as i:
            step([(tables[0], b.add(first, i)), (tables[1], b.add(second, i))])
        with b.if_then(b.icmp_signed(">", b.sub(end, second), half)):
            step([(tables[1], b.sub(end, i64(1)))])

    def _find_places(self, chunk: Value, places: Value) -> Value:
        """Sets the places where entries of both halves of a chunk begin, for each digit; how many have the most one."""
        b = self.b
        own = b.mul(chunk, i64(_HALVES))

        def digit(d: Value, carried: list[Value]) -> list[Value]:
            start, most = carried
            total = before = integer("i32", 0)
            for number in range(self.chunks * _HALVES):
                found = b.load("i32", b.gep("i32", self._table(i64(number)), d))
                total = b.add(total, found)
                is_before = b.icmp_signed("<", i64(number), own)
                before = b.add(before, b.select(is_before, found, integer("i32", 0)))
            place = b.add(start, before)
            b.store(place, b.gep("i32", places, d))
            behind = b.add(place, b.load("i32", b.gep("i32", self._table(own), d)))
            b.store(behind, b.gep("i32", places, b.add(d, i64(1 << self.bits))))
            return [b.add(start, total), b.select(b.icmp_signed(">", total, most), total, most)]

        zero = integer("i32", 0)
        _, most = b.for_loop_carrying(0, 1 << self.bits, [zero, zero], digit, vectorize=False)
        return most


def _digits(key_bits: int) -> tuple[int, int]:
    """How many digits a key has, and their bits."""
    passes = -(-key_bits // _MOST_BITS)
    return passes, -(-key_bits // passes)
