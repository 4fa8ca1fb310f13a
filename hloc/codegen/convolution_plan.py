"""What is known of a convolution from its shapes: its strips of images, blocks of its results, and their scratch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import product
from math import prod

from hloc.codegen.line_plan import LINE_POSITIONS, LinePlan, even, is_by_lines
from hloc.codegen.llvm import Builder, Value
from hloc.codegen.loops import Index, row_major_strides
from hloc.codegen.products import summing_type
from hloc.codegen.routines import i64
from hloc.codegen.tiles import Tile
from hloc.ir.attributes import ConvDims, WindowDim
from hloc.ir.dtypes import F32, PRED
from hloc.ir.instruction import Instruction
from hloc.ir.shapes import ArrayShape
from hloc.records import record

SMALL = 2048
"""Up to this many multiplications a convolution is written as plain loops."""

_ROWS, _MOST_ROWS = 6, 12
"""Positions in a tile of two vectors of features, and of one: as many sums as hide the latency of adding."""

_POSITIONS = 33 * _MOST_ROWS
"""Positions of a block of results: a packed piece of the kernel is used for that many."""

_FEW = 96
"""Positions for which a strip may be large."""

_STRIP_BYTES = 1 << 18
"""A part of an image, copied: half of what the second cache holds."""

_FEATURES, _MOST_FEATURES = 64, 256
"""Output features of a block of results: for many positions, and for few, of which sums are short. What is read of a
row of the kernel at a time are some cache lines at least.
"""

_IMAGES_BYTES = 1 << 21
"""Whole images that are handled together."""

_POINTS_BYTES, _FEWEST_TILES = 1 << 18, 24
"""Points of the tiles of a strip (`winograd_tiles`): what the second cache holds; and tiles that share what is read of
the weights, at least.
"""

POINTS = 16
"""Points of a tile of 2 x 2 results."""

_POINTS_PAY = 48
"""Tiles from which on it pays to make points of the weights."""

_STEPS, _KERNEL_ELEMENTS = 256, 1 << 15
"""Terms of each sum that are added at a time: so many rows of a panel stay in the first cache, all panels of a block
in the second.
"""


def padded(size: int) -> int:
    """A size in bytes, rounded up to whole cache lines."""
    return -(-size // 64) * 64


def visible(size: int, window: WindowDim, extent: int) -> tuple[int, int]:
    """The range of base elements that negative padding leaves in the extent."""
    first = max(-(window.pad_low // window.base_dilation), 0)
    end = min((extent - 1 - window.pad_low) // window.base_dilation + 1, size)
    return first, max(end, first)


@record
class Strips:
    """The parts in which images are handled: `images` whole ones, or `rows` of one along its first dimension.

    `count` are there in all, `each` in as many images. `extent` are the sizes of one image's part, padded.
    """

    images: int
    rows: int
    count: int
    each: int
    extent: tuple[int, ...]


@record
class Runs:
    """Runs of terms of a sum, contiguous in the image: offsets at which they start in the image and in the kernel.

    Each has `size` terms; in the kernel, these are a `step` apart. The terms of all runs, one after the other, go
    through the window row-major, and through the input features of each place.
    """

    in_image: list[int]
    in_kernel: list[int]
    size: int
    step: int


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
        self.is_precise = "highest" in (instruction.get("operand_precision") or ())
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
        return not self.is_by_lines and self.groups * self.batch_groups > 1 and self.group_outputs < 8

    @cached_property
    def is_by_lines(self) -> bool:
        """Whether vectors go along the last spatial dimension, for few output features."""
        return is_by_lines(self)

    @cached_property
    def lines(self) -> LinePlan:
        return LinePlan(self)

    @cached_property
    def is_winograd(self) -> bool:
        """Whether sums are made by way of points (`winograd.py`): of windows of 3 x 3 places side by side, in f32."""
        sizes = [(w.size, w.stride, w.window_dilation, w.base_dilation) for w in self.windows]
        if sizes != [(3, 1, 1, 1)] * 2 or self.groups * self.batch_groups > 1 or 1 in self.computed:
            return False
        if any(dtype is not F32 for dtype in (self.lhs.dtype, self.rhs.dtype, self.dtype)) or self.is_precise:
            return False
        return self.features % 16 == self.outputs % 32 == 0 and self.images * self.image_tiles >= _POINTS_PAY

    @property
    def image_tiles(self) -> int:
        """Tiles of 2 x 2 results of an image."""
        return prod(-(-size // 2) for size in self.positions)

    @property
    def room_tiles(self) -> int:
        """Tiles that a strip may have."""
        return max(_POINTS_BYTES // (POINTS * self.features * self.dtype.itemsize), _FEWEST_TILES)

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

    @cached_property
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

    @cached_property
    def is_direct(self) -> bool:
        """Whether the input is used where it lies."""
        if 0 in self.computed or self.batch_groups > 1 or self.lhs.dtype is not self.dtype:
            return False
        if self.is_expanded or self.is_by_lines:
            return False
        if self.lhs.strides[self.labels.input_feature] != 1 and self.features * self.groups != 1:
            return False
        return all(w.base_dilation == 1 and w.pad_low <= 0 and w.pad_high <= 0 for w in self.windows)

    @property
    def is_copied_whole(self) -> bool:
        """Whether images are copied from memory as they are, each feature once."""
        is_stored = 0 not in self.computed and self.lhs.dtype is self.dtype and len(self.windows) <= 2
        is_repeated = self.is_expanded and (self.features > 1 or self.group_outputs > 1 or self.batch_groups > 1)
        return is_stored and not is_repeated

    @cached_property
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

    def kernel_offset(self, place: Sequence[int]) -> int:
        """Elements of the kernel from its first one to that at a place in the window."""
        places = [w.size - 1 - i if w.reversed else i for w, i in zip(self.windows, place, strict=True)]
        strides = [self.rhs.strides[d] for d in self.labels.kernel_spatial]
        return sum(i * stride for i, stride in zip(places, strides, strict=True))

    @cached_property
    def runs(self) -> Runs:
        """What a tile sums over."""
        places = self.window_places()
        channel = self.rhs.strides[self.labels.kernel_input_feature]
        step, run = channel, self.features
        if self.windows and self.groups == 1:
            last, stride = self.windows[-1], self.rhs.strides[self.labels.kernel_spatial[-1]]
            is_dense = last.window_dilation == 1 and self.image_strides[-1] == run and not last.reversed
            if is_dense and (run == 1 or stride == run * channel):
                step = channel if run > 1 else stride
                places, run = places[:: last.size], run * last.size
        most = self._steps
        part = next((part for part in range(most, most // 2, -1) if run % part == 0), run)
        starts = [(place, start) for place in places for start in range(0, run, part)]
        in_image = [self.offset(place) + start for place, start in starts]
        return Runs(in_image, [self.kernel_offset(place) + start * step for place, start in starts], part, step)

    # Blocks of results

    @property
    def batches(self) -> int:
        """Images that results are computed from, those of each batch group one after the other."""
        return self.images * (1 if self.is_expanded else self.batch_groups)

    @cached_property
    def strips(self) -> Strips:
        first, inner = (self.positions or (1,))[0], prod(self.positions[1:])
        most = LINE_POSITIONS if self.is_by_lines else _POSITIONS
        rows = max(min(most // max(inner, 1), first), 1)
        while rows > 1 and rows * inner > _FEW and self._strip_bytes(rows) > _STRIP_BYTES:
            rows -= 1
        rows = even(first, rows)
        if self.is_winograd:
            across = -(-inner // 2)
            rows = min(2 * even(-(-first // 2), max(self.room_tiles // across, 1)), first)
        images = 1
        if rows == first and self.batch_groups == 1 and not (self.is_expanded or self.is_by_lines):
            room = _POSITIONS // max(rows * inner, 1)
            if not self.is_direct:
                room = min(room, _IMAGES_BYTES // max(self._strip_bytes(rows), 1))
            if self.is_winograd:
                room = min(room, self.room_tiles // self.image_tiles)
            images = even(self.images, max(min(self.images, room), 1))
        each = -(-first // rows)
        count = -(-self.batches // images) * each
        return Strips(images, rows, count, each, self._strip_extent(rows))

    def _strip_extent(self, rows: int) -> tuple[int, ...]:
        """Sizes of the part of a padded image that so many rows of results need."""
        if not self.windows:
            return ()
        window = self.windows[0]
        return ((rows - 1) * window.stride + (window.size - 1) * window.window_dilation + 1, *self.extent[1:])

    def _strip_bytes(self, rows: int) -> int:
        return prod(self._strip_extent(rows)) * self.image_features * self.dtype.itemsize

    @property
    def image_stride(self) -> int:
        """Elements from one image of a strip to the next."""
        if self.is_direct:
            return self.lhs.strides[self.labels.input_batch]
        return prod(self.strips.extent) * self.image_features

    @property
    def block_positions(self) -> int:
        """Positions of a block, in whole tiles."""
        most = self.strips.images * self.strips.rows * prod(self.positions[1:])
        return -(-(most if self.is_winograd else min(most, _POSITIONS)) // _MOST_ROWS) * _MOST_ROWS

    @property
    def points_room(self) -> int:
        """Tiles of a strip, and as many more as a block of rows may reach beyond them."""
        across = -(-self.positions[1] // 2)
        return self.strips.images * -(-self.strips.rows // 2) * across + _MOST_ROWS

    @property
    def points_slab(self) -> int:
        """Elements of a point of all tiles of a strip: a cache line more, so that points are in different sets."""
        return self.points_room * self.features + 16

    @property
    def is_padded(self) -> bool:
        """Whether some of a copied image is no element of the input."""
        return any(w.base_dilation > 1 or w.pad_low > 0 or w.pad_high > 0 for w in self.windows)

    def tile(self, vector_bytes: int) -> Tile:
        lanes = max(vector_bytes // self.dtype.itemsize, 2)
        vectors, rows = (2, _ROWS) if self.group_outputs > lanes else (1, _MOST_ROWS)
        return Tile(self.dtype, rows, vectors, lanes)

    @property
    def _wanted_features(self) -> int:
        if self.is_winograd:
            return _FEATURES
        few = 20 * _MOST_ROWS // max(self.block_positions, 1)
        return max(min(_FEATURES * few, _MOST_FEATURES), _FEATURES)

    def block_features(self, vector_bytes: int) -> int:
        """Output features of a block: whole panels, as even as possible."""
        columns = self.tile(vector_bytes).columns
        return even(-(-self.group_outputs // columns), -(-self._wanted_features // columns)) * columns

    @property
    def _steps(self) -> int:
        return min(_STEPS, _KERNEL_ELEMENTS // min(self._wanted_features, self.group_outputs))

    def block_runs(self) -> int:
        """Runs that are summed at a time."""
        return min(max(self._steps // self.runs.size, 1), len(self.runs.in_image))

    def panel_kernel(self, columns: int) -> int:
        """Elements of a packed panel: one row more than it has, so that the same rows of panels are in different sets
        of the first cache.
        """
        return (self.block_runs() * self.runs.size + 1) * columns

    # Scratch

    def places(self, vector_bytes: int) -> dict[str, int]:
        """Where the parts of scratch begin, and at the name "end" how many bytes they take. One panel of a kernel is
        packed at a time, those of a block together if it is computed. By way of points, the first one is what a
        thread knows of its scratch (`winograd.py`).
        """
        features, itemsize = self.block_features(vector_bytes), self.dtype.itemsize
        columns = self.tile(vector_bytes).columns
        panels = features // columns if 1 in self.computed else 1
        sizes = {
            "part": 16 if self.is_winograd else 0,
            "image": 0 if self.is_direct else self.strips.images * prod(self.strips.extent) * self.image_features,
            "kernel": self.kernel_count if self.is_expanded else panels * self.panel_kernel(columns),
            "sums": self.outputs if self.is_expanded else self.block_positions * features,
        }
        if self.is_by_lines:
            sizes |= self.lines.sizes(vector_bytes)
        if self.is_winograd:
            sizes |= {
                "level": prod(self.strips.extent),
                "points": POINTS * self.points_slab,
                "weights": POINTS * self.features * features,
                "products": POINTS * self.points_room * columns,
            }
        found, end = {}, 0
        for name, count in sizes.items():
            found[name] = end
            end += padded(count * itemsize)
        positions = self.strips.images * self.strips.rows * prod(self.positions[1:])
        return found | {"places": end, "end": end + padded(8 * (positions + _MOST_ROWS))}

    @property
    def kernel_count(self) -> int:
        """Elements of the kernel."""
        return prod(w.size for w in self.windows) * self.features * self.outputs

    @property
    def scratch_bytes(self) -> int:
        return 0 if self.is_plain else max(self.places(width)["end"] for width in (16, 32, 64))
