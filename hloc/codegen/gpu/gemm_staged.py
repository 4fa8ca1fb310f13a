"""An operand's tiles in shared memory as matrix units read them, and how they come there.

A tile has rows of 128 bytes, of eight chunks of 16: a row is a line with as many steps as fit (`by_steps`), or, of
16-bit elements that lie together along lines, a step with 64 lines (or steps with all lines, if there are fewer), 64
lines after the other. Chunks of a row lie in
an order of the row's own, so that neither what is written together nor what is read together shares banks: a chunk is
where its number and the row's number modulo 8 differ in bits. (So does TMA's 128-byte swizzle.)

Elements of the type that the unit takes, in pieces of at least 4 bytes, are copied asynchronously; all others go
through registers, where producers are applied and types converted.
"""

from __future__ import annotations

from math import gcd

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.gemm_parts import Elements, i32
from hloc.codegen.gpu.gemm_units import ROW_BYTES, copied_together, lies_by_steps
from hloc.codegen.llvm import Builder, Value, const, integer
from hloc.codegen.routines import i64
from hloc.ir.dtypes import F32, DType
from hloc.records import NamedTuple

CHUNK = 16
_CHUNKS = ROW_BYTES // CHUNK

_TF32_REST, _TF32_HALF, _INFINITY = 0x1FFF, 0x1000, 0x7F800000
"""Bits of a float: those that tf32 drops, half of the last one that it keeps, and those of an infinite one."""


class Steps(NamedTuple):
    """Steps `first` to `end` - 1 are to be fetched; the tile may go beyond `end` if it is `ragged`."""

    first: Value
    end: Value
    ragged: bool


class StagedTile:
    """`lines` x `steps` elements of the unit's type, `dtype`, from `first_line` on. If elements of the operand are
    sums of several `parts`, there are as many such tiles, one after the other.

    Lines beyond the operand are any of its lines: they go into sums that nobody stores. Steps beyond the end are zero.
    """

    def __init__(self, k: GpuContext, operand: Elements, lines: int, first_line: Value, dtype: DType, parts: int):
        self.k, self.b, self.operand, self.lines, self.first_line = k, k.b, operand, lines, first_line
        self.dtype, self.parts, self.itemsize = dtype, parts, dtype.itemsize
        self.steps = ROW_BYTES // self.itemsize
        self.by_steps = lies_by_steps(operand.along_steps, dtype)
        self.is_async, self.width = self._access()
        # Bytes that have to change places are stored four steps at a time.
        self.depth = 4 if self.itemsize == 1 and operand.along_steps != self.by_steps else 1
        share = lines * self.steps // (self.depth * k.block[0])
        self.width = gcd(self.width, share)
        pieces = share // self.width
        self.places = [self._place(number * k.block[0]) for number in range(pieces)]

    @property
    def bytes(self) -> int:
        """Shared memory of a part."""
        return self.lines * ROW_BYTES

    def _access(self) -> tuple[bool, int]:
        """Whether pieces are copied asynchronously, and their elements."""
        operand, dtype = self.operand, self.dtype
        together = copied_together(operand.along_steps, operand.width, dtype)
        if operand.base is None or operand.source is not dtype or self.parts > 1 or not together:
            return False, gcd(operand.width, CHUNK // self.itemsize)
        return True, together

    def _place(self, first: int) -> tuple[Value, Value]:
        """The line and step, in the tile, of the thread's piece."""
        b = self.b
        number = b.add(self.k.thread_index(), i64(first))
        along = (self.steps if self.operand.along_steps else self.lines) // self.width
        slow, fast = b.udiv(number, i64(along)), b.mul(b.urem(number, i64(along)), i64(self.width))
        slow = b.mul(slow, i64(self.depth))
        return (slow, fast) if self.operand.along_steps else (fast, slow)

    def offset(self, line: Value, step: Value) -> Value:
        """Bytes from the beginning of the tile to an element."""
        b, per_row = self.b, ROW_BYTES // self.itemsize
        if self.by_steps:
            row, column = line, step
        else:
            lines = min(per_row, self.lines)
            steps = per_row // lines
            panel, line = b.mul(b.udiv(line, i64(lines)), i64(self.steps // steps)), b.urem(line, i64(lines))
            row = b.add(panel, b.udiv(step, i64(steps)))
            column = b.add(b.mul(b.urem(step, i64(steps)), i64(lines)), line)
        place = b.mul(column, i64(self.itemsize))
        chunk, rest = b.udiv(place, i64(CHUNK)), b.urem(place, i64(CHUNK))
        where = b.mul(b.xor(chunk, self.turn(row)), i64(CHUNK))
        return b.add(b.mul(row, i64(ROW_BYTES)), b.add(where, rest))

    def turn(self, row: Value) -> Value:
        """What the numbers of a row's chunks are changed by.

        Doubles are read two rows of four chunks at a time; all others eight rows of one.
        """
        b = self.b
        row = b.urem(row, i64(_CHUNKS))
        if self.itemsize < 8:
            return row
        return b.or_(b.shl(b.and_(row, i64(1)), i64(2)), b.lshr(row, i64(1)))

    def copy(self, steps: Steps, slot: Value) -> None:
        """Begins the asynchronous copies of the tile, if it comes by them."""
        if not self.is_async:
            return
        b, size = self.b, self.width * self.itemsize
        for line, step in self.places:
            at = b.add(steps.first, step)
            exists = None
            if steps.ragged:
                exists = b.icmp_unsigned("<", at, steps.end)
                at = b.select(exists, at, i64(0))
            line_at = self._line(line)
            inside = self.operand.inside(line_at, at)
            if inside is not None:
                exists = inside if exists is None else b.and_(exists, inside)
            live = None if exists is None else b.select(exists, i32(size), i32(0))
            source = self.operand.address(line_at, at)
            self.k.gpu.copy_async(b.gep("i8", slot, self.offset(line, step)), source, size, live)

    def _line(self, line: Value) -> Value:
        """A line of the operand, for one of the tile."""
        b, operand = self.b, self.operand
        line = b.add(self.first_line, line)
        if operand.lines % self.lines == 0:
            return line
        last = operand.lines - (1 if operand.along_steps else self.width)
        return b.select(b.icmp_unsigned("<", line, i64(last)), line, i64(last))

    def read(self, steps: Steps) -> list[Register]:
        """The thread's elements, of a tile that does not come by copies; any elements if all is beyond the end."""
        if self.is_async:
            return []
        b, zero = self.b, scalar.zero(self.operand.dtype)
        values: list[Register] = []
        for line, first in self.places:
            line = self._line(line)
            for deep in range(self.depth):
                at = b.add(b.add(steps.first, first), i64(deep))
                exists = b.icmp_unsigned("<", at, steps.end)
                at = b.select(exists, at, i64(0))
                for value in self.operand.group(line, at, self.width):
                    values.append(b.select(exists, value, zero) if steps.ragged else value)
        return values

    def write(self, values: list[Register], slot: Value) -> None:
        """Puts the elements that `read` gave into a slot."""
        for part in range(self.parts):
            place = self.b.gep("i8", slot, i64(part * self.bytes))
            if self.parts == 1:
                self._write(values, place)
            else:
                pairs = [split_off(self.b, value, self.dtype) for value in values]
                self._write([stored for stored, _ in pairs], place)
                values = [rest for _, rest in pairs]

    def _write(self, values: list[Register], slot: Value) -> None:
        together = self.operand.along_steps == self.by_steps
        size = self.width * self.depth
        for number, (line, step) in enumerate(self.places if values else ()):
            given = values[number * size : (number + 1) * size]
            if together:
                self._store(given, line, step, slot)
                continue
            for column in range(self.width):
                self._store(given[column :: self.width], *self.operand.neighbour(line, step, column), slot)

    def _store(self, values: list[Register], line: Value, step: Value, slot: Value) -> None:
        """Puts elements that lie together in the tile, the first of which is that of a line and step."""
        b = self.b
        start = b.gep("i8", slot, self.offset(line, step))
        for number, value in enumerate(values):
            scalar.store(b, self.dtype, value, b.gep("i8", start, i64(number * self.itemsize)))


def rounded_to_tf32(b: Builder, bits: Value) -> Value:
    """The bits of a float, rounded to those that tf32 keeps, halves away from zero; what it does not keep is any."""
    return b.add(bits, b.select(_is_finite(b, bits), integer("i32", _TF32_HALF), integer("i32", 0)))


def split_off(b: Builder, value: Register, dtype: DType) -> tuple[Value, Value]:
    """The first bits of an f32, as a number of type `dtype` (F32: tf32), and the rest: 0 of what is infinite."""
    assert isinstance(value, Value)
    if dtype is F32:
        stored = b.bitcast(b.and_(rounded_to_tf32(b, b.bitcast(value, "i32")), integer("i32", ~_TF32_REST)), "float")
        wide = stored
    else:
        stored = scalar.convert(b, value, F32, dtype)
        wide = scalar.convert(b, stored, dtype, F32)
    rest = b.fsub(value, wide)
    return stored, b.select(_is_finite(b, b.bitcast(wide, "i32")), rest, const("float", 0.0))


def finite_only(b: Builder, dtype: DType, bits: Value) -> Value:
    """The bits of a float, or of two bf16, in an i32; 0 in place of infinite ones and NaN.

    What they are multiplied by has smaller parts, which are 0 or of any sign: only the product of the largest parts
    says what becomes of them.
    """
    if dtype is F32:
        return b.select(_is_finite(b, bits), bits, integer("i32", 0))
    beyond = b.add(b.and_(bits, integer("i32", 0x7F807F80)), integer("i32", 0x00800080))
    marks = b.lshr(b.and_(beyond, integer("i32", 0x80008000)), integer("i32", 15))
    return b.and_(bits, b.not_(b.mul(marks, integer("i32", 0xFFFF))))


def _is_finite(b: Builder, bits: Value) -> Value:
    return b.icmp_unsigned("<", b.and_(bits, integer("i32", 0x7FFFFFFF)), integer("i32", _INFINITY))
