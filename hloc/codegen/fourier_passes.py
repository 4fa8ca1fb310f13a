"""One pass of a Fourier transform, as routines over vectors, and the radices of the passes.

Values lie in arrays of their real and of their imaginary parts. A pass reads `radix` x `groups` x `width` values and
writes `groups` x `radix` x `width` of them (Stockham's self-sorting passes); vectors go along the width. In the first
pass of a line that stands alone the width is 1: there they go along the groups, and are transposed on their way out.
"""

from __future__ import annotations

from math import cos, pi, sin
from types import SimpleNamespace

import numpy as np

from hloc.codegen import scalar
from hloc.codegen.fourier_parts import Split, butterfly, multiply
from hloc.codegen.llvm import Builder, Function, Value, lane_count, vector_type, zero
from hloc.codegen.routines import PLAIN, Routines, i64
from hloc.ir.dtypes import DType

_UNROLLED = (3, 5)
"""Odd radices written out; others are loops over a table."""

MOST_PRIME = 61
"""The greatest odd radix."""

_ARRAYS = ", ".join(f"ptr noalias {name}" for name in ("xr", "xi", "yr", "yi", "roots"))


def radices_of(length: int, first: int = 0) -> list[int] | None:
    """The radices of the passes for a length, the `first` as given, if it is; None if there is a greater prime factor.

    Of powers of two as few as go with 8 and 4.
    """
    found = [first] if first else []
    if first:
        length, rest = divmod(length, first)
        if rest:
            return None
    twos = (length & -length).bit_length() - 1
    length >>= twos
    passes = -(-twos // 3)
    eights = max(twos - 2 * passes, 0)
    found += [2] if twos == 1 else [8] * eights + [4] * (passes - eights)
    for prime in range(3, MOST_PRIME + 1, 2):
        while length % prime == 0:
            found.append(prime)
            length //= prime
    return found if length == 1 else None


def pass_routine(routines: Routines, dtype: DType, radix: int, lanes: int) -> Function:
    """`f(xr, xi, yr, yi, roots, groups, width)`: one pass, the width a multiple of `lanes`.

    `roots` holds, for k = 1 .. radix - 1, `groups` real parts and then as many imaginary parts. Of radices that are not
    written out, `f(..., width, radix, table)`, with the cosines and sines of the multiples of 2 pi / radix.
    """
    if is_listed(radix):
        params, write = f"{_ARRAYS}, i64 groups, i64 width, i64 radix, ptr noalias table", _Listed
        name = f"hloc.fft.{dtype.name}.listed.{lanes}"
        return routines.get(name, params, lambda b, p: write(b, p, dtype, lanes, p.radix).write())
    name = f"hloc.fft.{dtype.name}.{radix}.{lanes}"
    params = f"{_ARRAYS}, i64 groups, i64 width"
    return routines.get(
        name, params, lambda b, p: _Along(b, p, dtype, lanes, i64(radix)).write(radix), stage=PLAIN
    )


def first_routine(routines: Routines, dtype: DType, lanes: int) -> Function:
    """`f(xr, xi, yr, yi, roots, groups)`: the first pass of one line, of radix `lanes`, and at least as many groups."""
    params = f"{_ARRAYS}, i64 groups"
    name = f"hloc.fft.{dtype.name}.first.{lanes}"
    return routines.get(name, params, lambda b, p: _First(b, p, dtype, lanes, i64(lanes)).write(), stage=PLAIN)


def is_listed(radix: int) -> bool:
    """Whether a pass of this radix goes by a table."""
    return radix % 2 == 1 and radix not in _UNROLLED


def listed_table(dtype: DType, radix: int) -> bytes:
    """The table of such a pass."""
    angles = [2 * pi * j / radix for j in range(radix)]
    return np.array([*map(cos, angles), *map(sin, angles)], dtype.numpy.newbyteorder("<")).tobytes()


class _Pass:
    """What the bodies of passes are written with: their parameters `p`, and vectors of `lanes`."""

    def __init__(self, b: Builder, p: SimpleNamespace, dtype: DType, lanes: int, radix: Value):
        self.b, self.p, self.lanes, self.radix = b, p, lanes, radix
        b.fast = "contract"
        self.type, self.align = scalar.memory_type(dtype), dtype.itemsize
        self.vector = vector_type(self.type, lanes)

    def at(self, start: Value, offset: Value) -> Value:
        return self.b.gep(self.type, start, offset)

    def load(self, offset: Value) -> Split:
        """A vector of x."""
        return tuple(self.b.load(self.vector, self.at(x, offset), align=self.align) for x in (self.p.xr, self.p.xi))

    def store(self, value: Split, offset: Value) -> None:
        """Puts a vector into y."""
        for part, target in zip(value, (self.p.yr, self.p.yi), strict=True):
            self.b.store(part, self.at(target, offset), align=self.align)

    def root(self, k: Value, group: Value, type: str) -> Split:
        """The roots for output k >= 1, from a group on."""
        b, row = self.b, self.b.mul(self.b.shl(self.b.sub(k, i64(1)), i64(1)), self.p.groups)
        rows = row, b.add(row, self.p.groups)
        return tuple(b.load(type, self.at(self.p.roots, b.add(r, group)), align=self.align) for r in rows)

    def turned(self, value: Split, root: Split) -> Split:
        """A vector times one root."""
        return multiply(self.b, value, tuple(self.b.splat(part, self.lanes) for part in root))

    def input(self, j: Value, group: Value, place: Value) -> Value:
        """The offset of input j at a place of a group."""
        b, p = self.b, self.p
        return b.add(b.mul(b.add(b.mul(j, p.groups), group), p.width), place)

    def output(self, k: Value, group: Value, place: Value) -> Value:
        b = self.b
        return b.add(b.mul(b.add(b.mul(group, self.radix), k), self.p.width), place)


class _Along(_Pass):
    """A butterfly that is written out."""

    def write(self, radix: int) -> None:
        b, p = self.b, self.p
        numbers = [i64(k) for k in range(radix)]
        with b.for_loop(i64(0), p.groups, unroll=False) as group:
            roots = [self.root(k, group, self.type) for k in numbers[1:]]
            with b.for_loop(i64(0), p.width, self.lanes, unroll=False) as place:
                y = butterfly(b, [self.load(self.input(j, group, place)) for j in numbers])
                turned = [y[0], *(self.turned(value, root) for value, root in zip(y[1:], roots, strict=True))]
                for k, value in zip(numbers, turned, strict=True):
                    self.store(value, self.output(k, group, place))


class _Listed(_Pass):
    """The transform of an odd number of values by its sums, in pairs of values as far from both ends."""

    def write(self) -> None:
        b, p, one = self.b, self.p, i64(1)
        self.half = b.lshr(p.radix, one)
        self.pairs = b.room(self.vector, 4 * (MOST_PRIME // 2), align=64)
        with (
            b.for_loop(i64(0), p.groups, unroll=False) as group,
            b.for_loop(i64(0), p.width, self.lanes, unroll=False) as place,
        ):
            first = self.load(self.input(i64(0), group, place))
            self.store(self.paired(group, place, first), self.output(i64(0), group, place))
            with b.for_loop(one, b.add(self.half, one), unroll=False) as k:
                self.two_outputs(group, place, first, k)

    def pair(self, j: Value, part: int) -> Value:
        return self.b.gep(self.vector, self.pairs, self.b.add(self.b.shl(self.b.sub(j, i64(1)), i64(2)), i64(part)))

    def paired(self, group: Value, place: Value, first: Split) -> Split:
        """Keeps the sums and differences of pairs; the sum of all values."""
        b, p, one = self.b, self.p, i64(1)

        def step(j: Value, total: list[Value]) -> list[Value]:
            x, y = (self.load(self.input(n, group, place)) for n in (j, b.sub(p.radix, j)))
            parts = [add(one, other) for add in (b.fadd, b.fsub) for one, other in zip(x, y, strict=True)]
            for number, part in enumerate(parts):
                b.store(part, self.pair(j, number))
            return [b.fadd(part, more) for part, more in zip(total, parts, strict=False)]

        return tuple(b.for_loop_carrying(one, b.add(self.half, one), list(first), step, vectorize=False, unroll=False))

    def two_outputs(self, group: Value, place: Value, first: Split, k: Value) -> None:
        """Outputs k and radix - k."""
        b, p, one = self.b, self.p, i64(1)

        def step(j: Value, carried: list[Value]) -> list[Value]:
            number, *sums = carried
            number = b.add(number, k)
            number = b.select(b.icmp_signed(">=", number, p.radix), b.sub(number, p.radix), number)
            places = number, b.add(number, p.radix)
            c, s = (b.splat(b.load(self.type, self.at(p.table, at)), self.lanes) for at in places)
            parts = [b.load(self.vector, self.pair(j, n)) for n in (0, 1, 3, 2)]
            return [number, *(b.fadd(x, b.fmul(y, f)) for x, y, f in zip(sums, parts, (c, c, s, s), strict=True))]

        initial = [i64(0), *first, zero(self.vector), zero(self.vector)]
        _, even, other, odd, last = b.for_loop_carrying(
            one, b.add(self.half, one), initial, step, vectorize=False, unroll=False
        )
        low = b.fadd(even, odd), b.fsub(other, last)
        high = b.fsub(even, odd), b.fadd(other, last)
        for number, value in ((k, low), (b.sub(p.radix, k), high)):
            root = self.root(number, group, self.type)
            self.store(self.turned(value, root), self.output(number, group, place))


class _First(_Pass):
    """The first pass of a line: `lanes` groups at a time; the last ones may be some of those before again."""

    def write(self) -> None:
        b, p, lanes = self.b, self.p, self.lanes
        p.width = i64(1)
        numbers = [i64(k) for k in range(lanes)]
        last = b.sub(p.groups, i64(lanes))
        with b.for_loop(i64(0), p.groups, lanes, unroll=False) as begin:
            group = b.select(b.icmp_signed("<", begin, last), begin, last)
            y = butterfly(b, [self.load(self.input(j, group, i64(0))) for j in numbers])
            roots = [self.root(k, group, self.vector) for k in numbers[1:]]
            y = [y[0], *(multiply(b, value, root) for value, root in zip(y[1:], roots, strict=True))]
            parts = [transposed(b, [value[n] for value in y]) for n in range(2)]
            for i, value in enumerate(zip(*parts, strict=True)):
                self.store(value, b.mul(b.add(group, i64(i)), i64(lanes)))


def transposed(b: Builder, rows: list[Value]) -> list[Value]:
    """As many vectors as each has lanes, with rows and lanes changed over."""
    lanes, step = lane_count(rows[0].type), len(rows) // 2
    rows = list(rows)
    while step:
        low = [lane if not lane & step else lanes + lane - step for lane in range(lanes)]
        high = [lane + step if not lane & step else lanes + lane for lane in range(lanes)]
        for i in range(lanes):
            if not i & step:
                x, y = rows[i], rows[i + step]
                rows[i], rows[i + step] = b.shufflevector(x, y, low), b.shufflevector(x, y, high)
        step //= 2
    return rows
