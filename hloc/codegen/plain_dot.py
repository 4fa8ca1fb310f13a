"""Products as plain loops over their results: small ones, and those of types that the routines do not know."""

from __future__ import annotations

from collections.abc import Sequence

from hloc.codegen import scalar
from hloc.codegen.arrays import Register
from hloc.codegen.kernel import Index, KernelContext
from hloc.codegen.llvm import Value
from hloc.codegen.products import multiply_accumulate
from hloc.ir.dtypes import DType
from hloc.ir.instruction import Instruction


def plain_dot(k: KernelContext, instruction: Instruction, dtype: DType) -> None:
    """Loops over the result; each element's sum in order of the contracting dimensions."""
    lhs, rhs = (operand.shape for operand in instruction.operands)
    lhs_batch, rhs_batch = instruction.get("lhs_batch_dims"), instruction.get("rhs_batch_dims")
    lhs_steps, rhs_steps = instruction.get("lhs_contracting_dims"), instruction.get("rhs_contracting_dims")
    batch = len(lhs_batch)
    lhs_free = [d for d in range(lhs.rank) if d not in (*lhs_batch, *lhs_steps)]
    rhs_free = [d for d in range(rhs.rank) if d not in (*rhs_batch, *rhs_steps)]
    sizes = [lhs.dims[d] for d in lhs_steps]

    def place(dims: Sequence[Sequence[int]], values: Sequence[Sequence[Value]]) -> Index:
        where = {d: v for ds, vs in zip(dims, values, strict=True) for d, v in zip(ds, vs, strict=True)}
        return tuple(where[d] for d in range(len(where)))

    def element(index: Index) -> None:
        lhs_index, rhs_index = index[batch : batch + len(lhs_free)], index[batch + len(lhs_free) :]

        def step(steps: Index, sums: list[Register]) -> list[Register]:
            x = k.input(0)(place((lhs_batch, lhs_free, lhs_steps), (index[:batch], lhs_index, steps)))
            y = k.input(1)(place((rhs_batch, rhs_free, rhs_steps), (index[:batch], rhs_index, steps)))
            x, y = scalar.convert(k.b, x, lhs.dtype, dtype), scalar.convert(k.b, y, rhs.dtype, dtype)
            return [multiply_accumulate(k.b, dtype, x, y, sums[0])]

        (total,) = k.reduce_loop(sizes, [scalar.constant(dtype, 0)], step)
        k.store(index, [scalar.convert(k.b, total, dtype, instruction.shape.dtype)])

    k.loop_nest(instruction.shape.dims, element, instruction.shape.minor_to_major[::-1])
