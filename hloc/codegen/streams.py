"""Large results, stored past the caches: nothing of them is left in a cache by the time that they are read.

A plain store reads the line that it changes, so that writing takes twice the traffic, and other data is driven out.
A block of results is made in memory that stays in the innermost cache, by loops as LLVM vectorizes them; then whole
lines of it go to where they belong by stores that x86 calls non-temporal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

from hloc.codegen.arrays import ArrayRef, Register
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Builder, Function, Value, integer, vector_type
from hloc.codegen.routines import PLAIN, Routines, i64
from hloc.codegen.targets.target import Target
from hloc.ir.shapes import ArrayShape

LEAST_BYTES = 32 << 20
"""Of a result: as much as caches that several processors share have for one program, roughly."""

AHEAD = 4096
"""Bytes that are fetched ahead of a block: a processor does not do it fast enough while it writes past its caches."""

_BLOCK, _EVEN, _LINE = 128, 64, 64
"""Elements of a block at most, what their number is a multiple of, and the bytes that are stored at once.

Memory rests while a block is only made, or only stored: it is to be short.
"""


def block_of(shape: ArrayShape) -> int:
    """How many elements along the fastest dimension are stored at once; 0 if that is not for arrays of the shape."""
    if shape.byte_size < LEAST_BYTES or not shape.dims:
        return 0
    size = shape.dims[shape.minor_to_major[0]]
    return next((block for block in range(_BLOCK, 0, -_EVEN) if size % block == 0), 0)


class Streams:
    """Stands for outputs of one shape and layout while blocks of `block` elements along the fastest dimension are made.

    What is stored at an index goes to the place `at` of the block, until `flush` stores the block.
    """

    def __init__(self, k: KernelContext, outputs: Sequence[ArrayRef], block: int):
        self.k, self.b, self.outputs, self.block = k, k.b, outputs, block
        self.along = outputs[0].shape.minor_to_major[0]
        self.at: Value = i64(0)
        self.held = []
        for output in outputs:
            shape = ArrayShape(output.shape.dtype, (block,))
            self.held.append(ArrayRef(k.b, shape, k.b.room("i8", shape.byte_size, align=_LINE)))
        k.is_streaming = True

    def fill(self, index: Index, body: Callable[[Index], Sequence[Register]], interleave: int = 0) -> None:
        """Makes and stores the block that begins at an index; `body` gives the outputs' elements."""
        first = index[self.along]
        with self.b.for_loop(0, self.block, interleave=interleave) as i:
            at = self.b.add(first, i)
            values = body((*index[: self.along], at, *index[self.along + 1 :]))
            for held, value in zip(self.held, values, strict=True):
                held.store((i,), value)
        routine = stream_routine(Routines(self.b.module, self.k.target))
        for held, output in zip(self.held, self.outputs, strict=True):
            self.b.call(routine, [output.address(index), held.pointer, i64(held.shape.byte_size)])


def prefetch(b: Builder, array: ArrayRef, index: Index, offset: Value, size: int) -> None:
    """Has the second cache fetch so many bytes, whose first is `offset` behind an element; any place will do."""
    start = b.gep("i8", array.address(index), offset, inbounds=False)
    for line in range(0, size, _LINE):
        b.prefetch(b.gep("i8", start, i64(line), inbounds=False), near=2)


def stream_routine(routines: Routines) -> Function:
    """`stream(target, source, size)`: copies whole lines; past the caches where the target begins at one."""
    target = routines.target
    vector = vector_type("i64", target.vector_bytes // 8)

    def write(b: Builder, p: SimpleNamespace) -> None:
        def lines() -> None:
            with b.for_loop(i64(0), p.size, _LINE, vectorize=False, unroll=False) as line:
                for offset in range(0, _LINE, target.vector_bytes):
                    at = b.add(line, i64(offset))
                    value = b.load(vector, b.gep("i8", p.source, at), align=target.vector_bytes)
                    b.store(value, b.gep("i8", p.target, at), align=target.vector_bytes, nontemporal=True)

        begins = b.and_(b.ptrtoint(p.target, "i64"), integer("i64", _LINE - 1))
        is_aligned = b.icmp_signed("==", begins, i64(0))
        b.if_else(is_aligned, lines, lambda: b.memcpy(p.target, p.source, p.size))

    return routines.get("hloc.stream", "ptr noalias target, ptr noalias source, i64 size", write, stage=PLAIN)


def finish(b: Builder, target: Target) -> None:
    """What other threads may read from now on includes what was stored past the caches."""
    if target.triple.startswith("x86_64"):
        b.intrinsic("llvm.x86.sse.sfence", "void", [], overloads=(), pure=False)
