"""reduce: dimensions folded by a computation.

See `reductions` for how threads share the work. Sums of floats narrower than f32 are made in f32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from hloc.codegen.folds import Values
from hloc.codegen.gpu.context import GpuContext
from hloc.codegen.gpu.emitters import gpu_kernel
from hloc.codegen.gpu.fold_plan import FoldSpace, runs_of
from hloc.codegen.gpu.reductions import Fold, fold, loaded_size
from hloc.codegen.gpu.running import Running
from hloc.codegen.gpu.step import GpuStep
from hloc.codegen.kernel import Index
from hloc.codegen.llvm import Value
from hloc.codegen.reducers import Reducer
from hloc.codegen.routines import i64
from hloc.ir.instruction import Instruction


class _Plan:
    """What a reduce folds: its operand's kept and folded dimensions, in the order in which the space has them."""

    def __init__(self, instruction: Instruction):
        self.count = len(instruction.operands) // 2
        operand = instruction.operands[0].shape
        self.dims = operand.dims
        folded = set(instruction.get("dimensions"))
        self.results = [d for d in range(operand.rank) if d not in folded]
        self.reducer = Reducer.of(
            instruction.attributes["to_apply"], [o.shape.dtype for o in instruction.operands[: self.count]]
        )
        order = [d for d in reversed(operand.minor_to_major) if self.dims[d] != 1]
        given = order if self.reducer.operation is not None else [d for d in range(operand.rank) if self.dims[d] != 1]
        self.kept = [d for d in order if d not in folded]
        self.runs = runs_of([d for d in given if d in folded], order)
        last = max((position for position, d in enumerate(order) if d in folded), default=-1)
        lanes = prod(self.dims[d] for d in order[last + 1 :])
        self.space = FoldSpace(self.sizes(self.kept), tuple(map(self.sizes, self.runs)), lanes)

    def sizes(self, dims: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.dims[d] for d in dims)

    def index(self, kept: Index, folded: Index) -> Index:
        """An index of the operand."""
        index = [i64(0)] * len(self.dims)
        dims = [*self.kept, *(d for run in self.runs for d in run)]
        for dimension, value in zip(dims, [*kept, *folded], strict=False):
            index[dimension] = value
        return tuple(index)


def _scratch(instruction: Instruction) -> int:
    plan = _Plan(instruction)
    return plan.space.scratch_bytes([plan.reducer])


@gpu_kernel("reduce", element_operands="all", scratch=_scratch, takes_epilogue=lambda instruction: True)
def reduce(g: GpuStep, instruction: Instruction) -> None:
    plan = _Plan(instruction)

    def prepare(k: GpuContext, running: Running) -> Fold:
        def elements(kept: Index, folded: Index) -> Values:
            index = plan.index(kept, folded)
            return [plan.reducer.widen(k.b, [k.input(number)(index) for number in range(plan.count)])]

        def finish(kept: Index, totals: list[Value]) -> None:
            initial = plan.reducer.widen(k.b, [k.input(plan.count + number)(()) for number in range(plan.count)])
            (values,) = running.finish([initial], totals)
            index = plan.index(kept, ())
            k.store(tuple(index[d] for d in plan.results), values)

        return Fold(elements, finish)

    fold(g, plan.space, [plan.reducer], prepare, loaded_size(g, instruction.operands[0].shape))
