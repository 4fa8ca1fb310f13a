"""What is known of a convolution from its shapes: how its images and its kernel lie in scratch, and its
tiles.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import product
from math import prod

from hloc.codegen.epilogue import Epilogue
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.loops import Index, row_major_strides
from hloc.codegen.products import summing_type
from hloc.codegen.routines import i64
from hloc.codegen.tiles import Tile
from hloc.ir.attributes import ConvDims, WindowDim
from hloc.ir.dtypes import PRED
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape

SMALL = 2048
"""Up to this many multiplications a convolution is written as plain loops."""

MOST_ROWS = 6
"""Positions in a tile, at most."""


def tile_rows(size: int) -> int:
    """Positions in a tile, for so many in all: few different numbers, each is a routine of its own."""
    if size < MOST_ROWS:
        return size
    return 4 if -(-size // 4) * 4 * 1.2 < -(-size // MOST_ROWS) * MOST_ROWS else MOST_ROWS


def padded(size: int) -> int:
    """A size in bytes, rounded up to whole cache lines."""
    return -(-size // 64) * 64


class ConvolutionPlan:
    """What is known of a convolution from its shapes.

    Arrays are described by logical roles: batch, spatial dimensions, features. `groups` is the feature group
    count, `batch_groups` the batch group count; at most one of them is above 1. `group_outputs` is the number
    of output features of a group of either kind. Operands that are `computed` lie nowhere in memory.
    """

    def __init__(self, instruction: Instruction, computed: Collection[int] = ()):
        self.computed = computed
        self.labels: ConvDims = instruction.attributes["dim_labels"]
        self.lhs, self.rhs = (operand.shape for operand in instruction.operands[:2])
        self.out: ArrayShape = instruction.shape
        window = instruction.get("window")
        self.windows: tuple[WindowDim, ...] = window.dims if window is not None else ()
        self.groups = instruction.get("feature_group_count")
        self.batch_groups = instruction.get("batch_group_count")
        self.dtype = summing_type(self.lhs.dtype, self.rhs.dtype, self.out.dtype)
        labels = self.labels
        self.images = self.out.dims[labels.output_batch]
        self.features = self.rhs.dims[labels.kernel_input_feature]
        self.outputs = self.rhs.dims[labels.kernel_output_feature]
        self.group_outputs = self.outputs // (self.groups * self.batch_groups)
        self.base = tuple(self.lhs.dims[d] for d in labels.input_spatial)
        self.positions = tuple(self.out.dims[d] for d in labels.output_spatial)

    @property
    def is_plain(self) -> bool:
        work = self.out.count * self.features * prod(w.size for w in self.windows)
        return self.dtype is PRED or self.dtype.is_complex or work <= SMALL

    @property
    def is_expanded(self) -> bool:
        """Whether input features are repeated, an input feature an output feature."""
        return self.groups * self.batch_groups > 1 and self.group_outputs < 8

    def input_index(self, batch: Value, channel: Value, place: Sequence[Value]) -> Index:
        """The input's index of an image, an input feature, and a place."""
        labels = self.labels
        index = dict(zip(labels.input_spatial, place, strict=True))
        index |= {labels.input_batch: batch, labels.input_feature: channel}
        return tuple(index[d] for d in range(self.lhs.rank))

    def kernel_index(self, b: Builder, channel: Value, feature: Value, window: Sequence[Value]) -> Index:
        """The kernel's index of an input and an output feature, and a place in the window."""
        labels = self.labels
        pairs = zip(self.windows, window, strict=True)
        place = [b.sub(i64(w.size - 1), i) if w.reversed else i for w, i in pairs]
        index = dict(zip(labels.kernel_spatial, place, strict=True))
        index |= {labels.kernel_input_feature: channel, labels.kernel_output_feature: feature}
        return tuple(index[d] for d in range(self.rhs.rank))

    # The image that a result is computed from

    @property
    def extent(self) -> tuple[int, ...]:
        """Sizes of an image after padding and dilation."""
        dilated = [
            (n - 1) * w.base_dilation + 1 if n else 0 for n, w in zip(self.base, self.windows, strict=True)
        ]
        return tuple(max(n + w.pad_low + w.pad_high, 0) for n, w in zip(dilated, self.windows, strict=True))

    @property
    def image_features(self) -> int:
        """Features of a copied image at one position."""
        return self.features * (self.outputs if self.is_expanded else self.groups)

    @property
    def is_direct(self) -> bool:
        """Whether the input is used where it lies."""
        if 0 in self.computed or self.is_expanded or self.batch_groups > 1 or self.lhs.dtype is not self.dtype:
            return False
        if self.lhs.strides[self.labels.input_feature] != 1 and self.features * self.groups != 1:
            return False
        return all(w.base_dilation == 1 and w.pad_low <= 0 and w.pad_high <= 0 for w in self.windows)

    @property
    def image_strides(self) -> tuple[int, ...]:
        """Elements from one position to the next, a spatial dimension each."""
        if self.is_direct:
            return tuple(self.lhs.strides[d] for d in self.labels.input_spatial)
        return tuple(stride * self.image_features for stride in row_major_strides(self.extent))

    # The kernel

    def window_places(self) -> list[tuple[int, ...]]:
        """Indices of the window, row-major."""
        return list(product(*(range(w.size) for w in self.windows)))

    def offset(self, place: Sequence[int]) -> int:
        """Elements from the first position of a window to the one at a place in it."""
        triples = zip(place, self.windows, self.image_strides, strict=True)
        return sum(i * w.window_dilation * stride for i, w, stride in triples)

    def runs(self) -> tuple[list[int], int]:
        """Offsets at which runs of contiguous elements start, and their length: what a tile sums over."""
        offsets = [self.offset(place) for place in self.window_places()]
        if not self.windows or self.groups > 1:
            return offsets, self.features
        last, stride = self.windows[-1], self.image_strides[-1]
        if last.window_dilation == 1 and stride == self.features:
            return offsets[:: last.size], self.features * last.size
        return offsets, self.features

    def tile(self, vector_bytes: int, rows: int) -> Tile:
        lanes = max(vector_bytes // self.dtype.itemsize, 2)
        return Tile(self.dtype, rows, 2 if self.group_outputs > lanes else 1, lanes)

    # Scratch

    @property
    def image_bytes(self) -> int:
        if self.is_direct:
            return 0
        return padded(prod(self.extent) * self.image_features * self.dtype.itemsize)

    def kernel_bytes(self, vector_bytes: int) -> int:
        columns = 1 if self.is_expanded else self.tile(vector_bytes, MOST_ROWS).columns
        places = prod(w.size for w in self.windows) * self.features
        outputs = -(-self.group_outputs // columns) * columns * self.groups * self.batch_groups
        return padded(places * outputs * self.dtype.itemsize)

    @property
    def sums_bytes(self) -> int:
        """The sums of all output features at one position, where these are not in tiles."""
        return padded(self.outputs * self.dtype.itemsize) if self.is_expanded else 0

    def result_bytes(self, epilogue: Epilogue | None) -> int:
        """The whole result, where an epilogue is applied to it and no output can hold it before."""
        if epilogue is None or self.is_plain or self.is_expanded or epilogue.holder() is not None:
            return 0
        return padded(self.out.byte_size)

    @property
    def scratch_bytes(self) -> int:
        """Without a result that an epilogue is applied to: it comes behind all this."""
        if self.is_plain:
            return 0
        return self.image_bytes + self.sums_bytes + max(self.kernel_bytes(width) for width in (16, 32, 64))
