"""sort: operands permuted together along a dimension by a comparator. Always stable.

Each line along the dimension is gathered into scratch, sorted there and scattered. Where the comparator orders by a
key, long lines are sorted by the key's digits: the operands themselves, if they are few and the key is soon made of
them, else keys and positions. All others are merged; so are lines with NaNs, which a < of floats does not order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.analysis import cost
from hloc.analysis.comparators import SortKey, sort_key
from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef, Register, like_at
from hloc.codegen.bodies import Body
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Builder, Value, integer
from hloc.codegen.merge_sort import MergeSort
from hloc.codegen.radix_sort import MOST, RadixSort, counts_bytes
from hloc.codegen.routines import i64
from hloc.ir.computation import Computation
from hloc.ir.dtypes import BF16, F16, F32, F64, U8, U16, U32, U64, DType
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.records import record

MOVED = {F16: U16, BF16: U16, F32: U32, F64: U64}
"""Moved as integers: what selects floats may flush denormals, and does with NaNs as it likes."""

_KEYS = {8: U8, 16: U16, 32: U32, 64: U64}

_RADIX_LEAST = 256
"""Elements of a line from which on digits do better than merging."""

_MOST_MOVED, _MOST_KEY_WORK = 16, 8
"""Bytes of the operands that are moved in each pass, and work in units of `cost.weight` to make a key of them again."""


def _rounded(size: int) -> int:
    return -(-size // 64) * 64


def _size(instruction: Instruction) -> int:
    (dimension,) = instruction.get("dimensions")
    return instruction.operands[0].shape.dims[dimension]


def _moved_bytes(dtypes: Sequence[DType], size: int) -> int:
    """Scratch for a line of arrays of these types, each in whole cache lines."""
    return sum(_rounded(size * dtype.itemsize) for dtype in dtypes)


@record
class _Keyed:
    """How lines are sorted by a key: `moved` are the types of what moves, the operands or keys and positions.

    `merges` says that some lines have to be merged all the same. The keys of most lines are the elements of the operand
    `plain`, by their total order: a comparator may take care of zeros and NaNs, of which there are seldom any.
    """

    key: SortKey
    moved: tuple[DType, ...]
    moves_operands: bool
    merges: bool
    plain: int | None

    @staticmethod
    def of(instruction: Instruction) -> _Keyed | None:
        """None where all lines are merged."""
        key, size = sort_key(instruction.attributes["to_apply"]), _size(instruction)
        if key is None or not _RADIX_LEAST <= size <= MOST:
            return None
        dtype = key.value.shape.dtype
        if dtype.is_complex:
            return None
        dtypes = [operand.shape.dtype for operand in instruction.operands]
        moves_operands = (
            len(dtypes) <= 2
            and sum(dtype.itemsize for dtype in dtypes) <= _MOST_MOVED
            and _key_work(key.value) <= _MOST_KEY_WORK
        )
        moved = [MOVED.get(dtype, dtype) for dtype in dtypes] if moves_operands else [_KEYS[_key_bits(key)], U32]
        merges = dtype.is_float and not key.total
        plain = _plain_operand(key) if moves_operands else None
        return _Keyed(key, tuple(moved), moves_operands, merges, plain)


def _key_bits(key: SortKey) -> int:
    """Of the integers that keys become."""
    return max(8, key.value.shape.dtype.bits)


def _parts(value: Instruction) -> list[Instruction]:
    """What a key is made of, itself included."""
    pending, seen = [value], {value: None}
    while pending:
        for operand in pending.pop().operands:
            if operand not in seen:
                seen[operand] = None
                pending.append(operand)
    return list(seen)


def _key_work(value: Instruction) -> float:
    """Work to make a key, in units of `cost.weight`."""
    parts = _parts(value)
    return float("inf") if any(part.called for part in parts) else sum(map(cost.weight, parts))


def _plain_operand(key: SortKey) -> int | None:
    """The operand of whose elements the keys may be copies; None if they always are, or seldom."""
    if key.value.opcode == "parameter" and (key.total or not key.value.shape.dtype.is_float):
        return None
    read = [part for part in _parts(key.value) if part.opcode == "parameter"]
    if len(read) != 1 or read[0].shape.dtype is not key.value.shape.dtype:
        return None
    return read[0].get("number") // 2


def _scratch(instruction: Instruction) -> int:
    """A line of the operands, and another one of them, or of what the digits of keys take."""
    size, keyed = _size(instruction), _Keyed.of(instruction)
    line = _moved_bytes([operand.shape.dtype for operand in instruction.operands], size)
    if keyed is None:
        return 2 * line
    counts = counts_bytes(_key_bits(keyed.key))
    if keyed.moves_operands:
        return 2 * line + counts
    entries = 2 * _moved_bytes(keyed.moved, size)
    return line + max(entries, line if keyed.merges else 0) + counts


def key_value(k: KernelContext, comparator: Computation, key: SortKey, elements: Sequence[Register]) -> Register:
    """What an element of every operand is compared by."""
    body = Body.of_scalars(comparator, [element for element in elements for _ in range(2)])
    return k.descend(lambda: body.evaluate(k, key.value, (), ()))


def key_order(b: Builder, key: SortKey, value: Register) -> Value:
    """The unsigned integer (see `scalar.order_key`) that comes first where the comparator puts a value first."""
    dtype = key.value.shape.dtype
    if dtype.is_float and not key.total:
        # Zeros are equal, and so are denormals where they are flushed: -0 + 0 is 0.
        wide = scalar.widen(b, dtype, value)
        zero = scalar.constant(F64 if wide.type == "double" else F32, 0)
        value = scalar.narrow(b, dtype, b.fadd(wide, zero))
    order = scalar.order_key(b, dtype, value)
    return b.not_(order) if key.descending else order


def as_moved(b: Builder, value: Register, dtype: DType) -> Register:
    """An element as it is moved."""
    return scalar.to_bits(b, dtype, value) if dtype in MOVED else value


def compared(b: Builder, value: Register, dtype: DType) -> Register:
    """A moved value as an element."""
    return scalar.from_bits(b, dtype, value) if dtype in MOVED else value


@kernel("sort", element_operands="all", scratch=_scratch, is_loop=True)
def sort(k: KernelContext, instruction: Instruction) -> None:
    if not instruction.operands[0].shape.count:
        return
    keyed = _Keyed.of(instruction)
    (_Sort(k, instruction) if keyed is None else _KeyedSort(k, instruction, keyed)).write()


class _Sort:
    """Writes one sort: `size` of the lines, and two buffers an operand, each a line long."""

    def __init__(self, k: KernelContext, instruction: Instruction):
        self.k, self.b = k, k.b
        self.comparator = instruction.attributes["to_apply"]
        (self.dimension,) = instruction.get("dimensions")
        self.shape = instruction.operands[0].shape
        self.size = _size(instruction)
        self.dtypes = [operand.shape.dtype for operand in instruction.operands]
        self.moved = [MOVED.get(dtype, dtype) for dtype in self.dtypes]
        line = _moved_bytes(self.moved, self.size)
        self.source, self.target = self._held(self.moved, 0), self._held(self.moved, line)

    def _held(self, dtypes: Sequence[DType], offset: int) -> list[ArrayRef]:
        """A line of arrays of these types, so many bytes into the scratch."""
        arrays = []
        for dtype in dtypes:
            pointer = self.b.gep("i8", self.k.scratch, i64(offset))
            arrays.append(ArrayRef(self.b, ArrayShape(dtype, (self.size,)), pointer))
            offset += _rounded(self.size * dtype.itemsize)
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
        at = self._at(index, i)
        values = [self.k.input(number)(at) for number in range(len(self.dtypes))]
        moved = [as_moved(self.b, value, dtype) for value, dtype in zip(values, self.dtypes, strict=True)]
        self._put(self.source, i, moved)
        return values

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
    """Writes the sort of lines by a key."""

    def __init__(self, k: KernelContext, instruction: Instruction, keyed: _Keyed):
        super().__init__(k, instruction)
        self.keyed = keyed
        line, entries = _moved_bytes(self.moved, self.size), _moved_bytes(keyed.moved, self.size)
        self.entries, self.others = self.source, self.target
        if not keyed.moves_operands:
            self.entries, self.others = self._held(keyed.moved, line), self._held(keyed.moved, line + entries)
        bits = _key_bits(keyed.key)
        counts = self.b.gep("i8", k.scratch, i64(_scratch(instruction) - counts_bytes(bits)))
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
        b, keyed = self.b, self.keyed
        elements = self._take_in(index, i)
        value = key_value(self.k, self.comparator, keyed.key, elements)
        order = key_order(b, keyed.key, value)
        self.radix.count(order)
        if not keyed.moves_operands:
            self._put(self.entries, i, [order, b.trunc(i, "i32")])
        if keyed.plain is not None:
            changed = b.or_(changed, b.icmp_signed("!=", order, self._plain_order(elements[keyed.plain])))
        if keyed.merges:
            wide = scalar.widen(b, keyed.key.value.shape.dtype, value)
            unordered = b.or_(unordered, b.fcmp_unordered("uno", wide, wide))
        return [unordered, changed]

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
