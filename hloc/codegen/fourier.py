"""Discrete Fourier transforms of one dimension, of any length, of several lines at once.

Lengths without large prime factors go through Stockham's self-sorting passes of radix 4, 2 and small odd
numbers; other lengths through Bluestein's convolution with a chirp. Lines lie interleaved, element j of line
l at j * lines + l, real and imaginary parts in arrays of their own, so that vectors go along the lines.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.fourier_parts import (
    Split,
    butterfly,
    convolution_length,
    factors,
    groups_of,
    inverse,
    multiply,
    padded,
    pass_roots,
    root_tables,
)
from hloc.codegen.llvm import Builder, Function, Value, const, integer, lane_count, vector_type
from hloc.codegen.routines import Routines, i64
from hloc.ir.dtypes import DType
from hloc.records import record

_TABLE = 4096
"""Up to this length roots of unity are constants; beyond, they are computed from two short tables."""


# One pass


def _pass_routine(routines: Routines, dtype: DType, radix: int, lanes: int, single: bool) -> Function:
    """`f(xr, xi, yr, yi, roots, groups, width)`: one pass.

    x holds `radix` x `groups` x `width` values, y `groups` x `radix` x `width`. `roots` holds, for k = 1 ..
    radix - 1, `groups` real parts and then as many imaginary parts. With `single`, width is 1.
    """
    params = ", ".join(f"ptr noalias {name}" for name in ("xr", "xi", "yr", "yi", "roots"))
    name = f"hloc.fft.{dtype.name}.{radix}{'.single' if single else ''}"

    def write(b: Builder, p: SimpleNamespace) -> None:
        if single:
            p.width = i64(1)
        _PassWriter(b, p, dtype, radix).write(0 if single else lanes)

    return routines.get(name, f"{params}, i64 groups, i64 width", write)


class _PassWriter:
    """Writes the body of a pass with parameters `p`."""

    def __init__(self, b: Builder, p: SimpleNamespace, dtype: DType, radix: int):
        self.b, self.p, self.radix = b, p, radix
        self.type, self.align = scalar.memory_type(dtype), dtype.itemsize

    def write(self, lanes: int) -> None:
        """By vectors of `lanes` along the width, then one by one; 0 for a width of 1."""
        b, p = self.b, self.p
        with b.for_loop(0, p.groups) as group:
            rows = [b.mul(p.groups, i64(row)) for row in range(2 * (self.radix - 1))]
            parts = [self.load(self.type, p.roots, b.add(row, group)) for row in rows]
            roots = list(zip(parts[::2], parts[1::2], strict=True))
            if not lanes:
                self.values(group, i64(0), roots, self.type)
                return
            whole = b.sub(p.width, b.urem(p.width, i64(lanes)))
            with b.for_loop(i64(0), whole, lanes) as place:
                self.values(group, place, roots, vector_type(self.type, lanes))
            with b.for_loop(whole, p.width, vectorize=False, unroll=False) as place:
                self.values(group, place, roots, self.type)

    def load(self, kind: str, start: Value, offset: Value) -> Value:
        return self.b.load(kind, self.b.gep(self.type, start, offset), align=self.align)

    def values(self, group: Value, place: Value, roots: list[Split], kind: str) -> None:
        """The butterfly at a place of a group, of one value each or of vectors."""
        b, p, lanes = self.b, self.p, lane_count(kind)
        rows = [b.add(group, b.mul(p.groups, i64(j))) for j in range(self.radix)]
        offsets = [b.add(b.mul(row, p.width), place) for row in rows]
        y = butterfly(b, [(self.load(kind, p.xr, at), self.load(kind, p.xi, at)) for at in offsets])
        for k, value in enumerate(y):
            if k:
                value = multiply(b, value, tuple(b.splat(part, lanes) for part in roots[k - 1]))
            at = b.add(b.mul(b.add(b.mul(group, i64(self.radix)), i64(k)), p.width), place)
            for part, target in zip(value, (p.yr, p.yi), strict=True):
                b.store(part, b.gep(self.type, target, at), align=self.align)


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

    def fill(self, to: Split, count: int, factor: int, square: bool = False) -> None:
        """Roots number j * factor, or j * j, for j < count."""
        numbers = [i64(count), i64(factor), integer("i1", square), i64(self.length), i64(self.shift)]
        self.b.call(self.routine, [*to, *numbers, self.table])


# Passes of a length


@record
class Shape:
    """How many points, how many lines at once, of which real type."""

    dtype: DType
    length: int
    lines: int

    @property
    def work_bytes(self) -> int:
        """One of the arrays of parts."""
        return padded(self.length * self.lines * self.dtype.itemsize)

    @property
    def root_bytes(self) -> int:
        """The roots of all passes, if they are computed."""
        if self.length <= _TABLE:
            return 0
        return padded(2 * self.root_count * self.dtype.itemsize)

    @property
    def root_count(self) -> int:
        """Complex numbers of all passes' roots."""
        count, left = 0, self.length
        for radix in factors(self.length):
            left //= radix
            count += (radix - 1) * left
        return count


class Passes:
    """Emits the transform of one length without large prime factors."""

    def __init__(self, b: Builder, routines: Routines, shape: Shape, scratch: Value):
        self.b, self.routines, self.shape = b, routines, shape
        self.radices = factors(shape.length)
        self.lanes = max(routines.target.vector_bytes // shape.dtype.itemsize, 2)
        self.roots = self._constant_roots() if shape.length <= _TABLE else self._computed_roots(scratch)

    def _constant_roots(self) -> Value:
        return self.b.module.constant_bytes(pass_roots(self.shape.dtype, self.radices))

    def _computed_roots(self, scratch: Value) -> Value:
        table = RootTable(self.b, self.routines, self.shape.dtype, self.shape.length)
        type, at = scalar.memory_type(self.shape.dtype), 0
        for radix, groups in zip(self.radices, groups_of(self.radices), strict=True):
            for k in range(1, radix):
                place = tuple(self.b.gep(type, scratch, i64(at + part * groups)) for part in range(2))
                table.fill(place, groups, k * (self.shape.length // (groups * radix)))
                at += 2 * groups
        return scratch

    def run(self, x: Split, y: Split, lines: int) -> Split:
        """Transforms lines in x, with y for work; where the result is, one of both."""
        type, width, at = scalar.memory_type(self.shape.dtype), lines, 0
        for radix, groups in zip(self.radices, groups_of(self.radices), strict=True):
            routine = _pass_routine(self.routines, self.shape.dtype, radix, self.lanes, width == 1)
            roots = self.b.gep(type, self.roots, i64(at))
            self.b.call(routine, [*x, *y, roots, i64(groups), i64(width)])
            at += 2 * (radix - 1) * groups
            width *= radix
            x, y = y, x
        return x


# Bluestein's method


def _scale_routine(routines: Routines, dtype: DType) -> Function:
    """`f(xr, xi, tr, ti, count, lines)`: x[j * lines + l] *= t[j]."""
    type = scalar.memory_type(dtype)

    def write(b: Builder, p: SimpleNamespace) -> None:
        with b.for_loop(i64(0), p.count) as j:
            factor = tuple(b.load(type, b.gep(type, t, j)) for t in (p.tr, p.ti))
            with b.for_loop(i64(0), p.lines) as line:
                places = [b.gep(type, x, b.add(b.mul(j, p.lines), line)) for x in (p.xr, p.xi)]
                value = multiply(b, tuple(b.load(type, place) for place in places), factor)
                for part, place in zip(value, places, strict=True):
                    b.store(part, place)

    params = ", ".join(f"ptr noalias {name}" for name in ("xr", "xi", "tr", "ti"))
    return routines.get(f"hloc.fft.scale.{dtype.name}", f"{params}, i64 count, i64 lines", write)


class Transform:
    """Emits transforms of one shape; `scratch` has `scratch_bytes` of room, of which `buffers` are part.

    Callers put the values into `buffers[0]`, call `run`, and find the result where it says.
    """

    def __init__(self, b: Builder, routines: Routines, shape: Shape, scratch: Value):
        self.b, self.routines, self.shape = b, routines, shape
        self.type = scalar.memory_type(shape.dtype)
        self.scratch, self.used = scratch, 0
        self.direct = factors(shape.length) is not None
        inner = shape if self.direct else Shape(shape.dtype, convolution_length(shape.length), shape.lines)
        self.inner = inner
        self.buffers: list[Split] = [
            (self._room(inner.work_bytes), self._room(inner.work_bytes)) for _ in range(2)
        ]
        self.passes = Passes(b, routines, inner, self._room(inner.root_bytes))
        if not self.direct:
            self.chirp = self._chirp()
            self.spectrum = self._spectrum()

    @staticmethod
    def scratch_bytes(shape: Shape) -> int:
        """Bytes for a transform of that shape."""
        if factors(shape.length) is not None:
            return 4 * shape.work_bytes + shape.root_bytes
        inner = Shape(shape.dtype, convolution_length(shape.length), shape.lines)
        single = Shape(shape.dtype, inner.length, 1)
        return 4 * inner.work_bytes + inner.root_bytes + 2 * padded(shape.length * 8) + 4 * single.work_bytes

    def _room(self, size: int) -> Value:
        start, self.used = self.used, self.used + size
        return self.b.gep("i8", self.scratch, i64(start))

    def _chirp(self) -> Split:
        """exp(-pi i j j / length)."""
        length = self.shape.length
        chirp = (self._room(padded(length * 8)), self._room(padded(length * 8)))
        RootTable(self.b, self.routines, self.shape.dtype, 2 * length).fill(chirp, length, 0, square=True)
        return chirp

    def _spectrum(self) -> Split:
        """The transform of the chirp's conjugate, laid round the ends, over the length."""
        b, length, inner = self.b, self.shape.length, Shape(self.shape.dtype, self.inner.length, 1)
        x, y = ((self._room(inner.work_bytes), self._room(inner.work_bytes)) for _ in range(2))
        for part in x:
            b.memset(part, integer("i8", 0), i64(inner.work_bytes))
        with b.for_loop(i64(0), i64(length)) as j:
            real, imaginary = (b.load(self.type, b.gep(self.type, part, j)) for part in self.chirp)
            value = real, b.fneg(imaginary)
            mirrored = b.select(b.icmp_signed("==", j, i64(0)), i64(0), b.sub(i64(inner.length), j))
            for place in (j, mirrored):
                for part, target in zip(value, x, strict=True):
                    number = b.fmul(part, const(self.type, 1 / inner.length))
                    b.store(number, b.gep(self.type, target, place))
        return self.passes.run(x, y, 1)

    def run(self) -> Split:
        """Transforms the lines in `buffers[0]`; where the result is."""
        x, y = self.buffers
        if self.direct:
            return self.passes.run(x, y, self.shape.lines)
        b, lines = self.b, i64(self.shape.lines)
        scale = _scale_routine(self.routines, self.shape.dtype)
        b.call(scale, [*x, *self.chirp, i64(self.shape.length), lines])
        size = self.shape.length * self.shape.lines * self.shape.dtype.itemsize
        whole = self.inner.length * self.inner.lines * self.shape.dtype.itemsize
        for part in x:
            b.memset(b.gep("i8", part, i64(size)), integer("i8", 0), i64(whole - size))
        x = self.passes.run(x, y, self.shape.lines)
        y = self.buffers[1] if x is self.buffers[0] else self.buffers[0]
        b.call(scale, [*x, *self.spectrum, i64(self.inner.length), lines])
        # The inverse, by exchanging real and imaginary parts on both sides.
        result = inverse(self.passes.run(inverse(x), inverse(y), self.shape.lines))
        b.call(scale, [*result, *self.chirp, i64(self.shape.length), lines])
        return result
