"""Convolutions of 3 x 3 windows by way of points (`winograd_tiles.py`), strip by strip.

Where elements are of very different sizes, or a result is not finite, what one window has would show in the results
of others: the sums of such a strip are made window by window, as elsewhere.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import prod
from typing import Any

from hloc.codegen.gemm import Extent
from hloc.codegen.llvm import Value, integer
from hloc.codegen.routines import i64, least
from hloc.codegen.winograd_tiles import block_routine_of_points, image_routine, level_routine, weights_routine

_STATE_BYTES = 16
"""What a thread knows of its scratch: the part whose weights are there, and whether an image was."""

_UNITS = 8
"""Units of work for each thread, about."""


class WinogradConvolution:
    """This part of the emitter of convolutions (`emitters/convolution.py`), which has all that it uses."""

    k: Any
    b: Any
    plan: Any

    def write(self) -> None:
        """Units of work are some strips for a part of the features, whose weights a thread brings to points once."""
        k, b, strips = self.k, self.b, self.plan.strips.count
        wanted = 1 if self.parts >= 2 * k.workers else -(-_UNITS * k.workers // self.parts)
        each = -(-strips // min(strips, wanted))
        count = -(-strips // each)
        state = self._at("part")
        with ExitStack() as stack:
            if k.range is None:
                b.memset(state, integer("i8", 0), i64(_STATE_BYTES))
                limits = i64(0), i64(self.parts * count)
            else:
                k.cleared = _STATE_BYTES
                limits = stack.enter_context(k.ranged(self.parts * count))
            unit = stack.enter_context(b.for_loop(*limits, unroll=False))
            part, number = b.udiv(unit, i64(count)), b.urem(unit, i64(count))
            with b.if_then(b.icmp_signed("!=", b.load("i64", state), b.add(part, i64(1)))):
                self._make_weights(part)
                b.store(b.add(part, i64(1)), state)
            first = b.mul(number, i64(each))
            if each == 1:
                self._strip_of_points(first, part)
                return
            end = least(b, b.add(first, i64(each)), i64(strips))
            with b.for_loop(first, end, unroll=False) as strip:
                self._strip_of_points(strip, part)

    def _features(self, part: Value) -> Extent:
        """The features of a part."""
        size = self.panels * self.tile.columns
        first = self.b.mul(part, i64(size))
        whole = self.plan.outputs % size == 0
        return first, i64(size) if whole else least(self.b, i64(size), self.b.sub(i64(self.plan.outputs), first))

    def _make_weights(self, part: Value) -> None:
        plan, b, labels = self.plan, self.b, self.plan.labels
        first, features = self._features(part)
        origin, row, column = (plan.kernel_offset(place) for place in ((0, 0), (1, 0), (0, 1)))
        feature = plan.rhs.strides[labels.kernel_output_feature]
        start = b.add(b.mul(first, i64(feature)), i64(origin))
        kernel = self.element(self.k.input_array(1).pointer, start)
        strides = row - origin, column - origin, plan.rhs.strides[labels.kernel_input_feature], feature, plan.features
        panels = b.udiv(features, i64(self.tile.columns))
        given = [kernel, *map(i64, strides), panels, self._at("weights")]
        b.call(weights_routine(self.routines, self.tile), given)

    def _strip_of_points(self, strip: Value, part: Value) -> None:
        """The results of a strip: those of a part of the features."""
        b, plan = self.b, self.plan
        begun = b.gep("i64", self._at("part"), i64(1))
        self._begin(strip, strip)
        self.is_new = b.icmp_signed("==", b.load("i64", begun), i64(0))
        b.store(i64(1), begun)
        self.copy_strip()
        image = self.image()
        self.origin, self.positions = i64(0), b.mul(b.mul(*self.count), i64(prod(plan.positions[1:])))
        first, features = self._features(part)
        shape = [*self.count, i64(plan.positions[1])]
        given = [image, *shape, *map(i64, (plan.image_stride, *plan.image_strides, plan.features))]
        is_level = b.call(level_routine(self.routines, self.tile), [*given, self._at("level")])
        with_points = b.if_else(is_level, lambda: [self._sums(given, shape, features)], lambda: [integer("i1", 0)])
        with b.if_then(b.not_(with_points[0])):
            self.fill_places()
            self.block(image, i64(0), first)
        self.finish((first, features))

    def _sums(self, given: list[Value], shape: list[Value], features: Value) -> Value:
        """Makes the sums by way of points; whether all are finite."""
        b, plan, columns = self.b, self.plan, self.tile.columns
        points, slab = self._at("points"), i64(plan.points_slab)
        b.call(image_routine(self.routines, self.tile), [*given, points, slab])
        tiles = shape[0]
        for size in shape[1:]:
            tiles = b.mul(tiles, b.lshr(b.add(size, i64(1)), i64(1)))
        left = [points, slab, tiles, i64(plan.features)]
        right = [self._at("weights"), b.udiv(features, i64(columns))]
        to = [self._at("products"), i64(plan.points_room * columns), self._at("sums"), i64(self.panel_sums)]
        return b.call(block_routine_of_points(self.routines, self.tile), [*left, *right, *to, *shape])
