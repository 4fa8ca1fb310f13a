"""Small convolutions, and those of types that have no vectors: plain loops."""

from __future__ import annotations

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.convolution_plan import ConvolutionPlan
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.products import multiply_accumulate
from hloc.codegen.routines import i64
from hloc.codegen.windows import WindowSpace


def plain_convolution(k: KernelContext, plan: ConvolutionPlan) -> None:
    """Loops over the result, the window, and the input features of the group."""

    def element(index: Index) -> None:
        k.store(index, [plain_element(k, plan, index)])

    k.loop_nest(plan.out.dims, element, plan.out.minor_to_major[::-1])


def plain_element(k: KernelContext, plan: ConvolutionPlan, index: Index) -> Register:
    """The result's element at an index.

    Padding and what lies between dilated elements are zeros that are multiplied too: times infinity they are NaN.
    """
    labels, dtype, b = plan.labels, plan.dtype, k.b
    lhs, rhs = k.input(0), k.input(1)
    nothing = scalar.zero(dtype)
    space = WindowSpace(plan.windows, plan.base, plan.positions)
    feature, batch = index[labels.output_feature], index[labels.output_batch]
    group = b.udiv(feature, i64(plan.group_outputs))
    if plan.batch_groups > 1:
        batch = b.add(batch, b.mul(group, i64(plan.images)))
    first = b.mul(group, i64(plan.features if plan.groups > 1 else 0))
    spatial = [index[d] for d in labels.output_spatial]

    def step(at: Index, sums: list[Register]) -> list[Register]:
        *window, channel = at
        place, inside = space.position(b, spatial, window)
        there = plan.input_index(batch, b.add(first, channel), place)

        def read() -> Register:
            return scalar.convert(b, lhs(there), plan.lhs.dtype, dtype)

        x = read() if inside is None else k.choose(inside, read, lambda: nothing)
        y = scalar.convert(b, rhs(plan.kernel_index(b, channel, feature, window)), plan.rhs.dtype, dtype)
        return [multiply_accumulate(b, dtype, x, y, sums[0])]

    def level(at: Index, sums: list[Register]) -> list[Register]:
        """A loop for each dimension: the parts of the index are wanted one by one."""
        if len(at) == len(steps):
            return step(at, sums)
        return k.reduce_loop([steps[len(at)]], sums, lambda index, carried: level((*at, *index), carried))

    steps = [*(window.size for window in plan.windows), plan.features]
    (total,) = level((), [nothing])
    return scalar.convert(b, total, dtype, plan.out.dtype)
