"""What a merge sort on a device sorts, and how it is divided among blocks; see `merge_sort.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from hloc.codegen.arrays import Register
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.grids import THREADS
from hloc.codegen.llvm import Value
from hloc.ir.dtypes import DType
from hloc.records import NamedTuple

Values = Sequence[Register]
"""An entry: a register of each type."""

_SHARED = 47 * 1024
"""Bytes for two buffers of a tile; the numbers that threads tell each other come on top."""

_RUN = 8
"""Entries that a thread sorts, and makes at each merge."""


class Lines(NamedTuple):
    """What is sorted: `lines` lines of `size` entries (at least one of either) with values of `dtypes`.

    `load(k, line, i)` gives an entry, `store(k, line, i, values)` takes the one that comes to a place, and `before(k,
    first, second)` is an i1. With `apart`, neighbours in a line are further apart in memory than lines are.
    """

    dtypes: Sequence[DType]
    lines: int
    size: int
    load: Callable[[GpuContext, Value, Value], Values]
    store: Callable[[GpuContext, Value, Value, Values], None]
    before: Callable[[GpuContext, Values, Values], Value]
    apart: bool = False


class Tiling:
    """How lines of entries of some types are divided: into tiles of `tile` entries, of which one block takes `slots`.

    A thread takes `run` entries; `line_slots` is how far apart lines that are shorter than a tile begin in a block.
    """

    def __init__(self, dtypes: Sequence[DType], lines: int, size: int):
        self.dtypes, self.lines, self.size = dtypes, lines, size
        entry = sum(dtype.itemsize for dtype in dtypes)
        self.tile = max(2, min(THREADS * _RUN, _power_below(_SHARED // (2 * entry))))
        self.line_slots = min(self.tile, _power_above(size))
        self.run = min(_RUN, self.line_slots)
        self.is_long = size > self.tile
        self.tiles = -(-size // self.tile)
        self.slots = self.tile
        if not self.is_long:
            self.slots = min(self.tile, self.run * THREADS, self.line_slots * _power_above(lines))
        self.threads = self.slots // self.run
        self.blocks = lines * self.tiles if self.is_long else -(-lines // (self.slots // self.line_slots))

    @cached_property
    def widths(self) -> list[int]:
        """Lengths of the runs before each merge of runs longer than a block's."""
        widths = []
        while (self.tile << len(widths)) < self.size:
            widths.append(self.tile << len(widths))
        return widths

    @property
    def buffer_bytes(self) -> int:
        """The shared memory of one buffer."""
        return sum(rounded(self.slots * dtype.itemsize, 16) for dtype in self.dtypes)

    @property
    def shared_bytes(self) -> int:
        return 2 * self.buffer_bytes + 4 * self.threads

    @property
    def lines_bytes(self) -> int:
        """All entries in global memory."""
        return sum(rounded(self.lines * self.size * dtype.itemsize) for dtype in self.dtypes)

    @property
    def marks_bytes(self) -> int:
        """For each tile an i64."""
        return rounded(8 * self.lines * self.tiles)

    @property
    def scratch_bytes(self) -> int:
        """Up to two buffers, where the tiles begin in their runs, and the width at which a run proved unsorted."""
        return min(2, len(self.widths)) * self.lines_bytes + (2 * self.marks_bytes if self.is_long else 0)


def rounded(size: int, unit: int = 64) -> int:
    return -(-size // unit) * unit


def _power_below(number: int) -> int:
    return 1 << (max(number, 1).bit_length() - 1)


def _power_above(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()
