"""Convolutions whose input features are repeated in the copy of an image: one product an output feature.

Where nothing is repeated and features are fastest, images are read where they lie: a row of a window that is beside the
image is one of zeros in scratch, and results at the ends of a row are made by code of their own, in which places beside
the image are zeros.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import product
from typing import Any

from hloc.codegen import scalar
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value, integer, vector_type, zero
from hloc.codegen.loops import row_major_strides
from hloc.codegen.products import multiply_add
from hloc.codegen.routines import i64

_UNROLLED = 16
"""Products of a sum that are written one by one: neighbouring positions share what they read."""

_POSITIONS = 4
"""Positions side by side whose sums are made together: each vector of the kernel is read once for them."""

_ROWS = 2
"""Rows of such sums that are made together where images are read in place: what two windows share is read once."""

_MOST_AT_ENDS = 3 * _POSITIONS
"""Positions at both ends of a row together that have code of their own, at most."""


class ExpandedConvolution:
    """This part of the emitter of convolutions (`emitters/convolution.py`), which has all that it uses."""

    k: Any
    b: Any
    plan: Any

    def write(self) -> None:
        plan = self.plan
        lanes = max(self.k.target.vector_bytes // plan.dtype.itemsize, 2)
        channels = range(plan.features)
        self.steps = [plan.offset(place) + c * plan.outputs for place in plan.window_places() for c in channels]
        self.each_strip(1, lambda first, end: self._strip(lanes))

    def _strip(self, lanes: int) -> None:
        plan, b = self.plan, self.b
        if self._reads_in_place():
            self._pack_kernel()
            self._strip_in_place(lanes)
            return
        self._copy_expanded()
        self._pack_kernel()
        *rows, last = [self.count[1], *map(i64, plan.positions[1:])] if plan.windows else [i64(1)]
        with ExitStack() as stack:
            place = [stack.enter_context(b.for_loop(i64(0), size, unroll=False)) for size in rows]
            whole = b.mul(b.udiv(last, i64(_POSITIONS)), i64(_POSITIONS))
            for first, end, count in ((i64(0), whole, _POSITIONS), (whole, last, 1)):
                with b.for_loop(first, end, count, unroll=False) as position:
                    self._positions([*place, position], count, lanes)

    def _positions(self, place: list[Value], count: int, lanes: int) -> None:
        """All results at some positions along the last dimension, by vectors of features and one by one."""
        plan, b = self.plan, self.b
        whole = plan.outputs // lanes * lanes
        strides = [w.stride * stride for w, stride in zip(plan.windows, plan.image_strides, strict=True)] or [0]
        image = self.element(self._at("image"), self.sum(place, strides))
        for first, end, width in ((0, whole, lanes), (whole, plan.outputs, 0)):
            if first < end:
                with b.for_loop(i64(first), i64(end), max(width, 1), unroll=False) as feature:
                    sums = self._sums(self.element(image, feature), feature, (count, strides[-1]), width)
                    for number, total in enumerate(sums):
                        self._store([*place[:-1], b.add(place[-1], i64(number))], feature, total, width)

    # Images that are read where they lie

    def _reads_in_place(self) -> bool:
        plan = self.plan
        if not plan.is_copied_whole or len(plan.windows) != 2 or len(self.steps) > _UNROLLED or 0 in plan.base:
            return False
        if any(w.base_dilation > 1 or w.pad_low < 0 or w.pad_high < 0 for w in plan.windows):
            return False
        feature, column = (plan.lhs.strides[d] for d in (plan.labels.input_feature, plan.labels.input_spatial[1]))
        first, end = self._inner()
        return feature == 1 and column == plan.outputs and first + plan.positions[1] - end <= _MOST_AT_ENDS

    def _inner(self) -> tuple[int, int]:
        """The range of positions along the last dimension, in whole tiles, whose windows lie within a row."""
        (window, count), size = (self.plan.windows[1], self.plan.positions[1]), self.plan.base[1]
        reach = (window.size - 1) * window.window_dilation
        first = -(-window.pad_low // (window.stride * _POSITIONS)) * _POSITIONS
        fitting = (size - 1 + window.pad_low - reach) // window.stride + 1 - first
        first = min(first, count)
        return first, first + max(min(fitting, count - first), 0) // _POSITIONS * _POSITIONS

    def _strip_in_place(self, lanes: int) -> None:
        """Row by row."""
        plan, b, window = self.plan, self.b, self.plan.windows[0]
        image, zeros = self.k.input_array(0).pointer, self._at("image")
        batch, row = (plan.lhs.strides[d] for d in (plan.labels.input_batch, plan.labels.input_spatial[0]))
        image = self.element(image, b.mul(self.batch, i64(batch)))
        top = b.sub(b.mul(self.row, i64(window.stride)), i64(window.pad_low))
        bottom = b.add(top, i64(plan.strips.extent[0]))
        beside = b.or_(b.icmp_signed("<", top, i64(0)), b.icmp_signed(">", bottom, i64(plan.base[0])))
        with b.if_then(beside):
            b.memset(zeros, integer("i8", 0), i64(plan.base[1] * plan.outputs * plan.dtype.itemsize))

        def start(number: Value, offset: int) -> Value:
            place = b.add(b.add(top, b.mul(number, i64(window.stride))), i64(offset))
            within = b.icmp_unsigned("<", place, i64(plan.base[0]))
            return b.select(within, self.element(image, b.mul(place, i64(row))), zeros)

        whole, count = b.mul(b.udiv(self.count[1], i64(_ROWS)), i64(_ROWS)), self.count[1]
        are_whole = plan.strips.rows % _ROWS == plan.positions[0] % _ROWS == 0
        parts = [(i64(0), count, _ROWS)] if are_whole else [(i64(0), whole, _ROWS), (whole, count, 1)]
        for first, end, rows in parts:
            reach = (rows - 1) * window.stride + (window.size - 1) * window.window_dilation + 1
            with b.for_loop(first, end, rows, unroll=False) as number:
                self._rows_in_place(number, rows, [start(number, offset) for offset in range(reach)], lanes)

    def _rows_in_place(self, row: Value, rows: int, starts: list[Value], lanes: int) -> None:
        """So many rows of results, from `row` on; what their windows reach begins at `starts`."""
        plan, b, (first, end) = self.plan, self.b, self._inner()
        whole, last = plan.outputs // lanes * lanes, plan.positions[1]

        def tile(position: Value | int, count: int) -> None:
            at = i64(position) if isinstance(position, int) else position
            for begin, behind, width in ((0, whole, lanes), (whole, plan.outputs, 0)):
                if begin < behind:
                    with b.for_loop(i64(begin), i64(behind), max(width, 1), unroll=False) as feature:
                        sums = self._sums_in_place(starts, (position, feature), (rows, count), width)
                        for (r, p), total in sums.items():
                            self._store([b.add(row, i64(r)), b.add(at, i64(p))], feature, total, width)

        if first < end:
            with b.for_loop(i64(first), i64(end), _POSITIONS, unroll=False) as position:
                tile(position, _POSITIONS)
        for begin, behind in ((0, first), (end, last)):
            for position in range(begin, behind, _POSITIONS):
                tile(position, min(_POSITIONS, behind - position))

    def _sums_in_place(
        self, starts: list[Value], origin: tuple[Value | int, Value], counts: tuple[int, int], width: int
    ) -> dict[tuple[int, int], Value]:
        """The sums of a vector of features at rows x positions, from a position and a feature on; where the position is
        known, places beside a row are 0. A line of places is read for all rows of results that it belongs to.
        """
        b, (down, across), (rows, count) = self.b, self.plan.windows, counts
        type, features = vector_type(self.type, width), self.plan.outputs

        def load(start: Value, place: int) -> Value:
            return b.load(type, self.element(start, i64(place * features)), align=self.plan.dtype.itemsize)

        position, feature = origin
        kernel = self.element(self._at("kernel"), feature)
        weights = [load(kernel, number) for number in range(down.size * across.size)]
        totals = {(r, p): zero(type) for r in range(rows) for p in range(count)}
        is_known = isinstance(position, int)
        skipped = position * across.stride if is_known else 0
        offset = feature if is_known else b.add(feature, b.mul(position, i64(across.stride * features)))
        for number, start in enumerate(starts):
            line, known = self.element(start, offset), {}
            for r, n in product(range(rows), range(down.size)):
                if r * down.stride + n * down.window_dilation != number:
                    continue
                for m, p in product(range(across.size), range(count)):
                    at = skipped + p * across.stride + m * across.window_dilation - across.pad_low
                    if at not in known:
                        is_beside = is_known and not 0 <= at < self.plan.base[1]
                        known[at] = zero(type) if is_beside else load(line, at)
                    totals[r, p] = multiply_add(b, known[at], weights[n * across.size + m], totals[r, p])
        return totals

    def _pack_kernel(self) -> None:
        """[window place][input feature][output feature]."""
        dims = [*(w.size for w in self.plan.windows), self.plan.features, self.plan.outputs]
        strides = row_major_strides(dims)

        def element(index: Index) -> None:
            *window, channel, feature = index
            place = self.element(self._at("kernel"), self.sum(index, strides))
            self.b.store(self.weight(window, channel, feature), place)

        self.k.loop_nest(dims, element)

    def _copy_expanded(self) -> None:
        """A strip with an element for each input feature of a group and each output feature."""
        plan, b = self.plan, self.b

        def read(image: Value, place: list[Value], at: Index) -> Value:
            channel, group, _ = at
            if plan.batch_groups > 1:
                return self.input(b.add(image, b.mul(group, i64(plan.images))), channel, place)
            return self.input(image, b.add(channel, b.mul(group, i64(plan.features))), place)

        self.copy([plan.features, plan.groups * plan.batch_groups, plan.group_outputs], read)

    def _sums(self, image: Value, feature: Value, positions: tuple[int, int], width: int) -> list[Value]:
        """The sums of a vector of features at (how many, a stride apart) positions."""
        plan, b, (count, stride) = self.plan, self.b, positions
        type, align = vector_type(self.type, width), plan.dtype.itemsize
        kernel = self.element(self._at("kernel"), feature)

        def load(start: Value, offset: Value) -> Value:
            return b.load(type, self.element(start, offset), align=align)

        totals = [zero(type)] * count
        if len(self.steps) > _UNROLLED:
            table = self.table(self.steps)

            def step(number: Value, totals: list[Value]) -> list[Value]:
                start = self.element(image, b.load("i64", b.gep("i64", table, number)))
                weight = load(kernel, b.mul(number, i64(plan.outputs)))
                return [multiply_add(b, load(start, i64(p * stride)), weight, t) for p, t in enumerate(totals)]

            return b.for_loop_carrying(0, len(self.steps), totals, step)
        known: dict[int, Value] = {}
        for number, offset in enumerate(self.steps):
            weight = load(kernel, i64(number * plan.outputs))
            for p in range(count):
                at = offset + p * stride
                known[at] = known.get(at) or load(image, i64(at))
                totals[p] = multiply_add(b, known[at], weight, totals[p])
        return totals

    def _store(self, place: list[Value], feature: Value, total: Value, width: int) -> None:
        """Stores the results of a position, or what the epilogue makes of them."""
        plan, b, labels = self.plan, self.b, self.plan.labels
        index = {labels.output_batch: self.batch}
        if plan.windows:
            index |= zip(labels.output_spatial, [b.add(self.row, place[0]), *place[1:]], strict=True)

        def at(column: Value) -> Index:
            index[labels.output_feature] = b.add(feature, column)
            return tuple(index[d] for d in range(plan.out.rank))

        out = None if self.k.finisher is not None else self.k.outputs[0]
        dense = plan.out.dtype is plan.dtype and plan.out.strides[labels.output_feature] == 1
        if out is not None and dense:
            b.store(total, out.address(at(i64(0))), align=plan.dtype.itemsize)
            return
        sums = self._at("sums")
        b.store(total, sums, align=plan.dtype.itemsize)
        with b.for_loop(i64(0), i64(max(width, 1))) as column:
            value = scalar.load(b, plan.dtype, self.element(sums, column))
            self.k.store(at(column), [scalar.convert(b, value, plan.dtype, plan.out.dtype)])
