"""convolution: window sums of products, of any dimension labels, strides, paddings, dilations and groups.

The images of the input are copied one by one into scratch, padded, dilated and with features fastest (or used
where they lie, if they lie so already), the kernel is packed once. Then a block of results, some positions by
some output features, is a tile of a matrix product whose rows overlap in memory. Where a group has few output
features, the input features are repeated in the copy so that one product an output feature remains, and
vectors go along these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from hloc.codegen import scalar
from hloc.codegen.arrays import ArrayRef
from hloc.codegen.bodies import lies_in_memory
from hloc.codegen.convolution_plan import MOST_ROWS, ConvolutionPlan, tile_rows
from hloc.codegen.epilogue import Epilogue
from hloc.codegen.expanded_convolution import ExpandedConvolution
from hloc.codegen.kernel import Index, KernelContext, kernel
from hloc.codegen.llvm import Value, integer
from hloc.codegen.loops import row_major_strides
from hloc.codegen.plain_convolution import plain_convolution
from hloc.codegen.routines import Routines, i64, least
from hloc.codegen.tiles import Tile, tile_routine, unpack_routine
from hloc.ir.attributes import WindowDim
from hloc.ir.instruction import Instruction


def _computed(instruction: Instruction) -> list[int]:
    return [number for number, operand in enumerate(instruction.operands) if not lies_in_memory(operand)]


def _fused_scratch(instruction: Instruction, epilogue: Epilogue | None) -> int:
    plan = ConvolutionPlan(instruction, _computed(instruction))
    return plan.scratch_bytes + plan.result_bytes(epilogue)


@kernel(
    "convolution",
    element_operands=_computed,
    scratch=lambda instruction: ConvolutionPlan(instruction).scratch_bytes,
    fused_scratch=_fused_scratch,
    takes_epilogue=lambda instruction: True,
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
        _Convolution(k, plan).write()


class _Convolution(ExpandedConvolution):
    """Writes a convolution by way of copies of the images.

    Where an epilogue follows, it is applied to the results of a row of positions as soon as they are all there.
    `place` is the index of what is being computed, as far as the loops have it: {result dimension: value}. `some` are
    the panels (first, end) of output features that a thread computes, None if it computes all.
    """

    def __init__(self, k: KernelContext, plan: ConvolutionPlan):
        self.k, self.b, self.plan = k, k.b, plan
        self.routines = Routines(k.b.module, k.target)
        self.type = scalar.memory_type(plan.dtype)
        self.images = k.input_array(0).pointer if plan.is_direct else k.scratch
        self.out = ArrayRef(k.b, plan.out, self._result())
        self.place: dict[int, Value] = {}
        self.some: tuple[Value, Value] | None = None
        self.sums = self.b.gep("i8", k.scratch, i64(plan.image_bytes))
        self.kernel = self.b.gep("i8", self.sums, i64(plan.sums_bytes))
        self.unpack = unpack_routine(self.routines, plan.dtype, plan.out.dtype)
        strides, labels = plan.out.strides, plan.labels
        self.out_feature, self.out_batch = strides[labels.output_feature], strides[labels.output_batch]

    def _result(self) -> Value:
        """Where the result lies before an epilogue is applied to it: in an output or in scratch."""
        epilogue = self.k.finisher and self.k.finisher.epilogue
        if self.plan.result_bytes(epilogue):
            return self.b.gep("i8", self.k.scratch, i64(self.plan.scratch_bytes))
        return self.k.outputs[(epilogue and epilogue.holder()) or 0].pointer

    def write(self) -> None:
        plan, b = self.plan, self.b
        if self.k.range is not None:
            self._write_range()
            return
        if not plan.is_direct:
            b.memset(self.images, integer("i8", 0), i64(plan.image_bytes))
        if plan.is_expanded:
            self._pack_expanded_kernel()
            self._expanded()
        else:
            self._pack_kernel(plan.tile(self.k.target.vector_bytes, 1))
            self._begin_tiles()
            self._tiles()

    def _write_range(self) -> None:
        """One thread's part: some panels of output features, from its own copy of the images. Else nothing."""
        plan, b, k = self.plan, self.b, self.k
        tile = plan.tile(k.target.vector_bytes, 1)
        panels = -(-plan.group_outputs // tile.columns)
        if plan.is_expanded or plan.groups * plan.batch_groups > 1 or panels < 2:
            return
        each = -(-panels // min(panels, 2 * k.workers))
        self._begin_tiles()
        with k.ranged(-(-panels // each)) as limits, b.for_loop(*limits, unroll=False) as unit:
            first = b.mul(unit, i64(each))
            self.some = first, least(b, b.add(first, i64(each)), i64(panels))
            if not plan.is_direct:
                b.memset(self.images, integer("i8", 0), i64(plan.image_bytes))
            self._pack_kernel(tile)
            self._tiles()

    @property
    def sizes(self) -> list[int]:
        return [w.size for w in self.plan.windows]

    def table(self, offsets: Sequence[int]) -> Value:
        """The address of a table of offsets."""
        return self.b.module.constant_bytes(np.array(offsets, "<i8").tobytes(), align=8)

    def result(self, offset: Value) -> Value:
        return self.b.gep(scalar.memory_type(self.plan.out.dtype), self.out.pointer, offset)

    def element(self, base: Value, offset: Value) -> Value:
        return self.b.gep(self.type, base, offset)

    # The kernel, packed

    def _weight(self, window: Sequence[Value], channel: Value, feature: Value) -> Value:
        index = self.plan.kernel_index(self.b, channel, feature, window)
        return scalar.convert(self.b, self.k.input(1)(index), self.plan.rhs.dtype, self.plan.dtype)

    def _pack_kernel(self, tile: Tile) -> None:
        """Panels as a tile reads them: [group][panel][window place][input feature][output feature]."""
        plan, b, columns = self.plan, self.b, tile.columns
        if plan.group_outputs % columns:
            size = plan.kernel_bytes(self.k.target.vector_bytes)
            b.memset(self.kernel, integer("i8", 0), i64(size))
        panels = -(-plan.group_outputs // columns)
        groups = plan.groups * plan.batch_groups
        steps = [*self.sizes, plan.features]
        strides = row_major_strides([groups, panels, *steps, columns])

        def element(index: Index) -> None:
            group, *step, feature = index
            weight = self._weight(step[:-1], step[-1], b.add(b.mul(group, i64(plan.group_outputs)), feature))
            place = [group, b.udiv(feature, i64(columns)), *step, b.urem(feature, i64(columns))]
            b.store(weight, self.element(self.kernel, self._sum(place, strides)))

        if self.some is None:
            self.k.loop_nest([groups, *steps, plan.group_outputs], element)
            return
        first, end = self._some_features()

        def features(step: Index) -> None:
            with b.for_loop(first, end) as feature:
                element((i64(0), *step, feature))

        self.k.loop_nest(steps, features)

    def _some_features(self) -> tuple[Value, Value]:
        """The output features of the panels that a thread computes."""
        columns = self.plan.tile(self.k.target.vector_bytes, 1).columns
        first, end = (self.b.mul(panel, i64(columns)) for panel in self.some)
        return first, least(self.b, end, i64(self.plan.group_outputs))

    def _pack_expanded_kernel(self) -> None:
        """[window place][input feature][output feature]."""
        dims = [*self.sizes, self.plan.features, self.plan.outputs]
        strides = row_major_strides(dims)

        def element(index: Index) -> None:
            *window, channel, feature = index
            place = self.element(self.kernel, self._sum(index, strides))
            self.b.store(self._weight(window, channel, feature), place)

        self.k.loop_nest(dims, element)

    def _sum(self, index: Sequence[Value], strides: Sequence[int]) -> Value:
        total = i64(0)
        for value, stride in zip(index, strides, strict=True):
            total = self.b.add(total, self.b.mul(value, i64(stride)))
        return total

    # The images, copied

    def _copy_image(self, channels: Sequence[int], read: Callable[[list[Value], Index], Value]) -> None:
        """Puts an image's elements, read(place in the base, channel indices), where padding leaves them."""
        plan = self.plan
        ranges = [
            _visible(size, w, extent)
            for size, w, extent in zip(plan.base, plan.windows, plan.extent, strict=True)
        ]
        spatial = len(ranges)
        strides = [*plan.image_strides, *row_major_strides(channels)]

        def element(index: Index) -> None:
            place = [self.b.add(i, i64(first)) for i, (first, _) in zip(index, ranges)]
            target = [
                self.b.add(self.b.mul(i, i64(w.base_dilation)), i64(w.pad_low))
                for i, w in zip(place, plan.windows, strict=True)
            ]
            value = read(place, index[spatial:])
            self.b.store(value, self.element(self.images, self._sum([*target, *index[spatial:]], strides)))

        self.k.loop_nest([*(end - first for first, end in ranges), *channels], element)

    def _input(self, batch: Value, channel: Value, place: Sequence[Value]) -> Value:
        index = self.plan.input_index(batch, channel, place)
        return scalar.convert(self.b, self.k.input(0)(index), self.plan.lhs.dtype, self.plan.dtype)

    # Tiles of positions by output features

    def _begin_tiles(self) -> None:
        plan, b = self.plan, self.b
        self.sums = b.alloca(
            self.type, MOST_ROWS * plan.tile(self.k.target.vector_bytes, MOST_ROWS).columns, align=64
        )
        offsets, self.run = plan.runs()
        self.count, self.offsets = len(offsets), self.table(offsets)

    def _tiles(self) -> None:
        plan, b = self.plan, self.b
        rows = zip(plan.positions, plan.windows, plan.image_strides, plan.labels.output_spatial, strict=True)
        spatial = [(size, w.stride * stride, dimension) for size, w, stride, dimension in rows]
        if plan.is_direct:
            first = -sum(
                w.pad_low * stride for w, stride in zip(plan.windows, plan.image_strides, strict=True)
            )
            batch = (plan.images, plan.lhs.strides[plan.labels.input_batch], plan.labels.output_batch)
            self._groups(self.element(self.images, i64(first)), self.result(i64(0)), [batch, *spatial], None)
            return
        with (
            b.for_loop(0, plan.batch_groups, unroll=False) as group,
            b.for_loop(0, plan.images, unroll=False) as image,
        ):
            self.place = {plan.labels.output_batch: image}
            batch = b.add(image, b.mul(group, i64(plan.images)))
            self._copy_image(
                [plan.features * plan.groups], lambda place, at: self._input(batch, at[0], place)
            )
            self._groups(
                self.images,
                self.result(b.mul(image, i64(self.out_batch))),
                spatial,
                group if plan.batch_groups > 1 else None,
            )

    def _groups(
        self, image: Value, out: Value, positions: list[tuple[int, int, int]], batch_group: Value | None
    ) -> None:
        """All results of an image; `positions` are (size, stride in the image, dimension of the result)."""
        plan, b, strides = self.plan, self.b, self.plan.out.strides
        rows = max(range(len(positions)), key=lambda d: positions[d][0], default=None)
        row = (1, 0, None) if rows is None else positions[rows]
        others = [position for d, position in enumerate(positions) if d != rows]
        with ExitStack() as stack:
            group = stack.enter_context(b.for_loop(0, plan.groups, unroll=False))
            image = self.element(image, b.mul(group, i64(plan.features)))
            group = group if batch_group is None else batch_group
            out_type = scalar.memory_type(plan.out.dtype)
            out = b.gep(out_type, out, b.mul(group, i64(plan.group_outputs * self.out_feature)))
            for size, stride, dimension in others:
                at = self.place[dimension] = stack.enter_context(b.for_loop(0, size, unroll=False))
                image = self.element(image, b.mul(at, i64(stride)))
                out = b.gep(out_type, out, b.mul(at, i64(strides[dimension])))
            size, stride, dimension = row
            self._rows(image, out, (size, stride, strides[dimension] if dimension is not None else 0), group)
            if self.k.finisher is not None:
                self._finish_rows(size, dimension, group)

    def _finish_rows(self, size: int, dimension: int | None, group: Value) -> None:
        """Applies the epilogue to positions along a dimension, by all output features of a group."""
        plan, b, feature = self.plan, self.b, self.plan.labels.output_feature

        def one(at: Index) -> None:
            place = self.place | {feature: b.add(b.mul(group, i64(plan.group_outputs)), at[1])}
            if dimension is not None:
                place[dimension] = at[0]
            index = tuple(place[d] for d in range(plan.out.rank))
            self.k.store(index, [self.out.load(index)])

        stride = plan.out.strides[dimension] if dimension is not None else 0
        order = (0, 1) if stride >= self.out_feature else (1, 0)
        if self.some is None:
            self.k.loop_nest((size, plan.group_outputs), one, order)
            return
        loops = [(i64(0), i64(size)), self._some_features()]
        with self.b.for_loop(*loops[order[0]], unroll=False) as i, self.b.for_loop(*loops[order[1]]) as j:
            one((i, j) if order == (0, 1) else (j, i))

    def _rows(self, image: Value, out: Value, row: tuple[int, int, int], group: Value) -> None:
        """Positions along one dimension, in tiles of equal size: the last one may overlap the one before."""
        plan, b = self.plan, self.b
        size, stride, out_stride = row
        rows = tile_rows(size)
        with b.for_loop(0, -(-size // rows), unroll=False) as i:
            at = least(b, b.mul(i, i64(rows)), i64(size - rows))
            place = self.element(image, b.mul(at, i64(stride)))
            target = b.gep(scalar.memory_type(plan.out.dtype), out, b.mul(at, i64(out_stride)))
            self._panels(place, target, rows, (stride, out_stride), group)

    def _panels(self, image: Value, out: Value, rows: int, strides: tuple[int, int], group: Value) -> None:
        """One tile of rows, by all output features of a group."""
        plan, b = self.plan, self.b
        tile = plan.tile(self.k.target.vector_bytes, rows)
        whole, rest = divmod(plan.group_outputs, tile.columns)
        first = b.mul(group, i64(whole + bool(rest)))
        begin, end = self.some or (i64(0), i64(whole + bool(rest)))
        if whole:
            with b.for_loop(begin, least(b, end, i64(whole)), unroll=False) as panel:
                self._tile(tile, image, out, strides, (b.add(first, panel), panel, tile.columns))
        if rest:
            with b.if_then(b.icmp_signed(">", end, i64(whole))):
                self._tile(tile, image, out, strides, (b.add(first, i64(whole)), i64(whole), rest))

    def _tile(
        self, tile: Tile, image: Value, out: Value, strides: tuple[int, int], panel: tuple[Value, Value, int]
    ) -> None:
        """One tile; `panel` is (number in the packed kernel, number in the group, output features)."""
        plan, b = self.plan, self.b
        number, in_group, columns = panel
        weights = self.element(self.kernel, b.mul(number, i64(self.count * self.run * tile.columns)))
        target = b.gep(
            scalar.memory_type(plan.out.dtype), out, b.mul(in_group, i64(tile.columns * self.out_feature))
        )
        direct = plan.out.dtype is plan.dtype and self.out_feature == 1 and columns == tile.columns
        place, stride = (target, strides[1]) if direct else (self.sums, tile.columns)
        b.call(
            tile_routine(self.routines, tile),
            [
                image,
                i64(strides[0]),
                i64(1),
                weights,
                i64(self.run),
                self.offsets,
                i64(self.count),
                place,
                i64(stride),
                integer("i1", 0),
            ],
        )
        if not direct:
            sizes = (tile.rows, columns, tile.columns, strides[1], self.out_feature)
            b.call(self.unpack, [self.sums, target, *map(i64, sizes), integer("i1", 0)])


def _visible(size: int, window: WindowDim, extent: int) -> tuple[int, int]:
    """The range of base elements that negative padding leaves in the extent."""
    first = max(-(window.pad_low // window.base_dilation), 0)
    end = min((extent - 1 - window.pad_low) // window.base_dilation + 1, size)
    return first, max(end, first)
