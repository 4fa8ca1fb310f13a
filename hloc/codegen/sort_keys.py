"""What a sort's comparator orders by, as unsigned integers; how lines are sorted by them, and in how much memory."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.analysis import cost
from hloc.analysis.comparators import SortKey, sort_key
from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.bodies import Body
from hloc.codegen.kernel import KernelContext
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.long_sort import LEAST, Entries, LongSort
from hloc.codegen.radix_sort import MOST, counts_bytes
from hloc.ir.computation import Computation
from hloc.ir.dtypes import BF16, F16, F32, F64, U8, U16, U32, U64, DType
from hloc.ir.instruction import Instruction
from hloc.records import record

MOVED = {F16: U16, BF16: U16, F32: U32, F64: U64}
"""Moved as integers: what selects floats may flush denormals, and does with NaNs as it likes."""

_KEYS = {8: U8, 16: U16, 32: U32, 64: U64}

_RADIX_LEAST = 256
"""Elements of a line from which on digits do better than merging."""

_MOST_MOVED, _MOST_KEY_WORK = 16, 8
"""Bytes of the operands that are moved in each pass, and work in units of `cost.weight` to make a key of them again."""


def rounded(size: int) -> int:
    """A size in bytes, in whole cache lines."""
    return -(-size // 64) * 64


def line_size(instruction: Instruction) -> int:
    """Elements of a line."""
    (dimension,) = instruction.get("dimensions")
    return instruction.operands[0].shape.dims[dimension]


def moved_bytes(dtypes: Sequence[DType], size: int) -> int:
    """Scratch for a line of arrays of these types, each in whole cache lines."""
    return sum(rounded(size * dtype.itemsize) for dtype in dtypes)


@record
class KeyedLines:
    """How lines are sorted by a key: `moved` are the types of what moves, the operands or keys and positions.

    `merges` says that some lines have to be merged all the same. The keys of most lines are the elements of the operand
    `plain`, by their total order: a comparator may take care of zeros and NaNs, of which there are seldom any. Lines
    that are long are sorted in turns.
    """

    key: SortKey
    moved: tuple[DType, ...]
    moves_operands: bool
    merges: bool
    plain: int | None
    is_long: bool

    @staticmethod
    def of(instruction: Instruction) -> KeyedLines | None:
        """None where all lines are merged."""
        key, size = sort_key(instruction.attributes["to_apply"]), line_size(instruction)
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
        moved = [MOVED.get(dtype, dtype) for dtype in dtypes] if moves_operands else [_KEYS[key_bits(key)], U32]
        merges = dtype.is_float and not key.total
        plain = _plain_operand(key) if moves_operands else None
        return KeyedLines(key, tuple(moved), moves_operands, merges, plain, size >= LEAST)


def key_bits(key: SortKey) -> int:
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


def scratch_bytes(instruction: Instruction) -> int:
    """A line of the operands, and another one of them, or of what the digits of keys take."""
    size, keyed = line_size(instruction), KeyedLines.of(instruction)
    line = moved_bytes([operand.shape.dtype for operand in instruction.operands], size)
    if keyed is None:
        return 2 * line
    if keyed.is_long:
        entries = 2 * Entries.bytes(keyed.moved, size)
        return line * (not keyed.moves_operands) + max(entries, 2 * line * keyed.merges) + LongSort.scratch_bytes
    counts = counts_bytes(key_bits(keyed.key))
    if keyed.moves_operands:
        return 2 * line + counts
    entries = 2 * moved_bytes(keyed.moved, size)
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
