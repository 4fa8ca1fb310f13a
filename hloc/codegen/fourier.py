"""Discrete Fourier transforms of one dimension, of any length, of one line or of several side by side.

Lengths without great prime factors go through the passes of `fourier_passes`; other lengths through Bluestein's
convolution with a chirp. Values lie in arrays of their real and of their imaginary parts. Of `lines` side by side,
element j of line l is at j * lines + l; there are as many as a vector has lanes, or one. One line alone needs a length
that is a multiple of the lanes, and of their square or longer; Bluestein's method makes it so.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from hloc.codegen import scalar
from hloc.codegen.fourier_parts import Split, groups_of, inverse, multiply, padded, pass_roots, root_tables
from hloc.codegen.fourier_passes import first_routine, is_listed, listed_table, pass_routine, radices_of
from hloc.codegen.llvm import Builder, Function, Value, const, integer
from hloc.codegen.routines import Routines, i64
from hloc.ir.dtypes import DType
from hloc.records import record

_TABLE = 4096
"""Up to this length roots of unity are constants; beyond, they are computed from two short tables."""


# Roots of unity


def _roots_routine(routines: Routines, dtype: DType) -> Function:
    """`f(to_real, to_imaginary, count, factor, square, length, shift, table)`.

    Roots number j * factor (or j * j, with `square`) of unity's `length` roots, j < count, each the product
    of two entries of a table of doubles: cos and sin of the multiples of 2**shift, then of the numbers below
    it.
    """
    type = scalar.memory_type(dtype)

    def entry(b: Builder, table: Value, number: Value) -> Split:
        place = b.gep("double", table, b.shl(number, i64(1)))
        return b.load("double", place), b.load("double", b.gep("double", place, i64(1)))

    def write(b: Builder, p: SimpleNamespace) -> None:
        with b.for_loop(i64(0), p.count) as j:
            number = b.urem(b.mul(j, b.select(p.square, j, p.factor)), p.length)
            high = b.lshr(number, p.shift)
            low = b.sub(number, b.shl(high, p.shift))
            fine = b.add(b.lshr(b.sub(p.length, i64(1)), p.shift), i64(1))
            root = multiply(b, entry(b, p.table, high), entry(b, p.table, b.add(fine, low)))
            for part, target in zip(root, (p.to_real, p.to_imaginary), strict=True):
                b.store(part if type == "double" else b.fptrunc(part, type), b.gep(type, target, j))

    params = (
        "ptr to_real, ptr to_imaginary, i64 count, i64 factor, i1 square, i64 length, i64 shift, ptr table"
    )
    return routines.get(f"hloc.fft.roots.{dtype.name}", params, write)


class RootTable:
    """Computes roots of unity of one length in generated code."""

    def __init__(self, b: Builder, routines: Routines, dtype: DType, length: int):
        self.b, self.length = b, length
        data, self.shift = root_tables(length)
        self.table = b.module.constant_bytes(data)
        self.routine = _roots_routine(routines, dtype)

    def fill(self, to: Split, count: int, factor: Value, square: bool = False) -> None:
        """Roots number j * factor, or j * j, for j < count."""
        numbers = [i64(count), factor, integer("i1", square), i64(self.length), i64(self.shift)]
        self.b.call(self.routine, [*to, *numbers, self.table])


# Passes of a length


def stands_alone(length: int, lanes: int) -> bool:
    """Whether a single line of that length can be transformed by its own vectors."""
    return length % lanes == 0 and length >= lanes * lanes or radices_of(length) is None


@record
class Shape:
    """How many points, how many lines side by side, of which real type; `lanes` of a vector."""

    dtype: DType
    length: int
    lines: int
    lanes: int

    @property
    def radices(self) -> list[int] | None:
        return radices_of(self.length, self.lanes if self.lines == 1 else 0)

    @property
    def work_bytes(self) -> int:
        """One of the arrays of parts."""
        return padded(self.length * self.lines * self.dtype.itemsize)

    @property
    def root_bytes(self) -> int:
        """The roots of all passes, if they are computed."""
        return 0 if self.length <= _TABLE else padded(2 * self.root_count * self.dtype.itemsize)

    @property
    def root_count(self) -> int:
        """Complex numbers of all passes' roots."""
        return sum((radix - 1) * groups for radix, groups in zip(self.radices, groups_of(self.radices), strict=True))

    @property
    def convolution(self) -> Shape:
        """The least shape of passes that holds a convolution of the points with a chirp."""
        unit = self.lanes * self.lanes
        length = -(-(2 * self.length - 1) // unit) * unit
        while max(radices_of(length) or [length]) > 8:
            length += unit
        return Shape(self.dtype, length, self.lines, self.lanes)

    @property
    def alone(self) -> Shape:
        return Shape(self.dtype, self.length, 1, self.lanes)


class Passes:
    """Emits the transform of one shape without great prime factors."""

    def __init__(self, b: Builder, routines: Routines, shape: Shape, scratch: Value):
        self.b, self.routines, self.shape = b, routines, shape
        self.radices = shape.radices
        self.roots = self._constant_roots() if shape.length <= _TABLE else self._computed_roots(scratch)

    def _constant_roots(self) -> Value:
        return self.b.module.constant_bytes(pass_roots(self.shape.dtype, self.radices))

    def _computed_roots(self, scratch: Value) -> Value:
        table = RootTable(self.b, self.routines, self.shape.dtype, self.shape.length)
        type, at = scalar.memory_type(self.shape.dtype), 0
        for radix, groups in zip(self.radices, groups_of(self.radices), strict=True):
            for k in range(1, radix):
                place = tuple(self.b.gep(type, scratch, i64(at + part * groups)) for part in range(2))
                table.fill(place, groups, i64(k * (self.shape.length // (groups * radix))))
                at += 2 * groups
        return scratch

    def run(self, x: Split, y: Split) -> Split:
        """Transforms the lines in x, with y for work; where the result is, one of both."""
        type, width, at = scalar.memory_type(self.shape.dtype), self.shape.lines, 0
        for radix, groups in zip(self.radices, groups_of(self.radices), strict=True):
            given = [*x, *y, self.b.gep(type, self.roots, i64(at)), i64(groups)]
            self._pass(radix, width, given)
            at += 2 * (radix - 1) * groups
            width *= radix
            x, y = y, x
        return x

    def _pass(self, radix: int, width: int, given: list[Value]) -> None:
        dtype, lanes = self.shape.dtype, self.shape.lanes
        if width == 1:
            self.b.call(first_routine(self.routines, dtype, lanes), given)
            return
        if is_listed(radix):
            rest = [i64(width), i64(radix), self.b.module.constant_bytes(listed_table(dtype, radix))]
        else:
            rest = [i64(width)]
        self.b.call(pass_routine(self.routines, dtype, radix, lanes), [*given, *rest])


# Bluestein's method


def _scale_routine(routines: Routines, dtype: DType, lines: int) -> Function:
    """`f(xr, xi, tr, ti, count)`: x[j * lines + l] *= t[j]."""
    type = scalar.memory_type(dtype)

    def write(b: Builder, p: SimpleNamespace) -> None:
        with b.for_loop(i64(0), p.count) as j:
            factor = tuple(b.load(type, b.gep(type, t, j)) for t in (p.tr, p.ti))
            with b.for_loop(0, lines) as line:
                places = [b.gep(type, x, b.add(b.mul(j, i64(lines)), line)) for x in (p.xr, p.xi)]
                value = multiply(b, tuple(b.load(type, place) for place in places), factor)
                for part, place in zip(value, places, strict=True):
                    b.store(part, place)

    params = ", ".join(f"ptr noalias {name}" for name in ("xr", "xi", "tr", "ti"))
    return routines.get(f"hloc.fft.scale.{dtype.name}.{lines}", f"{params}, i64 count", write)


class Transform:
    """Emits transforms of one shape; `scratch` has `scratch_bytes` of room, of which `buffers` are part.

    Callers put the values into `buffers[0]`, call `run`, and find the result where it says.
    """

    def __init__(self, b: Builder, routines: Routines, shape: Shape, scratch: Value):
        self.b, self.routines, self.shape = b, routines, shape
        self.type = scalar.memory_type(shape.dtype)
        self.scratch, self.used = scratch, 0
        self.direct = shape.radices is not None
        self.inner = inner = shape if self.direct else shape.convolution
        self.buffers: list[Split] = [
            (self._room(inner.work_bytes), self._room(inner.work_bytes)) for _ in range(2)
        ]
        self.passes = Passes(b, routines, inner, self._room(inner.root_bytes))
        if not self.direct:
            constant = inner.length <= _TABLE
            self.chirp, self.spectrum = self._constant_chirp() if constant else self._computed_chirp()

    @staticmethod
    def scratch_bytes(shape: Shape) -> int:
        """Bytes for a transform of that shape."""
        if shape.radices is not None:
            return 4 * shape.work_bytes + shape.root_bytes
        inner = shape.convolution
        fixed = 4 * inner.work_bytes + inner.root_bytes
        if inner.length <= _TABLE:
            return fixed
        return fixed + inner.alone.root_bytes + 2 * padded(shape.length * 8) + 4 * inner.alone.work_bytes

    def _room(self, size: int) -> Value:
        start, self.used = self.used, self.used + size
        return self.b.gep("i8", self.scratch, i64(start))

    def _constant_chirp(self) -> tuple[Split, Split]:
        """exp(-pi i j j / length), and the transform of its conjugate laid round the ends, over the inner length."""
        length, inner = self.shape.length, self.inner.length
        number = np.arange(length) ** 2 % (2 * length)
        chirp = np.exp(-1j * np.pi * number / length)
        around = np.zeros(inner, np.complex128)
        around[:length] = chirp.conj()
        around[inner - length + 1 :] = chirp[:0:-1].conj()
        return self._constant(chirp), self._constant(np.fft.fft(around) / inner)

    def _constant(self, values: np.ndarray) -> Split:
        dtype = self.shape.dtype.numpy.newbyteorder("<")
        return tuple(self.b.module.constant_bytes(part.astype(dtype).tobytes()) for part in (values.real, values.imag))

    def _computed_chirp(self) -> tuple[Split, Split]:
        length = self.shape.length
        chirp = (self._room(padded(length * 8)), self._room(padded(length * 8)))
        table = RootTable(self.b, self.routines, self.shape.dtype, 2 * length)
        table.fill(chirp, length, i64(0), square=True)
        return chirp, self._spectrum(chirp)

    def _spectrum(self, chirp: Split) -> Split:
        b, length, inner = self.b, self.shape.length, self.inner.alone
        x, y = ((self._room(inner.work_bytes), self._room(inner.work_bytes)) for _ in range(2))
        for part in x:
            b.memset(part, integer("i8", 0), i64(inner.work_bytes))
        with b.for_loop(i64(0), i64(length)) as j:
            real, imaginary = (b.load(self.type, b.gep(self.type, part, j)) for part in chirp)
            value = real, b.fneg(imaginary)
            mirrored = b.select(b.icmp_signed("==", j, i64(0)), i64(0), b.sub(i64(inner.length), j))
            for place in (j, mirrored):
                for part, target in zip(value, x, strict=True):
                    number = b.fmul(part, const(self.type, 1 / inner.length))
                    b.store(number, b.gep(self.type, target, place))
        return Passes(b, self.routines, inner, self._room(inner.root_bytes)).run(x, y)

    def run(self) -> Split:
        """Transforms the lines in `buffers[0]`; where the result is."""
        x, y = self.buffers
        if self.direct:
            return self.passes.run(x, y)
        b, shape = self.b, self.shape
        scale = _scale_routine(self.routines, shape.dtype, shape.lines)
        b.call(scale, [*x, *self.chirp, i64(shape.length)])
        size = shape.length * shape.lines * shape.dtype.itemsize
        whole = self.inner.length * shape.lines * shape.dtype.itemsize
        for part in x:
            b.memset(b.gep("i8", part, i64(size)), integer("i8", 0), i64(whole - size))
        x = self.passes.run(x, y)
        y = self.buffers[1] if x is self.buffers[0] else self.buffers[0]
        b.call(scale, [*x, *self.spectrum, i64(self.inner.length)])
        # The inverse, by exchanging real and imaginary parts on both sides.
        result = inverse(self.passes.run(inverse(x), inverse(y)))
        b.call(scale, [*result, *self.chirp, i64(shape.length)])
        return result
