"""convolution: window sums of products, of any dimension labels, strides, paddings, dilations and groups.

Images are handled in strips: some rows of one, or some whole ones (`ConvolutionPlan.strips`). A strip is copied into
scratch, padded, dilated and with features fastest, or used where it lies, if it lies so already. Of a strip, blocks of
results are made, some hundred positions by a few panels of output features: pieces of the kernel are packed as they
are needed, and the sums of a block stay in scratch until they are complete. So threads may have strips, or blocks of
output features, without waiting for each other. Windows of 3 x 3 take fewer multiplications (`winograd.py`). Where a
group has few output features, the input features are repeated in the copy so that one product an output feature remains
(`expanded_convolution.py`); where there are few in all, vectors go along lines of results (`line_convolution.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from math import prod

import numpy as np

from hloc.codegen import scalar
from hloc.codegen.bodies import lies_in_memory
from hloc.codegen.convolution_plan import ConvolutionPlan, visible
from hloc.codegen.convolution_tiles import block_routine, copy_routine, places_routine, positions_routine
from hloc.codegen.expanded_convolution import ExpandedConvolution
from hloc.codegen.gemm import Extent
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.line_convolution import LineConvolution
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import delinearize, row_major_strides
from hloc.codegen.plain_convolution import plain_convolution
from hloc.codegen.routines import Routines, blocks, i64, least
from hloc.codegen.winograd import WinogradConvolution
from hloc.ir.instruction import Instruction


def _computed(instruction: Instruction) -> list[int]:
    return [number for number, operand in enumerate(instruction.operands) if not lies_in_memory(operand)]


@kernel(
    "convolution",
    element_operands=_computed,
    scratch=lambda instruction: ConvolutionPlan(instruction).scratch_bytes,
    fused_scratch=lambda instruction, epilogue: ConvolutionPlan(instruction, _computed(instruction)).scratch_bytes,
    takes_epilogue=lambda instruction: True,
    written_once=lambda instruction, epilogue: range(len(epilogue.roots)),
    is_loop=True,
)
def convolution(k: KernelContext, instruction: Instruction) -> None:
    if len(instruction.operands) > 2:
        raise k.error(f"convolution with scales or sparsity is not supported on {k.target.name} yet")
    plan = ConvolutionPlan(instruction, _computed(instruction) if k.is_fused else ())
    if 0 in plan.out.dims:
        return
    if plan.is_plain:
        plain_convolution(k, plan)
    else:
        ways = ((_Winograd, plan.is_winograd), (_Lines, plan.is_by_lines), (_Expanded, plan.is_expanded))
        way = next((way for way, is_taken in ways if is_taken), _Blocks)
        way(k, plan).write()


class _Strips:
    """Goes through the strips of a convolution, and copies them.

    `batch` and `row` are the first image and the first row of a strip, `count` are its (images, rows). It `is_new` if
    scratch is as others left it.
    """

    def __init__(self, k: KernelContext, plan: ConvolutionPlan):
        self.k, self.b, self.plan = k, k.b, plan
        self.type = scalar.memory_type(plan.dtype)
        self.routines = Routines(k.b.module, k.target)
        self.scratch = plan.places(k.target.vector_bytes)
        self.batch = self.row = i64(0)
        self.is_new = integer("i1", 1)
        self.count: tuple[Value, Value] = (i64(1), i64(1))

    def _at(self, name: str) -> Value:
        return self.b.gep("i8", self.k.scratch, i64(self.scratch[name]))

    def element(self, base: Value, offset: Value) -> Value:
        return self.b.gep(self.type, base, offset)

    def sum(self, index: Sequence[Value], strides: Sequence[int]) -> Value:
        """Of each index times its stride."""
        total = i64(0)
        for value, stride in zip(index, strides, strict=True):
            total = self.b.add(total, self.b.mul(value, i64(stride)))
        return total

    def table(self, offsets: Sequence[int]) -> Value:
        """The address of a table of offsets."""
        return self.b.module.constant_bytes(np.array(offsets, "<i8").tobytes(), align=8)

    def each_strip(self, parts: int, write: Callable[[Value, Value], None]) -> None:
        """Calls `write`(first, end) for each strip with a range of its `parts`: all of them, or those of a thread."""
        k, b, count = self.k, self.b, self.plan.strips.count
        with ExitStack() as stack:
            begin, end = i64(0), i64(count * parts)
            if k.range is not None:
                begin, end = stack.enter_context(k.ranged(count * parts))
            if count == 1:
                self._begin(i64(0), i64(0))
                write(begin, end)
                return
            first = b.udiv(begin, i64(parts))
            last = b.udiv(b.add(end, i64(parts - 1)), i64(parts))
            strip = stack.enter_context(b.for_loop(first, last, unroll=False))
            self._begin(strip, first)
            if parts == 1:
                write(i64(0), i64(1))
                return
            begin, end = (b.sub(limit, b.mul(strip, i64(parts))) for limit in (begin, end))
            write(b.select(b.icmp_signed("<", begin, i64(0)), i64(0), begin), least(b, end, i64(parts)))

    def _begin(self, strip: Value, start: Value) -> None:
        """Turns to a strip; `start` is the first of this call."""
        plan, b = self.plan, self.b
        self.is_new = b.icmp_signed("==", strip, start)
        strips, rows = plan.strips, (plan.positions or (1,))[0]
        images, part = delinearize(b, strip, [-(-plan.batches // strips.images), strips.each])
        self.batch, self.row = b.mul(images, i64(strips.images)), b.mul(part, i64(strips.rows))

        def number(start: Value, most: int, size: int) -> Value:
            return i64(most) if size % most == 0 else least(b, i64(most), b.sub(i64(size), start))

        self.count = number(self.batch, strips.images, plan.batches), number(self.row, strips.rows, rows)

    # A strip, copied

    def copy(self, channels: Sequence[int], read: Callable[[Value, list[Value], Index], Value]) -> None:
        """Puts elements, read(image, place in the base, channel indices), where padding leaves them."""
        plan, b, image = self.plan, self.b, self._at("image")
        ranges = [visible(*given) for given in zip(plan.base, plan.windows, plan.extent, strict=True)][1:]
        strides = [plan.image_stride, *plan.image_strides, *row_major_strides(channels)]
        inner = [*(end - first for first, end in ranges), *channels]
        first, end, top = self._rows()
        self.clear(first, end)
        if plan.is_copied_whole:
            self._copy_stored(ranges, (first, end, top))
            return
        with b.for_loop(i64(0), self.count[0], unroll=False) as number, b.for_loop(first, end, unroll=False) as row:

            def element(index: Index) -> None:
                place = [b.add(i, i64(low)) for i, (low, _) in zip(index, ranges)]
                to = [
                    b.add(b.mul(i, i64(w.base_dilation)), i64(w.pad_low))
                    for i, w in zip(place, plan.windows[1:], strict=True)
                ]
                to = [b.add(b.mul(row, i64(plan.windows[0].base_dilation)), top), *to] if plan.windows else to
                at = index[len(ranges) :]
                value = read(b.add(self.batch, number), [row, *place] if plan.windows else [], at)
                b.store(value, self.element(image, self.sum([number, *to, *at], strides)))

            self.k.loop_nest(inner, element)

    def clear(self, first: Value, end: Value) -> None:
        """Zeros where the rows from `first` to `end` leave some; between and beside them they stay for other strips."""
        b, scratch = self.b, self.scratch
        if self.plan.is_padded:
            whole = b.icmp_signed("==", b.sub(end, first), i64(self.plan.strips.extent[0]))
            with b.if_then(b.or_(self.is_new, b.not_(whole))):
                b.memset(self._at("image"), integer("i8", 0), i64(scratch["kernel"] - scratch["image"]))

    def _copy_stored(self, ranges: Sequence[tuple[int, int]], rows: tuple[Value, Value, Value]) -> None:
        """The same for an input in memory."""
        plan, b, labels = self.plan, self.b, self.plan.labels
        first, end, top = rows
        dims = zip(labels.input_spatial, plan.image_strides, plan.windows, strict=True)
        strides = [(plan.lhs.strides[d], stride, w.base_dilation) for d, stride, w in dims] + [(0, 0, 1)] * 2
        (row, to_row, row_step), (column, to_column, column_step), *_ = strides
        low, high = ranges[0] if ranges else (0, 1)
        left = low * column_step + (plan.windows[1].pad_low if ranges else 0)
        batch = plan.lhs.strides[labels.input_batch]
        source = self.sum([self.batch, first, i64(low)], [batch, row, column])
        place = self.sum([b.add(b.mul(first, i64(row_step)), top), i64(left)], [to_row, to_column])
        counts = [self.count[0], b.sub(end, first), i64(high - low), i64(plan.image_features)]
        source_strides = [batch, row, column, plan.lhs.strides[labels.input_feature]]
        to_strides = [plan.image_stride, to_row * row_step, to_column * column_step]
        arrays = [
            self.element(self.k.input_array(0).pointer, source),
            self.element(self._at("image"), place),
        ]
        routine = copy_routine(self.routines, plan.dtype)
        b.call(routine, [*arrays, *counts, *map(i64, [*source_strides, *to_strides])])

    def _rows(self) -> tuple[Value, Value, Value]:
        """The rows of the base (first, end) that lie in the strip, and at which of its rows number 0 would be."""
        plan, b = self.plan, self.b
        if not plan.windows:
            return i64(0), i64(1), i64(0)
        window, most = plan.windows[0], plan.strips.extent[0]
        top = b.sub(i64(window.pad_low), b.mul(self.row, i64(window.stride)))

        def within(value: Value) -> Value:
            """Dilated rows as rows, within 0 and the base's size."""
            value = b.select(b.icmp_signed("<", value, i64(0)), i64(0), value)
            return least(b, b.udiv(value, i64(window.base_dilation)), i64(plan.base[0]))

        first = within(b.sub(i64(window.base_dilation - 1), top))
        return first, within(b.sub(i64(most + window.base_dilation - 1), top)), top

    def input(self, batch: Value, channel: Value, place: Sequence[Value]) -> Value:
        index = self.plan.input_index(batch, channel, place)
        return scalar.convert(self.b, self.k.input(0)(index), self.plan.lhs.dtype, self.plan.dtype)

    def weight(self, window: Sequence[Value], channel: Value, feature: Value) -> Value:
        index = self.plan.kernel_index(self.b, channel, feature, window)
        return scalar.convert(self.b, self.k.input(1)(index), self.plan.rhs.dtype, self.plan.dtype)


class _Lines(LineConvolution, _Strips):
    """Of few output features, along lines of results."""


class _Expanded(ExpandedConvolution, _Strips):
    """Of groups with few output features."""


class _Blocks(_Strips):
    """Writes a convolution by blocks of results: `origin` and `positions` are those of a strip that a block has."""

    def __init__(self, k: KernelContext, plan: ConvolutionPlan):
        super().__init__(k, plan)
        self.tile = plan.tile(k.target.vector_bytes)
        self.panels = plan.block_features(k.target.vector_bytes) // self.tile.columns
        self.panel_kernel = plan.panel_kernel(self.tile.columns)
        self.panel_sums = plan.block_positions * self.tile.columns
        self.runs = plan.runs
        self.offsets = self.table(self.runs.in_image)
        self.origin = self.positions = i64(0)
        # Parts of the features of a group, and the groups of an image.
        self.parts = -(-plan.group_outputs // (self.panels * self.tile.columns))
        self.groups = 1 if plan.batch_groups > 1 else plan.groups

    def write(self) -> None:
        b, count = self.b, self.groups * self.parts
        each = -(-count // min(count, max(-(-2 * self.k.workers // self.plan.strips.count), 1)))

        def strip(first: Value, end: Value) -> None:
            self.copy_strip()
            end = least(b, b.mul(end, i64(each)), i64(count)) if count % each else b.mul(end, i64(each))
            self._strip(b.mul(first, i64(each)), end)

        self.each_strip(-(-count // each), strip)

    def copy_strip(self) -> None:
        if not self.plan.is_direct:
            features = self.plan.features * self.plan.groups
            self.copy([features], lambda batch, place, at: self.input(batch, at[0], place))

    def _strip(self, first: Value, end: Value) -> None:
        """The results of a strip: those of some parts of the output features."""
        plan, b = self.plan, self.b
        inner, strips = prod(plan.positions[1:]), plan.strips
        image = self.image()
        self.fill_places()
        size = b.mul(b.mul(*self.count), i64(inner))
        is_one = strips.images * strips.rows * inner <= plan.block_positions
        whole = nullcontext((i64(0), size))
        with (
            whole if is_one else blocks(b, size, i64(plan.block_positions)) as (self.origin, self.positions),
            b.for_loop(first, end, unroll=False) as number,
        ):
            group, part = delinearize(b, number, [self.groups, self.parts])
            source = self.element(image, b.mul(group, i64(plan.features)))
            self.finish(self.block(source, group, b.mul(part, i64(self.panels * self.tile.columns))))

    def image(self) -> Value:
        """The address of the strip's first position."""
        plan, b = self.plan, self.b
        if not plan.is_direct:
            return self._at("image")
        pads = -sum(w.pad_low * stride for w, stride in zip(plan.windows, plan.image_strides, strict=True))
        offset = b.add(b.mul(self.batch, i64(plan.image_stride)), i64(pads))
        if plan.windows:
            offset = b.add(offset, b.mul(self.row, i64(plan.windows[0].stride * plan.image_strides[0])))
        return self.element(self.k.input_array(0).pointer, offset)

    def fill_places(self) -> None:
        """Where in the image each position of the strip is; the last one again to fill the last tile."""
        plan, b = self.plan, self.b
        strides = [w.stride * stride for w, stride in zip(plan.windows, plan.image_strides, strict=True)]
        counts = [*self.count, *map(i64, plan.positions[1:])]
        strides = [plan.image_stride, *(strides or [0])]
        outer = max(len(counts) - 3, 0)
        with ExitStack() as stack:
            index = [stack.enter_context(b.for_loop(i64(0), size, unroll=False)) for size in counts[:outer]]
            start, number = self.sum(index, strides[:outer]), i64(0)
            for at, size in zip([*index, *[i64(0)] * 3], counts, strict=False):
                number = b.add(b.mul(number, size), at)
            sizes = [*[i64(1)] * (3 - len(counts)), *counts[outer:]]
            steps = [*[i64(0)] * (3 - len(counts)), *map(i64, strides[outer:])]
            to = b.gep("i64", self._at("places"), number)
            b.call(places_routine(self.routines), [to, start, *sizes, *steps, i64(self.tile.rows)])

    def _tiles(self) -> Value:
        return self.b.udiv(self.b.add(self.positions, i64(self.tile.rows - 1)), i64(self.tile.rows))

    def block(self, image: Value, group: Value, feature: Value) -> Extent:
        """The sums of a block of results, of features of a group from `feature` on; which features."""
        plan, b, columns = self.plan, self.b, self.tile.columns
        if plan.batch_groups > 1:
            group = b.udiv(self.batch, i64(plan.images))
        features = i64(self.panels * columns)
        if plan.group_outputs % (self.panels * columns):
            features = least(b, features, b.sub(i64(plan.group_outputs), feature))
        panels = b.udiv(b.add(features, i64(columns - 1)), i64(columns))
        first = b.add(b.mul(group, i64(plan.group_outputs)), feature)
        places = b.gep("i64", self._at("places"), self.origin)
        packed = self._at("kernel")
        sums = self._at("sums"), i64(self.panel_sums)
        runs, together = i64(len(self.runs.in_image)), i64(plan.block_runs())
        if 1 not in plan.computed:
            feature_stride = plan.rhs.strides[plan.labels.kernel_output_feature]
            weights = self.k.input_array(1).pointer
            weights = b.gep(scalar.memory_type(plan.rhs.dtype), weights, b.mul(first, i64(feature_stride)))
            starts = self.table(self.runs.in_kernel)
            given = [image, places, self._tiles(), weights, self.offsets, starts, runs, together]
            steps = [i64(self.runs.size), i64(self.runs.step), i64(feature_stride), features]
            b.call(block_routine(self.routines, self.tile, plan.rhs.dtype), [*given, *steps, packed, *sums])
        else:
            with blocks(b, runs, together) as (run, count):
                self._pack((run, count), (first, features))
                given = [image, places, self._tiles(), b.gep("i64", self.offsets, run), count, i64(self.runs.size)]
                rest = [packed, i64(self.panel_kernel), panels, *sums, b.icmp_signed(">", run, i64(0))]
                b.call(positions_routine(self.routines, self.tile), [*given, *rest])
        return first, features

    def _pack(self, runs: Extent, features: Extent) -> None:
        """The kernel's part of some runs and features: [panel][step][column]."""
        plan, b, columns = self.plan, self.b, self.tile.columns
        sizes = [*(w.size for w in plan.windows), plan.features]
        kernel = self._at("kernel")
        steps = b.mul(runs[1], i64(self.runs.size))

        def panel(step: Value, start: Value, count: Value) -> None:
            *window, channel = delinearize(b, b.add(step, b.mul(runs[0], i64(self.runs.size))), sizes)
            target = self.element(kernel, self.sum([b.udiv(start, i64(columns)), step], [self.panel_kernel, columns]))
            with b.for_loop(i64(0), count) as column:
                feature = b.add(features[0], b.add(start, column))
                b.store(self.weight(window, channel, feature), self.element(target, column))

        with b.for_loop(i64(0), steps, unroll=False) as step:
            self._each_panel(features[1], lambda start, count: panel(step, start, count))

    def _each_panel(self, features: Value, write: Callable[[Value, Value], None]) -> None:
        """Calls `write`(first, count) for the features of each panel, a constant count for those that are whole."""
        b, columns = self.b, i64(self.tile.columns)
        with b.for_loop(i64(0), features, self.tile.columns, unroll=False) as first:
            if self.plan.group_outputs % self.tile.columns == 0:
                write(first, columns)
                return
            left = b.sub(features, first)
            whole = b.icmp_signed(">=", left, columns)
            with b.if_then(whole):
                write(first, columns)
            with b.if_then(b.not_(whole)):
                write(first, left)

    def finish(self, features: Extent) -> None:
        """Stores a block of results, or what the epilogue makes of it."""
        plan, b, out = self.plan, self.b, self.plan.out
        spatial = [out.strides[d] for d in plan.labels.output_spatial if out.dims[d] > 1]
        feature_first = min(spatial, default=0) < out.strides[plan.labels.output_feature]

        def panel(first: Value, count: Value) -> None:
            def one(column: Value, position: Value) -> None:
                offset = self.sum([first, position, column], [plan.block_positions, self.tile.columns, 1])
                total = scalar.load(b, plan.dtype, self.element(self._at("sums"), offset))
                index = self._result_index(position, b.add(features[0], b.add(first, column)))
                self.k.store(index, [scalar.convert(b, total, plan.dtype, out.dtype)])

            columns, positions = (i64(0), count), (i64(0), self.positions)
            if feature_first:
                with b.for_loop(*columns, unroll=False) as column, b.for_loop(*positions) as position:
                    one(column, position)
            else:
                with b.for_loop(*positions, unroll=False) as position, b.for_loop(*columns) as column:
                    one(column, position)

        self._each_panel(features[1], panel)

    def _result_index(self, position: Value, feature: Value) -> Index:
        """The index of the result at a position of the block."""
        plan, b, labels = self.plan, self.b, self.plan.labels
        number = b.add(b.add(self.origin, position), b.mul(self.row, i64(prod(plan.positions[1:]))))
        if plan.batch_groups == 1:
            number = b.add(number, b.mul(self.batch, i64(prod(plan.positions))))
            batch, *place = delinearize(b, number, [plan.images, *plan.positions])
        else:
            batch, place = b.urem(self.batch, i64(plan.images)), delinearize(b, number, plan.positions)
        index = dict(zip(labels.output_spatial, place, strict=True))
        index |= {labels.output_batch: batch, labels.output_feature: feature}
        return tuple(index[d] for d in range(plan.out.rank))


class _Winograd(WinogradConvolution, _Blocks):
    """Of windows of 3 x 3."""
