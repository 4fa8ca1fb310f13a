"""Convolutions of few output features a group: vectors along a line of results, the last spatial dimension.

An image is copied feature by feature. Where windows are a stride apart along the line, its elements are dealt out to so
many lines in turn, so that those at the same place of neighbouring windows lie side by side. Sums of some vectors of
some rows are made together, for all output features of a group: what is read serves all of these. The last vectors
reach beyond the line; what they hold there is not stored.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import product
from types import SimpleNamespace
from typing import Any

from hloc.codegen import scalar
from hloc.codegen.convolution_plan import visible
from hloc.codegen.convolution_tiles import copy_routine
from hloc.codegen.kernel import Index
from hloc.codegen.line_plan import LineTile
from hloc.codegen.llvm import Builder, Function, Value, vector_type, zero
from hloc.codegen.loops import row_major_strides
from hloc.codegen.products import multiply_add
from hloc.codegen.routines import PLAIN, Routines, i64, least
from hloc.ir.dtypes import DType


class LineConvolution:
    """This part of the emitter of convolutions (`emitters/convolution.py`), which has all that it uses."""

    k: Any
    b: Any
    plan: Any

    def write(self) -> None:
        self.tile = self.plan.lines.tile(self.k.target.vector_bytes)
        self.steps = [
            channel * self.plan.lines.plane + self.plan.lines.offset(place)
            for place, channel in product(self.plan.window_places(), range(self.plan.features))
        ]
        self.each_strip(1, lambda first, end: self._strip())

    def _strip(self) -> None:
        plan, b = self.plan, self.b
        self._copy_lines()
        with b.if_then(self.is_new):
            self._pack_kernel()
        *rows, _ = [self.count[1], *map(i64, plan.positions[1:])]
        with ExitStack() as stack:
            group = stack.enter_context(b.for_loop(0, plan.groups, unroll=False))
            place = [stack.enter_context(b.for_loop(i64(0), size, unroll=False)) for size in rows[:-1]]
            image = self.element(self._at("image"), b.mul(group, i64(plan.features * plan.lines.plane)))
            if not rows:
                self._rows_of_results(group, [], i64(1), image)
                return
            row = stack.enter_context(b.for_loop(i64(0), rows[-1], self.tile.rows, unroll=False))
            self._rows_of_results(group, [*place, row], least(b, b.sub(rows[-1], row), i64(self.tile.rows)), image)

    # The image, feature by feature

    def _copy_lines(self) -> None:
        """Puts the strip's elements where padding leaves them."""
        plan = self.plan
        first, end, top = self._rows()
        self.clear(first, end)
        visibles = [visible(*given) for given in zip(plan.base, plan.windows, plan.extent, strict=True)]
        ranges = [(first, end), *((i64(low), i64(high)) for low, high in visibles[1:])]
        lows = [top, *(i64(w.pad_low) for w in plan.windows[1:])]
        is_stored = 0 not in plan.computed and plan.lhs.dtype is plan.dtype
        if plan.windows[-1].stride > 1:
            low, high = visibles[-1]
            for column in range(low, min(low + plan.windows[-1].stride, high)):
                self._copy_every(ranges[:-1], lows[:-1], (column, high), is_stored)
        else:
            self._copy(ranges, lows, (plan.windows[-1].base_dilation, 1), is_stored)

    def _copy_every(
        self, ranges: list[tuple[Value, Value]], lows: list[Value], columns: tuple[int, int], is_stored: bool
    ) -> None:
        """Copies, from a column on, every column that is as far from the last one as windows are."""
        first, end = columns
        window = self.plan.windows[-1]
        start = self.plan.lines.column(first + window.pad_low)
        count = len(range(first, end, window.stride))
        self._copy([*ranges, (i64(0), i64(count))], [*lows, i64(start)], (1, window.stride), is_stored, first)

    def _copy(
        self,
        ranges: list[tuple[Value, Value]],
        lows: list[Value],
        steps: tuple[int, int],
        is_stored: bool,
        column: int = 0,
    ) -> None:
        """Copies ranges of the image, that of the last dimension with steps in the copy and in the base, from a column
        on.
        """
        plan, b = self.plan, self.b
        dilations = [*(w.base_dilation for w in plan.windows[:-1]), steps[0]]
        to_strides = [*plan.lines.strides, 1]
        if is_stored and steps[0] == 1 and len(ranges) <= 3:
            self._copy_by_routine(ranges, lows, (dilations, to_strides), steps[1], column)
            return
        with ExitStack() as stack:
            feature = stack.enter_context(b.for_loop(0, plan.features * plan.groups, unroll=False))
            place = [stack.enter_context(b.for_loop(*limits, unroll=False)) for limits in ranges[:-1]]
            last = stack.enter_context(b.for_loop(*ranges[-1]))
            terms = zip([*place, last], dilations, lows, strict=True)
            to = [b.add(b.mul(i, i64(dilation)), low) for i, dilation, low in terms]
            target = self.sum([feature, *to], [plan.lines.plane, *to_strides])
            there = b.add(b.mul(last, i64(steps[1])), i64(column))
            b.store(self.input(self.batch, feature, [*place, there]), self.element(self._at("image"), target))

    def _copy_by_routine(
        self,
        ranges: list[tuple[Value, Value]],
        lows: list[Value],
        image: tuple[list[int], list[int]],
        step: int,
        column: int,
    ) -> None:
        """The same for an input in memory. What the image has are dilations, and elements from place to place."""
        plan, b, labels = self.plan, self.b, self.plan.labels
        sources = [plan.lhs.strides[d] for d in labels.input_spatial]
        source = b.add(b.mul(self.batch, i64(plan.lhs.strides[labels.input_batch])), i64(column * sources[-1]))
        to, dims = i64(0), []
        sources[-1] *= step
        for (first, end), low, dilation, stride, from_ in zip(ranges, lows, *image, sources, strict=True):
            source = b.add(source, b.mul(first, i64(from_)))
            to = b.add(to, b.mul(b.add(b.mul(first, i64(dilation)), low), i64(stride)))
            dims.append((b.sub(end, first), from_, dilation * stride))
        rows, columns, line = [*[(i64(1), 0, 0)] * (3 - len(dims)), *dims]
        arrays = [self.element(self.k.input_array(0).pointer, source), self.element(self._at("image"), to)]
        counts = [i64(plan.features * plan.groups), rows[0], columns[0], line[0]]
        strides = [plan.lhs.strides[labels.input_feature], rows[1], columns[1], line[1]]
        strides += [plan.lines.plane, rows[2], columns[2]]
        b.call(copy_routine(self.routines, plan.dtype), [*arrays, *counts, *map(i64, strides)])

    def _pack_kernel(self) -> None:
        """[output feature][window place][input feature]."""
        dims = [self.plan.outputs, *(w.size for w in self.plan.windows), self.plan.features]
        strides = row_major_strides(dims)

        def element(index: Index) -> None:
            feature, *window, channel = index
            place = self.element(self._at("kernel"), self.sum(index, strides))
            self.b.store(self.weight(window, channel, feature), place)

        self.k.loop_nest(dims, element)

    # Sums

    def _rows_of_results(self, group: Value, place: list[Value], rows: Value, image: Value) -> None:
        """All results of some rows of a group: from a place on, which has no index along the line."""
        plan, b, tile = self.plan, self.b, self.tile
        strides = [w.stride * stride for w, stride in zip(plan.windows, plan.lines.strides, strict=False)]
        start = self.element(image, self.sum(place, strides))
        feature = b.mul(group, i64(plan.group_outputs))
        weights = self.element(self._at("kernel"), b.mul(feature, i64(len(self.steps))))
        row_step = i64(strides[-1] if strides else 0)
        given = [start, weights, self.table(self.steps), i64(len(self.steps)), row_step, self._at("sums")]
        b.call(_sums_routine(self.routines, plan.dtype, tile, plan.group_outputs), [*given, i64(tile.count)])
        with b.for_loop(0, plan.group_outputs, unroll=False) as output, b.for_loop(i64(0), rows, unroll=False) as row:
            line = b.mul(b.add(row, b.mul(output, i64(tile.rows))), i64(tile.count * tile.vectors * tile.lanes))
            self._store_line(place, row, b.add(feature, output), self.element(self._at("sums"), line))

    def _store_line(self, place: list[Value], row: Value, feature: Value, sums: Value) -> None:
        """Stores a line of results, or what the epilogue makes of it."""
        plan, b, labels = self.plan, self.b, self.plan.labels
        at = [*place[:-1], b.add(place[-1], row)] if place else []
        end = i64(plan.positions[-1]) if place else self.count[1]
        with b.for_loop(i64(0), end) as column:
            spatial = [*at, column]
            spatial[0] = b.add(spatial[0], self.row)
            index = {labels.output_batch: self.batch, labels.output_feature: feature}
            index |= zip(labels.output_spatial, spatial, strict=True)
            total = scalar.load(b, plan.dtype, self.element(sums, column))
            result = scalar.convert(b, total, plan.dtype, plan.out.dtype)
            self.k.store(tuple(index[d] for d in range(plan.out.rank)), [result])


def _sums_routine(routines: Routines, dtype: DType, tile: LineTile, outputs: int) -> Function:
    """`lines(image, weights, offsets, count, row, sums, tiles)`: so many tiles side by side along a line.

    For each output feature o, row r and place p, the sum over s < count of image[r * row + p + offsets[s]] *
    weights[o * count + s] goes to sums[o][r][p].
    """
    type, align = scalar.memory_type(dtype), dtype.itemsize
    vector, across = vector_type(type, tile.lanes), tile.vectors * tile.lanes
    cells = list(product(range(outputs), range(tile.rows), range(tile.vectors)))

    def write(b: Builder, p: SimpleNamespace) -> None:
        line = b.mul(p.tiles, i64(across))

        def sums(column: Value) -> None:
            starts = [b.gep(type, p.image, b.add(column, b.mul(p.row, i64(r)))) for r in range(tile.rows)]

            def step(number: Value, totals: list[Value]) -> list[Value]:
                offset = b.load("i64", b.gep("i64", p.offsets, number))
                lines = [b.gep(type, start, offset) for start in starts]
                places = product(range(tile.rows), range(tile.vectors))
                values = {
                    (r, v): b.load(vector, b.gep(type, lines[r], i64(v * tile.lanes)), align=align) for r, v in places
                }
                ats = [b.add(number, b.mul(p.count, i64(o))) for o in range(outputs)]
                spread = [b.splat(b.load(type, b.gep(type, p.weights, at)), tile.lanes) for at in ats]
                pairs = zip(cells, totals, strict=True)
                return [multiply_add(b, values[r, v], spread[o], total) for (o, r, v), total in pairs]

            totals = b.for_loop_carrying(i64(0), p.count, [zero(vector)] * len(cells), step)
            for (o, r, v), total in zip(cells, totals, strict=True):
                at = b.add(b.mul(line, i64(o * tile.rows + r)), b.add(column, i64(v * tile.lanes)))
                b.store(total, b.gep(type, p.sums, at), align=align)

        with b.for_loop(i64(0), p.tiles, unroll=False) as number:
            sums(b.mul(number, i64(across)))

    params = "ptr image, ptr weights, ptr offsets, i64 count, i64 row, ptr sums, i64 tiles"
    name = f"hloc.convolve_lines.{dtype.name}.{outputs}x{tile.rows}x{tile.vectors}x{tile.lanes}"
    return routines.get(name, params, write, stage=PLAIN)
