"""The elements of an array spread over threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.loops import Flat
from hloc.codegen.routines import i64
from hloc.ir.shapes import ArrayShape


def over_elements(
    k: GpuContext,
    thread: Value,
    shape: ArrayShape,
    width: int,
    together: Callable[[list[Index]], None],
    by_rows: bool = False,
) -> list[Flat]:
    """Runs together(indices) for the `width` neighbours in an array's memory that are a thread's, of those that exist.

    `thread` counts through all of them; it may go beyond. With `by_rows`, a thread's elements are in one row of the
    fastest dimension if its size allows that, and share the rest of their index. Gives the Flats of the indices, of
    which `splits` tell whether divisions were needed.
    """
    b = k.b
    wide = [d for d in shape.minor_to_major[::-1] if shape.dims[d] != 1]
    sizes = [shape.dims[d] for d in wide]
    flats: list[Flat] = []

    def at(parts: Sequence[Value]) -> Index:
        index: list[Value] = [i64(0)] * shape.rank
        for dimension, part in zip(wide, parts, strict=True):
            index[dimension] = part
        return tuple(index)

    def flat(position: Value) -> Index:
        if not sizes:
            return at(())
        flats.append(Flat(b, position, sizes))
        return at(flats[-1].parts())

    if by_rows and sizes and sizes[-1] % width == 0:
        with b.if_then(b.icmp_unsigned("<", thread, i64(shape.count // width))):
            *outer, last = Flat(b, thread, [*sizes[:-1], sizes[-1] // width]).parts()
            start = b.mul(last, i64(width))
            together([at([*outer, b.add(start, i64(number))]) for number in range(width)])
        return flats
    first = b.mul(thread, i64(width))
    positions = [b.add(first, i64(number)) for number in range(width)]
    is_whole = b.icmp_unsigned("<=", b.add(first, i64(width)), i64(shape.count))
    with b.if_then(is_whole):
        together([flat(position) for position in positions])
    if shape.count % width:
        with b.if_then(b.not_(is_whole)), b.for_loop(first, i64(shape.count), unroll=False) as position:
            together([flat(position)])
    return flats
