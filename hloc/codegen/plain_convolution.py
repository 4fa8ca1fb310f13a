"""Small convolutions, and those of types that have no vectors: plain loops."""

from __future__ import annotations

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.convolution_plan import ConvolutionPlan
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value
from hloc.codegen.products import multiply_accumulate
from hloc.codegen.registers import flattened, grouped
from hloc.codegen.routines import i64
from hloc.codegen.windows import WindowSpace


def plain_convolution(k: KernelContext, plan: ConvolutionPlan) -> None:
    """Loops over the result, the window, and the input features of the group."""
    labels, dtype, b = plan.labels, plan.dtype, k.b
    lhs, rhs, out = k.input(0), k.input(1), plan.out
    start = [scalar.zero(dtype)]
    space = WindowSpace(plan.windows, plan.base, plan.positions)

    def element(index: Index) -> None:
        feature, batch = index[labels.output_feature], index[labels.output_batch]
        group = b.udiv(feature, i64(plan.group_outputs))
        if plan.batch_groups > 1:
            batch = b.add(batch, b.mul(group, i64(plan.images)))
        first = b.mul(group, i64(plan.features if plan.groups > 1 else 0))

        def under_window(place: list[Value], window: list[Value], carried: list[Value]) -> list[Value]:
            def step(at: Index, sums: list[Register]) -> list[Register]:
                x = lhs(plan.input_index(batch, b.add(first, at[0]), place))
                y = rhs(plan.kernel_index(b, at[0], feature, window))
                x = scalar.convert(b, x, plan.lhs.dtype, dtype)
                y = scalar.convert(b, y, plan.rhs.dtype, dtype)
                return [multiply_accumulate(b, dtype, x, y, sums[0])]

            return flattened(k.reduce_loop([plan.features], grouped(carried, start), step))

        spatial = [index[d] for d in labels.output_spatial]
        (total,) = grouped(space.fold(b, spatial, flattened(start), under_window), start)
        k.store(index, [scalar.convert(b, total, dtype, out.dtype)])

    k.loop_nest(out.dims, element, out.minor_to_major[::-1])
