"""Packing the operands of an attention's products, which are read where they lie, or computed."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen import packing, scalar
from hloc.codegen.dot_side import Side
from hloc.codegen.gemm import Extent
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import delinearize
from hloc.codegen.routines import Routines, i64
from hloc.codegen.tiles import Tile


class Packer:
    """Packs lines of operands, of the batch whose index `batch` is at the time."""

    def __init__(self, k: KernelContext, routines: Routines):
        self.k, self.b, self.routines = k, k.b, routines
        self.batch: Sequence[Value] = []

    def pack(self, side: Side, lines: Extent, steps: Extent, width: int, tile: Tile, target: Value) -> None:
        """Panels of `width` lines of an operand for one product: to[panel][step][line in panel]."""
        if side.copied:
            self._pack_computed(side, lines, steps, width, tile, target)
            return
        b = self.b
        batch, line_stride, step_stride = side.strides
        offset = b.add(b.mul(lines[0], i64(line_stride)), b.mul(steps[0], i64(step_stride)))
        for index, stride in zip(self.batch, batch, strict=True):
            offset = b.add(offset, b.mul(index, i64(stride)))
        source = b.gep(scalar.memory_type(side.shape.dtype), side.place.pointer(self.k), offset)
        order = packing.order_of(side.shape.dtype, line_stride, step_stride)
        pack = packing.pack_routine(self.routines, side.shape.dtype, tile.dtype, width, tile.lanes, order)
        sizes = [lines[1], steps[1], i64(line_stride), i64(step_stride), i64(width), integer("i1", 0)]
        b.call(pack, [source, target, *sizes])

    def _pack_computed(self, side: Side, lines: Extent, steps: Extent, width: int, tile: Tile, target: Value) -> None:
        """The same for an operand that is computed, or that lies in no order. What is missing of the last panel stays
        as it is: it is multiplied, but not stored.
        """
        b, dtype = self.b, tile.dtype
        with b.for_loop(i64(0), lines[1], unroll=False) as line, b.for_loop(i64(0), steps[1], unroll=False) as step:
            index = self._index(side, b.add(lines[0], line), b.add(steps[0], step))
            value = self.k.body.evaluate(self.k, side.value, (), index)
            value = scalar.convert(b, value, side.value.shape.dtype, dtype)
            panel, inner = b.udiv(line, i64(width)), b.urem(line, i64(width))
            place = b.mul(b.add(b.mul(panel, steps[1]), step), i64(width))
            scalar.store(b, dtype, value, b.gep(scalar.memory_type(dtype), target, b.add(place, inner)))

    def _index(self, side: Side, line: Value, step: Value) -> Index:
        """The index of an operand at the batch's index."""
        index = dict.fromkeys(range(side.value.shape.rank), i64(0))
        index |= zip(side.batch, self.batch, strict=True)
        for dims, value in ((side.rows, line), (side.columns, step)):
            if dims:
                index |= zip(dims, delinearize(self.b, value, side.sizes(dims)), strict=True)
        return tuple(index.values())
