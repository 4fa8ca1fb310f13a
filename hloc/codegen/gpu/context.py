"""One kernel being written: the KernelContext of a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hloc.codegen.arrays import ArrayRef
from hloc.codegen.gpu.intrinsics import Intrinsics
from hloc.codegen.kernel import KernelContext
from hloc.codegen.llvm import Value, integer


class GpuContext(KernelContext):
    """A kernel as one thread runs it. Its loops are loops of the thread; with others it works through `gpu`.

    `grid` and `block` are how it is launched; `scalars` its i64 parameters, `maps` those for copies of tiles. `sources`
    are, in a meeting of devices, inputs of the step of each of them, by number.
    """

    def __init__(
        self,
        *args: Any,
        gpu: Intrinsics,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        scalars: Sequence[Value],
        sources: Sequence[Mapping[int, ArrayRef]] = (),
        maps: Sequence[Value] = (),
        **more: Any,
    ):
        super().__init__(*args, **more)
        self.gpu = gpu
        self.grid = grid
        self.block = block
        self.scalars = scalars
        self.sources = sources
        self.maps = maps

    def thread_index(self) -> Value:
        """The thread's number in the block of one dimension, an i64."""
        return self.b.zext(self.gpu.thread(), "i64")

    def block_index(self, axis: str = "x") -> Value:
        """The block's number along an axis of the grid, an i64."""
        return self.b.zext(self.gpu.block(axis), "i64")

    def global_index(self) -> Value:
        """The thread's number in a grid of one dimension, an i64 below 2**31 times the block's size."""
        threads = integer("i64", self.block[0])
        return self.b.add(self.b.mul(self.block_index(), threads), self.thread_index())
