"""Convolutions whose input features are repeated in the copy of an image: one product an output feature."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from hloc.codegen import scalar
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value, vector_type, zero
from hloc.codegen.loops import row_major_strides
from hloc.codegen.products import multiply_add
from hloc.codegen.routines import i64

_UNROLLED = 16
"""Products of a sum that are written one by one: neighbouring positions share what they read."""

_POSITIONS = 4
"""Positions side by side whose sums are made together: each vector of the kernel is read once for them."""


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
