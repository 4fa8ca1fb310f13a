"""What one run of a module costs: arithmetic and bytes moved, for each instruction and together.

Loops count as often as they turn, where that can be told; of a conditional the branch that costs most; slices,
gathers and updates in place by what they touch.
"""

from __future__ import annotations

from hloc.analysis.costs import InstructionCost, ModuleCost
from hloc.analysis.flops import is_opaque, work_of
from hloc.analysis.flow import roles
from hloc.analysis.run_counts import call_counts, is_kernel, trips_of
from hloc.analysis.traffic import needed_parts, traffic
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module


def cost_of(module: Module) -> ModuleCost:
    """The cost of a run of a module as it stands; of an optimized one, each instruction is a kernel."""
    order = list(roles(module))
    single = {c: [_cost(i, c) for i in c if is_kernel(i)] for c in order}
    times = _times(module, order, single)
    costs = tuple(cost._replace(times=times[c]) for c in order for cost in single[c])
    loops = [i for c in order for i in c if i.opcode == "while"]
    return ModuleCost(
        flops=sum(cost.times * cost.flops for cost in costs),
        transcendentals=sum(cost.times * cost.transcendentals for cost in costs),
        integer_ops=sum(cost.times * cost.integer_ops for cost in costs),
        bytes_accessed=sum(cost.times * cost.bytes_accessed for cost in costs),
        kernels=sum(cost.times for cost in costs),
        instructions=costs,
        unknown_loops=tuple(loop.name for loop in loops if trips_of(loop) is None),
        opaque_calls=tuple(i.name for c in order for i in c if is_opaque(i)),
    )


def _cost(instruction: Instruction, computation: Computation) -> InstructionCost:
    needs = needed_parts(instruction.called[0]) if instruction.opcode == "fusion" else None
    work, moved = work_of(instruction, needs), traffic(instruction, needs)
    metadata = instruction.metadata
    return InstructionCost(
        instruction.name,
        instruction.opcode,
        computation.name,
        (metadata.op_name if metadata is not None else None) or "",
        1,
        *work,
        sum(moved.operands) + moved.constants,
        moved.written,
    )


def _times(
    module: Module, order: list[Computation], single: dict[Computation, list[InstructionCost]]
) -> dict[Computation, int]:
    """How often each computation runs, callers before callees."""
    weights: dict[Computation, float] = {}
    chosen: dict[Instruction, dict[Computation, int]] = {}
    for computation in order:
        weight = sum(cost.flops + cost.transcendentals + cost.bytes_accessed for cost in single[computation])
        for instruction in computation:
            runs = call_counts(instruction)
            if instruction.opcode == "conditional":
                runs = {max(runs, key=weights.__getitem__): 1}
            chosen[instruction] = runs
            weight += sum(count * weights[callee] for callee, count in runs.items())
        weights[computation] = weight
    times = dict.fromkeys(order, 0)
    times[module.entry] = 1
    for computation in reversed(order):
        for instruction in computation:
            for callee, count in chosen[instruction].items():
                times[callee] += times[computation] * count
    return times
