"""Operands of products of which whole tiles are fetched by one command (TMA): how they lie in memory for that.

What lies otherwise, or is computed, can be written to temporary memory first: it is packed.
"""

from __future__ import annotations

from math import prod

from hloc.codegen.device_program import TensorMap
from hloc.codegen.dot_side import Side
from hloc.codegen.gpu.gemm_sides import OwnSide
from hloc.codegen.gpu.gemm_units import ROW_BYTES, lies_by_steps, source_of
from hloc.codegen.gpu.group_products import ROWS
from hloc.codegen.gpu.tensor_maps import tensor_map_problem
from hloc.codegen.strided import Starts
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction
from hloc.records import NamedTuple

CHUNK = 16
"""Bytes that rows are multiples of."""

_MOST_SIZE = 1 << 31
"""Sizes for which places are signed numbers of 32 bits."""


class Fetched(NamedTuple):
    """An operand as an array: steps and lines, the faster ones first (`by_steps`), then dimensions of batches, then
    one for each of the `starts` from which a dynamic slice takes it.

    Elements are of type `dtype`. `dims` are the sizes, `strides` the bytes between neighbours along all dimensions but
    the first, and the whole begins `offset` bytes into the memory of `array`. `batch` are the numbers, among all
    dimensions of batches, of those that the array has.

    A packed one has no `array`: it is in temporary memory, with one dimension of all batches (`batch` is empty).
    """

    array: Instruction | None
    offset: int
    dtype: DType
    by_steps: bool
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    batch: tuple[int, ...]
    starts: Starts

    @property
    def bytes(self) -> int:
        """Of one that is packed."""
        return self.dims[-1] * self.strides[-1]

    def box(self, lines: int) -> tuple[int, ...]:
        """What one command fetches of a tile of so many lines, and of as many steps as fit into a row: all of it, or,
        if rows are of lines, those that fit into a row."""
        steps = ROW_BYTES // self.dtype.itemsize
        return (steps, lines if self.by_steps else steps, *(1,) * len(self.dims[2:]))


def fetched(side: Side | OwnSide, dtype: DType) -> Fetched | None:
    """An operand whose elements a unit takes as `dtype`, if tiles of it can be fetched so as the unit reads them."""
    if isinstance(side, OwnSide) or side.copied or source_of(side) is not dtype:
        return None
    place, (batch_strides, line_stride, step_stride) = side.place, side.strides
    assert place is not None
    by_steps = step_stride == 1
    if not (by_steps or line_stride == 1) or lies_by_steps(by_steps, dtype) != by_steps:
        return None
    lines, steps = (prod(side.sizes(dims)) for dims in (side.rows, side.columns))
    batch = [
        number for number, d in enumerate(side.batch) if side.shape.dims[d] != 1 and batch_strides[number] != 0
    ]
    inner, outer = ((steps, 1), (lines, line_stride)) if by_steps else ((lines, 1), (steps, step_stride))
    given = [
        inner, outer,
        *((side.shape.dims[side.batch[number]], batch_strides[number]) for number in batch),
        *((greatest + 1, stride) for _, greatest, stride in place.starts),
    ]
    dims, (_, *strides) = (tuple(part) for part in zip(*given, strict=True))
    strides = tuple(stride * dtype.itemsize for stride in strides)
    offset = place.offset * dtype.itemsize
    found = Fetched(place.array, offset, dtype, by_steps, dims, strides, tuple(batch), place.starts)
    map = TensorMap(0, offset, dtype.itemsize, dims, strides, found.box(ROWS))
    return found if max(dims) < _MOST_SIZE and tensor_map_problem(map) is None else None


def packed(side: Side | OwnSide, dtype: DType, along_steps: bool, offset: int) -> Fetched | None:
    """An operand that is to be written to temporary memory as `dtype`, if it is small enough for that.

    `along_steps` says whether its elements lie together, or are found best, along steps.
    """
    if isinstance(side, OwnSide):
        return None
    lines, steps, batches = (prod(side.sizes(dims)) for dims in (side.rows, side.columns, side.batch))
    by_steps = lies_by_steps(along_steps, dtype)
    inner, outer = (steps, lines) if by_steps else (lines, steps)
    row = -(-inner * dtype.itemsize // CHUNK) * CHUNK
    dims, strides = (inner, outer, batches), (row, outer * row)
    found = Fetched(None, offset, dtype, by_steps, dims, strides, (), ())
    map = TensorMap(0, offset, dtype.itemsize, dims, strides, found.box(ROWS))
    return found if max(dims) < _MOST_SIZE and tensor_map_problem(map) is None else None
