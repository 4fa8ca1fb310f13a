"""The row behind the one that a row kernel works on, fetched meanwhile.

A row that is in a cache is gone through several times. Memory would rest until the next one is needed: so each loop
over the columns has a part of that fetched, as large as its part of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod

from hloc.codegen import streams
from hloc.codegen.arrays import ArrayRef
from hloc.codegen.bodies import Leaf
from hloc.codegen.graphs import shape_of
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.routines import i64
from hloc.codegen.row_stages import Place, RowLoop, RowStages, loop_works
from hloc.records import record

_NEAR = 1 << 16
"""Bytes of a row at most which is fetched while the one before it is worked on: a part of the second cache."""

_SEGMENT, _EVEN, _LINE = 256, 64, 64
"""Columns at most between two fetches, what their number is a multiple of, and the bytes that are fetched at once: as
many of them as a cache waits for at a time, and time to wait.
"""


@record
class NextRow:
    """What is fetched: a row of `size` elements of each of the `arrays`, which lie as a `root` does.

    It is the next one, or one further on if they are short. The columns of loop n are gone through in `segments[n]`
    pieces, 0 if it fetches nothing; its part of the row goes from `parts[n]` to `parts[n + 1]`, of 1.
    """

    arrays: tuple[ArrayRef, ...]
    root: Leaf
    place: Place
    size: int
    segments: tuple[int, ...]
    parts: tuple[float, ...]

    def fetch(self, b: Builder, number: int, first: Index, segment: Value) -> None:
        """The part of one segment of a loop; `first` is where the row begins that is worked on."""
        for array in self.arrays:
            row = self.size * array.shape.dtype.itemsize
            begin, end = (round(row / _LINE * part) * _LINE for part in self.parts[number : number + 2])
            size = -(-(end - begin) // (self.segments[number] * _LINE)) * _LINE
            ahead = -(-streams.AHEAD // row) * row
            streams.prefetch(b, array, first, b.add(i64(ahead + begin), b.mul(segment, i64(size))), size)


def next_row(k: KernelContext, stages: RowStages, roots: Sequence[Leaf], blocks: Sequence[int]) -> NextRow | None:
    """None if no loop stores large roots past the caches, or no large input has rows that lie as theirs.

    `blocks` are the columns that each loop stores at once, 0 if it does not do that.
    """
    streamed = [loop for loop, block in zip(stages.loops, blocks, strict=True) if block]
    if not streamed:
        return None
    number, place = streamed[-1].roots[0]
    shape, sizes = shape_of(roots[number]), streamed[-1].sizes
    size = prod(sizes)
    pitch = min((shape.strides[d] for d in place.rows if shape.dims[d] > 1), default=0)
    alike = [array for array in k.body.arrays_like(shape) if array.shape.byte_size >= streams.LEAST_BYTES]
    arrays = tuple(array for array in alike if size * array.shape.dtype.itemsize <= _NEAR)
    if pitch != size or not arrays:
        return None
    segments = [
        _segments(loop, block) if loop.sizes == sizes else 0
        for loop, block in zip(stages.loops, blocks, strict=True)
    ]
    works = [work * (count > 0) for work, count in zip(loop_works(stages, roots), segments, strict=True)]
    parts = [done / sum(works) for done in accumulate(works, initial=0)]
    return NextRow(arrays, roots[number], place, size, tuple(segments), tuple(parts))


def _segments(loop: RowLoop, block: int) -> int:
    """In how many pieces a loop goes through the columns."""
    size = prod(loop.sizes)
    if block:
        return size // block
    if size <= _SEGMENT or len(loop.sizes) > 1 or any(reducer.choice is not None for reducer in loop.reducers):
        return 0
    return next((size // length for length in range(_SEGMENT, 0, -_EVEN) if size % length == 0), 0)
