"""sort: operands permuted together along a dimension by a comparator. Always stable.

Each line along the dimension is gathered into scratch, sorted there and scattered. Where the comparator orders by a
key, long lines are sorted by the key's digits: the operands themselves, if they are few and the key is soon made of
them, else keys and positions. All others are merged; so are lines with NaNs, which a < of floats does not order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register, like_at
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value, integer
from hloc.codegen.long_sort import Entries, LongSort
from hloc.codegen.merge_sort import MergeSort
from hloc.codegen.radix_sort import RadixSort, counts_bytes
from hloc.codegen.routines import i64
from hloc.codegen.sort_keys import (
    MOVED,
    KeyedLines,
    as_moved,
    compared,
    key_bits,
    key_order,
    key_value,
    line_size,
    moved_bytes,
    rounded,
    scratch_bytes,
)
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape


def _turns(instruction: Instruction) -> int:
    """The turns in which threads share the only line, if it is long."""
    keyed = KeyedLines.of(instruction)
    is_shared = keyed is not None and keyed.is_long and instruction.operands[0].shape.count == line_size(instruction)
    return LongSort.turns(key_bits(keyed.key)) if is_shared else 1


@kernel(
    "sort",
    element_operands="all",
    scratch=scratch_bytes,
    is_loop=True,
    common_scratch=lambda instruction, is_fused: _turns(instruction) > 1,
    turns=_turns,
)
def sort(k: KernelContext, instruction: Instruction) -> None:
    if not instruction.operands[0].shape.count:
        return
    keyed = KeyedLines.of(instruction)
    if keyed is None:
        _Sort(k, instruction).write()
    elif keyed.is_long:
        _LongKeyedSort(k, instruction, keyed).write()
    else:
        _ShortKeyedSort(k, instruction, keyed).write()


class _Sort:
    """Writes one sort: `size` of the lines, and two buffers an operand, each a line long."""

    def __init__(self, k: KernelContext, instruction: Instruction):
        self.k, self.b = k, k.b
        self.comparator = instruction.attributes["to_apply"]
        (self.dimension,) = instruction.get("dimensions")
        self.shape = instruction.operands[0].shape
        self.size = line_size(instruction)
        self.dtypes = [operand.shape.dtype for operand in instruction.operands]
        self.moved = [MOVED.get(dtype, dtype) for dtype in self.dtypes]
        line = moved_bytes(self.moved, self.size)
        self.source, self.target = self._held(self.moved, 0), self._held(self.moved, line)

    def _held(self, dtypes: Sequence[DType], offset: int) -> list[ArrayRef]:
        """A line of arrays of these types, so many bytes into the scratch."""
        arrays = []
        for dtype in dtypes:
            pointer = self.b.gep("i8", self.k.scratch, i64(offset))
            arrays.append(ArrayRef(self.b, ArrayShape(dtype, (self.size,)), pointer))
            offset += rounded(self.size * dtype.itemsize)
        return arrays

    def write(self) -> None:
        """Sorts every line."""
        dims = list(self.shape.dims)
        dims[self.dimension] = 1
        self.k.loop_nest(dims, self._line, self.shape.minor_to_major[::-1])

    def _line(self, index: Index) -> None:
        with self.b.for_loop(0, self.size) as i:
            self._take_in(index, i)
        self._merge(index)

    def _take_in(self, index: Index, i: Value) -> list[Register]:
        """Puts the elements of a place of a line into the source; the elements."""
        values, moved = self._elements(index, i)
        self._put(self.source, i, moved)
        return values

    def _elements(self, index: Index, i: Value) -> tuple[list[Register], list[Register]]:
        """The elements of a place of a line, and as they are moved."""
        at = self._at(index, i)
        values = [self.k.input(number)(at) for number in range(len(self.dtypes))]
        return values, [as_moved(self.b, value, dtype) for value, dtype in zip(values, self.dtypes, strict=True)]

    def _at(self, index: Index, i: Value) -> Index:
        """A place of a line."""
        return (*index[: self.dimension], i, *index[self.dimension + 1 :])

    def _merge(self, index: Index) -> None:
        """Sorts the source by merging, and stores it."""
        result = MergeSort(self.b, self.size, self._before).sort(self.source, self.target)
        with self.b.for_loop(0, self.size) as i:
            self._store(index, i, self._get(result, i))

    def _store(self, index: Index, i: Value, moved: Sequence[Register]) -> None:
        at = self._at(index, i)
        for output, value in zip(self.k.outputs, self._compared(moved), strict=True):
            output.store(at, value)

    # One element of every operand

    def _get(self, arrays: Sequence[ArrayRef], i: Value) -> list[Register]:
        return [array.load((i,)) for array in arrays]

    def _put(self, arrays: Sequence[ArrayRef], i: Value, values: Sequence[Register]) -> None:
        for array, value in zip(arrays, values, strict=True):
            array.store((i,), value)

    def _compared(self, values: Sequence[Register]) -> list[Register]:
        """Moved values as elements."""
        return [compared(self.b, value, dtype) for dtype, value in zip(self.dtypes, values, strict=True)]

    def _before(self, first: Sequence[Register], second: Sequence[Register]) -> Value:
        """Whether the comparator puts the first before the second, an i1."""
        pairs = [
            value
            for pair in zip(self._compared(first), self._compared(second), strict=True)
            for value in pair
        ]
        (result,) = self.k.apply(self.comparator, pairs)
        return result


class _KeyedSort(_Sort):
    """What sorts by a key have in common."""

    def __init__(self, k: KernelContext, instruction: Instruction, keyed: KeyedLines):
        super().__init__(k, instruction)
        self.keyed = keyed

    def _found(
        self, elements: list[Register], value: Register, order: Value, unordered: Value, changed: Value
    ) -> list[Value]:
        """What is known of the places so far, with one more."""
        b, keyed = self.b, self.keyed
        if keyed.plain is not None:
            changed = b.or_(changed, b.icmp_signed("!=", order, self._plain_order(elements[keyed.plain])))
        if keyed.merges:
            wide = scalar.widen(b, keyed.key.value.shape.dtype, value)
            unordered = b.or_(unordered, b.fcmp_unordered("uno", wide, wide))
        return [unordered, changed]

    def _key(self, entry: list[Register]) -> Value:
        if not self.keyed.moves_operands:
            return entry[0]
        key = self.keyed.key
        return key_order(self.b, key, key_value(self.k, self.comparator, key, self._compared(entry)))

    def _plain_key(self, entry: list[Register]) -> Value:
        return self._plain_order(self._compared(entry)[self.keyed.plain])

    def _plain_order(self, element: Register) -> Value:
        key = self.keyed.key
        return key_order(self.b, key._replace(total=True), element)


class _ShortKeyedSort(_KeyedSort):
    """Writes the sort of lines by a key, each for itself."""

    def __init__(self, k: KernelContext, instruction: Instruction, keyed: KeyedLines):
        super().__init__(k, instruction, keyed)
        line, entries = moved_bytes(self.moved, self.size), moved_bytes(keyed.moved, self.size)
        self.entries, self.others = self.source, self.target
        if not keyed.moves_operands:
            self.entries, self.others = self._held(keyed.moved, line), self._held(keyed.moved, line + entries)
        bits = key_bits(keyed.key)
        counts = self.b.gep("i8", k.scratch, i64(scratch_bytes(instruction) - counts_bytes(bits)))
        self.radix = RadixSort(self.b, self.size, bits, counts)

    def _line(self, index: Index) -> None:
        self.radix.clear()
        unordered, changed = self.b.for_loop_carrying(
            0, self.size, [integer("i1", 0)] * 2, lambda i, carried: self._count(index, i, *carried)
        )
        if not self.keyed.merges:
            self._by_digits(index, changed)
            return
        self.b.if_else(unordered, lambda: self._merge(index), lambda: self._by_digits(index, changed))

    def _count(self, index: Index, i: Value, unordered: Value, changed: Value) -> list[Value]:
        """Takes in a place of a line. Whether the line has a key that < does not order, or one that is not as its
        operand, up to there.
        """
        elements = self._take_in(index, i)
        value = key_value(self.k, self.comparator, self.keyed.key, elements)
        order = key_order(self.b, self.keyed.key, value)
        self.radix.count(order)
        if not self.keyed.moves_operands:
            self._put(self.entries, i, [order, self.b.trunc(i, "i32")])
        return self._found(elements, value, order, unordered, changed)

    def _by_digits(self, index: Index, changed: Value) -> None:
        """Sorts the entries, and stores what belongs to each."""
        if self.keyed.plain is None:
            result = self.radix.sort(self.entries, self.others, self._key)
        else:
            ways = [lambda key=key: self._sorted_by(key) for key in (self._key, self._plain_key)]
            result = like_at(self.entries, self.b.if_else(changed, *ways))
        with self.b.for_loop(0, self.size) as i:
            entry = self._get(result, i)
            if not self.keyed.moves_operands:
                entry = self._get(self.source, self.b.zext(entry[1], "i64"))
            self._store(index, i, entry)

    def _sorted_by(self, key: Callable[[list[Register]], Value]) -> list[Value]:
        return [array.pointer for array in self.radix.sort(self.entries, self.others, key)]


class _LongKeyedSort(_KeyedSort):
    """Writes the sort of long lines by a key, in turns: the only line in parts, for several threads.

    The scratch has the operands, if others move for them, then the entries or what merging takes, then the counts.
    """

    def __init__(self, k: KernelContext, instruction: Instruction, keyed: KeyedLines):
        super().__init__(k, instruction, keyed)
        self.turns, self.chunks = _turns(instruction), k.workers
        bits = key_bits(keyed.key)
        self.stored = Entries(self.b, keyed.moved, self.size)
        start = 0 if keyed.moves_operands else moved_bytes(self.moved, self.size)
        counts = scratch_bytes(instruction) - LongSort.scratch_bytes
        starts = [start, start + Entries.bytes(keyed.moved, self.size), counts]
        places = [self.b.gep("i8", k.scratch, i64(place)) for place in starts]
        self.last = LongSort.turns(bits) - 1
        self.long = LongSort(self.stored, bits, self.chunks if self.turns > 1 else 1, *places)
        self.target = self._held(self.moved, start if start else moved_bytes(self.moved, self.size))

    def write(self) -> None:
        if self.turns > 1:
            index = (i64(0),) * self.shape.rank
            self.k.in_turns(self.turns, self.long.chunks, partial(self._turn, index))
        else:
            super().write()

    def _line(self, index: Index) -> None:
        with self.b.for_loop(0, self.last + 1, unroll=False) as turn:
            self._turn(index, turn, i64(0))

    def _turn(self, index: Index, turn: Value, chunk: Value) -> None:
        b, keyed = self.b, self.keyed
        with b.if_then(b.icmp_signed("==", turn, i64(0))):
            self._make_entries(index, chunk)
        # In the first turn, other chunks are not known yet: their keys make no difference to this one's.
        is_first = b.icmp_signed("==", turn, i64(0))
        flags = b.if_else(is_first, lambda: self.long.flags(chunk), lambda: self.long.flags())
        bits = [b.and_(flags, integer("i32", bit)) for bit in (1, 2)]
        unordered, changed = (b.icmp_signed("!=", bit, integer("i32", 0)) for bit in bits)
        is_last = b.icmp_signed("==", turn, i64(self.last))
        with b.if_then(b.not_(b.or_(is_last, unordered) if keyed.merges else is_last)):
            if keyed.plain is None:
                self._pass(turn, chunk, self._key)
            else:
                ways = [partial(self._pass, turn, chunk, key) for key in (self._key, self._plain_key)]
                b.if_else(changed, *ways)
        with b.if_then(is_last):
            if not keyed.merges:
                self._store_entries(index, turn, chunk)
            else:
                b.if_else(
                    unordered,
                    lambda: self._merge_once(index, chunk),
                    lambda: self._store_entries(index, turn, chunk),
                )

    def _make_entries(self, index: Index, chunk: Value) -> None:
        """Takes in a chunk, and notes whether it has a key that < does not order, or one that is not as its operand."""
        b, no = self.b, integer("i1", 0)

        def make(i: Value, carried: list[Value]) -> list[Value]:
            elements, moved = self._elements(index, i)
            value = key_value(self.k, self.comparator, self.keyed.key, elements)
            order = key_order(b, self.keyed.key, value)
            if not self.keyed.moves_operands:
                self._put(self.source, i, moved)
                moved = [order, b.trunc(i, "i32")]
            self.stored.put(self.long.first, i, moved)
            return self._found(elements, value, order, *carried)

        unordered, changed = b.for_loop_carrying(*self.long.bounds(chunk), [no, no], make)
        self.long.begin(chunk, b.or_(b.zext(unordered, "i32"), b.shl(b.zext(changed, "i32"), integer("i32", 1))))

    def _pass(self, turn: Value, chunk: Value, key: Callable[[list[Register]], Value]) -> None:
        is_even = self.b.icmp_signed("==", self.b.and_(turn, i64(1)), i64(0))
        self.b.if_else(
            is_even, lambda: self.long.count(turn, chunk, key), lambda: self.long.move(turn, chunk, key)
        )

    def _store_entries(self, index: Index, turn: Value, chunk: Value) -> None:
        """Stores what belongs to each sorted entry of a chunk."""
        place = self.long.place(turn)
        with self.b.for_loop(*self.long.bounds(chunk)) as i:
            entry = self.stored.get(place, i)
            if not self.keyed.moves_operands:
                entry = self._get(self.source, self.b.zext(entry[1], "i64"))
            self._store(index, i, entry)

    def _merge_once(self, index: Index, chunk: Value) -> None:
        """Merges the line, in the first chunk."""
        with self.b.if_then(self.b.icmp_signed("==", chunk, i64(0))):
            with self.b.for_loop(0, self.size) as i:
                self._take_in(index, i)
            self._merge(index)
