"""Sorting by the digits of integer keys, the least significant digit first: stable, in a few passes over the entries.

Entries lie in one array or several side by side, and move back and forth between these and as many others. How often
each digit occurs is counted for all passes at once, as the entries are made; a pass in which all entries have the same
digit is left out (as in Knuth, The Art of Computer Programming 3, 5.2.5, and Herf's radix tricks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.arrays import ArrayRef, Register, like_at
from hloc.codegen.llvm import Builder, Value, bit_width, integer
from hloc.codegen.routines import i64

_BITS = 8
"""Of a digit. With more of them there are fewer passes, but more places to write to than the first cache has lines."""

MOST = (1 << 31) - 1
"""Entries at most: counts have 32 bits."""


def counts_bytes(key_bits: int) -> int:
    """Memory for the counts of the digits of keys."""
    return _passes(key_bits) * 4 << _BITS


def _passes(key_bits: int) -> int:
    return -(-key_bits // _BITS)


class RadixSort:
    """Writes the sort of `size` entries by keys of `key_bits`; `counts` is memory of `counts_bytes(key_bits)`."""

    def __init__(self, b: Builder, size: int, key_bits: int, counts: Value):
        self.b, self.size, self.key_bits, self.counts = b, size, key_bits, counts

    def clear(self) -> None:
        """Sets all counts to zero; then `count` is due for each entry."""
        self.b.memset(self.counts, integer("i8", 0), i64(counts_bytes(self.key_bits)))

    def count(self, key: Value) -> None:
        """Counts the digits of an entry's key."""
        b = self.b
        for number in range(_passes(self.key_bits)):
            place = self._count(i64(number), key)
            b.store(b.add(b.load("i32", place), integer("i32", 1)), place)

    def sort(
        self,
        source: Sequence[ArrayRef],
        target: Sequence[ArrayRef],
        key: Callable[[list[Register]], Value],
    ) -> list[ArrayRef]:
        """Sorts counted entries, which lie in `source`; the arrays, these or those, where they lie at last.

        `key(entry)` gives the key of an entry, the values of the arrays at one place.
        """
        b = self.b

        def one_pass(carried: list[Value]) -> list[Value]:
            number, *pointers = carried
            here, there = pointers[: len(source)], pointers[len(source) :]
            arrays, others = like_at(source, here), like_at(target, there)
            first = b.load("i32", self._count(number, key([array.load((i64(0),)) for array in arrays])))

            def move() -> list[Value]:
                self._add_up(number)
                self._move(number, arrays, others, key)
                return [*there, *here]

            settled = b.icmp_signed("==", first, integer("i32", self.size))
            return [b.add(number, i64(1)), *b.if_else(settled, lambda: pointers, move)]

        _, *pointers = b.while_loop(
            [i64(0), *(array.pointer for array in (*source, *target))],
            lambda carried: b.icmp_signed("<", carried[0], i64(_passes(self.key_bits))),
            one_pass,
            "pass",
        )
        return like_at(source, pointers[: len(source)])

    def _count(self, number: Value, key: Value) -> Value:
        """The address of the count of a key's digit in a pass."""
        b = self.b
        wide = key if bit_width(key.type) >= 32 else b.zext(key, "i32")
        shift = b.mul(number, i64(_BITS))
        shift = shift if wide.type == "i64" else b.trunc(shift, wide.type)
        digit = b.and_(b.lshr(wide, shift), integer(wide.type, (1 << _BITS) - 1))
        digit = digit if wide.type == "i64" else b.zext(digit, "i64")
        return b.gep("i32", self.counts, b.add(b.shl(number, i64(_BITS)), digit))

    def _add_up(self, number: Value) -> None:
        """Turns the counts of a pass into the places where the entries with each digit begin."""
        b, first = self.b, self.b.shl(number, i64(_BITS))

        def step(i: Value, carried: list[Value]) -> list[Value]:
            place = b.gep("i32", self.counts, b.add(first, i))
            count = b.load("i32", place)
            b.store(carried[0], place)
            return [b.add(carried[0], count)]

        b.for_loop_carrying(i64(0), i64(1 << _BITS), [integer("i32", 0)], step)

    def _move(
        self,
        number: Value,
        source: Sequence[ArrayRef],
        target: Sequence[ArrayRef],
        key: Callable[[list[Register]], Value],
    ) -> None:
        """Moves all entries to their places by one digit, in order."""
        b = self.b
        with b.for_loop(0, self.size, vectorize=False, unroll=4) as i:
            entry = [array.load((i,)) for array in source]
            count = self._count(number, key(entry))
            place = b.load("i32", count)
            b.store(b.add(place, integer("i32", 1)), count)
            for array, value in zip(target, entry, strict=True):
                array.store((b.zext(place, "i64"),), value)
