"""Convolutions whose input features are repeated in the copy of an image: one product an output feature."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from hloc.codegen import scalar
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value, integer, vector_type, zero
from hloc.codegen.products import multiply_add
from hloc.codegen.routines import i64


class ExpandedConvolution:
    """This part of the emitter of convolutions (`emitters/convolution.py`), which has all that it uses."""

    k: Any
    b: Any
    plan: Any

    def _expanded(self) -> None:
        plan, b = self.plan, self.b
        lanes = max(self.k.target.vector_bytes // plan.dtype.itemsize, 2)
        channels = range(plan.features)
        steps = [plan.offset(place) + c * plan.outputs for place in plan.window_places() for c in channels]
        self.offsets, self.count = self.table(steps), len(steps)
        labels = plan.labels
        with b.for_loop(0, plan.images, unroll=False) as image, ExitStack() as stack:
            self._copy_expanded(image)
            image_place, self.place = self.images, {labels.output_batch: image}
            rows = zip(plan.positions, plan.windows, plan.image_strides, labels.output_spatial, strict=True)
            for size, w, stride, dimension in rows:
                at = self.place[dimension] = stack.enter_context(b.for_loop(0, size, unroll=False))
                image_place = self.element(image_place, b.mul(at, i64(w.stride * stride)))
            self._output_features(image_place, lanes)
            if self.k.finisher is None:
                strides = plan.out.strides
                out = self.result(self._sum([*self.place.values()], [strides[d] for d in self.place]))
                sizes = (1, plan.outputs, plan.outputs, 0, self.out_feature)
                b.call(self.unpack, [self.sums, out, *map(i64, sizes), integer("i1", 0)])
            else:
                self.k.loop_nest([plan.outputs], self._finish_position)

    def _finish_position(self, at: Index) -> None:
        """Applies the epilogue to an output feature of a position whose sums are there."""
        plan = self.plan
        place = self.place | {plan.labels.output_feature: at[0]}
        total = scalar.load(self.b, plan.dtype, self.element(self.sums, at[0]))
        value = scalar.convert(self.b, total, plan.dtype, plan.out.dtype)
        self.k.store(tuple(place[d] for d in range(plan.out.rank)), [value])

    def _copy_expanded(self, image: Value) -> None:
        """An image with an element for each input feature of a group and each output feature."""
        plan, b = self.plan, self.b

        def read(place: list[Value], at: Index) -> Value:
            channel, group, _ = at
            if plan.batch_groups > 1:
                return self._input(b.add(image, b.mul(group, i64(plan.images))), channel, place)
            return self._input(image, b.add(channel, b.mul(group, i64(plan.features))), place)

        self._copy_image([plan.features, plan.groups * plan.batch_groups, plan.group_outputs], read)

    def _output_features(self, image: Value, lanes: int) -> None:
        """The sums of one position: by four vectors, by one, then one by one."""
        first = 0
        for vectors, width in ((4, lanes), (1, lanes), (1, 0)):
            step = vectors * max(width, 1)
            count = (self.plan.outputs - first) // step
            if count:
                with self.b.for_loop(i64(first), i64(first + count * step), step, unroll=False) as feature:
                    self._sum_products(image, feature, vectors, width)
            first += count * step

    def _sum_products(self, image: Value, feature: Value, vectors: int, width: int) -> None:
        b, plan = self.b, self.plan
        type, align = vector_type(self.type, width), plan.dtype.itemsize

        def load(start: Value, v: int) -> Value:
            return b.load(type, self.element(start, i64(v * width)), align=align)

        def step(s: Value, sums: list[Value]) -> list[Value]:
            offset = b.load("i64", b.gep("i64", self.offsets, s))
            x = self.element(self.element(image, offset), feature)
            y = self.element(self.element(self.kernel, b.mul(s, i64(plan.outputs))), feature)
            return [multiply_add(b, load(x, v), load(y, v), total) for v, total in enumerate(sums)]

        sums = b.for_loop_carrying(0, self.count, [zero(type)] * vectors, step)
        target = self.element(self.sums, feature)
        for v, total in enumerate(sums):
            b.store(total, self.element(target, i64(v * width)), align=align)
