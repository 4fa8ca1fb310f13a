"""Lines of complex numbers to and from the arrays of parts that Fourier transforms work on, as routines.

Element j of line l lies at j * step + l * line_step (in complex numbers) of an array, and at j * width + l of each
array of parts; the width is 1, or a multiple of the lanes of a vector.
"""

from __future__ import annotations

from types import SimpleNamespace

from hloc.codegen import scalar
from hloc.codegen.fourier_parts import Split
from hloc.codegen.llvm import Builder, Function, Value, vector_type
from hloc.codegen.routines import PLAIN, Routines, i64
from hloc.ir.dtypes import DType

_PLACES = "i64 count, i64 lines, i64 step, i64 line_step"


def take_routine(routines: Routines, dtype: DType, lanes: int, width: int) -> Function:
    """`take(array, re, im, count, lines, step, line_step)`: the parts of `count` elements of some lines."""
    params = f"ptr noalias array, ptr noalias re, ptr noalias im, {_PLACES}"
    name = f"hloc.fft.take.{dtype.name}.{lanes}.{width}"
    return routines.get(name, params, lambda b, p: _Mover(b, p, dtype, lanes, width).write(False), stage=PLAIN)


def put_routine(routines: Routines, dtype: DType, lanes: int, width: int) -> Function:
    """`put(array, re, im, count, lines, step, line_step, factor)`: the other way, each number times a factor."""
    params = f"ptr noalias array, ptr noalias re, ptr noalias im, {_PLACES}, {scalar.memory_type(dtype)} factor"
    name = f"hloc.fft.put.{dtype.name}.{lanes}.{width}"
    return routines.get(name, params, lambda b, p: _Mover(b, p, dtype, lanes, width).write(True), stage=PLAIN)


def mirror_routine(routines: Routines, dtype: DType, width: int) -> Function:
    """`mirror(re, im, length)`: the second half of lines whose values are conjugates of those as far from the end."""

    def write(b: Builder, p: SimpleNamespace) -> None:
        type = scalar.memory_type(dtype)
        second = b.add(b.lshr(p.length, i64(1)), i64(1))
        with b.for_loop(second, p.length, unroll=False) as j, b.for_loop(0, width) as line:
            here = b.add(b.mul(j, i64(width)), line)
            there = b.add(b.mul(b.sub(p.length, j), i64(width)), line)
            b.store(b.load(type, b.gep(type, p.re, there)), b.gep(type, p.re, here))
            b.store(b.fneg(b.load(type, b.gep(type, p.im, there))), b.gep(type, p.im, here))

    name = f"hloc.fft.mirror.{dtype.name}.{width}"
    return routines.get(name, "ptr noalias re, ptr noalias im, i64 length", write, stage=PLAIN)


class _Mover:
    """Writes the body of a routine with parameters `p`."""

    def __init__(self, b: Builder, p: SimpleNamespace, dtype: DType, lanes: int, width: int):
        self.b, self.p, self.lanes, self.width = b, p, lanes, width
        self.type, self.align = scalar.memory_type(dtype), dtype.itemsize

    def write(self, puts: bool) -> None:
        b, p, lanes = self.b, self.p, self.lanes
        move = self._put if puts else self._take
        if self.width == 1:
            dense = b.icmp_signed("==", p.step, i64(1))
            whole = b.select(dense, b.and_(p.count, i64(-lanes)), i64(0))
            with b.for_loop(i64(0), whole, lanes, unroll=2) as j:
                move(j, j, lanes)
            with b.for_loop(whole, p.count, vectorize=False, unroll=False) as j:
                move(b.mul(j, p.step), j, 0)
            return
        dense = b.icmp_signed("==", p.line_step, i64(1))
        whole = b.select(dense, b.and_(p.lines, i64(-lanes)), i64(0))
        with b.for_loop(i64(0), p.count, unroll=False) as j:
            at, place = b.mul(j, p.step), b.mul(j, i64(self.width))
            with b.for_loop(i64(0), whole, lanes, unroll=False) as line:
                move(b.add(at, line), b.add(place, line), lanes)
            with b.for_loop(whole, p.lines, vectorize=False, unroll=False) as line:
                move(b.add(at, b.mul(line, p.line_step)), b.add(place, line), 0)

    def _parts(self, offset: Value) -> Split:
        return tuple(self.b.gep(self.type, part, offset) for part in (self.p.re, self.p.im))

    def _at(self, offset: Value) -> Value:
        return self.b.gep(self.type, self.p.array, self.b.shl(offset, i64(1)))

    def _take(self, offset: Value, place: Value, lanes: int) -> None:
        b = self.b
        for part, target in zip(deinterleaved(b, self.type, self._at(offset), lanes, self.align), self._parts(place)):
            b.store(part, target, align=self.align)

    def _put(self, offset: Value, place: Value, lanes: int) -> None:
        b, type = self.b, vector_type(self.type, lanes)
        factor = b.splat(self.p.factor, lanes)
        value = [b.fmul(b.load(type, part, align=self.align), factor) for part in self._parts(place)]
        interleave(b, self.type, value, self._at(offset), lanes, self.align)


def deinterleaved(b: Builder, type: str, address: Value, lanes: int, align: int) -> Split:
    """The parts of the complex numbers at an address: vectors of `lanes`, or with 0 of them, of a single number."""
    loaded = [
        b.load(vector_type(type, lanes), b.gep(type, address, i64(n * max(lanes, 1))), align=align) for n in range(2)
    ]
    if not lanes:
        return tuple(loaded)
    return tuple(b.shufflevector(*loaded, [2 * lane + n for lane in range(lanes)]) for n in range(2))


def interleave(b: Builder, type: str, parts: list[Value], address: Value, lanes: int, align: int) -> None:
    """The other way."""
    if lanes:
        order = [lane // 2 + lanes * (lane % 2) for lane in range(2 * lanes)]
        parts = [b.shufflevector(*parts, order[n * lanes : (n + 1) * lanes]) for n in range(2)]
    for n, part in enumerate(parts):
        b.store(part, b.gep(type, address, i64(n * max(lanes, 1))), align=align)
