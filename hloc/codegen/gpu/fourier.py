"""Discrete Fourier transforms of many lines on a device, of any length.

A length without large prime factors is taken in one pass or a few (`passes_of`), each a launch: in it a block
transforms some short lines in shared memory, by Stockham's self-sorting passes of small radices, and what is between
two launches lies in scratch. These passes are Stockham's too, of large radices. Other lengths go through Bluestein's
convolution with a chirp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from math import prod

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.fourier_parts import (
    Split,
    butterfly,
    convolution_length,
    factors,
    groups_of,
    inverse,
    multiply,
    pass_roots,
    root_tables,
)
from hloc.codegen.gpu.blocks import each_of_block
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.llvm import Value, const
from hloc.codegen.loops import delinearize
from hloc.codegen.routines import i64
from hloc.ir.dtypes import C64, C128, F32, DType
from hloc.ir.shapes import ArrayShape
from hloc.records import record

_SHARED = 64 * 1024
"""Bytes of shared memory for a block's lines, twice: from one buffer into the other and back."""

_PADDED = 72 * 1024
"""The same with what keeps several lines in banks of their own, where there is so much."""

_SEVERAL = 8
"""Lines of a block, at least, in passes of which there are several."""

_SECTOR = 32
"""Bytes that memory is read by: as many lines are needed if neighbours are of different ones."""

_BLOCK = 1024
"""Elements of a block, at least, if there are so many."""

_EACH = 8
"""Elements of a thread: half of the greatest radix, so that few threads have nothing to do in a pass."""

Load = Callable[[GpuContext, Value, Value], Split]
"""load(k, line, position)"""

Store = Callable[[GpuContext, Value, Value, Split], None]
"""store(k, line, position, value)"""


def complex_type(dtype: DType) -> DType:
    """The complex type of real parts of `dtype`."""
    return C64 if dtype is F32 else C128


def _longest(dtype: DType, lines: int) -> int:
    """The longest lines of which a block holds so many."""
    return _SHARED // (2 * complex_type(dtype).itemsize * lines)


def passes_of(dtype: DType, length: int, across: bool) -> list[int]:
    """The lengths of the passes for a length that has factors: about equal, their product is the length.

    `across` says that neighbours in memory are of different lines.
    """
    if length <= _longest(dtype, _SECTOR // complex_type(dtype).itemsize if across else 1):
        return [length]
    parts = sorted(factors(length, (2,)), reverse=True)
    count = 2
    while True:
        found = [1] * count
        for part in parts:
            found[found.index(min(found))] *= part
        if max(found) <= _longest(dtype, _SEVERAL):
            return sorted(found, reverse=True)
        count += 1


def inner_length(length: int) -> int:
    """The length of the passes: that of the convolution, for a length with large prime factors."""
    return length if factors(length) is not None else convolution_length(length)


@record
class Lines:
    """`count` lines of `length` elements with real parts of `dtype`; `across`: neighbours in memory are of other lines.

    In scratch they lie alike.
    """

    dtype: DType
    count: int
    length: int
    across: bool

    def of_length(self, length: int) -> Lines:
        return Lines(self.dtype, self.count, length, self.across)

    @property
    def bytes(self) -> int:
        return -(-self.count * self.length * complex_type(self.dtype).itemsize // 64) * 64

    @property
    def passes(self) -> list[int]:
        return passes_of(self.dtype, self.length, self.across)

    @property
    def between_bytes(self) -> int:
        """For what is between passes: each reads what the one before has left."""
        return self.bytes * min(len(self.passes) - 1, 2)

    @property
    def scratch_bytes(self) -> int:
        """For `transform`."""
        inner = self.of_length(inner_length(self.length))
        if inner.length == self.length:
            return inner.between_bytes
        spectrum = Lines(self.dtype, 1, inner.length, False)
        return max(inner.between_bytes, spectrum.between_bytes) + spectrum.bytes + inner.bytes

    def array(self, k: GpuContext, offset: int) -> ArrayRef:
        """Such lines in scratch."""
        dims = (self.length, self.count) if self.across else (self.count, self.length)
        shape = ArrayShape(complex_type(self.dtype), dims)
        return ArrayRef(k.b, shape, k.b.gep("i8", k.scratch, i64(offset)))

    def in_scratch(self, offset: int) -> tuple[Load, Store]:
        """How to load and store such lines in scratch."""

        def at(line: Value, position: Value) -> tuple[Value, Value]:
            return (position, line) if self.across else (line, position)

        def load(k: GpuContext, line: Value, position: Value) -> Split:
            return self.array(k, offset).load(at(line, position))

        def store(k: GpuContext, line: Value, position: Value, value: Split) -> None:
            self.array(k, offset).store(at(line, position), value)

        return load, store


def transform(g: GpuStep, lines: Lines, load: Load, store: Store, scratch: int = 0) -> None:
    """Transforms lines, forwards; `scratch` is where their `scratch_bytes` begin."""
    if inner_length(lines.length) == lines.length:
        _passes(g, lines, load, store, scratch)
    else:
        _Bluestein(g, lines, load, store, scratch).write()


def _passes(g: GpuStep, lines: Lines, load: Load, store: Store, scratch: int) -> None:
    lengths, width = lines.passes, 1
    for number, length in enumerate(lengths):
        source, target = load, store
        if number:
            source = lines.in_scratch(scratch + (number - 1) % 2 * lines.bytes)[0]
        if number < len(lengths) - 1:
            target = lines.in_scratch(scratch + number % 2 * lines.bytes)[1]
        _Pass(g, lines, length, width).write(source, target)
        width *= length


class _Pass:
    """One launch: transforms of `length` elements, of `groups` x `width` in each line.

    Element j of the transform (group, place) is the line's number (j * groups + group) * width + place before, and
    (group * length + j) * width + place after it. `together` are the transforms of a block.
    """

    def __init__(self, g: GpuStep, lines: Lines, length: int, width: int):
        self.g, self.lines, self.length, self.width = g, lines, length, width
        self.groups = lines.length // (length * width)
        self.total = lines.count * self.groups * width
        self.dtype = complex_type(lines.dtype)
        self.radices = factors(length, (16, 8, 4, 2) if lines.dtype is F32 else (8, 4, 2))
        wanted = 16 if self.groups * width > 1 or lines.across else 1
        self.together = 1
        while (
            self.together < self.total
            and (self.together < wanted or self.together * length < _BLOCK)
            and 2 * self.buffer_bytes(2 * self.together) <= min(_PADDED, g.device.shared_bytes)
        ):
            self.together *= 2

    def buffer_bytes(self, together: int) -> int:
        return together * self.pitch(together) * self.dtype.itemsize

    def pitch(self, together: int) -> int:
        """Elements from one of a block's lines to the next: odd, so that they are spread over banks."""
        return self.length | 1 if together > 1 else self.length

    def write(self, load: Load, store: Store) -> None:
        count = self.together * self.length
        threads = min(max(-(-count // _EACH // 32) * 32, 32), 256)
        blocks = -(-self.total // self.together)
        with self.g.launch(blocks, threads, 2 * self.buffer_bytes(self.together), name="fft") as k:
            buffers = [self._buffer(k, number) for number in (0, 1)]
            by_position = self.groups * self.width == 1 and not self.lines.across
            for here, (line, first), j in self._elements(k, by_position):
                position = k.b.add(k.b.mul(j, i64(self.groups * self.width)), first[0])
                buffers[0].store((here, j), load(k, line, position))
            k.gpu.barrier()
            for number, at in enumerate(self._offsets()):
                self._radix(k, buffers, number, at)
                buffers.reverse()
                k.gpu.barrier()
            for here, (line, first), j in self._elements(k, self.width == 1 and not self.lines.across):
                position = k.b.add(k.b.mul(j, i64(self.width)), first[1])
                value = buffers[0].load((here, j))
                if self.groups > 1:
                    value = multiply(k.b, value, self._twiddle(k, first[2], j))
                store(k, line, position, value)

    def _buffer(self, k: GpuContext, number: int) -> ArrayRef:
        shape = ArrayShape(self.dtype, (self.together, self.pitch(self.together)))
        return ArrayRef(k.b, shape, k.gpu.shared(number * self.buffer_bytes(self.together)))

    def _elements(self, k: GpuContext, by_position: bool) -> Iterator[tuple]:
        """A loop over the block's elements: (number in the block, where the transform is, element).

        Neighbouring threads have neighbours in the transform, `by_position`, or of several transforms. Where it is:
        the line, and the positions of its element 0 before and after, and the group.
        """
        b = k.b
        with each_of_block(k, self.together * self.length) as number:
            if by_position:
                here, j = b.udiv(number, i64(self.length)), b.urem(number, i64(self.length))
            else:
                here, j = b.urem(number, i64(self.together)), b.udiv(number, i64(self.together))
            with self._if_transform(k, here):
                yield here, self._place(k, self._number(k, here)), j

    def _number(self, k: GpuContext, here: Value) -> Value:
        return k.b.add(k.b.mul(k.block_index(), i64(self.together)), here)

    def _if_transform(self, k: GpuContext, here: Value) -> AbstractContextManager[None]:
        """What is inside happens if the block has so many transforms."""
        return k.b.if_then(k.b.icmp_unsigned("<", self._number(k, here), i64(self.total)))

    def _place(self, k: GpuContext, transform: Value) -> tuple[Value, tuple[Value, Value, Value]]:
        b = k.b
        if self.lines.across:
            group, place, line = delinearize(b, transform, [self.groups, self.width, self.lines.count])
        else:
            line, group, place = delinearize(b, transform, [self.lines.count, self.groups, self.width])
        scaled = b.mul(group, i64(self.width))
        return line, (b.add(scaled, place), b.add(b.mul(scaled, i64(self.length)), place), group)

    def _twiddle(self, k: GpuContext, group: Value, j: Value) -> Split:
        return root(k, self.lines.dtype, self.groups * self.length, k.b.mul(group, j))

    # In shared memory

    def _offsets(self) -> list[int]:
        """Where the roots of each radix's pass begin."""
        sizes = [2 * (radix - 1) * groups for radix, groups in zip(self.radices, groups_of(self.radices), strict=True)]
        return [sum(sizes[:number]) for number in range(len(sizes))]

    def _radix(self, k: GpuContext, buffers: list[ArrayRef], number: int, at: int) -> None:
        """One pass of a small radix over all of the block's lines, from one buffer to the other."""
        b, (source, target) = k.b, buffers
        radix, groups = self.radices[number], groups_of(self.radices)[number]
        width = prod(self.radices[:number])
        each = self.length // radix
        with each_of_block(k, each * self.together) as e, self._if_transform(k, b.urem(e, i64(self.together))):
            here, place = b.urem(e, i64(self.together)), b.udiv(e, i64(self.together))
            values = [source.load((here, b.add(place, i64(j * each)))) for j in range(radix)]
            values = butterfly(b, values)
            group = b.udiv(place, i64(width))
            if groups > 1:
                values[1:] = [
                    multiply(b, value, self._root(k, at + 2 * (j - 1) * groups, groups, group))
                    for j, value in enumerate(values[1:], 1)
                ]
            first = b.add(b.mul(b.mul(group, i64(width)), i64(radix - 1)), place)
            for j, value in enumerate(values):
                target.store((here, b.add(first, i64(j * width))), value)

    def _root(self, k: GpuContext, at: int, groups: int, group: Value) -> Split:
        type = buffer_type(self.lines.dtype)
        table = k.b.gep(type, k.b.module.constant_bytes(pass_roots(self.lines.dtype, self.radices)), i64(at))
        real = k.b.load(type, k.b.gep(type, table, group))
        return real, k.b.load(type, k.b.gep(type, table, k.b.add(group, i64(groups))))


def buffer_type(dtype: DType) -> str:
    """LLVM's type of a real part."""
    return "float" if dtype is F32 else "double"


def root(k: GpuContext, dtype: DType, length: int, number: Value) -> Split:
    """exp(-2 pi i number / length), for a number (i64) below the length, by way of doubles."""
    b = k.b
    data, shift = root_tables(length)
    table = b.module.constant_bytes(data)
    fine = ((length - 1) >> shift) + 1

    def entry(number: Value) -> Split:
        place = b.gep("double", table, b.mul(number, i64(2)))
        return b.load("double", place), b.load("double", b.gep("double", place, i64(1)))

    high = entry(b.lshr(number, i64(shift)))
    low = entry(b.add(b.and_(number, i64((1 << shift) - 1)), i64(fine)))
    found = multiply(b, high, low)
    return found if dtype is not F32 else (b.fptrunc(found[0], "float"), b.fptrunc(found[1], "float"))


class _Bluestein:
    """A transform as a convolution with exp(-pi i j j / length), of a length that has factors.

    Scratch: what the passes need, the chirp's spectrum, the spectrum of the lines.
    """

    def __init__(self, g: GpuStep, lines: Lines, load: Load, store: Store, scratch: int):
        self.g, self.lines, self.load, self.store, self.scratch = g, lines, load, store, scratch
        self.inner = lines.of_length(inner_length(lines.length))
        chirp = Lines(lines.dtype, 1, self.inner.length, False)
        self.chirp_lines, self.at_chirp = chirp, scratch + max(self.inner.between_bytes, chirp.between_bytes)
        self.at_lines = self.at_chirp + chirp.bytes

    def write(self) -> None:
        load_spectrum, store_spectrum = self.chirp_lines.in_scratch(self.at_chirp)
        load_lines, store_lines = self.inner.in_scratch(self.at_lines)
        _passes(self.g, self.chirp_lines, self._conjugate_chirp, store_spectrum, self.scratch)

        def multiplied(k: GpuContext, line: Value, position: Value, value: Split) -> None:
            """The inverse transform follows: of the parts exchanged."""
            product = multiply(k.b, value, load_spectrum(k, i64(0), position))
            store_lines(k, line, position, inverse(product))

        def finished(k: GpuContext, line: Value, position: Value, value: Split) -> None:
            with k.b.if_then(k.b.icmp_signed("<", position, i64(self.lines.length))):
                self.store(k, line, position, multiply(k.b, inverse(value), self._chirp(k, position)))

        _passes(self.g, self.inner, self._with_chirp, multiplied, self.scratch)
        _passes(self.g, self.inner, load_lines, finished, self.scratch)

    def _chirp(self, k: GpuContext, j: Value) -> Split:
        period = 2 * self.lines.length
        return root(k, self.lines.dtype, period, k.b.urem(k.b.mul(j, j), i64(period)))

    def _conjugate_chirp(self, k: GpuContext, line: Value, position: Value) -> Split:
        """Laid round the ends, with zeros between, over the length: so that the inverse transform needs no factor."""
        b, length, inner = k.b, self.lines.length, self.inner.length
        mirrored = b.sub(i64(inner), position)
        j = b.select(b.icmp_signed("<", position, i64(length)), position, mirrored)

        def value() -> Split:
            real, imaginary = self._chirp(k, j)
            factor = const(real.type, 1 / inner)
            return b.fmul(real, factor), b.fneg(b.fmul(imaginary, factor))

        return k.choose(b.icmp_signed("<", j, i64(length)), value, lambda: self._zero())

    def _with_chirp(self, k: GpuContext, line: Value, position: Value) -> Split:
        def value() -> Split:
            return multiply(k.b, self.load(k, line, position), self._chirp(k, position))

        return k.choose(k.b.icmp_signed("<", position, i64(self.lines.length)), value, lambda: self._zero())

    def _zero(self) -> Split:
        zero = const(buffer_type(self.lines.dtype), 0)
        return zero, zero
