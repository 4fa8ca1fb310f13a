"""Fixes the order in which a module's instructions run."""

from __future__ import annotations

from hloc.analysis.effects import Effects
from hloc.analysis.flow import ENTRY, ComputationFlow, Rewritten, roles
from hloc.analysis.memory import ComputationMemory, peak_in_order, plan_of
from hloc.ir.computation import Computation
from hloc.ir.instruction import Instruction
from hloc.ir.module import Module
from hloc.passes.memory_order import orders, results_early
from hloc.passes.ordering import reorder


def run(module: Module) -> bool:
    """Orders every computation so that its peak of temporary memory is low, and marks the module as scheduled.

    Operands come before users and side effects keep their order. What reads an array comes before what
    changes it in place, where that is possible. Other than that the order stays as it was, unless one of the
    orders tried needs less memory: what frees most first, and depth first. What makes only results of the entry, the
    new weights of a training step, then runs as soon as it can, while its operands may still be in a cache, if that
    needs no more memory. Callees come before callers, so that the memory of calls is known.

    Requires: nothing.
    Ensures: `is_scheduled`; the order of the text is the order of execution.
    Leaves: everything but the order.
    """
    changed = not module.is_scheduled
    module.is_scheduled = True
    effects = Effects()
    for computation in module:
        changed |= reorder(computation, effects)
    plans: dict[Computation, ComputationMemory] = {}
    rewritten: dict[Computation, list[Rewritten]] = {}
    for computation, role in roles(module).items():
        flow = ComputationFlow(computation, role, rewritten)
        plan = plan_of(flow, plans)
        order = _better(flow, plan, plans, effects)
        if order is not None:
            computation.reorder(order)
            plan = plan_of(ComputationFlow(computation, role, rewritten), plans)
            changed = True
        plans[computation], rewritten[computation] = plan, plan.rewritten
    return changed


def _better(
    flow: ComputationFlow,
    plan: ComputationMemory,
    plans: dict[Computation, ComputationMemory],
    effects: Effects,
) -> list[Instruction] | None:
    """The order with the lowest peak, if that is lower than the present one or runs results earlier."""
    least, best = plan.peak, None
    if least == max(plan.called, default=0):
        return None
    for order in orders(flow, effects):
        found = peak_in_order(flow, order, plans)
        if found < least:
            least, best = found, order
    if flow.role != ENTRY:
        return best
    order = results_early(flow, best or flow.computation.instructions, effects)
    is_new = order != flow.computation.instructions
    return order if is_new and peak_in_order(flow, order, plans) <= least else best
