"""Fourier transforms of long lines in two turns that threads share, as of a matrix (Bailey's four steps).

A line of rows x columns points is a matrix of as many. In the first turn its columns are transformed, a set of them
side by side, and turned by the roots of unity that belong to both indices; in the second turn its rows. Between both, a
set of columns lies side by side, for each row the real and then the imaginary parts: where the rows are taken from
there, squares of lanes are transposed in registers. The result is the transposed matrix.
"""

from __future__ import annotations

from math import isqrt
from types import SimpleNamespace

import numpy as np

from hloc.codegen import scalar
from hloc.codegen.fourier import RootTable, Shape, Transform
from hloc.codegen.fourier_lines import put_routine, take_routine
from hloc.codegen.fourier_parts import Split, inverse, multiply, padded
from hloc.codegen.fourier_passes import radices_of, transposed
from hloc.codegen.llvm import Builder, Function, Value, vector_type
from hloc.codegen.routines import PLAIN, Routines, i64, least
from hloc.ir.dtypes import DType
from hloc.records import record

_LEAST, _MOST_SIDE = 1 << 14, 4096

_SET_BYTES = 64
"""Of the parts of a set's numbers: as wide as the widest vectors, and few enough pages for their addresses."""

CHUNKS = 16
"""Parts of each turn at most."""


@record
class LongLine:
    """A line's length as rows x columns, its real type, and the lanes of a vector."""

    dtype: DType
    rows: int
    columns: int
    lanes: int

    @staticmethod
    def of(dtype: DType, length: int, lanes: int) -> LongLine | None:
        """About as many rows as columns, multiples of a set. None if there are none, or the line is short."""
        unit = _SET_BYTES // dtype.itemsize
        if length < _LEAST or length % (unit * unit):
            return None
        for rows in range(isqrt(length) // unit * unit, 0, -unit):
            columns = length // rows
            if columns > _MOST_SIDE:
                return None
            if length % rows == 0 and columns % unit == 0 and radices_of(rows) and radices_of(columns):
                return LongLine(dtype, rows, columns, lanes)
        return None

    @property
    def length(self) -> int:
        return self.rows * self.columns

    @property
    def width(self) -> int:
        """Rows or columns of a set."""
        return _SET_BYTES // self.dtype.itemsize

    @property
    def between_bytes(self) -> int:
        """What lies between both turns."""
        return padded(2 * self.length * self.dtype.itemsize)

    def shape(self, turn: int) -> Shape:
        """That of the transforms of a turn."""
        return Shape(self.dtype, (self.rows, self.columns)[turn], self.width, self.lanes)

    @property
    def root_bytes(self) -> int:
        """Those of the roots for one set of columns, a part."""
        return padded(self.rows * self.dtype.itemsize)

    @property
    def chunk_bytes(self) -> int:
        """What is needed for one chunk."""
        return 2 * self.root_bytes + max(Transform.scratch_bytes(self.shape(turn)) for turn in range(2))

    @property
    def scratch_bytes(self) -> int:
        return self.between_bytes + CHUNKS * self.chunk_bytes


class LongTransform:
    """Writes the turns of a line's transform, in `chunks` parts each; `scratch` has `line.scratch_bytes` of room."""

    def __init__(self, b: Builder, routines: Routines, line: LongLine, chunks: int, scratch: Value):
        self.b, self.routines, self.line, self.scratch = b, routines, line, scratch
        self.chunks = min(chunks, CHUNKS)
        self.type = scalar.memory_type(line.dtype)
        self.table = RootTable(b, routines, line.dtype, line.length)
        self.near = self._near_roots()

    def _near_roots(self) -> Split:
        """Constants: for each row, the roots by which its columns in a set turn more than the first of them."""
        line = self.line
        angles = -2 * np.pi * np.outer(np.arange(line.rows), np.arange(line.width)) / line.length
        dtype = line.dtype.numpy.newbyteorder("<")
        parts = (np.cos(angles), np.sin(angles))
        return tuple(self.b.module.constant_bytes(part.astype(dtype).tobytes()) for part in parts)

    def write(self, turn: int, chunk: Value, array: Value, step: int, is_inverse: bool) -> None:
        """A chunk of a turn. The line lies at `array` in the first one, and goes there in the second, by a `step`."""
        b, line = self.b, self.line
        place = b.add(i64(line.between_bytes), b.mul(chunk, i64(line.chunk_bytes)))
        own = b.gep("i8", self.scratch, place)
        transform = Transform(b, self.routines, line.shape(turn), b.gep("i8", own, i64(2 * line.root_bytes)))
        sets = (line.columns, line.rows)[turn] // line.width
        each = -(-sets // self.chunks)
        first = b.mul(chunk, i64(each))
        end = least(b, b.add(first, i64(each)), i64(sets))
        write = self._rows if turn else self._columns
        with b.for_loop(first, end, unroll=False) as number:
            write(transform, number, own, array, step, is_inverse)

    def _places(self, step: int, number: Value, array: Value, other: int) -> tuple[Value, list[Value]]:
        """Where a set of lines across the `other` side begins in an array, and what routines are told of it."""
        width = self.line.width
        address = self.b.gep(self.type, array, self.b.mul(number, i64(2 * width * step)))
        return address, list(map(i64, (self.line.length // other, width, other * step, step)))

    def _columns(
        self, transform: Transform, number: Value, own: Value, array: Value, step: int, is_inverse: bool
    ) -> None:
        b, line = self.b, self.line
        buffer = transform.buffers[0]
        address, numbers = self._places(step, number, array, line.columns)
        take = take_routine(self.routines, line.dtype, line.lanes, line.width)
        b.call(take, [address, *(inverse(buffer) if is_inverse else buffer), *numbers])
        result = transform.run()
        roots = own, b.gep("i8", own, i64(line.root_bytes))
        self.table.fill(roots, line.rows, b.mul(number, i64(line.width)))
        turn = _turn_routine(self.routines, line)
        to = b.gep(self.type, self.scratch, b.mul(number, i64(2 * line.rows * line.width)))
        b.call(turn, [*result, *roots, *self.near, to, i64(line.rows)])

    def _rows(
        self, transform: Transform, number: Value, own: Value, array: Value, step: int, is_inverse: bool
    ) -> None:
        b, line = self.b, self.line
        start = b.gep(self.type, self.scratch, b.mul(number, i64(2 * line.width * line.width)))
        rows = _rows_routine(self.routines, line)
        numbers = [i64(line.columns // line.width), i64(2 * line.rows * line.width)]
        b.call(rows, [start, *transform.buffers[0], *numbers])
        result = transform.run()
        address, numbers = self._places(step, number, array, line.rows)
        factor = scalar.constant(line.dtype, 1 / line.length if is_inverse else 1)
        put = put_routine(self.routines, line.dtype, line.lanes, line.width)
        b.call(put, [address, *(inverse(result) if is_inverse else result), *numbers, factor])


def _turn_routine(routines: Routines, line: LongLine) -> Function:
    """`f(re, im, far_re, far_im, near_re, near_im, to, count)`: rows times a number for each and a row of numbers."""
    type, align = scalar.memory_type(line.dtype), line.dtype.itemsize
    vector = vector_type(type, line.lanes)

    def write(b: Builder, p: SimpleNamespace) -> None:
        b.fast = "contract"
        with b.for_loop(i64(0), p.count, unroll=False) as row:
            start = b.mul(row, i64(line.width))
            far = tuple(b.splat(b.load(type, b.gep(type, part, row)), line.lanes) for part in (p.far_re, p.far_im))
            for column in range(0, line.width, line.lanes):
                at = b.add(start, i64(column))
                value, near = (
                    tuple(b.load(vector, b.gep(type, part, at), align=align) for part in parts)
                    for parts in ((p.re, p.im), (p.near_re, p.near_im))
                )
                for number, part in enumerate(multiply(b, value, multiply(b, near, far))):
                    place = b.add(b.shl(start, i64(1)), i64(number * line.width + column))
                    b.store(part, b.gep(type, p.to, place), align=align)

    names = ("re", "im", "far_re", "far_im", "near_re", "near_im", "to")
    params = ", ".join(f"ptr noalias {name}" for name in names)
    return routines.get(f"hloc.fft.turn.{line.dtype.name}.{line.lanes}", f"{params}, i64 count", write, stage=PLAIN)


def _rows_routine(routines: Routines, line: LongLine) -> Function:
    """`f(array, re, im, count, step)`: rows of `count` sets, `step` numbers apart, from columns side by side."""
    type, align, lanes, width = scalar.memory_type(line.dtype), line.dtype.itemsize, line.lanes, line.width
    vector = vector_type(type, lanes)

    def write(b: Builder, p: SimpleNamespace) -> None:
        def square(number: Value, row: int, column: int, part: int, target: Value) -> None:
            start = b.gep(type, p.array, b.mul(number, p.step))
            places = [b.gep(type, start, i64((2 * (row + i) + part) * width + column)) for i in range(lanes)]
            rows = transposed(b, [b.load(vector, place, align=align) for place in places])
            for i, value in enumerate(rows):
                at = b.add(b.mul(number, i64(width * width)), i64((column + i) * width + row))
                b.store(value, b.gep(type, target, at), align=align)

        with b.for_loop(i64(0), p.count, unroll=False) as number:
            for row in range(0, width, lanes):
                for column in range(0, width, lanes):
                    for part, target in enumerate((p.re, p.im)):
                        square(number, row, column, part, target)

    params = "ptr noalias array, ptr noalias re, ptr noalias im, i64 count, i64 step"
    return routines.get(f"hloc.fft.rows.{line.dtype.name}.{line.lanes}", params, write, stage=PLAIN)
