"""What is known of a convolution whose vectors go along lines of results (`line_convolution.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from hloc.codegen.loops import row_major_strides
from hloc.records import record

if TYPE_CHECKING:
    from hloc.codegen.convolution_plan import ConvolutionPlan

LINE_POSITIONS = 4096
"""Results of a strip, at most."""

_FEW_BYTES, _LINE_BYTES, _MOST_LINES = 16, 32, 4
"""Bytes of the features of a result at most, and of a line of a feature's results at least; the stride at most."""

_FEW_FEATURES = 8
"""Input features, at most, that may lie side by side."""

_SUMS, _VECTORS = 12, 8
"""Vectors of sums that are made together, and of a line."""


def even(size: int, most: int) -> int:
    """The size of parts, at most so large, that are about equal."""
    return -(-size // -(-size // most))


def is_by_lines(plan: ConvolutionPlan) -> bool:
    """Whether there are few output features in a group, and lines of results are long."""
    if not plan.windows or plan.batch_groups > 1 or not plan.dtype.is_float or 0 in plan.base:
        return False
    itemsize, last = plan.dtype.itemsize, plan.windows[-1]
    if plan.group_outputs * itemsize > _FEW_BYTES or plan.positions[-1] * itemsize < _LINE_BYTES:
        return False
    if last.stride > 1 and (last.stride > _MOST_LINES or last.base_dilation > 1 or len(plan.windows) == 1):
        return False
    lies_by_lines = plan.lhs.strides[plan.labels.input_spatial[-1]] == 1
    if not lies_by_lines and plan.features * plan.groups > _FEW_FEATURES:
        return False
    return plan.groups == 1 or plan.outputs * itemsize < _LINE_BYTES


@record
class LineTile:
    """What is summed together of lines of results: `rows` x `vectors` of `lanes`; `count` tiles are a line."""

    rows: int
    vectors: int
    lanes: int
    count: int


class LinePlan:
    """How an image lies in scratch, and what is summed together."""

    def __init__(self, plan: ConvolutionPlan):
        self.plan, self.stride = plan, plan.windows[-1].stride
        self.extent = plan.strips.extent

    @property
    def width(self) -> int:
        """Elements of each line that a line of a padded image is dealt out to."""
        return -(-self.extent[-1] // self.stride)

    @cached_property
    def strides(self) -> list[int]:
        """Elements from one line of a copied image to the next, a spatial dimension each but the last."""
        return list(row_major_strides((*self.extent[:-1], self.stride * self.width))[:-1])

    @property
    def plane(self) -> int:
        """Elements of one feature of a copied image."""
        return prod(self.extent[:-1]) * self.stride * self.width

    def column(self, at: int) -> int:
        """Where an element of a line of a padded image is."""
        return at % self.stride * self.width + at // self.stride

    def offset(self, place: Sequence[int]) -> int:
        """Elements from the first position of a window to the one at a place in it."""
        steps = [i * w.window_dilation for i, w in zip(place, self.plan.windows, strict=True)]
        strides = zip(steps, self.strides, strict=False)
        return sum(step * stride for step, stride in strides) + self.column(steps[-1])

    def tile(self, vector_bytes: int) -> LineTile:
        plan, is_line = self.plan, len(self.plan.windows) == 1
        lanes = max(vector_bytes // plan.dtype.itemsize, 2)
        vectors = -(-(plan.strips.rows if is_line else plan.positions[-1]) // lanes)
        each = even(vectors, min(_SUMS // plan.group_outputs, _VECTORS))
        rows = 1 if is_line else (plan.strips.rows, *plan.positions[1:])[-2]
        return LineTile(max(min(_SUMS // (plan.group_outputs * each), rows), 1), each, lanes, -(-vectors // each))

    def sizes(self, vector_bytes: int) -> dict[str, int]:
        """Elements of the image, with what tiles may read beyond it, of the kernel, and of the sums of tiles of a line.
        """
        plan, tile = self.plan, self.tile(vector_bytes)
        line = tile.count * tile.vectors * tile.lanes
        below = tile.rows * plan.windows[-2].stride * self.strides[-1] if self.strides else 0
        image = self.plane * plan.features * plan.groups + below + line
        return {"image": image, "kernel": plan.kernel_count, "sums": plan.group_outputs * tile.rows * line}
